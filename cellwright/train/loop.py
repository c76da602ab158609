"""The one training loop: updates, evaluations, early stopping, and checkpoints that go on exactly where they stopped.

What a step does depends only on the weights, the optimizer, the carried state, the random state and the number of the
step, and all of them are in `last.safetensors`. So a training that was interrupted, or crashed, and is resumed has the
same losses, bit for bit, as one that was not.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import CellwrightError, OptionError
from . import checkpoint
from .metrics import Metrics
from .progress import Display
from .run import Run
from .schedule import Settings, learning_rate
from .signals import StopRequest

LOG_EVERY = 10  # steps per line of metrics
SAVE_SECONDS = 60.0  # the most that a crash can cost


class Task(Protocol):
    """What the loop needs to know of a task."""

    unit: str  # what is counted: "character"
    quantity: str  # what the loss measures: "nats"
    per_step: int  # units per step
    better: Mapping[
        str, int
    ]  # what `validate` measures and evaluations may be compared by; 1: more is better, -1: less
    reading: float  # seconds that `loss` has spent on getting the data so far

    @property
    def model(self) -> nn.Module:
        """The weights to train."""

    def loss(self, step: int) -> Tensor:
        """The loss to minimise at step 0, 1, ..., in its quantity per unit: a scalar with a gradient."""

    def carried(self) -> dict[str, Tensor]:
        """What one step hands to the next besides the weights."""

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what `carried` gave."""

    def validate(self) -> Mapping[str, float]:
        """The validation loss per unit as `loss`, and whatever else is measured, by name."""

    def test(self) -> Mapping[str, float] | None:
        """The same of the test data; None if there are none."""

    def measures(self, loss: float) -> dict[str, float]:
        """The loss in other units, by their names."""


@dataclass
class Counters:
    """Where a training stands; stored with every checkpoint."""

    steps: int  # the length of the training, which may differ from the one that it was started with
    step: int = 0
    best: float | None = None  # the best value so far of the measure that `--best` names
    best_loss: float = 0.0  # validation loss of that evaluation
    best_step: int = 0
    stale: int = 0  # evaluations since then
    seconds: float = 0.0
    finished: str = ""  # why there is nothing left to do: "steps" or "patience"
    window: list[tuple[float, float]] = field(default_factory=list)  # losses, gradient norms since the last log line


class Clock:
    """Seconds since the last note, added up by what they were spent on."""

    def __init__(self, spent: dict[str, float]) -> None:
        self._spent, self._last = spent, time.perf_counter()

    def note(self, what: str) -> None:
        """The time since the last note was spent on this."""
        now = time.perf_counter()
        self._spent[what] += now - self._last
        self._last = now


class Trainer:
    """A task, on its way. `sample` writes something with the model, to be shown at the evaluation after a step.

    `begin` or `resume` first, then `train`, then `conclude`.
    """

    run: Run
    _metrics: Metrics

    def __init__(
        self, task: Task, settings: Settings, display: Display, sample: Callable[[int], str | None] | None = None
    ) -> None:
        self.task, self.settings, self.display, self.sample = task, settings, display, sample
        self.measure = _chosen(settings.best, task.better)
        self.counters = Counters(settings.steps)
        self._parameters = list(task.model.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=settings.lr, fused=True)
        self._pending: list[Tensor] = []  # loss and gradient norm of the latest steps, not yet waited for
        self._position: Mapping[str, Any] = {}
        self._status = ""
        self.spent: dict[str, float] = defaultdict(float)  # seconds by what they were spent on, in this process

    def begin(self, path: Path, documents: Mapping[str, Any]) -> None:
        """Make the run folder. RunError: it is in use or cannot be made."""
        self.run = Run.create(path, documents, self._tensors(), asdict(self.counters))
        self._position = self.run.load("last")[1]["metrics"]

    def resume(self, run: Run, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Go on from the checkpoint `last` of a run, towards `settings.steps`. RunError: it is another model's."""
        self.run = run
        self._position = counters["metrics"]
        window = [(loss, norm) for loss, norm in counters["window"]]
        known = {key: value for key, value in counters.items() if key != "metrics"}
        self.counters = Counters(**{**known, "window": window})
        if self.counters.steps != self.settings.steps:
            self.counters.steps = self.settings.steps
            self.counters.finished, self.counters.stale = "", 0
        self.task.carry(checkpoint.unpack(self.task.model, self._optimizer, tensors, run.path))

    def train(self) -> bool:
        """Train to the end: True; or until Ctrl-C: False. Either way `last` is up to date.

        CellwrightError: the loss or its gradient is not finite. The files keep the weights from before.
        """
        counters = self.counters
        self._metrics = self.run.metrics(self._position)
        self._began = time.monotonic() - counters.seconds
        self._saved = (counters.step, time.monotonic())
        self._mark = (counters.step, time.monotonic())
        self.display.start(counters.step, counters.steps)
        try:
            with StopRequest() as stop:
                self.task.model.train()
                while not counters.finished and not stop.wanted:
                    self._step()
                    if time.monotonic() - self._saved[1] >= SAVE_SECONDS:
                        self._save()
                if self._saved[0] != counters.step:
                    self._save()
        finally:
            self.display.stop()
            self._metrics.close()
        return bool(counters.finished)

    def conclude(self) -> Mapping[str, float] | None:
        """Load the best weights and give what they reach in the test, which is also logged; None without test data."""
        tensors, _ = self.run.load("best")
        checkpoint.load_weights(self.task.model, tensors, self.run.path)
        found = self.task.test()
        if found is not None:
            metrics = self.run.metrics(self._position)
            units = self.task.measures(found["loss"])
            metrics.append({"kind": "test", "step": self.counters.best_step, **found, **units})
            metrics.close()
        return found

    def _step(self) -> None:
        """One update of the weights, and what is due after it."""
        counters, settings = self.counters, self.settings
        rate = learning_rate(counters.step, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        reading = self.task.reading
        clock = Clock(self.spent)
        loss = self.task.loss(counters.step)
        clock.note("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        clock.note("backward")
        norm = nn.utils.clip_grad_norm_(self._parameters, settings.clip or math.inf)
        self._optimizer.step()
        clock.note("update")
        reading = self.task.reading - reading
        self.spent["data"] += reading
        self.spent["forward"] -= reading
        counters.step += 1
        self._pending += [loss.detach(), norm]
        evaluate = counters.step % settings.eval_every == 0 or counters.step == counters.steps
        if evaluate or counters.step % LOG_EVERY == 0:
            self._log(rate)
        self.display.update(counters.step, self._describe)
        clock.note("report")
        if evaluate:
            self._evaluate()
            clock.note("evaluation")
            self._save()
            clock.note("saving")

    def _settle(self) -> None:
        """Wait for the device, and check the losses that have arrived."""
        if not self._pending:
            return
        values = torch.stack(self._pending).tolist()
        first = self.counters.step - len(values) // 2 + 1
        for i, pair in enumerate(zip(values[::2], values[1::2], strict=True)):
            if not all(map(math.isfinite, pair)):
                self._diverged(first + i, f"loss {pair[0]}, gradient norm {pair[1]}")
            self.counters.window.append(pair)
        self._pending.clear()

    def _diverged(self, step: int, what: str) -> None:
        raise CellwrightError(
            f"the loss is not finite at step {step} ({what}); the weights of step {self._saved[0]} are kept in "
            f"{self.run.path}; start again with a lower --lr than {self.settings.lr} or a --clip below "
            f"{self.settings.clip or 'infinity'}"
        )

    def _log(self, rate: float) -> None:
        """One line of metrics about the steps since the last one."""
        self._settle()
        counters = self.counters
        losses, norms = zip(*counters.window, strict=True)
        loss = math.fsum(losses) / len(losses)
        now = time.monotonic()
        speed = (counters.step - self._mark[0]) * self.task.per_step / max(now - self._mark[1], 1e-9)
        self._mark = (counters.step, now)
        self._metrics.append(
            {
                "kind": "train",
                "step": counters.step,
                "loss": loss,
                **self.task.measures(loss),
                "lr": rate,
                "grad_norm": math.fsum(norms) / len(norms),
                f"{self.task.unit}s_per_second": round(speed, 1),
                "seconds": round(now - self._began, 3),
            }
        )
        self._status = f"{self._words(loss)}  {speed:,.0f} {self.task.unit}s/s"
        counters.window.clear()

    def _describe(self) -> str:
        """The state of the training in a few words."""
        if not self._status:
            self._settle()
            return self._words(self.counters.window[-1][0])
        return self._status

    def _words(self, loss: float) -> str:
        """The loss with its units."""
        others = "".join(f"  {value:.3f} {name}" for name, value in self.task.measures(loss).items())
        return f"loss {loss:.3f} {self.task.quantity}{others} per {self.task.unit}"

    def _evaluate(self) -> None:
        """Validate; keep the weights if they are the best so far; stop if there is nothing more to gain."""
        counters, step = self.counters, self.counters.step
        found = self.task.validate()
        loss = found["loss"]
        if not math.isfinite(loss):
            self._diverged(step, f"validation loss {loss}")
        value = found[self.measure]
        better = counters.best is None or self._rank(value, loss) > self._rank(counters.best, counters.best_loss)
        if better:
            counters.best, counters.best_loss, counters.best_step, counters.stale = value, loss, step, 0
            self.run.save("best", checkpoint.weights(self.task.model), {"step": step, "loss": loss})
        else:
            counters.stale += 1
        if step >= counters.steps:
            counters.finished = "steps"
        elif self.settings.patience and counters.stale >= self.settings.patience:
            counters.finished = "patience"
        record: dict[str, Any] = {
            "kind": "eval",
            "step": step,
            **found,
            **self.task.measures(loss),
            "best": counters.best,
        }
        others = "".join(f"  {name} {value:.4f}" for name, value in found.items() if name != "loss")
        mark = f"  (best{'' if self.measure == 'loss' else ' ' + self.measure})" if better else ""
        self.display.say(f"step {step}: validation {self._words(loss)}{others}{mark}")
        if self.sample is not None:
            self.task.model.eval()
            text = self.sample(step)
            if text is not None:
                record["sample"] = text
                self.display.say("".join(f"    | {line}\n" for line in text.splitlines()))
        self._metrics.append({**record, "seconds": round(time.monotonic() - self._began, 3)})
        self.task.model.train()
        self._mark = (step, time.monotonic())

    def _rank(self, value: float, loss: float) -> tuple[float, float]:
        """How good an evaluation is: of equal ones that with the lower loss, and a value that is none comes last."""
        return (-math.inf if math.isnan(value) else self.task.better[self.measure] * value), -loss

    def _save(self) -> None:
        """Write `last`; everything up to now is then safe."""
        self._settle()
        self.counters.seconds = time.monotonic() - self._began
        self._position = self._metrics.position()
        self.run.save("last", self._tensors(), {**asdict(self.counters), "metrics": self._position})
        self._saved = (self.counters.step, time.monotonic())

    def _tensors(self) -> dict[str, Tensor]:
        return checkpoint.pack(self.task.model, self._optimizer, self.task.carried())


def _chosen(spelled: str, measures: Mapping[str, int]) -> str:
    """The measure that `--best` means. OptionError: there is none of this name."""
    names = {name.lower().replace(" ", "-"): name for name in measures}
    if spelled not in names:
        raise OptionError(f"--best {spelled}: expected a measure of this training: {', '.join(names)}")
    return names[spelled]
