"""Pictures of a training: its loss curves, and what its task has to show, through matplotlib, which is an extra."""

import json
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..tasks.job import Job
from ..tasks.pictures import figure_of, save
from ..train.metrics import NAME


def check() -> None:
    """OptionError: matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OptionError("--plot needs matplotlib: pip install 'cellwright[plot]', or leave --plot away") from None


def pictures(run: Path, job: Job, config: Any, net: Any, task: Any) -> list[Path]:
    """`loss.png` and the pictures of the task in the run folder. OptionError: one of them cannot be written."""
    return [curves(run, task, run / "loss.png"), *job.pictures(config, net, task, run)]


def curves(run: Path, task: Any, file: Path) -> Path:
    """The losses of a run over the steps, and whatever else its evaluations measured between 0 and 1."""
    records = [json.loads(line) for line in (run / NAME).read_text().splitlines()]
    train, evals = ([r for r in records if r["kind"] == kind] for kind in ("train", "eval"))
    others = [k for k in (evals[0] if evals else {}) if k not in ("kind", "step", "loss", "best", "sample", "seconds")]
    figure, axes = figure_of(7, 4)
    axes.plot([r["step"] for r in train], [r["loss"] for r in train], color="0.7", label="training loss")
    steps = [r["step"] for r in evals]
    axes.plot(steps, [r["loss"] for r in evals], color="C0", marker=".", label="validation loss")
    axes.set_xlabel("step")
    axes.set_ylabel(f"{task.quantity} per {task.unit}")
    axes.set_ylim(bottom=0)
    shares = [k for k in others if all(0 <= r[k] <= 1 for r in evals)]
    if shares:
        right = axes.twinx()
        right.set_ylim(0, 1)
        for n, name in enumerate(shares, 1):
            right.plot(steps, [r[name] for r in evals], color=f"C{n}", linestyle="--", label=name)
        right.legend(loc="upper right")
    axes.legend(loc="upper left")
    return save(figure, file)
