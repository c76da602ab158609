"""Series out of tables: which column is what, and the rows as numbers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..data.tables import MISSING, SUFFIXES, Table, exists, is_number, named, numbers
from .clock import ROW, Clock, Style, style_of, styles_of
from .config import ForecastConfig
from .frames import FILL, MENDS, Frames, Layout

_TIMES = ("time", "date", "datetime", "timestamp", "ds", "month", "year", "day", "hour")  # in small letters
_ROWS = 4096  # that are converted together
_LOOKED = 1000  # rows that say how times are written
_FIGURE = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:[., ']\d{3})+)(?:[.,]\d+)?")  # also 10,5 and 1.106,5
_TIME_LIKE = re.compile(r"[\w ,+]*\d[-/.:][\w ,+]*(?:[-/.:][\w ,+]+)*")


def read(
    config: ForecastConfig, paths: Sequence[str], layout: Layout | None = None, clock: Clock | None = None
) -> Frames:
    """All rows of tables; each file has series of its own. DataError: they are not what they should be."""
    frames: Frames | None = None
    first: Table | None = None
    for path in paths:
        place = exists(Path(path))
        if place.is_dir() or place.suffix.lower() not in SUFFIXES:
            kind = "a folder" if place.is_dir() else "no table"
            raise DataError(f"{place} is {kind}; name {', '.join(SUFFIXES)} files with a row per step in time")
        # The first table is opened before there are frames that count its bytes.
        if frames is None:
            layout = layout or layout_of(Table(place), config)
            frames = Frames(layout, config.fill, config.log, config.rows, clock, FILL if clock else MENDS)
        first = Table(place, frames.hash)
        assert layout is not None
        _rows(first, frames, layout, "" if len(paths) == 1 else place.stem)
    assert frames is not None
    return frames.close()


def _rows(table: Table, frames: Frames, layout: Layout, name: str) -> None:
    """The rows of one file."""
    at = [table.find(column, "", "numbers of the model") for column in layout.columns]
    time_at = table.find(layout.time, "", "the times") if layout.time else -1
    series_at = table.find(layout.series, "", "the name of the series") if layout.series else -1
    prefix = f"{name}/" if name else ""
    file, mend = str(table.path), "mend it" if frames.clock else "mend it, or choose other columns than {}"
    rows: list[list[float]] = []
    keys: list[int] = []
    for number, cells in table.rows():
        if series_at >= 0:
            name = prefix + cells[series_at].strip()
            if name == prefix:
                raise DataError(
                    f"{file}, row {number}, column {layout.series!r} is empty, expected the name of a series"
                )
        try:
            time = layout.style.read(cells[time_at]) if time_at >= 0 else float(number)
        except (ValueError, OverflowError):
            raise DataError(
                f"{file}, row {number}, column {layout.time!r} is {cells[time_at]!r}, {_expected(layout.style)}"
            ) from None
        try:
            values = [float(cells[k]) for k in at]
        except ValueError:
            place = f"{file}, row {number}"
            values = numbers([cells[k] for k in at], layout.columns, place, True, np.float64, mend).tolist()
        rows.append([number, time, *values])
        keys.append(frames.key(file, name))
        if len(rows) >= _ROWS:
            frames.add(rows, keys)
            rows, keys = [], []
    if rows:
        frames.add(rows, keys)


def _expected(style: Style) -> str:
    if style.kind in ("number", "unix"):
        return "expected a number, as in the rows before it"
    zone = ", with an offset from UTC" if style.kind == "zoned" else ""
    return f"expected a time like those of the training or of the first row ({style.text(0)}{zone})"


def layout_of(table: Table, config: ForecastConfig) -> Layout:
    """Which column is what. DataError: there is no column of numbers, or none of a name that was given."""
    sample = table.peek(_LOOKED)
    if not sample:
        raise DataError(f"{table.path} has no rows after the names of its columns; name a file with rows")
    cells = sample[0]
    for column, cell in zip(table.columns, cells, strict=False) if table.header else ():
        if _is_date(column, config.time_format) and _is_date(cell, config.time_format):
            raise DataError(f"{table.path} has no names of columns, row 1 is {named(table.columns)}; put them there")
    time, style = _time(table, sample, config)
    if config.series:
        table.find(config.series, "--series", "the name of the series")
    taken = {time, config.series} - {""}
    given = {"--target": config.target, "--covariate": config.covariate, "--known": config.known}
    rest = config.covariate == ("all",) and "all" not in table.columns
    if rest:
        given["--covariate"] = ()
    for option, names in given.items():
        for name in names:
            table.find(name, option, "numbers")
            if name in taken:
                raise DataError(f"{option} {name}: this column is named twice, or is that of the times or the series")
            taken.add(name)
    numeric = [name for name, cell in zip(table.columns, cells, strict=False) if is_number(cell) and name not in taken]
    targets = config.target
    if not targets:
        if not numeric:
            comma = next((cell for cell in cells if _FIGURE.fullmatch(cell.strip())), "")
            mend = f"write {comma} with a decimal point and no other mark" if comma else "say which with --target"
            raise DataError(f"{table.path} has no column of numbers to forecast; it has {named(table.columns)}; {mend}")
        targets = (numeric[-1],)
    covariates = tuple(name for name in numeric if name not in targets) if rest else given["--covariate"]
    return Layout(style, time, config.series, targets, covariates, config.known)


def _time(table: Table, sample: Sequence[Sequence[str]], config: ForecastConfig) -> tuple[str, Style]:
    """The column of times and its style. DataError: one that seems to be it cannot be read."""
    if config.time == ROW and ROW not in table.columns:
        return "", Style(ROW)
    columns = {
        name: [row[k] for row in sample if k < len(row) and row[k].strip().lower() not in MISSING]
        for k, name in enumerate(table.columns)
    }
    if config.time:
        table.find(config.time, "--time", "the times")
        return config.time, _style(table, config.time, columns[config.time], config.time_format)
    used = {config.series, *config.target, *config.covariate, *config.known}
    free = {name: cells for name, cells in columns.items() if cells and name not in used}
    for name, cells in free.items():
        if _is_date(cells[0], config.time_format):
            return name, _style(table, name, cells, config.time_format)
    words = [name for name, cells in free.items() if not _most(cells, _is_figure)]
    usual = [name for name in free if name.lower() in _TIMES]
    like = [name for name in words if _most(free[name], _TIME_LIKE.fullmatch)]
    days = [name for name, cells in free.items() if [style.kind for style in _of_digits(cells)] == ["date"]]
    alone = [name for name in words if len(words) == 1 < len(free[name]) == len(set(free[name]))]
    if likely := [*usual, *like, *days, *alone]:
        return likely[0], _style(table, likely[0], free[likely[0]], config.time_format)
    if config.time_format:
        raise DataError(f"{table.path} has no column with times like {config.time_format}; name it with --time")
    return "", Style(ROW)


def _style(table: Table, name: str, cells: Sequence[str], form: str) -> Style:
    """How the times of a column are written. DataError: it cannot be told, or they are none."""
    first = cells[0] if cells else ""
    try:
        style = style_of(first, form)
        found = _of_digits(cells) if style.kind == "number" else []
        return found[0] if len(found) == 1 else style
    except (ValueError, OverflowError):
        found = [] if form else styles_of(cells)
    if len(found) == 1:
        return found[0]
    column = f"{table.path}, column {name!r} begins with {first!r}"
    row = "or take the rows as steps with --time row"
    if found:
        each = " or ".join(f"--time-format {style.form!r}" for style in found)
        raise DataError(
            f"{column}, which can be read in several ways; say which with --time {name!r} and {each}, {row}"
        )
    expected = f"in the format {form}" if form else "such as 2024-01-31 or 5.25"
    raise DataError(
        f"{column}, expected a time {expected}; say how times are written with --time {name!r} and --time-format, such "
        f"as '%d.%m.%Y %H:%M', {row}: there are none"
    )


def _of_digits(cells: Sequence[str]) -> list[Style]:
    """The styles of times that are whole numbers, such as 20240131."""
    return styles_of(cells) if all(cell.strip().isdigit() for cell in cells) else []


def _most(cells: Sequence[str], like: Callable[[str], Any]) -> bool:
    """Whether most of them are so."""
    return 2 * sum(bool(like(cell.strip())) for cell in cells) > len(cells)


def _is_figure(cell: str) -> bool:
    """Whether it is a number, be it with a comma."""
    return is_number(cell) or _FIGURE.fullmatch(cell) is not None


def _is_date(cell: str, form: str) -> bool:
    """Whether it is a time as 2024-01-31 is, or in the format; not a number."""
    try:
        return style_of(cell, form).kind != "number"
    except (ValueError, OverflowError):
        return False
