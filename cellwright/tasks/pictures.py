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
    width = 1.5 + 0.2 * min(max((len(read) for read, _, _ in found), default=1), 100)
    height = sum(1.4 + 0.2 * min(len(written), 60) for _, written, _ in found)
    figure, axes = figure_of(max(width, 5), max(height, 3), max(len(found), 1))
    for ax, (read, written, weights) in zip(np.atleast_1d(axes), found, strict=True):
        if weights is None:
            ax.set_axis_off()
            ax.text(0, 0.5, f"{' '.join(read)}\n-> {' '.join(written)}\n(no attention)", wrap=True)
            continue
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(read)), [_shown(s) for s in read], rotation=90, fontsize=8)
        ax.set_yticks(range(len(written)), [_shown(s) for s in written], fontsize=8)
        ax.set_xlabel("read")
        ax.set_ylabel("written")
    return save(figure, file)


def over_images(found: Sequence[tuple[Any, Sequence[str], Any]], file: Path) -> Path:
    """Images [H, W, C], or features [S, F], with what was written and where each symbol looked: [T, h, w] or None."""
    columns = min(6, max((len(written) for _, written, _ in found), default=1) + 1)
    rows = [-(-(len(written) + 1) // columns) for _, written, _ in found]
    figure, axes = figure_of(2.2 * columns, max(1.0, 1.2 * sum(rows)), sum(rows), columns)
    grid = np.reshape(axes, (sum(rows), columns))
    for ax in grid.flat:
        ax.set_axis_off()
    for k, (image, written, seen) in enumerate(found):
        cells = grid[sum(rows[:k]) : sum(rows[: k + 1])].flat
        flat = image.ndim == 2
        H, W = image.shape[:2]
        for t in range(len(written) + 1):
            ax = cells[t]
            ax.set_title(_shown(written[t - 1]) if t else "", fontsize=8)
            ax.imshow(image, cmap="gray" if image.shape[-1] == 1 else None, aspect="auto" if flat else "equal")
            if t and seen is not None and not flat:
                here = seen[t - 1] / max(seen[t - 1].max(), 1e-30)
                ax.imshow(here, cmap="Reds", alpha=0.6, vmin=0, vmax=1, extent=(-0.5, W - 0.5, H - 0.5, -0.5))
            if seen is None or flat:
                ax.set_title(" ".join(map(_shown, written[:-1])), fontsize=8, loc="left")
                break
    return save(figure, file)


def _shown(symbol: str) -> str:
    """A symbol that can be seen, and that no markup of the picture's labels takes for its own."""
    return symbol.replace(" ", "␣").replace("$", r"\$").removeprefix("\uffed")
