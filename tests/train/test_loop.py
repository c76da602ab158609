import io
import json
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from cellwright import CellwrightError, OptionError
from cellwright.train import loop
from cellwright.train.loop import Trainer
from cellwright.train.progress import Lines
from cellwright.train.run import Run


@dataclass
class Settings:
    steps: int = 25
    lr: float = 0.05
    warmup_steps: int = 3
    decay: str = "cosine"
    final: float = 0.1
    clip: float = 1.0
    patience: int = 0
    eval_every: int = 7
    best: str = "loss"


class Toy:
    """A task with everything that makes an exact resume hard: dropout, a carried value, a place in the data."""

    unit = "number"
    quantity = "nats"
    per_step = 8
    reading = 0.0
    better: ClassVar = {"loss": -1, "largest": -1, "Mean Hits": 1}

    def __init__(self, poison: int = -1, validation: list[Any] | None = None) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1))
        self.data = torch.randn(40, 8, 4)
        self.hidden = torch.zeros(8, 1)
        self.poison, self.validation = poison, validation
        self.evaluations = 0

    def loss(self, step: int) -> Tensor:
        x = self.data[step % 40]
        y = self.model(x) + 0.5 * self.hidden
        self.hidden = y.detach()
        return (y - x.sum(1, keepdim=True)).square().mean() * (math.nan if step == self.poison else 1.0)

    def carried(self) -> dict[str, Tensor]:
        return {"hidden": self.hidden}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        self.hidden = tensors["hidden"]

    def validate(self) -> dict[str, float]:
        self.evaluations += 1
        if self.validation is not None:
            found = self.validation[self.evaluations - 1]
            return found if isinstance(found, dict) else {"loss": found}
        self.model.eval()
        with torch.no_grad():
            error = self.model(self.data[-1]) - self.data[-1].sum(1, keepdim=True)
        return {"loss": float(error.square().mean()), "largest": float(error.abs().max())}

    def test(self) -> dict[str, float] | None:
        return self.validate()

    def measures(self, loss: float) -> dict[str, float]:
        return {"double": 2 * loss}


class Interruption(Lines):
    """A display that does something at a step."""

    def __init__(self, at: int = -1, what: Callable[[], Any] = lambda: None) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.at, self.what = at, what

    def update(self, done: int, status: Callable[[], str]) -> None:
        super().update(done, status)
        if done == self.at:
            self.what()


def trainer(
    path: Path, settings: Settings | None = None, task: Toy | None = None, display: Interruption | None = None
) -> Trainer:
    """A new training in `path`, or the one that is there, resumed."""
    made = Trainer(task or Toy(), settings or Settings(), display or Interruption(), lambda step: f"sample {step}")
    if path.exists():
        run = Run.open(path)
        made.resume(run, *run.load("last"))
    else:
        made.begin(path, {"config.json": {}})
    return made


def metrics(path: Path) -> list[dict[str, Any]]:
    """The log without the times, which differ from run to run."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "numbers_per_second")} for line in lines]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A training without interruption."""
    assert trainer(tmp_path / "whole").train()
    return tmp_path / "whole"


def same(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    for which in ("best", "last"):
        left, right = (Run.open(path).load(which)[0] for path in (one, other))
        assert left.keys() == right.keys()
        assert all(t.equal(right[name]) for name, t in left.items())


def test_the_log_has_every_step_once(whole: Path) -> None:
    lines = metrics(whole)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [7, 10, 14, 20, 21, 25]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [7, 14, 21, 25]
    assert all(line["double"] == 2 * line["loss"] for line in lines)
    assert [line["sample"] for line in lines if line["kind"] == "eval"] == [f"sample {n}" for n in (7, 14, 21, 25)]
    losses = [line["loss"] for line in lines if line["kind"] == "eval"]
    assert [line["best"] for line in lines if line["kind"] == "eval"] == [min(losses[: i + 1]) for i in range(4)]


def test_a_line_is_the_mean_since_the_one_before(tmp_path: Path, whole: Path) -> None:
    settings, task = Settings(), Toy()
    seen: list[float] = []
    inner = task.loss
    task.loss = lambda step: (seen.append((loss := inner(step)).item()), loss)[1]  # type: ignore[method-assign]
    trainer(tmp_path / "run", settings, task).train()
    means = [sum(seen[a:b]) / (b - a) for a, b in [(0, 7), (7, 10), (10, 14), (14, 20), (20, 21), (21, 25)]]
    assert [line["loss"] for line in metrics(whole) if line["kind"] == "train"] == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize("step", [1, 7, 9, 10, 20, 24])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_it_goes_on_exactly(tmp_path: Path, whole: Path, step: int, number: int) -> None:
    path = tmp_path / "run"
    first = trainer(path, display=Interruption(step, lambda: signal.raise_signal(number)))
    assert not first.train()
    assert Run.open(path).load("last")[1]["step"] == step
    torch.manual_seed(99)
    assert trainer(path).train()
    same(path, whole)


def test_many_interruptions_are_as_good_as_one(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "run"
    for step in range(2, 25, 2):
        assert not trainer(path, display=Interruption(step, lambda: signal.raise_signal(signal.SIGINT))).train()
    assert trainer(path).train()
    same(path, whole)


class CrashError(BaseException):
    """The end of the process, as seen from inside."""


def crash() -> None:
    raise CrashError


@pytest.mark.parametrize("step", [3, 8, 13, 22])
def test_after_a_crash_it_goes_on_from_the_last_checkpoint(tmp_path: Path, whole: Path, step: int) -> None:
    path = tmp_path / "run"
    with pytest.raises(CrashError):
        trainer(path, display=Interruption(step, crash)).train()
    assert Run.open(path).load("last")[1]["step"] == step // 7 * 7
    assert trainer(path).train()
    same(path, whole)


@pytest.mark.parametrize("save", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("which", ["best", "last"])
def test_a_crash_while_weights_are_written_costs_nothing(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, which: str, save: int
) -> None:
    path = tmp_path / "run"
    calls = 0
    replace = loop.Run.save.__globals__["files"].os.replace

    def fail(source: Path, target: Path) -> None:
        nonlocal calls
        calls += target.name == f"{which}.safetensors"
        if target.name == f"{which}.safetensors" and calls == save:
            raise CrashError
        replace(source, target)

    started = trainer(path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        try:
            started.train()
        except CrashError:
            assert Run.open(path).load("last")[1]["step"] in (0, 7, 14, 21)
    assert trainer(path).train()
    same(path, whole)


def test_it_saves_every_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(CrashError):
        trainer(tmp_path / "run", display=Interruption(13, crash)).train()
    assert Run.open(tmp_path / "run").load("last")[1]["step"] == 12
    assert trainer(tmp_path / "run").train()
    same(tmp_path / "run", whole)


def test_it_can_be_resumed_from_the_first_moment(tmp_path: Path, whole: Path) -> None:
    trainer(tmp_path / "run")
    assert trainer(tmp_path / "run").train()
    same(tmp_path / "run", whole)


def test_a_finished_training_has_nothing_to_do(whole: Path) -> None:
    before = metrics(whole)
    assert trainer(whole).train()
    assert metrics(whole) == before


def test_more_steps_stretch_the_schedule_and_go_on(tmp_path: Path, whole: Path) -> None:
    before = metrics(whole)
    assert trainer(whole, Settings(steps=40)).train()
    after = metrics(whole)
    assert after[: len(before)] == before
    assert after[-1]["step"] == 40
    assert Run.open(whole).load("last")[1]["steps"] == 40


def test_the_best_weights_are_kept_and_the_test_is_theirs(tmp_path: Path) -> None:
    task = Toy(validation=[3.0, 1.0, 2.0, 1.0])
    run = trainer(tmp_path / "run", task=task)
    assert run.train()
    assert (run.counters.best, run.counters.best_step) == (1.0, 14)
    best = run.run.load("best")[0]
    assert not all(t.equal(best[name]) for name, t in task.model.state_dict().items())
    task.validation = None
    found = run.conclude()
    assert found is not None
    assert found.keys() == {"loss", "largest"}
    assert all(t.equal(best[name]) for name, t in task.model.state_dict().items())
    assert metrics(tmp_path / "run")[-1] == {"kind": "test", "step": 14, **found, "double": 2 * found["loss"]}


def measured(*pairs: tuple[float, float]) -> list[Any]:
    return [{"loss": loss, "Mean Hits": hits} for loss, hits in pairs]


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (measured((3, 0.5), (1, 0.2), (2, 0.7), (1, 0.6)), 21),
        (measured((3, 0.5), (1, 0.2), (2, 0.5), (2, 0.5)), 14 + 7),  # of equal ones, the first with the lowest loss
        (measured((3, math.nan), (2, math.nan), (4, 0.0), (5, math.nan)), 21),
        (measured((3, 0.9), (1, 0.2), (2, math.nan), (1, -math.inf)), 7),
    ],
)
def test_another_measure_chooses_the_weights(tmp_path: Path, values: list[Any], step: int) -> None:
    shown = Interruption()
    run = trainer(tmp_path / "run", Settings(best="mean-hits"), Toy(validation=values), shown)
    assert run.train()
    counters = run.counters
    chosen = values[step // 7 - 1]
    assert (counters.best_step, counters.best, counters.best_loss) == (step, chosen["Mean Hits"], chosen["loss"])
    assert run.run.load("best")[1] == {"step": step, "loss": chosen["loss"]}
    said = shown._console.file.getvalue()  # type: ignore[attr-defined]
    assert f"step {step}: validation" in said and "(best Mean Hits)" in said and "(best)" not in said
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "eval"]
    assert lines[-1]["best"] == chosen["Mean Hits"]


def test_early_stopping_follows_the_measure(tmp_path: Path) -> None:
    values = measured((3, 0.1), (2, 0.4), (1, 0.3), (0.5, 0.2), (0.1, 0.9))
    run = trainer(tmp_path / "run", Settings(steps=100, patience=2, best="mean-hits"), Toy(validation=values))
    assert run.train()
    assert (run.counters.finished, run.counters.step, run.counters.best_step) == ("patience", 28, 14)
    # a score that is 0 at first is no reason to stop while the loss falls
    values = measured(*((10 - k, 0.0) for k in range(6)), (11, 0.0), (11, 0.0))
    run = trainer(tmp_path / "zero", Settings(steps=100, patience=2, best="mean-hits"), Toy(validation=values))
    assert run.train()
    assert (run.counters.step, run.counters.best_step) == (56, 42)


@pytest.mark.parametrize("step", [5, 15, 20])
def test_the_measure_goes_on_exactly(tmp_path: Path, step: int) -> None:
    settings = Settings(best="largest")
    assert trainer(tmp_path / "whole", settings).train()
    stop = Interruption(step, lambda: signal.raise_signal(signal.SIGINT))
    assert not trainer(tmp_path / "run", settings, display=stop).train()
    assert trainer(tmp_path / "run", settings).train()
    same(tmp_path / "run", tmp_path / "whole")
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "eval"]
    assert lines[-1]["best"] == min(line["largest"] for line in lines)


def test_a_measure_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--best hits: expected .*: loss, largest, mean-hits$"):
        trainer(tmp_path / "run", Settings(best="hits"))
    assert not (tmp_path / "run").exists()


def test_it_stops_early_and_says_why(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", Settings(steps=100, patience=2), Toy(validation=[3.0, 2.0, 2.0, 2.5, 1.0]))
    assert run.train()
    assert (run.counters.finished, run.counters.step, run.counters.best_step) == ("patience", 28, 14)
    longer = trainer(tmp_path / "run", Settings(steps=105, patience=2), Toy(validation=[9.0, 1.5, 9.0, 9.0]))
    assert longer.train()
    assert (longer.counters.step, longer.counters.best_step) == (56, 42)


@pytest.mark.parametrize("step", [0, 5, 8, 9, 13, 24])
def test_a_loss_that_is_not_finite_leaves_the_good_weights(tmp_path: Path, step: int) -> None:
    path = tmp_path / "run"
    with pytest.raises(CellwrightError) as caught:
        trainer(path, task=Toy(poison=step)).train()
    message = str(caught.value)
    assert f"not finite at step {step + 1} (loss nan" in message
    assert f"the weights of step {step // 7 * 7} are kept" in message
    assert "--lr than 0.05" in message
    run = Run.open(path)
    tensors, counters = run.load("last")
    assert counters["step"] == step // 7 * 7
    assert all(t.isfinite().all() for name, t in tensors.items() if t.is_floating_point())
    if step > 7:
        assert all(t.isfinite().all() for t in run.load("best")[0].values())


def test_an_interruption_does_not_save_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "run"
    display = Interruption(9, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(CellwrightError, match="not finite at step 9"):
        trainer(path, task=Toy(poison=8), display=display).train()
    assert Run.open(path).load("last")[1]["step"] == 7


def test_a_validation_loss_that_is_not_finite_stops_as_well(tmp_path: Path) -> None:
    with pytest.raises(CellwrightError, match=r"not finite at step 14 \(validation loss nan"):
        trainer(tmp_path / "run", task=Toy(validation=[1.0, math.nan])).train()
    assert Run.open(tmp_path / "run").load("best")[1]["step"] == 7


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    def first_step(clip: float) -> tuple[float, float]:
        task = Toy()
        before = task.model[0].weight.clone()
        run = Trainer(task, Settings(steps=1, clip=clip), Interruption())
        run._optimizer = torch.optim.SGD(task.model.parameters(), lr=1.0)
        run.begin(tmp_path / f"{clip}", {"config.json": {}})
        run.train()
        moved = (task.model[0].weight - before).norm().item()
        return moved, metrics(tmp_path / f"{clip}")[0]["grad_norm"]

    free, norm = first_step(0.0)
    clipped, same_norm = first_step(0.01)
    assert norm == same_norm > 0.01
    assert clipped == pytest.approx(free * 0.01 / norm, rel=1e-3)
