"""One to one, N to N, N to 1, 1 to N: beside torch.nn and loops written out, with and without padding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellwright import GRU, LSTM, RNN, GRUCell, InputError, LSTMCell, OptionError, Recurrent, RNNCell
from cellwright.topologies import AttentionPool, ManyToMany, ManyToOne, MaxPool, MeanPool, OneToMany, OneToOne

F64 = torch.float64
# Sums of tens of numbers near 1, in another order than those they are compared with.
CLOSE = 1e-13
LENGTHS = [5, 0, 2, 7]
LAYERS: dict[str, Any] = {
    "rnn": lambda **o: RNN(3, 4, dtype=F64, **o),
    "lstm both ways": lambda **o: LSTM(3, 4, 2, bidirectional=True, dtype=F64, **o),
    "mixed": lambda **o: Recurrent([LSTMCell(3, 4, dtype=F64), GRUCell(4, 5, dtype=F64)], **o),
}


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


def gradients(net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.fixture
def worked() -> RNN:
    """The net of the worked example: state @ W + x u + b, as a layer with one bias."""
    layer = RNN(1, 2, bias="input", dtype=F64)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=F64).t())
        layer.weight_ih_l0.copy_(torch.tensor([[0.5], [0.6]], dtype=F64))
        layer.bias_ih_l0.copy_(torch.tensor([0.1, -0.1], dtype=F64))
    return layer


def test_worked_example(worked: RNN, assert_close: Any) -> None:
    net = ManyToMany(worked, 1)
    with torch.no_grad():
        net.output.weight.copy_(torch.tensor([[1.0, 2.0]]))
        net.output.bias.copy_(torch.tensor([0.1], dtype=F64))
    y, state = net(torch.tensor([1.0, 2.0], dtype=F64).view(2, 1, 1))
    assert_close("outputs", y.flatten(), torch.tensor([1.5612838815180548, 2.727071008233731], dtype=F64), 1e-15)
    want = torch.tensor([0.8597381843462615, 0.8836664119437349], dtype=F64)
    assert_close("state", state.flatten(), want, 1e-15)
    # (n + m) n + n + n k + k with n = 2, m = k = 1
    assert sum(p.numel() for p in net.parameters()) == 11


@pytest.mark.parametrize(("form", "want"), [("first", [0.2843, 0.1899]), ("every", [0.6597, 0.6597])])
def test_the_two_forms_of_one_to_many_differ(worked: RNN, form: str, want: list[float], assert_close: Any) -> None:
    net = OneToMany(worked, nn.Identity(), form=form)
    h, _ = net(torch.ones(1, 1, dtype=F64), 2)
    assert_close("h_2", h[1, 0], torch.tensor(want, dtype=F64), 5e-5)  # the numbers have four digits


def test_without_recurrent_weights_every_step_is_a_feed_forward_layer(assert_close: Any) -> None:
    net = ManyToMany(RNN(3, 5, dtype=F64), 2)
    nn.init.zeros_(net.recurrent.weight_hh_l0)
    nn.init.zeros_(net.recurrent.bias_hh_l0)
    x = torch.randn(6, 4, 3, dtype=F64)
    y, _ = net(x)
    layer = net.recurrent
    want = net.output(torch.tanh(x @ layer.weight_ih_l0.t() + layer.bias_ih_l0))
    assert_close("y", y, want, 1e-15)
    one = OneToOne(layer, net.output)
    assert_close("one to one", one(x[3])[0], want[3], 1e-15)


def test_one_to_one_is_the_first_step() -> None:
    layer = GRU(3, 4, dtype=F64)
    x, start = torch.randn(2, 3, dtype=F64), torch.randn(1, 2, 4, dtype=F64)
    y, state = (net := OneToOne(layer, 5))(x, start)
    output, want = layer(x.unsqueeze(0), start)
    assert torch.equal(y, net.output(output[0])) and torch.equal(state, want)
    ids = OneToOne(layer, net.output)(torch.tensor([2, 0]))[0]
    assert torch.equal(ids, net.output(layer(torch.tensor([[2, 0]]))[0][0]))


def nets() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, layer in LAYERS.items():
        made[f"many to many, {name}"] = lambda layer=layer: ManyToMany(layer(), 2)
        made[f"with input, {name}"] = lambda layer=layer: ManyToMany(layer(), 2, input=nn.Linear(3, 3, dtype=F64))
        for pool in ("last", "mean", "max", "attention"):
            made[f"{pool}, {name}"] = lambda layer=layer, pool=pool: ManyToOne(layer(), 2, pool=pool)
    return made


@pytest.mark.parametrize("name", nets())
def test_padding_changes_neither_result_nor_gradient(name: str, assert_close: Any) -> None:
    """A batch with lengths is its sequences alone, whatever the padding holds; gradients too."""
    net = nets()[name]()
    clean = torch.randn(7, 4, 3, dtype=F64)
    padded = torch.arange(7).unsqueeze(1) >= torch.tensor(LENGTHS)
    x = clean.masked_fill(padded.unsqueeze(-1), torch.nan).requires_grad_()
    with torch.no_grad():
        start = net.recurrent(clean)[1]
    y, state = net(x, start, lengths=LENGTHS)
    seed = torch.randn_like(y)
    got = gradients(net, (y * seed).sum())
    total: Any = 0
    for b, n in enumerate(LENGTHS):
        own = _row(start, b)
        alone, last = net(clean[:n, b : b + 1], own)
        rows = slice(n) if y.dim() == 3 else b
        if y.dim() == 3:
            assert_close("y", y[:n, b], alone[:, 0], CLOSE)
            assert not y[n:, b].any()
            total = total + (alone[:, 0] * seed[:n, b]).sum()
        else:
            assert_close("y", y[rows], alone[0], CLOSE)
            total = total + (alone[0] * seed[b]).sum()
        for a, w in zip(flat(_row(state, b)), flat(last), strict=True):
            assert_close("state", a, w, CLOSE)
    assert not x.grad.masked_select(padded.unsqueeze(-1)).any()
    want = gradients(net, total)
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert_close(key, got[key], value, 10 * CLOSE)


def _row(state: Any, b: int) -> Any:
    return state[..., b : b + 1, :] if isinstance(state, Tensor) else tuple(_row(s, b) for s in state)


def test_the_last_state_is_that_of_torch(assert_close: Any) -> None:
    """Both directions after their last valid step: the backward one ends at the first step, not at the last."""
    theirs = nn.LSTM(3, 4, 2, bidirectional=True, dtype=F64)
    ours = LSTM(3, 4, 2, bidirectional=True, dtype=F64)
    ours.load_state_dict(theirs.state_dict())
    net = ManyToOne(ours, nn.Identity())
    x, lengths = torch.randn(7, 3, 3, dtype=F64), [7, 1, 4]
    got, _ = net(x, lengths=lengths)
    for b, n in enumerate(lengths):
        _, (h, _) = theirs(x[:n, b])
        assert_close("h_T", got[b], torch.cat([h[-2], h[-1]]), CLOSE)


def test_pools_by_hand(assert_close: Any) -> None:
    h = torch.randn(7, 4, 3, dtype=F64)
    attention = AttentionPool(3, 5, dtype=F64)
    with torch.no_grad():
        got = {pool: pool(h, LENGTHS) for pool in (MeanPool(), MaxPool(), attention)}
        weights = attention.weights(h, LENGTHS)
    for b, n in enumerate(LENGTHS):
        steps = [h[t, b] for t in range(n)]
        if not steps:
            assert not any(p[b].any() for p in got.values()) and not weights[:, b].any()
            continue
        scores = [
            torch.exp((attention.query.weight @ torch.tanh(attention.hidden.weight @ s + attention.hidden.bias))[0])
            for s in steps
        ]
        mixed = sum(e * s for e, s in zip(scores, steps, strict=True)) / sum(scores)
        want = [sum(steps) / n, torch.stack(steps).max(0).values, mixed]
        for (pool, value), w in zip(got.items(), want, strict=True):
            assert_close(type(pool).__name__, value[b], w.detach(), CLOSE)
        assert_close("weights", weights[:n, b], (torch.stack(scores) / sum(scores)).detach(), CLOSE)
        assert not weights[n:, b].any()
    for pool in got:
        assert_close("no lengths", pool(h).detach(), pool(h, [7] * 4).detach(), CLOSE)


@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
def test_no_step_at_all(pool: str) -> None:
    """Of nothing: the initial state as last one, pools of zero."""
    layer = GRU(3, 4, dtype=F64)
    start = torch.randn(1, 2, 4, dtype=F64)
    x = torch.zeros(0, 2, 3, dtype=F64)
    assert torch.equal(ManyToOne(layer, nn.Identity())(x, start)[0], start[0])
    assert not ManyToOne(layer, nn.Identity(), pool=pool)(x, start)[0].any()
    assert ManyToMany(layer, 2)(x)[0].shape == (0, 2, 2)


def test_a_pool_of_ones_own() -> None:
    class First(nn.Module):
        def forward(self, h: Tensor, lengths: Any) -> Tensor:
            return h[0]

    layer = RNN(3, 4)
    x = torch.randn(5, 2, 3)
    assert torch.equal(ManyToOne(layer, nn.Identity(), pool=First())(x)[0], layer(x)[0][0])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["first", "every"])
@pytest.mark.parametrize("whole", [False, True])
def test_one_to_many_by_hand(name: str, form: str, whole: bool, assert_close: Any) -> None:
    """The layer over the sequence written out, row for row, each of its own length."""
    net = OneToMany(LAYERS[name](), 2, form=form)
    X = torch.tensor([2, 0, 1, 1]) if whole else torch.randn(4, 3, dtype=F64)
    vectors = torch.eye(3, dtype=F64)[X] if whole else X
    y, state = net(X, 7, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        later = torch.zeros(3, dtype=F64) if form == "first" else vectors[b]
        x = torch.stack([vectors[b], *[later] * 6])[:n].unsqueeze(1)
        output, last = net.recurrent(x)
        assert_close("y", y[:n, b], net.output(output)[:, 0], CLOSE)
        assert not y[n:, b].any()
        for a, w in zip(flat(_row(state, b)), flat(last), strict=True):
            assert_close("state", a, w, CLOSE)


@pytest.mark.parametrize("lengths", [None, [3, 0]])
def test_feedback_by_hand(lengths: Any, assert_close: Any) -> None:
    cell = RNNCell(3, 4, dtype=F64)
    net = OneToMany(Recurrent([cell]), 3, feedback=nn.Softmax(-1))
    X = torch.randn(2, 3, dtype=F64)
    y, (state,) = net(X, 4, lengths=lengths)
    x, h = X, torch.zeros(2, 4, dtype=F64)
    for t in range(4):
        before = h
        h = torch.tanh(x @ cell.weight_ih.t() + cell.bias_ih + h @ cell.weight_hh.t() + cell.bias_hh)
        out = h @ net.output.weight.t() + net.output.bias
        x = out.softmax(-1)
        on = torch.tensor([lengths is None or t < n for n in lengths or [0, 0]]).unsqueeze(-1)
        h = torch.where(on, h, before)
        assert_close("y", y[t], torch.where(on, out, 0), CLOSE)
    assert_close("state", state[0], h, CLOSE)


def test_feedback_of_symbols() -> None:
    """A net that says the next symbol, and is told it: the one-hot vectors of what it gave."""
    net = OneToMany(GRU(5, 4, dtype=F64), 5, feedback=lambda y: y.argmax(-1))
    y, _ = net(torch.tensor([3, 1]), 6)
    inputs = torch.cat([torch.tensor([[3, 1]]), y.argmax(-1)[:-1]])
    assert torch.allclose(net.output(net.recurrent(inputs)[0]), y, rtol=0, atol=CLOSE)


def test_padding_of_integers_may_hold_anything() -> None:
    layer = LSTM(6, 4, dtype=F64)
    net = ManyToOne(layer, 2, input=nn.Embedding(9, 6, dtype=F64), pool="mean")
    ids = torch.randint(0, 9, (5, 3))
    clean, _ = net(ids, lengths=[5, 2, 0])
    ids[2:, 1] = -100
    ids[:, 2] = 99
    assert torch.equal(net(ids, lengths=[5, 2, 0])[0], clean)


def test_resets_and_devices_and_dtypes_go_through() -> None:
    net = ManyToMany(GRU(3, 4, dtype=torch.bfloat16), 2)
    assert net.output.weight.dtype == torch.bfloat16
    layer = GRU(3, 4, dtype=F64)
    net = ManyToMany(layer, nn.Identity())
    x, reset = torch.randn(5, 2, 3, dtype=F64), torch.rand(5, 2) < 0.5
    assert torch.equal(net(x, reset=reset)[0], layer(x, reset=reset)[0])


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_the_last_outputs_of_both_directions_are_merged_as_the_layer_does(merge: Any, assert_close: Any) -> None:
    layer = LSTM(3, 4, 2, bidirectional=True, merge=merge, dtype=F64)
    net, x = ManyToOne(layer, 2), torch.randn(7, 4, 3, dtype=F64)
    _, (h, _) = layer(x, lengths=LENGTHS)
    want = (h[-2] + h[-1]) / (1 if merge == "sum" else 2)
    assert_close(merge, net(x, lengths=LENGTHS)[0], net.output(want), CLOSE)


def test_what_is_no_state_is_not_taken_for_the_last_output() -> None:
    net = ManyToOne(GRU(3, 3, residual=True), 2)
    with pytest.raises(OptionError, match="residual=True, whose output after the last step is not its state"):
        net(torch.randn(5, 2, 3))
    assert ManyToOne(GRU(3, 3, residual=True), 2, pool="mean")(torch.randn(5, 2, 3))[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ManyToOne(LSTM(3, 4, bidirectional=True, merge="none"), 2), "merge='none' for ManyToOne"),
        (lambda: ManyToMany(nn.LSTM(3, 4), 2), "got a LSTM for ManyToMany, expected a layer of cellwright"),
        (lambda: ManyToOne(LSTM, 2), "got the class LSTM for ManyToOne"),
        (lambda: ManyToMany(LSTM(3, 4, batch_first=True), 2), "batch_first=True"),
        (lambda: ManyToMany(LSTM(3, 4), 0), "output"),
        (lambda: ManyToOne(LSTM(3, 4), 2, pool="sum"), "got pool='sum', expected last, mean, max, attention"),
        (lambda: OneToMany(LSTM(3, 4), 2, form="always"), "got form='always', expected first or every"),
        (lambda: OneToMany(LSTM(3, 4), 3, form="every", feedback=nn.Identity()), "X at every step"),
        (lambda: OneToMany(LSTM(3, 4, bidirectional=True), 3, feedback=nn.Identity()), "bidirectional"),
    ],
)
def test_wrong_options(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words.replace("(", r"\(").replace(")", r"\)")):
        make()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: ManyToMany(m, 2)(torch.zeros(5, 3)), "a single sequence is a batch of one"),
        (lambda m: ManyToMany(m, 2)(torch.zeros(5)), "expected a tensor"),
        (lambda m: ManyToMany(m, 2)([1, 2]), "got an input of list"),
        (lambda m: ManyToMany(m, 2)(torch.zeros(5, 2, 4)), "input_size=3"),
        (lambda m: ManyToMany(m, 2)(torch.zeros(5, 2, 3), lengths=[6, 1]), "length 6"),
        (lambda m: ManyToOne(m, 2)(torch.zeros(5, 2, 3), lengths=[1]), "one per sequence"),
        (lambda m: OneToOne(m, 2)(torch.zeros(())), "without time"),
        (lambda m: OneToOne(m, 2)(torch.zeros(5, 2, 3)), "expected numbers"),
        (lambda m: OneToMany(m, 2)(torch.zeros(2, 3), 0), "steps"),
        (lambda m: OneToMany(m, 2)(torch.zeros(2, 3), 2.5), "steps"),
        (lambda m: OneToMany(m, 2)(torch.zeros(2, 3), 4, lengths=[5, 1]), "length 5"),
        (lambda m: OneToMany(m, 2)(torch.tensor([1, 3]), 4), "expected 0 to 2"),
        (lambda m: OneToMany(m, 2, feedback=nn.Identity())(torch.zeros(2, 3), 4), "input_size=3"),
        (lambda m: MeanPool()(torch.zeros(4)), "pool"),
    ],
)
def test_wrong_calls(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(LSTM(3, 4))
