"""A training that is interrupted by real signals, and killed, in processes of its own, and goes on exactly."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellwright.app.runs import resume, start
from cellwright.tasks.charlm.config import CharLMConfig
from cellwright.train.progress import Lines
from cellwright.train.run import Run

from .conftest import SMALL

Start = Callable[..., Any]
TRAINING = [
    *SMALL,
    "--steps",
    "900",
    "--eval-every",
    "100",
    "--dropout",
    "0.2",
    "--zoneout",
    "0.1",
    "--sample-length",
    "20",
]


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "characters_per_second")} for line in lines]


def wait_for(run: Path, lines: int, process: Any) -> None:
    """Until the log has so many lines."""
    end = time.monotonic() + 90
    path = run / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """The same training without interruption."""
    from .conftest import process

    run = tmp_path_factory.mktemp("whole") / "run"
    done = process("train", "charlm", text, "--out", run, *TRAINING)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert b"test " in out
    return run


def same(run: Path, whole: Path) -> None:
    assert metrics(run) == metrics(whole)
    for which in ("best", "last"):
        left, right = (Run.open(path).load(which)[0] for path in (run, whole))
        assert left.keys() == right.keys()
        assert all(t.equal(right[name]) for name, t in left.items())


def goes_on(start: Start, command: str, whole: Path, run: Path) -> None:
    process = start(*command.split()[1:])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"going on after step" in out
    same(run, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_names_the_command_to_go_on(
    start: Start, text: Path, tmp_path: Path, whole: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = start("train", "charlm", text, "--out", run, *TRAINING)
    wait_for(run, 13, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    command = out.decode().splitlines()[-1].strip()
    assert command == f"cellwright train charlm --resume {run}"
    goes_on(start, command, whole, run)


def test_after_a_kill_it_goes_on_from_the_last_checkpoint(
    start: Start, text: Path, tmp_path: Path, whole: Path
) -> None:
    run = tmp_path / "run"
    process = start("train", "charlm", text, "--out", run, *TRAINING)
    wait_for(run, 25, process)
    process.kill()
    process.communicate()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "st')
    (run / ".last.safetensors.part").write_bytes(b"half a file")
    goes_on(start, f"cellwright train charlm --resume {run}", whole, run)


def test_a_second_signal_stops_at_once(start: Start, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Steps that take longer than it takes to send two signals.
    process = start("train", "charlm", text, "--out", run, "--hidden", 600, "--batch", 20, "--chunk", 150)
    end = time.monotonic() + 90
    while not (run / "last.safetensors").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert Run.open(run).load("last")[1]["step"] == 0 or b"saved" in out


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Lines:
    from rich.console import Console

    return Lines(Console())


def test_a_finished_run_says_so_and_changes_nothing(
    char_run: Path, shown: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics(char_run)
    assert resume(char_run, None, shown)
    assert "was finished after step 30" in capsys.readouterr().out
    assert metrics(char_run) == before


def test_a_finished_run_can_be_trained_longer(char_run: Path, shown: Lines) -> None:
    assert resume(char_run, 45, shown)
    steps = [line["step"] for line in metrics(char_run) if line["kind"] == "eval"]
    assert steps == [10, 20, 30, 40, 45]
    # The new length is remembered by the run.
    assert resume(char_run, None, shown)
    assert Run.open(char_run).load("last")[1]["steps"] == 45


def test_a_report_that_was_interrupted_is_made_up_for(char_run: Path, shown: Lines) -> None:
    path = char_run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "test"
    path.write_bytes(b"".join(lines[:-1]))
    assert resume(char_run, None, shown)
    assert path.read_bytes().splitlines(keepends=True) == lines


def test_the_text_is_found_from_another_folder(
    text: Path, tmp_path: Path, shown: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text.parent)
    config = CharLMConfig(texts=(text.name,), hidden=4, layers=1, batch=4, chunk=10, steps=5)
    assert start(config, tmp_path / "run", shown)
    monkeypatch.chdir(tmp_path)
    assert resume(Path("run"), 7, shown)
