"""Pictures that more than one task shows, through matplotlib, which is an extra and imported when one is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError

_MOST = 40  # classes whose names and numbers are readable


def figure_of(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes: one, or an array of them."""
    from matplotlib.figure import Figure  # no window, and nothing of pyplot's global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def save(figure: Any, file: Path) -> Path:
    """Write a figure. OptionError: the file cannot be written."""
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise OptionError(f"--plot {file} cannot be written: {error}; name a .png, .svg or .pdf file") from None
    return file


def matrix(counts: Any, names: Sequence[str], file: Path) -> Path:
    """Which class was taken for which, in shares of each row."""
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(14, 3 + 0.35 * len(names))
    figure, axes = figure_of(size, size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("guess")
    axes.set_ylabel("truth")
    if len(names) <= _MOST:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=6, color=color)
    return save(figure, file)


def attention(found: Sequence[tuple[Sequence[str], Sequence[str], Any]], file: Path) -> Path:
    """Where each written symbol looked: symbols read [S], symbols written [T] and weights [T, S], or None, of a few."""
    width = sum(1.5 + 0.28 * min(len(read), 40) for read, _, _ in found)
    height = 1.2 + 0.28 * max((min(len(written), 60) for _, written, _ in found), default=1)
    figure, axes = figure_of(min(24, max(width, 4)), min(16, max(height, 3)), 1, max(len(found), 1))
    for ax, (read, written, weights) in zip(np.atleast_1d(axes), found, strict=True):
        if weights is None:
            ax.set_axis_off()
            ax.text(0, 0.5, f"{' '.join(read)}\n-> {' '.join(written)}\n(no attention)", wrap=True)
            continue
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(read)), [_shown(s) for s in read], rotation=90)
        ax.set_yticks(range(len(written)), [_shown(s) for s in written])
        ax.set_xlabel("read")
        ax.set_ylabel("written")
    return save(figure, file)


def _shown(symbol: str) -> str:
    """A symbol that can be seen, and that no markup of the picture's labels takes for its own."""
    return symbol.replace(" ", "␣").replace("$", r"\$").removeprefix("\uffed")
