"""`classify` and `tag` from file to prediction: what they learn, exact resume, and everything that can be wrong."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cellwright.app.runs import load, start
from cellwright.tasks.classify.config import ClassifyConfig
from cellwright.tasks.data.tables import Table
from cellwright.tasks.settings import TrainConfig
from cellwright.tasks.tag.config import TagConfig
from cellwright.train.progress import Lines
from cellwright.train.run import Run

from .conftest import Result, assert_resumes_exactly, last_line, refused

Cli = Callable[..., Result]


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """The class is which of x and y comes first: a bag of characters does not know."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        text = "".join(draw.choices("abc", k=draw.randint(1, 4)))
        first, second = draw.sample("xy", 2)
        rows.append((f"{text}{first}{text[::-1]}{second}", f"{first} first"))
    return rows


def sentences(count: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """The end of a word says what it is, unless `not` stands before it; most words are seen once."""
    draw, ends = random.Random(seed), {"ed": "VERB", "ly": "ADV", "s": "NOUN"}
    found = []
    for _ in range(count):
        sentence = []
        for _ in range(draw.randint(2, 6)):
            end, label = draw.choice(list(ends.items()))
            negated = draw.random() < 0.3
            sentence += [("not", "PART")] if negated else []
            sentence.append(("".join(draw.choices("abcdefg", k=4)) + end, "NEG" if negated else label))
        found.append(sentence)
    return found


def table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def conll(path: Path, found: list[list[tuple[str, str]]]) -> Path:
    path.write_text("\n".join("".join(f"{w}\t{k}\n" for w, k in s) for s in found))
    return path


def frames(path: Path, count: int, seed: int = 0) -> Path:
    """The label says whether the value before was positive; another column is noise."""
    x = np.random.default_rng(seed).normal(size=(count, 2))
    rows = [(f"{a:.4f}", f"{b:.4f}", "up" if t and x[t - 1, 0] > 0 else "down") for t, (a, b) in enumerate(x)]
    return table(path, rows, ("x", "noise", "state"))


def test_classify_texts(cli: Cli, tmp_path: Path) -> None:
    data, new = table(tmp_path / "a.csv", texts(400)), table(tmp_path / "new.csv", texts(60, 1))
    run = tmp_path / "run"
    options = ["--hidden", 24, "--steps", 300, "--eval-every", 100, "--lr", 0.01, "--dropout", 0, "--unknown", 0.01]
    done = cli("train", "classify", data, "--out", run, "--test-data", new, *options, "--profile")
    assert done.code == 0, done
    assert "time\n" in done.out and "outside the net" in done.out
    assert "2 classes" in done.out and "60 for the test" in done.out
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["accuracy"] > 0.95
    assert {f.name for f in run.glob("*.json")} == {"config.json", "encoding.json", "cells.json"}
    # eval on the file of the test gives the numbers of the test
    found = cli("eval", run, new)
    assert found.code == 0
    words = last_line(done, "test")
    assert words.split("accuracy ")[1][:6] == found.out.split("accuracy ")[1][:6]
    assert words.split()[1] in found.out
    # predict, on a table, on lines, and into files
    lines = tmp_path / "lines.txt"
    lines.write_text("aaxaay\n\nbybx\n")
    said = cli("predict", run, lines)
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(r["text"], r["label"]) for r in rows] == [("aaxaay", "x first"), ("bybx", "y first")]
    assert all(0.5 < float(r["probability"]) <= 1 for r in rows)
    assert cli("predict", run, new, "--out", tmp_path / "p.jsonl").code == 0
    records = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    right = sum(r["label"] == label for r, (_, label) in zip(records, texts(60, 1), strict=True))
    assert found.out.split("accuracy ")[1][:6] == f"{right / 60:.4f}"
    assert cli("predict", run, new, "--out", tmp_path / "p.jsonl").code == 2


def test_classify_folders_give_the_same_examples(tmp_path: Path) -> None:
    rows = sorted(texts(60), key=lambda row: row[1])
    first, second = tmp_path / "files", tmp_path / "folders"
    first.mkdir()
    for n, (text, label) in enumerate(rows):
        folder = second / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:03}.txt").write_text(text)
        with (first / f"{label}.txt").open("a") as file:
            file.write(text + "\n")
    shown = Lines(Console(file=io.StringIO()))
    found = []
    for n, data in enumerate((first, second, table(tmp_path / "a.csv", rows))):
        config = ClassifyConfig(data=(str(data),), hidden=4, steps=6, eval_every=3)
        assert start(config, tmp_path / f"run{n}", shown)
        found.append(Run.open(tmp_path / f"run{n}").load("last")[0])
    for other in found[1:]:
        assert all(t.equal(other[name]) for name, t in found[0].items())


@pytest.mark.parametrize("named", [True, False])
def test_classify_series(cli: Cli, tmp_path: Path, named: bool) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for n in range(240):
        values = draw.normal(size=(draw.integers(3, 7), 2)).cumsum(0)
        values[-1, 0] = 4 if n % 2 else -4  # the last valid step decides: padding must not be read
        cells = [f"{v:.3f}" for v in values.flatten()]
        rows.append((str(n % 2), *cells, *[""] * (12 - len(cells))))
    data = table(tmp_path / "a.tsv", [], ())
    header = ["label", *[f"v{k}" for k in range(12)]]
    data.write_text("\n".join("\t".join(r) for r in ([header] if named else []) + rows) + "\n")
    run = tmp_path / "run"
    options = ["--series", 2, "--label", "label" if named else "1", "--hidden", 8, "--steps", 80, "--lr", 0.02]
    done = cli("train", "classify", data, "--out", run, *options, "--eval-every", 40)
    assert done.code == 0, done
    assert "2 features" in done.out
    found = cli("eval", run, data)
    assert float(found.out.split("accuracy ")[1][:6]) > 0.97, found
    bare = tmp_path / "bare.tsv"
    bare.write_text("\n".join("\t".join(r[1:]) for r in ([header] if named else []) + rows[:4]) + "\n")
    said = cli("predict", run, bare)
    assert [r["label"] for r in csv.DictReader(io.StringIO(said.out))] == ["0", "1", "0", "1"], said


def test_tag_words(cli: Cli, tmp_path: Path) -> None:
    data, new = conll(tmp_path / "a.conll", sentences(150)), conll(tmp_path / "new.conll", sentences(30, 1))
    run = tmp_path / "run"
    options = ["--hidden", 16, "--characters", 12, "--embed", 8, "--steps", 150, "--lr", 0.02, "--dropout", 0]
    done = cli("train", "tag", data, "--out", run, "--test-data", new, *options, "--eval-every", 50)
    assert done.code == 0, done
    found = cli("eval", run, new)
    assert float(found.out.split("accuracy ")[1][:6]) > 0.95, found  # the words themselves were never seen
    assert last_line(done, "test").split("span F1 ")[1][:6] == found.out.split("span F1 ")[1][:6]
    file = tmp_path / "new.txt"
    file.write_text("gabced not bagdly\nabcds\n")
    assert cli("predict", run, file).out == "gabced\tVERB\nnot\tPART\nbagdly\tNEG\n\nabcds\tNOUN\n\n"
    assert cli("predict", run, new, "--out", tmp_path / "p.tsv").code == 0
    assert (tmp_path / "p.tsv").read_text().splitlines()[0] == "place\tword\tlabel\tprobability"


CONLLU = """# sent_id = {n}
# text = {text}
1-2\t{text}\t_\t_\t_\t_\t_\t_\t_\t_
{rows}
8.1\tghost\t_\tVERB\t_\t_\t_\t_\t_\tSpaceAfter=No

"""


def test_columns_of_universal_dependencies_are_known_by_what_they_are(cli: Cli, tmp_path: Path) -> None:
    """The same file under three names, and as columns of words and labels with and without comments, is the same."""
    found = sentences(40)
    universal = ""
    for n, sentence in enumerate(found):
        rows = [f"{k}\t{w}\t_\t{label}\t_\t_\t0\t_\t_\tSpaceAfter=No" for k, (w, label) in enumerate(sentence, 1)]
        universal += CONLLU.format(n=n, text=" ".join(w for w, _ in sentence), rows="\n".join(rows))
    conll(tmp_path / "a.conll", found)
    plain = (tmp_path / "a.conll").read_text()
    texts = {f"u.{ending}": universal for ending in ("conllu", "conll", "txt")}
    texts |= {
        "p.conll": plain,
        "c.conll": "# sent_id = 1\n# text = # is no number\n" + plain.replace("\n\n", "\n\n# x = 1\n"),
    }
    weights = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        run = tmp_path / f"run-{name}"
        done = cli("train", "tag", tmp_path / name, "--out", run, "--hidden", 4, "--steps", 3)
        assert done.code == 0 and "40 sequences" in done.out, done
        assert load(run).net.encoding.labels == ("ADV", "NEG", "NOUN", "PART", "VERB")
        weights.append(Run.open(run).load("last")[0])
    for other in weights[1:]:
        assert all(t.equal(other[key]) for key, t in weights[0].items())
    said = [cli("predict", run, tmp_path / name).out for name in ("u.conllu", "u.conll", "u.txt", "p.conll")]
    assert said[0].count("\n\n") == 40 and said[0].split("\t")[0] == found[0][0][0] and len(set(said)) == 1
    assert cli("eval", run, tmp_path / "u.txt").out == cli("eval", run, tmp_path / "u.conllu").out
    hashes = conll(tmp_path / "h.conll", [[("#", "NOUN"), ("a", "VERB"), ("=", "ADV")]])  # words that begin as comments
    assert cli("predict", run, hashes).out.startswith("#\t")


def test_tag_frames(cli: Cli, tmp_path: Path) -> None:
    data, new, run = frames(tmp_path / "a.csv", 900), frames(tmp_path / "new.csv", 150, 1), tmp_path / "run"
    options = ["--hidden", 12, "--window", 30, "--batch", 8, "--steps", 120, "--lr", 0.02, "--dropout", 0]
    done = cli("train", "tag", data, "--out", run, "--test-data", new, *options, "--drop", "noise")
    assert done.code == 0, done
    found = cli("eval", run, new)
    assert float(found.out.split("accuracy ")[1][:6]) > 0.95, found
    assert last_line(done, "test").split("accuracy ")[1][:6] == found.out.split("accuracy ")[1][:6]
    bare = table(tmp_path / "bare.csv", [("0.1", "2"), ("0.2", "-2"), ("0.3", "-2")], ("other", "x"))
    said = list(csv.DictReader(io.StringIO(cli("predict", run, bare).out)))
    assert [(r["row"], r["label"]) for r in said] == [("2", "down"), ("3", "up"), ("4", "down")]


def test_a_time_among_the_features_is_said(cli: Cli, tmp_path: Path) -> None:
    rows = [line.split(",") for line in frames(tmp_path / "a.csv", 60).read_text().splitlines()[1:]]

    def said(name: str, value: Callable[[int], object], *more: str) -> str:
        file = table(tmp_path / "b.csv", [(str(value(t)), str(t // 30), *row) for t, row in enumerate(rows)],
                     (name, "part", "x", "noise", "state"))  # fmt: skip
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        done = cli("train", "tag", file, "--out", run, "--window", 10, "--hidden", 4, "--steps", 2, *more)
        assert done.code == 0, done
        return "".join(line for line in done.out.splitlines() if line.startswith("note"))

    grows = "among the features: a time, as it grows from row to row; --drop"
    assert said("time", lambda t: 1.7e9 + t) == f"note   'time' {grows} time leaves it out"
    assert said("Time (s)", lambda t: t / 7) == f"note   'Time (s)' {grows} 'Time (s)' leaves it out"
    assert said("index", lambda t: t % 30, "--sequence", "part") == f"note   'index' {grows} index leaves it out"
    assert said("index", lambda t: t % 30, "--drop", "part") == ""
    assert said("time", lambda t: t - (t == 59)) == ""
    assert said("height", lambda t: t) == ""
    assert said("time", lambda t: t, "--drop", "time") == ""


@pytest.mark.parametrize("kind", ["texts", "words", "frames"])
def test_a_resumed_training_is_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"hidden": 6, "layers": 2, "batch": 4, "steps": 45, "eval_every": 12, "dropout": 0.3}
    config: TrainConfig
    if kind == "texts":
        common["data"] = (str(table(tmp_path / "a.csv", texts(50))),)
        config = ClassifyConfig(**common, pool="attention", balance=0.5, test=0.1)
    elif kind == "words":
        config = TagConfig(**common, data=(str(conll(tmp_path / "a.conll", sentences(30))),), characters=5)
    else:
        config = TagConfig(**common, data=(str(frames(tmp_path / "a.csv", 300)),), window=20)
    assert_resumes_exactly(config, tmp_path, 17, 30)


SERIES = ("--series", "2", "--label", "label")
BAD = [
    ("classify", "a.csv", "words,kind\na,b\n", (), ("no column 'label'", "'words', 'kind'", "--label")),
    ("classify", "a.csv", "a,b,label\nx,y,z\n", (), ("no column 'text'", "--text")),
    ("classify", "a.csv", "text,label\nx,a\n,b\n", (), ("row 3", "empty text")),
    ("classify", "a.csv", "text,label\nx,a\n  ,b\n", (), ("row 3", "empty text")),
    ("classify", "a.csv", "text,label\nx,a\ny,\n", (), ("row 3", "no label")),
    ("classify", "a.csv", "text,label\nx,a\ny,a\nz,a\n", ("--validation", "0.5"), ("a.csv",)),
    ("classify", "a.csv", "text,label\n", (), ("0 sequence(s)",)),
    ("classify", "a.doc", "x", (), ("has no labels", ".csv")),
    ("classify", "a.csv", "label,p,q\n1,2,x\n", SERIES, ("row 2, column 'q' is 'x'", "leave --series away")),
    ("classify", "a.csv", "label,p,q\n1,2,1e39\n", SERIES, ("row 2, column 'q' is '1e39'", "finite number up to")),
    ("classify", "a.csv", "label,p,q\n1,nan,3\n", SERIES, ("row 2, column 'p' has no value", "--fill mean")),
    ("classify", "a.csv", "label,p,q\n1,inf,3\n", (*SERIES, "--fill", "mean"), ("column 'p' is 'inf'",)),
    ("classify", "a.csv", "label,p,q\n1,2,\n", SERIES, ("has 1 values", "--series 2")),
    ("classify", "a.csv", "label,p,q\n1,,\n", SERIES, ("no value at all",)),
    ("classify", "a.jsonl", '{"v": [1], "label": "a"}\n', (), ("column 'v' is a list", "--series")),
    ("classify", "a.jsonl", '{"v": [1, "x"], "label": "a"}\n', SERIES, ("row 1, column 'v' is 'x'",)),
    ("classify", "a.jsonl", '{"v": [1, 2, 3], "label": "a"}\n', SERIES, ("row 1 has 3 values", "--series 2")),
    ("classify", "a.jsonl", '{"v": [[1, 2], [3]], "label": "a"}\n', SERIES, ("a list of 1 as step 2", "a list of 2")),
    ("classify", "a.jsonl", '{"v": [[1, 2], 3], "label": "a"}\n', SERIES, ("has 3 as step 2",)),
    ("classify", "a.jsonl", '{"v": [[1, [2]]], "label": "a"}\n', SERIES, ("column 'v' is '[2]'",)),
    ("classify", "a.jsonl", '{"v": [], "label": "a"}\n', SERIES, ("row 1 has no value at all",)),
    ("classify", "a.jsonl", '{"v": [1, 2], "w": [1], "label": "a"}\n', SERIES, ("2 lists per row, 'v', 'w'",)),
    ("classify", "a.jsonl", '{"v": [1, 2], "label": "a"}\n{"v": 5, "label": "b"}\n', SERIES,
     ("row 2, column 'v' is '5'",)),
    ("tag", "a.conll", "a\tX\nb\t\n", (), ("line 2 has an empty label",)),
    ("tag", "a.conll", "a\tX\n\tX\n", (), ("line 2 has an empty word",)),
    ("tag", "a.conll", "word\n", (), ("line 1 has one column", "a label")),
    ("tag", "a.conll", "a X\nb Y\n", ("--label", "3"), ("line 1 has 2 column(s)", "--label")),
    ("tag", "a.conllu", "1\tx\n", (), ("line 1 has 2 column(s), expected at least 4",)),
    ("tag", "a.conll", "a X\n", ("--label", "upos"), ("--label upos", "a number")),
    ("tag", "a.conll", "\n\n", (), ("0 sequence(s)",)),
    ("tag", "a.csv", "x,phase\n1,a\n,b\n", (), ("row 3, column 'x' has no value", "--fill")),
    ("tag", "a.csv", "x,phase\n1,a\nu,b\n", (), ("row 3, column 'x' is 'u'", "--drop x")),
    ("tag", "a.csv", "x,phase\n1,a\n2,\n", (), ("row 3, column 'phase' has no label",)),
    ("tag", "a.csv", "x,phase\n1,a\n", ("--drop", "y"), ("no column 'y'", "--drop")),
    ("tag", "a.csv", "x,phase\n1,a\n", ("--drop", "x"), ("no features",)),
    ("tag", "a.csv", "x,phase\n1,a\n", ("--fill", "guess"), ("--fill guess",)),
    ("tag", "a.csv", "x,phase\n1,a\n", ("--validation", "0.6", "--test", "0.4"), ("leave no data",)),
]  # fmt: skip


@pytest.mark.parametrize(("task", "name", "text", "options", "words"), BAD)
def test_bad_data(
    cli: Cli, tmp_path: Path, task: str, name: str, text: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text)
    refused(cli("train", task, tmp_path / name, "--out", tmp_path / "run", *options), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_no_data(cli: Cli, tmp_path: Path, task: str) -> None:
    refused(cli("train", task, "--out", tmp_path / "run"), "there are no data")
    refused(cli("train", task, tmp_path / "no.csv", "--out", tmp_path / "run"), "no.csv does not exist")
    refused(cli("train", task, tmp_path / "no.csv"), "--out is missing")


def small(cli: Cli, tmp_path: Path, data: Path, task: str = "classify", *more: object) -> Path:
    done = cli("train", task, data, "--out", tmp_path / "run", "--hidden", 4, "--steps", 3, *more)
    assert done.code == 0, done
    return tmp_path / "run"


def test_unknown_labels_symbols_and_columns_in_new_data(cli: Cli, tmp_path: Path) -> None:
    data = table(tmp_path / "a.csv", texts(40))
    run = small(cli, tmp_path, data)
    new = table(tmp_path / "new.csv", [("xay", "x first"), ("xx", "both")])
    refused(cli("eval", run, new), "new.csv, row 3 has the label 'both'", "'x first', 'y first'")
    refused(
        cli("train", "classify", data, "--validation-data", new, "--out", tmp_path / "other"),
        "row 3 has the label 'both'",
    )
    assert not (tmp_path / "other").exists()
    refused(cli("predict", run, table(tmp_path / "b.csv", [("x",)], ("words",))), "no column 'text'", "'words'")
    assert cli("predict", run, table(tmp_path / "c.csv", [("Ωx€y", "?")])).code == 0  # symbols nobody has seen
    refused(cli("predict", run, new, "--out", tmp_path / "p.xls"), "p.xls", ".csv")
    refused(cli("generate", run), "is a run of classify", "predict")
    weights = tmp_path / "w.npz"
    refused(cli("export", run, "--format", "torch", "--out", weights), "is a run of classify", "expected one of charlm")
    assert not weights.exists()
    refused(cli("train", "tag", "--resume", run), "is a run of classify", "train classify --resume")
    refused(cli("train", "classify", "--resume", run, "--hidden", 5), "--hidden")
    data.write_text(data.read_text().replace("x first", "X first"))
    refused(cli("train", "classify", "--resume", run, "--steps", 9), "is not the one", "put it back")


def test_a_character_model_predicts_nothing_and_has_no_classes(
    cli: Cli, char_run: Path, text: Path, tmp_path: Path
) -> None:
    refused(cli("predict", char_run, text), "a run of charlm predicts nothing", "generate")
    assert cli("eval", char_run, text, "--plot", tmp_path / "a.png").code == 2
    assert not (tmp_path / "a.png").exists()


def test_a_file_that_fails_half_way_leaves_no_prediction(cli: Cli, tmp_path: Path) -> None:
    run = small(cli, tmp_path, frames(tmp_path / "a.csv", 300), "tag", "--window", 20)
    bad = table(tmp_path / "bad.csv", [("1", "2"), ("x", "2")], ("x", "noise"))
    refused(cli("predict", run, bad, "--out", tmp_path / "p.csv"), "bad.csv, row 3, column 'x'")
    assert not list(tmp_path.glob("*p.csv*"))
    refused(cli("eval", run, conll(tmp_path / "b.conll", sentences(2))), "trained on frames")


def test_missing_numbers_can_be_filled(cli: Cli, tmp_path: Path) -> None:
    data = frames(tmp_path / "a.csv", 200)
    lines = data.read_text().splitlines()
    lines[5] = ",nan," + lines[5].split(",")[2]
    data.write_text("\n".join(lines) + "\n")
    for how in ("mean", "previous", "zero"):
        run = tmp_path / how
        done = cli("train", "tag", data, "--out", run, "--fill", how, "--steps", 3, "--hidden", 4, "--window", 20)
        assert done.code == 0, done
        assert load(run).config.fill == how
        assert cli("eval", run, data).code == 0
    bare = tmp_path / "bare"
    whole = frames(tmp_path / "b.csv", 200)
    assert cli("train", "tag", whole, "--out", bare, "--steps", 3, "--hidden", 4, "--window", 20).code == 0
    for command in ("eval", "predict"):
        refused(cli(command, bare, data), "a.csv, row 6, column 'x' has no value", "--fill mean, previous or zero")
        assert cli(command, bare, data, "--fill", "previous").code == 0
        refused(cli(command, bare, data, "--fill", "guess"), "--fill guess")
    zeros = tmp_path / "zeros.csv"
    zeros.write_text("\n".join([*lines[:5], "0,0," + lines[5].split(",")[2], *lines[6:]]) + "\n")
    assert cli("predict", bare, data, "--fill", "zero").out == cli("predict", bare, zeros).out.replace("zeros", "a")


def test_tables_without_names_by_the_numbers_of_their_columns(cli: Cli, tmp_path: Path) -> None:
    rows = texts(40)
    (tmp_path / "bare.csv").write_text("".join(f"{text},7,{label}\n" for text, label in rows))
    refused(
        cli("train", "classify", tmp_path / "bare.csv", "--out", tmp_path / "run", "--text", "x", "--label", 3),
        f"first row names {rows[0][0]!r}, '7', {rows[0][1]!r}",
    )
    run = small(cli, tmp_path, tmp_path / "bare.csv", "classify", "--text", 1, "--label", 3)
    assert load(run).net.encoding.labels == ("x first", "y first")
    assert json.loads((run / "config.json").read_text())["data"]["examples"] == 40
    assert cli("eval", run, tmp_path / "bare.csv").out.startswith("40 sequences")
    (tmp_path / "new.csv").write_text("xay\nyax\n")
    assert len(cli("predict", run, tmp_path / "new.csv").out.splitlines()) == 3


@pytest.mark.parametrize("nested", [False, True])
def test_series_in_lists(cli: Cli, tmp_path: Path, nested: bool) -> None:
    """The same data as a row of numbers each, of different lengths."""
    draw = np.random.default_rng(0)
    series = [draw.normal(size=(n, 2)).round(3) for n in draw.integers(2, 6, size=30)]
    labels = ["up" if values[-1, 0] > 0 else "down" for values in series]
    flat = tmp_path / "flat.csv"
    cells = [[label, *map(str, values.ravel().tolist())] for values, label in zip(series, labels, strict=True)]
    flat.write_text(
        "\n".join(",".join(row + [""] * (11 - len(row))) for row in [["label", *map(str, range(10))], *cells])
    )
    lists = tmp_path / "lists.jsonl"
    lists.write_text(
        "".join(
            json.dumps({"id": f"r{k}", "values": (values if nested else values.ravel()).tolist(), "label": label})
            + "\n"
            for k, (values, label) in enumerate(zip(series, labels, strict=True))
        )
    )
    said = []
    for data in (flat, lists):
        run = tmp_path / data.stem
        options = ["--series", 2, "--hidden", 4, "--steps", 3]
        assert cli("train", "classify", data, "--out", run, *options).code == 0
        said.append([row["probability"] for row in csv.DictReader(io.StringIO(cli("predict", run, data).out))])
        assert cli("eval", run, data).out.startswith("30 sequences")
    assert said[0] == said[1] and len(said[0]) == 30
    hole = tmp_path / "hole.jsonl"
    hole.write_text('{"values": [null, 1, 2, 3]}\n')
    refused(cli("predict", tmp_path / "lists", hole), "row 1, column 'values' has no value", "--fill mean")
    assert cli("predict", tmp_path / "lists", hole, "--fill", "mean").code == 0


def test_a_tsv_of_predictions_is_read_as_it_was_written(cli: Cli, tmp_path: Path) -> None:
    texts_ = ["two\nlines", 'a\ttab and "quotes"', '"all of it"', '"', "xay", "\r\nfirst"]
    run = small(cli, tmp_path, table(tmp_path / "a.csv", texts(40)))
    new = table(tmp_path / "new.csv", [(text,) for text in texts_], ("text",))
    assert cli("predict", run, new, "--out", tmp_path / "p.tsv").code == 0
    found = Table(tmp_path / "p.tsv")
    assert found.columns == ("place", "text", "label", "probability")
    assert [row[1] for _, row in found.rows()] == [" ".join(text.split()) for text in texts_]
    assert cli("eval", run, tmp_path / "p.tsv").out.startswith("6 sequences, accuracy")
    refused(cli("predict", run, new, "--out", tmp_path / "p.conll"), "p.conll", "no words with tags")
    assert not (tmp_path / "p.conll").exists()


def test_labels_that_are_nearly_the_same_are_noted(cli: Cli, tmp_path: Path) -> None:
    rows = [("xay", "Yes"), ("yax", "yes"), ("axy", "no")] * 8
    options = ["--hidden", 4, "--steps", 2]
    done = cli("train", "classify", table(tmp_path / "a.csv", rows), "--out", tmp_path / "a", *options)
    assert "the labels 'Yes', 'yes' differ in capitals or spaces only" in done.out
    done = cli("train", "classify", table(tmp_path / "b.csv", texts(40)), "--out", tmp_path / "b", *options)
    assert done.code == 0 and "differ" not in done.out


def test_pictures_need_matplotlib_or_are_there(cli: Cli, tmp_path: Path) -> None:
    data, run = table(tmp_path / "a.csv", texts(40)), tmp_path / "run"
    done = cli("train", "classify", data, "--out", run, "--hidden", 4, "--steps", 4, "--eval-every", 2, "--plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        refused(done, "--plot needs matplotlib", "cellwright[plot]")
        assert not run.exists()
        return
    assert done.code == 0, done
    refused(cli("eval", run, data, "--plot", tmp_path / "c.doc"), "c.doc: expected the name of a picture", ".png")
    refused(cli("eval", run, data, "--plot", tmp_path), "expected the name of a picture")
    refused(cli("eval", run, data, "--plot", tmp_path / "no" / "c.svg"), f"there is no folder {tmp_path / 'no'}")
    drawn = cli("eval", run, data, "--plot", tmp_path / "c.svg")
    assert drawn.code == 0 and drawn.out.endswith(f"picture {tmp_path / 'c.svg'}\n")
    assert all((run / name).read_bytes()[:4] == b"\x89PNG" for name in ("loss.png", "confusion.png"))
    assert "<svg" in (tmp_path / "c.svg").read_text()


def test_columns_that_a_run_misses_are_named(cli: Cli, tmp_path: Path) -> None:
    """`eval` and `predict` have no options to choose a column with."""
    data, other, run = table(tmp_path / "a.csv", texts(40)), tmp_path / "b.csv", tmp_path / "run"
    assert cli("train", "classify", data, "--out", run, "--hidden", 4, "--steps", 2).code == 0
    other.write_text("words,label\nx,x first\n")
    for command in ("eval", "predict"):
        done = cli(command, run, other)
        refused(done, "no column 'text'", "'words', 'label'", "call a column so")
        assert "--text" not in done.err
    refused(cli("predict", run, data, "--out", tmp_path / "no" / "a.csv"), f"there is no folder {tmp_path / 'no'}")
    tags = tmp_path / "tags"
    assert cli("train", "tag", frames(tmp_path / "f.csv", 60), "--out", tags, "--window", 10, "--steps", 2).code == 0
    refused(cli("predict", tags, tmp_path / "nothing"), "nothing does not exist")
