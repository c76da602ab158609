"""Attention over a memory: against a loop written by hand, with lengths of both, and its gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellwright import Attentive, Cell, GRUCell, InputError, LSTMCell, OptionError

F64 = torch.float64
MAKE: dict[str, Any] = {
    "additive": lambda **o: Attentive(LSTMCell(3 + 5, 4, dtype=F64), 5, **o),
    "general": lambda **o: Attentive(LSTMCell(3 + 5, 4, dtype=F64), 5, score="general", **o),
    "dot": lambda **o: Attentive(GRUCell(3 + 4, 4, dtype=F64), 4, score="dot", **o),
}


def by_hand(layer: Any, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence: x [T, I], memory [S, M]; torch's cell with the same weights."""
    twin: Any = torch.nn.LSTMCell if isinstance(layer.cell, LSTMCell) else torch.nn.GRUCell
    cell = twin(layer.cell.input_size, 4, dtype=F64)
    cell.load_state_dict(layer.cell.state_dict(), strict=True)
    weights = dict(layer.attention.named_parameters())
    h, state, outputs, chosen = torch.zeros(4, dtype=F64), None, [], []
    for one in x:
        scores = []
        for m in memory:
            if "energy.weight" in weights:
                a = weights["query.weight"] @ h + weights["key.weight"] @ m + weights["key.bias"]
                scores.append(weights["energy.weight"][0] @ torch.tanh(a))
            else:
                scores.append(h @ (weights["key.weight"] @ m if "key.weight" in weights else m))
        a = torch.softmax(torch.stack(scores), 0) if scores else torch.zeros(0, dtype=F64)
        context = torch.stack([w * m for w, m in zip(a, memory, strict=True)]).sum(0) if scores else 0 * memory.sum(0)
        state = cell(torch.cat([one, context]).unsqueeze(0), state)
        h = (state[0] if isinstance(state, tuple) else state)[0]
        outputs.append(h)
        chosen.append(a)
    return torch.stack(outputs), torch.stack(chosen)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("score", MAKE)
def test_every_sequence_is_the_loop_by_hand(score: str, batch_first: bool, assert_close: Any) -> None:
    """With lengths of steps and of positions; padding holds NaN and changes neither result nor gradient."""
    layer = MAKE[score](batch_first=batch_first)
    x, memory = torch.randn(6, 3, 3, dtype=F64), torch.randn(7, 3, layer.memory_size, dtype=F64)
    n, positions = [6, 2, 4], [3, 7, 0]
    off = [torch.arange(len(v)).unsqueeze(1) >= torch.tensor(k) for v, k in ((x, n), (memory, positions))]
    given = [v.masked_fill(o.unsqueeze(-1), torch.nan) for v, o in zip((x, memory), off, strict=True)]
    given = [v.transpose(0, 1) if batch_first else v for v in given]
    given = [v.clone().requires_grad_() for v in given]
    output, state, a = layer(*given, lengths=n, memory_lengths=positions)
    output.square().sum().backward()
    assert all(v.grad.isfinite().all() for v in (*given, *layer.cell.parameters()))
    if batch_first:
        output, a = output.transpose(0, 1), a.transpose(0, 1)
    last = state[0] if isinstance(state, tuple) else state
    for b in range(3):
        want, chosen = by_hand(layer, x[: n[b], b], memory[: positions[b], b])
        assert_close("output", output[: n[b], b], want, 1e-13)
        assert_close("weights", a[: n[b], b, : positions[b]], chosen, 1e-13)
        assert_close("state", last[b], want[-1], 1e-13)
        assert not output[n[b] :, b].any()
        assert not a[n[b] :, b].any()
        assert not a[:, b, positions[b] :].any()


@pytest.mark.parametrize("score", MAKE)
def test_gradients(score: str) -> None:
    layer = MAKE[score]()
    x = torch.randn(3, 2, 3, dtype=F64, requires_grad=True)
    memory = torch.randn(4, 2, layer.memory_size, dtype=F64, requires_grad=True)
    weights = {name: w.detach().clone().requires_grad_() for name, w in layer.named_parameters()}

    def outputs(x: Tensor, memory: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        found: Tensor = torch.func.functional_call(layer, given, (x, memory), {"memory_lengths": [4, 2]})[0]
        return found

    assert torch.autograd.gradcheck(outputs, (x, memory, *weights.values()), fast_mode=True)


def test_a_state_goes_round_in_pieces(assert_close: Any) -> None:
    layer = Attentive(LSTMCell(8, 4), 5)
    x, memory = torch.randn(6, 2, 3), torch.randn(7, 2, 5)
    whole, last, a = layer(x, memory)
    _, state, _ = layer(x[:2], memory)
    output, end, _ = layer(x[2:], memory, state)
    assert_close("output", output, whole[2:], 1e-6)
    assert_close("state", end[1], last[1], 1e-6)
    assert_close("weights", a.sum(-1), torch.ones(6, 2), 1e-6)
    none, same, nothing = layer(x[:0], memory, state)
    assert none.shape == (0, 2, 4)
    assert nothing.shape == (0, 2, 7)
    assert same[0] is state[0]
    assert F.mse_loss(layer(x, 0 * memory)[2], torch.full((6, 2, 7), 1 / 7)) < 1e-12  # nothing to choose by


class Bare(Cell):
    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return 0.5 * h + x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attentive(LSTMCell, 5), "got memory_size=5 for .*expected such as 6"),
        (lambda: Attentive(LSTMCell(8, 4), 8), r"got memory_size=8 for LSTMCell\(8, 4\)"),
        (lambda: Attentive(LSTMCell(8, 4), "5"), "got memory_size='5'"),
        (lambda: Attentive(LSTMCell(8, 4), 0), "got memory_size=0"),
        (lambda: Attentive(Bare(4, 4), 2), "got memory_size=2 for Bare"),
        (lambda: Attentive(LSTMCell(8, 4), 5, score="cosine"), "got score='cosine', expected one of additive, general"),
        (lambda: Attentive(LSTMCell(8, 4), 5, score="dot"), "'dot' for a memory of 4 features"),
    ],
)
def test_wrong_constructions(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


X, M = torch.randn(6, 2, 3), torch.randn(7, 2, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(X, M[:, :1]), r"got \[6, 2, 3\], a memory \[7, 1, 5\], expected floats"),
        (lambda m: m(X[:, 0], M[:, 0]), r"expected floats \[T, B, I\], \[S, B, M\]"),
        (lambda m: m(torch.zeros(6, 2, dtype=torch.int64), M), "expected floats"),
        (lambda m: m(X, M[..., :4]), "has 4 features in its last dimension"),
        (lambda m: m(X, M.double()), "dtype torch.float64"),
        (lambda m: m(X, M, memory_lengths=[8, 1]), "got the length 8 for sequence 0"),
        (lambda m: m(X, M, torch.zeros(2, 4)), r"expected a tuple of tensors \(h, c\)"),
        (lambda m: m(X, M, (torch.zeros(1, 4), torch.zeros(2, 4))), r"state 'h' of shape \[1, 4\].*\[2, 4\]"),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(Attentive(LSTMCell(8, 4), 5))
