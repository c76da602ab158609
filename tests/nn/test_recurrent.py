"""Layers beyond torch.nn: lengths, resets, integers, lists of cells, all states, and every wrong call."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cellwright import (
    GRU,
    LSTM,
    RNN,
    Cell,
    CellError,
    Definition,
    GRUCell,
    InputError,
    LSTMCell,
    OptionError,
    Recurrent,
    RNNCell,
    relu,
    sqrt,
    sum_units,
    tanh,
)
from cellwright import cells as equations

F64 = torch.float64
LAYERS: dict[str, Any] = {
    "rnn": lambda **o: RNN(3, 4, dtype=F64, **o),
    "lstm": lambda **o: LSTM(3, 4, dtype=F64, peephole=True, **o),
    "gru before": lambda **o: GRU(3, 4, dtype=F64, reset_after=False, **o),
    "deep": lambda **o: LSTM(3, 4, 3, dtype=F64, **o),
    "both ways": lambda **o: GRU(3, 4, 2, dtype=F64, bidirectional=True, **o),
}


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_are_the_single_sequences(name: str, assert_close: Any) -> None:
    """Each row with its length is the row alone, cut to its length; length 0 gives zeros and leaves the state."""
    layer = LAYERS[name]()
    lengths = [5, 0, 2, 7]
    x = torch.randn(7, 4, 3, dtype=F64)
    start = tuple(torch.randn_like(s) for s in flat(layer(x)[1]))
    output, last = layer(x, start if len(start) > 1 else start[0], lengths=lengths)
    for row, n in enumerate(lengths):
        own = tuple(s[:, row : row + 1] for s in start)
        want, want_last = layer(x[:n, row : row + 1], own if len(own) > 1 else own[0])
        assert_close("output", output[:n, row : row + 1], want, 1e-14)
        assert not output[n:, row].any()
        for got, w, first in zip(flat(last), flat(want_last), start, strict=True):
            assert_close("state", got[:, row : row + 1], w, 1e-14)
            assert n or torch.equal(got[:, row], first[:, row])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, 1e30])
def test_padding_changes_neither_result_nor_gradient(name: str, poison: float) -> None:
    layer = LAYERS[name]()
    lengths = torch.tensor([5, 0, 2, 7])
    padded = (torch.arange(7).unsqueeze(1) >= lengths).unsqueeze(-1)
    x = torch.randn(7, 4, 3, dtype=F64)
    results = []
    for filled in (torch.where(padded, 0.0, x), torch.where(padded, poison, x)):
        filled.requires_grad_()
        layer.zero_grad()
        output, last = layer(filled, lengths=lengths)
        (output.square().sum() + sum(s.sum() for s in flat(last))).backward()
        results.append([output, *flat(last), filled.grad, *(p.grad for p in layer.parameters())])
        assert not filled.grad.masked_select(padded).any()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_lengths_of_integers_and_batch_first() -> None:
    layer = LSTM(5, 4, batch_first=True, dtype=F64)
    ids = torch.randint(0, 5, (2, 6))
    clean, _ = layer(ids, lengths=[6, 3])
    ids[1, 3:] = -100
    assert torch.equal(layer(ids, lengths=torch.tensor([6, 3]))[0], clean)


@pytest.mark.parametrize("name", LAYERS)
def test_resets_are_separate_sequences(name: str, assert_close: Any) -> None:
    """A reset before step t: the steps before it and those from it on do not see each other, in both directions."""
    layer = LAYERS[name]()
    x = torch.randn(7, 2, 3, dtype=F64)
    reset = torch.zeros(7, 2, dtype=torch.bool)
    reset[3] = reset[4] = True
    output, last = layer(x, reset=reset)
    pieces = [layer(part) for part in (x[:3], x[3:4], x[4:])]
    assert_close("output", output, torch.cat([p[0] for p in pieces]), 1e-14)
    if name != "both ways":
        for got, want in zip(flat(last), flat(pieces[-1][1]), strict=True):
            assert_close("state", got, want, 1e-14)


def test_a_reset_at_the_first_step_ignores_the_initial_state() -> None:
    layer = LAYERS["lstm"]()
    x, start = torch.randn(3, 2, 3, dtype=F64), torch.randn(2, 1, 2, 4, dtype=F64)
    reset = torch.zeros(3, 2, dtype=torch.int64)
    reset[0, 1] = 1
    output, _ = layer(x, tuple(start), reset=reset)
    assert torch.equal(output[:, 1], layer(x)[0][:, 1])
    assert not torch.equal(output[:, 0], layer(x)[0][:, 0])


def test_resets_follow_the_layout_of_the_input() -> None:
    layer, first = LSTM(3, 4), LSTM(3, 4, batch_first=True)
    first.load_state_dict(layer.state_dict())
    x, reset = torch.randn(5, 2, 3), torch.rand(5, 2) < 0.5
    for laid_out in (reset.t(), reset.t().contiguous()):
        assert torch.equal(layer(x, reset=reset)[0], first(x.transpose(0, 1), reset=laid_out)[0].transpose(0, 1))
    assert torch.equal(layer(x[:, 0], reset=reset[:, 0])[0], layer(x[:, :1], reset=reset[:, :1])[0][:, 0])


@pytest.mark.parametrize("name", LAYERS)
def test_integers_are_one_hot_vectors(name: str, assert_close: Any) -> None:
    layer = LAYERS[name]()
    ids = torch.randint(0, 3, (6, 2))
    hot = torch.nn.functional.one_hot(ids, 3).double()
    gradients = []
    for x in (ids, ids.to(torch.uint8), ids.to(torch.int32), hot):
        layer.zero_grad()
        layer(x)[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
        assert_close("output", layer(x)[0], layer(hot)[0], 1e-14)
    for got in gradients[:-1]:
        for a, b in zip(got, gradients[-1], strict=True):
            assert_close("gradient", a, b, 1e-13)
    assert layer(ids[:, 0])[0].shape == (6, layer.output_size)


@pytest.mark.parametrize("name", LAYERS)
def test_all_states_of_every_step(name: str, assert_close: Any) -> None:
    layer = LAYERS[name]()
    x = torch.randn(5, 2, 3, dtype=F64)
    output, last, states = layer(x, return_states=True)
    assert torch.equal(output, layer(x)[0])
    for every, final in zip(flat(states), flat(last), strict=True):
        assert every.shape == (5, *final.shape)
        if name != "both ways":
            assert torch.equal(every[-1], final)
    if name == "both ways":
        assert torch.equal(flat(states)[0][-1, 0::2], flat(last)[0][0::2])
        assert torch.equal(flat(states)[0][0, 1::2], flat(last)[0][1::2])
    for t in range(1, 5) if name != "both ways" else ():
        for every, now in zip(flat(states), flat(layer(x[:t])[1]), strict=True):
            assert torch.allclose(every[t - 1], now, rtol=0, atol=1e-14)


def test_a_state_goes_round_in_pieces() -> None:
    for make in LAYERS.values():
        layer = make()
        if layer.bidirectional:
            continue
        x = torch.randn(6, 2, 3, dtype=F64)
        whole, last = layer(x)
        first, state = layer(x[:2])
        second, end = layer(x[2:], state)
        assert torch.allclose(torch.cat([first, second]), whole, atol=1e-15)
        assert all(torch.allclose(a, b, atol=1e-15) for a, b in zip(flat(end), flat(last), strict=True))


def test_a_list_of_cells_of_different_kinds_and_sizes(assert_close: Any) -> None:
    cells = [LSTMCell(3, 5, dtype=F64), GRUCell(5, 2, dtype=F64), RNNCell(2, 4, dtype=F64)]
    layer = Recurrent(cells)
    x = torch.randn(6, 2, 3, dtype=F64)
    output, state = layer(x)
    assert [tuple(t.shape) for t in flat(state)] == [(1, 2, 5), (1, 2, 5), (1, 2, 2), (1, 2, 4)]
    steps, states = [], [None] * 3
    for value in x:
        for k, cell in enumerate(cells):
            value, states[k] = cell(value, states[k])
        steps.append(value)
    assert_close("output", output, torch.stack(steps), 1e-14)
    again, _ = layer(x[3:], layer(x[:3])[1])
    assert_close("carried", again, output[3:], 1e-14)
    assert dict(layer.named_parameters())["weight_hh_l1"] is cells[1].weight_hh
    with pytest.raises(
        InputError, match="got 2 entries as state of Recurrent, expected a tuple with one entry for each"
    ):
        layer(x, state[:2])


def test_a_list_in_both_directions() -> None:
    layer = Recurrent([LSTMCell(3, 5), GRUCell(10, 2)], bidirectional=True)
    output, state = layer(torch.randn(6, 4, 3))
    assert output.shape == (6, 4, 4)
    assert state[1].shape == (2, 4, 2)
    assert layer(torch.randn(6, 4, 3), state)[0].isfinite().all()
    assert {n for n, _ in layer.named_parameters() if n.startswith("weight_ih")} == {
        "weight_ih_l0",
        "weight_ih_l0_reverse",
        "weight_ih_l1",
        "weight_ih_l1_reverse",
    }


def test_definitions_are_cells() -> None:
    """A cell that was written to JSON runs again, without its class."""
    layer = LSTM(3, 4, 2, peephole=True)
    again = Recurrent([Definition.from_json(d.to_json()) for d in layer.definitions])
    again.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(5, 2, 3)
    assert torch.equal(again(x)[0], layer(x)[0])


def test_equations_without_weights_are_cells_too() -> None:
    assert Recurrent([equations.LSTM(3, 4)])(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    assert Recurrent(equations.LSTM, 3, 4, 2)(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)


class Leaky(Cell):
    states = "h"
    rate = 0.1

    def step(self, x: Any, h: Any) -> Any:
        return (1 - self.rate) * h + self.rate * tanh(self.linear("h", x) + self.linear("h", h))


def test_copies_and_pickles() -> None:
    for layer in (LSTM(3, 4, 2), Recurrent(Leaky, 3, 4, rate=0.5), Recurrent([LSTMCell(3, 4)]), LSTMCell(3, 4)):
        x = torch.randn(5, 3) if isinstance(layer, Cell) else torch.randn(5, 2, 3)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x)[0], layer(x)[0])
            next(twin.parameters()).data.zero_()
            assert not torch.equal(twin(x)[0], layer(x)[0])


def test_dtypes_follow_the_module() -> None:
    layer = LSTM(3, 4).double()
    assert layer(torch.randn(5, 2, 3, dtype=F64))[0].dtype == F64
    half = GRU(3, 4).to(torch.bfloat16)
    assert half(torch.randn(5, 2, 3, dtype=torch.bfloat16))[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert LSTM(3, 4)(torch.randn(5, 2, 3, dtype=torch.bfloat16))[0].isfinite().all()


def test_empty_batches_and_sequences() -> None:
    for make in LAYERS.values():
        layer = make()
        output, last = layer(torch.zeros(5, 0, 3, dtype=F64))
        assert output.shape == (5, 0, layer.output_size)
        start = tuple(torch.randn_like(s) for s in flat(layer(torch.zeros(1, 2, 3, dtype=F64))[1]))
        output, last = layer(torch.zeros(0, 2, 3, dtype=F64), start if len(start) > 1 else start[0])
        assert output.shape == (0, 2, layer.output_size)
        assert all(torch.equal(a, b) for a, b in zip(flat(last), start, strict=True))


def test_a_cell_without_weights_runs() -> None:
    class Leak(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return 0.5 * h + x

    output, _ = Recurrent(Leak, 2, 2)(torch.ones(3, 1, 2, dtype=F64))
    assert output[:, 0, 0].tolist() == [1.0, 1.5, 1.75]


def test_norm_is_layer_norm(assert_close: Any) -> None:
    class Normed(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return self.norm("n", self.linear("h", x))

    cell = Normed(3, 5, dtype=F64)
    assert torch.equal(cell.n_gain, torch.ones(5, dtype=F64))
    assert torch.equal(cell.n_shift, torch.zeros(5, dtype=F64))
    with torch.no_grad():
        cell.n_gain.uniform_()
        cell.n_shift.uniform_()
    x = torch.randn(4, 3, dtype=F64)
    want = torch.nn.functional.layer_norm(x @ cell.weight_ih.t() + cell.bias_ih, (5,), cell.n_gain, cell.n_shift)
    assert_close("norm", cell(x)[0], want, 1e-13)


X = torch.randn(5, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m([1.0]), "got a list as input of LSTM"),
        (
            lambda m: m(torch.randn(5, 2, 4)),
            r"shape \(5, 2, 4\) has 4 features in its last dimension, LSTM expects input_s",
        ),
        (lambda m: m(torch.randn(5)), r"got an input of shape \(5,\)"),
        (
            lambda m: m(torch.randn(5, 2, 3, 1)),
            r"got an input of shape \(5, 2, 3, 1\).*expected \[T, B, I\] or \[T, I\]",
        ),
        (lambda m: m(torch.zeros(5, 2, 3, dtype=torch.int64)), r"expected \[T, B\] or \[T\]"),
        (lambda m: m(X.double()), r"dtype torch.float64, the weights of LSTM have torch.float32; convert one"),
        (lambda m: m(X.to(torch.complex64)), "dtype torch.complex64"),
        (lambda m: m(X > 0), "dtype torch.bool"),
        (lambda m: m(X.to("meta")), "got an input on meta, the weights of LSTM are on cpu"),
        (lambda m: m(torch.full((5, 2), 3)), "got the integer 3 in the input.*expects 0 to 2"),
        (lambda m: m(torch.full((5, 2), -1)), "got the integer -1 in the input"),
        (lambda m: m(X, lengths=[1]), r"lengths of shape \(1,\), expected \[2\]"),
        (lambda m: m(X, lengths=[1, 6]), "got the length 6 for sequence 1, expected 0 to T = 5"),
        (lambda m: m(X, lengths=[-1, 5]), "got the length -1 for sequence 0"),
        (lambda m: m(X, lengths=torch.tensor([1.0, 2.0])), "lengths of dtype torch.float32"),
        (lambda m: m(X, lengths=[1.0, 2.0]), r"got lengths \[1.0, 2.0\], expected whole numbers"),
        (lambda m: m(X, lengths="ab"), "got lengths 'ab'"),
        (lambda m: m(X, lengths=5), "got lengths 5"),
        (lambda m: m(X, reset=torch.zeros(2, 5)), r"got reset of shape \(2, 5\), expected a tensor of bool \[5, 2\]"),
        (lambda m: m(X, reset=[0] * 5), "got reset of list"),
        (lambda m: m(X, torch.zeros(1, 2, 4)), r"got a Tensor as state of LSTM, expected a tuple of tensors \(h, c\)"),
        (lambda m: m(X, (torch.zeros(1, 2, 4),)), "got 1 values as state of LSTM"),
        (lambda m: m(X, (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))), r"state 'c' of shape \[1, 3, 4\].*\[1, 2, 4\]"),
        (lambda m: m(X, (torch.zeros(2, 4), torch.zeros(2, 4))), r"state 'h' of shape \[2, 4\]"),
        (lambda m: m(X, (torch.zeros(1, 2, 4).double(), torch.zeros(1, 2, 4))), "state 'h' of torch.float64 on cpu"),
        (lambda m: m(X, (torch.zeros(1, 2, 4), None)), "state 'c' of NoneType"),
        (lambda m: m(X[:, 0], (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))), r"expected a tensor \[1, 4\]"),
        (
            lambda m: m(torch.nn.utils.rnn.pack_sequence([X[:, 0]]), lengths=[5]),
            "lengths together with a PackedSequence",
        ),
    ],
)
def test_wrong_calls(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(LSTM(3, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(3, 4, dropout=1.0), r"got dropout=1.0, expected a rate in \[0, 1\)"),
        (lambda: LSTM(3, 4, dropout=-0.1), "got dropout=-0.1"),
        (lambda: LSTM(3, 4, 2, dropout=True), "got dropout=True"),
        (lambda: LSTM(3, 4, 0), "got num_layers=0"),
        (lambda: LSTM(0, 4), "got input_size=0"),
        (
            lambda: LSTM(3, 4, peeephole=True),
            "LSTM got an unknown option peeephole=True; its options are: peephole=False",
        ),
        (lambda: GRU(3, 4, reset_after=1), "got reset_after=1, expected True or False"),
        (lambda: RNN(3, 4, nonlinearity="sigmoidal"), "activation='sigmoidal', expected one of tanh, relu"),
        (
            lambda: Recurrent(torch.nn.LSTM, 3, 4),
            "got the class LSTM as cell, expected one derived from cellwright.Cell",
        ),
        (lambda: Recurrent("lstm", 3, 4), "got str as cell"),
        (lambda: Recurrent([]), "got an empty list as cell"),
        (lambda: Recurrent([LSTMCell(3, 4), GRUCell(5, 2)]), "layer 1 with input_size=5, but layer 0 gives 4 features"),
        (lambda: Recurrent([LSTMCell(3, 4)], 3, 4), "beside a list of cells"),
        (lambda: Recurrent([LSTMCell(3, 4)], peephole=True), "beside a list of cells"),
        (lambda: Recurrent([c := LSTMCell(4, 4), c]), "got the same cell again as layer 1"),
        (lambda: Recurrent(LSTMCell), "got input_size=None"),
    ],
)
def test_wrong_constructions(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_dropout_with_one_layer_is_said() -> None:
    with pytest.warns(UserWarning, match="acts between layers"):
        LSTM(3, 4, dropout=0.5)


class Shift(Cell):
    """A state whose next value is the input itself (a token shift)."""

    states = {"h": "hidden_size", "last": "input_size"}

    def step(self, x: Any, h: Any, last: Any) -> Any:
        return tanh(self.linear("a", x) + self.linear("b", last, matrix="last") + h), x


def test_a_state_may_be_the_input() -> None:
    layer = Recurrent(Shift, 4, 5)
    ids = torch.randint(0, 4, (5, 4))
    hot = torch.nn.functional.one_hot(ids, 4).float()
    (a, (_, last)), (b, _) = layer(ids), layer(hot)
    assert torch.equal(a, b)
    assert torch.equal(last[0], hot[-1])


class Fragile(Cell):
    """Its gradient is not finite where the input is zero."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return tanh(self.linear("a", x / sqrt(sum_units(x * x))) + self.linear("a", h)) + self.linear("b", 1 / x)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [[5, 2, 0], [0, 0, 0], [1, 0, 5]])
def test_padding_never_makes_a_gradient_infinite(lengths: list[int], bidirectional: bool) -> None:
    layer = Recurrent(Fragile, 3, 4, bidirectional=bidirectional)
    x = torch.randn(5, 3, 3).requires_grad_()
    output, state = layer(x, lengths=lengths)
    (output.sum() + state.sum()).backward()
    assert x.grad is None or x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_a_reset_in_the_padding_does_nothing() -> None:
    layer = LSTM(3, 4, bidirectional=True)
    x, start = torch.randn(5, 2, 3), tuple(torch.randn(2, 2, 2, 4))
    reset = torch.zeros(5, 2, dtype=torch.bool)
    reset[3:, 1] = True
    assert torch.equal(layer(x, start, lengths=[5, 3], reset=reset)[0], layer(x, start, lengths=[5, 3])[0])


class Identity(Cell):
    """Initial values of its own (Le, Jaitly & Hinton 2015)."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return relu(self.linear("h", x) + self.linear("h", h))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        torch.nn.init.eye_(self.weight_hh)


def test_a_cells_own_initial_values_reach_the_layer() -> None:
    layer = Recurrent(Identity, 3, 4, 2, bidirectional=True)
    layer.weight_hh_l1_reverse.data.zero_()
    for _ in range(2):
        layer.reset_parameters()
        for k in range(2):
            for suffix in ("", "_reverse"):
                assert torch.equal(getattr(layer, f"weight_hh_l{k}{suffix}"), torch.eye(4))
    assert layer.weight_ih_l0.std() > 0.1


def test_lent_weights_decide_dtype_and_must_agree() -> None:
    layer = Recurrent([LSTMCell(3, 5, dtype=F64)], bidirectional=True)
    assert layer.weight_ih_l0_reverse.dtype == F64
    with pytest.raises(OptionError, match="expected one dtype and one device"):
        Recurrent([LSTMCell(3, 5), LSTMCell(5, 5, dtype=F64)])
    cell = torch.nn.utils.parametrizations.weight_norm(LSTMCell(3, 5), "weight_hh")
    assert cell(torch.randn(2, 3))[0].shape == (2, 5)
    with pytest.raises(OptionError, match="weight_hh is not a plain parameter"):
        Recurrent([cell])


def test_torchs_name_of_the_state() -> None:
    layer = GRU(3, 4)
    x, start = torch.randn(5, 2, 3), torch.randn(1, 2, 4)
    assert torch.equal(layer(x, hx=start)[0], layer(x, start)[0])
    assert torch.equal(layer.trace(x, hx=start).output, layer.trace(x, start).output)
    with pytest.raises(InputError, match="two names for the state"):
        layer(x, start, hx=start)


def test_autocast_keeps_the_dtype_of_the_states() -> None:
    for make in (RNN, LSTM, GRU):
        layer = make(3, 4)
        with torch.autocast("cpu", torch.bfloat16):
            for call in ({}, {"lengths": [5, 2]}):
                output, state = layer(torch.randn(5, 2, 3), **call)
                assert {t.dtype for t in (output, *flat(state))} == {torch.float32}


def test_numpy_lengths() -> None:
    layer, x = GRU(3, 4), torch.randn(5, 2, 3)
    want = layer(x, lengths=[5, 2])[0]
    assert torch.equal(layer(x, lengths=np.array([5, 2]))[0], want)
    assert torch.equal(layer(x, lengths=tuple(np.array([5, 2])))[0], want)
    with pytest.raises(InputError, match="expected whole numbers"):
        layer(x, lengths=[10**30, 2])


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, "float64"])
def test_weights_are_floating(dtype: Any) -> None:
    with pytest.raises(OptionError, match="expected a floating dtype"):
        LSTM(3, 4, dtype=dtype)


def test_repr_shows_what_is_not_usual() -> None:
    assert repr(GRU(3, 4)) == "GRU(GRU(3, 4))"
    assert repr(GRU(3, 4, reset_after=False, bias=False)) == "GRU(GRU(3, 4, reset_after=False), bias=False)"


def test_weight_names_that_a_cell_has_already() -> None:
    class Named(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return h * self.bias("training")

    with pytest.raises(CellError, match="names a weight 'training'"):
        Named(3, 4)
