"""Attention over a memory: against a loop written by hand, with lengths of both, and its gradients."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellwright import Attentive, Cell, GRUCell, InputError, LSTMCell, OptionError, Recurrent, check_grads, use_target
from cellwright.cells import BY_NAME
from cellwright.nn.built_in import with_weights
from tests.rounding import assert_roundings

F64 = torch.float64
Options = dict[str, Any]
MAKE: dict[str, Any] = {
    "additive": lambda **o: Attentive(LSTMCell(3 + 5, 4, dtype=F64), 5, **o),
    "general": lambda **o: Attentive(LSTMCell(3 + 5, 4, dtype=F64), 5, score="general", **o),
    "dot": lambda **o: Attentive(GRUCell(3 + 4, 4, dtype=F64), 4, score="dot", **o),
}


def by_hand(layer: Any, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence: x [T, I], memory [S, M]; torch's cell with the same weights."""
    twin: Any = torch.nn.LSTMCell if len(layer.recurrent.definitions[0].states) > 1 else torch.nn.GRUCell
    cell = twin(layer.recurrent.input_size, 4, dtype=F64)
    cell.load_state_dict({n.removesuffix("_l0"): w for n, w in layer.recurrent.state_dict().items()}, strict=True)
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
    assert all(v.grad.isfinite().all() for v in (*given, *layer.parameters()))
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
        (lambda: Attentive(LSTMCell, 5), "to look into a memory, expected a cell or a layer"),
        (lambda: Attentive(LSTMCell(8, 4), 8), r"got memory_size=8 for LSTMCell\(8, 4\)"),
        (lambda: Attentive(LSTMCell(8, 4), "5"), "got memory_size='5'"),
        (lambda: Attentive(LSTMCell(8, 4), 0), "got memory_size=0"),
        (lambda: Attentive(Bare(4, 4), 2), "got Bare.* to look into a memory"),
        (lambda: Attentive(Recurrent(LSTMCell, 8, 4, 2), 5), "got Recurrent.* expected a cell or a layer"),
        (lambda: Attentive(Recurrent(LSTMCell, 8, 4, bidirectional=True), 5), "expected a cell or a layer"),
        (lambda: Attentive(Recurrent(LSTMCell, 8, 8, residual=True), 5), "expected a cell or a layer"),
        (lambda: Attentive(Recurrent(LSTMCell, 8, 4, batch_first=True), 5), "expected a cell or a layer"),
        (lambda: Attentive(LSTMCell(8, 4), 5.0), "got memory_size=5.0"),
        (lambda: Attentive(LSTMCell(8, 4), True), "got memory_size=True"),
        (lambda: Attentive(LSTMCell(8, 4), 5, batch_first="no"), "got batch_first='no'"),
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
        (lambda m: m(X, M[:, :1]), r"got \[6, 2, 3\], a memory \[7, 1, 5\], expected"),
        (lambda m: m(X[:, 0], M[:, 0]), r"expected \[T, B, I\], floats \[S, B, M\]"),
        (lambda m: m(torch.zeros(6, 2, dtype=torch.int64), M.long()), "expected"),
        (lambda m: m(torch.full((6, 2), 3), M), "3"),
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


# The compiled loop: I, M, H and positions; one kernel serves them all.
SIZES = [(3, 5, 4, 7), (17, 33, 65, 40), (5, 18, 18, 33), (20, 1, 31, 3), (2, 3, 1, 1), (3, 2, 16, 16)]


def pair(name: str, score: str, I: int, M: int, H: int, *memory_lengths: int) -> tuple[Attentive, Options]:
    """A layer in float32 and what it is called with: lengths with an empty sequence, resets, a state."""
    layer = Attentive(with_weights(BY_NAME[name], "Wrapped")(I + M, H), M, score=score)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-1, 1)
    states = layer.recurrent.definitions[0].states
    state = tuple(torch.rand(4, layer.recurrent.definitions[0].state_size(s)) for s in states)
    call: Options = {"lengths": [6, 0, 3, 1], "memory_lengths": list(memory_lengths)}
    call["reset"] = torch.rand(6, 4) < 0.3
    return layer, call | {"state": state if len(state) > 1 else state[0]}


def results(layer: Attentive, x: Tensor, memory: Tensor, call: Options, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, last state, weights, and the gradients of a sum of all in which each counts differently."""
    layer.to(dtype).zero_grad()
    leaves = [v.detach().to(dtype).requires_grad_() for v in (x, memory)]
    state = call["state"]
    given = (
        tuple(s.to(dtype) for s in state) if isinstance(state, tuple) else state if state is None else state.to(dtype)
    )
    output, last, a = layer(*leaves, **call | {"state": given})
    found = {"output": output, "weights": a, "last": last[-1] if isinstance(last, tuple) else last}
    total = sum((v * torch.linspace(-1, 1, v.numel(), dtype=F64).view(v.shape).to(dtype)).sum() for v in found.values())
    assert isinstance(total, Tensor)
    total.backward()
    found |= {f"gradient of {n}": v.grad for n, v in (("x", leaves[0]), ("memory", leaves[1])) if v.grad is not None}
    return found | {f"gradient of {n}": w.grad for n, w in layer.named_parameters() if w.grad is not None}


@pytest.mark.parametrize(("name", "score"), [("lstm", "additive"), ("mgu", "general")])
def test_the_compiled_loop_is_the_reference(name: str, score: str) -> None:
    """With lengths, resets, a state, short and empty memories; gradients of outputs and of weights."""
    for I, M, H, S in SIZES:
        layer, call = pair(name, score, I, M, H, S, S, 0, (S + 1) // 2)
        x, memory = torch.randn(6, 4, I), torch.randn(S, 4, M)
        with use_target("cpu"):
            got = results(layer, x, memory, call, torch.float32)
            with torch.no_grad():
                output, _, a = layer(x, memory, **call)
        assert torch.equal(output, got["output"])
        assert torch.equal(a, got["weights"])
        with use_target("torch"):
            want = results(layer, x, memory, call, F64)
            assert_roundings(got, want, lambda: results(layer, x, memory, call, F64))  # noqa: B023


def test_threads_change_no_bit_forward() -> None:
    layer, call = pair("mgu", "general", 20, 12, 40, 9, 9, 0, 4)
    x, memory = torch.randn(6, 4, 20), torch.randn(9, 4, 12)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with use_target("cpu"):
                found.append(results(layer, x.repeat(60, 1, 1), memory, {"state": call["state"]}, torch.float32))
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_nothing_in_the_padding_of_a_memory_is_seen() -> None:
    layer, call = pair("lstm", "additive", 3, 2, 5, 3, 1, 0, 2)
    x, memory = torch.randn(6, 4, 3), torch.randn(5, 4, 2)
    beyond = (torch.arange(5).unsqueeze(1) >= torch.tensor(call["memory_lengths"])).unsqueeze(-1)
    clean, spoilt = (results(layer, x, memory.masked_fill(beyond, v), call, torch.float32) for v in (0.0, torch.nan))
    for name, value in clean.items():
        assert torch.equal(value, spoilt[name]), name


def test_autocast_rounds_the_operands_of_products_alone() -> None:
    layer, call = pair("mgu", "general", 6, 4, 20, 5, 5, 5, 5)
    x, memory = torch.randn(6, 4, 6), torch.randn(5, 4, 4)
    want, _, chosen = layer(x, memory, call["state"])
    with torch.autocast("cpu", torch.bfloat16):
        got, _, a = layer(x, memory, call["state"])
    assert (got.float() - want).abs().max() < 0.05
    assert (a.float() - chosen).abs().max() < 0.05
    assert (a.float().sum(-1) - 1).abs().max() < 0.01


def test_a_graph_of_torch_compile_takes_the_reference(assert_close: Any) -> None:
    layer, call = pair("mgu", "general", 3, 2, 4, 5, 5, 5, 5)
    x, memory = torch.randn(3, 4, 3), torch.randn(5, 4, 2)
    compiled = torch.compile(layer, backend="eager")
    for got, want in zip(compiled(x, memory, call["state"]), layer(x, memory, call["state"]), strict=True):
        assert_close("result", got, want, 1e-5)


def test_copies_and_pickles(assert_close: Any) -> None:
    layer = Attentive(LSTMCell(3 + 2, 4), 2, score="general")
    x, memory = torch.randn(3, 4, 3), torch.randn(5, 4, 2)
    want = layer(x, memory)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_close("output", other(x, memory)[0], want, 0)


@pytest.mark.parametrize("score", MAKE)
def test_the_gradient_of_the_plan(score: str) -> None:
    """With lengths, resets, against time; of the memory too, and of the weights as of the states."""
    report = check_grads(MAKE[score]())
    assert {c.name for c in report.checks} >= {"memory keys", "memory values"}


WRAPPED: Options = {
    "recurrent_dropout": 0.3, "zoneout": 0.2, "weight_drop": 0.4, "layer_norm": True, "learn_initial_state": True,
    "state_clip": 0.7,
}  # fmt: skip


@pytest.mark.parametrize("options", [{k: v} for k, v in WRAPPED.items()] + [WRAPPED], ids=lambda o: " ".join(o))
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_with_wrappers(options: Options, training: bool) -> None:
    """The compiled loop beside the reference, with the masks of one seed; the gradient beside finite differences."""
    inner = Recurrent(GRUCell, 3 + 5, 7, **options)
    layer = Attentive(inner, 5, score="general").train(training)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-1, 1)
    x, memory = torch.randn(6, 4, 3), torch.randn(5, 4, 5)
    call: Options = {"lengths": [6, 0, 3, 1], "memory_lengths": [5, 2, 0, 4], "reset": torch.rand(6, 4) < 0.3}
    call["state"] = None

    def values(dtype: torch.dtype) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return results(layer, x, memory, call, dtype)

    with use_target("cpu"):
        got = values(torch.float32)
    with use_target("torch"):
        assert_roundings(got, values(F64), lambda: values(F64))
    if training and len(options) > 1:
        check_grads(Attentive(Recurrent(GRUCell, 5, 4, **options), 2))


def test_a_layer_is_random_in_training_only() -> None:
    layer, x, memory = Attentive(Recurrent(LSTMCell, 8, 4, recurrent_dropout=0.5), 5), X, M
    assert not torch.equal(layer(x, memory)[0], layer(x, memory)[0])
    layer.eval()
    assert torch.equal(layer(x, memory)[0], layer(x, memory)[0])


def test_a_sequence_begins_with_what_was_learned(assert_close: Any) -> None:
    layer = Attentive(Recurrent(LSTMCell, 8, 4, learn_initial_state=True), 5)
    with torch.no_grad():
        start = tuple(weight.normal_().expand(2, 4) for n, weight in layer.named_parameters() if "initial" in n)
    for got, want in zip((layer(X, M)[0], layer(X, M)[2]), (layer(X, M, start)[0], layer(X, M, start)[2]), strict=True):
        assert_close("result", got, want, 1e-6)
    again = layer(X, M, reset=torch.arange(6).view(6, 1).expand(6, 2) == 3)[0]
    assert_close("after a reset", again[3:], layer(X[3:], M)[0], 1e-6)


def test_integers_are_one_hot_vectors(assert_close: Any) -> None:
    layer, ids = Attentive(LSTMCell(8, 4), 5), torch.randint(0, 3, (6, 2))
    assert_close("output", layer(ids, M)[0], layer(F.one_hot(ids, 3).float(), M)[0], 1e-6)
    ids[4:, 1] = -7
    assert layer(ids, M, lengths=[6, 4])[0].isfinite().all()
