"""`inspect gradients` of runs of every task: the losses that it looks back from are those of the task."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright.app.runs import load
from cellwright.nn import gradient_norms
from cellwright.tasks.data.parts import VALIDATION
from cellwright.tasks.music.rolls import VALIDATION as MUSIC

from .conftest import Result, refused
from .test_music import scales
from .test_probe import columns
from .test_sequences import numbers, pictures, table
from .test_speech import corpus

Cli = Callable[..., Result]
SMALL = ("--hidden", 6, "--steps", 4, "--eval-every", 2)


def trained(cli: Cli, folder: Path, task: str, *data: object) -> tuple[Any, Any]:
    """The task of a new run, in evaluation, and what it is looked at through."""
    done = cli("train", task, *data, "--out", folder / "run", *SMALL)
    assert done.code == 0, done
    found = cli("inspect", "gradients", folder / "run", "--sequences", 3, "--last")
    assert found.code == 0, found
    curves = columns(found.out)
    assert curves and all(math.isfinite(v) and v >= 0 for curve in curves.values() for v in curve.values())
    assert any(curve[1] > 0 for curve in curves.values()), found.out
    loaded = load(folder / "run", "last")
    made = loaded.job.task(loaded.config, loaded.net, loaded.job.read(loaded.config))
    made.model.eval()
    return loaded, made


def waves(path: Path) -> Path:
    rows = (f"{t},{math.sin(t / 3) + random.Random(t).random():.4f}" for t in range(120))
    path.write_text("time,y\n" + "\n".join(rows) + "\n")
    return path


def test_of_a_forecast(cli: Cli, tmp_path: Path) -> None:
    options = ("--window", 8, "--horizon", 1, "--season", 6)
    loaded, task = trained(cli, tmp_path, "forecast", waves(tmp_path / "a.csv"), *options)
    layer, losses = loaded.job.last_losses(task, 1000, None)
    assert layer is task.model.encoder
    assert losses().mean().item() == pytest.approx(task.validate()["loss"], rel=1e-5), "one step: it is the last one"
    norms = gradient_norms(layer, losses)
    assert len(norms["h_l0"]) == 8


def test_of_a_translation(cli: Cli, tmp_path: Path) -> None:
    loaded, task = trained(cli, tmp_path, "translate", table(tmp_path / "a.tsv", numbers(60)))
    layer, losses = loaded.job.last_losses(task, 1000, None)
    assert layer is task.model.encoder.recurrent
    total, count = loaded.net.nats(task.batches, task.data.pairs(VALIDATION))
    assert losses().sum().item() == pytest.approx(total, rel=1e-5)
    assert count > len(losses())


def test_of_a_caption(cli: Cli, tmp_path: Path) -> None:
    loaded, task = trained(cli, tmp_path, "caption", *pictures(tmp_path))
    layer, losses = loaded.job.last_losses(task, 1000, None)
    assert layer is task.model.decoder.recurrent
    each, ends = task.losses(1000)
    assert losses().tolist() == [each[end, b] for b, end in enumerate(ends.tolist())]
    total, _ = loaded.net.nats(task.batches, task.data.pairs(VALIDATION))
    assert each.sum().item() == pytest.approx(total, rel=1e-5), "nothing after the ends"


def test_a_decoder_that_is_called_step_by_step_is_refused(cli: Cli, tmp_path: Path) -> None:
    """That of several layers with Bahdanau's attention; a single layer is one call."""
    data = pictures(tmp_path)
    for layers, run in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        options = ("--attention", "bahdanau", "--layers", layers, "--out", run, *SMALL)
        assert cli("train", "caption", *data, *options).code == 0
    assert "h_l0" in cli("inspect", "gradients", tmp_path / "one").out
    refused(cli("inspect", "gradients", tmp_path / "two"), "--attention bahdanau", "one call over all steps")


def test_of_music(cli: Cli, tmp_path: Path) -> None:
    loaded, task = trained(cli, tmp_path, "music", scales(tmp_path / "a.json", 20))
    count = len(task.data.part(MUSIC))
    first = loaded.job.last_losses(task, count, 1)[1]()
    found, lengths = task.validate(), task.data.keys.lengths[task.data.part(MUSIC)]
    steps = int(lengths.sum())
    whole = found["loss"] * steps - found["without first step"] * (steps - count)
    assert first.sum().item() == pytest.approx(whole, rel=1e-4), "the first step is all that it looks at"
    norms = gradient_norms(*loaded.job.last_losses(task, count, None))
    assert len(norms["h_l0"]) == lengths.max()


def test_of_speech(cli: Cli, tmp_path: Path) -> None:
    loaded, task = trained(cli, tmp_path, "speech", corpus(tmp_path / "talks", 24))
    _, losses = loaded.job.last_losses(task, 1000, None)
    part = task.data.part(VALIDATION)
    heard = {index: scores[-1].max() for index, scores, _ in loaded.net.run(loaded.net.batches(task.data), part)}
    np.testing.assert_allclose(losses().detach().numpy(), [-heard[index] for index in part.tolist()], rtol=1e-4)
