"""RNN, LSTM and GRU against torch.nn: weights, outputs, states and gradients in every layout and option."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import cellwright

F64 = torch.float64
KINDS = {
    "rnn tanh": ("RNN", {}),
    "rnn relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm projected": ("LSTM", {"proj_size": 2}),
    "gru": ("GRU", {}),
}
BOOL = (False, True)


def pair(kind: str, *sizes: int, **options: Any) -> tuple[torch.nn.RNNBase, cellwright.Recurrent]:
    """The same layer of torch and of this package, with the same weights."""
    name, extra = KINDS[kind]
    theirs = getattr(torch.nn, name)(*sizes, **options, **extra)
    ours = getattr(cellwright, name)(*sizes, **options, **extra)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def flat(value: Any) -> list[Tensor]:
    """All tensors of a nested result."""
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


def compare(theirs: Any, ours: Any, x: Any, state: Any, dtype: torch.dtype, assert_close: Any, **call: Any) -> None:
    """Results and all gradients of a random linear function of them."""
    tolerance, gradient_tolerance = (2e-6, 1e-5) if dtype == torch.float32 else (1e-10, 1e-10)
    results, gradients = [], []
    for module in (theirs, ours):
        module.zero_grad()
        data = (x.data if isinstance(x, PackedSequence) else x).detach().clone()
        leaves = [data.requires_grad_()] if data.is_floating_point() else []
        given = PackedSequence(data, *x[1:]) if isinstance(x, PackedSequence) else data
        start = None
        if state is not None:
            leaves += [s.detach().clone().requires_grad_() for s in state]
            starts = leaves[-len(state) :]
            start = starts[0] if len(starts) == 1 else tuple(starts)
        result = flat(module(given, start, **(call if module is ours else {})))
        seeds = [
            torch.randn(r.shape, generator=torch.Generator().manual_seed(k), dtype=dtype) for k, r in enumerate(result)
        ]
        sum((r * s).sum() / r.numel() ** 0.5 for r, s in zip(result, seeds, strict=True)).backward()
        results.append(result)
        gradients.append([leaf.grad for leaf in leaves] + [p.grad for p in module.parameters()])
    for k, (want, got) in enumerate(zip(*results, strict=True)):
        assert_close(f"result {k}", got, want, tolerance)
    for k, (want, got) in enumerate(zip(*gradients, strict=True)):
        assert_close(f"gradient {k}", got, want, gradient_tolerance)


def states(theirs: Any, batch: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    rows = theirs.num_layers * (2 if theirs.bidirectional else 1)
    sizes = [getattr(theirs, "proj_size", 0) or theirs.hidden_size]
    sizes += [theirs.hidden_size] if isinstance(theirs, torch.nn.LSTM) else []
    return [torch.randn(rows, *batch, n, dtype=dtype) for n in sizes]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["f32", "f64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_all_combinations(kind: str, layers: int, dtype: torch.dtype, assert_close: Any) -> None:
    for bias, batch_first, bidirectional, started, form in itertools.product(
        BOOL, BOOL, BOOL, BOOL, ("plain", "unbatched", "packed", "lengths")
    ):
        theirs, ours = pair(
            kind, 3, 5, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional, dtype=dtype
        )
        lengths = torch.tensor([4, 7, 1])
        batch = () if form == "unbatched" else (3,)
        state = states(theirs, batch, dtype) if started else None
        x: Any = torch.randn(7, *batch, 3, dtype=dtype)
        if batch_first and batch:
            x = x.transpose(0, 1)
        if form == "packed":
            x = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
        if form == "lengths":
            against_packed(theirs, ours, x, lengths, state, batch_first, assert_close)
        else:
            compare(theirs, ours, x, state, dtype, assert_close)


def against_packed(
    theirs: Any, ours: Any, x: Tensor, lengths: Tensor, state: Any, batch_first: bool, assert_close: Any
) -> None:
    """`lengths=` gives what torch gives for the packed batch, unpacked again; NaN in the padding changes nothing."""
    valid = torch.arange(7).unsqueeze(1) < lengths
    valid = valid.t() if batch_first else valid
    poisoned = torch.where(valid.unsqueeze(-1), x, torch.nan)

    class Packed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, x: Tensor, start: Any) -> Any:
            packed = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
            output, last = theirs(packed, start)
            return torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=batch_first)[0], last

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ours

        def forward(self, x: Tensor, start: Any) -> Any:
            valid_x = torch.where(valid.unsqueeze(-1), x, poisoned)
            return ours(valid_x, start, lengths=lengths)

    compare(Packed(), Padded(), x, state, x.dtype, assert_close)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("T", "B", "I", "H"), [(1, 1, 1, 3), (2, 1, 63, 7), (5, 3, 1, 500), (3, 2, 5, 63)])
def test_odd_sizes(kind: str, T: int, B: int, I: int, H: int, assert_close: Any) -> None:
    theirs, ours = pair(kind, I, H, bidirectional=True)
    compare(theirs, ours, torch.randn(T, B, I), states(theirs, (B,), torch.float32), torch.float32, assert_close)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_initial_weights_and_strict_both_ways(kind: str) -> None:
    name, extra = KINDS[kind]
    for options in ({}, {"bias": False}, {"num_layers": 3, "bidirectional": True}):
        torch.manual_seed(1)
        theirs = getattr(torch.nn, name)(3, 5, **options, **extra)
        torch.manual_seed(1)
        ours = getattr(cellwright, name)(3, 5, **options, **extra)
        assert list(theirs.state_dict()) == list(ours.state_dict())
        for key, value in theirs.state_dict().items():
            assert torch.equal(value, ours.state_dict()[key]), key
        torch.manual_seed(2)
        theirs.reset_parameters()
        torch.manual_seed(2)
        ours.reset_parameters()
        theirs.load_state_dict(ours.state_dict(), strict=True)
        assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


def test_positional_arguments_mean_what_they_mean_in_torch() -> None:
    for name, args in (
        ("RNN", (3, 4, 2, "relu", False, True, 0.5, True)),
        ("LSTM", (3, 4, 2, False, True, 0.5, True, 2)),
        ("GRU", (3, 4, 2, False, True, 0.5, True)),
    ):
        theirs, ours = getattr(torch.nn, name)(*args), getattr(cellwright, name)(*args)
        assert {k: v.shape for k, v in theirs.state_dict().items()} == {
            k: v.shape for k, v in ours.state_dict().items()
        }
        for attribute in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
            assert getattr(theirs, attribute) == getattr(ours, attribute), attribute


def test_packed_output_has_the_same_layout() -> None:
    theirs, ours = pair("gru", 3, 4, bidirectional=True)
    for packed in (
        pack_sequence([torch.randn(n, 3) for n in (2, 5, 3)], enforce_sorted=False),
        pack_sequence([torch.randn(n, 3) for n in (5, 3, 2)], enforce_sorted=True),
    ):
        want, got = theirs(packed)[0], ours(packed)[0]
        assert torch.equal(want.batch_sizes, got.batch_sizes)
        for a, b in zip(want[2:], got[2:], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        assert (want.data - got.data).abs().max() < 2e-6


def test_dropout_between_layers_is_torchs() -> None:
    theirs, ours = pair("lstm", 3, 50, 3, dropout=0.4)
    x = torch.randn(7, 4, 3)
    torch.manual_seed(5)
    want = theirs(x)[0]
    torch.manual_seed(5)
    assert (ours(x)[0] - want).abs().max() < 2e-6
    assert (ours.eval()(x)[0] - theirs.eval()(x)[0]).abs().max() < 2e-6


def test_keras_like_call_with_the_whole_module(assert_close: Any) -> None:
    """A model written for torch.nn keeps working with the layer exchanged."""

    class Model(torch.nn.Module):
        def __init__(self, lstm: Any) -> None:
            super().__init__()
            self.lstm, self.out = lstm, torch.nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.lstm.flatten_parameters()
            output, (h, c) = self.lstm(x)
            return self.out(output) + h.sum() + c.sum()

    theirs, ours = pair("lstm", 3, 4, batch_first=True, bidirectional=True)
    a, b = Model(theirs), Model(ours)
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 6, 3)
    assert_close("output", b(x), a(x), 5e-6)
