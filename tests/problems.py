"""Cells, inputs and gradients for compiled targets, and what the reference makes of them."""

from typing import Any

import torch
from torch import Tensor

from cellwright import Equations, log, tanh
from cellwright.cells import GRU, LSTM, Elman
from cellwright.emit.to_cpu import Program, scan
from cellwright.emit.to_torch import run, run_back
from cellwright.lang import Plan, with_reset, with_valid

F64 = torch.float64


class Norms(Equations):
    """Row sums, several products and sizes, a state that decays by itself."""

    states = {"h": "hidden_size", "c": "hidden_size", "s": "small_size"}
    small_size = 3

    def step(self, x: Any, h: Any, c: Any, s: Any) -> Any:
        a, b = self.norm("n m", self.linear("a b", x) + self.linear("a b", h))
        q = self.linear("q", tanh(a) * c, matrix="q")
        c = 0.9 * c + tanh(q) * self.scale("p", b)
        h = tanh(c + self.linear("s", s, matrix="s"))
        return h, c, 0.5 * s + self.linear("o", h * a, matrix="o", size="small_size")


class Logarithm(Equations):
    """The operand of a product is -inf where a state is zero: in the lanes of a register beyond the last unit."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return 1.5 + tanh(self.linear("a", log(h * h)) + self.linear("b", x))


class Apart(Equations):
    """States that do not pass through the loop: no step reads y, nothing recurrent is in `last`, and k is h."""

    states = {"y": "small_size", "h": "hidden_size", "k": "hidden_size", "last": "hidden_size"}
    small_size = 3

    def step(self, x: Any, y: Any, h: Any, k: Any, last: Any) -> Any:
        a, b = self.linear("a b", x)
        h = tanh(a + last + self.linear("a", h) * k)
        return self.linear("y", h, matrix="y", size="small_size"), h, h, b


CELLS: dict[str, Any] = {
    **{
        f"elman {name}": lambda i, h, name=name: Elman(i, h, activation=name)
        for name in ("tanh", "relu", "gelu", "elu")
    },
    "lstm": LSTM,
    "lstm peephole coupled": lambda i, h: LSTM(i, h, peephole=True, coupled=True),
    "lstm projected": lambda i, h: LSTM(i, h, proj_size=(h + 1) // 2) if h > 1 else LSTM(i, h),
    "lstm one bias": lambda i, h: LSTM(i, h, bias="input"),
    "gru": GRU,
    "gru before": lambda i, h: GRU(i, h, reset_after=False),
    "norms": Norms,
    "apart": Apart,
}


def problem(cell: Equations, T: int, B: int, whole: bool, masks: bool) -> tuple[Plan, Any, Any, Any, Any]:
    definition = with_valid(with_reset(cell.definition())) if masks else cell.definition()
    scale = definition.sizes["hidden_size"] ** -0.5
    weights = {n: torch.randn(p.shape(definition.sizes)) * scale for n, p in definition.params.items()}
    I = definition.input_size
    inputs = {"x": torch.randint(0, I, (T, B)) if whole else torch.randn(T, B, I)}
    if masks:
        inputs |= {"valid": (torch.rand(T, B, 1) > 0.3).float(), "reset": (torch.rand(T, B, 1) > 0.7).float()}
    state = {n: torch.randn(B, definition.state_size(n)) for n in definition.states}
    seeds = {n: torch.randn(T, B, definition.state_size(n)) for n in definition.states}
    return Plan(definition), weights, inputs, state, seeds


def reference(plan: Plan, weights: Any, inputs: Any, state: Any, seeds: Any, reverse: bool, dtype: torch.dtype) -> Any:
    def to(values: Any) -> Any:
        return {n: v.to(dtype) if v.is_floating_point() else v for n, v in values.items()}

    weights, inputs, state, seeds = map(to, (weights, inputs, state, seeds))
    record = run(plan, weights, inputs, state, reverse, plan.backward.saved)
    g = run_back(plan, weights, inputs, state, record, seeds, reverse)
    whole = not inputs["x"].is_floating_point()
    gradients = g.weights | g.states | ({} if whole else g.inputs)
    states = {f"state {n}": torch.stack(s) for n, s in record.states.items()}
    return states | {f"gradient {n}": v for n, v in gradients.items()}


def states_by_threads(plan: Plan, weights: Any, inputs: Any, state: Any) -> list[dict[str, Tensor]]:
    """The compiled states after every step, with 1, 2 and 3 threads."""
    program, results = Program(plan), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                results.append(scan(program, weights, inputs, state, False)[0])
    finally:
        torch.set_num_threads(1)
    return results


def compare(got: dict[str, Tensor], plan: Plan, *given: Any) -> None:
    """The error against float64 is at most twice that of the reference in float32 (and a few roundings)."""
    want, plain = reference(plan, *given, F64), reference(plan, *given, torch.float32)
    assert set(got) <= set(want)
    for name, value in got.items():
        scale = max(1.0, want[name].abs().max().item())
        error, usual = ((v.double() - want[name]).abs().max().item() / scale for v in (value, plain[name]))
        assert error <= 2 * usual + 1e-6, f"{name}: error {error:.2e}, the reference in float32 {usual:.2e}"
