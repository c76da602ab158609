"""What a task is, for everything that trains, resumes, evaluates and predicts: one description, one mechanism.

A new task is a folder NAME with `config.py` (its settings) and `job.py` (with `JOB`, a `Job`), and a row in `JOBS`.
What it gets for that: the commands `train NAME`, `eval` and `predict` with one option per setting, progress, early
stopping, the run folder, and exact resume.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .settings import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..nn import Recurrent

JOBS = {  # name: the class of its settings
    "charlm": "CharLMConfig",
    "classify": "ClassifyConfig",
    "tag": "TagConfig",
    "forecast": "ForecastConfig",
    "speech": "SpeechConfig",
    "music": "MusicConfig",
    "translate": "TranslateConfig",
    "caption": "CaptionConfig",
    "probe": "ProbeConfig",
}


def settings_of(name: str) -> type[TrainConfig]:
    """The class of a task's settings, which needs no torch. OptionError: there is no such task."""
    if name not in JOBS:
        raise OptionError(f"got the task {name!r}, expected {', '.join(JOBS)}")
    found: type[TrainConfig] = getattr(importlib.import_module(f"{__package__}.{name}.config"), JOBS[name])
    return found


def find(name: str) -> "Job":
    """A task by its name. OptionError: there is no such task."""
    settings_of(name)
    job: Job = importlib.import_module(f"{__package__}.{name}.job").JOB
    return job


SHARE = "share"  # the axis of what is between 0 and 1


@dataclass(frozen=True)
class Prediction:
    """What `predict` gives: records of one kind, one after the other, and how they are written as plain text."""

    records: Iterator[dict[str, Any]]
    columns: tuple[str, ...]
    text: Any = None  # a function of a record to the lines of plain text; None: comma-separated values


@dataclass(frozen=True)
class Found:
    """How well a model did: the sentences to print, numbers by name, and a picture."""

    text: str
    numbers: Mapping[str, float]
    draw: Callable[[Path], Path] | None = None  # writes a picture to a file; None: there is nothing to draw


class Job(ABC):
    """A task. `data` is what `read` gave, with `digest` and `summary`; `net` what `build` gave, with `model`.

    The order of a training: read, settle, learn, (seed), build, task. That of a resumed one: build, read, task. The
    task is what `train.loop.Task` describes. Whatever a net needs besides its weights is in the documents of `learn`,
    as JSON: a run is used again without the data it learned from.
    """

    config: type[TrainConfig]
    scales: tuple[tuple[str, ...], ...] = ()  # an axis of the loss curves, and what evaluations measure on it, by name
    takes: tuple[str, ...] = ()  # the options of `eval` and `predict` that only some tasks know, by name
    writes: tuple[str, ...] = ()  # the options of the command `generate` that this task takes; empty: it writes nothing

    @abstractmethod
    def read(self, config: Any) -> Any:
        """Open the data and look at every record once. DataError: they are not what they should be."""

    def settle(self, config: Any, data: Any) -> Any:
        """The settings, with what follows from the data filled in."""
        return config

    @abstractmethod
    def learn(self, config: Any, data: Any) -> dict[str, Any]:
        """The documents of the run, by file name: vocabularies, statistics, cells."""

    @abstractmethod
    def build(self, config: Any, documents: Mapping[str, Any]) -> Any:
        """The net, with initial weights drawn now. Damaged documents give KeyError, TypeError, ValueError, ..."""

    @abstractmethod
    def task(self, config: Any, net: Any, data: Any) -> Any:
        """What the training loop sees. DataError: there are too few data."""

    @abstractmethod
    def facts(self, config: Any, net: Any, data: Any, task: Any) -> dict[str, list[str]]:
        """What is special in this training, in a few words, by the name of the row."""

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that were given. OptionError: this task has no such option."""
        given = {name: value for name, value in options.items() if value}
        if unknown := [name for name in given if name not in self.takes]:
            raise OptionError(f"--{unknown[0]}: a run of {self.config.task} has no such option; leave it out")
        return given

    def filling(self, config: Any, options: Mapping[str, Any]) -> Any:
        """The settings, with what is to stand for missing numbers if `options` say so. OptionError: no such way."""
        return config.changed(fill=options["fill"]) if options.get("fill") else config

    def sample(self, config: Any, net: Any, step: int) -> str | None:
        """Something to show at the evaluation after a step; None: nothing."""
        return None

    def loss_words(self, task: Any, measured: Mapping[str, float]) -> str:
        """A validation or test loss with its units."""
        others = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if name != "loss")
        return f"{measured['loss']:.4f} {task.quantity} per {task.unit}" + (f", {others}" if others else "")

    def after(self, run: str) -> str:
        """What to do with a finished run, whose folder is spelled `run`."""
        return f"the run is in {run}; on new data:\n  cellwright predict {run} FILE"

    def pictures(self, config: Any, net: Any, task: Any, folder: Path) -> list[Path]:
        """Draw what a finished training has to show, besides its loss curves, into files of a folder."""
        return []

    def last_losses(self, task: Any, count: int, steps: int | None) -> "tuple[Recurrent, Callable[[], Tensor]]":
        """A layer, and what calls it once and gives losses [B] of up to `count` sequences that its last steps make.

        `steps`: how long they are to be, where that is free. OptionError: this task has no such losses.
        """
        raise OptionError(f"a run of {self.config.task} has no loss at a last step to look back from; name another run")

    @abstractmethod
    def evaluate(self, config: Any, net: Any, paths: Sequence[str], **options: Any) -> Found:
        """How well a model does on other data. DataError: they are not what it was trained for."""

    def generate(self, config: Any, net: Any, seed: int, **options: Any) -> Iterator[str]:
        """What a model writes, in pieces as they are written; `options`: those of `writes` that were given.

        OptionError, DataError: one of them is not right; raised at once, before there is a piece.
        """
        name = self.config.task
        raise OptionError(f"a run of {name} writes nothing; it judges files: cellwright predict RUN FILE")

    def predict(self, config: Any, net: Any, paths: Sequence[str], **options: Any) -> Prediction:
        """What a model says about data without labels. OptionError: this task does not predict."""
        name = self.config.task
        raise OptionError(f"a run of {name} predicts nothing for a file; let it write: cellwright generate RUN")


def layer_line(config: TrainConfig, model: "nn.Module", *more: str) -> list[str]:
    """The facts about any net."""
    return [
        f"{config.layers} x {config.cell} {config.hidden}",
        *(f"{name}={value}" for name, value in config.options.items()),
        *filter(None, more),
        f"dropout {config.dropout:g}",
        f"{sum(p.numel() for p in model.parameters()):,} parameters",
    ]
