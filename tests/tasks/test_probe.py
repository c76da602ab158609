"""The problems that make their own data: what they ask is what their papers say, recomputed here by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from cellwright.tasks.probe.job import TEST, TRAINING, VALIDATION, drawn
from cellwright.tasks.probe.problems import IGNORE, PROBLEMS, embedded


def test_adding() -> None:
    problem = PROBLEMS["adding"](7)
    batch = drawn(problem, TRAINING, 1, 0, 5000)
    x, y = batch.x.numpy(), batch.y.numpy()
    assert x.shape == (7, 5000, 2) and x[..., 0].min() >= 0 and x[..., 0].max() < 1
    marks = x[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:3].sum(0) == 1).all() and (marks[3:].sum(0) == 1).all()
    assert (marks.sum(1) > 500).all(), "every step is marked at times"
    np.testing.assert_allclose((x[..., 0] * marks).sum(0), y[-1], rtol=1e-6)
    assert np.isnan(y[:-1]).all()
    said = torch.full((7, 5000, 1), 1.0)
    losses = problem.losses(said, batch)
    assert losses[problem.asked(batch)].mean().item() == pytest.approx(problem.blind[1], rel=0.05)
    assert losses[:-1].abs().sum() == 0
    near = torch.from_numpy(y)[..., None].nan_to_num(9.0) + torch.linspace(-0.08, 0.08, 5000)[:, None]
    assert problem.measured(near, batch)["right"].mean().item() == pytest.approx(0.5, abs=0.01)


def test_copy() -> None:
    problem = PROBLEMS["copy"](6)
    batch = drawn(problem, TRAINING, 1, 0, 200)
    x, y = batch.x.numpy(), batch.y.numpy()
    assert len(x) == len(y) == 26
    kept = x[:10]
    assert set(np.unique(kept)) == set(range(1, 9))
    assert (x[10:15] == 0).all() and (x[15] == 9).all() and (x[16:] == 0).all()
    assert (y[:16] == 0).all() and (y[16:] == kept).all()
    # The best without memory: sure of the blanks, and one in eight afterwards.
    logits = torch.full((26, 200, 9), -1e4)
    logits[:16, :, 0] = 0
    logits[16:, :, 1:] = 0
    assert problem.losses(logits, batch).mean().item() == pytest.approx(problem.blind[1], rel=1e-5)
    logits = torch.nn.functional.one_hot(batch.y, 9).float()
    logits[-1] = 0
    logits[-1, :, 0] = 1
    assert problem.measured(logits, batch)["copied"].mean().item() == pytest.approx(0.9)


def test_parity() -> None:
    problem = PROBLEMS["parity"](6)
    batch = drawn(problem, TRAINING, 1, 0, 600)
    lengths = batch.lengths.tolist()
    assert set(lengths) == set(range(1, 7))
    for b, length in enumerate(lengths):
        bits = batch.x[:length, b].tolist()
        assert batch.y[:, b].tolist() == [IGNORE] * (length - 1) + [bits.count(1) % 2] + [IGNORE] * (6 - length)
    loss = problem.losses(torch.zeros(6, 600, 2), batch)[problem.asked(batch)].mean().item()
    assert loss == pytest.approx(problem.blind[1]) == pytest.approx(math.log(2))


def paths(symbols: str, table: dict[int, dict[str, int]], state: int) -> bool:
    for symbol in symbols:
        if symbol not in table.get(state, {}):
            return False
        state = table[state][symbol]
    return state == 7


# As the figure of the grammar has it, with a state for the first B.
GRAMMAR = {
    0: {"B": 1},
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
    6: {"E": 7},
}


def test_strings_are_of_the_embedded_grammar() -> None:
    chance, firsts, lengths = np.random.default_rng(0), Counter[str](), []
    for _ in range(3000):
        string, ways = embedded(chance)
        assert string[0] == "B" and string[-1] == "E" and string[1] == string[-2] in "TP"
        assert paths(string[2:-2], GRAMMAR, 0), string
        state, want = 0, ["PT", "B"]
        for symbol in string[2:-3]:
            state = GRAMMAR[state][symbol]
            want.append("".join(sorted(GRAMMAR[state])))
        assert ["".join(sorted(way)) for way in ways] == [*want, string[1], "E"]
        firsts[string[1:4]] += 1
        lengths.append(len(string))
    assert set(firsts) == {"TBT", "TBP", "PBT", "PBP"} and min(firsts.values()) > 650
    assert min(lengths) == 9 and max(lengths) > 25


def test_reber() -> None:
    problem = PROBLEMS["reber"](None)
    batch = drawn(problem, TRAINING, 1, 0, 4000)
    assert batch.allowed is not None
    asked = problem.asked(batch)
    assert asked.sum(0).tolist() == batch.lengths.tolist()
    assert batch.allowed.gather(2, batch.y.clamp(min=0).unsqueeze(-1))[..., 0][asked].all(), "what comes is allowed"
    # An answer that knows the grammar but not the first T or P, and one that knows all.
    last, rows = problem.hardest(batch), torch.arange(4000)
    blind = batch.allowed.double()
    blind[last, rows] = 0.0
    blind[last, rows, 1:3] = 1.0  # T and P
    loss = problem.losses((blind / blind.sum(-1, keepdim=True)).log().clamp(min=-1e4), batch)[asked].mean().item()
    assert loss == pytest.approx(problem.blind[1], rel=0.01)
    found = problem.measured(batch.allowed.float(), batch)
    assert found["allowed"].all() and found["embedded"].all()
    tie = blind.float()
    tie[..., 1] += 0.1 * (tie[..., 1] > 0)
    found = problem.measured(tie, batch)
    assert found["embedded"].mean().item() == pytest.approx(0.5, abs=0.03)
    wrong = (batch.y[last, rows] == 2).sum().item()  # P
    assert found["allowed"].sum().item() == asked.sum().item() - wrong


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_batch_depends_on_seed_part_and_number_only(name: str) -> None:
    problem = PROBLEMS[name](None)
    first = drawn(problem, TRAINING, 1, 7, 6)
    again = drawn(PROBLEMS[name](None), TRAINING, 1, 7, 6)
    for one, other in itertools.zip_longest(vars(first).values(), vars(again).values()):
        assert one is other is None or torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))
    for part, seed, number in ((TRAINING, 1, 8), (TRAINING, 2, 7), (VALIDATION, 1, 7), (TEST, 1, 7)):
        other = drawn(problem, part, seed, number, 6)
        assert other.x.shape != first.x.shape or not other.x.equal(first.x)
