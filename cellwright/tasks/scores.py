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

    Labels B-X I-X L-X E-X U-X S-X and O are read as the CoNLL scorer reads them. Other labels have no beginnings: a
    span is then a run of one label.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._tagged = all(name == "O" or name[:2] in _MARKS for name in names)
        self.right = self.there = self.guessed = 0

    def add(self, truth: NDArray[np.int64], guess: NDArray[np.int64]) -> None:
        """The labels of one sequence, [T] each."""
        want, got = self.spans(truth), self.spans(guess)
        self.right += len(want & got)
        self.there += len(want)
        self.guessed += len(got)

    @property
    def f1(self) -> float:
        """2 right / (there + guessed)."""
        return 2 * self.right / max(self.there + self.guessed, 1)

    def spans(self, labels: NDArray[np.int64]) -> set[tuple[int, int, str]]:
        """Beginning, end (not included) and type of each span."""
        found, begin, kind, last = set(), 0, "", ""
        for t, name in enumerate([*(self._names[k] for k in labels), "O" if self._tagged else ""]):
            mark, here = (name[0], name[2:]) if self._tagged else ("I", name)
            inside = here == kind and mark not in "BSUO" and last not in "ELSU"
            if not inside:
                if kind:
                    found.add((begin, t, kind))
                begin, kind = t, "" if mark == "O" else here
            last = mark if self._tagged else "I"
        return found


_MARKS = ("B-", "I-", "L-", "E-", "U-", "S-")
