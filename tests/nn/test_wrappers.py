"""Wrappers of the step, for every cell: against loops written by hand, gradients, targets, and the random masks."""

import contextlib
import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cellwright
from cellwright import (
    GRU,
    LSTM,
    RNN,
    Cell,
    CellError,
    GRUCell,
    LSTMCell,
    OptionError,
    QRNNCell,
    Recurrent,
    RecurrentDropout,
    RNNCell,
    SLSTMCell,
    WeightDrop,
    Zoneout,
    check_grads,
    chrono_initialise,
    sigmoid,
    tanh,
)
from cellwright.cells import BY_NAME
from cellwright.lang import Definition
from cellwright.nn import stepper
from tests.rounding import assert_roundings

F64 = torch.float64


class Two(Cell):
    """A user's cell: states of two sizes, and products of what follows from another."""

    states = {"h": "hidden_size", "s": "small_size"}
    small_size = 2

    def step(self, x: Any, h: Any, s: Any) -> Any:
        z, n = self.linear("z n", x) + self.linear("z n", h)
        s = 0.5 * s + tanh(self.linear("o", n * h, matrix="o", size="small_size"))
        return h + sigmoid(z) * (tanh(n + self.linear("b", s, matrix="b")) - h), s


class Running(Cell):
    """Its state enters no product: h_t = x_t + (h_{t-1} times its mask)."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return x + h


class Linear(Cell):
    """Its state enters a product: h_t = x_t + R (h_{t-1} times its mask)."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return x + self.linear("h", h, bias=False)


def linear(H: int, **options: Any) -> Recurrent:
    """R is 1."""
    layer = Recurrent(Linear, H, H, **options)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.eye(H))
    return layer


CELLS: dict[str, Any] = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell, "own": Two}
WRAPPERS: dict[str, dict[str, Any]] = {
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "of each step": {"recurrent_dropout": RecurrentDropout(0.3, per_step=True)},
    "zoneout": {"zoneout": 0.2},
    "weight drop": {"weight_drop": 0.4},
    "layer norm": {"layer_norm": True},
    "initial state": {"learn_initial_state": True},
    "clip": {"state_clip": 0.4},
}
ALL: dict[str, Any] = {k: v for one in WRAPPERS.values() for k, v in one.items()} | {"recurrent_dropout": 0.3}


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


# Against loops written by hand, in float64.


def gates(layer: Any, x: Tensor, h: Tensor) -> Tensor:
    return F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0) + F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)


def lstm_by_hand(layer: Any, x: Tensor, at: Callable[..., Any], pre: Any = gates) -> Tensor:
    """`at(t, h, c)` gives what the products and the cell see; `at(t, h, c, h', c')` what the next state is."""
    h = c = x.new_zeros(x.shape[1], layer.hidden_size)
    outputs = []
    for t in range(len(x)):
        h_in, c_in = at(t, h, c)
        i, f, g, o = pre(layer, x[t], h_in).chunk(4, -1)
        new = torch.sigmoid(f) * c_in + torch.sigmoid(i) * torch.tanh(g)
        h, c = at(t, h, c, torch.sigmoid(o) * torch.tanh(new), new)
        outputs.append(h)
    return torch.stack(outputs)


def drawn(wrapper: Any, layer: Any, x: Tensor) -> dict[str, Tensor]:
    """The masks that the layer draws after the same seed."""
    torch.manual_seed(5)
    found: dict[str, Tensor] = wrapper.masks(layer.definitions[0], *x.shape[:2], x, None)
    return found


X = torch.randn(6, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("per_step", [False, True])
def test_recurrent_dropout_of_an_lstm(per_step: bool, assert_close: Any) -> None:
    wrapper = RecurrentDropout(0.4, ("h", "c"), per_step)
    layer = LSTM(3, 4, recurrent_dropout=wrapper, dtype=F64)
    m = drawn(wrapper, layer, X)

    def at(t: int, h: Tensor, c: Tensor, *new: Tensor) -> Any:
        return new or (h * m["keep_h"][t], c * m["keep_c"][t])

    torch.manual_seed(5)
    assert_close("output", layer(X)[0], lstm_by_hand(layer, X, at), 1e-14)
    assert_close("evaluation", layer.eval()(X)[0], lstm_by_hand(layer, X, lambda t, h, c, *new: new or (h, c)), 1e-14)


def test_recurrent_dropout_of_a_gru_leaves_what_is_kept_of_the_past(assert_close: Any) -> None:
    wrapper = RecurrentDropout(0.4)
    layer = GRU(3, 4, recurrent_dropout=wrapper, dtype=F64)
    m, h, outputs = drawn(wrapper, layer, X)["keep_h"], X.new_zeros(2, 4), []
    for t, x in enumerate(X):
        a = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0).chunk(3, -1)
        b = F.linear(h * m[t], layer.weight_hh_l0, layer.bias_hh_l0).chunk(3, -1)
        r, z = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        h = (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h
        outputs.append(h)
    torch.manual_seed(5)
    assert_close("output", layer(X)[0], torch.stack(outputs), 1e-14)


@pytest.mark.parametrize("wrapper", [Zoneout(0.3), Zoneout(h=0.1, c=0.6), Zoneout(c=0.5)])
def test_zoneout_of_an_lstm(wrapper: Zoneout, assert_close: Any) -> None:
    layer = LSTM(3, 4, zoneout=wrapper, dtype=F64)
    m, rates = drawn(wrapper, layer, X), wrapper.rates(layer.definitions[0])

    def at(t: int, h: Tensor, c: Tensor, *new: Tensor) -> Any:
        stay = [m[f"stay_{n}"][t] if f"stay_{n}" in m else torch.zeros(()) for n in "hc"]
        return [s * a + (1 - s) * b for s, a, b in zip(stay, (h, c), new, strict=True)] if new else (h, c)

    def expected(t: int, h: Tensor, c: Tensor, *new: Tensor) -> Any:
        p = [rates.get(n, 0.0) for n in "hc"]
        return [r * a + (1 - r) * b for r, a, b in zip(p, (h, c), new, strict=True)] if new else (h, c)

    torch.manual_seed(5)
    assert_close("output", layer(X)[0], lstm_by_hand(layer, X, at), 1e-14)
    assert_close("evaluation", layer.eval()(X)[0], lstm_by_hand(layer, X, expected), 1e-14)


def test_weight_drop_is_an_lstm_with_other_weights(assert_close: Any) -> None:
    layer, other = LSTM(3, 4, weight_drop=0.5, dtype=F64), torch.nn.LSTM(3, 4, dtype=F64)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert_close("evaluation", layer.eval()(X)[0], other(X)[0], 1e-14)
    layer.train()
    torch.manual_seed(5)
    output = layer(X)[0]
    torch.manual_seed(5)
    mask = F.dropout(torch.ones(16, 4, dtype=F64), 0.5)
    with torch.no_grad():
        other.weight_hh_l0 *= mask
    assert_close("training", output, other(X)[0], 1e-14)
    output.square().sum().backward()
    other(X)[0].square().sum().backward()
    assert_close("gradient", layer.weight_hh_l0.grad, other.weight_hh_l0.grad * mask, 1e-13)
    assert_close("of the input's", layer.weight_ih_l0.grad, other.weight_ih_l0.grad, 1e-13)


def test_layer_norm_of_the_products_of_an_lstm(assert_close: Any) -> None:
    # Of a class with an option of that name, the keyword would set the option.
    layer = Recurrent([LSTMCell(3, 4, dtype=F64)], layer_norm=True)
    assert torch.equal(layer.gain_hh_l0, torch.ones(16, dtype=F64))
    with torch.no_grad():
        layer.gain_ih_l0.uniform_(0.5, 2)
        layer.gain_hh_l0.uniform_(0.5, 2)

    def pre(layer: Any, x: Tensor, h: Tensor) -> Tensor:
        found = []
        for v, w, b, gain in (
            (x, layer.weight_ih_l0, layer.bias_ih_l0, layer.gain_ih_l0),
            (h, layer.weight_hh_l0, layer.bias_hh_l0, layer.gain_hh_l0),
        ):
            product = (v @ w.t()).view(-1, 4, 4)  # [B, gates, H]
            found.append((F.layer_norm(product, (4,)) * gain.view(4, 4) + b.view(4, 4)).flatten(1))
        return found[0] + found[1]

    want = lstm_by_hand(layer, X, lambda t, h, c, *new: new or (h, c), pre)
    assert_close("output", layer(X)[0], want, 1e-12)


def test_a_learned_initial_state_is_the_state_that_nobody_gave(assert_close: Any) -> None:
    layer, other = LSTM(3, 4, bidirectional=True, learn_initial_state=True, dtype=F64), None
    other = torch.nn.LSTM(3, 4, bidirectional=True, dtype=F64)
    own = {n: p for n, p in layer.state_dict().items() if not n.startswith("initial")}
    other.load_state_dict(own, strict=True)
    assert_close("zero at first", layer(X)[0], other(X)[0], 1e-14)
    with torch.no_grad():
        starts = [getattr(layer, f"initial_{s}_l0{d}").uniform_() for s in "hc" for d in ("", "_reverse")]
    given = [torch.stack(pair).unsqueeze(1).repeat(1, 2, 1) for pair in (starts[:2], starts[2:])]
    assert_close("learned", layer(X)[0], other(X, tuple(given))[0], 1e-14)
    zero = tuple(torch.zeros(2, 2, 4, dtype=F64) for _ in "hc")
    assert_close("given", layer(X, zero)[0], other(X)[0], 1e-14)
    reset = torch.zeros(6, 2, dtype=torch.bool)
    reset[4] = True
    pieces = [layer(X[:4])[0], layer(X[4:])[0]]
    assert_close("after a reset", layer(X, reset=reset)[0], torch.cat(pieces), 1e-14)
    layer(X)[0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
    layer.reset_parameters()
    assert not layer.initial_c_l0_reverse.any()


@pytest.mark.parametrize("limit", [0.05, {"c": 0.05}])
def test_clipped_states(limit: Any, assert_close: Any) -> None:
    layer = LSTM(3, 4, state_clip=limit, dtype=F64)
    by_hand = lstm_by_hand(layer, X, lambda t, h, c, *new: new or (h, c))
    assert by_hand.abs().max() > 0.05
    h = c = X.new_zeros(2, 4)
    for t, x in enumerate(X):
        i, f, g, o = gates(layer, x, h).chunk(4, -1)
        c = (torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)).clamp(-0.05, 0.05)
        h = torch.sigmoid(o) * torch.tanh(c)
        assert_close("h", layer(X)[0][t], h, 1e-14)


# Gradients, in float64, with lengths and resets and against time.


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gradients_of_a_cell_of_ones_own(wrapper: str) -> None:
    """The package's cells are in `test_grid.py`."""
    options = WRAPPERS[wrapper]
    report = check_grads(Recurrent(Two, 3, 3, **options))
    if "learn_initial_state" in options:
        slopes = [c.slope for c in report.checks if c.name == "weights initial_h" and "resets" in c.case]
        assert all(abs(slope) > 1e-3 for slope in slopes)  # it is there to be learned
    assert ("weights gain_hh" in {check.name for check in report.checks}) == ("layer_norm" in options)
    modes = {"eval" in check.case for check in report.checks}
    assert modes == ({True, False} if {"recurrent_dropout", "zoneout"} & set(options) else {False})


@pytest.mark.parametrize("call", [{}, {"lengths": [4, 0, 2]}, {"reset": torch.eye(4, 3) > 0}], ids=str)
def test_gradients_of_all_wrappers_and_directions_together(call: dict[str, Any]) -> None:
    """Through autograd: with weight drop, the connections past the layers and the merging, which are outside."""
    layer = Recurrent(Two, 3, 3, 2, bidirectional=True, merge="mean", residual="highway", dropout=0.3, dtype=F64, **ALL)
    weights = {n: p.detach().clone().uniform_(-1, 1).requires_grad_() for n, p in layer.named_parameters()}
    x = torch.randn(4, 3, 3, dtype=F64, requires_grad=True)

    def outputs(x: Tensor, *values: Tensor) -> Tensor:
        torch.manual_seed(2)
        return torch.func.functional_call(layer, dict(zip(weights, values, strict=True)), (x,), call)[0]

    assert torch.autograd.gradcheck(outputs, (x, *weights.values()), fast_mode=True)


# The compiled target against the reference, with the same seed.


def results(layer: Any, x: Tensor, call: Any, target: str, dtype: torch.dtype) -> dict[str, Tensor]:
    layer.to(dtype).zero_grad()
    sizes = [layer.definitions[0].state_size(n) for n in layer.definitions[0].states]
    lead = (layer.num_layers * layer.directions, x.shape[1])
    start = [torch.linspace(-1, 1, math.prod(lead) * n, dtype=dtype).view(*lead, n) for n in sizes]
    with cellwright.use_target(target):
        torch.manual_seed(7)
        leaf = x.to(dtype).clone().requires_grad_()
        output, state = layer(leaf, start[0] if len(start) == 1 else tuple(start), **call)
        loss = torch.stack([(v * torch.linspace(-1, 1, v.numel()).view(v.shape)).sum() for v in (output, *flat(state))])
        loss.sum().backward()
    found = {f"result {k}": v for k, v in enumerate((output, *flat(state)))} | {"gradient of x": leaf.grad}
    found |= {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in layer.named_parameters()}
    return {n: v.detach().double() for n, v in found.items()}


def same_as_reference(layer: Any, x: Tensor, call: Any) -> None:
    """Within what rounding to float32 makes of the same operations."""
    got = results(layer, x, call, "cpu", torch.float32)

    def reference() -> dict[str, Tensor]:
        return results(layer, x, call, "torch", F64)

    assert_roundings(got, reference(), reference)
    layer.float()


# Asked for by name, the compiled target raises for what it cannot do: nothing of this is left to the reference.


def test_compiled_is_the_reference_in_evaluation_for_a_cell_of_ones_own() -> None:
    layer = Recurrent(Two, 3, 3, zoneout=0.2).eval()
    same_as_reference(layer, torch.randn(5, 3, 3), {"reset": torch.eye(5, 3) > 0})


@pytest.mark.parametrize(
    ("cell", "H", "call"),
    [
        ("rnn", 3, {}),
        ("gru", 63, {"reset": torch.eye(5, 3) > 0}),
        ("own", 3, {"lengths": [5, 0, 2], "reset": torch.eye(5, 3) > 0}),
        ("lstm", 500, {"lengths": [5, 0, 2]}),
    ],
    ids=["rnn", "gru", "own", "lstm"],
)
def test_compiled_is_the_reference_with_everything(cell: str, H: int, call: Any) -> None:
    more = {"dropout": 0.2, "residual": "highway", "bidirectional": True, "merge": "mean"}
    same_as_reference(Recurrent(CELLS[cell], H, H, 2, **ALL, **more), torch.randn(5, 3, H), call)


def test_integers_are_one_hot_vectors(assert_close: Any) -> None:
    layer = GRU(4, 4, recurrent_dropout=0.3, residual=True)
    ids, found = torch.randint(0, 4, (5, 3)), []
    for x in (ids, F.one_hot(ids, 4).float()):
        torch.manual_seed(3)
        found.append(layer(x, lengths=[5, 2, 0])[0])
    assert_close("output", *found, 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"layer_norm": True},
        {"learn_initial_state": True, "state_clip": 0.3},
        {"zoneout": 0.3, "recurrent_dropout": 0.3},
    ],
    ids=str,
)
def test_a_stepper_is_the_layer_in_evaluation(options: Any, assert_close: Any) -> None:
    layer, output, ids = LSTM(12, 12, **options), torch.nn.Linear(12, 12), torch.randint(0, 12, (5, 3))
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith("initial"):
                weight.uniform_(-1, 1)
        want = output(layer.eval()(ids)[0])
        made = stepper(layer, output, streams=3)
        assert made is not None
        for t in range(5):
            made.ids.copy_(ids[t])
            assert_close("logits", made.step(), want[t], 1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("embed", "H", "streams"), [(False, 12, 3), (True, 5, 1), (True, 150, 2)])
@pytest.mark.parametrize("residual", [True, "highway"])
def test_a_stepper_goes_past_its_layers(
    residual: Any, embed: bool, H: int, streams: int, threads: int, assert_close: Any
) -> None:
    """Past the first layer, of symbols; past one that has no states before it; and not past one that changes size."""
    cells = [GRUCell(H, H), LSTMCell(H, H), RNNCell(H, 7), GRUCell(7, 7)]
    layer, output = Recurrent(cells, residual=residual).eval(), torch.nn.Linear(7, 12)
    symbols = torch.randn(12, H) if embed else None
    ids = torch.randint(0, 12, (5, streams))
    torch.set_num_threads(threads)
    with torch.no_grad():
        want, _ = layer(ids if symbols is None else symbols[ids])
        for k in (0, 2):  # from the start, and from a state
            state = layer(ids[:k] if symbols is None else symbols[ids[:k]])[1] if k else None
            made = stepper(layer, output, symbols=symbols, streams=streams, state=state)
            assert made is not None
            for t in range(k, 5):
                made.ids.copy_(ids[t])
                assert_close("logits", made.step(), output(want[t]), 2e-6)


# The random masks.


def shown(layer: Any, T: int, B: int, H: int, **call: Any) -> Tensor:
    """The masks [T, B, H] of `Running`: with x = 1 at the first step, h_t is their product."""
    x = torch.zeros(T + 1, B, H)
    x[0] = 1.0
    with torch.no_grad():
        output, _ = layer(x, **call)
    return output[1:] / output[:-1]


def within(count: float, n: int, rate: float) -> bool:
    """Whether a count of n draws is within 5 standard deviations of its expectation."""
    return abs(count - n * rate) <= 5 * math.sqrt(n * rate * (1 - rate))


@pytest.mark.parametrize("target", ["cpu", "torch"])
@pytest.mark.parametrize("product", [False, True])
def test_one_mask_per_sequence(product: bool, target: str) -> None:
    """Scaled in front of a product alone: elsewhere the scale would multiply itself."""
    rate, T, B, H = 0.3, 4, 100, 101
    layer = linear(H, recurrent_dropout=rate) if product else Recurrent(Running, H, H, recurrent_dropout=rate)
    with cellwright.use_target(target):
        masks = shown(layer, T, B, H)
    first = masks[0]
    on = first > 0
    assert torch.allclose(first[on], torch.tensor(1 / (1 - rate) if product else 1.0))
    assert all(torch.allclose(masks[t][on], first[on]) for t in range(T))  # 0 / 0 elsewhere: it stays zero
    assert within(on.sum().item(), on.numel(), 1 - rate)
    pairs = on[:-1] & on[1:]  # of neighbours in the batch, then of neighbouring units
    assert within(pairs.sum().item(), pairs.numel(), (1 - rate) ** 2)
    pairs = on[:, :-1] & on[:, 1:]
    assert within(pairs.sum().item(), pairs.numel(), (1 - rate) ** 2)


def test_a_fresh_mask_for_each_step() -> None:
    rate, B, H = 0.3, 100, 101
    layer = Recurrent(Running, H, H, recurrent_dropout=RecurrentDropout(rate, per_step=True))
    x = torch.zeros(3, B, H)
    x[0] = 1.0
    output, _ = layer(x)
    once, both = output[1] > 0, output[2] > 0
    assert within(once.sum().item(), once.numel(), 1 - rate)
    assert within(both.sum().item(), both.numel(), (1 - rate) ** 2)


def test_a_mask_is_that_of_its_sequence() -> None:
    """A reset begins a sequence with a mask of its own; the next call too."""
    layer = Recurrent(Running, 50, 50, recurrent_dropout=0.5)
    x = torch.ones(8, 1, 50)
    reset = torch.zeros(8, 1, dtype=torch.bool)
    reset[4] = True
    torch.manual_seed(0)
    output, _ = layer(x, reset=reset)
    first, second = output[1, 0] > 1, output[5, 0] > 1
    assert torch.equal(output[4], x[4])
    assert torch.equal(output[3, 0] > 1, first)
    assert torch.equal(output[7, 0] > 1, second)
    assert not torch.equal(first, second)
    assert not torch.equal(layer(x)[0], layer(x)[0])


FORMS = [("qrnn", {"window": 3}), ("jordan", {"decay": 0.5}), ("slstm", {"heads": 2}), *((n, {}) for n in BY_NAME)]


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_a_rate_is_enough_for_every_cell(name: str, options: Any) -> None:
    """It has an effect, and nothing grows with the length, however long a cell remembers."""
    layer = Recurrent(BY_NAME[name], 4, 8, recurrent_dropout=0.4, **options)
    with contextlib.suppress(OptionError):  # not every cell has gates of memory
        chrono_initialise(layer, 1000)
    x = torch.randn(600, 5, 4)
    with torch.no_grad():
        output, masked = layer(x)[0], layer(x)[0]
        whole = layer.eval()(x)[0]
    assert not torch.equal(output, whole)
    assert not torch.equal(output, masked)
    assert output.abs().max() <= 10 * whole.abs().max()


RECURRENT = {
    "rnn": "hh", "jordan": "hh ho", "lstm": "hh", "grefflstm": "hh", "gru": "hh", "mgu": "hh", "ugrnn": "hh",
    "ligru": "hh", "janet": "hh", "rhn": "hh hh_2 hh_3", "multiplicativelstm": "hh mh", "slstm": "hh",
    "mogrifierlstm": "hh q1 q3 q5", "indrnn": "", "sru": "", "qrnn": "", "mingru": "", "minlstm": "",
}  # fmt: skip


@pytest.mark.parametrize("name", BY_NAME)
def test_weight_drop_finds_the_recurrent_matrices(name: str) -> None:
    """Those of which a rate without more sets numbers to zero: the gradient of the others is whole."""
    if not RECURRENT[name]:
        with pytest.raises(OptionError, match="which has no recurrent matrix; expected some of: weight_ih"):
            Recurrent(BY_NAME[name], 6, 8, weight_drop=0.5)
        return
    layer = Recurrent(BY_NAME[name], 6, 8, weight_drop=0.5)
    layer(torch.randn(5, 20, 6))[0].sum().backward()
    matrices = {n: p for n, p in layer.named_parameters() if p.dim() == 2}
    dropped = {n for n, p in matrices.items() if (p.grad == 0).float().mean() > 0.2}
    assert dropped == {f"weight_{matrix}_l0" for matrix in RECURRENT[name].split()}


def test_what_is_no_value_by_itself_is_left_alone() -> None:
    """The stabiliser and the normaliser of an sLSTM, and what a QRNN has seen: zoneout and clipping mean h and c."""
    x = 10 * torch.randn(40, 8, 3)
    assert Recurrent(SLSTMCell, 3, 4, zoneout=0.3)(x)[0].abs().max() <= 1
    assert Recurrent(SLSTMCell, 3, 4, state_clip=5.0)(10 * x)[0].isfinite().all()
    qrnn, x = Recurrent(QRNNCell, 3, 4, zoneout=0.3, pooling="fo").eval(), x[:8].requires_grad_()
    _, (_, _, *back) = qrnn(x)
    (seen,) = torch.autograd.grad(sum(v.sum() for v in back), x)
    assert seen[-1].abs().min() > 0
    assert not seen[:-1].any()
    assert Recurrent(SLSTMCell, 3, 4, zoneout=Zoneout(m=0.3))(x)[0].shape == (8, 8, 4)  # it may be asked for


def test_auxiliary_states_of_a_cell_of_ones_own() -> None:
    class Counted(Cell):
        states = "h n"
        auxiliary = "n"

        def step(self, x: Any, h: Any, n: Any) -> Any:
            return tanh(x + h / (1 + n)), n + 1

    definition = Counted(3, 3).definition()
    assert Definition.from_json(json.loads(json.dumps(definition.to_json()))).plain == ("h",)
    _, (_, n) = Recurrent(Counted, 3, 3, zoneout=0.5, state_clip=2.0)(torch.randn(9, 2, 3))
    assert (n == 9).all()
    for wrong in ("h", "m"):
        with pytest.raises(CellError, match=f"got auxiliary='{wrong}': '{wrong}' is no state behind the output"):
            type("Wrong", (Counted,), {"auxiliary": wrong})(3, 3).definition()
    with pytest.raises(CellError, match="damaged definition"):
        Definition.from_json(definition.to_json() | {"auxiliary": ["m"]})


def test_zoneout_of_each_unit_and_step() -> None:
    rate, T, B, H = 0.2, 5, 50, 41
    layer = Recurrent(Running, H, H, zoneout=rate)
    output, _ = layer(torch.ones(T, B, H))
    moved = torch.diff(output, dim=0, prepend=torch.zeros(1, B, H))
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert within(moved.sum().item(), moved.numel(), 1 - rate)
    pairs = moved[1:] * moved[:-1]
    assert within(pairs.sum().item(), pairs.numel(), (1 - rate) ** 2)


def test_one_weight_mask_for_all_steps_and_sequences() -> None:
    rate, H = 0.3, 99
    layer = Recurrent(RNNCell, 1, H, activation="identity", bias=False, weight_drop=rate)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.fill_(1.0)
        start = torch.eye(H).unsqueeze(0)  # each sequence shows a column of the matrix
        output, _ = layer(torch.zeros(2, H, 1), start)
    matrix = output[0].t()
    assert within((matrix > 0).sum().item(), H * H, 1 - rate)
    assert torch.allclose(output[1], output[0] @ matrix.t(), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_dropout": 0.3},
        {"recurrent_dropout": RecurrentDropout(0.4, per_step=True)},
        {"zoneout": 0.3},
        {"recurrent_dropout": 0.2, "zoneout": 0.2},
    ],
    ids=str,
)
def test_evaluation_is_the_expectation(options: Any) -> None:
    """Of a linear cell with fresh masks at each step, and of any mask over one step: the mean over many sequences."""
    B, H, T = 20_000, 4, 2
    layer = Recurrent(Linear, H, H, **options)
    x, start = torch.randn(T, 1, H).expand(T, B, H), torch.randn(1, 1, H).expand(1, B, H)
    with torch.no_grad():
        every = layer(x, start)[0][:T]
        want = layer.eval()(x[:, :1], start[:, :1])[0]
    per_sequence = options == {"recurrent_dropout": 0.3} or ("zoneout" in options and "recurrent_dropout" in options)
    for t in range(1 if per_sequence else T):
        error = (every[t].mean(0) - want[t, 0]).abs()
        assert (error <= 5 * every[t].std(0) / math.sqrt(B) + 1e-6).all()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_evaluation_is_not_random(wrapper: str) -> None:
    layer, x = Recurrent(Two, 3, 4, 2, **WRAPPERS[wrapper]).eval(), torch.randn(5, 2, 3)
    assert torch.equal(layer(x)[0], layer(x)[0])
    if wrapper in ("recurrent dropout", "of each step", "weight drop"):
        plain = Recurrent(Two, 3, 4, 2)
        plain.load_state_dict(layer.state_dict(), strict=True)
        assert torch.equal(layer(x)[0], plain(x)[0])


def test_the_same_seed_gives_the_same_masks_on_every_target() -> None:
    layer, x = Recurrent(Running, 31, 31, 2, recurrent_dropout=0.3, zoneout=0.3, dropout=0.3), torch.ones(6, 5, 31)
    found = []
    for target in ("cpu", "torch"):
        with cellwright.use_target(target):
            torch.manual_seed(4)
            found.append(layer(x, lengths=[6, 2, 0, 1, 5])[0])
    assert torch.allclose(*found, rtol=1e-6)
    assert not torch.equal(layer(x)[0], found[0])


# Graphs of torch.compile.


@pytest.fixture
def fresh_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_one_graph(dtype: torch.dtype, fresh_graphs: None) -> None:
    """In training the masks of the same seed, in evaluation the same; gradients too."""
    T, layers = (2, 1) if dtype == F64 else (4, 2)  # the reference is a graph of every step
    layer = GRU(5, 5, layers, residual=True, dropout=0.2 * (layers - 1), dtype=dtype, **ALL)
    x, call = torch.randn(T, 3, 5, dtype=dtype), torch.compile(layer, backend="aot_eager", fullgraph=True)
    given = {"lengths": torch.tensor([T, 1, 0]), "reset": torch.eye(T, 3) > 0}
    for training in (True, False):
        layer.train(training)
        for options in ({}, given) if training else ({},):
            found = []
            for run in (call, layer):
                torch.manual_seed(9)
                layer.zero_grad()
                output, state = run(x, **options)
                output.square().sum().backward()
                found.append([output, *flat(state), *(p.grad for p in layer.parameters() if p.grad is not None)])
            assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# What a caller sees.


def test_without_wrappers_nothing_is_different() -> None:
    layer = LSTM(3, 4, 2, bidirectional=True, recurrent_dropout=0.0, zoneout=0.0, weight_drop=0, residual=False)
    assert layer.state_dict().keys() == torch.nn.LSTM(3, 4, 2, bidirectional=True).state_dict().keys()
    assert layer.definitions == LSTM(3, 4, 2, bidirectional=True).definitions
    assert layer._training is layer._programs


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_copies_and_pickles(wrapper: str) -> None:
    layer, x = GRU(3, 4, 2, **WRAPPERS[wrapper]), torch.randn(5, 2, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for one in (twin, layer):
            one.train()
        torch.manual_seed(0)
        output = twin(x)[0]
        torch.manual_seed(0)
        assert torch.equal(output, layer(x)[0])
        assert torch.equal(twin.eval()(x)[0], layer.eval()(x)[0])


def test_definitions_hold_what_is_part_of_the_equations() -> None:
    layer = GRU(3, 4, layer_norm=True, state_clip=0.1, learn_initial_state=True, zoneout=0.1)
    again = Recurrent(layer.definitions, zoneout=0.1)
    again.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(5, 2, 3)
    assert torch.equal(again.eval()(x)[0], layer.eval()(x)[0])


def test_cells_of_a_list_keep_their_own_weights() -> None:
    cell = Two(3, 4)
    before = cell.weight_hh.clone()
    layer = Recurrent([cell, GRUCell(4, 5)], bidirectional=False, **ALL)
    assert layer.weight_hh_l0 is cell.weight_hh
    assert torch.equal(before, cell.weight_hh)
    assert torch.equal(layer.gain_hh_l0, torch.ones(8))
    assert not layer.initial_s_l0.any()
    assert layer(torch.randn(5, 2, 3), lengths=[5, 2])[0].shape == (5, 2, 5)


def test_layer_norm_of_a_list_is_not_done_twice() -> None:
    layer = Recurrent([LSTMCell(3, 4, layer_norm=True), LSTMCell(4, 4)], layer_norm=True)
    assert layer.definitions[0].params.keys() == LSTMCell(3, 4, layer_norm=True).definition().params.keys()
    assert "gain_hh" in layer.definitions[1].params


def test_a_list_of_cells_has_their_dtype() -> None:
    layer = Recurrent([GRUCell(4, 4, dtype=F64)], bidirectional=True, learn_initial_state=True, dtype=F64)
    assert {p.dtype for p in layer.parameters()} == {F64}
    assert layer(torch.randn(3, 2, 4, dtype=F64))[0].dtype == F64


def test_a_cells_own_option_of_layer_norm_comes_first() -> None:
    class Own(Cell):
        states = "h"
        layer_norm = False

        def step(self, x: Any, h: Any) -> Any:
            a = self.linear("h", x) + self.linear("h", h)
            return tanh(self.norm("n", a) if self.layer_norm else a)

    assert "n_gain_l0" in Recurrent(Own, 3, 4, layer_norm=True).state_dict()
    assert "gain_hh_l0" not in Recurrent(Own, 3, 4, layer_norm=True).state_dict()


def test_repr_names_the_wrappers() -> None:
    assert repr(RNN(3, 4, zoneout=0.1, layer_norm=True)) == "RNN(Elman(3, 4), zoneout=Zoneout(0.1), layer_norm=True)"
    assert repr(GRU(3, 4, layer_norm=True)) == "GRU(GRU(3, 4, layer_norm=True))"
    assert "zoneout=Zoneout(h=0.1)" in repr(GRU(3, 4, zoneout=Zoneout(h=0.1)))


@pytest.mark.parametrize("keyword", ["dropout", "recurrent_dropout", "zoneout", "weight_drop"])
@pytest.mark.parametrize("value", [1.0, -0.1, 1, math.nan, math.inf, True, "0.1", None, [0.1]], ids=str)
@pytest.mark.parametrize("make", [RNN, LSTM, GRU])
def test_a_rate_is_in_range(make: Any, keyword: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"got {keyword}=.*expected a rate in \[0, 1\)"):
        make(3, 4, 2, **{keyword: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (RecurrentDropout, r"got rate=None, expected a rate in \[0, 1\)"),
        (WeightDrop, "got rate=None"),
        (Zoneout, "got a Zoneout with no rate"),
        (lambda: Zoneout(0.1, h=0.1), "with no rate or with two kinds"),
        (lambda: Zoneout(h=1.0), r"got h=1.0, expected a rate in \[0, 1\)"),
        (lambda: RecurrentDropout(1.0), r"got rate=1.0, expected a rate in \[0, 1\)"),
        (lambda: WeightDrop(-1), "got rate=-1"),
        (lambda: GRU(3, 4, recurrent_dropout=RecurrentDropout), "got recurrent_dropout=<class"),
        (lambda: GRU(3, 4, zoneout=RecurrentDropout(0.1)), "expected a rate in .* or a Zoneout"),
        (lambda: GRU(3, 4, recurrent_dropout=RecurrentDropout(0.1, ("c",))), "for 'c' of GRU, expected some of: h"),
        (lambda: RecurrentDropout(0.1, ()), "got states="),
        (lambda: GRU(3, 4, zoneout=Zoneout(c=0.1)), "got zoneout for 'c' of GRU, expected some of: h"),
        (lambda: GRU(3, 4, weight_drop=WeightDrop(0.1, "weight_hr")), "of GRU, expected some of: weight_ih, weight_hh"),
        (
            lambda: Recurrent(Running, 3, 3, weight_drop=0.1),
            "for Running, which has no recurrent matrix; expected some of: none",
        ),
        (lambda: LSTM(3, 4, cell_clip=math.nan), "LSTM got cell_clip=nan, expected a finite number"),
        (lambda: LSTM(3, 4, learn_initial_state="no"), "got learn_initial_state='no', expected True or False"),
        (lambda: GRU(3, 4, layer_norm="x"), "got layer_norm='x'"),
        (lambda: GRU(3, 4, bidirectional="no"), "got bidirectional='no'"),
        (lambda: Recurrent([GRUCell(4, 4)], dtype=F64), "got dtype=torch.float64 .* weights of torch.float32 on cpu"),
        (lambda: Recurrent([GRUCell(4, 4)], device="meta"), "device=meta for cells with weights of .* on cpu"),
        (lambda: GRU(3, 4, state_clip=0), "got state_clip=0, expected a number greater than 0"),
        (lambda: GRU(3, 4, state_clip=True), "got state_clip=True"),
        (lambda: GRU(3, 4, state_clip=math.nan), "got state_clip=nan"),
        (lambda: GRU(3, 4, state_clip={"c": 1.0}), "got state_clip for 'c' of GRU"),
        (lambda: GRU(3, 4, recurent_dropout=0.1), "GRU got an unknown option recurent_dropout"),
    ],
)
def test_wrong_wrappers(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
