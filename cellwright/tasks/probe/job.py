"""Adding, copy, parity and Reber's grammar: how far back a cell remembers, on data that a seed makes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...cells import find
from ...errors import DataError, OptionError
from ...lang import Definition
from ...nn import Recurrent, chrono_initialise
from ...topologies import ManyToMany
from ..job import SHARE, Found, Job, Prediction, layer_line
from ..task import Task
from .config import ProbeConfig
from .problems import PROBLEMS, Drawn, Problem

TRAINING, VALIDATION, TEST = range(3)
_EXAMPLES = {VALIDATION: 1000, TEST: 4000}
_AT_ONCE = 250  # sequences of an evaluation
_FIXED = 2**63  # the seed of what every run is measured with; those of runs are smaller


def drawn(problem: Problem, part: int, seed: int, number: int, count: int) -> Drawn:
    """A batch, which depends on these numbers only."""
    return problem.draw(np.random.default_rng([seed, part, number]), count)


@dataclass(frozen=True)
class Data:
    """A problem. `digest` is that of what it draws, so that a change of a generator is noticed by a resumed run."""

    problem: Problem

    @property
    def digest(self) -> str:
        """Of a few sequences."""
        some = drawn(self.problem, VALIDATION, _FIXED, 0, 8)
        return hashlib.sha256(some.x.numpy().tobytes() + some.y.numpy().tobytes()).hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run folder keeps of it."""
        return {"sha256": self.digest, "length": self.problem.length}


@dataclass(frozen=True)
class Net:
    """A model from [T, B, I] or symbols [T, B] to [T, B, K], and what it is for."""

    model: ManyToMany
    problem: Problem

    @torch.no_grad()
    def judged(self, problem: Problem, part: int) -> dict[str, float]:
        """The loss, and what else is measured, on the fixed sequences of a part."""
        self.model.eval()
        found: dict[str, list[Tensor]] = {"loss": []}
        for number in range(_EXAMPLES[part] // _AT_ONCE):
            batch = drawn(problem, part, _FIXED, number, _AT_ONCE)
            output = self.model(batch.x, lengths=batch.lengths)[0]
            found["loss"].append(problem.losses(output, batch)[problem.asked(batch)].double())
            for name, values in problem.measured(output, batch).items():
                found.setdefault(name, []).append(values.flatten())
        return {name: torch.cat(values).mean().item() for name, values in found.items()}


class ProbeTask(Task):
    """The task that the training loop sees: fresh sequences at every step."""

    model: ManyToMany

    def __init__(self, config: ProbeConfig, net: Net) -> None:
        self.net, self.model, self.problem, self._config = net, net.model, net.problem, config
        self.unit, self.quantity = self.problem.unit, self.problem.quantity
        self.better = {"loss": -1, **dict.fromkeys(self.problem.shares, 1)}
        some = drawn(self.problem, VALIDATION, _FIXED, 0, _AT_ONCE)
        self.per_step = round(config.batch * int(self.problem.asked(some).sum()) / _AT_ONCE)

    def batch(self, step: int) -> Drawn:
        """New sequences."""
        return drawn(self.problem, TRAINING, self._config.seed, step, self._config.batch)

    def criterion(self, batch: Drawn, step: int) -> Tensor:
        """The mean loss of the answers."""
        output = self.model(batch.x, lengths=batch.lengths)[0]
        return self.problem.losses(output, batch)[self.problem.asked(batch)].mean()

    def validate(self) -> dict[str, float]:
        """Loss and shares on sequences that are the same for every run."""
        return self.net.judged(self.problem, VALIDATION)

    def test(self) -> dict[str, float]:
        """The same on others."""
        return self.net.judged(self.problem, TEST)


class ProbeJob(Job):
    """The probes for the commands."""

    config = ProbeConfig
    scales = ((SHARE, "right", "copied", "accuracy", "allowed", "embedded"),)

    def read(self, config: ProbeConfig) -> Data:
        """The problem."""
        return Data(PROBLEMS[config.problem](config.length))

    def settle(self, config: ProbeConfig, data: Data) -> ProbeConfig:
        """The length, and evaluations within the training."""
        return config.changed(length=data.problem.length or None, eval_every=min(config.eval_every, config.steps))

    def learn(self, config: ProbeConfig, data: Data) -> dict[str, Any]:
        """The cells."""
        cell, size, layers = find(config.cell), data.problem.inputs, list[Definition]()
        options: dict[str, Any] = config.options
        for _ in range(config.layers):
            layers.append(cell(size, config.hidden, **options).definition())
            size = layers[-1].output_size
        return {"cells.json": {"layers": [layer.to_json() for layer in layers]}}

    def build(self, config: ProbeConfig, documents: Mapping[str, Any]) -> Net:
        """The model."""
        problem = PROBLEMS[config.problem](config.length)
        cells = [Definition.from_json(layer) for layer in documents["cells.json"]["layers"]]
        recurrent = Recurrent(cells, dropout=config.dropout if len(cells) > 1 else 0.0)
        if config.chrono:
            chrono_initialise(recurrent, config.chrono)
        output = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(recurrent.output_size, problem.outputs))
        return Net(ManyToMany(recurrent, output), problem)

    def task(self, config: ProbeConfig, net: Net, data: Data) -> ProbeTask:
        """Fresh sequences."""
        return ProbeTask(config, net)

    def facts(self, config: ProbeConfig, net: Net, data: Data, task: ProbeTask) -> dict[str, list[str]]:
        """Model, problem and plan."""
        name, loss = net.problem.blind
        return {
            "model": layer_line(
                config, net.model, f"memories of up to {config.chrono} steps at first" if config.chrono else ""
            ),
            "data": [
                f"{config.problem} of length {config.length}" if config.length else config.problem,
                f"{loss:.4f} {task.quantity} per {task.unit} {name}",
            ],
            "split": [
                "new sequences at every step to train on",
                *(f"{_EXAMPLES[part]:,} for the {what}" for part, what in ((VALIDATION, "validation"), (TEST, "test"))),
            ],
            "plan": [f"{config.steps} steps of {config.batch} sequences"],
        }

    def loss_words(self, task: Any, measured: Mapping[str, float]) -> str:
        """Beside what is reached without memory."""
        name, loss = task.problem.blind
        return f"{super().loss_words(task, measured)} ({name}: {loss:.4f})"

    def after(self, run: str) -> str:
        """What to look at."""
        return f"the run is in {run}; how far gradients reach back in it:\n  cellwright inspect gradients {run}"

    def last_losses(self, task: ProbeTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """Those of the answers that need the longest memory, in fixed sequences of the training's length."""
        batch = drawn(task.problem, VALIDATION, _FIXED, 0, count)
        last = task.problem.hardest(batch)

        def losses() -> Tensor:
            output = task.model(batch.x, lengths=last + 1)[0]
            return task.problem.losses(output, batch)[last, torch.arange(count)]

        return task.model.recurrent, losses

    def evaluate(self, config: ProbeConfig, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """The same problem at other lengths, which stand in place of files."""
        if not net.problem.length:
            raise DataError(f"a run of {config.problem} has no other data: its strings have no length to choose")
        found = {}
        for word in paths:
            if not word.isdigit() or int(word) < net.problem.least:
                raise DataError(
                    f"got {word!r}, expected a length of {config.problem}, from {net.problem.least} on, in place of a "
                    f"file: its data are made, cellwright eval RUN {2 * net.problem.length}"
                )
            found[word] = net.judged(type(net.problem)(int(word)), TEST)
        lines = [
            f"length {word}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            for word, numbers in found.items()
        ]
        return Found("\n".join(lines), found[paths[-1]])

    def predict(self, config: ProbeConfig, net: Net, paths: Sequence[str], **options: Any) -> Prediction:
        """Nothing: there are no files of probes."""
        raise OptionError("a run of probe predicts nothing for a file: its data are made; cellwright eval RUN LENGTH")


JOB = ProbeJob()
