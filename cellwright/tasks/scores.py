"""How good labels are: accuracy, F1 per class and their mean, the confusion matrix, F1 of spans."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Confusion:
    """How often each class [K] was taken for each other: `counts[truth, guess]`."""

    def __init__(self, classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)

    def add(self, truth: NDArray[np.int64], guess: NDArray[np.int64]) -> None:
        """More pairs, [N] each."""
        classes = len(self.counts)
        self.counts += np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)

    @property
    def accuracy(self) -> float:
        """The share of the right ones."""
        return float(self.counts.trace() / max(self.counts.sum(), 1))

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 P R / (P + R) = 2 TP / (2 TP + FP + FN) per class [K]; NaN where there is none, not even a guess."""
        both = self.counts.sum(0) + self.counts.sum(1)
        return np.where(both, 2 * self.counts.diagonal() / np.maximum(both, 1), np.nan)

    @property
    def macro_f1(self) -> float:
        """The mean of F1 over the classes that are there or guessed: rare classes count as much as frequent ones."""
        return float(np.nanmean(self.f1)) if self.counts.any() else 0.0

    def table(self, names: Sequence[str]) -> str:
        """One line per class: how many there are, precision, recall, F1, and what it is most often taken for."""
        width = max(5, *(len(name) for name in names))
        rows = [f"{'class':{width}}    count  precision  recall      F1  most often taken for"]
        for k, name in enumerate(names):
            right, there, guessed = self.counts[k, k], self.counts[k].sum(), self.counts[:, k].sum()
            if not there and not guessed:
                continue
            wrong = self.counts[k].copy()
            wrong[k] = 0
            taken = f"{names[int(wrong.argmax())]} ({wrong.max()})" if wrong.any() else ""
            numbers = f"{right / max(guessed, 1):9.4f} {right / max(there, 1):7.4f} {self.f1[k]:7.4f}"
            rows.append(f"{name:{width}} {there:8,}  {numbers}  {taken}".rstrip())
        return "\n".join(rows)


class SpanScore:
    """F1 of whole spans, as in the CoNLL tasks: right is a span with the right beginning, end and type.

    `O` is outside of every span, and runs of it are none. Other labels are read as the CoNLL scorer and seqeval do:

        IOB2 (BIO)       B-X begins a span of type X, I-X goes on
        IOB1             I-X also begins one: after O, or after another type
        IOBES, BILOU     E-X or L-X ends one, S-X or U-X is a whole one; so in BMES and BMEWO, where M-X goes on
        IO               a label without a mark: a span is a run of it

    A stray label without a mark, such as `_`, is a type of its own. Marks are read where `O` is a label, or where most
    labels have one: `S-phase` between `G1` and `G2` is a name. Marks may be without a type, if B and I or M are.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._read = _read(names)
        self.right = self.there = self.guessed = 0

    def add(self, truth: NDArray[np.int64], guess: NDArray[np.int64]) -> None:
        """The labels of one sequence, [T] each."""
        want, got = self.spans(truth), self.spans(guess)
        self.right += len(want & got)
        self.there += len(want)
        self.guessed += len(got)

    @property
    def f1(self) -> float:
        """2 right / (there + guessed); 0 where there is none, not even a guess."""
        return 2 * self.right / max(self.there + self.guessed, 1)

    def spans(self, labels: NDArray[np.int64]) -> set[tuple[int, int, str]]:
        """Beginning, end (not included) and type of each span."""
        found, begin, kind, last = set(), 0, "", "O"
        for t, (mark, here) in enumerate([*(self._read[k] for k in labels), ("O", "")]):
            inside = last in "BIM" and mark in "IMEL" and here == kind
            if not inside:
                if last != "O":
                    found.add((begin, t, kind))
                begin, kind = t, here
            last = mark
        return found


_MARKS = "BIMELSUW"


def _read(names: Sequence[str]) -> list[tuple[str, str]]:
    """The mark and the type of each label; a type of its own goes on as long as it lasts, like one marked I."""
    alone = "B" in names and bool({"I", "M"} & set(names))
    marked = [name[:1] in set(_MARKS) and (name[1:2] == "-" or (alone and len(name) == 1)) for name in names]
    if "O" not in names and 2 * sum(marked) <= len(names):
        marked = [False] * len(names)
    return [
        ("O", "") if name == "O" else (name[0], name[2:]) if has else ("I", name)
        for name, has in zip(names, marked, strict=True)
    ]
