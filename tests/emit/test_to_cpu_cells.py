"""Every cell of the package, compiled, against the reference in float64, also at odd sizes."""

from typing import Any

import pytest
import torch

from cellwright import Recurrent, use_target
from cellwright.cells import BY_NAME, CELLS
from cellwright.emit.to_cpu import Program
from cellwright.lang import Equations, Plan, with_reset
from tests.emit.test_to_cpu import compiled
from tests.problems import compare, problem

# Beside the defaults: what has states, products or sums of other kinds.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("jordan", {"decay": 0.5, "output_size": 3}),
    ("lstm", {"layer_norm": True, "cell_clip": 0.5}),
    ("grefflstm", {"full_gate_recurrence": True, "input_gate": False, "output_activation": False}),
    ("gru", {"layer_norm": True, "reset_after": False}),
    ("ligru", {"layer_norm": True}),
    ("qrnn", {"pooling": "ifo", "window": 3}),
    ("minlstm", {"positive": True}),
]
# Others have these; and it takes long to compile many rounds or layers.
ELSEWHERE = ("rnn", "lstm", "gru", "grefflstm")
SHORTER: dict[str, dict[str, Any]] = {"mogrifierlstm": {"rounds": 2}, "rhn": {"depth": 2}}
CASES = [(name, SHORTER.get(name, {})) for name in BY_NAME if name not in ELSEWHERE] + OPTIONS
IDS = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in CASES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_agrees_with_the_reference(name: str, options: dict[str, Any]) -> None:
    """H = 1, 3, 63 and 500 with one kernel; I = H, and I other than H."""
    for k, (I, H) in enumerate(((1, 1), (5, 3), (63, 63), (4, 500))):
        plan, *given = problem(BY_NAME[name](I, H, **options), 3, 3, False, True)
        state = given[2]
        if "n" in state:
            state["n"] = 1 + state["n"].abs()  # a normaliser is a sum of positive numbers, the largest of them 1
        compare(compiled(plan, *given, k % 2 == 1), plan, *given, k % 2 == 1)


def every_form() -> list[Equations]:
    """Each cell with each of its options at another value."""
    other: dict[str, Any] = {"pooling": "ifo", "window": 3, "heads": 2, "depth": 2, "rounds": 3}
    found: list[Equations] = []
    for kind in CELLS:
        found.append(kind(3, 4))
        for name, value in kind.defaults().items():
            changed = {bool: not value, str: "relu", float: 0.5, int: 2}[type(value)]
            found.append(kind(3, 4, **{name: other.get(name, changed)}))
    return found


def test_every_form_is_compiled() -> None:
    """None is refused, with resets or without, whatever the option."""
    for cell in every_form():
        for definition in (cell.definition(), with_reset(cell.definition())):
            assert Program(Plan(definition)).refusal is None, cell.options


@pytest.mark.parametrize("name", ["sru", "qrnn"])
def test_lengths_and_initial_states(name: str, assert_close: Any) -> None:
    """Outputs that no step reads, and what is kept of inputs: also in packed memory, and their first values."""
    layer = Recurrent(BY_NAME[name], 5, 6, bidirectional=True)
    x, lengths = torch.randn(4, 5, 5), [4, 0, 2, 3, 1]
    found = []
    for target in ("cpu", "torch"):
        leaf = x.clone().requires_grad_()
        states = [torch.full((2, 5, 6), 1.0 + k).requires_grad_() for k in range(len(layer.definitions[0].states))]
        with use_target(target):
            output, last = layer(leaf, tuple(states), lengths=lengths)
        loss = output.square().sum() + sum((s * (k + 1)).sum() for k, s in enumerate(last))
        gradients = torch.autograd.grad(loss, [leaf, *states, *layer.parameters()], allow_unused=True)
        found.append([output, *last, *gradients])
    names = ["output", *("last",) * len(states), "x", *layer.definitions[0].states, *dict(layer.named_parameters())]
    for what, got, want in zip(names, *found, strict=True):
        assert_close(what, got, want, 2e-5)
