"""`translate` and `caption` from file to text: what they learn, exact resume, and everything that can be wrong."""

import csv
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright.app.runs import load, start
from cellwright.tasks.caption.config import CaptionConfig
from cellwright.tasks.settings import TrainConfig
from cellwright.tasks.translate.config import TranslateConfig
from cellwright.train.run import Run

from .conftest import Result, Stop, assert_resumes_exactly, refused

Cli = Callable[..., Result]
DIGITS = ["zero", "one", "two", "three", "four", "five"]
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def numbers(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Words, and their digits backwards, with a mark after the first one."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        chosen = draw.choices(range(len(DIGITS)), k=draw.randint(1, 4))
        found.append((" ".join(DIGITS[d] for d in chosen), " ".join(map(str, reversed(chosen))) + "."))
    return found


def table(path: Path, rows: list[tuple[str, str]], header: str = "") -> Path:
    path.write_text(header + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Images of 12 x 16 pixels with a square on one side, and sentences about them."""
    draw = random.Random(seed)
    images = np.full((count, 12, 16, 3), 90, np.uint8)
    texts = []
    for image in images:
        color, side = draw.choice(list(COLORS)), draw.choice(["left", "right"])
        y, x = draw.randint(0, 6), draw.randint(0, 2) + (9 if side == "right" else 0)
        image[y : y + 5, x : x + 5] = COLORS[color]
        texts.append(f"A {color} square on the {side}")
    return images, texts


def pictures(folder: Path, count: int = 60, seed: int = 0) -> tuple[Path, Path]:
    """A table of captions and an archive."""
    images, texts = squares(count, seed)
    names = [f"i{n}" for n in range(count)]
    np.savez(folder / f"images{seed}.npz", images=images, keys=names)
    rows = [f"{n},{t}\n" for n, t in zip(names, texts, strict=True)]
    (folder / f"captions{seed}.csv").write_text("image,caption\n" + "".join(rows))
    return folder / f"captions{seed}.csv", folder / f"images{seed}.npz"


def last_metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return found


FAST = ("--batch", 32, "--lr", 0.01, "--dropout", 0, "--patience", 0, "--beam", 2)


@pytest.mark.parametrize("attention", ["luong", "bahdanau"])
def test_translate(cli: Cli, tmp_path: Path, attention: str) -> None:
    data, new, run = table(tmp_path / "a.tsv", numbers(800)), table(tmp_path / "b.tsv", numbers(60, 1)), tmp_path / "r"
    options = ["--hidden", 24, "--attention", attention, "--steps", 240, "--eval-every", 120, "--unknown", 0.01, *FAST]
    done = cli("train", "translate", data, "--out", run, "--test-data", new, *options)
    assert done.code == 0, done
    assert "reads 6 symbols" in done.out and "7 symbols known to write" in done.out
    assert last_metrics(run)["exact"] > 0.9
    assert ("BLEU" in last_metrics(run)) == ("need sacrebleu" not in done.out)
    # eval has the numbers of the test; predict writes the same, line by line
    found = cli("eval", run, new)
    assert f"exact {last_metrics(run)['exact']:.4f}" in found.out and "perplexity" in found.out
    assert f"{last_metrics(run)['loss']:.4f} nats" in found.out
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(source + "\n" for source, _ in numbers(60, 1)))
    said = cli("predict", run, lines).out.splitlines()
    right = sum(line == target for line, (_, target) in zip(said, numbers(60, 1), strict=True))
    assert right / 60 == pytest.approx(last_metrics(run)["exact"])
    # an empty line stays one, and words that nobody has seen are read as unknown
    lines.write_text("one two\n\nnever seen\n")
    said = cli("predict", run, lines).out.splitlines()
    assert len(said) == 3 and said[0] == "2 1." and said[1] == "" and "\ufffd" not in said[2]
    assert cli("predict", run, new, "--out", tmp_path / "p.jsonl").code == 0
    records = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [r["source"] for r in records] == [source for source, _ in numbers(60, 1)]
    assert all(r["log_probability"] <= 0 for r in records)
    assert cli("predict", run, new, "--out", tmp_path / "p.csv").code == 0
    assert [r["target"] for r in csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text()))] == [
        r["target"] for r in records
    ]


def test_translate_reads_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = numbers(50)
    (tmp_path / "a.x").write_text("".join(f"{s}\n" for s, _ in rows))
    (tmp_path / "a.y").write_text("".join(f"{t}\n" for _, t in rows) + "\n")
    (tmp_path / "a.x").write_text((tmp_path / "a.x").read_text() + "\n")  # an empty line in both is left out
    (tmp_path / "a.csv").write_text("target,source\n" + "".join(f"{t},{s}\n" for s, t in rows))
    (tmp_path / "b.csv").write_text("from,to\n" + "".join(f"{s},{t}\n" for s, t in rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in rows))
    table(tmp_path / "a.tsv", rows)
    table(tmp_path / "b.tsv", [(t, s) for s, t in rows], "target\tsource\n")
    kinds = [("a.x", "a.y"), ("a.csv",), ("b.csv",), ("a.jsonl",), ("a.tsv",), ("b.tsv",)]
    found = []
    for n, names in enumerate(kinds):
        data = tuple(str(tmp_path / name) for name in names)
        assert start(TranslateConfig(data=data, hidden=4, steps=4), tmp_path / f"run{n}", Stop())
        found.append(Run.open(tmp_path / f"run{n}").load("last")[0])
    for other in found[1:]:
        assert all(t.equal(other[name]) for name, t in found[0].items())


@pytest.mark.parametrize(
    ("name", "header", "more", "said"),
    [
        ("a.tsv", "", (), "60 pairs from the columns '1', '2'"),
        ("a.tsv", "en\tde\n", (), "from the columns 'en', 'de'"),
        ("a.tsv", "EN-us\tGerman\n", (), "from the columns 'EN-us', 'German'"),
        ("a.tsv", "en\tfirst\n", ("--source", "en"), "from the columns 'en', 'first'"),
        ("a.tsv", "tgt\tsrc\n", ("--source", "tgt", "--target", "src"), "from the columns 'tgt', 'src'"),
        ("a.csv", "first;second, last\n", (), "from the columns 'first', 'second, last'"),
        ("a.csv", "", ("--source", 1, "--target", 2), "from the columns '1', '2'"),
        ("id.tsv", "", ("--source", 2, "--target", 3), "from the columns '2', '3'"),
        ("id.tsv", "id\ten\tde\n", ("--source", "en", "--target", "de"), "from the columns 'en', 'de'"),
        ("id.tsv", "n\tsource\ttarget\n", (), "from the columns 'source', 'target'"),
    ],
)
def test_translate_says_which_columns_it_took(
    cli: Cli, tmp_path: Path, name: str, header: str, more: tuple[Any, ...], said: str
) -> None:
    """No header is a pair, and no pair is a header."""
    mark = "\t" if name.endswith("tsv") else ";"
    rows = [mark.join((*(["7"] if name == "id.tsv" else []), s, t)) for s, t in numbers(60)]
    data, run = tmp_path / name, tmp_path / "run"
    data.write_text(header + "\n".join(rows) + "\n")
    done = cli("train", "translate", data, "--out", run, "--hidden", 4, "--steps", 2, *more)
    assert done.code == 0 and said in done.out and "60 pairs from the columns" in done.out, done
    assert cli("eval", run, data).out.startswith("60 sources")
    assert len(cli("predict", run, data).out.splitlines()) == 60
    # the sources alone, with or without the name of the column
    alone = tmp_path / f"alone{data.suffix}"
    column = Run.open(run).documents["encoding.json"]["layout"]["source"]
    names = "" if column.isdigit() else f"{column}\n"
    if name != "id.tsv" or names:
        alone.write_text(names + "".join(f"{s}\n" for s, _ in numbers(60)))
        assert cli("predict", run, alone).out == cli("predict", run, data).out


def test_translate_reads_what_it_wrote_and_quotes_as_they_are(cli: Cli, tmp_path: Path) -> None:
    texts = ['"', '"Yes."', 'say "no" twice', '"Go," he said', '""Hm""', "plain"]
    (tmp_path / "new.txt").write_text("\n".join(texts) + "\n")
    run, data = tmp_path / "run", table(tmp_path / "a.tsv", numbers(40))
    assert cli("train", "translate", data, "--out", run, "--hidden", 4, "--steps", 2, "--level", "char").code == 0
    for suffix in ("tsv", "csv", "jsonl"):
        out = tmp_path / f"p.{suffix}"
        assert cli("predict", run, tmp_path / "new.txt", "--out", out).code == 0
        assert cli("predict", run, out, "--out", tmp_path / f"again.{suffix}.jsonl").code == 0
        again = [json.loads(line) for line in (tmp_path / f"again.{suffix}.jsonl").read_text().splitlines()]
        assert [record["source"] for record in again] == texts
    bare = tmp_path / "bare.tsv"
    bare.write_text("".join(f"{text}\tx\n" for text in texts))
    assert cli("predict", run, bare).out == cli("predict", run, tmp_path / "new.txt").out


def test_translate_takes_the_columns_of_the_training_in_new_data(cli: Cli, tmp_path: Path) -> None:
    rows, run = numbers(40), tmp_path / "run"
    data = table(tmp_path / "a.tsv", rows, "en\tde\n")
    assert cli("train", "translate", data, "--out", run, "--hidden", 4, "--steps", 2).code == 0
    turned = tmp_path / "b.csv"
    turned.write_text("de,no,en\n" + "".join(f"{t},1,{s}\n" for s, t in rows))
    for command in ("eval", "predict"):
        assert cli(command, run, data).out == cli(command, run, turned).out
    other = tmp_path / "c.tsv"
    other.write_text("a b\tx y\t3\n")
    for command in ("eval", "predict"):
        done = cli(command, run, other)
        refused(done, "no names, and begins with 'a b', 'x y', '3'", "leave the other columns out")
        assert "--source" not in done.err


def test_caption(cli: Cli, tmp_path: Path) -> None:
    captions, images = pictures(tmp_path, 400)
    test, others = pictures(tmp_path, 40, 1)
    run = tmp_path / "run"
    options = ["--hidden", 24, "--steps", 200, "--eval-every", 50, *FAST]
    done = cli("train", "caption", captions, images, "--test-data", test, "--test-data", others, "--out", run, *options)
    assert done.code == 0, done
    assert "images 16 x 12 x 3" in done.out
    assert last_metrics(run)["CIDEr-D"] > 6  # 10 is right in every word, and only some n-grams are rare
    found = cli("eval", run, test, others)
    assert f"CIDEr-D {last_metrics(run)['CIDEr-D']:.4f}" in found.out and "perplexity" in found.out
    said = cli("predict", run, others).out.splitlines()
    truth = squares(40, 1)[1]
    right = [line.split("\t")[1] == text.lower() for line, text in zip(said, truth, strict=True)]
    assert sum(right) >= 36
    assert said[0].startswith("i0\t")


def test_captions_of_features_and_of_every_kind_of_table(cli: Cli, tmp_path: Path) -> None:
    """An object of JSON with several captions per image, rows with them, and a table give the same."""
    features = np.eye(4, dtype=np.float32)[np.arange(40) % 4]
    np.savez(tmp_path / "f.npz", features=features, keys=[f"{n}.jpg" for n in range(40)])
    texts = {f"{n}.jpg": [f"number {DIGITS[n % 4]}", f"it is {DIGITS[n % 4]}"] for n in range(40)}
    rows = [{"image": key, "caption": text} for key, some in texts.items() for text in some]
    (tmp_path / "a.json").write_text(json.dumps(texts))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbered = [(name, n, text) for name, some in texts.items() for n, text in enumerate(some)]
    coco = {
        "images": [{"id": 7 + n, "file_name": name} for n, name in enumerate(texts)],
        "annotations": [{"image_id": 7 + list(texts).index(name), "caption": f"{t} \n"} for name, _, t in numbered],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "flickr8k.txt").write_text("".join(f"{name}#{n}\t{text}\n" for name, n, text in numbered))
    piped = "".join(f"{name}| {n}| {text}\n" for name, n, text in numbered)
    (tmp_path / "flickr30k.csv").write_text(f"image_name| comment_number| comment\n{piped}")
    (tmp_path / "a.tsv").write_text("id\tsentence\n" + "".join(f"{r['image']}\t{r['caption']}\n" for r in rows))
    found = []
    for name in ("a.json", "b.json", "a.jsonl", "coco.json", "flickr8k.txt", "flickr30k.csv", "a.tsv", "learns"):
        run, steps, table_ = tmp_path / f"run-{name}", 120 if name == "learns" else 3, name.replace("learns", "a.tsv")
        done = cli("train", "caption", tmp_path / table_, tmp_path / "f.npz", "--out", run, "--hidden", 8, "--steps",
                   steps, "--attention", "none", *FAST)  # fmt: skip
        assert done.code == 0, done
        assert "features 1 x 4" in done.out and "40 images, 80 texts" in done.out
        found.append(Run.open(run).load("last")[0])
    for other in found[1:-1]:
        assert all(t.equal(other[key]) for key, t in found[0].items())
    said = cli("predict", run, tmp_path / "f.npz").out.splitlines()
    assert all(DIGITS[n % 4] in line for n, line in enumerate(said))


def test_pieces_of_words(cli: Cli, tmp_path: Path) -> None:
    """Pieces write what is no word of the training data, and characters of several bytes."""
    draw, stems = random.Random(0), ["grün", "groß", "klein", "läut", "heiß", "neu"]

    def rows(count: int) -> list[tuple[str, str]]:
        words = ["".join(draw.choices(stems, k=2)) for _ in range(count)]
        return [(word, f"<{word}>") for word in words if word != "grüngroß"]

    data, new, run = table(tmp_path / "a.tsv", rows(600)), table(tmp_path / "b.tsv", rows(40)), tmp_path / "run"
    options = ["--level", "bpe", "--vocabulary", 270, "--hidden", 24, "--steps", 260, "--eval-every", 65, *FAST]
    done = cli("train", "translate", data, "--out", run, "--test-data", new, "--unknown", 0, *options)
    assert done.code == 0, done
    assert last_metrics(run)["exact"] > 0.9
    net = load(run).net
    assert len(net.pieces[0]) == len(net.pieces[1]) == 270 and len(net.reads) < 270  # bytes that nobody has seen
    found = cli("eval", run, new)
    assert f"exact {last_metrics(run)['exact']:.4f}" in found.out
    assert f"{last_metrics(run)['loss']:.4f} nats" in found.out
    lines = tmp_path / "lines.txt"
    lines.write_text("grüngroß\n\nünknown Ω\n")
    said = cli("predict", run, lines)
    assert said.code == 0 and said.out.splitlines()[:2] == ["<grüngroß>", ""], said
    captions, images = pictures(tmp_path)
    steps = ("--hidden", 4, "--steps", 2, "--level", "bpe")
    assert cli("train", "caption", captions, images, "--out", tmp_path / "seen", *steps).code == 0
    said = cli("predict", tmp_path / "seen", images)
    assert said.code == 0 and len(said.out.splitlines()) == 60
    # a run whose pieces were changed is none
    encoding = json.loads((run / "encoding.json").read_text())
    encoding["pieces"][0]["merges"][0] = [1, 999]
    (run / "encoding.json").write_text(json.dumps(encoding))
    refused(cli("predict", run, lines), "encoding.json is not the one")


@pytest.mark.parametrize("kind", ["words", "characters", "pieces", "images"])
def test_a_resumed_training_is_the_same_bit_for_bit(kind: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"hidden": 6, "batch": 4, "steps": 45, "eval_every": 12, "dropout": 0.3, "sampling": 0.5}
    config: TrainConfig
    if kind == "images":
        config = CaptionConfig(**common, data=tuple(map(str, pictures(tmp_path))))
    else:
        data = (str(table(tmp_path / "a.tsv", numbers(50))),)
        more: dict[str, Any] = {"attention": "bahdanau", "layers": 2} if kind == "words" else {"level": "char"}
        more = {"level": "bpe", "best": "exact"} if kind == "pieces" else more
        config = TranslateConfig(**common, data=data, smoothing=0.1, **more)
    assert_resumes_exactly(config, tmp_path, 17)


def test_words_of_the_validation_part_are_not_known(cli: Cli, tmp_path: Path) -> None:
    data = table(tmp_path / "a.tsv", [("a b", "x y"), ("a once", "x rare")] + [("a b", "x y")] * 20)
    dev = table(tmp_path / "dev.tsv", [("new new", "later later")] * 3)
    done = cli("train", "translate", data, "--validation-data", dev, "--out", tmp_path / "run", "--hidden", 4,
               "--steps", 2)  # fmt: skip
    assert done.code == 0, done
    net = load(tmp_path / "run", "last").net
    assert sorted(net.reads.symbols) == ["a", "b"] and sorted(net.lexicon.symbols) == ["x", "y"]


BAD = [
    ("a.tsv", "one\tuno\ntwo\n", (), ("a.tsv, line 2 has 1 column(s)", "a tab")),
    ("a.tsv", "one\tuno\n\t dos\n", (), ("line 2 has an empty source beside the target 'dos'",)),
    ("a.tsv", "one\tuno\ntwo\t\n", (), ("line 2 has an empty target beside the source 'two'",)),
    ("a.tsv", "one\tuno\n", ("--source", "en"), ("no column 'en' with the source", "'one', 'uno'", "--source")),
    ("a.tsv", "id\ten\tde\n1\ta\tb\n", (),
     ("no column 'source'", "it has no names, and begins with 'id', 'en', 'de'", "--source and --target")),
    ("a.tsv", "id\ten\tde\n1\ta\tb\n", ("--source", "2", "--target", "4"), ("no column '4'", "no names")),
    ("a.tsv", "one\tuno\none\ttwo\tuno\n", (), ("line 2 has 3 column(s), expected 2",)),
    ("a.csv", "en,es,fr\na,b,c\n", (), ("no column 'source'", "'en', 'es', 'fr'", "--source")),
    ("a.csv", "source,es\na,b\n", ("--target", "fr"), ("no column 'fr'", "--target")),
    ("a.csv", "source,target\na,\n", (), ("row 2 has an empty target",)),
    ("a.txt", "one\n", (), ("got 1 file(s) of lines", "train.en train.de")),
    ("a.tsv", "", (), ("0 pair(s)",)),
    ("a.tsv", "one\tuno\n" * 9, ("--longest", "1", "--level", "char"), ("left out by --longest 1",)),
    ("a.tsv", "".join(f"a{n}\tb{n}\n" for n in range(9)), (), ("no word of the texts is there twice", "char")),
    ("a.tsv", "one\tuno\n" * 9, ("--validation", "0.6", "--test", "0.4"), ("leave no data",)),
    ("a.tsv", "", ("--level", "bpe"), ("0 pair(s)",)),
    ("a.tsv", "one\tuno\n" * 9, ("--vocabulary", "300"), ("--vocabulary 300 goes with --level bpe, not word",)),
    ("a.tsv", "one\tuno\n" * 9, ("--vocabulary", "256", "--level", "bpe"), ("--vocabulary 256", "greater than 256")),
    ("a.tsv", "one\tunos\n" * 9, ("--longest", "2", "--level", "bpe", "--vocabulary", "257"), ("by --longest 2",)),
    ("a.tsv", "one\tuno\n" * 9, ("--attention", "self"), ("--attention self",)),
    ("a.tsv", "one\tuno\n" * 9, ("--beam", "0"), ("--beam 0",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "options", "words"), BAD)
def test_bad_pairs(
    cli: Cli, tmp_path: Path, name: str, text: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text)
    refused(cli("train", "translate", tmp_path / name, "--out", tmp_path / "run", *options), *words)
    assert not (tmp_path / "run").exists()


def test_lines_without_a_partner(cli: Cli, tmp_path: Path) -> None:
    a, b = tmp_path / "a.en", tmp_path / "a.de"
    a.write_text("one\ntwo\nthree\n")
    for text, words in {
        "eins\nzwei\n": ("a.de ends after line 2", "a.en goes on", "line 3 has no partner"),
        "eins\nzwei\ndrei\nvier\n": ("a.en ends after line 3",),
        "eins\n\ndrei\n": ("line 2 has an empty target beside the source 'two'",),
    }.items():
        b.write_text(text)
        refused(cli("train", "translate", a, b, "--out", tmp_path / "run"), *words)
    refused(cli("train", "translate", tmp_path, "--out", tmp_path / "run"), "is a folder")
    refused(cli("train", "translate", a, tmp_path / "no.de", "--out", tmp_path / "run"), "no.de does not exist")
    refused(cli("train", "translate", "--out", tmp_path / "run"), "there are no data")
    assert not (tmp_path / "run").exists()


def test_captions_and_images_that_do_not_fit(cli: Cli, tmp_path: Path) -> None:
    captions, images = pictures(tmp_path)
    run, other = tmp_path / "run", tmp_path / "other.csv"
    rows = captions.read_text().splitlines()

    def train(*more: object) -> Result:
        return cli("train", "caption", *more, "--out", run, "--hidden", 4, "--steps", 2)

    other.write_text("\n".join(rows[:-2]) + "\n")
    refused(train(other, images), "2 image(s) have no caption: 'i58', 'i59'", "--partial")
    other.write_text("\n".join([*rows, "i60,a square"]) + "\n")
    refused(train(other, images), "1 caption(s) name an image that is not there: 'i60'", "--partial")
    other.write_text("\n".join([*rows, "i1, "]) + "\n")
    refused(train(other, images), "other.csv, row 62 has no caption")
    other.write_text("\n".join([*rows, ",a"]) + "\n")
    refused(train(other, images), "row 62 has no name of an image")
    other.write_text("image\ni1\n")
    refused(train(other, images), "has the columns 'image'")
    other.write_text("a.png,A dog\nb.png,A cat\n")
    refused(train(other, images), "expected names of columns in its first row")
    refused(train(captions, images, "--caption", "text"), "no column 'text'", "--caption")
    refused(train(captions), "there are captions, but no images")
    refused(train(images), "there are images, but no captions")
    refused(train(captions, tmp_path / "no.npz"), "no.npz does not exist")
    refused(train(captions, tmp_path / "photos"), "photos is neither captions nor images", "it does not exist")
    refused(train(captions, images, "--size", "12"), "--size 12", "200x50")
    refused(train(captions, images, "--size", "100000x100000"), "--size 100000x100000", "at most 16,777,216 pixels")
    np.savez(tmp_path / "twice.npz", images=squares(60)[0], keys=["i0"] * 60)
    refused(train(captions, tmp_path / "twice.npz"), "has the name 'i0' twice in `keys`")
    np.savez(tmp_path / "plain.npz", images=squares(60)[0])
    refused(train(captions, tmp_path / "plain.npz"), "60 caption(s)", "the images are called '0', '1', '2', '3', '4'")
    (tmp_path / "a.json").write_text('{"i1": 5}')
    refused(train(tmp_path / "a.json", images), "a.json, entry 1 has no text")
    (tmp_path / "a.json").write_text('[{"image": "i1"}]')
    refused(train(tmp_path / "a.json", images), "a.json, entry 1 is not an object with 'image' and 'caption'")
    bad: list[tuple[str, Any, tuple[str, ...]]] = [
        ("coco.json", ([], [{"image_id": 3}]), ("coco.json, annotation 1 has no 'image_id' or no 'caption'",)),
        ("coco.json", ([{"id": 1}], []), ("coco.json, image 1 has no 'id' or no 'file_name'",)),
        ("coco.json", ([{"id": 1, "file_name": "i0"}], [{"image_id": k, "caption": "a"} for k in (9, 1, 8)]),
         ("2 annotation(s) have an image_id that is not among its images: '9', '8'", "--partial")),
        ("coco.json", ([{"id": 1, "file_name": "i0"}], []), ("coco.json has no captions",)),
        ("a.txt", "i0.png#0\ta square\ni1.png#0\n", ("a.txt, line 2 has no caption",)),
        ("a.txt", "i0.png#0\ta square\na square\ta\n", ("a.txt, line 2 has no name of an image",)),
        ("a.txt", "image,caption\ni0,a square\n", ("a.txt, line 1 is neither `a.jpg#0`", "give it another name")),
        ("b.csv", "image| n| comment\ni0| 0  a square\n", ("b.csv, row 2 has 2 columns, expected 3",)),
        ("b.csv", "i0.png| 0| a square\n", ("expected names of columns in its first row",)),
    ]  # fmt: skip
    for name, content, words in bad:
        if name == "coco.json":
            content = json.dumps(dict(zip(("images", "annotations"), content, strict=True)))
        (tmp_path / name).write_text(content)
        refused(train(tmp_path / name, images), *words)
    assert not run.exists()
    # with --partial, what fits is learned from; captions for validation may be of the same images
    other.write_text("\n".join([*rows[:41], "i99,a square"]) + "\n")
    assert "40 images" in train(other, images, "--partial").out
    first, rest = tmp_path / "first.csv", tmp_path / "rest.csv"
    first.write_text("\n".join(rows[:41]) + "\n")
    rest.write_text("\n".join([rows[0], *rows[41:]]) + "\n")
    run = tmp_path / "second"
    assert "40 to train on, 20 for validation" in train(first, images, "--validation-data", rest).out
    # other images than those of the training
    np.savez(tmp_path / "small.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    refused(cli("predict", run, tmp_path / "small.npz"), "image '0' is 8 x 8 pixels", "16 x 12 pixels", "--size")
    np.savez(tmp_path / "f.npz", features=np.zeros((2, 8)))
    refused(cli("predict", run, tmp_path / "f.npz"), "has 1 x 8 features", "16 x 12 pixels")
    refused(cli("predict", run, captions), "no images")
    refused(cli("eval", run, captions), "no images")


def test_folders_of_images(cli: Cli, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="files of images: pip install 'cellwright[images]'")
    folder, (images, texts) = tmp_path / "photos", squares(12)
    folder.mkdir()
    for n, image in enumerate(images):
        pillow.fromarray(image).save(folder / f"i{n}.png")
    table_ = tmp_path / "c.csv"
    names = [f"i{n}.png" if n % 2 else f"i{n}" for n in range(12)]
    table_.write_text("image,caption\n" + "".join(f"{n},{t}\n" for n, t in zip(names, texts, strict=True)))
    np.savez(tmp_path / "a.npz", images=images[[0, 1, 10, 11, *range(2, 10)]], keys=[names[n] for n in
             [0, 1, 10, 11, *range(2, 10)]])  # fmt: skip
    options = ("--hidden", 4, "--steps", 3, "--batch", 4)
    found = []
    for n, place in enumerate((folder, tmp_path / "a.npz")):  # in the order of the files' names
        assert cli("train", "caption", table_, place, "--out", tmp_path / f"run{n}", *options).code == 0
        found.append(Run.open(tmp_path / f"run{n}").load("last")[0])
    assert all(t.equal(found[1][name]) for name, t in found[0].items())
    # one image, grey or with another size, or none at all
    run = tmp_path / "run0"
    assert cli("predict", run, folder / "i3.png").out.startswith("i3.png\t")
    pillow.fromarray(images[0]).convert("L").save(tmp_path / "grey.jpg")
    assert cli("predict", run, tmp_path / "grey.jpg").code == 0
    pillow.fromarray(images[0]).resize((20, 30)).save(folder / "i3.png")
    refused(cli("predict", run, folder), "i3.png is 20 x 30 pixels", "--size")
    refused(cli("train", "caption", table_, folder, "--out", tmp_path / "bad", *options), "i3.png is 20 x 30 pixels")
    sized = ("--size", "16x12", *options)
    assert cli("train", "caption", table_, folder, "--out", tmp_path / "sized", *sized).code == 0
    assert cli("predict", tmp_path / "sized", folder).code == 0
    for broken in ((folder / "i4.png").read_bytes()[:60], b"hello", b""):
        (folder / "i4.png").write_bytes(broken)
        refused(cli("predict", tmp_path / "sized", folder, "--out", tmp_path / "p.csv"), "i4.png is not a sound image")
        assert not list(tmp_path.glob("*p.csv*"))
    refused(cli("predict", run, tmp_path / "no.png"), "no.png does not exist")
    (tmp_path / "empty").mkdir()
    refused(cli("predict", run, tmp_path / "empty"), "has no image")


def test_what_is_not_installed_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path / "a.tsv", numbers(40))
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    done = cli("train", "translate", data, "--out", tmp_path / "run", "--hidden", 4, "--steps", 2, "--test", 0.1)
    assert done.code == 0 and "need sacrebleu: pip install 'cellwright[bleu]'" in done.out
    assert last_metrics(tmp_path / "run").keys() & {"loss", "exact", "BLEU"} == {"loss", "exact"}
    found = cli("eval", tmp_path / "run", data)
    assert "need sacrebleu" in found.out and "perplexity" in found.out
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    (tmp_path / "c.csv").write_text("image,caption\na,b\n")
    refused(
        cli("train", "caption", tmp_path / "c.csv", tmp_path / "photos", "--out", tmp_path / "x"), "cellwright[images]"
    )


def test_pictures(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures: pip install 'cellwright[plot]'")
    data, (captions, images) = table(tmp_path / "a.tsv", numbers(40)), pictures(tmp_path)
    np.savez(tmp_path / "f.npz", features=np.ones((60, 3)), keys=[f"i{n}" for n in range(60)])
    cases: list[tuple[Any, ...]] = [("translate", data), ("caption", captions, images), ("caption", captions,
             tmp_path / "f.npz")]  # fmt: skip
    for n, (task, *paths) in enumerate(cases):
        for attention in ("luong", "none") if n < 2 else ("luong",):
            run = tmp_path / f"run{n}{attention}"
            options = ("--hidden", 4, "--steps", 2, "--plot", "--attention", attention)
            assert cli("train", task, *paths, "--out", run, *options).code == 0
            assert all((run / name).read_bytes()[:4] == b"\x89PNG" for name in ("loss.png", "attention.png"))
        assert cli("eval", run, *paths, "--plot", tmp_path / f"{n}.svg").code == 0
        assert "<svg" in (tmp_path / f"{n}.svg").read_text()


def test_a_picture_shows_as_many_rows_as_there_are_symbols(cli: Cli, tmp_path: Path) -> None:
    data, run = table(tmp_path / "a.tsv", numbers(40)), tmp_path / "run"
    assert cli("train", "translate", data, "--out", run, "--hidden", 8, "--steps", 2, "--beam", 4).code == 0
    loaded = load(run)
    pairs = loaded.job.read(loaded.config)
    batches = loaded.net.batches(pairs)
    for source in range(8):
        written, weights = loaded.net.looked(batches, source)
        read = int(pairs.sources.lengths[source])
        assert weights.shape == (len(written), read)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


def test_a_table_of_predictions(cli: Cli, tmp_path: Path) -> None:
    captions, images = pictures(tmp_path)
    assert cli("train", "caption", captions, images, "--out", tmp_path / "r", "--hidden", 4, "--steps", 2).code == 0
    assert cli("predict", tmp_path / "r", captions, images, "--out", tmp_path / "p.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    assert [row["image"] for row in rows] == [f"i{n}" for n in range(60)]
