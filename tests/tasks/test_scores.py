import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.tasks.scores import Confusion, SpanScore

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)
TAGS = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]


def filled(pairs: list[tuple[int, int]], classes: int = 5) -> Confusion:
    confusion = Confusion(classes)
    for begin in range(0, len(pairs), 7):
        truth, guess = zip(*pairs[begin : begin + 7], strict=True)
        confusion.add(np.array(truth), np.array(guess))
    return confusion


@given(PAIRS)
def test_accuracy_and_f1_are_those_of_counting(pairs: list[tuple[int, int]]) -> None:
    scores = []
    for k in {k for pair in pairs for k in pair}:
        right = sum(t == g == k for t, g in pairs)
        precision = right / max(1, sum(g == k for _, g in pairs))
        recall = right / max(1, sum(t == k for t, _ in pairs))
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    confusion = filled(pairs)
    assert confusion.accuracy == pytest.approx(sum(t == g for t, g in pairs) / len(pairs))
    assert confusion.macro_f1 == pytest.approx(sum(scores) / len(scores))
    assert confusion.counts[1, 2] == pairs.count((1, 2))


def test_a_class_that_nobody_speaks_of_has_no_f1() -> None:
    confusion = filled([(0, 0), (0, 1)])
    assert [math.isnan(f) for f in confusion.f1] == [False, False, True, True, True]
    assert confusion.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    table = confusion.table(["cat", "dog", "x", "y", "z"])
    assert [line.split()[0] for line in table.splitlines()] == ["class", "cat", "dog"]
    assert "dog (1)" in table


def chunks(tags: list[str]) -> set[tuple[int, int, str]]:
    """The two rules of the CoNLL scorer: where a chunk begins, and where one ends, from two neighbouring tags."""
    found, begin = set(), 0
    before, kind = "O", ""
    for t, tag in enumerate([*tags, "O"]):
        mark, here = tag[0], tag[2:]
        ends = before in "ES" or (before in "BI" and mark in "BSO") or (before != "O" and kind != here)
        starts = mark in "BS" or (before in "ESO" and mark in "EI") or (mark != "O" and kind != here)
        if before != "O" and ends:
            found.add((begin, t, kind))
        if starts:
            begin = t
        before, kind = mark, here
    return found


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_spans_are_those_of_the_conll_scorer(tags: list[str]) -> None:
    assert SpanScore(TAGS).spans(np.array([TAGS.index(t) for t in tags], int)) == chunks(tags)


def test_labels_without_marks_make_runs() -> None:
    score = SpanScore(["rest", "move"])
    assert score.spans(np.array([0, 0, 1, 1, 0])) == {(0, 2, "rest"), (2, 4, "move"), (4, 5, "rest")}
    score.add(np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 0, 0]))
    assert (score.right, score.there, score.guessed) == (1, 3, 3)
    assert score.f1 == pytest.approx(1 / 3)
