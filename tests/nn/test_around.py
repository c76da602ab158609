"""What is around the step: merging, connections past layers, locked and embedding dropout, penalties, trace."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from cellwright import (
    GRU,
    LSTM,
    RNN,
    Cell,
    EmbeddingDropout,
    GRUCell,
    InputError,
    LockedDropout,
    LSTMCell,
    OptionError,
    Recurrent,
    activation_regularisation,
    tanh,
    temporal_activation_regularisation,
)

F64 = torch.float64
LENGTHS = [5, 0, 2]
VALID = torch.arange(5).unsqueeze(1) < torch.tensor(LENGTHS)


def merged(name: str, both: Tensor) -> Any:
    forth, back = both.chunk(2, -1)
    return {"concat": both, "sum": forth + back, "mean": (forth + back) / 2, "none": (forth, back)}[name]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("merge", ["concat", "sum", "mean", "none"])
def test_merging_of_two_directions(merge: Any, batch_first: bool, assert_close: Any) -> None:
    """Of one layer as torch.nn has it; of two, the next sees what is merged, or both side by side."""
    layer = GRU(3, 4, bidirectional=True, merge=merge, batch_first=batch_first, dtype=F64)
    other = nn.GRU(3, 4, bidirectional=True, batch_first=batch_first, dtype=F64)
    other.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(5, 3, 3, dtype=F64)
    (output, state), (both, want) = layer(x), other(x)
    pairs = zip(output, merged(merge, both), strict=True) if merge == "none" else [(output, merged(merge, both))]
    for got, one in pairs:
        assert_close("output", got, one, 1e-14)
        assert got.shape[-1] == layer.output_size
    assert_close("state", state, want, 1e-14)
    deep = GRU(3, 4, 2, bidirectional=True, merge=merge)
    assert deep.weight_ih_l1.shape[1] == (8 if merge in ("concat", "none") else 4)
    deep(torch.randn(5, 3, 3), torch.randn(4, 3, 4), lengths=LENGTHS, reset=torch.eye(5, 3) > 0)


def test_both_outputs_in_the_layout_of_the_input() -> None:
    layer = GRU(3, 4, bidirectional=True, merge="none")
    x = torch.randn(5, 3)
    forth, back = layer(x)[0]
    assert forth.shape == back.shape == (5, 4)
    packed = layer(pack_sequence([x, x[:2]]))[0]
    assert all(isinstance(one, PackedSequence) for one in packed)
    padded, lengths = pad_packed_sequence(packed[1])
    assert torch.allclose(padded[:, 0], back, atol=1e-6)
    assert lengths.tolist() == [5, 2]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_residual_adds_the_input_where_it_fits(lengths: Any, assert_close: Any) -> None:
    """Layers one by one; the state of each stays the cell's; padding stays zero, whatever is in it."""
    layer = Recurrent([GRUCell(4, 4), LSTMCell(4, 6), GRUCell(6, 6)], residual=True).double()
    x = torch.randn(5, 3, 4, dtype=F64)
    y, states = x.masked_fill(~VALID.unsqueeze(-1), 0.0) if lengths else x, []
    for k, fits in enumerate((True, False, True)):
        definition = layer.definitions[k]
        alone = Recurrent([definition], dtype=F64)
        alone.load_state_dict({n.replace(f"_l{k}", "_l0"): w for n, w in layer.state_dict().items() if f"_l{k}" in n})
        output, state = alone(y, lengths=lengths)
        y = output + y if fits else output
        states.append(state[0])
    if lengths:
        x = torch.where(VALID.unsqueeze(-1), x, torch.nan)
    output, state = layer(x, lengths=lengths)
    assert_close("output", output, y, 1e-14)
    assert_close("first state", state[0], states[0], 1e-14)
    assert_close("last state", state[2], states[2], 1e-14)


def test_the_way_past_a_layer_has_no_dropout() -> None:
    layer = RNN(4, 4, 2, residual=True, dropout=0.5, bias=False)
    with torch.no_grad():
        layer.weight_ih_l1.zero_()
        layer.weight_hh_l1.zero_()
    first = RNN(4, 4, residual=True, bias=False)
    first.load_state_dict({n: w for n, w in layer.state_dict().items() if "l0" in n})
    x = torch.randn(5, 2, 4)
    assert torch.equal(layer(x)[0], first(x)[0])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_highway_is_a_gate_between_input_and_output(lengths: Any, assert_close: Any) -> None:
    layer = GRU(4, 4, residual="highway", dtype=F64)
    assert torch.equal(layer.bias_highway_l0, torch.full((4,), -1.0, dtype=F64))
    plain = GRU(4, 4, dtype=F64)
    plain.load_state_dict({n: w for n, w in layer.state_dict().items() if "highway" not in n}, strict=True)
    x = torch.randn(5, 3, 4, dtype=F64)
    h = plain(x, lengths=lengths)[0]
    t = torch.sigmoid(x @ layer.weight_highway_l0.t() + layer.bias_highway_l0)
    want = t * h + (1 - t) * x
    output, state = layer(x, lengths=lengths)
    assert_close("output", output, want.masked_fill(~VALID.unsqueeze(-1), 0.0) if lengths else want, 1e-14)
    assert_close("state", state, plain(x, lengths=lengths)[1], 1e-14)
    layer.weight_highway_l0.data.zero_()
    layer.reset_parameters()
    assert layer.weight_highway_l0.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRU(3, 4, residual=True), "but no layer has as many features in its input as in its output"),
        (lambda: GRU(3, 4, residual="highway"), "but no layer"),
        (lambda: GRU(4, 4, residual="dense"), "got residual='dense', expected True, False or 'highway'"),
        (lambda: GRU(4, 4, residual=1), "got residual=1"),
        (lambda: GRU(4, 4, merge="sum"), "got merge='sum' with bidirectional=False"),
        (lambda: GRU(4, 4, merge="max", bidirectional=True), "got merge='max'"),
        (lambda: LockedDropout(), r"got rate=None, expected a rate in \[0, 1\)"),
        (lambda: LockedDropout(1.0), "got rate=1.0"),
        (lambda: EmbeddingDropout(nn.Embedding(3, 2)), "got rate=None"),
        (lambda: EmbeddingDropout(nn.Linear(3, 2), 0.1), "got a Linear to drop words of"),
        (lambda: activation_regularisation(torch.ones(2, 1, 1), -1.0), "got alpha=-1.0, expected a number of at least"),
        (lambda: temporal_activation_regularisation(torch.ones(2, 1, 1), math.nan), "got beta=nan"),
    ],
)
def test_wrong_constructions(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


# Dropout around layers.


def counted(on: Tensor, rate: float) -> None:
    """The number of ones is within 5 standard deviations of what the rate lets expect."""
    n = on.numel()
    assert abs(on.sum().item() - n * (1 - rate)) <= 5 * math.sqrt(n * rate * (1 - rate))


@pytest.mark.parametrize("batch_first", [False, True])
def test_locked_dropout_is_the_same_at_all_steps(batch_first: bool) -> None:
    drop, x = LockedDropout(0.3, batch_first=batch_first), torch.ones(4, 90, 80)
    y = drop(x.transpose(0, 1)).transpose(0, 1) if batch_first else drop(x)
    assert torch.equal(y, y[:1].expand_as(y))
    assert torch.equal(y.unique(), torch.tensor([0.0, 1 / 0.7]))
    counted(y[0] > 0, 0.3)
    assert not torch.equal(y[0, 0], y[0, 1])
    assert torch.equal(drop.eval()(x), x)


def test_locked_dropout_of_single_and_packed_sequences_and_resets() -> None:
    drop, x = LockedDropout(0.5), torch.ones(6, 40)
    y = drop(x)
    assert torch.equal(y, y[:1].expand_as(y))
    packed = drop(pack_sequence([x[:2], x, x[:3]], enforce_sorted=False))
    padded, lengths = pad_packed_sequence(packed)
    rows = [padded[: int(n), b] for b, n in enumerate(lengths)]
    assert [len(row) for row in rows] == [2, 6, 3]
    assert all(torch.equal(row, row[:1].expand_as(row)) for row in rows)
    assert not torch.equal(rows[0][0], rows[1][0])
    z = drop(x.unsqueeze(1), reset=(torch.arange(6) == 4).unsqueeze(1)).squeeze(1)
    assert torch.equal(z[:4], z[:1].expand(4, -1))
    assert torch.equal(z[4], z[5])
    assert not torch.equal(z[3], z[4])


@pytest.mark.parametrize("wrong", [[1.0], torch.ones(3), torch.ones(2, 3, dtype=torch.int64)], ids=str)
def test_locked_dropout_of_something_else(wrong: Any) -> None:
    with pytest.raises(InputError, match="as input of LockedDropout, expected floats"):
        LockedDropout(0.5)(wrong)


def test_locked_dropout_cannot_reset_what_is_packed() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 4), torch.tensor([3, 2]))
    for x, reset in (
        (packed, torch.zeros(3, 2)),
        (torch.ones(3, 2, 4), [[0, 1]] * 3),
        (torch.ones(3, 2, 4), torch.zeros(2, 2)),
    ):
        with pytest.raises(InputError, match="got reset"):
            LockedDropout(0.5)(x, reset=reset)


@pytest.mark.parametrize("ids", [torch.ones(3), [1, 2]], ids=str)
def test_embedding_dropout_of_no_integers(ids: Any) -> None:
    with pytest.raises(InputError, match="for EmbeddingDropout, expected integers"):
        EmbeddingDropout(nn.Embedding(3, 2), 0.1)(ids)


def test_dropout_between_layers_is_fresh_or_locked() -> None:
    """The second layer passes its input on, so that the mask between them is what comes out."""

    class Pass(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return x + 0.0 * tanh(h)

    x = torch.ones(6, 30, 40)
    with torch.no_grad():
        fresh = Recurrent(Pass, 40, 40, 2, dropout=0.4)(x)[0]
        layer = Recurrent(Pass, 40, 40, 2, dropout=LockedDropout(0.4))
        locked = layer(x)[0]
    counted(fresh > 0, 0.4)
    counted(locked[0] > 0, 0.4)
    assert not torch.equal(fresh[0], fresh[1])
    assert torch.equal(locked, locked[:1].expand_as(locked))
    assert torch.equal(layer.eval()(x)[0], x)
    assert repr(layer) == "Recurrent(Pass(40, 40), Pass(40, 40), dropout=0.4, locked=True)"


def test_embedding_dropout_drops_words() -> None:
    embedding = nn.Embedding(900, 3, padding_idx=0)
    drop, ids = EmbeddingDropout(embedding, 0.3), torch.randint(1, 900, (50, 40))
    y, plain = drop(ids), embedding(ids)
    kept = (y != 0).any(-1)
    assert torch.allclose(y[kept], plain[kept] / 0.7)
    for word in ids.unique():
        assert len(kept[ids == word].unique()) == 1  # wherever it stands
    counted(drop(torch.arange(1, 900)).ne(0).any(-1), 0.3)
    assert torch.equal(drop.eval()(ids), plain)
    assert list(drop.state_dict()) == ["embedding.weight"]


# Penalties.


def test_penalties_are_mean_squares(assert_close: Any) -> None:
    h = torch.randn(5, 3, 4, dtype=F64, requires_grad=True)
    assert_close("AR", activation_regularisation(h, 2.0), 2 * F.mse_loss(h, torch.zeros_like(h)), 1e-14)
    assert_close("TAR", temporal_activation_regularisation(h, 3.0), 3 * F.mse_loss(h[1:], h[:-1]), 1e-14)
    rows = [h[:5, 0], h[:2, 2]]
    want = torch.cat(rows).square().mean()
    differences = torch.cat([row[1:] - row[:-1] for row in rows]).square().mean()
    poisoned = torch.where(VALID.unsqueeze(-1), h, torch.nan)
    for given, options in (
        (poisoned, {"lengths": LENGTHS}),
        (poisoned.transpose(0, 1), {"lengths": LENGTHS, "batch_first": True}),
        (pack_sequence(rows), {}),
    ):
        assert_close("AR", activation_regularisation(given, 1.0, **options), want, 1e-14)
        total = temporal_activation_regularisation(given, 1.0, **options)
        assert_close("TAR", total, differences, 1e-14)
        (gradient,) = torch.autograd.grad(total, h, retain_graph=True)
        assert gradient.isfinite().all()
    reset = torch.zeros(5, 3, dtype=torch.bool)
    reset[3] = True
    pieces = torch.cat([(h[1:3] - h[:2]), h[4:] - h[3:4]]).square().mean()
    assert_close("resets", temporal_activation_regularisation(h, 1.0, reset=reset), pieces, 1e-14)


def test_penalties_of_nothing_are_zero() -> None:
    h = torch.randn(5, 3, 4, requires_grad=True)
    for value in (
        activation_regularisation(h, 1.0, lengths=[0, 0, 0]),
        temporal_activation_regularisation(h, 1.0, lengths=[1, 1, 0]),
        temporal_activation_regularisation(h[:1], 1.0),
    ):
        assert value.item() == 0.0
        value.backward()
    with pytest.raises(InputError, match="got a list as input of a penalty"):
        activation_regularisation([1.0], 1.0)


# Trace.


def test_trace_of_an_lstm_is_its_equations(assert_close: Any) -> None:
    layer = LSTM(3, 4, dtype=F64)
    x = torch.randn(5, 2, 3, dtype=F64)
    traced = layer.trace(x)
    v = {name.removesuffix("_l0"): value for name, value in traced.values.items()}
    assert set(v) == {"i", "f", "g", "o", "h", "c"}
    output, state, states = layer(x, return_states=True)
    assert_close("output", traced.output, output, 1e-14)
    assert_close("h", v["h"], states[0].squeeze(1), 1e-14)
    assert_close("c", v["c"], states[1].squeeze(1), 1e-14)
    assert_close("state", traced.state[1], state[1], 1e-14)
    before = torch.cat([torch.zeros(1, 2, 4, dtype=F64), v["h"][:-1]])
    pre = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0) + F.linear(before, layer.weight_hh_l0, layer.bias_hh_l0)
    for name, got, want in zip("ifgo", (v[n] for n in "ifgo"), pre.chunk(4, -1), strict=True):
        assert_close(name, got, torch.tanh(want) if name == "g" else torch.sigmoid(want), 1e-14)
    assert_close("h of c", v["h"], v["o"] * torch.tanh(v["c"]), 1e-14)


class Parts(Cell):
    """Named values of several kinds: one number per row, the same at all steps, before the loop and in it."""

    states = {"h": "hidden_size", "s": "small_size"}
    small_size = 2

    def step(self, x: Any, h: Any, s: Any) -> Any:
        seen = tanh(self.linear("a", x))
        constant = tanh(self.bias("b"))
        gate = seen * constant + self.linear("a", h)
        kept = 0.5 * s
        return tanh(gate), kept + self.linear("o", gate, matrix="o", size="small_size")


@pytest.mark.parametrize("batch_first", [False, True])
def test_trace_has_the_layout_of_the_input(batch_first: bool) -> None:
    layer = Recurrent(Parts, 3, 4, 2, bidirectional=True, batch_first=batch_first)
    x = torch.randn(3, 5, 3) if batch_first else torch.randn(5, 3, 3)
    reset = (torch.eye(3, 5) if batch_first else torch.eye(5, 3)) > 0
    traced = layer.trace(x, lengths=LENGTHS, reset=reset)
    names = {"seen": 4, "constant": 4, "gate": 4, "kept": 2, "h": 4, "s": 2}
    suffixes = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert {n: v.shape[-1] for n, v in traced.values.items()} == {n + s: k for n, k in names.items() for s in suffixes}
    valid = VALID.t() if batch_first else VALID
    assert all(v.shape[:2] == x.shape[:2] and not v[~valid].any() for v in traced.values.values())
    assert all(v[valid].any() for v in traced.values.values())
    output, state = layer(x, lengths=LENGTHS, reset=reset)
    assert torch.allclose(traced.output, output, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(traced.state, state, strict=True))


def test_trace_of_one_sequence_of_packed_ones_and_of_nothing() -> None:
    layer, x = GRU(3, 4), torch.randn(5, 3)
    values = layer.trace(x).values
    assert values["z_l0"].shape == (5, 4)
    packed = layer.trace(pack_sequence([x, x[:2]])).values["z_l0"]
    assert torch.allclose(pad_packed_sequence(packed)[0][:, 0], values["z_l0"], atol=1e-6)
    assert layer.trace(torch.randn(0, 2, 3)).values["z_l0"].shape == (0, 2, 4)
    assert not layer.trace(torch.randn(5, 2, 3), lengths=[0, 0]).values["z_l0"].any()


def test_trace_sees_what_the_wrappers_do() -> None:
    """In training with the masks of a call after the same seed."""
    layer, x = LSTM(3, 4, recurrent_dropout=0.5, zoneout=0.5, weight_drop=0.5), torch.randn(5, 2, 3)
    torch.manual_seed(3)
    traced = layer.trace(x)
    torch.manual_seed(3)
    output, _, (h, c) = layer(x, return_states=True)
    assert torch.allclose(traced.output, output, atol=1e-6)
    assert torch.allclose(traced.values["h_l0"], h.squeeze(1), atol=1e-6)
    assert torch.allclose(traced.values["c_l0"], c.squeeze(1), atol=1e-6)
