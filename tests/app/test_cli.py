import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cellwright
from cellwright.app.runs import load

from .conftest import SMALL, TEXT

Cli = Callable[..., Any]

CELL = '''
from cellwright import Cell, sigmoid, tanh

class Minimal(Cell):
    """A gated cell that this package does not have."""

    states = "h"
    sharp = 1.0

    def step(self, x, h):
        u = sigmoid(self.sharp * (self.linear("u", x) + self.linear("u", h)))
        return (1 - u) * h + u * tanh(self.linear("n", x))
'''


def test_train_says_everything_it_is_going_to_do(cli: Cli, text: Path, tmp_path: Path) -> None:
    result = cli(
        "train",
        "charlm",
        text,
        "--out",
        tmp_path / "run",
        *SMALL,
        "--dropout",
        0.1,
        "--tie",
        "--recurrent-dropout",
        0.2,
        "--zoneout",
        0.3,
        "--weight-drop",
        0.4,
    )
    assert result.code == 0
    assert result.err == ""
    facts = [
        "2 x lstm 8",
        "embedding of 8",
        "tied output",
        "dropout 0.1",
        "recurrent dropout 0.2",
        "zoneout 0.3",
        "weight drop 0.4",
        f"{sum(p.numel() for p in load(tmp_path / 'run').net.model.parameters()):,} parameters",
        f"{len(TEXT):,} characters",
        f"{len(set(TEXT))} symbols",
        "30 steps of 4 x 10 characters",
        f"{30 / ((round(len(TEXT) * 0.9) - 1) // 4 // 10):.1f} epochs",
        "learning rate 0.002",
        "seed 1",
        f"cellwright generate {tmp_path / 'run'}",
    ]
    assert [fact for fact in facts if fact not in result.out] == []
    assert result.out.count("(best)") >= 1
    assert re.search(r"test +\d\.\d{4} nats, \d\.\d{4} bits per character", result.out)


def test_the_run_folder_is_complete_and_readable(char_run: Path) -> None:
    assert {file.name for file in char_run.iterdir()} == {
        "config.json",
        "vocabulary.json",
        "cells.json",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
    }
    config = json.loads((char_run / "config.json").read_text())
    assert config["config"]["hidden"] == 8
    assert config["cellwright"] == cellwright.__version__
    lines = [json.loads(line) for line in (char_run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [10, 20, 30]
    for line in train:
        assert line["bits"] == pytest.approx(line["loss"] / math.log(2))
        assert line["characters_per_second"] > 0
        assert line["lr"] > 0
        assert line["grad_norm"] > 0
    assert [line["kind"] for line in lines] == ["train", "eval"] * 3 + ["test"]


def test_eval_agrees_with_the_test_of_the_training(cli: Cli, char_run: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (char_run / "metrics.jsonl").read_text().splitlines()]
    part = tmp_path / "test.txt"
    part.write_text(TEXT[len(TEXT) - round(len(TEXT) * 0.05) :])
    result = cli("eval", char_run, part)
    assert result.code == 0
    loss = lines[-1]["loss"]
    expected = f"{len(part.read_text()):,} characters, {loss:.4f} nats and {loss / math.log(2):.4f} bits per character"
    assert result.out.strip() == expected


def test_eval_of_bytes_gives_both_units(cli: Cli, byte_run: Path, text: Path) -> None:
    result = cli("eval", byte_run, text)
    assert result.code == 0
    count, per_byte, _, characters, nats, _ = map(float, re.findall(r"\d+\.?\d*", result.out.replace(",", "")))
    assert count == len(TEXT.encode())
    assert characters == len(TEXT)
    assert nats == pytest.approx(per_byte * count / characters, abs=2e-4)


def test_eval_counts_what_it_skips(cli: Cli, char_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.py").write_text(TEXT)
    (folder / "b.py").write_bytes(b"\0")
    result = cli("eval", char_run, folder, "--glob", "*.py")
    assert "1 file skipped (1 binary)" in result.out


def test_a_cell_of_the_user_trains_and_is_not_needed_again(cli: Cli, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CELL)
    run = tmp_path / "run"
    result = cli("train", "charlm", text, "--out", run, *SMALL, "--cell", f"{file}:Minimal", "--option", "sharp=2.5")
    assert result.code == 0, result.err
    assert "sharp=2.5" in result.out
    assert cli("show", f"{file}:Minimal").out.count("sigmoid") >= 1
    file.unlink()
    assert cli("generate", run, "--seed", 1).code == 0
    assert cli("train", "charlm", "--resume", run, "--steps", 40).code == 0


@pytest.mark.parametrize("options", [[], ["--option", "peephole=true"], ["--latex"]])
def test_show_prints_the_equations(cli: Cli, options: list[str]) -> None:
    result = cli("show", "lstm", *options)
    assert result.code == 0
    assert ("p_" in result.out) == ("peephole=true" in options)
    assert ("\\begin{align" in result.out) == ("--latex" in options)


def test_show_prints_the_code_of_a_target(cli: Cli) -> None:
    result = cli("show", "gru", "--target", "cpu")
    assert result.code == 0
    assert result.out.startswith("; GRU, before the loop")
    assert 'define void @"kernel"' in result.out
    assert "equations" in cli("show", "gru", "--target", "torch").out
    assert "got the target 'gpu', expected one of torch, cpu" in cli("show", "gru", "--target", "gpu").err
    assert "give one of them" in cli("show", "gru", "--target", "cpu", "--latex").err


def test_doctor_names_versions_threads_and_targets(cli: Cli) -> None:
    result = cli("doctor")
    assert result.code == 0
    for word in (cellwright.__version__, torch.__version__, sys.version.split()[0], str(torch.get_num_threads())):
        assert word in result.out
    for target, reason in cellwright.available_targets().items():
        assert re.search(f"target {target} +{re.escape('absent: ' + reason if reason else 'available')}", result.out)


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"cellwright {cellwright.__version__}\n"


def test_the_package_is_the_command() -> None:
    """`python -m cellwright`, with its exit codes."""
    done = subprocess.run(
        [sys.executable, "-m", "cellwright", "eval", "nowhere", "x"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: nowhere")


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["train", "charlm"], ["generate"], ["eval"], ["export"], ["import"], ["show"], ["doctor"]],
)
def test_help_needs_no_torch(command: list[str]) -> None:
    code = (
        "import sys\nfrom cellwright.app.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        "except SystemExit as error: assert not error.code, error\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_pipe_that_closes_is_no_error(start: Callable[..., Any], char_run: Path) -> None:
    process = start("generate", char_run, "--length", 100_000, "--seed", 1)
    assert process.stdout.read(10)
    process.stdout.close()
    process.wait(60)
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_without_the_characters_is_no_error(start: Callable[..., Any], char_run: Path) -> None:
    process = start("generate", char_run, "--prompt", "# ä😀", "--seed", 1, PYTHONIOENCODING="latin-1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("# ä?".encode("latin-1"))


def test_text_comes_out_while_it_is_written(start: Callable[..., Any], byte_run: Path) -> None:
    process = start("generate", byte_run, "--prompt", "ä", "--length", 1_000_000, "--seed", 1)
    try:
        assert process.stdout.read(200).decode("utf-8", "ignore").startswith("ä")
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
