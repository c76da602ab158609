"""Which column of a table is the label, and what stands for numbers that are missing."""

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .tables import Table, is_number, named


def label_column(table: Table, wanted: str) -> str:
    """The name of the column with the label: `wanted`, `label`, or the only one that is not of numbers.

    DataError: none, or several.
    """
    if wanted:
        return table.columns[table.find(wanted, "--label", "the label")]
    if "label" in table.columns:
        return "label"
    first = [cell for row in table.peek() for cell in row]
    cells = {name: cell for name, cell in zip(table.columns, first, strict=False) if name not in table.listed}
    words = [name for name, cell in cells.items() if not is_number(cell)]
    if len(words) == 1:
        return words[0]
    raise DataError(
        f"{table.path} has no column 'label', and {len(words)} columns that are no numbers; it has "
        f"{named(table.columns)}; say which is the label with --label: its name, or its number if these are no names"
    )


def filled(rows: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    """`rows` [T, F] without missing numbers, except those that the mean is to stand for: they stay NaN."""
    if how == "zero":
        return np.nan_to_num(rows, nan=0.0)
    if how == "previous" and np.isnan(rows).any():
        last = np.where(np.isnan(rows), -1, np.arange(len(rows))[:, None])
        last = np.maximum.accumulate(last, axis=0)
        return np.where(last >= 0, rows[np.maximum(last, 0), np.arange(rows.shape[1])], np.float32(np.nan))
    return rows


def with_deltas(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows` [T, F] and beside them their differences to the row before, [T, 2F]; 0 for the first one."""
    return np.concatenate([rows, np.diff(rows, axis=0, prepend=rows[:1])], axis=1)
