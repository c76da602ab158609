"""The derivatives of every cell with its options, first and second order; `tests/nn/test_grid.py` adds wrappers."""

from typing import Any

import pytest
import torch

from cellwright import Recurrent, check_grads
from cellwright.cells import BY_NAME

F64 = torch.float64
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in BY_NAME),
    ("rnn", {"activation": "relu"}),
    ("lstm", {"proj_size": 2, "peephole": True}),
    ("lstm", {"coupled": True}),
    ("gru", {"reset_after": False}),
    ("lstm", {"layer_norm": True}),
    ("lstm", {"cell_clip": 0.4}),
    ("gru", {"layer_norm": True}),
    ("gru", {"layer_norm": True, "reset_after": False}),
    ("jordan", {"decay": 0.5, "output_size": 2}),
    *(("grefflstm", {f"{gate}_gate": False}) for gate in ("input", "forget", "output")),
    *(("grefflstm", {f"{side}_activation": False}) for side in ("input", "output")),
    ("grefflstm", {"full_gate_recurrence": True}),
    ("ligru", {"layer_norm": True}),
    ("rhn", {"coupled": False, "depth": 2}),
    *(("qrnn", {"pooling": pooling, "window": 3}) for pooling in ("f", "ifo")),
    ("mingru", {"positive": True}),
    ("minlstm", {"positive": True}),
    ("slstm", {"exp_forget": True, "heads": 2}),
]
IDS = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in CASES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_check_grads(name: str, options: dict[str, Any]) -> None:
    report = check_grads(BY_NAME[name], **options)
    definition = BY_NAME[name](3, 4, **options).definition()
    names = {check.name for check in report.checks}
    assert {
        "input x",
        *(f"weights {n}" for n in definition.params),
        *(f"state {n}" for n in definition.states),
    } == names


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_first_and_second_order(name: str, options: dict[str, Any]) -> None:
    """torch's gradcheck and gradgradcheck, along random directions, through a layer with lengths and resets."""
    layer = Recurrent(BY_NAME[name], 2, 4, dtype=F64, **options)
    names, weights = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(3, 2, 2, dtype=F64, requires_grad=True)
    call = {"lengths": [3, 2], "reset": torch.tensor([[0, 0], [0, 1], [0, 0]])}

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        output, state = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,), call)
        return torch.cat([output.flatten(), *(s.flatten() for s in (state if isinstance(state, tuple) else (state,)))])

    leaves = (x, *(w.detach().clone().requires_grad_() for w in weights))
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, atol=1e-4, fast_mode=True)
