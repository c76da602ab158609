"""`speech` from sound files to texts and labels: what is learned, exact resume, and everything that can be wrong."""

import csv
import io
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright.tasks.speech.config import SpeechConfig

from .conftest import Result, assert_resumes_exactly, refused

soundfile = pytest.importorskip("soundfile", reason="sound is read by soundfile; pip install 'cellwright[speech]'")
pytest.importorskip("soxr", reason="other rates need soxr; pip install 'cellwright[speech]'")
pytest.importorskip("rapidfuzz", reason="error rates are rapidfuzz's; pip install 'cellwright[speech]'")

Cli = Callable[..., Result]
TONES = {"a": 400.0, "b": 900.0, "c": 1700.0, " ": 0.0}
SMALL = ("--hidden", 24, "--layers", 1, "--mels", 16, "--masks", 0, "--dropout", 0, "--lr", 0.02, "--batch", 16)


def said(text: str, rate: int = 8000, seed: int = 0) -> Any:
    """A tone per letter, of 60 to 90 ms with 20 ms of silence, in some noise."""
    draw = np.random.default_rng(seed)
    pieces = [np.zeros(round(0.03 * rate))]
    for letter in text:
        n = np.arange(round(draw.uniform(0.06, 0.09) * rate))
        pieces += [0.4 * np.sin(2 * np.pi * TONES[letter] * n / rate), np.zeros(round(0.02 * rate))]
    wave = np.concatenate(pieces)
    return wave + draw.normal(0, 0.003, len(wave))


def write(path: Path, text: str, rate: int = 8000, seed: int = 0, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, said(text, rate, seed), rate, subtype)
    return path


def corpus(folder: Path, count: int, seed: int = 0, header: str = "") -> Path:
    """Recordings in folders, and their table."""
    draw, rows = random.Random(seed), []
    for n in range(count):
        text = re.sub(" +", " ", "".join(draw.choices("abc ", k=draw.randint(2, 6)))).strip() or "a"
        write(folder / f"part{n % 2}" / f"{n}.wav", text, seed=1000 * seed + n)
        rows.append(f"part{n % 2}/{n}.wav\t{text}\n")
    (folder / "transcripts.tsv").write_text(header + "".join(rows))
    return folder


def words(folder: Path, count: int, seed: int = 0) -> Path:
    """The label is in the name: which letter comes first."""
    for n in range(count):
        text = random.Random(1000 * seed + n).choice(["ab", "ba", "ac"])
        write(folder / f"{text}_me_{n}.wav", text, seed=1000 * seed + n)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("speech") / "data", 160)


def test_texts(cli: Cli, data: Path, tmp_path: Path) -> None:
    run, new = tmp_path / "run", corpus(tmp_path / "new", 24, 1, "path\tsentence\n")
    options = (*SMALL, "--steps", 240, "--eval-every", 80)
    done = cli("train", "speech", data, "--out", run, "--test-data", new, *options, "--profile")
    assert done.code == 0, done
    assert "8000 samples per second" in done.out and "4 symbols" in done.out and "outside the net" in done.out
    test = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert test["kind"] == "test" and test["CER"] < 0.05, test
    found = cli("eval", run, new)
    assert f"CER {test['CER']:.4f}, WER {test['WER']:.4f}" in found.out and "24 recordings" in found.out
    assert float(cli("eval", run, new, "--beam", 8).out.split("CER ")[1][:6]) < 0.05
    # as text, a prediction is a table of transcripts; its error rates are those of a plain table of distances
    told = dict(line.split("\t") for line in cli("predict", run, new).out.splitlines())
    truth = [line.split("\t") for line in (new / "transcripts.tsv").read_text().splitlines()[1:]]
    pairs = [(text, told[str(new / file)]) for file, text in truth]
    for name, parts in (("CER", list), ("WER", str.split)):
        rate = sum(edits(parts(a), parts(b)) for a, b in pairs) / sum(len(parts(a)) for a, _ in pairs)
        assert rate == pytest.approx(test[name])
    # other formats of the same sound say the same
    wave = said("ab c", 16000, 5)
    soundfile.write(tmp_path / "mono.wav", said("ab c", 8000, 5), 8000, "PCM_24")
    soundfile.write(tmp_path / "other.wav", np.stack([wave * 1.2, wave * 0.8], 1), 16000, "FLOAT")
    soundfile.write(tmp_path / "same.flac", wave, 16000)
    for name in ("mono.wav", "other.wav", "same.flac"):
        assert cli("predict", run, tmp_path / name).out == f"{tmp_path / name}\tab c\n"
    out = tmp_path / "p.jsonl"
    assert cli("predict", run, new, "--out", out, "--beam", 4).code == 0
    assert list(json.loads(out.read_text().splitlines()[0])) == ["file", "text", "probability"]


def edits(a: Any, b: Any) -> int:
    """Levenshtein's distance by its recursion over a table."""
    table = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i, left in enumerate(a, 1):
        for j, right in enumerate(b, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (left != right))
    return int(table[-1, -1])


def test_times_words_and_changes_by_chance(cli: Cli, data: Path, tmp_path: Path) -> None:
    """--level word writes whole words; each symbol is found where its tone is."""
    rows = [line.split("\t") for line in (data / "transcripts.tsv").read_text().splitlines()]
    table = tmp_path / "letters.tsv"  # every letter is a word
    table.write_text("".join(f"{data / file}\t{' '.join(text.replace(' ', ''))}\n" for file, text in rows))
    chance = ("--speed", 0.1, "--shift", 2, "--gain", 3, "--noise", 10, "--masks", 1, "--mask-time", 0.05)
    run = tmp_path / "run"
    options = (*SMALL, *chance, "--deltas", "--normalise", "recording", "--steps", 240, "--eval-every", 120)
    done = cli("train", "speech", table, "--out", run, "--level", "word", *options)
    assert done.code == 0, done
    assert "speed 10%, shift 2 frames, gain 3 dB, noise 10 dB, masks 1" in done.out
    soundfile.write(tmp_path / "x.wav", said("cab", seed=3), 8000)
    assert cli("predict", run, tmp_path / "x.wav").out == f"{tmp_path / 'x.wav'}\tc a b\n"
    found = list(csv.DictReader(io.StringIO(cli("predict", run, tmp_path / "x.wav", "--times").out)))
    assert [row["symbol"] for row in found] == ["c", "a", "b"]
    ends = np.cumsum([0.03, *np.diff(letter_ends("cab", 3), prepend=0.03)])
    for row, begin, end in zip(found, ends, ends[1:], strict=False):
        assert begin - 0.03 <= float(row["start"]) < float(row["end"]) <= end + 0.04, (found, ends)


def letter_ends(text: str, seed: int) -> list[float]:
    """When each letter of `said` is over, in seconds."""
    draw, t, found = np.random.default_rng(seed), 0.03, []
    for _ in text:
        t += draw.uniform(0.06, 0.09) + 0.02
        found.append(t)
    return found


def test_labels_from_names_folders_and_tables(cli: Cli, tmp_path: Path) -> None:
    data, new, run = words(tmp_path / "data", 90), words(tmp_path / "new", 20, 1), tmp_path / "run"
    options = (*SMALL, "--steps", 90, "--eval-every", 30, "--level", "label", "--balance", 0.5)
    done = cli("train", "speech", data, "--out", run, "--test-data", new, *options)
    assert done.code == 0, done
    assert "3 labels" in done.out
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["accuracy"] > 0.9
    assert "20 recordings, accuracy" in cli("eval", run, new).out
    (tmp_path / "x.tsv").write_text(f"new/{sorted(new.iterdir())[0].name}\tab\n")
    assert "1 recordings, accuracy 1.0000" in cli("eval", run, tmp_path / "x.tsv").out
    write(tmp_path / "folders" / "ba" / "1.wav", "ba")
    assert "1 recordings, accuracy 1.0000" in cli("eval", run, tmp_path / "folders").out
    told = list(csv.reader(cli("predict", run, new).out.splitlines(), delimiter="\t"))
    assert len(told) == 20 and all(Path(file).name.startswith(label) for file, label in told[:3])
    refused(cli("eval", run, data / "nothing"), "does not exist")
    refused(cli("predict", run, new, "--times"), "--times is for texts", "--level label")
    refused(cli("eval", run, new, "--beam", 3), "--beam is for texts")


@pytest.mark.parametrize("level", ["char", "label"])
def test_a_resumed_training_is_the_same_bit_for_bit(level: Any, data: Path, tmp_path: Path) -> None:
    place = data if level == "char" else words(tmp_path / "words", 30)
    config = SpeechConfig(
        data=(str(place),), level=level, hidden=6, batch=4, mels=8, steps=30, eval_every=12, dropout=0.3,
        speed=0.2, shift=3, gain=6.0, noise=20.0, masks=2, deltas=True, stack=2, pool="attention",
    )  # fmt: skip
    assert_resumes_exactly(config, tmp_path, 7)


def tsv(rows: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for n in range(4):
            write(folder / f"{n}.wav", "ab", seed=n)
        (folder / "transcripts.tsv").write_text(rows)
        return folder

    return make


FRAMES = 1 + (len(said("ab", seed=3)) - 200) // 80  # of 3.wav: 25 ms every 10 ms
ALL = "0.wav\tab\n1.wav\tab\n2.wav\tab\n"
BAD = [
    (tsv(ALL), (), ("has no transcript of '3.wav'", "transcripts.tsv")),
    (tsv(ALL + "3.wav\tab\n4.wav\tab\n"), (), ("row 5 names '4.wav'", "there is no file")),
    (tsv(ALL + "3.wav\t\n"), (), ("row 4", "3.wav has an empty transcript")),
    (tsv(ALL + "\tab\n"), (), ("row 4 names no recording",)),
    (tsv(ALL + "3.wav\n"), (), ("row 4 has 1 columns, expected 2",)),
    (tsv("0.wav\n"), (), ("row 1 has one column", "separated by a tab")),
    (tsv(ALL + f"3.wav\t{'abc' * 9}\n"), (), ("row 4", "needs 27 steps", f"({FRAMES} frames, --stack 2)")),
    (tsv("song\tab\nx.wav\tab\n"), ("--file", "song"), ("no column 'transcript'", "'song', 'ab'", "--text")),
    (tsv("a\tb\n0.wav\tab\n"), (), ("no column 'file'", "'a', 'b'", "--file")),
    (tsv(ALL + "3.wav\tab\n"), ("--balance", "1"), ("--balance", "--level char")),
    (tsv(ALL + "3.wav\tab\n"), ("--rate", "10"), ("--rate 10",)),
    (tsv(ALL + "3.wav\tab\n"), ("--level", "label"), ("all", "have the label 'ab'")),
]


@pytest.mark.parametrize(("make", "options", "expected"), BAD)
def test_bad_data(cli: Cli, tmp_path: Path, make: Any, options: tuple[str, ...], expected: tuple[str, ...]) -> None:
    place = make(tmp_path / "data")
    refused(cli("train", "speech", place, "--out", tmp_path / "run", *options), *expected)
    assert not (tmp_path / "run").exists()


def test_bad_folders(cli: Cli, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    refused(cli("train", "speech", *out), "there are no data")
    refused(cli("train", "speech", tmp_path / "no", *out), "no does not exist")
    (tmp_path / "empty").mkdir()
    refused(cli("train", "speech", tmp_path / "empty", *out), "has no recordings")
    file = write(tmp_path / "one" / "a.wav", "ab")
    refused(cli("train", "speech", tmp_path / "one", *out), "no table of transcripts", "--level label")
    refused(cli("train", "speech", file, *out), "neither a folder nor a table")
    for name in ("x.tsv", "y.tsv"):
        (tmp_path / "one" / name).write_text("a.wav\tab\n")
    refused(cli("train", "speech", tmp_path / "one", *out), "several tables, 'x.tsv', 'y.tsv'")


@pytest.mark.parametrize("name", ["soundfile", "soxr", "rapidfuzz"])
def test_a_library_that_is_not_there(name: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    refused(cli("train", "speech", tmp_path, "--out", tmp_path / "run"), name, "pip install 'cellwright[speech]'")


def test_new_data_that_do_not_suit(cli: Cli, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = cli("train", "speech", data, "--out", run, *SMALL, "--steps", 4, "--eval-every", 2)
    assert done.code == 0, done
    write(tmp_path / "new" / "a.wav", "ab")
    (tmp_path / "new" / "transcripts.tsv").write_text("a.wav\taé\n")
    refused(cli("eval", run, tmp_path / "new"), "row 1 has the symbol 'é'", "' ', 'a', 'b', 'c'")
    (tmp_path / "new" / "other.csv").write_text("sound,said\na.wav,ab\n")
    found = cli("eval", run, tmp_path / "new" / "other.csv")
    refused(found, "no column 'file'", "'sound', 'said'", "call a column so")
    assert "--file" not in found.err
    broken = tmp_path / "broken.wav"
    broken.write_bytes((tmp_path / "new" / "a.wav").read_bytes()[:500])
    out = tmp_path / "p.csv"
    refused(cli("predict", run, tmp_path / "new", broken, "--out", out), "broken.wav is truncated")
    assert not list(tmp_path.glob("*p.csv*"))
    refused(cli("predict", run, tmp_path / "none.wav"), "none.wav does not exist")
    # the same table with another recording behind it is other data
    where = data / "part0" / "0.wav"
    kept = where.read_bytes()
    write(where, "abc", seed=99)
    try:
        refused(cli("train", "speech", "--resume", run, "--steps", 9), "put it back")
    finally:
        where.write_bytes(kept)


def test_options_of_other_tasks(cli: Cli, char_run: Path, text: Path) -> None:
    refused(cli("predict", char_run, text, "--times"), "--times", "charlm has no such option")
    refused(cli("eval", char_run, text, "--beam", 3), "--beam", "charlm has no such option")
    refused(cli("eval", char_run, text, "--fill", "mean"), "--fill", "charlm has no such option")


def test_pictures(cli: Cli, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib; pip install 'cellwright[plot]'")
    run = tmp_path / "run"
    done = cli("train", "speech", data, "--out", run, *SMALL, "--steps", 4, "--eval-every", 2, "--plot")
    assert done.code == 0, done
    assert cli("eval", run, data, "--plot", tmp_path / "a.svg").code == 0
    assert (run / "alignment.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(("option", "value"), [("--mels", 100_000), ("--rate", 100_000_000)])
def test_sizes_that_no_sound_has(cli: Cli, data: Path, tmp_path: Path, option: str, value: int) -> None:
    refused(cli("train", "speech", data, "--out", tmp_path / "run", option, value), f"{option} {value}", "less than")
