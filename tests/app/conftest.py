import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from cellwright.app.cli import main
from cellwright.app.runs import resume
from cellwright.app.runs import start as begin
from cellwright.tasks.settings import TrainConfig
from cellwright.train.progress import Lines
from cellwright.train.run import Run

TEXT = "".join(f"def f{i}(x):\n    return x + {i}  # ä{'ö' * (i % 3)}😀\n" for i in range(120))
SMALL = ["--hidden", "8", "--layers", "2", "--batch", "4", "--chunk", "10", "--steps", "30", "--eval-every", "10"]


@dataclass
class Result:
    """How a command ended: exit code and the two streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`cli("generate", run, "--seed", 1)`: a command in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return run


def process(*arguments: object, **environment: str) -> "subprocess.Popen[bytes]":
    """A command in a process of its own."""
    code = "from cellwright.app.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment},
    )


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UTF-8 text."""
    path = tmp_path_factory.mktemp("text") / "functions.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


def _trained(folder: Path, text: Path, *more: str) -> Path:
    torch.set_num_threads(1)  # as in the tests, which come later
    with pytest.raises(SystemExit) as caught:
        main(["train", "charlm", str(text), "--out", str(folder), *SMALL, *more])
    assert caught.value.code == 0
    return folder


@pytest.fixture(scope="session")
def _char_run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    return _trained(tmp_path_factory.mktemp("char") / "run", text)


@pytest.fixture(scope="session")
def _byte_run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    return _trained(tmp_path_factory.mktemp("byte") / "run", text, "--level", "byte", "--tie")


@pytest.fixture
def char_run(tmp_path: Path, _char_run: Path) -> Path:
    """A run folder of characters, to do anything with."""
    return Path(shutil.copytree(_char_run, tmp_path / "char_run"))


@pytest.fixture
def byte_run(tmp_path: Path, _byte_run: Path) -> Path:
    """A run folder of bytes, with tied weights."""
    return Path(shutil.copytree(_byte_run, tmp_path / "byte_run"))


@pytest.fixture
def start() -> Callable[..., "subprocess.Popen[bytes]"]:
    """`start("train", ...)`: a command in a process of its own."""
    return process


class Stop(Lines):
    """Presses Ctrl-C at a step."""

    def __init__(self, at: int = -1) -> None:
        super().__init__(Console(file=io.StringIO()))
        self._at = at

    def update(self, done: int, status: Callable[[], str]) -> None:
        super().update(done, status)
        if done == self._at:
            signal.raise_signal(signal.SIGINT)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds" and "per_second" not in k} for line in lines]


def assert_resumes_exactly(config: TrainConfig, folder: Path, *steps: int) -> None:
    """A training that is stopped after each of `steps`, and resumed, has the losses and weights of one that is not."""
    whole, parts = folder / "whole", folder / "parts"
    assert begin(config, whole, Stop())
    first, *later = steps
    assert not begin(config, parts, Stop(first))
    for step in later:
        assert not resume(parts, None, Stop(step))
    assert resume(parts, None, Stop())
    assert metrics(parts) == metrics(whole)
    for which in ("best", "last"):
        left, right = (Run.open(path).load(which)[0] for path in (parts, whole))  # type: ignore[arg-type]
        assert left.keys() == right.keys()
        assert all(t.equal(right[name]) for name, t in left.items())


def refused(result: Result, *words: str) -> None:
    """One sentence with these words, and exit code 2."""
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert [word for word in words if word not in result.err] == [], result.err


def last_line(result: Result, word: str) -> str:
    return [line for line in result.out.splitlines() if line.startswith(word)][-1]
