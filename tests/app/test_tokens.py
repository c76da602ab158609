"""`charlm` with words and with pieces of words: the whole way, exact resume, numbers that compare with characters."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from cellwright.app.runs import load, start
from cellwright.tasks.charlm.config import CharLMConfig

from .conftest import Result, Stop, assert_resumes_exactly, last_line, refused

Cli = Callable[..., Result]
COMMON = {"hidden": 10, "layers": 1, "batch": 4, "chunk": 8, "steps": 30, "eval_every": 10, "sample_length": 5}
PROSE = "It was the best of times, it was the worst of times.\nÜber allem: the age of wisdom, the age of 😀!\n" * 60


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_the_whole_way(cli: Cli, book: Path, tmp_path: Path, level: str) -> None:
    run = tmp_path / "run"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in COMMON.items()]
    done = cli("train", "charlm", book, "--out", run, "--level", level, "--vocabulary", 300, *options)
    assert done.code == 0, done
    assert "embedding of 10" in done.out and "perplexity" in done.out and "bits per character" in done.out
    new = tmp_path / "new.txt"
    new.write_text(PROSE[:333] + "Ωmega times", encoding="utf-8")
    found = cli("eval", run, new)
    assert found.code == 0, found
    # the same by hand: every token but the first, from those before it, in one piece
    net = load(run).net
    text = new.read_text(encoding="utf-8")
    ids = torch.from_numpy(net.vocabulary.encode(text).astype("int64"))
    with torch.no_grad():
        nats = cross_entropy(net.model.eval()(ids[:-1, None])[0][:, 0], ids[1:]).item()
    assert f"{len(ids):,} tokens, {nats:.4f} nats" in found.out
    assert f"perplexity {math.exp(nats):.2f}" in found.out
    bits = nats * len(ids) / math.log(2)
    if level == "word":  # "Ωmega" and its space, and whatever came once: 8 bits for each byte, and for the end
        pieces = re.findall(r" ?\w+| ?[^\w\s]|\s", text)
        spelled = sum(8 * len(t.encode()) + 8 for t, k in zip(pieces, ids.tolist(), strict=True) if k == 0)
        assert spelled >= 56
        bits += spelled
    assert f"{len(text):,} characters, {bits * math.log(2) / len(text):.4f} nats" in found.out
    assert f"{bits / len(text):.4f} bits per character\n" in found.out
    assert ("<unk> as one token" in found.out) == ("tokens are <unk>" in found.out) == (level == "word")
    # generation: a seed gives a text, `stop` ends it, a prompt may have what nobody has seen
    first, again = (cli("generate", run, "--prompt", "Ω the ", "--length", 40, "--seed", 3) for _ in "ab")
    assert first.code == 0 and first.out == again.out and first.out.startswith("Ω the "), first
    assert cli("generate", run, "--length", 400, "--seed", 1, "--stop", "the").out.rstrip("\n").endswith("the")
    assert cli("export", run, "--format", "torch", "--out", tmp_path / "w.npz").code == 0
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    assert vocabulary["level"] == level


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_training_and_eval_say_the_same_of_a_text(cli: Cli, tmp_path: Path, level: str) -> None:
    """Of the test and validation texts, whose words have mostly never been seen."""
    parts = [PROSE, *("".join(f"{word}{k} was\n" for k in range(60)) for word in ("Zebra", "Yak"))]
    whole = "".join(parts)
    shares = [
        f"--{name}={len(part) / len(whole):.15f}" for name, part in zip(("validation", "test"), parts[1:], strict=True)
    ]
    for name, text in zip(("book", "validation", "test"), (whole, *parts[1:]), strict=True):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in COMMON.items()]
    run = tmp_path / "run"
    done = cli(
        "train", "charlm", tmp_path / "book.txt", "--out", run, "--level", level, "--vocabulary", 300, *shares, *options
    )
    assert done.code == 0, done
    assert ("33.3% of the validation tokens are <unk>, each spelled at 8 bits per byte" in done.out) == (
        level == "word"
    )
    for name in ("validation", "test"):
        said, found = last_line(done, name), cli("eval", run, tmp_path / f"{name}.txt")
        for words in (r"([\d.]+) nats per token", r"perplexity ([\d.]+)", r"([\d.]+) bits per character"):
            training = re.findall(words, said)
            at_last = re.findall(words.replace(" per token", " and"), found.out)
            assert len(training) == 1 and training[0] in at_last, (said, found.out)


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_a_resumed_training_is_the_same_bit_for_bit(book: Path, tmp_path: Path, level: str) -> None:
    config = CharLMConfig.checked({**COMMON, "texts": (str(book),), "level": level, "dropout": 0.3})
    assert_resumes_exactly(config, tmp_path, 13)


def test_symbols_come_from_the_training_text_only(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("a cat ran. " * 300 + "zebra zebra " * 40)
    for level in ("word", "bpe"):
        settings = {**COMMON, "steps": 1, "texts": (str(path),), "level": level, "validation": 0.1, "test": 0.1}
        assert start(CharLMConfig.checked(settings), tmp_path / level, Stop())
        vocabulary = load(tmp_path / level).net.vocabulary
        pieces = [t.encode() for t in vocabulary.tokens] if level == "word" else vocabulary.pieces
        assert b" cat" in pieces and not [p for p in pieces if b"ze" in p]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vocabulary", 100], ("--vocabulary 100", "--level word or bpe")),
        (["--vocabulary", 256, "--level", "bpe"], ("--vocabulary 256", "257")),
        (["--vocabulary", 1, "--level", "word"], ("--vocabulary 1", "<unk>")),
        (["--level", "line"], ("--level line",)),
        (["--level", "word", "--batch", 5000], ("tokens", "--batch 5000")),
    ],
)
def test_what_is_refused(cli: Cli, book: Path, tmp_path: Path, options: list[object], words: tuple[str, ...]) -> None:
    refused(cli("train", "charlm", book, "--out", tmp_path / "run", *options), *words)
    assert not (tmp_path / "run").exists()
