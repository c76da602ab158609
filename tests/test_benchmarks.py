"""The benchmarks at a toy size: that they run, that they compare before they time, and that the peers agree."""

import datetime
import inspect
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import attention, captions, dates, fresh, jobs, layers, peers, rate, report, timing, variants, zoo
from benchmarks.__main__ import sections
from benchmarks.cases import KINDS, Case, check, reference

SIZE = (4, 3, 8)  # T, B, H


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "REST", 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_grid(dtype: torch.dtype, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = layers.grid(((2, 8),), 4, dtype, (), 0.01)
    assert [(r["kind"], r["mode"]) for r in rows] == [(k, m) for m in ("inference", "training") for k in KINDS]
    for row in rows:
        assert row["ratios"]["torch.nn"] == row["seconds"]["torch.nn"] / row["seconds"]["cellwright"] > 0
    assert capsys.readouterr().out.count("geometric mean") == 2
    report.write(tmp_path / "new" / "bench.json", {"layers": rows})
    assert json.loads((tmp_path / "new" / "bench.json").read_text())["layers"] == rows


def test_a_peer_that_fails_is_said_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def runs(case: Case, training: bool) -> list[peers.Run]:
        raise RuntimeError("no such kernel")

    broken = peers.Peer("Broken", ("torch",), ("torch",), runs)
    row = layers.measure_case(Case.random("GRU", 2, 2, 3), False, torch.float32, [broken], 0.01)
    assert set(row["ratios"]) == {"torch.nn"}
    assert "Broken cannot run GRU B2 H3: RuntimeError: no such kernel" in capsys.readouterr().out


def test_a_peer_that_is_absent_says_what_brings_it() -> None:
    absent = peers.Peer("Absent", ("some-package",), ("no_such_module",), lambda case, training: [])
    assert absent.absence() == "Absent is absent: No module named 'no_such_module'; pip install some-package"


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({"h": np.ones(2) * 1.01}, "differs by 1.0e-02"),
        ({"h": np.array([1.0, np.nan])}, "differs by nan"),
        ({"h": np.ones(3)}, "shape"),
        ({}, "gave no h"),
    ],
)
def test_no_speed_without_agreement(got: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        check("name", got, {"h": np.ones(2)}, 1e-4)
    check("name", {"h": np.ones(2) + 1e-5}, {"h": np.ones(2)}, 1e-4)


def test_variants() -> None:
    rows = variants.variants(0.01, SIZE)
    assert {"LSTM, peephole", "LSTM, layer norm", "GRU, reset before"} <= {row["case"] for row in rows}
    assert all(row["to plain"] == 1 for row in rows if row["case"] in ("LSTM", "GRU, reset after"))


def test_padding() -> None:
    lengths = variants.spread(50, 30)
    assert lengths.max() == 50
    assert lengths.float().mean() / 50 == pytest.approx(0.6, abs=0.01)
    assert len(variants.padding(0.01, [SIZE])) == 2


def test_attention() -> None:
    rows = attention.attention(0.01, [(3, 2, 4, 5)])
    assert [row["mode"] for row in rows] == ["inference", "training"] * 3
    assert all(row["torch"] == row["seconds"][1] / row["seconds"][0] for row in rows)


def test_cells(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = zoo.run_cells(True, ["MinGRUCell"])
    assert row["training"]["to LSTM"] > 0
    assert "MinGRUCell" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "torchrecurrent", None)
    assert zoo.run_peer(True) == []
    assert "pip install --no-deps torchrecurrent" in capsys.readouterr().out


def test_rate() -> None:
    found = rate.run(True, SIZE, 16)
    assert found["large product"] > 0
    assert [(r["library"], r["mode"]) for r in found["layers"]][:2] == [
        ("cellwright", "inference"), ("torch.nn", "inference")
    ]  # fmt: skip
    assert rate.products(Case.random("LSTM", 1, 1, 1), False) == 2 * 4 * 2


def test_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a command to a result, on names that are none."""
    data, work = tmp_path / "data", tmp_path / "work"
    (data / "names").mkdir(parents=True)
    work.mkdir()
    for kind in "ab":
        (data / "names" / f"{kind}.txt").write_text("".join(f"{kind * (n % 5 + 1)}\n" for n in range(40)))
    found = jobs.run_job("names", data, work, threads=1, quick=True)
    assert 0 <= found["test"]["accuracy"] <= 1
    assert found["reached"] == (found["test"]["accuracy"] >= 0.82)
    printed = capsys.readouterr().out
    assert f"cellwright train classify {data / 'names'} --test 0.1" in printed
    assert f"accuracy {found['test']['accuracy']:.4f}" in printed


def test_dates_are_said_in_words_and_held_out(tmp_path: Path) -> None:
    assert [dates.ordinal(n, True) for n in (1, 12, 20, 23, 31)] == [
        *("first", "twelfth", "twentieth", "twenty-third", "thirty-first")
    ]
    assert [dates.ordinal(n, False) for n in (1, 11, 13, 22, 23)] == ["1st", "11th", "13th", "22nd", "23rd"]
    said = {dates.year_in_words(1905, random.Random(n)) for n in range(20)}
    assert said == {"nineteen oh five", "nineteen hundred and five"}
    assert dates.year_in_words(2004, random.Random(0)) == "two thousand and four"
    dates.write(tmp_path / "a.tsv", tmp_path / "b.tsv", 300, 50)
    parts = [[line.split("\t") for line in (tmp_path / name).read_text().splitlines()] for name in ("a.tsv", "b.tsv")]
    assert [len(part) for part in parts] == [300, 50]
    days = [{datetime.date.fromisoformat(target) for _, target in part} for part in parts]
    assert len(days[0]) == 300 and not days[0] & days[1]
    for source, target in parts[1]:
        month = datetime.date.fromisoformat(target).strftime("%b")
        assert month in source


def test_captions_are_split_by_sentence_and_by_image() -> None:
    """Sentence n is true for images n and n + 1, for n in threes: each three go together."""
    found = {f"i{n}": [f"s{n}", f"s{n - 1}"] if n % 3 else [f"s{n}"] for n in range(90)}
    split = captions.parts(found)
    assert sorted(name for names in split.values() for name in names) == sorted(found)
    assert {part: len(names) for part, names in split.items()} == {"train": 63, "validation": 15, "test": 12}
    sentences = [{s for name in names for s in found[name]} for names in split.values()]
    assert not (sentences[0] & sentences[1] or sentences[0] & sentences[2] or sentences[1] & sentences[2])
    x = np.array([[[[0]]], [[[9]]], [[[200]]]], np.uint8)
    names = {"train": ["a", "b"], "test": ["c"]}
    told = captions.nearest(x[:2], x[2:], names, {"a": ["no"], "b": ["yes", "no"], "c": ["truth"]})
    assert told == (["yes"], [["truth"]])


def test_the_baselines_of_frames() -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    labels = ["up" if row[0] + row[1] > 0.5 else "down" for row in x]
    found = jobs.frame_baselines(x, labels, x[:100], labels[:100])
    assert found["logistic regression"] > 0.97  # the border is a line
    down = labels[:100].count("down")
    assert found["majority"] == pytest.approx(2 * down / (100 + down) / 2)


def test_the_baseline_of_the_hours() -> None:
    y = np.random.default_rng(0).normal(size=60).cumsum()
    errors = [abs(y[o + h] - y[o + h - 7]) for o in range(40, 55 - 5 + 1) for h in range(5)]
    unit = np.mean([abs(y[t] - y[t - 7]) for t in range(7, 30)])
    assert jobs.naive_mase(y, 30, 40, 55, 7, 5) == pytest.approx(np.mean(errors) / unit)


def test_fresh(tmp_path: Path) -> None:
    assert fresh.child("first", "LSTM", SIZE, tmp_path) > 0
    assert list(tmp_path.glob("*.o")), "the cache is where it was asked to be"
    assert fresh.memory("LSTM", *SIZE) >= 0


def test_every_section_takes_quick() -> None:
    for run in sections(()).values():
        inspect.signature(run).bind(True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_peers_agree(peer: peers.Peer, kind: str, training: bool) -> None:
    peers.start()
    if reason := peer.absence():
        pytest.skip(reason)
    case = Case.random(kind, *SIZE)
    for run in peer.runs(case, training):
        check(f"{peer.name} ({run.setting})", run.read(run.call()), reference(case, training), 1e-5)
