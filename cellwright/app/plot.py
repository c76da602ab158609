"""Pictures of a training: its loss curves, and what its task has to show, through matplotlib, which is an extra."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..tasks.job import SHARE, Job
from ..tasks.pictures import figure_of, legend, save
from ..train.metrics import NAME


def check(file: Path | None = None) -> None:
    """Before anything is done for a picture. OptionError: matplotlib is not there, or `file` cannot become one."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OptionError("--plot needs matplotlib: pip install 'cellwright[plot]', or leave --plot away") from None
    if file is None:
        return
    if file.suffix.lower().removeprefix(".") not in Figure().canvas.get_supported_filetypes():
        raise OptionError(f"--plot {file}: expected the name of a picture; name a .png, .svg or .pdf file")
    if not file.parent.is_dir():
        raise OptionError(f"--plot {file}: there is no folder {file.parent}; make it first")


def pictures(run: Path, job: Job, config: Any, net: Any, task: Any) -> list[Path]:
    """`loss.png` and the pictures of the task in the run folder. OptionError: one of them cannot be written."""
    return [curves(run, job, task, run / "loss.png"), *job.pictures(config, net, task, run)]


def panels(records: Sequence[Mapping[str, Any]], scales: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """What evaluations measured, by the axis that it belongs to; axes without any are left out."""
    there = {axis: [name for name in names if all(name in r for r in records)] for axis, *names in scales}
    return {axis: names for axis, names in there.items() if names and records}


def curves(run: Path, job: Job, task: Any, file: Path) -> Path:
    """The losses of a run over the steps, and below them what else its evaluations measured, an axis per unit."""
    records = [json.loads(line) for line in (run / NAME).read_text().splitlines()]
    train, evals = ([r for r in records if r["kind"] == kind] for kind in ("train", "eval"))
    below = panels(evals, job.scales)
    figure, found = figure_of(8, 3.6 + 1.7 * len(below), rows=1 + len(below), sharex=True,
                              height_ratios=[2] + [1] * len(below))  # fmt: skip
    axes = [found] if not below else list(found)
    steps = [r["step"] for r in evals]
    axes[0].plot([r["step"] for r in train], [r["loss"] for r in train], color="0.7", label="training")
    axes[0].plot(steps, [r["loss"] for r in evals], color="C0", marker=".", label="validation")
    axes[0].set_ylabel(f"{task.quantity} per {task.unit}")
    for ax, (axis, names) in zip(axes[1:], below.items(), strict=True):
        for n, name in enumerate(names):
            ax.plot(steps, [r[name] for r in evals], color=f"C{n + 1}", marker=".", label=name)
        ax.set_ylabel(axis)
        if axis == SHARE:
            ax.set_ylim(-0.02, 1.02)
    if evals:
        best = min(evals, key=lambda r: r["loss"])["step"]
        for ax in axes:
            ax.axvline(best, color="0.6", linestyle=":", linewidth=1, label=f"best, step {best:,}" * (ax is axes[0]))
    for ax in axes:
        ax.grid(alpha=0.25)
        legend(ax)
    axes[-1].set_xlabel("step")
    return save(figure, file)
