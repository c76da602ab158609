"""Times: how they are written, in which steps they go, and where in the day, week or year they are.

A time is a number: seconds since 1970 for dates, in UTC where a zone is given; itself where it is a plain number.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DATE = re.compile(
    r"(\d{4})([-/.])(\d{1,2})(?:[-/.](\d{1,2})(?:([ T])(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,6})?\d*)?)?)?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DAY = 86400.0
_YEAR = 365.2425 * _DAY
CYCLES = {"hour": 3600.0, "day": _DAY, "week": 7 * _DAY, "year": _YEAR}  # their lengths in seconds
_DAYS = (  # how days are written, where they are not written as in _DATE; also with other marks: / . and a space
    *("%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%m-%Y"),
    *("%d-%b-%Y", "%d-%b-%y", "%d-%B-%Y", "%b-%Y", "%b-%y", "%b-%d", "%B-%Y", "%B-%y", "%B-%d", "%Y-%b", "%Y-%b-%d"),
    "%Y-%m-%d",  # with AM and PM
)
_COMMAS = ("%b %d, %Y", "%B %d, %Y")
_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%H.%M", "%H.%M.%S", "%I:%M %p", "%I:%M:%S %p", "%I %p")
_DIGITS = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
UNIX = {10: 1.0, 13: 1e3}  # digits of a number of seconds or of milliseconds since 1970, from 2001 to 2286
_JITTER = 0.1  # of a step: how far two times may be from a whole number of steps
ROW = "row"


@dataclass(frozen=True)
class Style:
    """How times are written. `kind`: date, zoned (with an offset from UTC), unix (since 1970), number, or row (not at
    all)."""

    kind: str
    form: str = ""  # as in strftime; of unix, how many make a second

    @property
    def dates(self) -> bool:
        """Whether times are seconds since 1970."""
        return self.kind in ("date", "zoned", "unix")

    def read(self, cell: str) -> float:
        """A time. ValueError: it is none, or of another kind."""
        if self.kind in ("number", "unix"):
            value = float(cell)
            if not np.isfinite(value):
                raise ValueError(cell)
            return value / float(self.form) if self.form else value
        kind, value, _ = _parsed(cell, self.form if "%" in self.form and not _DATE.fullmatch(cell.strip()) else "")
        if kind != self.kind:
            raise ValueError(cell)
        return value

    def text(self, time: float) -> str:
        """As it stands in a file; in UTC where there are zones."""
        if self.kind in ("number", ROW):
            return f"{time:.10g}"
        if self.kind == "unix":
            return f"{time * float(self.form):.16g}"
        return (_EPOCH + timedelta(seconds=round(time, 6))).strftime(self.form)


def style_of(cell: str, form: str = "") -> Style:
    """The style of a time, given the format or not. ValueError: it is no time."""
    if not form:
        try:
            float(cell)
        except ValueError:
            pass
        else:
            return Style("number")
    kind, _, found = _parsed(cell, form)
    return Style(kind, found)


def styles_of(cells: Sequence[str]) -> list[Style]:
    """All styles in which each of these cells is a time: several, where no day says which number is that of the month.

    These are other styles than the one of 2024-01-31. Whole numbers may be dates or times since 1970 by their digits.
    """
    cells = [cell.strip() for cell in cells]
    if not cells or not any(char.isdigit() for char in cells[0]):
        return []
    if all(cell.isdigit() for cell in cells):
        digits = {len(cell) for cell in cells}
        if len(digits) == 1 and (per := UNIX.get(digits.pop())):
            return [Style("unix", f"{per:g}")]
        forms: Sequence[str] = _DIGITS
    else:
        mark = next((mark for mark in "-/. " if mark in cells[0]), "-")
        days = [day.replace("-", mark) for day in _DAYS] + [*_COMMAS, _DIGITS[0]]
        forms = [*(f"{day}{gap}{clock}" for day in days for clock in _CLOCKS for gap in (" ", "T", ", ")), *days]
    found: dict[Any, Style] = {}
    for form in forms:
        try:
            moments = tuple(datetime.strptime(cell, form) for cell in cells)
        except ValueError:
            continue
        # strptime takes fewer digits, too, and any four are a year.
        exact = all(cell[:8].isdigit() and m.strftime(form) == cell for cell, m in zip(cells, moments, strict=True))
        if not form.startswith(_DIGITS[0]) or (exact and all(1900 <= moment.year < 2100 for moment in moments)):
            found.setdefault((moments, form.replace("%B", "%b")), Style("date", form))  # May is both
    return list(found.values())


def _parsed(cell: str, form: str) -> tuple[str, float, str]:
    """Kind, seconds and format."""
    cell = cell.strip()
    if form:
        moment = datetime.strptime(cell, form)
    else:
        match = _DATE.fullmatch(cell)
        if match is None:
            raise ValueError(cell)
        year, mark, month, day, gap, hour, minute, second, fraction, zone = match.groups()
        moment = datetime(int(year), int(month), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
        moment += timedelta(microseconds=round(float(fraction or 0) * 1e6))
        if zone:
            sign = -1 if zone[0] == "-" else 1
            offset = 0 if zone == "Z" else sign * (int(zone[1:3]) * 60 + int(zone[-2:]))
            moment = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
        parts = [f"%Y{mark}%m", f"{mark}%d" if day else "", f"{gap}%H:%M" if hour else "", ":%S" if second else ""]
        form = "".join(parts) + (".%f" if fraction else "") + ("Z" if zone else "")
    kind = "date" if moment.tzinfo is None else "zoned"
    moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    return kind, (moment - _EPOCH).total_seconds(), form


@dataclass(frozen=True)
class Clock:
    """In which steps times go: `step` in seconds, in numbers, or in months; `ends`: each on the last day of a month."""

    dates: bool
    step: float
    months: bool = False
    ends: bool = False

    @classmethod
    def learn(cls, times: NDArray[np.float64], dates: bool) -> "Clock":
        """The steps of times [n]. ValueError: no two of them differ."""
        steps = np.diff(times)
        steps = steps[steps > 0]
        if not len(steps):
            raise ValueError("no two times differ")
        usual = float(np.median(steps))
        if dates and usual >= 27.5 * _DAY:
            months = _months(times)
            into, left = times - _seconds(months), _seconds(months + 1) - times
            if (into == into[0]).all():
                return cls(True, max(1, round(usual / (_YEAR / 12))), months=True)
            if (left == left[0]).all():
                return cls(True, max(1, round(usual / (_YEAR / 12))), months=True, ends=True)
        # The median of an even number of steps may be none of them.
        low = float(np.sort(steps)[(len(steps) - 1) // 2])
        return cls(dates, usual if usual - low <= _JITTER * low else low)

    def steps(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Steps from each of the times [n] to the next, [n - 1]: whole numbers where they are regular, else NaN."""
        if self.months:
            found = np.diff(_months(times).astype("int64")) / self.step
            right = self.at(times[:-1], np.round(found)) == times[1:]
            return np.where(right & (found == np.round(found)), found, np.nan)
        found = np.diff(times) / self.step
        whole = np.round(found)
        right = (np.abs(found - whole) <= _JITTER) & ((whole != 0) | (found == 0))
        return np.where(right, whole, np.nan)

    def at(self, start: Any, count: Any) -> NDArray[np.float64]:
        """The times so many steps after others; shapes as numpy has them."""
        start, count = np.asarray(start, np.float64), np.asarray(count)
        if not self.months:
            return np.asarray(start + count * self.step)
        first = _months(start)
        month = first + (count * self.step).astype("int64").astype("timedelta64[M]")
        begins, ends = _seconds(month), _seconds(month + 1)
        if self.ends:
            return np.asarray(ends - (_seconds(first + 1) - start))
        into = start - _seconds(first)
        return np.asarray(np.minimum(begins + into, ends - _DAY + into % _DAY))

    @property
    def tolerance(self) -> float:
        """How far a time may be from where it should be."""
        return 0.0 if self.months else _JITTER * self.step

    @property
    def season(self) -> int:
        """Steps after which things usually repeat; 1: nothing is known."""
        if self.months:
            return int(12 // self.step) if 12 % self.step == 0 else 1
        if not self.dates:
            return 1
        for cycle, least, most in ((_DAY, 2, 288), (3600.0, 2, 288), (60.0, 2, 288), (7 * _DAY, 2, 7), (_YEAR, 20, 60)):
            if least <= (steps := round(cycle / self.step, 2)) <= most and (steps == int(steps) or cycle == _YEAR):
                return int(steps)
        return 1

    def cycles(self, times: float) -> tuple[str, ...]:
        """Those that a step is a small part of, and that come twice or more in a span of so many steps."""
        if not self.dates:
            return ()
        step = self.step * (_YEAR / 12 if self.months else 1)
        return tuple(name for name, length in CYCLES.items() if 2 * step < length <= step * times / 2)

    def words(self) -> str:
        """The step in words."""
        if self.months:
            return {1: "month", 3: "quarter", 12: "year"}.get(int(self.step), f"{self.step:g} months")
        if not self.dates:
            return f"step of {self.step:g}"
        for name, length in (("week", 7 * _DAY), ("day", _DAY), ("hour", 3600.0), ("minute", 60.0)):
            if self.step % length == 0:
                count = self.step / length
                return name if count == 1 else f"{count:g} {name}s"
        return f"{self.step:g} seconds"

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `Clock(**data)` reads it."""
        return asdict(self)


def phases(times: NDArray[np.float64], cycles: tuple[str, ...]) -> NDArray[np.float32]:
    """Where times [...] are in their cycles, as points of a circle [..., 2 * cycles]: sine and cosine of each."""
    lengths = np.array([CYCLES[name] for name in cycles])
    angles = (2 * np.pi * (times[..., None] / lengths % 1)).astype(np.float32)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(*times.shape, 2 * len(cycles))


def _months(times: NDArray[np.float64]) -> NDArray[Any]:
    """The months that times are in."""
    return np.floor(times).astype("int64").astype("datetime64[s]").astype("datetime64[M]")


def _seconds(months: NDArray[Any]) -> NDArray[np.float64]:
    """Where months begin."""
    return months.astype("datetime64[s]").astype("int64").astype(np.float64)
