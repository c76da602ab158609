"""`music` from files to tunes: what it learns, exact resume, and everything that can be wrong."""

import json
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright.app.runs import start
from cellwright.tasks.music.config import MusicConfig

from .conftest import Result, Stop, assert_resumes_exactly, last_line, refused

Cli = Callable[..., Result]
needs_mido = pytest.mark.skipif(find_spec("mido") is None, reason="mido is not here: pip install 'cellwright[music]'")
SMALL = ["--hidden", 12, "--eval-every", 100, "--batch", 8, "--lr", 0.02, "--dropout", 0, "--recurrent-dropout", 0]


def scales(path: Path, count: int, seed: int = 0) -> Path:
    """Two classes: up or down the same six keys, from any of them on, with a third above."""
    draw, found = np.random.default_rng(seed), {"down": [], "up": []}
    for n in range(count):
        sign, at = (1, -1)[n % 2], int(draw.integers(6))
        steps = [(at + sign * t) % 6 for t in range(draw.integers(6, 12))]
        found["up" if sign > 0 else "down"].append([[60 + 2 * k, 76 + 2 * k] for k in steps])
    path.write_text(json.dumps(found))
    return path


def test_a_class_says_where_a_tune_goes(cli: Cli, tmp_path: Path) -> None:
    data, new, run = scales(tmp_path / "a.json", 60), scales(tmp_path / "new.json", 20, 1), tmp_path / "run"
    done = cli("train", "music", data, "--classes", "--test-data", new, "--out", run, "--steps", 200, *SMALL)
    assert done.code == 0, done
    assert "2 classes (" in done.out and "20 for the test" in done.out
    # eval on the file of the test gives the numbers of the test; the first step is one of six, the rest is certain
    found = cli("eval", run, new)
    assert found.code == 0, found
    assert last_line(done, "test").split("accuracy")[1][:7] == found.out.split("accuracy")[1][:7]
    assert float(found.out.split("first step ")[1]) < 0.3, found
    begin = tmp_path / "begin.json"
    begin.write_text("[[64, 80], [100]]")
    for name, sign in (("up", 2), ("down", -2)):
        out = tmp_path / f"{name}.json"
        options = ["--prompt", begin, "--prompt-steps", 1, "--length", 2, "--temperature", 0, "--class", name]
        said = cli("generate", run, *options, "--out", out, "--out", tmp_path / f"{name}.wav")
        assert said.code == 0 and said.err == "", said
        assert json.loads(out.read_text()) == [[64 + sign * t, 80 + sign * t] for t in range(3)]
        assert said.out.splitlines()[0] == "    1  E4 G#5" and f"written: {out}" in said.out
        assert (tmp_path / f"{name}.wav").stat().st_size > 1000
    refused(cli("generate", run), "--class is missing", "'down', 'up'")
    refused(cli("generate", run, "--class", "waltz"), "--class waltz", "'down', 'up'")
    (tmp_path / "other.json").write_text('{"waltz": [[[60]]]}')
    refused(cli("eval", run, tmp_path / "other.json"), "'waltz', tune", "has the class 'waltz'", "'down', 'up'")
    refused(cli("predict", run, new), "a run of music predicts nothing")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without classes."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "a.json").write_text(json.dumps([[[60 + k, 64], [67]] * 3 for k in range(12)]))
    config = MusicConfig(data=(str(folder / "a.json"),), hidden=4, steps=6, eval_every=3)
    assert start(config, folder / "run", Stop())
    return folder / "run"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--length", -1], ("--length -1",)),
        (["--length", 10**9], ("--length 1000000000", "100,000")),
        (["--temperature", "nan"], ("--temperature nan",)),
        (["--temperature", -0.5], ("--temperature -0.5",)),
        (["--tempo", 0], ("--tempo 0", "quarter notes")),
        (["--tempo", "inf"], ("--tempo inf",)),
        (["--top-k", 3], ("--top-k", "a run of music")),
        (["--stop", "x"], ("--stop", "a run of music")),
        (["--class", "jig"], ("--class jig", "without classes")),
        (["--prompt-steps", 2], ("--prompt-steps 2", "--prompt")),
        (["--prompt", "no.mid"], ("no.mid does not exist",)),
        (["--prompt", "a.mp3"], ("a.mp3", "'.mp3'")),
        (["--out", "a.mp3"], ("--out a.mp3", ".mid")),
        (["--out", "no/such/folder/a.wav"], ("there is no folder no/such/folder",)),
    ],
)
def test_values_that_no_tune_has(cli: Cli, plain: Path, options: list[object], words: tuple[str, ...]) -> None:
    refused(cli("generate", plain, *options), *words)


def test_generated_tunes(cli: Cli, plain: Path, tmp_path: Path) -> None:
    first, again, other = (cli("generate", plain, "--length", 9, "--seed", seed) for seed in (1, 1, 2))
    assert first.out == again.out != other.out and len(first.out.splitlines()) == 9
    assert cli("generate", plain, "--length", 2).err.startswith("seed ")
    out = tmp_path / "a.wav"
    assert cli("generate", plain, "--length", 3, "--out", out).code == 0
    refused(cli("generate", plain, "--out", out), f"--out {out} exists")
    refused(cli("generate", plain, "--prompt", plain.parent / "a.json", "--prompt-steps", 0), "--prompt-steps 0")


@needs_mido
def test_midi_in_folders_and_out(cli: Cli, tmp_path: Path, plain: Path) -> None:
    tunes = tmp_path / "tunes"
    for name in ("a", "b"):
        (tunes / name).mkdir(parents=True)
        for seed in range(4):
            out = tunes / name / f"{seed}.mid"
            assert cli("generate", plain, "--length", 12, "--seed", seed, "--out", out, "--tempo", 80).code == 0
    (tunes / "a" / "notes.doc").write_text("not one of them")
    run = tmp_path / "run"
    done = cli("train", "music", tunes, "--classes", "--out", run, "--hidden", 4, "--steps", 4, "--eval-every", 2)
    assert done.code == 0 and "8 tunes" in done.out and "2 classes (" in done.out, done
    assert cli("eval", run, tunes).code == 0
    (tunes / "c.mid").write_bytes((tunes / "a" / "1.mid").read_bytes())
    refused(cli("eval", run, tunes), "c.mid is in no folder of a class")
    (tunes / "c.mid").unlink()
    (tunes / "a" / "0.mid").write_bytes((tunes / "a" / "1.mid").read_bytes())
    refused(cli("train", "music", "--resume", run, "--steps", 9), "is not the one", "put it back")


def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    common: dict[str, Any] = {"hidden": 6, "layers": 2, "batch": 4, "steps": 45, "eval_every": 12, "window": 5}
    rates = {"dropout": 0.3, "input_dropout": 0.1, "recurrent_dropout": 0.2, "transpose": 3}
    config = MusicConfig(data=(str(scales(tmp_path / "a.json", 20)),), classes=True, test=0.1, **common, **rates)
    assert_resumes_exactly(config, tmp_path, 17, 30)


HEAD = b"MThd" + struct.pack(">IHHH", 6, 1, 1, 96)
EMPTY = HEAD + b"MTrk\0\0\0\4\0\xff\x2f\0"
LOW = HEAD + b"MTrk\0\0\0\x0c\0\x90\x14\x40\x60\x80\x14\0\0\xff\x2f\0"
FILM = HEAD[:12] + b"\xe7\x28" + b"MTrk\0\0\0\x0c\0\x90\x40\x40\x60\x80\x40\0\0\xff\x2f\0"
BAD = [
    ("a.mid", b"", (), ("a.mid is no MIDI file",)),
    ("a.mid", b"RIFF....WAVE", (), ("a.mid is no MIDI file",)),
    ("a.mid", LOW[:-9], (), ("a.mid is no MIDI file, or a damaged one",)),
    ("a.mid", EMPTY, (), ("a.mid has no notes",)),
    ("a.mid", LOW, (), ("a.mid has the note 20 (G#0) at step 0", "21 (A0) to 108 (C8)", "--outside drop")),
    ("a.mid", FILM, (), ("frames of a film",)),
    ("a.mid", HEAD + b"MTrk\0\0\0\x0f\0\x90\x40\x40\xff\xff\xff\x7f\x80\x40\0\0\xff\x2f\0", (), ("steps long",)),
    ("a.json", b"", (), ("a.json is not JSON",)),
    ("a.json", b"[" * 100_000, (), ("a.json is not JSON",)),
    ("a.json", b"[]", (), ("a.json has no tune",)),
    ("a.json", b"[[[60]], []]", (), ("tune 2 has no steps",)),
    ("a.json", b"[[[60]], [[128]]]", (), ("tune 2, step 0 has 128", "0 to 127")),
    ("a.json", b"[[[60]], [[60.5]]]", (), ("tune 2, step 0 has 60.5",)),
    ("a.json", b'[[[60]], [["C4"]]]', (), ("tune 2, step 0 has 'C4'",)),
    ("a.json", b"[[[60]], [60]]", (), ("tune 2, step 0 is 60", "list of MIDI pitches")),
    ("a.json", b"[[[60], [12]], [[60]]]", (), ("tune 1 has the note 12 (C0) at step 1", "--outside drop")),
    ("a.json", b'{"train": 3}', (), ("'train' is a int",)),
    ("a.json", b"[[[60]]]", (), ("1 tune(s)", "--validation")),
    ("a.json", b'{"train": [[[60]]], "valid": [[[60]]]}', ("--classes",), ("has no classes",)),
    ("a.json", json.dumps({"jig": [[[60]]] * 12}).encode(), ("--classes",), ("all tunes have the class 'jig'",)),
    ("a.npy", b"nonsense", (), ("a.npy is no array",)),
    ("a.npz", b"PK\x03\x04", (), ("a.npz",)),
    ("a.abc", b"X:1\nK:D\n", (), ("ABC notation", "cellwright train charlm")),
    ("a.doc", b"x", (), ("'.doc'", ".mid")),
    ("a.npy", b"", ("--classes",), ("no folder of classes",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "options", "words"), BAD)
def test_bad_data(
    cli: Cli, tmp_path: Path, name: str, data: bytes, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    if name.endswith(".mid") and find_spec("mido") is None:
        words = ("a MIDI file needs mido", "cellwright[music]")
    (tmp_path / name).write_bytes(data)
    refused(cli("train", "music", tmp_path / name, "--out", tmp_path / "run", *options), *words)
    assert not (tmp_path / "run").exists()


def test_bad_mat(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\0\1IM" + b"\x0f\0\0\0\xff\xff\0\0damaged")
    words = ["a.mat needs scipy", "cellwright[music]"] if find_spec("scipy") is None else ["is no MATLAB file"]
    words[0] = words[0].replace("a.mat needs", "a .mat file needs")
    refused(cli("train", "music", tmp_path / "a.mat", "--out", tmp_path / "run"), *words)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((88, 5)), ("[88, 5]", "transpose it")),
        (np.zeros((5, 3)), ("[5, 3]", "expected [T, 88]")),
        (np.zeros(88), ("[88]",)),
        (np.zeros((0, 88)), ("has no steps",)),
        (np.zeros((5, 88), complex), ("complex128", "expected numbers")),
        (np.array([[0.0] * 87 + [np.nan]]), ("nan at step 0, column 87",)),
        (np.array([[[0] * 88], [[-1] + [0] * 87]]), ("tune 2 has -1 at step 0, column 0",)),
        (np.array([[0, 1] + [0] * 126]), ("has the note 1 (C#-1) at step 0", "--outside drop")),
        (np.array([None, "x"]), ("is no array of numbers",)),
    ],
)
def test_bad_arrays(cli: Cli, tmp_path: Path, array: Any, words: tuple[str, ...]) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    refused(cli("train", "music", tmp_path / "a.npy", "--out", tmp_path / "run"), "a.npy", *words)


def test_what_is_not_there(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(cli("train", "music", "--out", tmp_path / "run"), "there are no data")
    refused(cli("train", "music", tmp_path / "no.npz", "--out", tmp_path / "run"), "no.npz does not exist")
    (tmp_path / "empty").mkdir()
    refused(cli("train", "music", tmp_path / "empty", "--out", tmp_path / "run"), "no file that ends with .mid")
    monkeypatch.setitem(__import__("sys").modules, "mido", None)
    (tmp_path / "a.mid").write_bytes(EMPTY)
    refused(cli("train", "music", tmp_path / "a.mid", "--out", tmp_path / "run"), "needs mido", "cellwright[music]")


def test_pictures(cli: Cli, tmp_path: Path, plain: Path) -> None:
    data, run = scales(tmp_path / "a.json", 12), tmp_path / "run"
    done = cli("train", "music", data, "--classes", "--out", run, "--hidden", 4, "--steps", 2, "--plot")
    if find_spec("matplotlib") is None:
        refused(done, "--plot needs matplotlib")
        return
    assert done.code == 0, done
    assert cli("eval", run, data, "--plot", tmp_path / "e.png").code == 0
    assert all(f.read_bytes()[:4] == b"\x89PNG" for f in (run / "loss.png", run / "pianoroll.png", tmp_path / "e.png"))
