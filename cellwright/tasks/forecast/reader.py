"""Series out of tables: which column is what, and the rows as numbers."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..data.tables import SUFFIXES, Table, exists, is_number, named, numbers
from .clock import ROW, Clock, Style, style_of
from .config import ForecastConfig
from .frames import Frames, Layout

_TIMES = ("time", "date", "datetime", "timestamp", "ds", "month", "year", "day", "hour")  # in small letters
_ROWS = 4096  # that are converted together


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
            frames = Frames(layout, config.fill, config.log, config.rows, clock)
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
    file, mend = str(table.path), "mend it, or choose other columns than {}"
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
    if style.kind == "number":
        return "expected a number, as in the rows before it"
    zone = ", with an offset from UTC" if style.kind == "zoned" else ""
    return f"expected a time like those of the training or of the first row ({style.text(0)}{zone})"


def layout_of(table: Table, config: ForecastConfig) -> Layout:
    """Which column is what. DataError: there is no column of numbers, or none of a name that was given."""
    cells = table.peek()
    if not cells:
        raise DataError(f"{table.path} has no rows after the names of its columns; name a file with rows")
    for column in table.columns if table.header else ():
        if _is_date(column, config.time_format) and _is_date(cells[table.columns.index(column)], config.time_format):
            raise DataError(f"{table.path} has no names of columns, row 1 is {named(table.columns)}; put them there")
    time, style = _time(table, cells, config)
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
            raise DataError(
                f"{table.path} has no column of numbers to forecast; it has {named(table.columns)}; say which with "
                f"--target"
            )
        targets = (numeric[-1],)
    covariates = tuple(name for name in numeric if name not in targets) if rest else given["--covariate"]
    return Layout(style, time, config.series, targets, covariates, config.known)


def _time(table: Table, cells: Sequence[str], config: ForecastConfig) -> tuple[str, Style]:
    """The column of times and its style."""
    if config.time == ROW and ROW not in table.columns:
        return "", Style(ROW)
    if config.time:
        at = table.find(config.time, "--time", "the times")
        try:
            return config.time, style_of(cells[at], config.time_format)
        except (ValueError, OverflowError):
            raise _no_time(table, config.time, cells[at], config.time_format) from None
    used = {config.series, *config.target, *config.covariate, *config.known}
    free = [(name, cell) for name, cell in zip(table.columns, cells, strict=False) if name not in used]
    for name, cell in free:
        if _is_date(cell, config.time_format):
            return name, style_of(cell, config.time_format)
    for name, cell in free:
        if name.lower() in _TIMES:
            try:
                return name, style_of(cell, config.time_format)
            except (ValueError, OverflowError):
                raise _no_time(table, name, cell, config.time_format) from None
    if config.time_format:
        raise DataError(f"{table.path} has no column with times like {config.time_format}; name it with --time")
    return "", Style(ROW)


def _no_time(table: Table, name: str, cell: str, form: str) -> DataError:
    expected = f"in the format {form}" if form else "such as 2024-01-31 or 5.25"
    return DataError(
        f"{table.path}, column {name!r} begins with {cell!r}, expected a time {expected}; say how times are written "
        f"with --time-format, such as %d.%m.%Y, or --time row: there are none"
    )


def _is_date(cell: str, form: str) -> bool:
    try:
        return style_of(cell, form).kind != "number" and not math.isnan(style_of(cell, form).read(cell))
    except (ValueError, OverflowError):
        return False
