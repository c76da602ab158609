"""The character model and the training loop, put together: what the commands and `examples/demo.py` call."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..errors import CellError, DataError, OptionError, RunError
from ..lang import Definition
from ..tasks.charlm import VALIDATION_LIMIT, CharLM, CharModel, definitions, evaluate
from ..tasks.charlm_config import CharLMConfig
from ..tasks.text import Corpus, read
from ..tasks.vocabulary import Vocabulary
from ..train.checkpoint import load_weights
from ..train.loop import Trainer
from ..train.progress import Display
from ..train.run import CONFIG, Run, Which, check_free
from .generate import generate

_VOCABULARY = "vocabulary.json"
_CELLS = "cells.json"


@dataclass(frozen=True)
class Loaded:
    """A run folder, read: settings, vocabulary, and a model with the weights that were asked for."""

    run: Run
    config: CharLMConfig
    vocabulary: Vocabulary
    model: CharModel


def load(path: Path, which: Which = "best") -> Loaded:
    """The model of a run folder. RunError: absent, damaged, edited, or of another version."""
    loaded, tensors, _ = _open(path, which)
    if which == "last":
        tensors = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    load_weights(loaded.model, tensors, path)
    return loaded


def start(config: CharLMConfig, out: Path, display: Display) -> bool:
    """Train into the new folder `out`; True: to the end, False: until Ctrl-C.

    Nothing is written before the settings, the text and the folder have been checked.
    OptionError, DataError, RunError: one of them is not right. CellwrightError: the loss is not finite.
    """
    check_free(out)
    config = config.model_copy(update={"texts": tuple(str(Path(text).absolute()) for text in config.texts)})
    corpus = read(config.texts, config.glob)
    vocabulary = Vocabulary.build(corpus.text, config.level)
    cells, embed = definitions(config, len(vocabulary))
    torch.manual_seed(config.seed)
    model = CharModel(cells, len(vocabulary), embed=embed, tie=config.tie, dropout=config.dropout, **config.wrappers)
    task = CharLM(config, model, vocabulary, vocabulary.encode(corpus.text))
    trainer = _trainer(task, config, vocabulary, display)
    documents = {
        CONFIG: {
            "task": "charlm",
            "config": config.model_dump(),
            "text": {"sha256": corpus.digest, "characters": len(corpus.text), "files": corpus.files},
        },
        _VOCABULARY: vocabulary.to_json(),
        _CELLS: {"embed": embed, "layers": [cell.to_json() for cell in cells]},
    }
    trainer.begin(out, documents)
    _introduce(task, config, vocabulary, corpus, out, display)
    return _train(trainer, out, display)


def resume(path: Path, steps: int | None, display: Display) -> bool:
    """Go on with a training, to another number of steps if that is given; True: to the end, False: until Ctrl-C.

    RunError: not a sound run folder. DataError: the text is not the same any more. OptionError: it is past `steps`.
    """
    loaded, tensors, counters = _open(path, "last")
    if steps is not None and steps < counters["step"]:
        raise OptionError(f"--steps {steps}: {path} is at step {counters['step']} already; give a larger number")
    config = loaded.config.with_steps(steps or counters["steps"])
    corpus = read(config.texts, config.glob)
    if corpus.digest != loaded.run.documents[CONFIG]["text"]["sha256"]:
        raise DataError(
            f"the text is not the one that {path} was started with ({', '.join(config.texts) or 'Python'}); put it "
            f"back, or train on the new text with another --out"
        )
    task = CharLM(config, loaded.model, loaded.vocabulary, loaded.vocabulary.encode(corpus.text))
    trainer = _trainer(task, config, loaded.vocabulary, display)
    trainer.resume(loaded.run, tensors, counters)
    if trainer.counters.finished:
        display.say(f"{path} was finished after step {trainer.counters.step}; give a larger --steps to train longer")
        _report(trainer, path, display)
        return True
    _introduce(task, config, loaded.vocabulary, corpus, path, display)
    display.say(f"going on after step {trainer.counters.step}")
    return _train(trainer, path, display)


def measure(loaded: Loaded, corpus: Corpus) -> str:
    """How well a model predicts a text, in words. DataError: too short, or characters outside the vocabulary."""
    ids = loaded.vocabulary.encode(corpus.text)
    nats = evaluate(loaded.model, ids).nats
    text = f"{len(corpus.text):,} characters"
    if loaded.config.level == "byte":
        text = f"{len(ids):,} bytes, {nats:.4f} nats and {nats / math.log(2):.4f} bits per byte\n{text}"
        nats *= len(ids) / len(corpus.text)
    note = f"\n{corpus.note}" if corpus.note else ""
    return f"{text}, {nats:.4f} nats and {nats / math.log(2):.4f} bits per character{note}"


def _open(path: Path, which: Which) -> tuple[Loaded, dict[str, Tensor], dict[str, Any]]:
    """A run folder with a model that has no weights yet, and the tensors and counters of a file of weights."""
    run = Run.open(path)
    tensors, counters = run.load(which)
    try:
        config = CharLMConfig.model_validate_json(json.dumps(run.documents[CONFIG]["config"]))
        vocabulary = Vocabulary.from_json(run.documents[_VOCABULARY])
        embed, layers = run.documents[_CELLS]["embed"], run.documents[_CELLS]["layers"]
        cells = [Definition.from_json(layer) for layer in layers]
    except (KeyError, TypeError, AttributeError, ValidationError, CellError) as error:
        raise RunError(f"{path} is not the run of a character model of this version: {error}; train again") from None
    model = CharModel(cells, len(vocabulary), embed=embed, tie=config.tie, dropout=config.dropout, **config.wrappers)
    return Loaded(run, config, vocabulary, model), tensors, counters


def _trainer(task: CharLM, config: CharLMConfig, vocabulary: Vocabulary, display: Display) -> Trainer:
    def sample(step: int) -> str:
        pieces = generate(task.model, vocabulary, length=config.sample_length, seed=config.seed + step)
        return "".join(pieces)

    return Trainer(task, config, display, sample if config.sample_length else None)


def _train(trainer: Trainer, path: Path, display: Display) -> bool:
    """Run the loop, and say how it ended."""
    if trainer.train():
        _report(trainer, path, display)
        return True
    command = f"cellwright train charlm --resume {shlex.quote(str(path))}"
    display.say(f"stopped after step {trainer.counters.step} and saved; to go on:\n  {command}")
    return False


def _introduce(
    task: CharLM, config: CharLMConfig, vocabulary: Vocabulary, corpus: Corpus, path: Path, display: Display
) -> None:
    """The whole effective setting in a few lines."""
    parameters = sum(p.numel() for p in task.model.parameters())
    embed = task.model.embed
    model = [
        f"{config.layers} x {config.cell} {config.hidden}",
        *(f"{name}={value}" for name, value in config.options.items()),
        "one-hot input" if embed is None else f"embedding of {embed.embedding_dim}",
        *(["tied output"] if config.tie else []),
        f"dropout {config.dropout:g}",
        *(f"{name.replace('_', ' ')} {rate:g}" for name, rate in config.wrappers.items()),
        f"{parameters:,} parameters",
    ]
    text = [
        f"{len(corpus.text):,} characters",
        f"{len(vocabulary)} symbols",
        "" if config.texts else "the source of Python's library",
        f"{corpus.files} file{'s' if corpus.files != 1 else ''}",
        corpus.note,
    ]
    checked = min(len(task.validation_ids), VALIDATION_LIMIT)
    split = [
        f"{task.training_count:,} {task.unit}s to train on",
        f"{len(task.validation_ids):,} for validation (the first {checked:,} at each evaluation)",
        f"{len(task.test_ids):,} for the test",
    ]
    plan = [
        f"{config.steps} steps of {config.batch} x {config.chunk} {task.unit}s",
        f"{config.steps / task.streams.chunks:.1f} epochs",
        f"evaluation every {config.eval_every}",
        f"patience {config.patience}" if config.patience else "no early stopping",
        f"seed {config.seed}",
    ]
    adam = [
        f"Adam, learning rate {config.lr:g}",
        f"warm-up {config.warmup_steps} steps",
        f"cosine decay to {config.lr * config.final:g}" if config.decay == "cosine" else "no decay",
        f"gradient norm up to {config.clip:g}" if config.clip else "no clipping",
    ]
    rows = {"model": model, "text": text, "split": split, "plan": plan, "rate": adam, "run": [str(path)]}
    display.say("\n".join(f"{name:6} {', '.join(filter(None, facts))}" for name, facts in rows.items()))


def _report(trainer: Trainer, path: Path, display: Display) -> None:
    """The results, and what to do with them."""
    counters = trainer.counters
    if counters.finished == "patience":
        display.say(f"stopped early after step {counters.step}: {counters.stale} evaluations without improvement")
    display.say(f"validation  {_loss(trainer, counters.best)}, best at step {counters.best_step}")
    if (test := trainer.conclude()) is not None:
        display.say(f"test        {_loss(trainer, test)}, with the weights of that step")
    folder = shlex.quote(str(path))
    display.say(f"the run is in {path}; let it write with:\n  cellwright generate {folder}")


def _loss(trainer: Trainer, loss: Any) -> str:
    bits = trainer.task.measures(loss)["bits"]
    return f"{loss:.4f} nats, {bits:.4f} bits per {trainer.task.unit}"
