"""`check_grads`: proof that the gradients of a cell are those of its equations."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..emit.attention import Memory
from ..emit.to_torch import Gradients, run, run_back
from ..errors import GradientError, OptionError
from ..lang import Definition, Equations, Plan
from .attentive import Attentive
from .recurrent import Recurrent
from .scan import Program
from .weights import whole

STEPS, BATCH = 4, 3
POSITIONS, FEATURES = 5, 2  # of a memory
STEP_SIZE = 1e-6
FIRST_STEP, SHRINK, ROWS = 1e-2, 4, 12  # where it takes more than one
TOLERANCE = 1e-6  # of the slope along a random direction; central differences in float64 leave about 1e-9


@dataclass(frozen=True)
class Check:
    """One tensor in one case: the slope by finite differences, and by how much each gradient misses it, relatively."""

    case: str
    name: str
    slope: float
    planned: float
    autograd: float

    @property
    def ok(self) -> bool:
        """Whether both gradients agree (a NaN does not)."""
        return self.planned <= TOLERANCE and self.autograd <= TOLERANCE


@dataclass(frozen=True)
class Report:
    """The checks of one cell; prints as a table."""

    cell: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all gradients agree."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{self.cell}: gradients against finite differences, relative error along random directions"]
        for c in self.checks:
            verdict = "ok" if c.ok else "WRONG"
            lines.append(
                f"  {c.case:<22} {c.name:<14} slope {c.slope:+.6e}   planned {c.planned:.1e}"
                f"   autograd {c.autograd:.1e}   {verdict}"
            )
        return "\n".join(lines)


def check_grads(
    cell: type[Equations] | Equations | Recurrent | Attentive,
    input_size: int = 3,
    hidden_size: int = 4,
    *,
    seed: int = 0,
    **options: Any,
) -> Report:
    """Prove the gradient of a cell: compare it with finite differences, in float64, over several steps.

    Two gradients are checked, that of the language (which compiled targets use) and torch's through the reference
    target; with respect to input, initial states, every weight and a memory; plainly, with lengths and resets, and
    against time. Layers are checked with their wrappers, in training with random masks and as they are in evaluation.

    Args:
        cell: a class of cells (with sizes and options), a cell, layers, or a cell with attention.
        input_size, hidden_size: I and H, for a class.
        seed: of the random values and directions.
        options: of the cell, for a class.

    Returns:
        A report, which prints as a table. GradientError holds the same table when a gradient is wrong.
    """
    if isinstance(cell, type) and issubclass(cell, Equations):
        definitions = {"": cell(input_size, hidden_size, **options).definition()}
    elif isinstance(cell, Equations):
        definitions = {"": cell.definition()}
    elif isinstance(cell, Attentive):
        definitions = {"": cell.attended.program(True).definition, "eval ": cell.attended.program(False).definition}
        definitions = definitions if definitions[""] != definitions["eval "] else {"": definitions[""]}
    elif isinstance(cell, Recurrent):
        definitions = {f"l{k} " if k else "": d for k, d in enumerate(cell.equations(True))}
        evaluated = enumerate(cell.equations(False))
        definitions |= {f"l{k} eval ": d for k, d in evaluated if d not in definitions.values()}
    else:
        raise OptionError(
            f"got {cell!r} to check, expected a class of cells, a cell, or a Recurrent or Attentive layer"
        )
    checks = [c for k, (prefix, d) in enumerate(definitions.items()) for c in _check(d, seed + k, prefix)]
    report = Report(definitions[""].name, tuple(checks))
    if not report.ok:
        raise GradientError(f"gradients do not agree with finite differences\n{report}")
    return report


def _check(definition: Definition, seed: int, prefix: str) -> list[Check]:
    program = Program(definition)
    checks = []
    for case, masks, reverse in (
        ("plain", False, False),
        ("lengths, resets", True, False),
        ("against time", False, True),
    ):
        generator = torch.Generator().manual_seed(seed)
        plan = program.plan(masks, masks)
        checks += _check_case(plan, prefix + case, masks, reverse, generator)
    return checks


def _check_case(plan: Plan, case: str, masks: bool, reverse: bool, generator: torch.Generator) -> list[Check]:
    definition = plan.definition

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = definition.sizes
    point = {f"weights {n}": 0.5 * random(*p.shape(sizes)) for n, p in definition.params.items()}
    point |= {f"state {n}": random(BATCH, definition.state_size(n)) for n in definition.states}
    point["input x"] = random(STEPS, BATCH, definition.input_size)
    looks = [node for node in definition.graph.nodes if node.op == "attend"]
    for node in looks:
        units = sizes[definition.graph.nodes[node.args[0]].size]
        point |= {"memory keys": random(POSITIONS, BATCH, units)}
        point |= {"memory values": random(POSITIONS, BATCH, sizes[node.name])}
        point |= {"memory energy": random(units)} if node.part == "additive" else {}
    filled = (torch.arange(POSITIONS).unsqueeze(1) < torch.tensor([POSITIONS, 2, 0])) if masks else None
    size = {node.name: sizes[node.size] for node in definition.graph.nodes if node.op == "input"}
    fixed = {
        name: 1.25 * (torch.rand(STEPS, BATCH, size[name], generator=generator) < 0.6).double()
        for name in definition.masks
    }
    if masks:
        fixed["valid"] = (torch.arange(STEPS).view(-1, 1, 1) < torch.tensor([STEPS, 2, 0]).view(1, -1, 1)).double()
        fixed["reset"] = (torch.rand(STEPS, BATCH, 1, generator=generator) < 0.4).double()
        fixed["reset"][1, 0] = 1.0  # one at least that is not in the padding
    seeds = {n: random(STEPS, BATCH, definition.state_size(n)) for n in definition.states}
    seed = random(STEPS, BATCH, POSITIONS) if looks else None

    def group(kind: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n.split(" ", 1)[1]: v for n, v in values.items() if n.startswith(kind + " ")}

    def memory(values: dict[str, Tensor]) -> Memory | None:
        return Memory(**group("memory", values), valid=filled) if looks else None

    def call(values: dict[str, Tensor]) -> Any:
        inputs = group("input", values) | fixed
        weights = whole(definition, group("weights", values))
        return run(plan, weights, inputs, group("state", values), reverse, plan.backward.saved, memory(values))

    def to_target(name: str, direction: Tensor) -> Tensor:
        kind, own = name.split(" ", 1)
        return whole(definition, group("weights", point) | {own: direction})[own] if kind == "weights" else direction

    def loss(values: dict[str, Tensor]) -> Tensor:
        done = call(values)
        total = torch.stack([(torch.stack(done.states[n]) * g).sum() for n, g in seeds.items()]).sum()
        return total if seed is None else total + (torch.stack(done.attended) * seed).sum()

    def moved(name: str, value: Tensor) -> Tensor:
        return loss(point | {name: value})

    with torch.no_grad():
        inputs, state = group("input", point) | fixed, group("state", point)
        weights, done = whole(definition, group("weights", point)), call(point)
        planned = run_back(plan, weights, inputs, state, done, seeds, reverse, memory(point), seed)
    leaves = {name: value.clone().requires_grad_() for name, value in point.items()}
    total = loss(leaves)
    autograd: dict[str, Tensor | None] = dict.fromkeys(leaves)
    if total.requires_grad:
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        autograd = dict(zip(leaves, found, strict=True))
    return [
        _compared(
            case,
            name,
            _along(_named(planned, name), to_target(name, direction)),
            _along(autograd[name], direction),
            Line(partial(moved, name), value, direction),
        )
        for name, value in point.items()
        for direction in [random(*value.shape)]
    ]


def _named(gradients: Gradients, name: str) -> Tensor | None:
    kind, name = name.split(" ", 1)
    states, inputs, memory = gradients.states, gradients.inputs, gradients.memory
    return {"weights": gradients.weights, "state": states, "input": inputs, "memory": memory}[kind].get(name)


def _along(gradient: Tensor | None, direction: Tensor) -> float:
    return 0.0 if gradient is None else float((gradient * direction).sum())


def _compared(case: str, name: str, planned: float, autograd: float, line: "Line") -> Check:
    """Two slopes beside that of the line itself, which is looked at again, and closely, where it is not theirs."""
    check = _beside(case, name, planned, autograd, line.slope(STEP_SIZE))
    return check if check.ok else _beside(case, name, planned, autograd, line.limit())


def _beside(case: str, name: str, planned: float, autograd: float, slope: float) -> Check:
    scale = max(abs(slope), 1.0)
    return Check(case, name, slope, abs(planned - slope) / scale, abs(autograd - slope) / scale)


@dataclass(frozen=True)
class Line:
    """f along a line through a point."""

    f: Callable[[Tensor], Tensor]
    at: Tensor
    direction: Tensor

    @torch.no_grad()
    def slope(self, step: float) -> float:
        """By central differences."""
        ahead, behind = self.f(self.at + step * self.direction), self.f(self.at - step * self.direction)
        return float(ahead - behind) / (2 * step)

    def limit(self) -> float:
        """By central differences with smaller and smaller steps, extrapolated to none; of all estimates the one that
        agrees best with the two that it is made of.

        Large steps are right where the function is large and rounded, small ones beside a pole or a kink.

        Ridders 1982, Accurate computation of F'(x) and F'(x) F''(x).
        """
        row: list[float] = []
        best, least = math.nan, math.inf
        for k in range(ROWS):
            above, row = row, [self.slope(FIRST_STEP / SHRINK**k)]
            for j, before in enumerate(above):
                weight = SHRINK ** (2 * (j + 1))
                row.append((weight * row[j] - before) / (weight - 1))
                error = max(abs(row[-1] - row[j]), abs(row[-1] - before))
                if error < least:
                    best, least = row[-1], error
        return best
