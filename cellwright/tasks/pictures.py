"""Pictures that more than one task shows, through matplotlib, which is an extra and imported when one is drawn."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError

_MOST = 40  # classes whose names and numbers are readable


def figure_of(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of so many inches, and its axes: one, or an array of them; `options` of matplotlib's `subplots`."""
    from matplotlib.figure import Figure  # no window, and nothing of pyplot's global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def legend(axes: Any) -> None:
    """The names of the curves beside them, where they hide nothing."""
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def save(figure: Any, file: Path) -> Path:
    """Write a figure. OptionError: the file cannot be written."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for what no font has
            figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise OptionError(f"--plot {file} cannot be written: {error}; name a .png, .svg or .pdf file") from None
    return file


def matrix(counts: Any, names: Sequence[str], unit: str, file: Path) -> Path:
    """Which class was taken for which: how often, and in colour the share of each row. `unit`: of what."""
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(14, 3 + 0.35 * len(names))
    figure, axes = figure_of(size + 1, size)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the truth")
    axes.set_title(f"{counts.sum():,} {unit}s, {counts.trace() / max(counts.sum(), 1):.1%} right", fontsize=10)
    axes.set_xlabel("guess")
    axes.set_ylabel("truth")
    if len(names) <= _MOST:
        labels = [plain(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
    return save(figure, file)


def attention(found: Sequence[tuple[Sequence[str], Sequence[str], Any]], file: Path) -> Path:
    """Where each written symbol looked: symbols read [S], symbols written [T] and weights [T, S], or None, of a few."""
    sides = [(_side(read), _side(written)) for read, written, _ in found] or [(_LEAST, _LEAST)]
    widths, heights = zip(*sides, strict=True)
    row = sum(widths) <= _WIDEST  # side by side if there is room, else one below the other
    rows, columns = (1, len(sides)) if row else (len(sides), 1)
    figure, axes = figure_of(
        (sum if row else max)(widths) + 0.9 * columns + 1.0, (max if row else sum)(heights) + 1.1 * rows, rows, columns,
        squeeze=False, width_ratios=widths if row else None, height_ratios=None if row else heights,
    )  # fmt: skip
    image = None
    for ax, (read, written, weights) in zip(axes.flat, found, strict=False):
        if weights is None:
            ax.set_axis_off()
            ax.text(0, 0.5, plain(f"{' '.join(read)}\n-> {' '.join(written)}\n(no attention)"), wrap=True)
            continue
        image = ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        for axis, symbols, name in ((ax.xaxis, read, "read"), (ax.yaxis, written, "written")):
            every = -(-len(symbols) // _NAMED)
            labels = [shown(symbol) for symbol in symbols[::every]]
            axis.set_ticks(range(0, len(symbols), every), labels, rotation=90 if name == "read" else 0, fontsize=8)
            axis.set_label_text(name)
    if image is not None:
        figure.colorbar(image, ax=axes, label="weight", fraction=0.03)
    return save(figure, file)


_LEAST, _WIDEST, _NAMED = 1.5, 12.0, 60  # inches of a side, of all of them; symbols of a side that have names


def _side(symbols: Sequence[str]) -> float:
    """Inches for so many symbols."""
    return max(_LEAST, 0.17 * min(len(symbols), _NAMED))


def over_images(found: Sequence[tuple[Any, Sequence[str], Any]], file: Path) -> Path:
    """Images [H, W, C], or features [S, F], with what was written and where each symbol looked: [T, h, w] or None."""
    columns = min(6, max((len(written) for _, written, _ in found), default=1) + 1)
    rows = [1 if seen is None or image.ndim == 2 else -(-(len(written) + 1) // columns)
            for image, written, seen in found]  # fmt: skip
    shapes = [(1, 1) if image.ndim == 2 else image.shape[:2] for image, _, _ in found]
    heights = [1.7 * min(2.0, H / W) + 0.3 for (H, W), n in zip(shapes, rows, strict=True) for _ in range(n)]
    figure, axes = figure_of(1.8 * columns, sum(heights) + 0.1, len(heights), columns, squeeze=False,
                             height_ratios=heights)  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for k, (image, written, seen) in enumerate(found):
        cells = axes[sum(rows[:k]) : sum(rows[: k + 1])].flat
        flat = image.ndim == 2
        H, W = image.shape[:2]
        for t in range(len(written) + 1):
            ax = cells[t]
            ax.set_title(shown(written[t - 1]) if t else "the image", fontsize=8)
            ax.imshow(image, cmap="gray" if image.shape[-1] == 1 else None, aspect="auto" if flat else "equal")
            if seen is None or flat:
                ax.set_title(" ".join(map(shown, written[:-1])), fontsize=8, loc="left")
                break
            if t:
                here = seen[t - 1] / max(seen[t - 1].max(), 1e-30)
                ax.imshow(np.ones_like(here), cmap="autumn_r", alpha=0.75 * here, vmin=0, vmax=1,
                          extent=(-0.5, W - 0.5, H - 0.5, -0.5))  # fmt: skip
    return save(figure, file)


def plain(text: str) -> str:
    """A text of which no markup of pictures takes anything for its own."""
    return text.replace("$", r"\$")


def shown(symbol: str) -> str:
    """A symbol that can be seen, in a picture."""
    return plain(symbol.replace(" ", "␣")).removeprefix("\uffed")
