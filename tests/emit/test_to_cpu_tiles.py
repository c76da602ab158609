"""Products in AMX tiles: with the emulated unit on any processor with AVX-512 BF16, and the instructions as text."""

import ctypes
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch
from torch import Tensor

import cellwright
from cellwright.app.doctor import report
from cellwright.emit.to_cpu import Program, amx, build, machine, scan, threads, trial
from cellwright.emit.to_cpu.builder import Builder
from cellwright.emit.to_cpu.layout import DEEP
from cellwright.emit.to_cpu.tiles import LEAST, Tiles
from cellwright.lang import Plan
from tests.emit.test_to_cpu_bfloat16 import assert_only_operands_are_rounded, beside_rounded_reference
from tests.problems import CELLS, Logarithm, problem, states_by_threads

needs_bfloat16 = pytest.mark.skipif(
    not machine.this_machine().bfloat16, reason="this processor has no products of bfloat16"
)
needs_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="LLVM's code generator here is not for x86"
)
SAPPHIRE_RAPIDS = machine.Machine("sapphirerapids", "+amx-bf16,+amx-tile", 16, 32, True, tiles="amx")


@pytest.fixture(autouse=True)
def no_verdict() -> Iterator[None]:
    """Whether tiles can be used is asked once per process; here, in each test."""
    for function in (trial.settled, trial.objection):
        function.cache_clear()
    yield
    for function in (trial.settled, trial.objection):
        function.cache_clear()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", "+amx-emulated")
    assert trial.settled(machine.this_machine()).tiles == "emulated"


def multiplier(columns: int, sources: int, started: bool) -> int:
    """A kernel for one product in tiles: rows first to end of the sources from row m on.

    Its arguments: first, end, m, where the result goes, where to write how many rows it has, the start; then of each
    source address, stride, pairs and panel.
    """
    k = Builder(machine.this_machine())
    first, end, m = (k.argument(n) for n in range(3))
    tiles = Tiles(k, sources, k.i(LEAST))
    k.buffer = k.pointer(3)
    tiles.begin(first, end)
    start = [k.v.load(k.at(k.pointer(5), k.i(c * k.lanes))) for c in range(columns if started else 0)]
    given = [
        (k.pointer(at), k.argument(at + 1), k.argument(at + 2), k.pointer(at + 3))
        for at in range(6, 6 + 4 * sources, 4)
    ]
    k.b.store(tiles.multiply(given, columns, start, m, end), k.pointer(4), align=8)
    tiles.finish()
    k.b.ret_void()
    text = str(k.module)
    return build.load(text, lambda: text, k.machine)


def integers(*shape: int) -> Tensor:
    return torch.randint(-8, 9, shape).float()


@needs_bfloat16
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("columns", "depths", "started"),
    [(4, (63,), True), (3, (32, 5), False), (1, (1,), True), (6, (100, 31, 64), False)],
)
def test_products_of_integers_are_exact(columns: int, depths: tuple[int, ...], started: bool) -> None:
    """For every number of rows, wherever these begin; NaN around the rows of the sources reaches no sum."""
    function, lanes = multiplier(columns, len(depths), started), 16
    room = 16 * columns * lanes  # before the buffer
    for rows in range(1, 41):
        first = rows % 3
        start, want = integers(columns * lanes), torch.zeros(rows, columns * lanes)
        want += start if started else 0
        memory, arguments = [start], []
        for depth in depths:
            pairs, wide = (depth + 1) // 2, depth + depth % 2 + 6
            left, right = integers(rows, depth), integers(depth, columns * lanes)
            want += left @ right
            source = torch.full((first + rows + 2, wide), torch.nan, dtype=torch.bfloat16)
            source[first : first + rows, :depth] = left.bfloat16()
            source[first : first + rows, depth : 2 * pairs] = 0
            panel = torch.zeros(-(-pairs // DEEP) * DEEP, 2, columns * lanes, dtype=torch.bfloat16)
            panel.view(-1, columns * lanes)[:depth] = right.bfloat16()
            panel = panel.transpose(1, 2).contiguous()
            memory += [source, panel]
            arguments += [source.data_ptr(), wide, pairs, panel.data_ptr()]
        m = first
        while m < first + rows:
            result, done = torch.full((3 * room,), torch.inf), ctypes.c_int64()
            into = result.data_ptr() + 4 * room
            head = [first, first + rows, m, into, ctypes.addressof(done), start.data_ptr()]
            values = (ctypes.c_int64 * (len(head) + len(arguments)))(*head, *arguments)
            threads.run(function, ctypes.addressof(values), 1)
            assert 1 <= done.value <= min(32, first + rows - m)
            got, beyond = result[room:].view(-1, columns * lanes).split([done.value, 32 - done.value])
            assert torch.equal(got, want[m - first : m - first + done.value]), (rows, m)
            assert beyond.isposinf().all()  # nor is a row behind the last one read
            m += done.value


@needs_bfloat16
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    "name", ["elman tanh", "lstm", "lstm peephole coupled", "lstm projected", "gru", "gru before", "norms"]
)
def test_cells_beside_the_reference(name: str) -> None:
    """One kernel with a product of each number of columns, for odd and for whole sizes, in both directions."""
    for T, B, I, H, reverse in (
        (3, 9, 34, 65, False),
        (2, 40, 3, 63, True),
        (2, 17, 65, 3, False),
        (2, 33, 1, 1, True),
    ):
        assert_only_operands_are_rounded(*beside_rounded_reference(name, T, B, I, H, reverse, False))
    assert_only_operands_are_rounded(*beside_rounded_reference(name, 2, 8, 5, 64, False, True))


@needs_bfloat16
def test_every_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows go through registers: to the last bit what a processor without tiles computes. More do not."""
    different = set()
    for B in range(1, 41):
        plan, weights, inputs, state, _ = problem(CELLS["lstm"](5, 66), 2, B, False, False)
        found = []
        for features in ("-amx-tile", "+amx-emulated"):
            monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", features)
            program = Program(plan)
            for training in (False, True):
                leaves = {n: w.requires_grad_(training) for n, w in weights.items()}
                with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
                    found.append(scan(program, leaves, inputs, state, B % 2 == 0)[0]["h"])
        plain, trained, tiled, tiled_trained = found
        assert torch.equal(plain, trained)
        assert torch.equal(tiled, tiled_trained)
        assert ((plain - tiled).norm() / plain.norm()).item() <= 2e-4
        different |= {B} if not torch.equal(plain, tiled) else set()
    # What comes before the loop has two rows per row of the batch.
    assert different == set(range(LEAST // 2, 41))


@needs_bfloat16
@pytest.mark.usefixtures("emulated")
def test_lengths_and_masks() -> None:
    """The number of rows changes from step to step; padding changes nothing, nor does the number of threads.

    Beside a batch without padding, few operands are rounded the other way: as in `assert_only_operands_are_rounded`.
    """
    layer, x = cellwright.LSTM(7, 70, bidirectional=True), torch.randn(6, 45, 7)
    lengths = torch.randint(0, 7, (45,))
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        with torch.autocast("cpu", torch.bfloat16):
            output, last = layer(x, lengths=lengths.tolist())
            gradients = torch.autograd.grad(output.sum(), list(layer.parameters()))
        found.append([output, *last, *gradients])
    for a, b in zip(*([t.detach() for t in one] for one in found), strict=True):
        # Gradients of weights are torch's sums of bfloat16.
        assert torch.equal(a, b) if a.dim() == 3 else ((a - b).norm() / b.norm()).item() < 2**-8
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for length in range(1, 7):
            rows = (lengths == length).nonzero().flatten()
            alone, _ = layer(x[:length, rows])
            assert ((found[0][0][:length, rows] - alone).norm() / alone.norm()).item() <= 2e-4
    reset = torch.rand(6, 45) > 0.7
    with torch.no_grad():
        want, _ = layer(x, reset=reset)
        with torch.autocast("cpu", torch.bfloat16):
            got, _ = layer(x, reset=reset)
    assert 1e-5 < (got - want).abs().max() < 2e-2  # operands are off by 2^-9


@needs_bfloat16
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("T", "B", "H"), [(9, 9, 320), (5, 33, 129), (5, 8, 64)], ids=["units", "rows", "one thread"])
def test_the_number_of_threads_changes_no_bit(T: int, B: int, H: int) -> None:
    plan, weights, inputs, state, _ = problem(CELLS["lstm"](H, H), T, B, False, False)
    with torch.autocast("cpu", torch.bfloat16):
        results = states_by_threads(plan, weights, inputs, state)
    for other in results[1:]:
        assert all(torch.equal(results[0][n], other[n]) for n in state)


@needs_bfloat16
@pytest.mark.usefixtures("emulated")
def test_nothing_leaks() -> None:
    """Neither from another row, nor from beyond the last unit, where an operand is infinite."""
    plan, weights, inputs, state, _ = problem(CELLS["lstm"](3, 17), 4, 11, False, False)
    program = Program(plan)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        clean, _ = scan(program, weights, inputs, state, False)
        inputs["x"][1, 2] = torch.nan
        spoilt, _ = scan(program, weights, inputs, state, False)
    others = [m for m in range(11) if m != 2]
    for n in state:
        assert torch.equal(spoilt[n][:, others], clean[n][:, others])
        assert spoilt[n][1:, 2].isnan().all()
    plan, weights, inputs, state, _ = problem(Logarithm(3, 5), 4, 9, False, False)
    leaves = {n: w.requires_grad_() for n, w in weights.items()}
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = scan(Program(plan), leaves, inputs, state, False)
    assert states["h"].isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(states["h"].sum(), list(leaves.values())))


def assembly(text: str, this: machine.Machine, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a module becomes, after it has been assembled."""
    found, real = [], llvm.TargetMachine.emit_object

    def both(target: Any, module: Any) -> Any:
        found.append(target.emit_assembly(module))
        return real(target, module)

    monkeypatch.setattr(llvm.TargetMachine, "emit_object", both)
    assert build.compile_module(text, this).startswith(b"\x7fELF") or sys.platform != "linux"
    return str(found[0])


@needs_x86
@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_the_instructions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner loops of four gates: two blocks of rows by two columns, or one by four, and nothing in between."""
    program = Program(Plan(CELLS["lstm"](3, 4).definition()))
    program.machine = SAPPHIRE_RAPIDS
    passes = program._forward_passes(True) if kind == "forward" else program._backward_passes()
    text = program._recipe((kind, True, False, True), passes).text()
    code = assembly(text, SAPPHIRE_RAPIDS, monkeypatch)
    assert code.count("ldtilecfg") == 1  # at the beginning of a step, if the rows are others
    assert code.count("tilerelease") == 1
    assert "tilestored" in code
    blocks = re.split(r"^(\.L\w+):.*\n", code, flags=re.MULTILINE)[1:]
    loops = []
    for label, block in zip(blocks[::2], blocks[1::2], strict=True):
        lines = [line.split("#")[0].split() for line in block.splitlines() if line.startswith("\t")]
        words = [line[0] for line in lines if line and not line[0].startswith(".")]
        if "tdpbf16ps" in words and any(line[:1] == ["jne"] and line[1:] == [label] for line in lines):
            assert "(%rsp" not in block
            loops.append((words.count("tileloadd"), words.count("tdpbf16ps")))
    assert set(loops) == {(4, 4), (5, 4)}


@needs_x86
def test_without_tiles_the_text_is_that_of_a_processor_without_them() -> None:
    program = Program(Plan(CELLS["gru"](3, 4).definition()))
    texts = []
    for this in (SAPPHIRE_RAPIDS, SAPPHIRE_RAPIDS.without_tiles(), replace(SAPPHIRE_RAPIDS, features="", tiles="")):
        program.machine = this
        texts.append(program._recipe(("forward", True, False, True), program._forward_passes(True)).text())
    assert texts[0] != texts[1] == texts[2]
    keys = {build._key("the same", this) for this in (SAPPHIRE_RAPIDS, SAPPHIRE_RAPIDS.without_tiles())}
    assert len(keys) == 2
    program.machine = SAPPHIRE_RAPIDS
    single = program._recipe(("forward", True, False, False), program._forward_passes(True)).text()
    assert "llvm.x86" not in single


def test_what_the_processor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    host = {"avx512f": True, "avx512bf16": True, "amx-tile": True, "amx-bf16": True, "avx2": True}
    monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: dict(host))

    def tiles(features: str) -> str:
        monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", features)
        this = machine.this_machine()
        assert "emulated" not in this.features
        return this.tiles

    assert tiles("") == "amx"
    assert tiles("+amx-emulated") == "emulated"
    for features in ("-amx-tile", "-amx-bf16", "-avx512bf16", "-avx512f", "-avx2", "-avx512f,+amx-emulated"):
        assert tiles(features) == ""
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", "-amx-tile")
    assert "-amx-bf16" in machine.this_machine().features


def test_a_system_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "permission", lambda: "the system refuses them (no)")
    with pytest.warns(UserWarning, match=r"without AMX tiles: the system refuses them \(no\); AVX-512 computes them"):
        settled = trial.settled(SAPPHIRE_RAPIDS)
    assert settled == SAPPHIRE_RAPIDS.without_tiles()
    assert (settled.tiles, settled.features) == ("", "-amx-bf16,-amx-tile")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trial.settled(SAPPHIRE_RAPIDS) is settled
        assert trial.settled(settled) is settled


def test_systems_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without AMX is refused; one with AMX that the system has switched on is not."""
    if sys.platform == "linux" and not machine.llvm.get_host_cpu_features().get("amx-tile"):
        assert re.fullmatch(r"the system refuses them \(.+\)", str(trial.permission()))
    elif sys.platform == "linux":
        assert trial.permission() is None
    monkeypatch.setattr(sys, "platform", "win32")
    assert trial.permission() == "how to ask win32 for them is not known"


@needs_bfloat16
def test_a_unit_that_multiplies_wrongly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan, weights, inputs, state, _ = problem(CELLS["gru"](3, 40), 3, 9, False, False)
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", "-amx-tile")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        want = scan(Program(plan), weights, inputs, state, False)[0]["h"]
    monkeypatch.setenv("CELLWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", "+amx-emulated")
    monkeypatch.setitem(amx._PLAIN, "tdpbf16ps", lambda *_: None)
    with pytest.warns(UserWarning, match=r"without AMX tiles: \d+ of 336 numbers of a small product came out wrong"):
        program = Program(plan)
    assert "AVX-512 BF16 (no AMX: " in trial.bfloat16_report()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scan(program, weights, inputs, state, False)[0]["h"], want)


@needs_bfloat16
@pytest.mark.parametrize(
    ("features", "words"),
    [("-amx-tile", "AVX-512 BF16"), ("+amx-emulated", "AMX, emulated for tests"), ("-avx512f", "computed in float32")],
)
def test_the_report(features: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", features)
    assert re.search(rf"^bfloat16 +.*{re.escape(words)}$", report(), re.MULTILINE)
