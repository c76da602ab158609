"""A task and the training loop, put together: what the commands, the estimators and `examples/demo.py` call."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..errors import CellwrightError, DataError, OptionError, RunError
from ..tasks.job import Job, find
from ..tasks.settings import TrainConfig
from ..train.checkpoint import load_weights
from ..train.loop import Trainer
from ..train.progress import Display
from ..train.run import CONFIG, Run, Which, check_free


@dataclass(frozen=True)
class Loaded:
    """A run folder, read: task, settings, and a net with the weights that were asked for."""

    run: Run
    job: Job
    config: Any
    net: Any


@dataclass(frozen=True)
class Asked:
    """What is wanted besides a training: where its time goes, and pictures of it in the run folder."""

    profile: bool = False
    plot: bool = False


NOTHING_MORE = Asked()


def load(path: Path, which: Which = "best") -> Loaded:
    """The net of a run folder. RunError: absent, damaged, edited, or of another version."""
    loaded, tensors, _ = _open(path, which)
    if which == "last":
        tensors = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    load_weights(loaded.net.model, tensors, path)
    return loaded


def start(config: TrainConfig, out: Path, display: Display, asked: Asked = NOTHING_MORE, data: Any = None) -> bool:
    """Train into the new folder `out`; True: to the end, False: until Ctrl-C. `data`: instead of what is read.

    Nothing is written before the settings, the data and the folder have been checked.
    OptionError, DataError, RunError: one of them is not right. CellwrightError: the loss is not finite.
    """
    check_free(out)
    _check_plot(asked)
    job = find(config.task)
    config = config.absolute()
    data = job.read(config) if data is None else data
    config = job.settle(config, data)
    documents = job.learn(config, data)
    torch.manual_seed(config.seed)
    net = job.build(config, documents)
    task = job.task(config, net, data)
    trainer = _trainer(job, config, net, task, display)
    stamp = {"task": config.task, "config": config.model_dump(), "data": data.summary}
    trainer.begin(out, {CONFIG: stamp, **documents})
    _introduce(job, config, net, data, trainer, out, display)
    return _train(trainer, job, config, net, out, display, asked)


def resume(path: Path, steps: int | None, display: Display, asked: Asked = NOTHING_MORE, task: str = "") -> bool:
    """Go on with a training, to another number of steps if that is given; True: to the end, False: until Ctrl-C.

    RunError: not a sound run folder, or of another task than `task`. DataError: the data are not the same any more.
    OptionError: it is past `steps`.
    """
    _check_plot(asked)
    loaded, tensors, counters = _open(path, "last")
    job, net = loaded.job, loaded.net
    if task and job.config.task != task:
        raise RunError(f"{path} is a run of {job.config.task}: cellwright train {job.config.task} --resume {path}")
    if steps is not None and steps < counters["step"]:
        raise OptionError(f"--steps {steps}: {path} is at step {counters['step']} already; give a larger number")
    config = loaded.config.with_steps(steps or counters["steps"])
    data = job.read(config)
    if data.digest != loaded.run.documents[CONFIG]["data"]["sha256"]:
        names = ", ".join(getattr(config, config.paths[0]) if config.paths else [config.task]) or "Python"
        raise DataError(
            f"the data are not the ones that {path} was started with ({names}): what was there is not the one that was "
            f"read then; put it back, or train on the new data with another --out"
        )
    trainer = _trainer(job, config, net, job.task(config, net, data), display)
    trainer.resume(loaded.run, tensors, counters)
    if trainer.counters.finished:
        display.say(f"{path} was finished after step {trainer.counters.step}; give a larger --steps to train longer")
        _report(trainer, job, config, net, path, display, asked)
        return True
    _introduce(job, config, net, data, trainer, path, display)
    display.say(f"going on after step {trainer.counters.step}")
    return _train(trainer, job, config, net, path, display, asked)


def _open(path: Path, which: Which) -> tuple[Loaded, dict[str, Tensor], dict[str, Any]]:
    """A run folder with a net that has no weights yet, and the tensors and counters of a file of weights."""
    run = Run.open(path)
    tensors, counters = run.load(which)
    try:
        job = find(run.documents[CONFIG]["task"])
        config = job.config.model_validate_json(json.dumps(run.documents[CONFIG]["config"]))
        net = job.build(config, run.documents)
    except RunError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError, CellwrightError) as error:
        raise RunError(f"{path} is not a run of a task of this version: {error}; train again") from None
    return Loaded(run, job, config, net), tensors, counters


def _trainer(job: Job, config: Any, net: Any, task: Any, display: Display) -> Trainer:
    return Trainer(task, config, display, lambda step: job.sample(config, net, step))


def _train(trainer: Trainer, job: Job, config: Any, net: Any, path: Path, display: Display, asked: Asked) -> bool:
    """Run the loop, and say how it ended."""
    complete = trainer.train()
    if asked.profile:
        display.say(spent(trainer.spent))
    if complete:
        _report(trainer, job, config, net, path, display, asked)
        return True
    command = f"cellwright train {config.task} --resume {shlex.quote(str(path))}"
    display.say(f"stopped after step {trainer.counters.step} and saved; to go on:\n  {command}")
    return False


def spent(seconds: Mapping[str, float]) -> str:
    """Where the time went, and how much of a step that was: evaluations and files are beside the steps."""
    steps = sum(s for name, s in seconds.items() if name not in ("evaluation", "saving"))
    net = sum(seconds[name] for name in ("forward", "backward", "update") if name in seconds)
    rows = [f"  {name:10} {s:9.2f} s {s / max(steps, 1e-9):7.1%} of the steps" for name, s in seconds.items()]
    return "\n".join(("time", *rows, f"  outside the net: {1 - net / max(steps, 1e-9):.1%} of the steps"))


def _introduce(job: Job, config: Any, net: Any, data: Any, trainer: Trainer, path: Path, display: Display) -> None:
    """The whole effective setting in a few lines."""
    rows = job.facts(config, net, data, trainer.task)
    rows["plan"] = [
        *rows.get("plan", []),
        f"evaluation every {config.eval_every}",
        f"the best {trainer.measure}" if trainer.measure != "loss" else "",
        f"patience {config.patience}" if config.patience else "no early stopping",
        f"seed {config.seed}",
    ]
    rows["rate"] = [
        f"Adam, learning rate {config.lr:g}",
        f"warm-up {config.warmup_steps} steps",
        f"cosine decay to {config.lr * config.final:g}" if config.decay == "cosine" else "no decay",
        f"gradient norm up to {config.clip:g}" if config.clip else "no clipping",
    ]
    rows["run"] = [str(path)]
    display.say("\n".join(f"{name:6} {', '.join(filter(None, facts))}" for name, facts in rows.items()))


def _report(trainer: Trainer, job: Job, config: Any, net: Any, path: Path, display: Display, asked: Asked) -> None:
    """The results, and what to do with them."""
    counters = trainer.counters
    if counters.finished == "patience":
        display.say(f"stopped early after step {counters.step}: {counters.stale} evaluations without improvement")
    best = job.loss_words(trainer.task, {"loss": counters.best_loss, trainer.measure: counters.best or 0.0})
    display.say(f"validation  {best}, best at step {counters.best_step}")
    if (test := trainer.conclude()) is not None:
        display.say(f"test        {job.loss_words(trainer.task, test)}, with the weights of that step")
    if asked.plot:
        from .plot import pictures

        for file in pictures(path, job, config, net, trainer.task):
            display.say(f"picture     {file}")
    display.say(job.after(shlex.quote(str(path))))


def _check_plot(asked: Asked) -> None:
    if asked.plot:
        from .plot import check

        check()
