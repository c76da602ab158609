"""Pictures of a training: loss curves and the confusion matrix, through matplotlib, which is an extra."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError
from ..train.metrics import NAME

_MOST = 40  # classes whose names and numbers are readable


def check() -> None:
    """OptionError: matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OptionError("--plot needs matplotlib: pip install 'cellwright[plot]', or leave --plot away") from None


def pictures(run: Path, task: Any) -> list[Path]:
    """`loss.png` and, for a task with classes, `confusion.png` in the run folder."""
    made = [curves(run, run / "loss.png")]
    if getattr(task, "confusion", None) is not None:
        made.append(matrix(task.confusion.counts, task.names, run / "confusion.png"))
    return made


def curves(run: Path, file: Path) -> Path:
    """The losses of a run over the steps, and whatever else its evaluations measured between 0 and 1."""
    records = [json.loads(line) for line in (run / NAME).read_text().splitlines()]
    train, evals = ([r for r in records if r["kind"] == kind] for kind in ("train", "eval"))
    others = [k for k in (evals[0] if evals else {}) if k not in ("kind", "step", "loss", "best", "sample", "seconds")]
    figure, axes = _figure(7, 4)
    axes.plot([r["step"] for r in train], [r["loss"] for r in train], color="0.7", label="training loss")
    steps = [r["step"] for r in evals]
    axes.plot(steps, [r["loss"] for r in evals], color="C0", marker=".", label="validation loss")
    axes.set_xlabel("step")
    axes.set_ylabel("nats")
    axes.set_ylim(bottom=0)
    shares = [k for k in others if all(0 <= r[k] <= 1 for r in evals)]
    if shares:
        right = axes.twinx()
        right.set_ylim(0, 1)
        for n, name in enumerate(shares, 1):
            right.plot(steps, [r[name] for r in evals], color=f"C{n}", linestyle="--", label=name)
        right.legend(loc="upper right")
    axes.legend(loc="upper left")
    return _save(figure, file)


def matrix(counts: Any, names: Sequence[str], file: Path) -> Path:
    """Which class was taken for which, in shares of each row."""
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(14, 3 + 0.35 * len(names))
    figure, axes = _figure(size, size)
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
    return _save(figure, file)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no window, and nothing of pyplot's global state

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, file: Path) -> Path:
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise OptionError(f"--plot {file} cannot be written: {error}; name a .png, .svg or .pdf file") from None
    return file
