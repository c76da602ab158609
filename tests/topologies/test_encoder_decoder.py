"""N to M: the decoder beside a loop over cells of torch.nn, and whole nets with and without padding."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellwright import (
    GRU,
    LSTM,
    GRUCell,
    InputError,
    LSTMCell,
    OptionError,
    Recurrent,
    gradient_norms,
    use_target,
)
from cellwright.topologies import (
    BahdanauAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    LinearBridge,
    LuongAttention,
    encoder_decoder,
    inverse_sigmoid_decay,
    sequence_cross_entropy,
)

F64 = torch.float64
CLOSE = 1e-13  # sums of tens of numbers near 1, in another order
V = 7
SOURCE_LENGTHS, TARGET_LENGTHS = [5, 0, 2, 3], [4, 3, 0, 1]
FORMS: dict[str, dict[str, Any]] = {
    "none": {"attention": None},
    "luong": {},
    "luong-dot": {"attention": "luong-dot"},
    "luong-concat": {"attention": "luong-concat"},
    "input feeding": {"input_feeding": True},
    "bahdanau": {"attention": "bahdanau"},
    "both ways, two layers": {"bidirectional": True, "num_layers": 2, "cell": "gru"},
    "bahdanau, both ways, two layers": {"bidirectional": True, "num_layers": 2, "attention": "bahdanau"},
}


def net_of(form: str, **options: Any) -> EncoderDecoder:
    return encoder_decoder(9, V, 6, embedding_size=5, dtype=F64, **FORMS[form], **options)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


def row(state: Any, b: int) -> Any:
    return state[..., b : b + 1, :] if isinstance(state, Tensor) else tuple(row(s, b) for s in state)


@pytest.mark.parametrize("kind", ["none", "luong", "input feeding", "bahdanau"])
def test_a_decoder_by_hand(kind: str, assert_close: Any) -> None:
    """Equations of the papers, step by step, with torch.nn.GRUCell; values, weights, state and gradients."""
    attention: Any = None if kind == "none" else LuongAttention(6, 3, dtype=F64)
    if kind == "bahdanau":
        attention = BahdanauAttention(6, 3, dtype=F64)
    A = 6 if kind == "none" else 8
    inputs = {"none": 5, "luong": 5, "input feeding": 5 + A, "bahdanau": 5 + 3}[kind]
    decoder = Decoder(
        nn.Embedding(V, 5, dtype=F64),
        GRU(inputs, 6, dtype=F64),
        attention=attention,
        features=None if kind == "none" else A,
        input_feeding=kind == "input feeding",
    )
    cell = nn.GRUCell(inputs, 6, dtype=F64)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in decoder.recurrent.state_dict().items()})
    ids = torch.randint(0, V, (4, 2))
    values, start = torch.randn(3, 2, 3, dtype=F64), torch.randn(1, 2, 6, dtype=F64)
    memory = None if attention is None else attention.memory(values, [3, 2])
    got = decoder(ids, decoder.start(2, start), memory)
    h, a = start[0], torch.zeros(2, A, dtype=F64)
    logits = []
    for t in range(4):
        x = decoder.embedding.weight[ids[t]]
        context, weights = attention(h, memory) if kind == "bahdanau" else (None, None)
        x = torch.cat([x, a], 1) if kind == "input feeding" else x
        x = torch.cat([x, context], 1) if kind == "bahdanau" else x
        h = cell(x, h)
        if kind in ("luong", "input feeding"):
            context, weights = attention(h, memory)
        a = h if kind == "none" else torch.tanh(torch.cat([h, context], 1) @ decoder.combine.weight.t())
        logits.append(a @ decoder.output.weight.t() + decoder.output.bias)
        if kind != "none":
            assert_close("weights", got.weights[t], weights, CLOSE)
    assert got.weights is not None or kind == "none"
    assert_close("logits", got.logits, torch.stack(logits), CLOSE)
    assert_close("state", got.state[0][0], h, CLOSE)
    if kind == "input feeding":
        assert_close("fed", got.state[1], a, CLOSE)
    seed = torch.randn_like(got.logits)
    grads = torch.autograd.grad((got.logits * seed).sum(), decoder.embedding.weight)
    want = torch.autograd.grad((torch.stack(logits) * seed).sum(), decoder.embedding.weight)
    assert_close("gradient", grads[0], want[0], CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_all_steps_at_once_are_one_after_the_other(form: str, assert_close: Any) -> None:
    """What training computes is what a search computes."""
    net = net_of(form)
    source, target = torch.randint(0, 9, (5, 4)), torch.randint(0, V, (4, 4))
    whole = net(source, target, source_lengths=SOURCE_LENGTHS)
    state, memory = net.encode(source, SOURCE_LENGTHS)
    for t, ids in enumerate(torch.cat([torch.zeros(1, 4, dtype=torch.int64), target])):
        logits, state = net.decoder.step(ids, state, memory)
        assert_close("logits", whole.logits[t], logits, CLOSE)
    for a, b in zip(flat(state), flat(whole.state), strict=True):
        assert_close("state", a, b, CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_neither_result_nor_gradient(form: str, assert_close: Any) -> None:
    """A batch with lengths is its pairs alone, whatever symbols the padding holds; empty sources and targets too."""
    net = net_of(form)
    source, target = torch.randint(0, 9, (5, 4)), torch.randint(0, V, (4, 4))
    for ids, lengths in ((source, SOURCE_LENGTHS), (target, TARGET_LENGTHS)):
        for b, n in enumerate(lengths):
            ids[n:, b] = -100
    given: dict[str, Any] = {"source_lengths": SOURCE_LENGTHS, "target_lengths": TARGET_LENGTHS}
    batch = net(source, target, **given)
    loss = net.loss(source, target, **given)
    loss.backward()
    got = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    terms = []
    for b, (m, n) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        alone = net(source[:m, b : b + 1], target[:n, b : b + 1])
        assert_close("logits", batch.logits[: n + 1, b], alone.logits[:, 0], CLOSE)
        assert not batch.logits[n + 1 :, b].any()
        for a, w in zip(flat(row(batch.state, b)), flat(alone.state), strict=True):
            assert_close("state", a, w, CLOSE)
        if batch.weights is not None:
            assert_close("weights", batch.weights[: n + 1, b, :m], alone.weights[:, 0], CLOSE)
            assert not batch.weights[: n + 1, b, m:].any()
        wanted = torch.cat([target[:n, b], torch.tensor([1])])
        terms.append(F.cross_entropy(alone.logits[:, 0], wanted, reduction="sum"))
    total = sum(terms) / (sum(TARGET_LENGTHS) + 4)
    assert_close("loss", loss, total, CLOSE)
    total.backward()
    want = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        assert_close(name, got[name], gradient, CLOSE)
    _, wanted, lengths = net.shift(target, TARGET_LENGTHS)
    assert_close("loss of logits", sequence_cross_entropy(batch.logits, wanted, lengths), loss, CLOSE)


def test_shift() -> None:
    net = net_of("none", start=3, end=2)
    target = torch.tensor([[4, 5], [6, -1]])
    inputs, wanted, lengths = net.shift(target, [2, 1])
    assert inputs.tolist() == [[3, 3], [4, 5], [6, 2]] and wanted.tolist() == [[4, 5], [6, 2], [2, 2]]
    assert lengths.tolist() == [3, 2]
    inputs, wanted, lengths = net.shift(torch.zeros(0, 2, dtype=torch.int64))
    assert inputs.tolist() == [[3, 3]] and wanted.tolist() == [[2, 2]] and lengths is None


@pytest.mark.parametrize("form", FORMS)
def test_search_is_that_of_each_source_alone(form: str, assert_close: Any) -> None:
    """Beams of a batch do not mix; their probabilities are those of the net that is given what was found."""
    net = net_of(form)
    with torch.no_grad():
        net.decoder.output.weight.mul_(8)  # otherwise all symbols are nearly as probable
    source = torch.randint(0, 9, (5, 4))
    found = net.beam(source, SOURCE_LENGTHS, beam_width=3, max_length=6)
    for b, n in enumerate(SOURCE_LENGTHS):
        alone = net.beam(source[:n, b : b + 1], beam_width=3, max_length=6)
        assert torch.equal(alone.lengths[0], found.lengths[b])
        assert torch.equal(alone.ids[:, 0], found.ids[: len(alone.ids), b])
        assert_close("log p", found.log_probability[b], alone.log_probability[0], 1e-12)
        for k in range(3):
            m, ends = int(found.lengths[b, k]), bool(found.finished[b, k])
            logits = net(source[:n, b : b + 1], found.ids[:m, b, k].unsqueeze(1)).logits[: m + ends, 0]
            text = torch.cat([found.ids[:m, b, k], torch.tensor([1])])[: m + ends]
            total = logits.log_softmax(-1).gather(1, text.unsqueeze(1)).sum()
            assert_close("log p", found.log_probability[b, k], total.detach(), 1e-12)
    ids, lengths = net.greedy(source, SOURCE_LENGTHS, max_length=6).best
    for b in range(4):
        n = int(lengths[b])
        logits = net(source[: SOURCE_LENGTHS[b], b : b + 1], ids[:n, b : b + 1]).logits[:, 0]
        best = logits.argmax(-1)
        assert torch.equal(best[:n], ids[:n, b]) and (n == 6 or int(best[n]) == 1)


@pytest.mark.parametrize("form", ["none", "luong", "bahdanau"])
def test_scheduled_sampling(form: str, assert_close: Any) -> None:
    """The symbols that go in: the right ones or the net's own, as often as asked; none of it changes the equations."""
    net = net_of(form)
    source = torch.randint(0, 9, (5, 200))
    target = torch.full((21, 200), 5)
    seen: list[Tensor] = []
    hook = net.decoder.embedding.register_forward_hook(lambda module, given, _: seen.append(given[0]))
    with torch.no_grad():
        net.decoder.output.weight.zero_()
        net.decoder.output.bias.copy_(torch.tensor([-99, -99, -99, 99, -99, -99, -99]))
    plain = net(source, target)
    for rate in (0.0, 0.25, 1.0):
        seen.clear()
        net(source, target, sampling=rate)
        own = (torch.cat([s.view(-1, 200) for s in seen])[1:] == 3).double().mean().item()
        # 21 * 200 draws: four standard deviations
        assert own == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4200) ** 0.5)
        assert (seen[0].view(-1, 200)[0] == 0).all()  # the start symbol is always right
    hook.remove()
    nn.init.normal_(net.decoder.output.weight)
    plain = net(source, target)
    one, two, other = (
        net(source, target, sampling=0.5, generator=torch.Generator().manual_seed(k)).logits for k in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert_close("the first step", one[0], plain.logits[0], CLOSE)
    loss = net.loss(source, target, sampling=0.5, generator=torch.Generator().manual_seed(1))
    wanted = torch.cat([target, torch.ones(1, 200, dtype=torch.int64)])
    assert_close("loss", loss, sequence_cross_entropy(one, wanted), CLOSE)
    loss.backward()
    assert net.decoder.output.weight.grad.any()


def test_the_chance_of_the_right_symbol() -> None:
    assert inverse_sigmoid_decay(0, 10) == pytest.approx(10 / 11)
    assert inverse_sigmoid_decay(10, 10) == pytest.approx(10 / (10 + 2.718281828459045))
    assert inverse_sigmoid_decay(10**9, 10) < 1e-200
    for step, k in ((-1, 10), (0, 0.5)):
        with pytest.raises(OptionError, match="expected a step"):
            inverse_sigmoid_decay(step, k)


def test_bridges(assert_close: Any) -> None:
    source, lengths = torch.randint(0, 9, (5, 4)), SOURCE_LENGTHS
    net = net_of("none", num_layers=2)
    state, _ = net.encode(source, lengths)
    _, last, _ = net.encoder(source, lengths)
    assert all(torch.equal(a, b) for a, b in zip(flat(state), flat(last), strict=True))
    net = net_of("both ways, two layers")
    assert isinstance(net.bridge, LinearBridge)
    ((got, _), _), (_, last, _) = net.encode(source, lengths), net.encoder(source, lengths)
    e = torch.cat([last[-2], last[-1]], -1)
    s = torch.tanh(e @ net.bridge.project.weight.t() + net.bridge.project.bias)
    assert_close("bridge", got, torch.stack([s[:, :6], s[:, 6:]]), CLOSE)
    assert not [name for name in net.state_dict() if name.startswith("bridge") and "project" not in name]


def test_a_bridge_from_features(assert_close: Any) -> None:
    layer = Recurrent([LSTMCell(5, 6, dtype=F64), GRUCell(6, 7, dtype=F64)])
    bridge, e = LinearBridge(3, layer), torch.randn(4, 3, dtype=F64)
    made = flat(bridge(e))
    assert [list(s.shape) for s in made] == [list(s.shape) for s in flat(layer(torch.zeros(1, 4, 5, dtype=F64))[1])]
    s = torch.tanh(e @ bridge.project.weight.t() + bridge.project.bias)
    assert_close("bridge", torch.cat([s.transpose(0, 1).flatten(1) for s in made], -1), s, CLOSE)
    with pytest.raises(OptionError, match="encoder"):
        LinearBridge(0, layer)


def test_symbols_that_are_never_written(assert_close: Any) -> None:
    """The search is that of a net whose softmax is over the others."""
    net = net_of("luong").eval()
    net.decoder.output.bias.data[[0, 3]] = 2.0  # without the ban they are often the best
    source = torch.randint(0, 9, (5, 4))
    banned = copy.deepcopy(net)
    banned.decoder.output.bias.data[[0, 3]] = -torch.inf
    for width in (1, 3):
        found = net.beam(source, SOURCE_LENGTHS, beam_width=width, max_length=6, never=(0, 3))
        wanted = banned.beam(source, SOURCE_LENGTHS, beam_width=width, max_length=6)
        assert torch.equal(found.ids, wanted.ids) and not torch.isin(found.ids, torch.tensor([0, 3])).any()
        assert_close("log p", found.log_probability, wanted.log_probability, 1e-12)
    assert torch.isin(net.beam(source, SOURCE_LENGTHS, max_length=6).ids, torch.tensor([0, 3])).any()
    with pytest.raises(OptionError, match="never"):
        net.beam(source, max_length=6, never=(V,))


def test_other_layers_on_either_side() -> None:
    """An encoder of frames with an LSTM, a decoder with a list of cells of other sizes."""
    encoder = Encoder(LSTM(3, 4, bidirectional=True, dtype=F64), input=nn.Linear(2, 3, dtype=F64), dropout=0.5)
    layer = Recurrent([LSTMCell(5, 6, dtype=F64), GRUCell(6, 7, dtype=F64)])
    decoder = Decoder(nn.Embedding(V, 5, dtype=F64), layer, attention=LuongAttention(7, 8, dtype=F64), dropout=0.5)
    net = EncoderDecoder(encoder, decoder).eval()
    frames = torch.randn(5, 2, 2, dtype=F64)
    frames[3:, 1] = torch.nan
    loss = net.loss(frames, torch.randint(0, V, (4, 2)), source_lengths=[5, 3])
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters())
    assert net.beam(frames, [5, 3], max_length=4).ids.shape[1:] == (2, 5)
    assert not torch.equal(net.train()(frames, torch.zeros(4, 2).long(), source_lengths=[5, 3]).logits, loss)


def test_an_encoder_of_ones_own() -> None:
    """Regions of images: a memory shorter than the source, and a bridge from what the encoder gives."""

    class Regions(nn.Module):
        def forward(self, images: Tensor, lengths: Any) -> Any:
            return images.unflatten(0, (2, -1)).mean(1), images.mean(0), [2, 1, 2]

    class Start(nn.Module):
        def forward(self, mean: Tensor) -> Tensor:
            return mean.unsqueeze(0)

    attention = LuongAttention(6, 6)
    decoder = Decoder(nn.Embedding(V, 5), GRU(5, 6), attention=attention)
    net = EncoderDecoder(Regions(), decoder, bridge=Start())
    found = net(torch.randn(4, 3, 6), torch.randint(0, V, (5, 3)))
    assert found.weights.shape == (6, 3, 2) and (found.weights[:, 1, 0] == 1).all()
    with pytest.raises(OptionError, match="needs a module as bridge"):
        EncoderDecoder(Regions(), decoder)


def test_the_layer_is_called_once_for_all_steps() -> None:
    deep = {"num_layers": 2}
    for form, calls, options in (("luong", 1, {}), ("none", 1, {}), ("bahdanau", 9, deep), ("input feeding", 9, {})):
        net = net_of(form, **options)
        seen: list[int] = []
        net.decoder.recurrent.register_forward_hook(lambda module, given, _, seen=seen: seen.append(len(given[0])))
        net(torch.zeros(5, 2, dtype=torch.int64), torch.zeros(8, 2, dtype=torch.int64))
        assert [n for n in seen if n] == [9 // calls] * calls


def results(net: EncoderDecoder) -> dict[str, Tensor]:
    """Logits, weights in the valid steps, and all gradients."""
    dtype = net.decoder.output.weight.dtype
    source, target = torch.arange(20).view(5, 4) % 9, torch.arange(16).view(4, 4) % V
    found = net(source, target, source_lengths=SOURCE_LENGTHS, target_lengths=TARGET_LENGTHS)
    valid = torch.arange(5).unsqueeze(1) <= torch.tensor(TARGET_LENGTHS)
    a = found.weights.masked_fill(~valid.unsqueeze(-1), 0)
    parts = [v * torch.linspace(-1, 1, v.numel(), dtype=F64).view(v.shape).to(dtype) for v in (found.logits, a)]
    net.zero_grad()
    torch.stack([p.sum() for p in parts]).sum().backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return {"logits": found.logits, "weights": a, "state": flat(found.state)[0], **gradients}


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_bahdanau_in_one_scan_is_the_loop(cell: str, assert_close: Any) -> None:
    """And in float32 in the compiled loop, within roundings."""
    net = encoder_decoder(9, V, 6, embedding_size=5, cell=cell, attention="bahdanau", bidirectional=True)
    with use_target("cpu"):
        compiled = results(net)
    assert not net.decoder.loops
    net.to(F64)
    with use_target("torch"):
        got = results(net)
        net.decoder._attended = None
        assert net.decoder.loops
        want = results(net)
        assert got.keys() == want.keys() == compiled.keys()
        for name, value in want.items():
            assert_close(name, got[name], value, CLOSE)
            assert_close(f"compiled {name}", compiled[name].double(), value, 1e-6)


def test_gradient_norms_look_into_bahdanau() -> None:
    net = net_of("bahdanau")
    source, target = ids(5, 2), ids(4, 2)
    norms = gradient_norms(net.decoder.recurrent, lambda: net.loss(source, target))
    assert all(n.shape == (5, 2) and (n > 0).any() for n in norms.values())


def ids(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: encoder_decoder(9, V, 6, attention="vaswani"), "got attention='vaswani', expected luong, luong-dot"),
        (lambda: encoder_decoder(9, V, 6, attention="luong-dot", bidirectional=True), 'use score="general"'),
        (lambda: encoder_decoder(9, V, 6, cell="ltsm"), "ltsm"),
        (lambda: encoder_decoder(9, V, 6, cell="gru", peephole=True), "peephole"),
        (lambda: encoder_decoder(9, V, 6, bridge="golden"), "expected copy, linear or a module"),
        (lambda: encoder_decoder(9, V, 6, bridge="copy", bidirectional=True), 'use bridge="linear"'),
        (lambda: encoder_decoder(9, V, 6, start=V), "got start=7, expected a symbol"),
        (lambda: encoder_decoder(9, V, 6, end=-1), "got end=-1"),
        (lambda: encoder_decoder(9, V, 6, attention=None, input_feeding=True), "without attention"),
        (lambda: encoder_decoder(9, V, 6, attention="bahdanau", input_feeding=True), "fed in already"),
        (lambda: encoder_decoder(9, 0, 6), "target_vocabulary"),
        (lambda: encoder_decoder(0, V, 6), "source_vocabulary"),
        (lambda: encoder_decoder(9, V, 6, embedding_size=0), "embedding_size"),
        (lambda: encoder_decoder(9, V, 0), "hidden_size"),
        (lambda: encoder_decoder(9, V, 6, dropout=1.5), "dropout"),
        (lambda: Decoder(nn.Embedding(V, 5), GRU(4, 6)), "got a layer with input_size=4, expected 5"),
        (lambda: Decoder(nn.Embedding(V, 5), GRU(5, 6), features=3), "without attention"),
        (lambda: Decoder(nn.Embedding(V, 5), GRU(5, 6, bidirectional=True)), "bidirectional"),
        (lambda: Decoder(nn.Embedding(V, 5), nn.GRU(5, 6)), "got a GRU for Decoder"),
        (lambda: Decoder(nn.Embedding(V, 5), GRU(5, 6), attention=LuongAttention(5, 6)), "query_size=5, expected 6"),
        (lambda: Encoder(GRU(5, 6, batch_first=True)), "batch_first"),
    ],
)
def test_wrong_options(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: n(ids(5, 2), ids(4, 3)), "got 2 sources and 3 targets"),
        (lambda n: n(ids(5, 2), torch.zeros(4, 2)), "expected integers"),
        (lambda n: n(ids(5, 2), ids(4)), "got targets of shape"),
        (lambda n: n(ids(5, 2), None), "got targets of NoneType"),
        (lambda n: n(ids(5), ids(4, 2)), "Encoder"),
        (lambda n: n(torch.zeros(5, 2), ids(4, 2)), "expected integers"),
        (lambda n: n(ids(5, 2) + 9, ids(4, 2)), "got the symbol 9 in the source, expected 0 to 8"),
        (lambda n: n(ids(5, 2), ids(4, 2) + V), "got the symbol 7 in the targets"),
        (lambda n: n(ids(5, 2), ids(4, 2), source_lengths=[6, 1]), "length 6"),
        (lambda n: n(ids(5, 2), ids(4, 2), target_lengths=[1, 5]), "length 5"),
        (lambda n: n(ids(5, 2), ids(4, 2), sampling=1.5), "got sampling=1.5"),
        (lambda n: n(ids(5, 2), ids(4, 2), sampling=torch.nan), "got sampling=nan"),
        (lambda n: n.loss(ids(5, 0), ids(4, 0)), "without any sequence"),
        (lambda n: n.decoder(ids(4, 2)), "got no memory"),
        (lambda n: n.decoder(ids(4)), "got symbols of shape"),
        (lambda n: n.decoder(ids(4, 2), n.decoder.start(3), n.encode(ids(5, 2))[1]), "state"),
        (lambda n: net_of("none").decoder(ids(4, 2), None, n.encode(ids(5, 2))[1]), "without attention"),
        (lambda n: n.beam(ids(5, 2), beam_width=0, max_length=4), "beam_width"),
    ],
)
def test_wrong_calls(call: Any, words: str) -> None:
    with pytest.raises((InputError, OptionError), match=words):
        call(net_of("luong"))


def test_copies_and_state_dicts() -> None:
    """A copy is a net of its own: its bridge belongs to its own layers."""
    net = net_of("both ways, two layers")
    twin = copy.deepcopy(net)
    other = net_of("both ways, two layers")
    other.load_state_dict(net.state_dict(), strict=True)
    source, target = torch.randint(0, 9, (5, 2)), torch.randint(0, V, (4, 2))
    want = net(source, target).logits.detach()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    for same in (twin, other, pickle.loads(pickle.dumps(twin))):
        assert torch.equal(same(source, target).logits, want)
