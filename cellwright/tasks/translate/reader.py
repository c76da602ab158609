"""Sources and targets out of tables: which column is which.

A .csv has names in its first row, JSON Lines have them in every row. A .tsv has them where `source` and `target`, or
what `--source` and `--target` ask for, are in its first line, or where that line is a pair of languages; else its two
columns are 1 and 2. A file whose columns are asked for by number has no names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..data.tables import Table, lines, named

_CODES = (  # ISO 639-1
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
_NAMES = (
    "source target src tgt trg input output original translation eng deu ger fra fre spa ita por nld rus zho jpn kor "
    "english german french spanish italian portuguese dutch russian chinese japanese korean arabic turkish polish "
    "czech swedish danish norwegian finnish greek hebrew hindi hungarian romanian ukrainian vietnamese"
)
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # as the csv module writes a cell with quotes
_REGION = re.compile(r"[-_][a-z]{2,4}$")


def rows(
    path: Path, config: Any, layout: dict[str, Any], labelled: bool, digest: Any
) -> Iterator[tuple[str, str, str]]:
    """Place, source and target of each row; the target is empty if not `labelled`.

    `layout` says which columns they were in the training; with `digest` this is it, and what is found is put there.
    DataError: it cannot be told which columns they are, or a row does not have them.
    """
    if path.suffix.lower() == ".tsv":
        columns, first, found = _tabbed(path, config, layout, labelled, digest)
    else:
        table = Table(path, digest, (config.source, config.target))
        columns, found = table.columns, table.rows()
        first = columns if table.header else tuple(table.peek()[0])
    if not columns:
        return
    sides = _sides(path, columns, first, config, layout, labelled, digest is not None)
    if digest is not None:
        for side, name in sides.items():
            layout.setdefault(side, name)
    at = [columns.index(sides[side]) for side in ("source", "target")[: 1 + labelled]]
    row = "line" if path.suffix.lower() == ".tsv" else "row"
    for number, cells in found:
        yield f"{path}, {row} {number}", cells[at[0]], cells[at[1]] if labelled else ""


def _sides(
    path: Path,
    columns: Sequence[str],
    first: Sequence[str],
    config: Any,
    layout: Mapping[str, Any],
    labelled: bool,
    training: bool,
) -> dict[str, str]:
    """The names of the columns with the source and, if `labelled`, the target; `first`: the cells of the first row."""
    found: dict[str, str] = {}
    has = f"its first row is {named(first)}" if columns == first else f"it has no names, and begins with {named(first)}"
    for side in ("source", "target"):
        wanted = getattr(config, side)
        if wanted and wanted not in columns and (labelled or side == "source"):
            raise DataError(f"{path} has no column {wanted!r} with the {side}; {has}; say which with --{side}")
        known = (wanted, str(layout.get(side, "")), side)
        name = next((name for name in known if name in columns and name not in found.values()), "")
        if name:
            found[side] = name
    rest = [name for name in columns if name not in found.values()]
    for side in ("source", "target"):
        if side not in found and rest and len(columns) <= 2:
            found[side] = rest.pop(0)
    for side in ("source", "target")[: 1 + labelled]:
        if side not in found:
            mend = "say which columns they are with --source and --target: by name, or by number if there are no names"
            mend = mend if training else "call them as in the training, or leave the other columns out"
            mend = "separate a source and a target by a tab or a comma" if len(columns) < 2 else mend
            raise DataError(f"{path} has no column {side!r}; {has}; {mend}")
    return {side: found[side] for side in ("source", "target")[: 1 + labelled]}


def _tabbed(
    path: Path, config: Any, layout: Mapping[str, Any], labelled: bool, digest: Any
) -> tuple[tuple[str, ...], tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """Columns, cells of the first line, and lines of a .tsv, in which quotes are text."""
    source = ((n, [_plain(cell) for cell in line.split("\t")]) for n, line in enumerate(lines(path, digest), 1))
    rows = ((n, cells) for n, cells in source if any(cells))
    first = next(rows, None)
    if first is None:
        return (), (), iter(())
    number, cells = first
    named_ = _is_header(cells, config, layout, labelled)
    columns = tuple(cells) if named_ else tuple(str(k) for k in range(1, len(cells) + 1))

    def checked() -> Iterator[tuple[int, list[str]]]:
        for n, row in rows if named_ else chain([(number, cells)], rows):
            while len(row) > len(columns) and not row[-1]:
                row.pop()
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {n} has {len(row)} column(s), expected {len(columns)} as in the first line: a "
                    f"source and a target, separated by a tab"
                )
            yield n, row

    return columns, tuple(cells), checked()


def _plain(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell


def _is_header(cells: Sequence[str], config: Any, layout: Mapping[str, Any], labelled: bool) -> bool:
    """Whether the first line of a .tsv has names."""
    if len(set(cells)) < len(cells):
        return False
    asked = [name for name in (config.source, config.target) if name]
    if asked:
        return set(asked) <= set(cells) or not all(name.isdigit() for name in asked)
    for sides in (("source", "target"), (layout.get("source", ""), layout.get("target", ""))):
        names = {side for side in sides[: 1 + labelled] if not str(side).isdigit()} - {""}
        if names and names <= set(cells):
            return True
    return len(cells) <= 2 and all(_is_name(cell.lower()) for cell in cells)


def _is_name(cell: str) -> bool:
    return cell in _NAMES.split() or _REGION.sub("", cell) in _CODES.split()
