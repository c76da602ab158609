"""Series on the disk: rows as they were read, then a row for every step of time.

Layout      which columns were what, and how times are written
Frames      all series, each from its first step to its last one; after that, the steps of the future that are known
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..data.columns import filled
from ..data.ragged import Ragged
from ..data.tables import LARGEST
from .clock import ROW, Clock, Style

_BLOCK = 2**16  # rows that are in memory at once
_FIRST = 4096  # rows that say what the step is
_LARGEST = 10  # steps per row, with the gaps: more of them is a time that is wrong
FILL = {"fill": "choose --fill mean, previous or zero"}  # what can be done about data, by what it is about
MENDS = {
    **FILL,
    "time": "take the rows as steps with --time row",
    "series": "name the column that tells series apart with --series",
    "log": "leave --log away",
}


@dataclass(frozen=True)
class Layout:
    """Names of columns; `time` and `series` are empty where there are none."""

    style: Style
    time: str
    series: str
    targets: tuple[str, ...]
    covariates: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of numbers, in the order in which they are kept."""
        return (*self.targets, *self.covariates, *self.known)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        style = {"kind": self.style.kind, "form": self.style.form}
        return {"style": style} | {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "style"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Layout":
        """What `to_json` gave. KeyError, TypeError: it is something else."""
        names = {k: tuple(map(str, data[k])) for k in ("targets", "covariates", "known")}
        return cls(Style(**data["style"]), str(data["time"]), str(data["series"]), **names)


class Frames:
    """`add` rows in the order of time, `close`, and there is a row for every step.

    `fill`: what stands for missing numbers; empty: they are an error. `limit`: rows of a series; 0: all of them.
    `mends`: what errors say can be done, as in MENDS.
    A row of `values` has the columns of the layout, and then for each target 1, or 0 where it was missing.
    """

    def __init__(
        self,
        layout: Layout,
        fill: str,
        log: bool,
        limit: int = 0,
        clock: Clock | None = None,
        mends: Mapping[str, str] = MENDS,
    ) -> None:
        self.layout, self.clock, self._mends = layout, clock, mends
        self._fill, self._log, self._limit = fill, log, limit
        self.targets, self.width = len(layout.targets), len(layout.columns)
        self.keys: dict[tuple[str, str], int] = {}  # file and name of each series
        self._raw = Ragged(np.float64, 2 + self.width)  # row of the file, time, numbers
        self._ids = array("i")
        self._digest = hashlib.sha256()
        self.values = Ragged(np.float64, self.width + self.targets)

    @property
    def hash(self) -> Any:
        """What the bytes that are read are added to."""
        return self._digest

    @property
    def digest(self) -> str:
        """SHA-256 of all that was read."""
        return self._digest.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "series": len(self.keys), "steps": int(self.history.sum())}

    def key(self, file: str, name: str) -> int:
        """The number of a series."""
        return self.keys.setdefault((file, name), len(self.keys))

    def add(self, rows: Any, keys: Sequence[int]) -> None:
        """Rows [n, 2 + F]: the row of the file, the time, the numbers with NaN for missing ones; and their series."""
        self._raw.append(np.asarray(rows, np.float64).reshape(len(keys), -1))
        self._ids.extend(keys)

    def close(self) -> "Frames":
        """No more rows. DataError: times that are not in order, or what is missing and not to be filled."""
        self._raw.close()
        ids = np.frombuffer(self._ids, np.int32)
        counts = np.bincount(ids, minlength=len(self.keys)) if len(ids) else np.zeros(0, np.int64)
        # Rows of a series stand together, or the series take turns; then they are put in order.
        order = None if (np.diff(ids) >= 0).all() else np.argsort(ids, kind="stable")
        ends = np.concatenate([[0], np.cumsum(counts)])
        self.history = np.zeros(len(counts), np.int64)  # steps up to the last one with a target
        self.starts, self.lasts = (
            np.zeros(len(counts)),
            np.zeros(len(counts)),
        )  # times of the first and the last of them
        self.names = [name for _, name in self.keys]
        for s in range(len(counts)):
            self._series(s, order, int(ends[s]), int(ends[s + 1]))
        self.values.close()
        del self._raw
        if self.clock is None and len(counts):
            raise DataError(f"{next(iter(self.keys))[0]} has one row per series, expected many steps in time")
        return self

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each series begins among the rows of all, and where the last one ends, [S + 1]."""
        return self.values.ends

    def _series(self, s: int, order: NDArray[np.int64] | None, first: int, end: int) -> None:
        """A row for every step of one series."""

        def rows(a: int, b: int) -> NDArray[np.float64]:
            return self._raw.rows(slice(a, b) if order is None else order[a:b])

        last = self._last(rows, first, end)
        if self.clock is None and end - first > 1:
            self.clock = self._learned(s, rows(first, min(end, first + _FIRST))[:, 1])
        steps, before, carry = 0, None, np.full((1, self.width), np.nan)
        self.values.append(np.empty((0, self.width + self.targets)))
        for a in range(first, end, _BLOCK):
            block = rows(a, min(end, a + _BLOCK))
            taken = block[:, 1] if before is None else np.concatenate([[before], block[:, 1]])
            gaps = self._gaps(s, block, taken)
            past = max(0, min(last - a, len(block)))
            self._check(s, block[:past])
            at = np.cumsum(gaps if before is not None else np.concatenate([[1], gaps])).astype(np.int64) - 1
            if steps + at[-1] > _LARGEST * (end - first) + 1000:
                raise DataError(f"{self._place(s, block[-1])}: {at[-1]:,} steps after so few rows; mend the times")
            grid = np.full((at[-1] + 1, self.width), np.nan)
            grid[at] = block[:, 2:]
            there = ~np.isnan(grid[:, : self.targets])
            upto = at[past - 1] + 1 if past else 0
            grid[:upto] = filled(np.concatenate([carry, grid[:upto]]), self._fill)[1:]
            self.values.extend(np.concatenate([grid, there], 1))
            if past:
                self.history[s], self.lasts[s] = steps + upto, block[past - 1, 1]
                carry = grid[upto - 1 : upto]
            if before is None:
                self.starts[s] = block[0, 1]
            steps, before = steps + int(at[-1]) + 1, block[-1, 1]
        if self._limit and self._limit < self.history[s]:
            self.history[s] = self._limit
            assert self.clock is not None
            self.lasts[s] = self.clock.at(self.starts[s], self._limit - 1)

    def _last(self, rows: Any, first: int, end: int) -> int:
        """Where the rows with a target end: those after it are the future."""
        for b in range(end, first, -_BLOCK):
            there = (~np.isnan(rows(max(first, b - _BLOCK), b)[:, 2 : 2 + self.targets])).any(1)
            if there.any():
                return max(first, b - _BLOCK) + int(np.flatnonzero(there)[-1]) + 1
        return first

    def _learned(self, s: int, times: NDArray[np.float64]) -> Clock:
        if self.layout.style.kind == ROW:
            return Clock(False, 1.0)
        try:
            return Clock.learn(times, self.layout.style.dates)
        except ValueError:
            text = self.layout.style.text(times[0])
            raise DataError(
                f"{self._where(s)}: the times never grow, the first one is {text}; "
                + self._mend("sort the rows by time", "series")
            ) from None

    def _gaps(self, s: int, block: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Steps between the times of neighbouring rows."""
        if len(times) < 2:
            return np.empty(0)
        assert self.clock is not None
        steps = self.clock.steps(times)
        wrong = np.isnan(steps) | (steps < 1) | ((steps > 1) & (not self._fill))
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            old, new = (self.layout.style.text(times[i]) for i in (k, k + 1))
            place = self._place(s, block[k + 1 - (len(times) - len(block))])
            if times[k + 1] == times[k]:
                words = f"is at {new}, as the row before it; {self._mend('leave one of them out', 'series')}"
            elif times[k + 1] < times[k]:
                words = f"is at {new}, before {old} of the row before it; sort the rows by time"
            elif np.isnan(steps[k]):
                words = (
                    f"is at {new}, which is no whole number of steps ({self.clock.words()}) after {old}; "
                    + self._mend("mend the times", "time")
                )
            else:
                words = (
                    f"is at {new}: {int(steps[k]) - 1} steps ({self.clock.words()}) are missing after {old}; "
                    + self._mend("add them", "fill", "time")
                )
            raise DataError(f"{place} {words}")
        return steps

    def _check(self, s: int, block: NDArray[np.float64]) -> None:
        """DataError: numbers that are missing or infinite, or without a logarithm."""
        values, names = block[:, 2:], self.layout.columns

        def fail(wrong: NDArray[np.bool_], words: str) -> None:
            k, column = (int(i[0]) for i in np.nonzero(wrong))
            raise DataError(f"{self._place(s, block[k])}, column {names[column]!r} {words.format(values[k, column])}")

        large = np.abs(values) > LARGEST
        if large.any():
            fail(large, f"is {{}}, expected a finite number up to {LARGEST:.1e}")
        if not self._fill and np.isnan(values).any():
            fail(np.isnan(values), f"has no value; {self._mend('fill it in', 'fill')}")
        targets = values[:, : self.targets]
        if self._log and ((targets <= 0).any() or (self._fill == "zero" and np.isnan(targets).any())):
            fail(~(targets > 0), f"is {{}}, which has no logarithm; {self._mend('mend it', 'log')}")

    def _mend(self, first: str, *about: str) -> str:
        """What can be done: the first of them always."""
        *some, last = first, *(self._mends[name] for name in about if name in self._mends)
        return ", ".join(some) + (", or " if some else "") + last

    def _where(self, s: int) -> str:
        file, name = list(self.keys)[s]
        return f"{file}, series {name!r}" if self.layout.series else file

    def _place(self, s: int, row: NDArray[np.float64]) -> str:
        file, name = list(self.keys)[s]
        return f"{file}, row {int(row[0])}" + (f" (series {name!r})" if self.layout.series else "")

    def blocks(self, s: int, end: int, before: int = 0) -> Iterator[NDArray[np.float64]]:
        """The first `end` steps of a series in pieces, each with so many rows of the one before it."""
        for a in range(0, end, _BLOCK):
            yield self.values[s][max(0, a - before) : min(end, a + _BLOCK)]
