"""The compiled target against the reference in float64: values, gradients, threads, processors, and its cache."""

import copy
import math
import os
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch
from torch import Tensor

import cellwright
from cellwright import Cell, Equations, Recurrent, TargetError, tanh
from cellwright.cells import Elman
from cellwright.emit import to_cpu
from cellwright.emit.to_cpu import Program, build, machine, scan, trial
from cellwright.emit.to_cpu.memory import Arguments
from cellwright.lang import ACTIVATIONS, Plan
from cellwright.lang.ops import ROWS, Op, apply
from tests.problems import CELLS, F64, Logarithm, Norms, compare, problem, reference, states_by_threads
from tests.random_cells import random_cell


def one_operation(op: Op) -> Equations:
    """A cell whose next state is one operation of what it gets."""

    class One(Equations):
        states = "h k"

        def step(self, x: Any, h: Any, k: Any) -> Any:
            a = x + h
            args = {1: (a,), 2: (a, k), 3: (k, a, 1.5)}[op.arity]
            return apply(op.name, *args), k + 0.0 * h

    return One(16, 16)


POINTS = [-1000.0, -88.0, -20.0, -3.0, -1.0, -0.5, -1e-3, -1e-8, 0.0, 1e-30, 1e-4, 0.25, 0.7, 1.0, 2.0, 9.0, 80.0, 1e3]
SPECIAL = [math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("op", [r for r in ROWS if r.kind == "elementwise"], ids=lambda op: op.name)
def test_operation_has_its_meaning(op: Op) -> None:
    """To a few units in the last place of float32; NaN and infinities where the meaning has them."""
    program = Program(Plan(one_operation(op).definition()))
    values = POINTS + SPECIAL
    others = [0.0] if op.arity == 1 else [-2.0, 0.0, 1.0, 3.5]
    pairs = [(a, b) for a in values for b in others]
    pairs += [(0.5, 0.5)] * (-len(pairs) % 16)
    a, b = (torch.tensor(v).view(-1, 16) for v in zip(*pairs, strict=True))
    zero = torch.zeros(len(a), 16)
    with torch.no_grad():
        states, _ = scan(program, {}, {"x": a.unsqueeze(0)}, {"h": zero, "k": b}, False)
    for (x, y), got in zip(pairs, states["h"].flatten().tolist(), strict=True):
        x, y = torch.tensor([x, y]).tolist()
        want = op.meaning(*{1: (x,), 2: (x, y), 3: (y, x, 1.5)}[op.arity])
        if op.name in ("sin", "cos") and (abs(x) > 1e4 or math.isinf(x)):
            continue  # so far out, a float32 no longer says where on the circle it is
        want = torch.tensor(want, dtype=F64).float().item()
        same = (math.isnan(want) and math.isnan(got)) or got == want
        assert same or math.isclose(got, want, rel_tol=6e-7, abs_tol=2e-7), f"{op.name}({x}, {y}): {got}, want {want}"


# Each of the many features of AVX-512 turns the others on that it needs.
NO_AVX512 = ",".join(f"-{name}" for name in llvm.get_host_cpu_features() if name.startswith("avx512"))
WIDTHS = {"this": "", "AVX2": NO_AVX512, "four lanes": f"{NO_AVX512},-avx2"}


def float32_between(low: float, high: float, count: int = 300_000) -> Tensor:
    return torch.linspace(low, high, count, dtype=F64).float()


def units_in_the_last_place(got: Tensor, want: Tensor) -> Tensor:
    """The error in spacings of float32 at the right result; 0 where both are the same infinity or NaN."""
    spacing = 2.0 ** (want.abs().clamp(min=2.0**-126).log2().floor().clamp(max=127) - 23)
    same = (got.double() == want.float().double()) | (got.isnan() & want.isnan())
    return torch.where(same, 0.0, (got.double() - want).abs() / spacing)


@pytest.mark.parametrize("features", WIDTHS)
@pytest.mark.parametrize(("name", "bound"), [("exp", 1.1), ("sigmoid", 2.6), ("tanh", 1.9)])
def test_accuracy_over_the_whole_range(
    name: str, bound: float, features: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every 1999th float32 (tiny, huge, denormal) and dense samples where results are neither 0 nor saturated."""
    monkeypatch.setenv("CELLWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", WIDTHS[features])
    patterns = torch.arange(-(2**31), 2**31, 1999).to(torch.int32).view(torch.float32)
    dense = [float32_between(*ends) for ends in ((-105, -85), (-85, 85), (85, 89), (-20, 20), (-1, 1), (-0.01, 0.01))]
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan])
    x = torch.cat([*dense, patterns, special])
    x = torch.cat([x, x.new_zeros(-len(x) % 16)])
    op = next(r for r in ROWS if r.name == name)
    # -0.0 is what x + h leaves alone.
    rows = len(x) // 16
    start = {"h": torch.full((rows, 16), -0.0), "k": torch.zeros(rows, 16)}
    with torch.no_grad():
        states, _ = scan(Program(Plan(one_operation(op).definition())), {}, {"x": x.view(1, -1, 16)}, start, False)
    y = states["h"].flatten()
    want: Tensor = getattr(torch, name)(x.double())
    error = units_in_the_last_place(y, want)
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{name}({x[worst]:.9g}) = {y[worst]:.9g}, want {want[worst]:.9g}: {error[worst]:.2f}"
    if name == "sigmoid":
        assert (y[x <= -104] == 0).all()
        assert (y[x >= 18] == 1).all()
    if name == "tanh":
        assert torch.equal(y[x.abs() < 2**-25], x[x.abs() < 2**-25])
        assert torch.equal(y.signbit() & ~x.isnan(), x.signbit() & ~x.isnan())
        assert (y[x.abs() > 9.02].abs() == 1).all()
        # Its derivative, near saturation the difference of two numbers that are almost equal.
        assert ((1 - y * y).double() - (1 - want * want))[~x.isnan()].abs().max() < 1.5e-7
        steps = y[(x >= 0.75) & (x < 20)][x[(x >= 0.75) & (x < 20)].argsort()].diff()
        assert (steps >= 0).all()


def compiled(plan: Plan, weights: Any, inputs: Any, state: Any, seeds: Any, reverse: bool) -> dict[str, Tensor]:
    """States after every step, and all gradients."""
    leaves = {**weights, **state} | ({"x": inputs["x"]} if inputs["x"].is_floating_point() else {})
    leaves = {n: v.clone().requires_grad_() for n, v in leaves.items()}
    program = Program(plan)
    assert program.refusal is None
    given = inputs | ({"x": leaves["x"]} if "x" in leaves else {})
    states, last = scan(program, {n: leaves[n] for n in weights}, given, {n: leaves[n] for n in state}, reverse)
    for n in state:
        assert torch.equal(last[n], states[n][0 if reverse else -1])
    loss = torch.stack([(states[n] * g).sum() for n, g in seeds.items()]).sum()
    found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    found = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in found.items()}
    return {f"state {n}": s.detach() for n, s in states.items()} | {f"gradient {n}": g for n, g in found.items()}


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("whole", "masks"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("T", "B", "I", "H"), [(1, 1, 1, 1), (5, 3, 7, 3), (4, 2, 5, 63), (3, 9, 33, 64)])
@pytest.mark.parametrize("name", CELLS)
def test_agrees_with_the_reference(
    name: str, T: int, B: int, I: int, H: int, whole: bool, masks: bool, reverse: bool
) -> None:
    plan, *given = problem(CELLS[name](I, H), T, B, whole, masks)
    compare(compiled(plan, *given, reverse), plan, *given, reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru before", "lstm projected", "norms"])
def test_in_turns_of_some_steps(name: str, masks: bool, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before the loop is computed for some steps at a time, the last turn with fewer."""
    plan, *given = problem(CELLS[name](7, 20), 8, 3, False, masks)
    whole = compiled(plan, *given, reverse)
    monkeypatch.setattr(to_cpu.run, "TURN", 3 * 3 * 4 * 32)
    in_turns = compiled(plan, *given, reverse)
    assert all(torch.equal(in_turns[n], v) for n, v in whole.items())
    compare(in_turns, plan, *given, reverse)


@pytest.mark.parametrize("seed", range(40))
def test_random_cells(seed: int) -> None:
    """Whatever is not refused agrees with the reference."""
    choice = random.Random(seed)
    whole, masks, reverse = (choice.random() < 0.5 for _ in range(3))
    plan, *given = problem(random_cell(seed), 4, choice.choice([1, 3, 9]), whole, masks)
    if Program(plan).refusal is None:
        got, want = compiled(plan, *given, reverse), reference(plan, *given, reverse, F64)
        plain = reference(plan, *given, reverse, torch.float32)
        for name, value in got.items():
            if name not in want:
                assert not value.any(), f"{name} has a gradient, the reference has none"
                continue
            scale = max(1.0, want[name].abs().max().item())
            error, usual = ((v.double() - want[name]).abs().max().item() / scale for v in (value, plain[name]))
            assert error <= 20 * usual + 2e-5, f"{name}: error {error:.1e}, the reference in float32 {usual:.1e}"


def test_most_random_cells_are_compiled() -> None:
    compiled_ones = [Program(Plan(random_cell(seed).definition())).refusal is None for seed in range(40)]
    assert sum(compiled_ones) > 15


@pytest.mark.parametrize("name", ["lstm", "gru before", "norms"])
def test_large_odd_sizes(name: str) -> None:
    plan, *given = problem(CELLS[name](10, 500), 3, 13, False, True)
    compare(compiled(plan, *given, False), plan, *given, False)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation(activation: str) -> None:
    plan, *given = problem(Elman(3, 20, activation=activation), 4, 5, False, False)
    compare(compiled(plan, *given, False), plan, *given, False)


@pytest.mark.parametrize("features", ["-avx512f", "-avx512f,-avx2,-fma,-avx"], ids=["AVX2", "SSE"])
@pytest.mark.parametrize("name", ["elman gelu", "lstm peephole coupled", "gru before", "norms"])
def test_narrower_vectors(name: str, features: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELLWRIGHT_CACHE", str(tmp_path))
    lanes = machine.this_machine().lanes
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", features)
    assert machine.this_machine().lanes <= min(lanes, 8)
    plan, *given = problem(CELLS[name](5, 19), 4, 7, False, True)
    compare(compiled(plan, *given, True), plan, *given, True)


@pytest.mark.parametrize(("T", "B", "H"), [(9, 1, 320), (5, 33, 130), (7, 3, 200)], ids=["units", "rows", "few rows"])
@pytest.mark.parametrize("name", ["lstm", "gru before", "norms"])
def test_the_number_of_threads_changes_no_bit(name: str, T: int, B: int, H: int) -> None:
    plan, weights, inputs, state, _ = problem(CELLS[name](H, H), T, B, False, False)
    results = states_by_threads(plan, weights, inputs, state)
    for other in results[1:]:
        assert all(torch.equal(results[0][n], other[n]) for n in state)


def test_kernels_of_different_thread_counts_do_not_meet_at_one_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    # Three rows and sums over units: the loop takes a thread for each row, what comes before it all four.
    met: dict[int, tuple[Tensor, set[int]]] = {}
    run = Arguments.run

    def watched(self: Arguments, function: int, tensors: dict[str, Tensor], **more: Any) -> None:
        barrier = tensors["barrier"]
        met.setdefault(barrier.data_ptr(), (barrier, set()))[1].add(self.count)
        assert barrier.numel() >= 8 * (self.count + 1)
        run(self, function, tensors, **more)

    monkeypatch.setattr(Arguments, "run", watched)
    layer, x = Recurrent(Norms, 200, 300), torch.randn(10, 3, 200, requires_grad=True)
    torch.set_num_threads(4)
    try:
        layer(x)[0].sum().backward()
    finally:
        torch.set_num_threads(1)
    counts = [found for _, found in met.values()]
    assert {3, 4} <= set().union(*counts), "the test has lost its point"
    assert all(len(found) == 1 for found in counts)


def test_several_python_threads_at_once() -> None:
    layer = cellwright.LSTM(16, 96)
    x = torch.randn(20, 8, 16)
    want, found = layer(x)[0], []
    torch.set_num_threads(2)
    try:

        def work() -> None:
            for _ in range(10):
                found.append(torch.equal(layer(x)[0], want))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
    finally:
        torch.set_num_threads(1)
    assert found == [True] * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork() -> None:
    code = """
import os, sys, torch, cellwright
torch.set_num_threads(2)
layer, x = cellwright.LSTM(64, 256), torch.randn(40, 16, 64)
with torch.no_grad():
    want = layer(x)[0]
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os._exit(0 if torch.allclose(layer(x)[0], want, atol=1e-6) else 3)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


LAYOUTS: dict[str, Any] = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second feature": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "some of the features": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "some of the rows": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "one row for all": lambda x: x[:1, :1].expand_as(x),
    "one step for all": lambda x: x[:1].expand_as(x),
    "one sequence for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("masked", [False, True], ids=["no masks", "reset"])
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("T", "B", "I"), [(4, 7, 6), (1, 3, 5), (4, 1, 5), (3, 2, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_in_any_layout(
    layout: str, T: int, B: int, I: int, narrow: bool, masked: bool, assert_close: Any
) -> None:
    layer = cellwright.GRU(I, 5)
    given = LAYOUTS[layout](torch.randn(T, B, I))
    reset = torch.rand(T, B) > 0.7 if masked else None
    results = []
    for x in (given, given.contiguous()):
        leaf = x.detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            output, _ = layer(leaf, reset=reset)
        weights = list(layer.parameters())
        results.append([output, *torch.autograd.grad(output.square().sum(), [leaf, *weights])])
    got, want = results
    assert torch.equal(got[0], want[0])
    for name, a, b in zip(("x", *dict(layer.named_parameters())), got[1:], want[1:], strict=True):
        assert_close(name, a, b, 2e-6)


def test_gradients_in_any_layout(assert_close: Any) -> None:
    layer = cellwright.LSTM(6, 16)
    results = []
    for target in ("cpu", "torch"):
        with cellwright.use_target(target):
            x = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
            output, (_, c) = layer(x)
            (output.sum() + output[:, :, 3].square().sum() + c.sum()).backward()
            results.append(x.grad)
    assert_close("x", results[0], results[1], 1e-5)


def test_only_the_last_state_or_nothing_has_a_gradient() -> None:
    layer = cellwright.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    for pick in (lambda o, s: s[1], lambda o, s: s[0], lambda o, s: o[0], lambda o, s: o * 0):
        grads = []
        for target in ("cpu", "torch"):
            with cellwright.use_target(target):
                layer.zero_grad()
                pick(*layer(x)).sum().backward()
                grads.append([p.grad for p in layer.parameters()])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_a_gradient_of_a_gradient_names_the_reference() -> None:
    layer = cellwright.LSTM(3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with pytest.raises(TargetError, match=r"cellwright.use_target\('torch'\)"):
        gradient.square().sum().backward()
    with cellwright.use_target("torch"):
        (gradient,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        gradient.square().sum().backward()


def test_changes_of_what_the_way_back_needs_are_noticed() -> None:
    layer = cellwright.LSTM(3, 4)
    output, _ = layer(torch.randn(5, 2, 3))
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    output, _ = layer(torch.randn(5, 2, 3))
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_checkpointing_gives_the_same_gradients() -> None:
    layer = cellwright.GRU(3, 4)
    x = torch.randn(5, 2, 3)
    grads = []
    for wrapped in (False, True):
        layer.zero_grad()
        call = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False) if wrapped else layer(x)
        call[0].square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


DISTRIBUTED = """
import os, sys
import torch, cellwright
import torch.distributed as dist

rank, file = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.manual_seed(0)
x, lengths = torch.randn(6, 4, 3), torch.tensor([6, 2, 0, 5])
layer = cellwright.LSTM(3, 5, num_layers=2, bidirectional=True)
(layer(x, lengths=lengths)[0] ** 2).sum().backward()
want = {name: p.grad.clone() for name, p in layer.named_parameters()}
layer.zero_grad()
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
wrapped = torch.nn.parallel.DistributedDataParallel(layer)
mine = slice(2 * rank, 2 * rank + 2)
(wrapped(x[:, mine], lengths=lengths[mine])[0] ** 2).sum().backward()
for name, p in layer.named_parameters():
    torch.testing.assert_close(2 * p.grad, want[name], rtol=1e-5, atol=1e-6)  # the mean over two processes
dist.barrier()
os._exit(0)  # the threads of gloo are not always gone when Python ends, and then abort the process
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_training_in_two_processes_gives_the_gradients_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DISTRIBUTED]
    runs = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors


def test_a_nan_stays_a_nan() -> None:
    for layer in (cellwright.RNN(3, 20, nonlinearity="relu"), cellwright.LSTM(3, 20), cellwright.GRU(3, 20)):
        x = torch.randn(4, 2, 3)
        x[1, 0] = math.nan
        output, _ = layer(x)
        assert output[0].isfinite().all()
        assert output[1:, 0].isnan().all()
        assert output[:, 1].isfinite().all()


def test_what_cannot_be_compiled_runs_on_the_reference() -> None:
    class Share(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return tanh(self.linear("a", x) + h * cellwright.sum_units(self.linear("b", h)))

    layer, x = Recurrent(Share, 3, 4), torch.randn(5, 2, 3)
    layer(x)[0].sum().backward()
    with cellwright.use_target("cpu"), pytest.raises(TargetError, match="single numbers per row"):
        layer(x)
    assert cellwright.LSTM(3, 4, dtype=F64)(x.double())[0].dtype == F64


@pytest.mark.parametrize("dtype", [F64, torch.bfloat16, torch.float32], ids=str)
def test_what_torch_makes_by_default_does_not_matter(dtype: torch.dtype) -> None:
    """Kernels find float32 on the CPU whatever `torch.set_default_dtype` and `torch.set_default_device` say."""
    plan, weights, inputs, state, seeds = problem(CELLS["lstm"](3, 20), 5, 4, False, False)
    leaves = {n: v.requires_grad_() for n, v in {**weights, **state, **inputs}.items()}
    valid = torch.arange(5).unsqueeze(1) < torch.tensor([5, 2, 0, 3])
    zero = torch.zeros(())

    def results(valid: Tensor | None) -> list[Tensor]:
        states, last = scan(Program(plan), weights, inputs, state, False, valid)
        loss = sum(((states[n] * g).sum() for n, g in seeds.items()), zero)
        return [*states.values(), *last.values(), *torch.autograd.grad(loss, list(leaves.values()))]

    for given in (None, valid):
        want = results(given)
        torch.set_default_dtype(dtype)
        torch.set_default_device("meta")
        try:
            got = results(given)
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)


def test_new_weights_and_copies_are_seen() -> None:
    layer, x = cellwright.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        before = layer(x)[0]
        twin = copy.deepcopy(layer)
        layer.weight_hh_l0.data.mul_(3)
        assert not torch.equal(layer(x)[0], before)
        assert torch.equal(twin(x)[0], before)


def _run(code: str, cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"CELLWRIGHT_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SUM = """
import torch, cellwright
torch.manual_seed(0)
layer = cellwright.LSTM(3, 4)
output, _ = layer(torch.randn(5, 2, 3))
output.sum().backward()
print(repr(float(output.detach().double().sum())), repr(float(layer.weight_hh_l0.grad.double().sum())))
"""


def test_the_cache_is_shared_by_processes_that_start_at_once(tmp_path: Path) -> None:
    runs = [_run(SUM, tmp_path / "cache") for _ in range(4)]
    results = [r.communicate(timeout=120) for r in runs]
    assert [r.returncode for r in runs] == [0] * 4, results
    assert len({out for out, _ in results}) == 1
    entries = sorted((tmp_path / "cache").iterdir())
    tried = bool(trial.settled(machine.this_machine()).tiles)  # one more where there are tiles
    assert len(entries) == 4 + tried  # before the loop, forward, back, weight gradients; x wants none
    assert all(e.suffix == ".o" for e in entries)


def test_a_damaged_or_useless_cache_does_no_harm(tmp_path: Path) -> None:
    want = _run(SUM, tmp_path / "cache").communicate(timeout=120)[0]
    assert want
    whole = {entry: entry.read_bytes() for entry in (tmp_path / "cache").iterdir()}
    assert len(whole) > 1
    for damage in (lambda data: b"", lambda data: data[:-7], lambda data: b"x" * 500, lambda data: data[:60] + b"!"):
        for entry, data in whole.items():
            entry.write_bytes(damage(data))
        again = _run(SUM, tmp_path / "cache")
        assert again.communicate(timeout=120)[0] == want
    (tmp_path / "file").write_text("")
    nowhere = _run(SUM, tmp_path / "file" / "below")
    assert nowhere.communicate(timeout=120)[0] == want


def test_an_entry_is_named_by_all_that_decides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    this = machine.this_machine()
    other = machine.Machine(this.cpu, this.features + ",", this.lanes, this.registers)
    assert len({build._key("a", this), build._key("b", this), build._key("a", other)}) == 3
    before = build._key("a", this)
    with monkeypatch.context() as patch:
        patch.setattr(build.llvmlite, "__version__", "0")
        assert build._key("a", this) != before
    monkeypatch.setattr(build, "_writers", lambda: "other code")
    assert build._key("a", this) != before


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
def test_kernels_of_one_name_have_one_text(narrow: bool) -> None:
    """The name of an entry is made without its text: equal names mean equal texts, and sizes do not matter."""
    texts: dict[str, str] = {}
    for make in (Norms, CELLS["lstm peephole coupled"]):
        keys = []
        for sizes in ((5, 7), (40, 33)):
            program = Program(Plan(make(*sizes).definition()))
            for kind, passes in (("forward", program._forward_passes(True)), ("backward", program._backward_passes())):
                recipe = program._recipe((kind, True, False, narrow), passes)
                text = recipe.text()
                assert texts.setdefault(recipe.key(), text) == text
                keys.append(recipe.key())
        assert keys[:2] == keys[2:]
    assert len(set(texts.values())) == len(texts) == 4


def test_a_kernel_that_is_in_the_cache_costs_no_text(tmp_path: Path) -> None:
    first = _run(SUM, tmp_path / "cache")
    want, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    code = f"""
from cellwright.emit.to_cpu import kernel, outer
def refuse(*_): raise AssertionError("a text was written")
kernel.Recipe.text = outer.text = refuse
{SUM}"""
    again = _run(code, tmp_path / "cache")
    assert again.communicate(timeout=120) == (want, "")


def test_kernels_serve_all_sizes() -> None:
    """Another T, B, I or H compiles nothing."""
    from cellwright.emit.to_cpu import program

    cellwright.GRU(3, 4)(torch.randn(5, 2, 3))[0].sum().backward()
    before = len(program._kernels)
    for I, H, T, B in ((1, 1, 1, 1), (20, 70, 3, 9)):
        cellwright.GRU(I, H)(torch.randn(T, B, I))[0].sum().backward()
    assert len(program._kernels) == before


def test_without_llvmlite_the_reference_runs() -> None:
    code = """
import sys
sys.modules["llvmlite"] = None
import torch, cellwright
assert cellwright.current_target() == "torch"
assert "llvmlite" in cellwright.available_targets()["cpu"]
print(cellwright.LSTM(3, 4)(torch.randn(5, 2, 3))[0].shape)
"""
    with warnings.catch_warnings():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # inside torch's own jvp
def test_transforms_of_torch_func_use_the_reference() -> None:
    layer, x = cellwright.GRU(3, 4), torch.randn(6, 5, 2, 3)
    mapped = torch.func.vmap(lambda one: layer(one)[0])(x)
    assert torch.allclose(mapped, torch.stack([layer(one)[0] for one in x]), atol=1e-6)
    _, tangent = torch.func.jvp(lambda one: layer(one)[0], (x[0],), (x[1],))
    assert tangent.isfinite().all()


def test_a_machine_that_cannot_compile_warns_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(text: str, machine: Any) -> bytes:
        raise RuntimeError("no code generator")

    from cellwright.emit.to_cpu import program
    from cellwright.nn import scan as meeting

    monkeypatch.setenv("CELLWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "compile_module", broken)
    monkeypatch.setattr(program, "_kernels", {})
    monkeypatch.setattr(meeting, "_TARGETS", dict(meeting._TARGETS))
    layer, x = cellwright.LSTM(3, 4), torch.randn(5, 2, 3)
    with cellwright.use_target("cpu"), pytest.raises(TargetError, match=r"cannot compile for .*no code generator"):
        layer(x)
    with pytest.warns(UserWarning, match=r"no code generator.*the reference target runs instead"):
        got = layer(x, lengths=[5, 2])[0]
    assert not got[2:, 1].any(), "the padding is zero on this way too"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(layer(x, lengths=[5, 2])[0], got)
    with pytest.raises(TargetError, match=r"absent: .*no code generator"):
        cellwright.use_target("cpu")


def test_what_lies_beyond_the_last_unit_reaches_no_product() -> None:
    """Registers are wider than 5 units: their last lanes hold zeros, whose logarithm must not meet a weight."""
    plan, *given = problem(Logarithm(3, 5), 4, 2, False, False)
    compare(compiled(plan, *given, False), plan, *given, False)
