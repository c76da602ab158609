"""Products of bfloat16 in the compiled target: operands are rounded, sums and states are not."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cellwright
from cellwright.emit import to_torch
from cellwright.emit.to_cpu import Program, machine, scan
from cellwright.lang import Plan, with_reset
from tests.problems import CELLS, F64, Logarithm, problem, states_by_threads

needs_bfloat16 = pytest.mark.skipif(
    not machine.this_machine().bfloat16, reason="this processor has no products of bfloat16"
)


class Rounded(torch.autograd.Function):
    """A product whose operands are rounded to bfloat16, on the way back too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        x, matrix = x.bfloat16().to(x.dtype), matrix.bfloat16().to(x.dtype)
        ctx.save_for_backward(x, matrix)
        return x @ matrix.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, matrix = ctx.saved_tensors
        g = gradients[0].bfloat16().to(x.dtype)
        return g @ matrix, g.reshape(-1, g.shape[-1]).t() @ x.reshape(-1, x.shape[-1])


def rounded_linear(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = Rounded.apply(x, matrix)  # type: ignore[no-untyped-call]
    return product if bias is None else product + bias


def beside_rounded_reference(
    name: str, T: int, B: int, I: int, H: int, reverse: bool, whole: bool
) -> list[dict[str, Tensor]]:
    """States and gradients of a cell under autocast, and of the reference in float64 with rounded operands."""
    plan, weights, inputs, state, seeds = problem(CELLS[name](I, H), T, B, whole, False)
    results = []
    for dtype in (torch.float32, F64):
        leaves = {**weights, **state} | ({} if whole else inputs)
        leaves = {n: v.to(dtype).requires_grad_() for n, v in leaves.items()}
        given = {"x": leaves.get("x", inputs["x"])}
        own, start = {n: leaves[n] for n in weights}, {n: leaves[n] for n in state}
        with pytest.MonkeyPatch.context() as patch:
            if dtype == torch.float32:
                with torch.autocast("cpu", torch.bfloat16):
                    states, last = scan(Program(plan), own, given, start, reverse)
            else:
                patch.setattr(to_torch.F, "linear", rounded_linear)
                lists = to_torch.run(plan, own, given, start, reverse).states
                states = {n: torch.stack(s) for n, s in lists.items()}
                last = {n: s[0 if reverse else -1] for n, s in states.items()}
            results.append(states_and_gradients(states, last, leaves, {n: s.to(dtype) for n, s in seeds.items()}))
    return results


def assert_only_operands_are_rounded(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    """As exact as in float32 beside the reference with rounded operands, but for the few that round the other way.

    Products after the loop, which give the gradients of weights and inputs, are rounded once more, as torch's are.
    """
    for n, value in got.items():
        assert value.dtype == torch.float32
        error = ((value.double() - want[n]).norm() / want[n].norm().clamp(min=1e-3)).item()
        assert error <= (2e-4 if n.startswith("state") else 2**-8), f"{n}: error {error:.1e}"


def states_and_gradients(states: Any, last: Any, leaves: dict[str, Tensor], seeds: Any) -> dict[str, Tensor]:
    loss = torch.stack([(states[n] * g).sum() + (last[n] ** 2).sum() for n, g in seeds.items()]).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)  # some states nobody reads
    named = {f"gradient {n}": g for n, g in zip(leaves, found, strict=True)}
    return {f"state {n}": s.detach() for n, s in states.items()} | named


@needs_bfloat16
@pytest.mark.parametrize(
    ("T", "B", "I", "H", "reverse", "whole"),
    [(1, 1, 1, 1, False, False), (5, 3, 7, 15, True, False), (4, 9, 34, 65, False, False), (3, 4, 50, 17, True, True)],
)
@pytest.mark.parametrize("name", CELLS)
def test_only_operands_are_rounded(name: str, T: int, B: int, I: int, H: int, reverse: bool, whole: bool) -> None:
    assert_only_operands_are_rounded(*beside_rounded_reference(name, T, B, I, H, reverse, whole))


LAYERS: dict[str, Any] = {
    "elman": lambda: cellwright.RNN(5, 17, nonlinearity="gelu", bidirectional=True),
    "lstm": lambda: cellwright.LSTM(7, 33, peephole=True, proj_size=5, bidirectional=True),
    "gru": lambda: cellwright.GRU(4, 3, reset_after=False, bias="input", bidirectional=True),
}


def pair(name: str) -> tuple[Any, Any, Tensor]:
    """A layer of bfloat16, the same in float32, and an input of bfloat16."""
    half = LAYERS[name]().bfloat16()
    return half, copy.deepcopy(half).float(), torch.randn(6, 5, half.input_size).bfloat16()


def outputs_and_gradients(layer: Any, x: Tensor, **call: Any) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output, last = layer(x, **call)
    seed = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(output.dtype)
    gradients = torch.autograd.grad((output * seed).sum(), list(layer.parameters()), retain_graph=True)
    # In bfloat16, the sum of the gradients of two directions would be rounded once more.
    into = [torch.autograd.grad(o.sum(), x, retain_graph=True)[0] for o in output.chunk(2, -1)]
    return [output, *(last if isinstance(last, tuple) else (last,)), *gradients, *into]


@pytest.mark.parametrize("kind", ["plain", "lengths", "reset"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_module_of_bfloat16_is_autocast_with_rounded_results(name: str, kind: str) -> None:
    half, full, x = pair(name)
    call: Any = {"plain": {}, "lengths": {"lengths": [6, 0, 3, 1, 6]}, "reset": {"reset": torch.rand(6, 5) > 0.6}}[kind]
    with torch.autocast("cpu", torch.bfloat16):
        want = outputs_and_gradients(full, x.float(), **call)
    for a, b in zip(outputs_and_gradients(half, x, **call), want, strict=True):
        assert a.dtype == torch.bfloat16
        assert b.dtype == torch.float32
        assert torch.equal(a, b.bfloat16())


@pytest.mark.parametrize("features", ["-avx512bf16", "-avx512f", "-avx512f,-avx2"])
@pytest.mark.parametrize("name", LAYERS)
def test_other_processors_compute_in_float32(
    name: str, features: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CELLWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("CELLWRIGHT_CPU_FEATURES", features)
    assert not machine.this_machine().bfloat16
    half, full, x = pair(name)
    want = outputs_and_gradients(full, x.float())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = outputs_and_gradients(full, x.float())
    for a, b, c in zip(outputs_and_gradients(half, x), mixed, want, strict=True):
        assert torch.equal(b, c)
        assert torch.equal(a, c.bfloat16())


@pytest.mark.parametrize(("T", "B", "H"), [(9, 1, 320), (5, 33, 129), (7, 3, 200)], ids=["units", "rows", "few rows"])
@pytest.mark.parametrize("name", ["lstm", "gru before", "norms"])
def test_the_number_of_threads_changes_no_bit(name: str, T: int, B: int, H: int) -> None:
    plan, weights, inputs, state, _ = problem(CELLS[name](H, H), T, B, False, False)
    with torch.autocast("cpu", torch.bfloat16):
        results = states_by_threads(plan, weights, inputs, state)
    for other in results[1:]:
        assert all(torch.equal(results[0][n], other[n]) for n in state)


@pytest.mark.parametrize("I", [1, 3, 16])
@pytest.mark.parametrize("name", ["lstm projected", "gru", "norms"])
def test_one_row_spoils_no_other(name: str, I: int) -> None:
    """Operands are read in pairs: at an odd size, the last one must not reach into the next row."""
    plan, weights, inputs, state, _ = problem(CELLS[name](I, 17), 4, 5, False, False)
    program = Program(plan)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        clean, _ = scan(program, weights, inputs, state, False)
        inputs["x"][1, 2] = torch.nan
        spoilt, _ = scan(program, weights, inputs, state, False)
    others = [0, 1, 3, 4]
    for n in state:
        assert torch.equal(spoilt[n][:, others], clean[n][:, others])
    first = next(iter(state))
    assert spoilt[first][1:, 2].isnan().all()
    assert torch.equal(spoilt[first][0], clean[first][0])


def test_what_lies_beyond_the_last_unit_reaches_no_product() -> None:
    """The sixth of five units is read as the second of a pair."""
    plan, weights, inputs, state, _ = problem(Logarithm(3, 5), 4, 2, False, False)
    leaves = {n: w.requires_grad_() for n, w in weights.items()}
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = scan(Program(plan), leaves, inputs, state, False)
    assert states["h"].isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(states["h"].sum(), list(leaves.values())))


@pytest.mark.parametrize("target", ["cpu", "torch"])
def test_each_result_has_the_dtype_of_its_state(target: str) -> None:
    layer, x = cellwright.LSTM(3, 4), torch.randn(5, 2, 3)
    state = torch.zeros(1, 2, 4, dtype=torch.bfloat16), torch.zeros(1, 2, 4)
    for training in (False, True):
        with cellwright.use_target(target), torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
            output, (h, c) = layer(x, state)
            assert [t.dtype for t in (output, h, c)] == [torch.bfloat16, torch.bfloat16, torch.float32]
            output, (h, c) = layer(x.bfloat16())
            assert [t.dtype for t in (output, h, c)] == [torch.float32] * 3


def test_gradients_have_the_dtypes_of_what_they_belong_to() -> None:
    layer, x = cellwright.GRU(3, 4), torch.randn(5, 2, 3).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}


@needs_bfloat16
def test_resets_with_symbols() -> None:
    """One more kernel before the loop: a table, whose rows are not rounded."""
    cell = CELLS["lstm"](5, 17)
    plan, weights, inputs, state, _ = problem(cell, 6, 3, True, False)
    plan = Plan(with_reset(cell.definition()))
    inputs["reset"] = (torch.rand(6, 3, 1) > 0.6).float()
    weights = {n: w.bfloat16().float() for n, w in weights.items()}
    with torch.no_grad():
        want, _ = scan(Program(plan), weights, inputs, state, False)
        with torch.autocast("cpu", torch.bfloat16):
            got, _ = scan(Program(plan), weights, inputs, state, False)
    for n in state:
        assert 1e-5 < (got[n] - want[n]).abs().max() < 2e-2
