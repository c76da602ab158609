"""Everything that a user can get wrong: exit code 2, one sentence with the mend, no traceback, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SMALL, TEXT, Result, refused

Cli = Callable[..., Result]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ("does not exist", "name a text file")),
        (b"", ("is empty", "0 characters")),
        (b"abc\0", ("NUL byte at offset 3",)),
        (b"caf\xe9", ("not UTF-8", "offset 3", "iconv")),
        (b"short", ("5 characters", "about 46 are needed", "--batch 4", "--chunk 10", "smaller")),
    ],
)
def test_text(cli: Cli, tmp_path: Path, data: bytes | None, words: tuple[str, ...]) -> None:
    file = tmp_path / "text.txt"
    if data is not None:
        file.write_bytes(data)
    refused(cli("train", "charlm", file, "--out", tmp_path / "run", *SMALL), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["charlm", "classify"])
def test_a_full_disk(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """A limit of the size of files stands for it: the system says no in the middle of a write in the same way."""
    resource = pytest.importorskip("resource", reason="limits are of Unix")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"{'word ' * 20},{n % 2}\n" for n in range(20_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        found = cli("train", task, data, "--out", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(found, "do not fit", str(tmp_path / "temporary"), "0 MB", "TMPDIR")
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_no_folder_for_temporary_files(cli: Cli, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    refused(cli("train", "charlm", text, "--out", tmp_path / "run", *SMALL), "no temporary file", "TMPDIR")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_text(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "x.py").write_bytes(b"\0")
    refused(cli("train", "charlm", tmp_path / "texts", "--out", tmp_path / "run"), "1 file skipped (1 binary)")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cell", "lstn"], ("'lstn'", "lstm")),
        (["--cell", "nothing.py:Cell"], ("nothing.py",)),
        (["--option", "peepholes=true"], ("peephole",)),
        (["--option", "peephole=3"], ("peephole",)),
        (["--option", "peephole"], ("NAME=VALUE",)),
        (["--option", "peephole=true", "--option", "peephole=false"], ("twice",)),
        (["--hidden", "0"], ("--hidden 0", "greater")),
        (["--dropout", "1"], ("--dropout 1",)),
        (["--lr", "nan"], ("--lr nan",)),
        (["--level", "line"], ("--level line", "'word' or 'bpe'")),
        (["--tie", "--embed", "5"], ("--embed 5", "leave --embed away")),
        (["--test", "0.99"], ("no text for training",)),
        (["--warmup", "31"], ("--warmup 31", "--steps 30")),
    ],
)
def test_options(cli: Cli, text: Path, tmp_path: Path, options: list[str], words: tuple[str, ...]) -> None:
    refused(cli("train", "charlm", text, "--out", tmp_path / "run", *SMALL, *options), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("def step(self, x, h): return tanhh(x)", "tanhh"),
        ("def step(self, x, h): return h, h", "2"),
        ("def step(self, x, h): return h if h else x", "h"),
        ("def step(self, x, h) return h", "line"),
    ],
)
def test_cells(cli: Cli, text: Path, tmp_path: Path, source: str, word: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"from cellwright import Cell\nclass Mine(Cell):\n    states = 'h'\n    {source}\n")
    result = cli("train", "charlm", text, "--out", tmp_path / "run", *SMALL, "--cell", f"{file}:Mine")
    refused(result, word)
    assert not (tmp_path / "run").exists()


def test_no_out(cli: Cli, text: Path) -> None:
    refused(cli("train", "charlm", text), "--out is missing")


def test_an_output_folder_that_is_in_use(cli: Cli, text: Path, char_run: Path) -> None:
    before = snapshot(char_run)
    refused(cli("train", "charlm", text, "--out", char_run, *SMALL), "exists and is not empty", "--resume")
    assert snapshot(char_run) == before


def test_an_output_folder_that_cannot_be_made(cli: Cli, text: Path) -> None:
    refused(cli("train", "charlm", text, "--out", text / "run", *SMALL), "cannot be made")


@pytest.mark.parametrize("command", [("generate",), ("eval", "{text}"), ("train", "charlm", "--resume")])
@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "edited", "version"])
def test_run_folders(cli: Cli, text: Path, char_run: Path, command: tuple[str, ...], damage: str) -> None:
    config = char_run / "config.json"
    match damage:
        case "absent":
            shutil.rmtree(char_run)
        case "empty":
            shutil.rmtree(char_run)
            char_run.mkdir()
        case "truncated":
            for name in ("best", "last"):
                file = char_run / f"{name}.safetensors"
                file.write_bytes(file.read_bytes()[:-100])
        case "edited":
            config.write_text(config.read_text().replace('"hidden": 8', '"hidden": 9'))
        case "version":
            config.write_text(json.dumps({**json.loads(config.read_text()), "format": 2}))
    before = snapshot(char_run) if char_run.exists() else {}
    arguments = [char_run if part == "" else str(text) if part == "{text}" else part for part in command]
    arguments.insert(3 if command[0] == "train" else 1, char_run)
    words = {
        "absent": "is not a run folder",
        "empty": "is not a run folder",
        "truncated": "is damaged",
        "edited": "config.json is not the one",
        "version": "config.json has format 2",
    }
    refused(cli(*arguments), words[damage], ";")
    assert (snapshot(char_run) if char_run.exists() else {}) == before


@pytest.mark.parametrize("name", ["vocabulary.json", "cells.json", "best.safetensors", "last.safetensors"])
def test_a_missing_file_is_named(cli: Cli, char_run: Path, name: str) -> None:
    (char_run / name).unlink()
    refused(cli("generate", char_run, *(["--last"] if name.startswith("last") else [])), f"{name} is missing")


def test_prompts(cli: Cli, char_run: Path) -> None:
    refused(cli("generate", char_run, "--prompt", "def €"), "the prompt", "outside the vocabulary", r"'\u20ac'")
    refused(cli("generate", char_run, "--top-p", 2), "--top-p 2")


def test_texts_to_evaluate(cli: Cli, char_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("€")
    refused(cli("eval", char_run, file), "outside the vocabulary")
    file.write_text("d")
    refused(cli("eval", char_run, file), "at least 2")
    refused(cli("eval", char_run, tmp_path / "nothing"), "does not exist")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--hidden", "8"], "--hidden"),
        (["--seed", "1"], "--seed"),
        (["--tie"], "--tie"),
        (["--out", "x"], "--out"),
        (["text.txt"], "TEXT"),
        (["--option", "a=1"], "--option"),
        (["--eval-every", "5"], "--eval-every"),
        (["--steps", "29"], "--steps 29"),
    ],
)
def test_resume_takes_steps_only(cli: Cli, char_run: Path, options: list[str], word: str) -> None:
    before = snapshot(char_run)
    refused(cli("train", "charlm", "--resume", char_run, *options), word)
    assert snapshot(char_run) == before


@pytest.mark.parametrize("change", ["edited", "absent"])
def test_resume_needs_the_same_text(cli: Cli, tmp_path: Path, change: str) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    assert cli("train", "charlm", file, "--out", tmp_path / "run", *SMALL).code == 0
    before = snapshot(tmp_path / "run")
    if change == "edited":
        file.write_text(TEXT.replace("return", "Return"))
    else:
        file.unlink()
    words = {"edited": ("is not the one", "put it back"), "absent": ("does not exist",)}
    refused(cli("train", "charlm", "--resume", tmp_path / "run", "--steps", 40), str(file), *words[change])
    assert snapshot(tmp_path / "run") == before


def test_a_learning_rate_that_is_too_high(cli: Cli, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--lr", "1e38", "--warmup", 0, "--clip", 0]
    refused(cli("train", "charlm", text, "--out", run, *SMALL, *options), "not finite at step", "--lr", "are kept")
    assert cli("generate", run, "--last", "--seed", 1).code == 0


def test_numbers_that_are_none(cli: Cli, text: Path, tmp_path: Path) -> None:
    result = cli("train", "charlm", text, "--out", tmp_path / "run", "--hidden", "big")
    assert result.code == 2
    assert "--hidden" in result.err
    assert not (tmp_path / "run").exists()
