"""`forecast` from file to prediction: what it learns, its scores, exact resume, and everything that can be wrong."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright import Forecaster, InputError, RunError, Tagger
from cellwright.tasks.forecast.config import ForecastConfig

from .conftest import Result, assert_resumes_exactly, last_line, refused

Cli = Callable[..., Result]
SMALL: dict[str, Any] = {"hidden": 8, "steps": 30, "eval_every": 10, "horizon": 6, "season": 4, "window": 10}
OPTIONS = [word for name, value in SMALL.items() for word in ("--" + name.replace("_", "-"), value)]


def series(count: int, seed: int = 0) -> np.ndarray:
    """Something that repeats after four steps, and something that does not."""
    draw = np.random.default_rng(seed)
    return (
        20 + 5 * np.sin(np.arange(count) * np.pi / 2) + draw.normal(size=count).cumsum() * 0.3 + draw.normal(size=count)
    )


def hourly(path: Path, count: int = 300, seed: int = 0, first: int = 0) -> Path:
    times = np.datetime64("2024-02-20T00:00") + np.arange(first, count) * np.timedelta64(1, "h")
    rows = [f"{str(t).replace('T', ' ')},{y:.4f}" for t, y in zip(times, series(count, seed)[first:], strict=True)]
    path.write_text("\n".join(["date,load", *rows]) + "\n")
    return path


def test_from_a_file_to_a_forecast(cli: Cli, tmp_path: Path) -> None:
    data, run = hourly(tmp_path / "a.csv"), tmp_path / "run"
    done = cli("train", "forecast", data, "--out", run, *OPTIONS, "--profile", "--quantile", 0.05, "--quantile", 0.95)
    assert done.code == 0, done
    assert "300 steps (hour) from 2024-02-20 00:00 to 2024-03-03 11:00" in done.out
    assert "target load" in done.out and "outside the net" in done.out
    assert {f.name for f in run.glob("*.json")} == {"config.json", "series.json", "cells.json"}
    # eval on the file of the training: what comes after it, with the numbers of the test
    found = cli("eval", run, data)
    assert found.code == 0, found
    test = last_line(done, "test")
    assert "40 forecasts of 6 steps after the training" in found.out
    for name in ("MAE", "RMSE", "MASE", "pinball", "standardised MSE"):
        assert test.split(f" {name} ")[1].split(",")[0] == found.out.split(f" {name} ")[1].split(",")[0].split("\n")[0]
    assert cli("eval", run, data, "--stride", 10).out.startswith("4 forecasts")
    # the next steps, in time
    said = list(csv.DictReader(io.StringIO(cli("predict", run, data).out)))
    assert [row["time"] for row in said] == [f"2024-03-03 {h}:00" for h in range(12, 18)]
    assert [row["step"] for row in said] == list("123456") and {row["target"] for row in said} == {"load"}
    for row in said:
        assert float(row["q0.05"]) < float(row["q0.5"]) < float(row["q0.95"]) and row["forecast"] == row["q0.5"]
    assert cli("predict", run, data, "--out", tmp_path / "p.jsonl").code == 0
    records = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [str(r["q0.05"]) for r in records] == [row["q0.05"] for row in said]
    # rows without a value at the end are the future; the beginning does not matter
    later = tmp_path / "later.csv"
    lines = hourly(later, first=200).read_text()
    later.write_text(lines + "2024-03-03 12:00,\n2024-03-03 13:00,\n")
    again = list(csv.DictReader(io.StringIO(cli("predict", run, later).out)))
    assert [(r["time"], r["q0.5"]) for r in again] == [(r["time"], r["q0.5"]) for r in said]


def test_the_scores_are_those_of_forecasts_made_one_by_one() -> None:
    """From each origin, the model is shown what came before it, and nothing else."""
    y, m = series(120)[:, None] * [1, -3], 4
    model = Forecaster(**SMALL, quantile=(0.2, 0.7)).fit(y)
    assert model.quantiles_ == (0.2, 0.5, 0.7)
    train = 120 - 2 * 18
    units = np.abs(y[m:train] - y[: train - m]).mean(0)
    errors, naive, pinball, inside = [], [], [], []
    for o in range(10, 120 - 6 + 1):
        found = model.predict_quantiles(y[:o])  # [H, K, Q]
        assert np.array_equal(model.predict(y[:o]), found[..., 1])
        for h in range(6):
            true = y[o + h]
            errors.append(true - found[h, :, 1])
            naive.append(true - y[o - m + h % m])
            for q, guess in zip((0.2, 0.5, 0.7), np.moveaxis(found[h], -1, 0), strict=True):
                pinball.append(np.where(true >= guess, q * (true - guess), (1 - q) * (guess - true)))
            inside.append((found[h, :, 0] <= true) & (true <= found[h, :, 2]))
    e, n = np.array(errors), np.array(naive)
    want = {
        "MAE": np.abs(e).mean(),
        "RMSE": np.sqrt((e**2).mean()),
        "MASE": (np.abs(e) / units).mean(),
        "naive MASE": (np.abs(n) / units).mean(),
        "pinball": np.mean(pinball),
        "coverage": np.mean(inside),
        "standardised MSE": ((e / y[:train].std(0)) ** 2).mean(),
        "standardised MAE": (np.abs(e) / y[:train].std(0)).mean(),
    }
    got = model.measure(y)
    assert {name: got[name] for name in want} == pytest.approx(want, rel=1e-4)  # the net computes in float32
    assert model.score(y) == pytest.approx(1 - want["MASE"] / want["naive MASE"], rel=1e-3)


def test_it_learns_what_is_known_of_the_future() -> None:
    draw = np.random.default_rng(0)
    known = draw.integers(0, 2, 406) * 1.0
    y = 3 * known[:400] + draw.normal(size=400) * 0.1
    settings = SMALL | {"steps": 120, "eval_every": 60, "lr": 0.02}
    blind = Forecaster(**settings).fit(y)
    model = Forecaster(**settings).fit(y, known=known[:400])
    assert model.measure(y, known=known[:400])["MAE"] < 0.3 < 1 < blind.measure(y)["MAE"]
    assert np.abs(model.predict(y, known=known) - 3 * known[400:]).max() < 1


def test_several_series_and_months(tmp_path: Path) -> None:
    long, short = series(90), series(60, 1) * 1e4
    months = np.datetime64("2000-01") + np.arange(90)
    model = Forecaster(**SMALL, out=tmp_path / "run").fit([long, short], times=[months, months[:60]])
    first, second = model.predict([long, short], times=[months, months[:60]])
    assert first.shape == second.shape == (6,)
    assert np.abs(first - 20).max() < 15 and np.abs(second - 2e5).max() < 1.5e5
    alone = Forecaster.load(tmp_path / "run").predict([long], times=[months])
    np.testing.assert_allclose(alone[0], first, rtol=1e-6)
    with pytest.raises(RunError, match="a run of forecast, expected one of tag"):
        Tagger.load(tmp_path / "run")


def test_files_are_series_and_what_was_learned_from_is_not_judged(cli: Cli, tmp_path: Path) -> None:
    first, second, third = (hourly(tmp_path / f"{name}.csv", 200, seed) for seed, name in enumerate("abc"))
    run = tmp_path / "run"
    done = cli("train", "forecast", first, second, "--out", run, *OPTIONS, "--test", 20)
    assert done.code == 0 and "2 series, 400 steps (hour)" in done.out, done
    assert "30 windows for the test" in done.out  # of each series: 20 rows, of which a horizon has 6
    assert cli("eval", run, first, second).out.startswith("30 forecasts of 6 steps after the training")
    assert cli("eval", run, third).out.startswith("15 forecasts of 6 steps after the training")
    said = list(csv.DictReader(io.StringIO(cli("predict", run, first, third).out)))
    assert [row["series"] for row in said] == ["a"] * 6 + ["c"] * 6
    early = tmp_path / "early.csv"
    early.write_text("\n".join(first.read_text().splitlines()[:101]) + "\n")
    assert cli("eval", run, early).out.startswith("85 forecasts of 6 steps, MAE")


@pytest.mark.parametrize("more", [{}, {"known": ("k",), "covariate": ("all",), "layers": 2, "dropout": 0.2}])
def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    file = tmp_path / "a.csv"
    rows = [
        f"{t},{a:.3f},{b:.3f},{t % 3},{a + b:.3f}"
        for t, (a, b) in enumerate(zip(series(150), series(150, 1), strict=True))
    ]
    file.write_text("\n".join(["time,x,y,k,z", *rows]) + "\n")
    config = ForecastConfig(**SMALL | {"steps": 45, "eval_every": 12, "batch": 4}, data=(str(file),), **more)
    assert_resumes_exactly(config, tmp_path, 17, 30)


HOURS = [f"2024-01-01 {h:02}:00,{h}" for h in range(24)]
BAD: list[tuple[list[str], tuple[Any, ...], tuple[str, ...]]] = [
    (["date,y"], (), ("has no rows",)),
    (["date,kind", "2024-01-01,a", "2024-01-02,b"], (), ("no column of numbers", "--target")),
    (["date,y", *HOURS], ("--target", "z"), ("no column 'z'", "'date', 'y'", "--target")),
    (["date,y", *HOURS], ("--covariate", "z"), ("no column 'z'", "--covariate")),
    (["date,y", *HOURS], ("--target", "y", "--known", "y"), ("--known y", "named twice")),
    (["date,y", *HOURS], ("--series", "shop"), ("no column 'shop'", "--series")),
    (["date,y", *HOURS], ("--time", "when"), ("no column 'when'", "--time")),
    (["Stamp,y", "01/02/2024 00:00,1", "01/02/2024 01:00,2"], (),
     ("'Stamp' begins with '01/02/2024 00:00'", "several ways",
      "'%d/%m/%Y %H:%M' or", "'%m/%d/%Y %H:%M'", "--time 'Stamp'", "--time row")),
    (["Datum;Last", "01.02.2024;1,5", "02.02.2024;2,5"], ("--time-format", "%d.%m.%Y"),
     ("no column of numbers", "write 1,5 with a decimal point")),
    (["when,y", "2000-Q1,1", "2000-Q2,2"], (),
     ("'when' begins with '2000-Q1'", "--time 'when'", "--time-format", "--time row")),
    (["when,y", "first,1", "second,2"], (), ("'when' begins with 'first'", "--time-format", "--time row")),
    (["date,y", "yesterday,1", "today,2"], (), ("'yesterday'", "--time-format", "--time row")),
    (["date,y", *HOURS], ("--time-format", "%d.%m.%Y"), ("'date' begins with '2024-01-01 00:00'", "%d.%m.%Y")),
    (["date,y", *HOURS[:9], "now,3"], (), ("row 11", "'date' is 'now'", "expected a time")),
    (["date,y", *HOURS[:9], "2024-01-01 09:00Z,3"], (), ("row 11", "09:00Z")),
    (["date,y", *HOURS[:9], *HOURS[8:]], (), ("row 11 is at 2024-01-01 08:00", "as the row before it", "--series")),
    (["date,y", *HOURS[:9], *HOURS[3:5]], (), ("row 11 is at 2024-01-01 03:00, before 2024-01-01 08:00", "sort")),
    (["date,y", *HOURS[::-1]], (), ("the times never grow", "sort")),
    (["date,y", *HOURS[:9], *HOURS[12:]], (), ("row 11 is at 2024-01-01 12:00", "3 steps (hour)", "--fill")),
    (["date,y", *HOURS[:9], "2024-01-01 09:20,1"], (), ("row 11", "no whole number of steps", "--time row")),
    (["date,y", *HOURS[:9], "2924-01-01 00:00,1"], ("--fill", "mean"), ("row 11", "mend the times")),
    (["date,y", HOURS[0], "2024-01-01 01:00,", *HOURS[2:]], (), ("row 3, column 'y' has no value", "--fill")),
    (["date,y", HOURS[0], "2024-01-01 01:00,low", *HOURS[2:]], (), ("row 3, column 'y' is 'low'", "expected a number")),
    (["date,y", HOURS[0], "2024-01-01 01:00,inf", *HOURS[2:]], (), ("row 3, column 'y' is inf", "finite")),
    (["date,y", HOURS[0], "2024-01-01 01:00", *HOURS[2:]], (), ("row 3 has 1 columns",)),
    (["date,y", *HOURS], ("--log",), ("row 2, column 'y' is 0.0", "no logarithm")),
    (["date,y", *HOURS], (), ("has 24 steps", "for the training", "history 48 + horizon 24", "--window")),
    (["date,y", *HOURS], ("--horizon", 10**7), ("has 24 steps", "+ horizon 10000000")),
    (["date,y", *HOURS], ("--steps", 2), ("has 24 steps", "history 48 + horizon 24", "--window")),
    (["date,y", *HOURS[:9], "2024-01-01 09:00,1e200"], (), ("row 11, column 'y' is 1e+200", "finite number up to")),
    (["date,y", *HOURS], ("--window", 4, "--horizon", 4, "--season", 2), ("for the validation", "horizon 4")),
    (["date,y", *HOURS[:1]], (), ("one row per series",)),
    ([row.replace(",", ",x") + ",1" for row in HOURS], (), ("no names of columns",)),
    (["date,y", *HOURS], ("--quantile", 1.5), ("--quantile", "less than 1")),
    (["date,y", *HOURS], ("--validation", 0.5, "--test", 0.5), ("leave no data",)),
    (["date,y", *HOURS], ("--test", 1.5), ("--test 1.5", "whole number")),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "options", "words"), BAD)
def test_bad_data(cli: Cli, tmp_path: Path, rows: list[str], options: tuple[Any, ...], words: tuple[str, ...]) -> None:
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    refused(cli("train", "forecast", tmp_path / "a.csv", "--out", tmp_path / "run", *options), *words)
    assert not (tmp_path / "run").exists()


def test_no_table(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n")
    refused(cli("train", "forecast", "--out", tmp_path / "run"), "there are no data")
    refused(cli("train", "forecast", tmp_path / "a.txt", "--out", tmp_path / "run"), "a.txt is no table", ".csv")
    refused(cli("train", "forecast", tmp_path, "--out", tmp_path / "run"), "is a folder")
    refused(cli("train", "forecast", tmp_path / "b.csv", "--out", tmp_path / "run"), "b.csv does not exist")


def test_new_data_have_to_be_like_those_of_the_training(cli: Cli, tmp_path: Path) -> None:
    def table(name: str, header: str, rows: list[str]) -> Path:
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / name

    days = [str(np.datetime64("2024-01-01") + d) for d in range(80)]
    data = table("a.csv", "day,sold,price,open", [f"{d},{k % 7},{k % 5},{k % 2}" for k, d in enumerate(days)])
    run = tmp_path / "run"
    small = ["--hidden", 4, "--steps", 3, "--horizon", 3, "--target", "sold", "--covariate", "price", "--known", "open"]
    assert cli("train", "forecast", data, "--out", run, *small).code == 0
    rows = data.read_text().splitlines()[1:]
    refused(cli("predict", run, data), "has 0 such rows, expected 3 rows after the last value of 'sold' with open")
    future = [f"2024-03-{d},,,1" for d in (21, 22, 23)]
    said = cli("predict", run, table("b.csv", "day,sold,price,open", rows + future))
    assert [line.split(",")[1] for line in said.out.splitlines()[1:]] == ["2024-03-21", "2024-03-22", "2024-03-23"]
    holes = [*future[:2], "2024-03-23,,,"]
    refused(cli("predict", run, table("c.csv", "day,sold,price,open", rows + holes)), "a row without all of them")
    refused(
        cli("eval", run, table("d.csv", "day,sold,open", ["2024-01-01,1,1"])), "no column 'price'", "call a column so"
    )
    refused(cli("predict", run, table("e.csv", "day,sold,price,open", rows[:9])), "has 9 steps", "at least 14")
    refused(cli("eval", run, table("f.csv", "day,sold,price,open", rows[:15])), "has 15 steps", "14 before a forecast")
    hours = [f"2024-01-01 {h:02}:00,1,1,1" for h in range(24)]
    refused(cli("predict", run, table("g.csv", "day,sold,price,open", hours)), "no whole number of steps (day)")
    refused(cli("predict", run, table("h.csv", "day,sold,price,open", ["5,1,1,1"])), "'day' is '5'", "expected a time")
    data.write_text(data.read_text().replace("2024-01-01,0", "2024-01-01,1"))
    refused(cli("train", "forecast", "--resume", run, "--steps", 9), "is not the one", "put it back")


def test_gaps_are_filled_when_that_is_wanted(cli: Cli, tmp_path: Path) -> None:
    lines = hourly(tmp_path / "a.csv", 200).read_text().splitlines()
    del lines[50:53]
    lines[20] = lines[20].split(",")[0] + ",nan"
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    for how in ("mean", "previous", "zero"):
        done = cli("train", "forecast", tmp_path / "a.csv", "--out", tmp_path / how, *OPTIONS, "--fill", how)
        assert done.code == 0 and "200 steps" in done.out, done
        assert cli("predict", tmp_path / how, tmp_path / "a.csv").code == 0
        assert cli("eval", tmp_path / how, tmp_path / "a.csv").code == 0


def test_gaps_of_new_data_are_filled_or_named_with_what_the_commands_have(cli: Cli, tmp_path: Path) -> None:
    run, data = tmp_path / "run", hourly(tmp_path / "a.csv", 200)
    assert cli("train", "forecast", data, "--out", run, *OPTIONS).code == 0
    whole = data.read_text().splitlines()
    new = tmp_path / "new.csv"
    for lines, words in (
        (
            [*whole[:50], *whole[53:]],
            "3 steps (hour) are missing after 2024-02-22 00:00; add them, or choose --fill mean",
        ),
        ([*whole[:50], whole[50].split(",")[0] + ",", *whole[51:]], "has no value; fill it in, or choose --fill mean"),
        ([*whole[:50], whole[49], *whole[50:]], "leave one of them out"),
        ([*whole[:50], whole[50].split(",")[0] + ",low", *whole[51:]], "'low', expected a number; mend it"),
    ):
        new.write_text("\n".join(lines) + "\n")
        for command in ("eval", "predict"):
            found = cli(command, run, new)
            refused(found, words)
            assert not any(option in found.err for option in ("--time", "--series", "--drop", "other columns")), found
            filled = cli(command, run, new, "--fill", "previous")
            assert (filled.code == 0) == ("--fill" in words), filled
    new.write_text("\n".join([*whole[:50], *whole[53:]]) + "\n")
    refused(cli("eval", run, new, "--fill", "guess"), "--fill guess")
    # what is filled in is what the training would have filled in
    with_fill = tmp_path / "with_fill"
    assert cli("train", "forecast", data, "--out", with_fill, *OPTIONS, "--fill", "previous").code == 0
    assert cli("predict", run, new, "--fill", "previous").out == cli("predict", with_fill, new).out


def test_pictures_need_matplotlib_or_are_there(cli: Cli, tmp_path: Path) -> None:
    data, run = hourly(tmp_path / "a.csv"), tmp_path / "run"
    done = cli("train", "forecast", data, "--out", run, *OPTIONS, "--plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        refused(done, "--plot needs matplotlib", "cellwright[plot]")
        return
    assert done.code == 0, done
    assert cli("eval", run, data, "--plot", tmp_path / "c.svg").code == 0
    assert all((run / name).read_bytes()[:4] == b"\x89PNG" for name in ("loss.png", "forecast.png"))
    assert "<svg" in (tmp_path / "c.svg").read_text()


def test_arrays_that_do_not_fit() -> None:
    y = series(60)
    with pytest.raises(RunError, match="call fit first"):
        Forecaster().predict(y)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"y": "abc"}, "no array of numbers"),
        ({"y": np.zeros((2, 2, 2))}, "shape"),
        ({"y": []}, "no steps"),
        ({"y": y, "X": y[:50]}, "50 rows as X, expected 60"),
        ({"y": y, "known": y[:50]}, "50 rows as known, expected 60"),
        ({"y": y, "times": np.arange(50)}, "expected 60 times"),
        ({"y": y, "times": ["soon"] * 60}, "'soon' in times"),
        ({"y": [y, y[:, None] * [1, 2]]}, r"y\[1\] with other columns"),
        ({"y": [y, y], "X": [y]}, "1 series as X, expected 2"),
    ]
    for arguments, words in cases:
        with pytest.raises(InputError, match=words):
            Forecaster(**SMALL).fit(**arguments)
    model = Forecaster(**SMALL | {"steps": 2}).fit(y)
    with pytest.raises(InputError, match="the model was fitted to y0 with"):
        model.predict(y, X=y)
