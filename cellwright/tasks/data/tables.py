"""Tables: CSV, TSV and JSON Lines, row by row, with errors that name the row and the column."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": ""}  # "": JSON Lines
LARGEST = float(np.finfo(np.float32).max)  # a number of larger size is taken for a mistake
MISSING = ("", "na", "nan", "null", "none", "?")  # in small letters: a value that is not there
_LONGEST = 2**27  # characters of one cell: the csv module's own limit is too low for texts
_LOOKED = 50  # lines that say what separates cells
_TOLD = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # the first line of what Excel is to open
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what a file in it begins with
CONVERT = "is UTF-16, as Excel's Unicode text is; convert it first, for example with `iconv -f utf-16 -t utf-8`"


def lines(path: Path, digest: Any = None) -> Iterator[str]:
    """The lines of a UTF-8 file, each added to `digest`. DataError: it cannot be read, or is not UTF-8."""
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if digest is not None:
                    digest.update(raw)
                if number == 1 and raw.startswith(UTF16):
                    raise DataError(f"{path} {CONVERT}")
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number} is not UTF-8: byte 0x{raw[error.start]:02x}; convert the file first, "
                        f"for example with `iconv -f latin1 -t utf-8`"
                    ) from None
                if "\0" in line:
                    raise DataError(f"{path}, line {number} has a NUL byte: the file is not text; name a text file")
                yield line.removeprefix("\ufeff") if number == 1 else line
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def exists(path: Path) -> Path:
    """The same path. DataError: there is nothing."""
    if not path.exists():
        raise DataError(f"{path} does not exist; name a file or a folder")
    return path


class Table:
    """The rows of one file: `columns` are known at once, `rows` is read while it is asked for.

    A first row of which more than half are numbers is no header, unless `label` or another name that is `asked` for
    is in it; the columns are then called 1, 2, ... So it is, too, if all that is `asked` for are numbers, and not all
    of them are in it. Cells of a .csv may have semicolons or tabs between them: what cuts most of the first lines
    into equally many cells, or what a first line `sep=;` says. Quotes of a .tsv are quotes only where they are around
    a cell; a cell of it is a part of one line. `lists`: values of JSON Lines may be lists; the cell is their JSON.
    `listed`: the columns that begin with one.
    """

    listed: tuple[str, ...] = ()

    def __init__(self, path: Path, digest: Any = None, asked: Sequence[str] = (), lists: bool = False) -> None:
        self.path = path
        separator = SUFFIXES[path.suffix.lower()]
        self._rows = self._delimited(separator, digest) if separator else self._json(digest, lists)
        first = next(self._rows, None)
        if first is None:
            raise DataError(f"{path} is empty; name a file with rows")
        number, cells = first
        names = tuple(cell.strip() for cell in cells) if separator else self._names
        numbers = sum(_number(cell) is not None for cell in cells)
        counted = {name for name in asked if name.isdigit()}
        wanted = {name for name in asked if name} - counted
        bare = bool(counted) and not wanted and not counted <= set(names)
        there = not {"label", *wanted}.isdisjoint(names)
        self.header = not separator or there or (2 * numbers <= len(cells) and not bare)
        self.columns = names if self.header else tuple(map(str, _counted(cells)))
        self._ahead = [] if self.header and separator else [(number, cells)]
        if len(set(self.columns)) < len(self.columns):
            twice = next(c for c in self.columns if self.columns.count(c) > 1)
            raise DataError(f"{path} has the column {twice!r} twice; give every column a name of its own")

    def peek(self, count: int = 1) -> list[list[str]]:
        """The cells of the first rows, as far as there are so many."""
        self._ahead += islice(self._rows, max(0, count - len(self._ahead)))
        return [cells for _, cells in self._ahead[:count]]

    def rows(self, ragged: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Number and cells of each row; the first line of a file is row 1. DataError: more or fewer cells than columns.

        `ragged`: rows may be shorter.
        """
        for number, cells in chain(self._ahead, self._rows):
            if len(cells) != len(self.columns) and not (ragged and len(cells) < len(self.columns)):
                raise DataError(
                    f"{self.path}, row {number} has {len(cells)} columns, expected {len(self.columns)} as in row 1; "
                    f"mend the row (a separator within a cell needs quotes)"
                )
            yield number, cells

    def find(self, name: str, option: str, what: str) -> int:
        """The place of a column. DataError: there is none of this name, which `option` chooses; "": the run did."""
        if name not in self.columns:
            mend = f"say which with {option}" if option else "call a column so, as in the first data"
            has = f"its first row names {named(self.columns)}" if self.header else f"it has {named(self.columns)}"
            raise DataError(f"{self.path} has no column {name!r} with {what}; {has}; {mend}")
        return self.columns.index(name)

    def _delimited(self, separator: str, digest: Any) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_LONGEST)
        source = lines(self.path, digest)
        if separator == "\t":
            for number, line in enumerate(source, 1):
                if line.strip():
                    yield number, [cell.strip() for cell in _tabbed(line.rstrip("\r\n"))]
            return
        skipped, ahead = 0, list(islice(source, 1))
        while ahead and not ahead[0].strip():
            skipped, ahead = skipped + 1, list(islice(source, 1))
        if ahead and (told := _TOLD.fullmatch(ahead[0])):
            separator, skipped, ahead = told[1], skipped + 1, []
        else:
            ahead += islice(source, _LOOKED - 1)
            separator = _separator(ahead)
        reader = csv.reader(chain(ahead, source), delimiter=separator, strict=True)
        number = 1 + skipped
        try:
            for cells in reader:
                if cells:
                    yield number, cells
                number = reader.line_num + 1 + skipped
        except csv.Error as error:
            if "new-line" in str(error):
                mend = "a line ends with a carriage return alone; convert the file, for example with `tr '\\r' '\\n'`"
                raise DataError(f"{self.path}, row {number}: {mend}") from None
            raise DataError(f"{self.path}, row {number}: {error}; mend the quotes of this row") from None

    def _json(self, digest: Any, lists: bool) -> Iterator[tuple[int, list[str]]]:
        self._names: tuple[str, ...] = ()
        for number, line in enumerate(lines(self.path, digest), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{self.path}, row {number} is not JSON: {error}; one object per line") from None
            if not isinstance(row, dict):
                raise DataError(f"{self.path}, row {number} is a {type(row).__name__}, expected a JSON object")
            if not self._names:
                self._names = tuple(row)
                self.listed = tuple(name for name in row if isinstance(row[name], list))
            for name in self._names:
                value = row.get(name)
                if isinstance(value, list) and lists:
                    row[name] = json.dumps(value)
                elif isinstance(value, (dict, list)):
                    raise DataError(
                        f"{self.path}, row {number}, column {name!r} is a {type(value).__name__}, expected a text "
                        f"or a number; lists of numbers are read by `cellwright train classify --series`"
                    )
            values = (row.get(name) for name in self._names)
            yield number, ["" if value is None else str(value) for value in values]


def _separator(ahead: Sequence[str]) -> str:
    """What cuts most of these lines into as many cells as the first one; a comma if nothing does.

    A comma is often in the text beside the others, and these are seldom in the text beside a comma.
    """
    best, most = ",", 0
    for separator in "\t;,":
        try:
            widths = [len(cells) for cells in csv.reader(ahead, delimiter=separator) if cells]
        except csv.Error:  # a carriage return alone: the reader of the rows says so
            continue
        width = widths[0] if widths else 0
        same = Counter(widths)[width] if width > 1 else 0
        if same > most:
            best, most = separator, same
    return best


def _tabbed(line: str) -> list[str]:
    """The cells of a line of a .tsv: as the csv module reads them, or if it cannot, with quotes as they are."""
    if '"' in line:
        try:
            return next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            pass
    return line.split("\t")


def numbers(
    cells: Sequence[str],
    columns: Sequence[str],
    place: str,
    missing: bool,
    dtype: Any = np.float32,
    mend: str = "mend it, or train without the column: --drop {}",
) -> NDArray[Any]:
    """Cells as float32, NaN where a value is missing. DataError: not a number; or missing, and `missing` is False.

    `mend`: what can be done about a cell that is no number; {} is the name of its column.
    """
    try:
        values = np.array([float(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        values = np.array([_checked(cell, column, place, mend) for cell, column in zip(cells, columns, strict=True)])
    large = np.abs(values) > LARGEST
    if large.any():
        k = int(np.flatnonzero(large)[0])
        raise DataError(f"{place}, column {columns[k]!r} is {cells[k]!r}, expected a finite number up to {LARGEST:.1e}")
    if np.isnan(values).any():
        k = int(np.flatnonzero(np.isnan(values))[0])
        if not missing:
            raise DataError(
                f"{place}, column {columns[k]!r} has no value ({cells[k]!r}); fill it in, or choose --fill mean, "
                f"previous or zero"
            )
    return values.astype(dtype)


def is_number(cell: str) -> bool:
    """Whether a cell is a number or a missing one."""
    return _number(cell) is not None or cell.strip().lower() in MISSING


def named(names: Sequence[str], most: int = 12) -> str:
    """Names for an error: the first ones, and how many there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _checked(cell: str, column: str, place: str, mend: str) -> float:
    value = _number(cell)
    if value is None and cell.strip().lower() in MISSING:
        return math.nan
    if value is None:
        raise DataError(f"{place}, column {column!r} is {cell!r}, expected a number; {mend.format(column)}")
    return value


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _counted(cells: Sequence[str]) -> range:
    return range(1, len(cells) + 1)
