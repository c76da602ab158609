"""The one place where cells and targets meet: a cell over all steps, in one direction, on the chosen target."""

import json
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..emit import to_torch
from ..emit.attention import Memory
from ..errors import TargetError
from ..lang import Definition, Plan, show, with_reset, with_valid
from .weights import whole

try:
    from ..emit import to_cpu
except ImportError as error:
    _no_cpu: str | None = f"{error}; pip install llvmlite"
else:
    _no_cpu = None

# Every target by its name: None, or why it is absent.
_TARGETS: dict[str, str | None] = {
    "torch": None,
    "cpu": _no_cpu,
    "triton": "GPU kernels are not part of this version; the target torch runs on a GPU too",
}
_chosen: list[str] = []


def available_targets() -> dict[str, str | None]:
    """The targets by name, each with None when it can be used, else with the reason why it is absent."""
    return dict(_TARGETS)


def cache_report() -> str:
    """Where compiled kernels are kept, and how many there are."""
    return "none" if _TARGETS["cpu"] else to_cpu.cache_report()


def bfloat16_report() -> str:
    """How products of bfloat16 are computed."""
    return "by torch" if _TARGETS["cpu"] else to_cpu.bfloat16_report()


def current_target() -> str:
    """The target in use: what `use_target` chose, else the environment's CELLWRIGHT_TARGET, else the default.

    The default is "cpu" where it is available; what it cannot do (other dtypes and devices, double backward through
    torch.func, ...) then runs on "torch".
    """
    return _demanded() or ("torch" if _TARGETS["cpu"] else "cpu")


def _demanded() -> str | None:
    """The target that was asked for by name."""
    if _chosen:
        return _chosen[-1]
    name = os.environ.get("CELLWRIGHT_TARGET")
    return _known(name) if name else None


class use_target:  # noqa: N801 (it is called like a function)
    """Choose the target that runs the cells: `use_target("torch")`, for good or for a `with` block.

    TargetError when there is no such target, or when it is absent; `cellwright doctor` lists them.
    """

    def __init__(self, name: str) -> None:
        self._before = list(_chosen)
        _chosen[:] = [_known(name)]

    def __enter__(self) -> "use_target":
        return self

    def __exit__(self, *error: Any) -> None:
        _chosen[:] = self._before


def _known(name: str) -> str:
    if name not in _TARGETS:
        raise TargetError(f"got the target {name!r}, expected one of {', '.join(_TARGETS)}")
    if reason := _TARGETS[name]:
        raise TargetError(f"the target {name!r} is absent: {reason}; use 'torch'")
    return name


class Program:
    """A definition with its plans, one per combination of masks, made when first needed."""

    def __init__(self, definition: Definition) -> None:
        self.definition, self.masks = definition, definition.masks
        # Graphs of torch.compile name the cell by this; a string of long standing costs their guards nothing.
        self.form = json.dumps(definition.to_json(), separators=(",", ":"))
        self.looks = any(node.op == "attend" for node in definition.graph.nodes)
        self.has_heads = any(param.heads > 1 for param in definition.params.values())
        self._plans: dict[tuple[bool, bool], Plan] = {}
        self._compiled: dict[bool, to_cpu.Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code belongs to this process.
        return vars(self) | {"_plans": {}, "_compiled": {}}

    def plan(self, reset: bool, valid: bool) -> Plan:
        """The plan with the masks that are in use."""
        if (reset, valid) not in self._plans:
            definition = with_reset(self.definition) if reset else self.definition
            self._plans[reset, valid] = Plan(with_valid(definition) if valid else definition)
        return self._plans[reset, valid]

    def compiled(self, reset: bool) -> "to_cpu.Program":
        """The plan for sequences that begin anew within, or not, compiled."""
        if reset not in self._compiled:
            self._compiled[reset] = to_cpu.Program(self.plan(reset, False))
        return self._compiled[reset]


def source(programs: Mapping[str, Program], target: str | None) -> str:
    """What a target runs for some cells, by the names of their places: each form of cell once.

    "cpu": the LLVM modules that training on float32 inputs compiles; they serve all sizes. "torch": the equations and
    their plan, which it follows step by step. None: the target in use. TargetError: there is no such target, it is
    absent, or it cannot run the cell.
    """
    target = current_target() if target is None else _known(target)
    places: dict[Hashable, list[str]] = {}
    parts: dict[Hashable, list[tuple[str, str]]] = {}
    for place, program in programs.items():
        if target == "torch":
            found = [("", show.text(program.definition))]
            key: Hashable = found[0][1]
        else:
            compiled = program.compiled(False)
            if compiled.refusal:
                name = program.definition.name
                raise TargetError(f"the target 'cpu' cannot run {name}: {compiled.refusal}; use the target 'torch'")
            key = compiled.form
            found = parts[key] if key in parts else [(f", {k}", text) for k, text in compiled.source().items()]
        parts[key] = found
        places.setdefault(key, []).append(f"{program.definition.name} {place}".strip())
    mark = {"torch": "#", "cpu": ";"}[target]
    return "\n".join(
        f"{mark} {' and '.join(places[key])}{what}\n{text.strip()}\n" for key in parts for what, text in parts[key]
    )


@dataclass(frozen=True)
class Scanned:
    """What a scan gives.

    output: [T, B, O], zero in the padding.
    states: the states after every step, [T, B, units] by name; empty unless asked for.
    last: the states after the last (valid) step, [B, units] by name.
    named: the values that the equations name, [T, B, units], anything in the padding; empty unless asked for.
    weights: those of the positions of a memory, [T, B, S], zero in the padding; empty without a memory.
    """

    output: Tensor
    states: dict[str, Tensor]
    last: dict[str, Tensor]
    named: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor = field(default_factory=lambda: torch.empty(0))


def scan(
    program: Program,
    weights: Mapping[str, Tensor],
    x: Tensor,
    state: dict[str, Tensor],
    *,
    reverse: bool = False,
    valid: Tensor | None = None,
    reset: Tensor | None = None,
    masks: Mapping[str, Tensor] | None = None,
    every: bool = False,
    named: bool = False,
    memory: Memory | None = None,
) -> Scanned:
    """Run a cell over all steps.

    Args:
        program: the cell.
        weights: by their names in the definition.
        x: [T, B, I], or integers [T, B] for one-hot vectors.
        state: before the first step, [B, units] each.
        reverse: from the last step to the first.
        valid: [T, B] of bool; false: padding, the states stay as they were and the output is zero.
        reset: [T, B] of bool; true: a new sequence begins here. The state does not pass between this step and the
            one before it, in either direction of time.
        masks: the other inputs of the equations, [T, B, units] by name.
        every: also give all states after every step.
        named: also give the values that the equations name, at every step; the reference target computes them.
        memory: for equations that look into one.
    """
    if program.has_heads:
        weights = whole(program.definition, weights)
    like = next(iter(state.values()))
    T = x.shape[0]  # len(x) would tie a graph of torch.export to this number
    traced = torch.compiler.is_compiling()
    if valid is not None and not traced and not valid.any():
        x, valid, reset = x[:0], None, None
    inputs = {"x": x} | {name: (masks or {})[name] for name in program.masks}
    if reset is not None:
        if valid is not None:
            reset = reset & valid
        if reverse:
            # Against time, the state passes from step t + 1 to t; what begins at t + 1 must not be seen at t.
            reset = torch.cat([reset[1:], torch.zeros_like(reset[:1])])
        inputs["reset"] = reset.unsqueeze(-1).to(like.dtype)
    if not T or not x.shape[0] or not x.shape[1]:
        same = {name: s.expand(T, *s.shape) for name, s in state.items()}
        # No step, so zero gradients; but gradients, as a training loop asks for them.
        output = sum(
            (w.flatten()[:0].sum() for w in (*weights.values(), x, *(memory.tensors.values() if memory else ()))),
            torch.zeros_like(next(iter(same.values()))),
        )
        graph, names = program.definition.graph, program.definition.names() if named else {}
        none = {name: like.new_zeros(T, len(like), graph.sizes[graph.nodes[i].size]) for i, name in names.items()}
        looked = like.new_zeros(T, len(like), 0 if memory is None else len(memory.keys))
        return Scanned(output, same if every else {}, dict(state), none, looked)
    fused, masked, seen, attended = None, False, {}, None
    tensors = [*inputs.values(), *state.values(), *weights.values(), *(memory.tensors.values() if memory else ())]
    compiles = not named and _compiles(program, reset is not None, tensors)
    if compiles and traced:
        fused = to_cpu.scan_traced(program.form, program.definition, weights, inputs, state, reverse, valid, every)
    elif compiles:
        try:
            # Kernels leave the padding out instead of masking it.
            masked = valid is not None and not every
            compiled = program.compiled(reset is not None)
            *both, attended = to_cpu.scan_with_memory(compiled, weights, inputs, state, reverse, valid, masked, memory)
            fused = both[0], both[1]
        except TargetError as error:
            if _demanded():
                raise
            masked = False
            _TARGETS["cpu"] = str(error)
            warnings.warn(f"{error}; the reference target runs instead, slowly", stacklevel=2)
    if fused is not None:
        states, last = fused
    else:
        if valid is not None:
            inputs |= {"x": _filled(x, valid), "valid": valid.unsqueeze(-1).to(like.dtype)}
        if traced:
            _plan_forward(program, reset is not None, valid is not None)
        plan = program.plan(reset is not None, valid is not None)
        names = plan.definition.names() if named else {}
        done = to_torch.run(plan, weights, inputs, state, reverse, tuple(names), memory)
        attended = torch.stack(done.attended) if done.attended else None
        lists, seen = done.states, {names[i]: torch.stack(values) for i, values in done.nodes.items()}
        wanted = list(lists) if every else list(lists)[:1]
        states = {name: torch.stack(lists[name]) for name in wanted}
        last = {name: values[0 if reverse else -1] for name, values in lists.items()}
    output = next(iter(states.values()))
    if valid is not None and not masked:
        output = output.masked_fill(~valid.unsqueeze(-1), 0.0)
        attended = None if attended is None else attended.masked_fill(~valid.unsqueeze(-1), 0.0)
    return Scanned(output, states if every else {}, last, seen, like.new_empty(0) if attended is None else attended)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _plan_forward(program: Program, reset: bool, valid: bool) -> bool:
    """Make a plan before torch.compile looks at it: planning is no part of a graph."""
    return bool(program.plan(reset, valid).forward)


def _compiles(program: Program, reset: bool, tensors: list[Tensor]) -> bool:
    """Whether the target "cpu" runs this call. TargetError: it was asked for by name and cannot."""
    demanded = _demanded()
    if demanded == "torch" or _TARGETS["cpu"]:
        return False
    reason: str | None
    if torch.compiler.is_compiling() and program.looks:
        reason = "a graph of torch.compile has no operator for attention"
    elif torch.compiler.is_compiling():
        reason = to_cpu.refusal_of_tensors(tensors) or to_cpu.refusal_of(program.form, len(program.masks) + reset)
    else:
        reason = to_cpu.refusal(program.compiled(reset), tensors)
    if reason and demanded:
        raise TargetError(f"the target 'cpu' cannot run this: {reason}; use the target 'torch'")
    return not reason


def compiled_programs(programs: Sequence[Program], tensors: list[Tensor]) -> "list[to_cpu.Program] | None":
    """The layers' plans, compiled; None where the reference target runs one of them."""
    try:
        if not all(_compiles(program, False, tensors) for program in programs):
            return None
    except TargetError:
        return None
    return [program.compiled(False) for program in programs]


def _filled(x: Tensor, valid: Tensor) -> Tensor:
    """x with its padding, which may hold anything, filled with valid inputs: of the same sequence where it has one.

    What the cell computes there is not used, but it must be finite, as its gradient is multiplied by zero.
    """
    lengths = valid.sum(0)
    rows = torch.arange(len(lengths), device=x.device)
    rows = torch.where(lengths > 0, rows, lengths.argmax())
    steps = torch.arange(len(x), device=x.device).unsqueeze(1)
    steps = torch.minimum(steps, lengths[rows] - 1)
    return torch.where(valid if x.dim() == 2 else valid.unsqueeze(-1), x, x.detach()[steps, rows])
