"""`--best`: every task keeps the weights by the measure that was asked for, and names those that it has."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellwright import Classifier
from cellwright.tasks.classify.config import ClassifyConfig
from cellwright.tasks.sequences.scores import there

from .conftest import Result, assert_resumes_exactly, refused
from .test_forecast import hourly
from .test_labels import conll, frames, sentences, table, texts
from .test_music import scales
from .test_sequences import numbers, pictures
from .test_sequences import table as pairs

Cli = Callable[..., Result]
LESS, MORE = min, max
SCORES = {"bleu": ("BLEU", MORE), "chrf": ("chrF", MORE)} if there() else {}
LABELS = {"accuracy": ("accuracy", MORE), "macro-f1": ("macro F1", MORE)}


def prose(path: Path) -> Path:
    path.write_text("It was the best of times, it was the worst of times.\n" * 40)
    return path


CASES: dict[str, tuple[Callable[[Path], list[object]], dict[str, tuple[str, Any]]]] = {
    "charlm": (lambda f: [prose(f / "a.txt"), "--chunk", 10, "--batch", 5], {}),
    "words": (
        lambda f: ["charlm", prose(f / "a.txt"), "--level", "word", "--chunk", 10, "--batch", 5],
        {"bits-per-character": ("bits per character", LESS)},
    ),
    "classify": (lambda f: [table(f / "a.csv", texts(60))], LABELS),
    "tag": (lambda f: [conll(f / "a.conll", sentences(30))], LABELS | {"span-f1": ("span F1", MORE)}),
    "frames": (
        lambda f: ["tag", frames(f / "a.csv", 300), "--window", 30],
        LABELS | {"span-f1": ("span F1", MORE)},
    ),
    "forecast": (
        lambda f: [hourly(f / "a.csv"), "--horizon", 6, "--season", 4, "--window", 10],
        {name.lower(): (name, LESS) for name in ("MAE", "RMSE", "MASE", "pinball")},
    ),
    "music": (
        lambda f: [scales(f / "a.json", 20)],
        {"accuracy": ("accuracy", MORE), "without-first-step": ("without first step", LESS)},
    ),
    "translate": (lambda f: [pairs(f / "a.tsv", numbers(60))], {"exact": ("exact", MORE), **SCORES}),
    "caption": (
        lambda f: [*pictures(f)],
        {**{k: v for k, v in SCORES.items() if k == "bleu"}, "cider-d": ("CIDEr-D", MORE)},
    ),
    "adding": (lambda f: ["probe", "adding", "--length", 5], {"right": ("right", MORE)}),
    "copy": (lambda f: ["probe", "copy", "--length", 5], {"copied": ("copied", MORE)}),
    "parity": (lambda f: ["probe", "parity", "--length", 5], {"accuracy": ("accuracy", MORE)}),
    "reber": (lambda f: ["probe", "reber"], {"allowed": ("allowed", MORE), "embedded": ("embedded", MORE)}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_task(cli: Cli, tmp_path: Path, case: str) -> None:
    make, expected = CASES[case]
    words = make(tmp_path)
    words = words if isinstance(words[0], str) else [case, *words]
    train = ("train", *words, "--hidden", 4, "--steps", 6, "--eval-every", 2, "--lr", 0.05)
    refused(
        cli(*train, "--out", tmp_path / "x", "--best", "nonsense"), "--best nonsense", ", ".join(["loss", *expected])
    )
    assert not (tmp_path / "x").exists()
    for spelled, (name, better) in {"loss": ("loss", LESS), **dict(list(expected.items())[-1:])}.items():
        run = tmp_path / spelled
        done = cli(*train, "--out", run, "--best", spelled)
        assert done.code == 0, done
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        evals = [r for r in records if r["kind"] == "eval"]
        assert {named for named, _ in expected.values()} <= evals[0].keys()
        best = better(r[name] for r in evals)
        assert [r["best"] for r in evals][-1] == best
        equal = [r for r in evals if r[name] == best]
        step = min(equal, key=lambda r: (r["loss"], r["step"]))["step"]
        assert f"best at step {step}" in done.out
        assert json.loads((run / "config.json").read_text())["config"]["best"] == spelled
        assert (spelled == "loss") == (f"the best {name}" not in done.out)


def test_labels_of_speech(cli: Cli, tmp_path: Path) -> None:
    for needed in ("soundfile", "soxr", "rapidfuzz"):
        pytest.importorskip(needed, reason="pip install 'cellwright[speech]'")
    from .test_speech import corpus

    data = corpus(tmp_path / "data", 12)
    train = ("train", "speech", data, "--hidden", 4, "--steps", 2, "--eval-every", 1)
    refused(cli(*train, "--out", tmp_path / "x", "--best", "f1"), "loss, cer, wer, accuracy")
    assert "(best WER)" in cli(*train, "--out", tmp_path / "run", "--best", "wer").out


def test_it_is_in_the_settings_and_goes_on_exactly(cli: Cli, tmp_path: Path) -> None:
    data = table(tmp_path / "a.csv", texts(80))
    common = {"data": (str(data),), "hidden": 6, "steps": 30, "eval_every": 5, "lr": 0.02, "best": "accuracy"}
    config = ClassifyConfig.checked(common)
    assert_resumes_exactly(config, tmp_path, 13)
    refused(cli("train", "classify", "--resume", tmp_path / "parts", "--best", "loss"), "--best", "keeps its settings")


def test_it_needs_what_measures(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    data = pairs(tmp_path / "a.tsv", numbers(60))
    options = ("--hidden", 4, "--steps", 2, "--out", tmp_path / "run", "--best")
    refused(cli("train", "translate", data, *options, "bleu"), "--best bleu", "pip install 'cellwright[bleu]'")
    refused(cli("train", "translate", data, *options, "accuracy"), "loss, exact")


def test_from_python() -> None:
    rows = texts(60)
    model = Classifier(hidden=4, steps=4, best="macro-f1").fit([t for t, _ in rows], [k for _, k in rows])
    assert model._fitted.config.best == "macro-f1"
