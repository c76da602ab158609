"""The operators of the compiled target: graphs of torch.compile and torch.export, with the results of eager calls."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import cellwright
from cellwright import GRU, LSTM, RNN, Cell, GRUCell, InputError, LSTMCell, Recurrent, TargetError, sigmoid, tanh
from cellwright.emit.to_cpu import library

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Mixed(Cell):
    """A norm before the loop and a vector that does not change: torch computes them, not the kernel."""

    states = "h c"

    def step(self, x: Any, h: Any, c: Any) -> Any:
        c = sigmoid(self.bias("d")) * c + self.norm("u", self.linear("u", x)) * tanh(h)
        return tanh(c + self.linear("h", h)), c


class OneHot(Cell):
    """An input that is used other than by a product."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return tanh(self.linear("a", x) + self.linear("a", h)) + cellwright.sum_units(x)


LENGTHS = torch.tensor([3, 0, 5, 1])
RESET = torch.arange(20).view(5, 4) % 3 == 0


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def symbols(count: int) -> Tensor:
    return torch.randint(0, count, (5, 4), generator=torch.Generator().manual_seed(3))


CASES: dict[str, Any] = {
    "rnn": lambda: (RNN(6, 5), floats(5, 4, 6), {}),
    "lstm": lambda: (LSTM(6, 19, 2, bidirectional=True), floats(5, 4, 6), {"return_states": True}),
    "lstm projected": lambda: (LSTM(6, 19, proj_size=7), floats(5, 4, 6), {}),
    "lstm with state": lambda: (LSTM(6, 5), floats(5, 4, 6), {"state": (floats(1, 4, 5), floats(1, 4, 5))}),
    "gru batch first": lambda: (GRU(6, 16, 2, batch_first=True), floats(4, 5, 6), {}),
    "unbatched": lambda: (GRU(6, 5), floats(5, 6), {}),
    "own cell": lambda: (Recurrent(Mixed, 6, 19, bidirectional=True), floats(5, 4, 6), {}),
    "a list": lambda: (Recurrent([LSTMCell(6, 5), GRUCell(5, 8)]), floats(5, 4, 6), {}),
    "one step": lambda: (LSTMCell(6, 5), floats(4, 6), {}),
    "reset": lambda: (LSTM(6, 5, bidirectional=True), floats(5, 4, 6), {"reset": RESET}),
    "symbols": lambda: (LSTM(6, 5), symbols(6), {}),
    "many symbols": lambda: (LSTM(90, 5), symbols(90), {}),
    "symbols beside products": lambda: (Recurrent(OneHot, 6, 5), symbols(6), {"lengths": LENGTHS}),
    "bfloat16": lambda: (LSTM(7, 5, dtype=BF16), floats(5, 4, 7).to(BF16), {"lengths": LENGTHS}),
    "lengths": lambda: (LSTM(6, 5, 2, bidirectional=True), floats(5, 4, 6), {"lengths": LENGTHS}),
    "lengths as a list": lambda: (GRU(6, 5), floats(5, 4, 6), {"lengths": [5, 4, 0, 2]}),
    "all full": lambda: (GRU(6, 5), floats(5, 4, 6), {"lengths": [5, 5, 5, 5]}),
    "all empty": lambda: (LSTM(6, 5), floats(5, 4, 6), {"lengths": LENGTHS * 0}),
    "own cell with lengths": lambda: (Recurrent(Mixed, 6, 5), floats(5, 4, 6), {"lengths": LENGTHS}),
    "symbols with lengths": lambda: (GRU(6, 5), symbols(6), {"lengths": LENGTHS, "reset": RESET}),
    "float64": lambda: (GRU(6, 5, dtype=torch.float64), floats(5, 4, 6).double(), {}),
    "float64 with lengths": lambda: (GRU(6, 5, dtype=torch.float64), floats(5, 4, 6).double(), {"lengths": LENGTHS}),
}


def results(layer: Any, call: Any, x: Tensor, options: Any, training: bool, autocast: bool) -> list[Tensor]:
    """All results, and for training all gradients."""
    layer.zero_grad()
    x = x.clone().requires_grad_(training and x.is_floating_point())
    with torch.set_grad_enabled(training), torch.autocast("cpu", enabled=autocast):
        found = tree_leaves(call(x, **options))
    if not training:
        return found
    weighted = [(v.float() * torch.linspace(-1, 1, v.numel()).view(v.shape)).sum() for v in found]
    torch.stack(weighted).sum().backward()
    leaves = [x, *layer.parameters()]
    return [*found, *(torch.zeros(()) if v.grad is None else v.grad for v in leaves)]


def same(got: list[Tensor], want: list[Tensor]) -> None:
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.dtype == b.dtype and torch.equal(a, b), f"result {k} of {len(want)}"


@pytest.mark.parametrize("training", [False, True], ids=["no_grad", "training"])
@pytest.mark.parametrize("name", CASES)
def test_one_graph_with_the_results_of_eager_calls(name: str, training: bool) -> None:
    """To the last bit, gradients too."""
    layer, x, options = CASES[name]()
    call = torch.compile(layer, backend="aot_eager", fullgraph=True)
    same(results(layer, call, x, options, training, False), results(layer, layer, x, options, training, False))


@pytest.mark.parametrize("name", ["lstm", "own cell", "symbols", "lengths"])
def test_under_autocast(name: str) -> None:
    layer, x, options = CASES[name]()
    call = torch.compile(layer, backend="aot_eager", fullgraph=True)
    same(results(layer, call, x, options, True, True), results(layer, layer, x, options, True, True))


def test_the_graph_holds_the_operator() -> None:
    seen = []

    def backend(graph: Any, _: Any) -> Any:
        seen.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    layer, x = LSTM(6, 5, 2), floats(5, 4, 6)
    same(list(torch.compile(layer, backend=backend, fullgraph=True)(x)[1]), list(layer(x)[1]))
    assert seen.count("cellwright.scan.default") == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="the backend inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch's own
def test_inductor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    layer, x = GRU(6, 19), floats(5, 4, 6)
    call = torch.compile(layer, fullgraph=True)
    same(results(layer, call, x, {}, True, False), results(layer, layer, x, {}, True, False))


@pytest.mark.parametrize("lengths", [False, True])
def test_one_graph_for_all_numbers_of_steps_and_rows(lengths: bool) -> None:
    layer = LSTM(6, 5)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    call = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for T, B in ((5, 4), (6, 3), (9, 2), (17, 11)):
        options = {"lengths": torch.randint(0, T + 1, (B,))} if lengths else {}
        x = torch.randn(T, B, 6)
        same(results(layer, call, x, options, True, False), results(layer, layer, x, options, True, False))
    assert counter.frame_count == 1


def arguments(layer: Any, x: Tensor, training: bool = True, **more: Any) -> tuple[Any, ...]:
    (program,) = layer._training
    given = {"masks": [], "valid": None, "reverse": False, "narrow": False, "wanted": 1} | more
    weights = [p.detach().clone().requires_grad_(training) for p in layer.parameters()]
    states = [torch.randn(4, program.definition.state_size(n)) for n in program.definition.states]
    states = [s.requires_grad_(training) for s in states]
    x = x.clone().requires_grad_(training) if x.is_floating_point() else x
    masks, valid, reverse, narrow, wanted = given.values()
    return program.form, x, masks, states, weights, valid, reverse, training, narrow, wanted


VALID = torch.arange(5).unsqueeze(1) < LENGTHS
OPERATOR: dict[str, Any] = {
    "lstm": lambda: arguments(LSTM(6, 19), floats(5, 4, 6), wanted=2),
    "inference": lambda: arguments(GRU(6, 16), floats(5, 4, 6), False),
    "lengths": lambda: arguments(LSTM(6, 19), floats(5, 4, 6), valid=VALID, masks=[RESET.unsqueeze(-1).float()]),
    "masks": lambda: arguments(
        GRU(6, 5, recurrent_dropout=0.5, zoneout=0.5),
        floats(5, 4, 6),
        masks=[floats(1, 4, 5).expand(5, 4, 5), (floats(5, 4, 5) > 0).float(), RESET.unsqueeze(-1).float()],
    ),
    "bfloat16": lambda: arguments(GRU(7, 5), floats(5, 4, 7), narrow=True, reverse=True),
    "symbols": lambda: arguments(GRU(6, 5), symbols(6)),
    "many symbols": lambda: arguments(Recurrent(Mixed, 90, 5), symbols(90), valid=VALID),
}


@pytest.mark.parametrize("name", OPERATOR)
def test_opcheck(name: str) -> None:
    given = OPERATOR[name]()
    torch.library.opcheck(library.scan, given)
    if given[7]:
        form, x, masks, states, weights, valid, reverse, _, narrow, wanted = given
        with torch.no_grad():
            done = library.scan(*given)
        left = done[wanted + len(states) :]
        outside = [torch.randn_like(v) for v in done[:wanted]]
        last = [None, *(torch.randn_like(s) for s in states[1:])]
        x, weights = x.detach(), [w.detach() for w in weights]
        floating = x.is_floating_point()
        back = (form, x, masks, weights, valid, left, outside, last, reverse, narrow, floating)
        torch.library.opcheck(library.scan_back, back)


def test_an_exported_layer_runs_in_another_process(tmp_path: Path) -> None:
    layer, x = LSTM(6, 5), floats(9, 3, 6)
    T, B = (torch.export.Dim(name, min=2) for name in "TB")
    with torch.no_grad():
        program = torch.export.export(layer, (floats(5, 4, 6),), dynamic_shapes={"x": {0: T, 1: B}})
        assert any(str(n.target) == "cellwright.scan.default" for n in program.graph.nodes)
        torch.export.save(program, tmp_path / "layer.pt2")
        torch.save({"x": x, "want": layer(x)[0]}, tmp_path / "tensors.pt")
    code = """
import sys, torch, cellwright.nn
run = torch.export.load(sys.argv[1] + "/layer.pt2").module()
saved = torch.load(sys.argv[1] + "/tensors.pt")
assert torch.equal(run(saved["x"])[0], saved["want"])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_values_are_refused_when_the_graph_runs() -> None:
    call = torch.compile(LSTM(6, 5), backend="aot_eager", fullgraph=True)
    with pytest.raises(InputError, match=r"got the integer 6 in the input.*expects 0 to 5"):
        call(torch.full((5, 4), 6))
    with pytest.raises(RuntimeError, match="got lengths outside of 0 to T"):
        call(floats(5, 4, 6), lengths=torch.tensor([1, 2, 3, 9]))


def test_an_operator_without_gradient_says_so() -> None:
    call = torch.compile(LSTM(6, 5), backend="eager", fullgraph=True)
    x = floats(5, 4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(call(x)[0].sum(), x, create_graph=True)
    with pytest.raises(TargetError, match=r"cellwright.use_target\('torch'\)"):
        gradient.sum().backward()
    given = list(arguments(GRU(6, 5), floats(5, 4, 6)))
    given[7] = False
    with pytest.raises(TargetError, match="pass training=True"):
        library.scan(*given)[0].sum().backward()


@pytest.mark.filterwarnings("ignore")  # of torch's own
def test_transforms_of_torch_func_use_the_reference() -> None:
    layer, x = GRU(6, 5), floats(3, 5, 4, 6)
    mapped = torch.compile(torch.func.vmap(lambda one: layer(one)[0]), backend="eager")
    assert torch.allclose(mapped(x), torch.stack([layer(one)[0] for one in x]), atol=1e-6)


def test_the_target_is_part_of_what_a_graph_assumes() -> None:
    layer, x = LSTM(6, 5), floats(5, 4, 6)
    call = torch.compile(layer, backend="eager", fullgraph=True)
    same([call(x)[0]], [layer(x)[0]])
    with cellwright.use_target("torch"):
        same([call(x)[0]], [layer(x)[0]])
    double = torch.compile(LSTM(6, 5, dtype=torch.float64), backend="eager")
    with cellwright.use_target("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the graph ends
        with pytest.raises(TargetError, match=r"it takes float32 or bfloat16, not torch\.float64"):
            double(x.double())


def test_another_default_dtype_changes_nothing() -> None:
    layer, x, options = CASES["own cell with lengths"]()
    want = results(layer, layer, x, options, True, False)
    torch.set_default_dtype(torch.float64)
    try:
        got = results(layer, layer, x, options, True, False)
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and torch.allclose(a, b, rtol=1e-4, atol=1e-5)
