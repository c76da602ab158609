"""The compiled target without padding: against the reference, which computes the padding and masks it, in float64."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

import cellwright
from cellwright.emit.to_cpu import Program, scan
from cellwright.lang import Plan, with_reset, with_valid
from tests.problems import CELLS, compare, problem
from tests.random_cells import random_cell

MIXED = [0, 6, 1, 3, 6, 0, 2]
LENGTHS = {"mixed": MIXED, "equal": [3] * 7, "one long": [1, 1, 1, 6, 1, 1, 1], "one": [4], "one runs": [0, 0, 5]}


def with_lengths(
    cell: Any, lengths: list[int], T: int, reverse: bool, whole: bool = False, reset: bool = False
) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """States and gradients without padding, and the arguments for which the reference gives the same.

    The padding holds NaN, or an integer that is no symbol. Gradients come from the states after every step, in the
    padding too, and from the last ones.
    """
    definition = with_reset(cell.definition()) if reset else cell.definition()
    _, weights, inputs, state, seeds = problem(cell, T, len(lengths), whole, False)
    valid = torch.arange(T).unsqueeze(1) < torch.tensor(lengths)  # [T, B]
    if reset:
        inputs["reset"] = ((torch.rand(T, len(lengths)) > 0.6) & valid).float().unsqueeze(-1)
    ends = {n: torch.randn_like(s) for n, s in state.items()}
    leaves = {**weights, **state} | ({} if whole else {"x": inputs["x"]})
    leaves = {n: v.clone().requires_grad_() for n, v in leaves.items()}
    given = dict(inputs)
    if whole:
        given["x"] = torch.where(valid, inputs["x"], 10**9)
    else:
        given["x"] = torch.where(valid.unsqueeze(-1), leaves["x"], torch.nan)
    program = Program(Plan(definition))
    assert program.refusal is None
    started = {n: leaves[n] for n in state}
    states, last = scan(program, {n: leaves[n] for n in weights}, given, started, reverse, valid)
    for n in state:
        assert torch.equal(last[n], states[n][0 if reverse else -1])
    loss = sum(((states[n] * seeds[n]).sum() + (last[n] * ends[n]).sum() for n in state), torch.zeros(()))
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    result = {f"state {n}": s.detach() for n, s in states.items()}
    result |= {f"gradient {n}": g for n, g in zip(leaves, found, strict=True) if g is not None}
    # For the reference, the last state is the one after the last step.
    for n, end in ends.items():
        seeds[n][0 if reverse else -1] += end
    masked = inputs | {"valid": valid.float().unsqueeze(-1)}
    return result, (Plan(with_valid(definition)), weights, masked, state, seeds, reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("I", "H"), [(5, 17), (1, 1)])
@pytest.mark.parametrize("name", CELLS)
def test_agrees_with_masks(name: str, I: int, H: int, reverse: bool) -> None:
    got, given = with_lengths(CELLS[name](I, H), MIXED, 7, reverse)
    compare(got, *given)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("whole", [False, True], ids=["numbers", "symbols"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", ["lstm projected", "gru before", "norms"])
def test_resets_and_symbols(name: str, lengths: str, whole: bool, reverse: bool) -> None:
    got, given = with_lengths(CELLS[name](33, 16), LENGTHS[lengths], 6, reverse, whole, reset=True)
    compare(got, *given)


@pytest.mark.parametrize("symbols", [3, 40], ids=["a table", "more symbols than steps"])
def test_few_and_many_symbols(symbols: int) -> None:
    got, given = with_lengths(CELLS["lstm"](symbols, 5), MIXED, 6, False, whole=True)
    compare(got, *given)


@pytest.mark.parametrize("seed", [7, 13, 16, 26, 33, 36])
def test_random_cells(seed: int) -> None:
    choice = random.Random(seed)
    cell, reset = random_cell(seed), choice.random() < 0.5
    definition = with_reset(cell.definition()) if reset else cell.definition()
    assert Program(Plan(definition)).refusal is None
    got, given = with_lengths(cell, MIXED, 6, choice.random() < 0.5, reset=reset)
    compare({n: v for n, v in got.items() if v.any()}, *given)


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_the_number_of_threads_changes_no_bit(name: str, narrow: bool) -> None:
    layer = getattr(cellwright, name)(9, 33, bidirectional=True)
    x, lengths = torch.randn(12, 70, 9), torch.randint(0, 13, (70,))
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            output, last = layer(x, lengths=lengths)
        results.append((output, *(last if isinstance(last, tuple) else (last,))))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_gradients_with_several_threads(count: int) -> None:
    """More work than one thread takes alone; sequences that are dealt out end at different steps."""
    torch.set_num_threads(count)
    lengths = random.Random(count).choices(range(13), k=64)
    got, given = with_lengths(CELLS["lstm projected"](4, 20), lengths, 12, True, reset=True)
    compare(got, *given)


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_packed_sequences_are_those_of_torch(name: str, enforce_sorted: bool, assert_close: Any) -> None:
    theirs = getattr(torch.nn, name)(5, 17, num_layers=2, bidirectional=True)
    ours = getattr(cellwright, name)(5, 17, num_layers=2, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    lengths = [7, 4, 4, 1] if enforce_sorted else [4, 1, 7, 4]
    x = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(7, 4, 5), lengths, enforce_sorted=enforce_sorted)
    (got, last), (want, final) = ours(x), theirs(x)
    assert_close("output", got.data, want.data, 1e-6)
    for a, b in zip(torch.atleast_3d(last), torch.atleast_3d(final), strict=True):
        assert_close("last", a, b, 1e-6)
    weight = torch.randn_like(want.data)
    grads = [torch.autograd.grad((o.data * weight).sum(), m.parameters()) for o, m in ((got, ours), (want, theirs))]
    for (n, _), a, b in zip(ours.named_parameters(), *grads, strict=True):
        assert_close(n, a, b, 1e-5)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_one_sequence_spoils_no_other(reverse: bool) -> None:
    """NaN in one sequence, and in one gradient, stays in that sequence and on the side of time to which it belongs."""
    program = Program(Plan(CELLS["lstm"](3, 17).definition()))
    _, weights, inputs, state, _ = problem(CELLS["lstm"](3, 17), 6, 5, False, False)
    valid = torch.arange(6).unsqueeze(1) < torch.tensor([4, 6, 0, 5, 2])
    x = inputs["x"].requires_grad_()
    states, _ = scan(program, weights, {"x": x}, state, reverse, valid)
    seed = torch.ones_like(states["h"])
    seed[2, 0] = torch.nan
    (found,) = torch.autograd.grad(states["h"], x, seed)
    reached = torch.zeros(6, 5, dtype=torch.bool)
    reached[slice(2, 4) if reverse else slice(0, 3), 0] = True
    assert torch.equal(found.isnan().any(-1), reached)
    with torch.no_grad():
        x[2, 0] = torch.nan
        spoilt, last = scan(program, weights, {"x": x}, state, reverse, valid)
    assert torch.equal(spoilt["h"][:, 1:], states["h"][:, 1:])
    assert last["h"][0].isnan().all()
