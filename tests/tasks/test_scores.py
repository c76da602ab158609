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


def seqeval(tags: list[str]) -> set[tuple[int, int, str]]:
    """The two rules of the CoNLL scorer and of seqeval: where a span begins and where one ends, from two neighbours."""
    found, begin = set(), 0
    before, kind = "O", "-"
    for t, tag in enumerate([*tags, "O"]):
        mark, here = (tag[0], tag[1:].split("-", 1)[-1])
        ends = before in "ES" or (before in "BI" and mark in "BSO") or (before != "O" and kind != here)
        starts = mark in "BS" or (before in "ESO" and mark in "EI") or (mark != "O" and kind != here)
        if before != "O" and ends:
            found.add((begin, t, kind))
        if starts:
            begin = t
        before, kind = mark, here
    return found


def f1(pairs: list[tuple[list[str], list[str]]]) -> float:
    right = there = guessed = 0
    for truth, guess in pairs:
        want, got = seqeval(truth), seqeval(guess)
        right, there, guessed = right + len(want & got), there + len(want), guessed + len(got)
    precision, recall = right / max(guessed, 1), right / max(there, 1)
    return 2 * precision * recall / (precision + recall) if right else 0.0


SCHEMES = {  # with names that seqeval, which takes the first letter for the mark, cannot take for something else
    "BIO": ["O", "B-X", "I-X", "B-Y", "I-Y"],
    "IOBES": TAGS,
    "IO": ["O", "PER", "GPE"],
    "BIO and a stray one": ["O", "B-X", "I-X", "I-Y", "MISC"],
    "without O": ["B-X", "I-X", "B-Y", "I-Y", "MISC"],
    "runs": ["NOUN", "VERB", "DET"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_f1_of_spans_is_that_of_seqeval(scheme: str, data: st.DataObject) -> None:
    names = SCHEMES[scheme]
    tags = st.integers(0, len(names) - 1)
    pairs = data.draw(st.lists(st.lists(st.tuples(tags, tags), min_size=1, max_size=12), min_size=1, max_size=4))
    score, named = SpanScore(names), []
    for pair in pairs:
        truth, guess = ([row[side] for row in pair] for side in (0, 1))
        score.add(np.array(truth), np.array(guess))
        named.append(([names[k] for k in truth], [names[k] for k in guess]))
    assert score.f1 == pytest.approx(f1(named))
    if scheme != "runs" and scheme != "IO" and "MISC" not in names:
        assert score.spans(np.array(truth)) == seqeval(named[-1][0])


@given(st.lists(st.integers(0, len(TAGS) - 1), max_size=12))
def test_other_letters_for_the_same_marks(tags: list[int]) -> None:
    want = SpanScore(TAGS).spans(np.array(tags, int))
    for letters in ({"E": "L", "S": "U"}, {"S": "W"}, {"I": "M"}):
        names = [letters.get(tag[0], tag[0]) + tag[1:] for tag in TAGS]
        assert SpanScore(names).spans(np.array(tags, int)) == want
    bare = SpanScore(["O", "B", "I", "E", "S"])
    one = [k if k < 5 else k - 4 for k in tags]
    assert bare.spans(np.array(one, int)) == {(a, b, "") for a, b, _ in SpanScore(TAGS).spans(np.array(one, int))}


def test_what_is_outside_is_no_span() -> None:
    score = SpanScore(["O", "PER"])
    score.add(np.array([0, 0, 1, 0]), np.array([0, 0, 0, 0]))
    assert (score.right, score.there, score.guessed, score.f1) == (0, 1, 0, 0.0)
    # one label that is none of the scheme
    score = SpanScore(["B-X", "I-X", "O", "_"])
    assert score.spans(np.array([0, 1, 2, 2, 3, 3, 2, 1])) == {(0, 2, "X"), (4, 6, "_"), (7, 8, "X")}
    # a name that only looks like a mark
    score = SpanScore(["G1", "G2", "M", "S-phase"])
    assert score.spans(np.array([0, 3, 3, 1])) == {(0, 1, "G1"), (1, 3, "S-phase"), (3, 4, "G2")}


def test_labels_without_marks_make_runs() -> None:
    score = SpanScore(["rest", "move"])
    assert score.spans(np.array([0, 0, 1, 1, 0])) == {(0, 2, "rest"), (2, 4, "move"), (4, 5, "rest")}
    score.add(np.array([0, 0, 1, 1, 0]), np.array([0, 0, 1, 0, 0]))
    assert (score.right, score.there, score.guessed) == (1, 3, 3)
    assert score.f1 == pytest.approx(1 / 3)
