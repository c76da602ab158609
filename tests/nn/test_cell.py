"""One cell, called one step at a time; targets; and the proof of gradients, first and second order."""

from typing import Any

import pytest
import torch

import cellwright
from cellwright import (
    ACTIVATIONS,
    Cell,
    CellError,
    GradientError,
    GRUCell,
    InputError,
    LSTMCell,
    OptionError,
    Recurrent,
    RNNCell,
    TargetError,
    check_grads,
    current_target,
    sigmoid,
    tanh,
    use_target,
)
from cellwright.lang import ops

F64 = torch.float64


class Mine(Cell):
    """A cell as a user writes it."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        z, n = self.linear("z n", x) + self.linear("z n", h)
        return h + sigmoid(z) * (tanh(n) - h)


CASES: list[tuple[type[Cell], dict[str, Any]]] = [
    *((RNNCell, {"activation": name}) for name in ACTIVATIONS),
    *(
        (LSTMCell, {"peephole": p, "coupled": c, "proj_size": n, "forget_bias": 1.0})
        for p in (False, True)
        for c in (False, True)
        for n in (0, 2)
    ),
    (GRUCell, {"reset_after": True}),
    (GRUCell, {"reset_after": False}),
    (LSTMCell, {"bias": "input"}),
    (LSTMCell, {"bias": False}),
    (Mine, {}),
]
IDS = [f"{c.__name__} {' '.join(f'{k}={v}' for k, v in o.items())}" for c, o in CASES]


@pytest.mark.parametrize(("cell", "options"), CASES, ids=IDS)
def test_first_and_second_order(cell: type[Cell], options: dict[str, Any]) -> None:
    """torch's gradcheck and gradgradcheck through layers, with lengths and resets, in both directions."""
    layer = Recurrent(cell, 2, 3, bidirectional=True, dtype=F64, **options)
    names, weights = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(3, 2, 2, dtype=F64, requires_grad=True)
    reset = torch.tensor([[0, 0], [0, 1], [0, 0]])

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        call = {"lengths": [3, 2], "reset": reset}
        output, state = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,), call)
        return torch.cat([output.flatten(), *(s.flatten() for s in (state if isinstance(state, tuple) else (state,)))])

    leaves = (x, *(w.detach().clone().requires_grad_() for w in weights))
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves, atol=1e-4)


@pytest.mark.parametrize(("cell", "options"), CASES, ids=IDS)
def test_check_grads(cell: type[Cell], options: dict[str, Any]) -> None:
    report = check_grads(cell, **options)
    assert report.ok
    names = {check.name for check in report.checks}
    assert {f"weights {n}" for n in cell(3, 4, **options).definition().params} <= names
    assert {"input x", "state h"} <= names


def test_check_grads_takes_cells_and_layers() -> None:
    assert check_grads(LSTMCell(3, 40)).ok
    report = check_grads(Recurrent([LSTMCell(3, 5), Mine(5, 2)]))
    assert any(check.case.startswith("l1 ") for check in report.checks)
    assert "slope" in str(report)
    with pytest.raises(OptionError, match="expected a class of cells"):
        check_grads(torch.nn.Linear(2, 3))  # type: ignore[arg-type]


def test_check_grads_finds_a_wrong_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ops.Op("tanh", 1, ops.OPS["tanh"].meaning, lambda g, y, a: (g * (1 - y),))
    monkeypatch.setitem(ops.OPS, "tanh", wrong)
    with pytest.raises(GradientError, match="WRONG"):
        check_grads(Mine)


def test_check_grads_finds_a_nan() -> None:
    class Undefined(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return cellwright.log(self.linear("a", x) - 100) + h

    with pytest.raises(GradientError, match="WRONG"):
        check_grads(Undefined)


def test_steps_are_the_layer() -> None:
    for cell in (Mine(3, 4), LSTMCell(3, 4, proj_size=2), GRUCell(3, 4)):
        layer, x, state = Recurrent([cell]), torch.randn(5, 2, 3), None
        steps = []
        for value in x:
            output, state = cell(value, state)
            steps.append(output)
        assert torch.allclose(torch.stack(steps), layer(x)[0], atol=1e-6)


def test_single_rows_and_integers() -> None:
    cell = LSTMCell(3, 4)
    x = torch.randn(2, 3)
    output, (h, c) = cell(x)
    single, (h0, c0) = cell(x[0])
    assert torch.allclose(single, output[0], atol=1e-7)
    assert single.shape == h0.shape == c0.shape == (4,)
    assert torch.allclose(cell(x[0], (h0, c0))[0], cell(x, (h, c))[0][0], atol=1e-7)
    assert torch.allclose(cell(torch.tensor([2, 0]))[0], cell(torch.eye(3)[[2, 0]])[0], atol=1e-7)
    assert cell(torch.tensor(2))[0].shape == (4,)


def test_a_cell_trains() -> None:
    cell = Mine(1, 8)
    head = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=0.02)
    x = torch.randn(20, 32, 1)
    losses = []
    for _ in range(60):
        state = None
        for value in x:
            output, state = cell(value, state)
        loss = (head(output) - x[-3:].sum(0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c([1.0, 2.0, 3.0]), "got a list as input of LSTMCell"),
        (lambda c: c(torch.randn(2, 4)), "has 4 features in its last dimension, LSTMCell expects input_size=3"),
        (lambda c: c(torch.randn(2, 2, 3)), r"expected \[B, I\] or \[I\]"),
        (lambda c: c(torch.randn(2, 3), torch.zeros(2, 4)), "got a Tensor as state of LSTMCell"),
        (lambda c: c(torch.randn(2, 3), (torch.zeros(2, 4), torch.zeros(3, 4))), r"state 'c' of shape \[3, 4\]"),
        (lambda c: c(torch.randn(3), (torch.zeros(2, 4), torch.zeros(2, 4))), r"expected a tensor \[4\]"),
        (lambda c: c(torch.tensor(3)), "got the integer 3"),
    ],
)
def test_wrong_steps(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(LSTMCell(3, 4))


def test_print_shows_sizes_and_options() -> None:
    assert repr(LSTMCell(3, 4, peephole=True)) == "LSTMCell(3, 4, peephole=True)"
    assert "peephole=True" in repr(cellwright.LSTM(3, 4, 2, peephole=True, bidirectional=True))


def test_a_bad_step_is_found_when_the_cell_is_made() -> None:
    class Bad(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return torch.tanh(h)

    with pytest.raises(CellError, match="torch's tanh"):
        Bad(3, 4)


def test_use_target(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_target() == "cpu"
    with use_target("torch"):
        assert current_target() == "torch"
        with use_target("cpu"):
            assert current_target() == "cpu"
        assert current_target() == "torch"
    with pytest.raises(TargetError, match="got the target 'cuda', expected one of torch, cpu, triton"):
        use_target("cuda")
    with pytest.raises(TargetError, match="the target 'triton' is absent"):
        use_target("triton")
    with (
        use_target("cpu"),
        pytest.raises(TargetError, match=r"cannot run this: it takes float32.*use the target 'torch'"),
    ):
        LSTMCell(3, 4, dtype=F64)(torch.randn(2, 3, dtype=F64))
    assert current_target() == "cpu"
    monkeypatch.setenv("CELLWRIGHT_TARGET", "fast")
    with pytest.raises(TargetError, match="got the target 'fast'"):
        LSTMCell(3, 4)(torch.randn(2, 3))


def test_check_grads_of_a_cell_without_a_gradient() -> None:
    class Threshold(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return (h + self.linear("a", x)) < 0.5

    assert check_grads(Threshold).ok
