"""Times, series, and the forecasting net beside one written with torch.nn, one window at a time, in float64."""

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cellwright import DataError
from cellwright.tasks.data.parts import TEST, TRAINING, VALIDATION
from cellwright.tasks.data.tables import Table
from cellwright.tasks.forecast import frames as frames_module
from cellwright.tasks.forecast.arrays import frames_of
from cellwright.tasks.forecast.clock import Clock, phases, style_of, styles_of
from cellwright.tasks.forecast.config import ForecastConfig
from cellwright.tasks.forecast.frames import Frames
from cellwright.tasks.forecast.job import ForecastJob
from cellwright.tasks.forecast.net import ForecastTask, Net
from cellwright.tasks.forecast.reader import layout_of, read
from cellwright.tasks.forecast.windows import parts


def seconds(*parts: int) -> float:
    return datetime(*parts, tzinfo=timezone.utc).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("cell", "form", "time", "again"),
    [
        ("2016-07-01 05:00:00", "", seconds(2016, 7, 1, 5), None),
        ("2016-7-1 5:00", "", seconds(2016, 7, 1, 5), "2016-07-01 05:00"),
        ("1749-01", "", seconds(1749, 1, 1), None),
        ("1949/02", "", seconds(1949, 2, 1), None),
        ("1969-12-31T23:59:58.250000", "", seconds(1969, 12, 31, 23, 59, 58) + 0.25, None),
        ("2020-03-29 03:30+02:00", "", seconds(2020, 3, 29, 1, 30), "2020-03-29 01:30Z"),
        ("2020-03-29T03:30:00-0530", "", seconds(2020, 3, 29, 9), "2020-03-29T09:00:00Z"),
        ("31.12.2020", "%d.%m.%Y", seconds(2020, 12, 31), None),
        ("12/31/20 11 PM", "%m/%d/%y %I %p", seconds(2020, 12, 31, 23), None),
        ("0.25", "", 0.25, None),
        ("1988", "", 1988.0, None),
    ],
)
def test_times_are_read_and_written(cell: str, form: str, time: float, again: str | None) -> None:
    style = style_of(cell, form)
    assert style.read(cell) == time
    assert style.text(time) == (cell if again is None else again)


@pytest.mark.parametrize(
    ("cells", "forms"),
    [
        (["31.12.2020 00:00"], ["%d.%m.%Y %H:%M"]),
        (["12/31/2020 11:00 PM"], ["%m/%d/%Y %I:%M %p"]),
        (["01/02/2020", "12/02/2020"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["01/01/2020"], ["%d/%m/%Y", "%m/%d/%Y"]),  # the same day, but not the same style
        (["01/02/2020", "13/02/2020"], ["%d/%m/%Y"]),
        (["Jan-49", "Feb-49"], ["%b-%y"]),
        (["Jan-20", "Jan-21"], ["%b-%y", "%b-%d"]),
        (["1 May 2020"], ["%d %b %Y"]),
        (["20230131"], ["%Y%m%d"]),
        (["20231301"], []),
        (["1672531200"], ["1"]),
        (["1672531200000"], ["1000"]),
        (["1.2.3"], []),
        (["10,644"], []),
        (["soon"], []),
    ],
)
def test_other_ways_to_write_times_are_found_without_a_guess(cells: list[str], forms: list[str]) -> None:
    assert [style.form for style in styles_of(cells)] == forms


@pytest.mark.parametrize(
    ("column", "step", "count"),
    [
        (lambda t: t.strftime("%d.%m.%Y %H:%M"), timedelta(hours=7), 60),
        (lambda t: t.strftime("%m/%d/%Y"), timedelta(days=1), 20),
        (lambda t: t.strftime("%Y%m%d"), timedelta(days=1), 60),
        (lambda t: f"{t.timestamp():.0f}", timedelta(hours=1), 9),
        (lambda t: f"{t.timestamp() * 1000:.0f}", timedelta(minutes=10), 9),
    ],
)
def test_a_column_of_dates_is_read_as_they_are(tmp_path: Path, column: Any, step: timedelta, count: int) -> None:
    times = [datetime(2023, 1, 1, tzinfo=timezone.utc) + k * step for k in range(count)]
    rows = "\n".join(f"{column(t)};{k}" for k, t in enumerate(times))
    (tmp_path / "a.csv").write_text(f"Time;Last, kW\n{rows}\n")
    found = read(ForecastConfig(), [str(tmp_path / "a.csv")])
    assert found.layout.time == "Time"
    assert found.layout.targets == ("Last, kW",)
    assert found.clock is not None and found.clock.dates and found.clock.step == step.total_seconds()
    assert (found.starts[0], found.lasts[0]) == (times[0].timestamp(), times[-1].timestamp())
    assert found.layout.style.text(found.lasts[0]) == column(times[-1])


def test_a_column_that_is_called_time_goes_before_one_that_may_be_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,Time,y\na-1,1,5\nb-2,2,6\n")
    assert layout_of(Table(tmp_path / "a.csv"), ForecastConfig()).time == "Time"
    (tmp_path / "a.csv").write_text("x,Datum,y\n1234567890,20230131,5\n1234567891,20230201,6\n")
    found = layout_of(Table(tmp_path / "a.csv"), ForecastConfig())
    assert (found.time, found.style.form, found.targets) == ("Datum", "%Y%m%d", ("y",))


def test_rows_are_steps_where_that_is_said_or_nothing_looks_like_a_time(tmp_path: Path) -> None:
    for text, time in (
        ("Stamp,y\n01/02/2020,1\n01/03/2020,2\n", "row"),
        ("shop,y\na,1\na,2\nb,3\n", ""),
        ("x,y\n1,1\nlow,2\n3,3\n", ""),
        ('y\n"1,5"\n2\n3\n', ""),
        ("number,y\n20231301,1\n20231302,2\n", ""),
    ):
        (tmp_path / "a.csv").write_text(text)
        table = Table(tmp_path / "a.csv")
        assert layout_of(table, ForecastConfig(time=time, target=("y",))).style.kind == "row", text


@pytest.mark.parametrize("cell", ["", "yesterday", "2016-13-01", "2016-02-30", "31.12.2020", "2016-07-01 25:00", "nan"])
def test_what_is_no_time(cell: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        style_of(cell).read(cell)


def test_dates_with_and_without_a_zone_do_not_mix() -> None:
    with pytest.raises(ValueError, match="00:00Z"):
        style_of("2020-01-01 00:00").read("2020-01-01 00:00Z")


def dates(*texts: str) -> np.ndarray:
    return np.array([style_of(text).read(text) for text in texts])


def test_the_step_is_found_and_goes_on() -> None:
    months = Clock.learn(dates("2020-01-31", "2020-02-29", "2020-03-31", "2020-06-30"), True)
    assert (months.months, months.ends, months.step) == (True, True, 1)
    assert months.steps(dates("2020-11-30", "2020-12-31", "2021-02-28")).tolist() == [1, 2]
    assert (
        months.at(dates("2021-01-31")[0], [1, 2, 12]).tolist()
        == dates("2021-02-28", "2021-03-31", "2022-01-31").tolist()
    )
    quarters = Clock.learn(dates("1960-01-15", "1960-04-15", "1960-07-15", "1961-01-15"), True)
    assert (quarters.months, quarters.step, quarters.season) == (True, 3, 4)
    assert np.isnan(quarters.steps(dates("1960-01-15", "1960-02-15"))).all()
    assert quarters.steps(dates("1969-10-15", "1970-01-15", "1971-01-15")).tolist() == [1, 4]
    assert Clock.learn(dates("2020-01-30", "2020-02-29", "2020-03-30"), True).months is False
    years = Clock.learn(dates("1990-01", "1991-01", "1992-01"), True)
    assert (years.step, years.season, years.words()) == (12, 1, "year")
    hours = Clock.learn(dates("2020-02-28 23:00", "2020-02-29 00:00", "2020-02-29 05:00", "2020-02-29 06:00"), True)
    assert hours.step == 3600 and hours.season == 24
    assert hours.steps(dates("2020-02-28 23:00", "2020-02-29 00:00", "2020-02-29 05:00", "2020-02-29 05:40"))[
        :2
    ].tolist() == [1, 5]
    assert np.isnan(hours.steps(dates("2020-02-29 05:00", "2020-02-29 05:40"))).all()
    jitter = Clock.learn(np.array([0, 0.021, 0.04, 0.059, 0.081]), False)
    assert jitter.steps(np.array([0.02, 0.0402, 0.0998])).tolist() == [1, 3]
    with pytest.raises(ValueError, match="no two times"):
        Clock.learn(np.array([3.0, 3.0]), False)


@pytest.mark.parametrize(
    ("step", "season"),
    [(86400, 7), (7 * 86400, 52), (3600, 24), (900, 96), (60, 60), (1, 60), (6 * 3600, 4), (5 * 86400, 1), (7000, 1)],
)
def test_the_season_follows_from_the_step(step: int, season: int) -> None:
    assert Clock(True, step).season == season
    assert Clock(False, step).season == 1


def test_the_calendar_repeats() -> None:
    hours = Clock(True, 3600.0)
    assert hours.cycles(47) == ("hour",)[:0]
    assert hours.cycles(48) == ("day",)
    assert hours.cycles(24 * 14) == ("day", "week")
    assert hours.cycles(24 * 731) == ("day", "week", "year")
    assert Clock(True, 1, months=True).cycles(24) == ("year",)
    times = dates("2020-01-01 06:00", "2020-01-02 06:00", "2020-01-08 06:00", "2020-01-01 18:00")
    found = phases(times, ("day", "week"))
    np.testing.assert_allclose(found[:, :2], [[1, 0]] * 3 + [[-1, 0]], atol=1e-6)
    np.testing.assert_allclose(found[0, 2:], found[2, 2:], atol=1e-6)
    assert np.abs(found[0, 2:] - found[1, 2:]).max() > 0.3


def test_each_part_comes_after_the_one_before_it() -> None:
    history = np.array([100, 10, 3])
    found = parts(ForecastConfig(validation=0.25, test=20.0), history)
    assert [part[0].tolist() for part in found.values()] == [[0, 0, 0], [55, 0, 0], [80, 0, 0]]
    assert [part[1].tolist() for part in found.values()] == [[55, 0, 0], [80, 0, 0], [100, 10, 3]]


def table(path: Path, rows: list[str], header: str = "time,y") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def opened(path: Path, **settings: Any) -> Frames:
    return read(ForecastConfig(data=(str(path),), **settings), [str(path)])


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_a_row_per_step_in_pieces_of_any_size(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "_BLOCK", block)
    rows = ["1,5,1", "2,,2", "4,7,", "5,8,5", "6,,6", "7,,7"]
    file = table(tmp_path / "a.csv", rows, "time,y,k")
    frames = opened(file, fill="previous", known=("k",), target=("y",))
    assert frames.values[0].tolist() == [
        [5, 1, 1], [5, 2, 0], [5, 2, 0], [7, 2, 1], [8, 5, 1],
        pytest.approx([math.nan, 6, 0], nan_ok=True), pytest.approx([math.nan, 7, 0], nan_ok=True),
    ]  # fmt: skip
    assert (frames.history.tolist(), frames.lasts.tolist(), frames.starts.tolist()) == ([5], [5], [1])
    with pytest.raises(DataError, match=r"row 3, column 'y' has no value"):
        opened(table(tmp_path / "b.csv", ["1,5", "2,", "3,7"]))
    with pytest.raises(DataError, match=r"row 4 is at 4: 1 steps .* are missing after 2"):
        opened(table(tmp_path / "c.csv", ["1,5", "2,5", "4,7", "5,8"]))


def test_series_may_take_turns(tmp_path: Path) -> None:
    one = [f"a,2020-01-{d:02},{d}" for d in range(1, 9)]
    two = [f"b,2020-01-{d:02},{d * 10}" for d in range(3, 9)]
    mixed = sorted(one + two, key=lambda row: row.split(",")[1])
    found = [
        opened(table(tmp_path / f"{n}.csv", rows, "shop,day,sold"), series="shop")
        for n, rows in enumerate((one + two, mixed))
    ]
    for frames in found:
        assert frames.names == ["a", "b"] and frames.history.tolist() == [8, 6]
        assert frames.values[0][:, 0].tolist() == list(range(1, 9))
        assert frames.values[1][:, 0].tolist() == list(range(30, 90, 10))
    assert found[0].starts.tolist() == found[1].starts.tolist() == dates("2020-01-01", "2020-01-03").tolist()


def made(config: ForecastConfig, frames: Frames, seed: int = 1) -> tuple[ForecastConfig, Net, ForecastTask]:
    job = ForecastJob()
    config = job.settle(config, frames)
    documents = job.learn(config, frames)
    torch.manual_seed(seed)
    net = job.build(config, documents)
    return config, net, job.task(config, net, frames)


def arrays(T: int, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    y = np.exp(draw.normal(size=(T + 5, 2)).cumsum(0) * 0.1 + [0, 2])
    return {
        "y": y[:T],
        "X": draw.normal(3, 2, size=(T, 1)),
        "known": draw.normal(-1, 0.5, size=T + 5),
        "times": np.datetime64("2021-03-01T00", "s") + np.arange(T) * np.timedelta64(6, "h"),
    }


def test_a_new_net_is_the_seasonal_naive_forecast() -> None:
    for settings in ({"window": 9}, {"window": 3}, {"window": 9, "log": True}):
        data = arrays(80)
        _, net, task = made(
            ForecastConfig(hidden=4, horizon=6, season=4, **settings), frames_of(ForecastConfig(**settings), **data)
        )
        origins = np.array([20, 33])
        ((_, batch, said),) = net.run(task.windows, origins)
        found = task.windows.data(batch, said.double().numpy())[..., 1]
        y = data["y"]
        want = np.stack([[y[o - 4 + h % 4] for h in range(6)] for o in origins])
        np.testing.assert_allclose(found, want, rtol=1e-5)
        np.testing.assert_allclose(batch.naive, want, rtol=1e-12)


def twin(weights: dict[str, Any], prefix: str, inputs: int) -> nn.LSTM:
    lstm = nn.LSTM(inputs, 5, num_layers=2).double()
    lstm.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return lstm


@pytest.mark.parametrize("log", [False, True])
def test_the_net_is_an_encoder_a_decoder_and_a_linear_part(log: bool) -> None:
    """And what goes into it is what the documentation says, computed here for one window after the other."""
    data, T = arrays(120), 120
    config = ForecastConfig(
        hidden=5,
        layers=2,
        window=9,
        horizon=5,
        season=4,
        quantile=(0.05, 0.25, 0.9),
        log=log,
        validation=0.2,
        test=0.2,
        batch=3,
    )
    config, net, task = made(config, frames_of(config, **data))
    with torch.no_grad():
        for weight in net.model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    net.model.double().eval().requires_grad_(False)
    weights = dict(net.model.state_dict())
    train = T - 24 - 24
    y = np.log(data["y"]) if log else data["y"]
    x, known = data["X"], data["known"][:, None]
    x, known = ((part - part[:train].mean(0)) / part[:train].std(0) for part in (x, known))
    start = seconds(2021, 3, 1)
    angles = [[2 * np.pi * ((start + t * 21600) % length) / length for length in (86400, 604800)] for t in range(T + 5)]
    calendar = np.array([[f(a) for a in row for f in (np.sin, np.cos)] for row in angles])
    errors = np.abs(y[4:train] - y[: train - 4]).mean(0)
    read_, write = twin(weights, "encoder.", 2 + 1 + 1 + 4), twin(weights, "decoder.recurrent.", 2 + 1 + 4 + 1 + 4)
    origins, losses = task.order(0), []
    for chosen, batch, said in _exactly(net, task, origins):
        found = task.windows.data(batch, said.numpy())
        for b, o in enumerate(chosen):
            past, ahead = slice(o - 9, o), slice(o, o + 5)
            level = y[past].mean(0)
            scale = np.sqrt(((y[past] - level) ** 2).mean(0) + (0.1 * errors) ** 2)
            naive = np.stack([y[o - 4 + h % 4] for h in range(5)])
            height, size = np.tanh((level - y[:train].mean(0)) / y[:train].std(0)), np.log(scale / y[:train].std(0))
            constant = np.concatenate([np.linspace(-1, 1, 5)[:, None], np.tile([*height, *size], (5, 1))], 1)
            window = np.concatenate([(y[past] - level) / scale, x[past], known[past], calendar[past]], 1)
            future = np.concatenate([(naive - level) / scale, known[ahead], calendar[ahead], constant], 1)
            _, state = read_(torch.from_numpy(window))
            h, _ = write(torch.from_numpy(future), state)
            raw = h @ weights["decoder.output.1.weight"].T + weights["decoder.output.1.bias"]
            raw = raw.detach().view(5, 2, 4).numpy()  # 0.05 0.25 0.5 0.9
            for t in range(5):
                for k in range(2):
                    linear = sum(weights["linear"][t, n, k].item() * window[n, k] for n in range(9))
                    middle = weights["naive"][t, 0, k].item() * future[t, k] + linear + raw[t, k, 2]
                    grown = np.log1p(np.exp(raw[t, k]))
                    z = np.array([middle - grown[1] - grown[0], middle - grown[1], middle, middle + grown[3]])
                    want = z * scale[k] + level[k]
                    np.testing.assert_allclose(found[b, t, k], np.exp(want) if log else want, rtol=1e-5)
                    d = (y[o + t, k] - want) / errors[k]
                    losses += [max(q * e, (q - 1) * e) for q, e in zip((0.05, 0.25, 0.5, 0.9), d, strict=True)]
    assert task.loss(0).item() == pytest.approx(np.mean(losses), rel=1e-5)  # what goes in has float32


def _exactly(net: Net, task: ForecastTask, origins: Any) -> Any:
    """In float64, of inputs in float32."""
    windows = task.windows
    whole = type(windows).__call__

    class Double(type(windows)):  # type: ignore[misc]
        def __call__(self, origins: Any) -> Any:
            batch = whole(self, origins)
            doubled = {k: v.double() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
            return type(batch)(**{**vars(batch), **doubled})

    task.windows = Double(windows.config, windows.frames, windows.knows)
    return net.run(task.windows, origins)


def test_no_forecast_sees_what_comes() -> None:
    """Other targets and covariates from the origin on: the same forecast. Other known values: another one."""
    config = ForecastConfig(hidden=4, window=8, horizon=5, season=4)
    data = arrays(100)
    config, net, task = made(config, frames_of(config, **data))
    with torch.no_grad():
        for weight in net.model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    o = 60

    def forecast(**changes: Any) -> np.ndarray:
        frames = frames_of(config, **{**data, **changes}, knows=net.knows)
        ((_, _, said),) = net.run(type(task.windows)(config, frames, net.knows), np.array([o]))
        return said.numpy()

    base = forecast()
    for name in ("y", "X"):
        other = data[name].copy()
        other[o:] *= 3
        assert np.array_equal(forecast(**{name: other}), base), name
        other[o - 1] *= 3
        assert not np.array_equal(forecast(**{name: other}), base), name
    other = data["known"].copy()
    other[o + 5 :] *= 3
    assert np.array_equal(forecast(known=other), base)
    other[o + 4] *= 3
    assert not np.array_equal(forecast(known=other), base)


def test_training_sees_the_training_part_only() -> None:
    """Validation and test with other values: the same statistics, weights and losses."""
    config = ForecastConfig(hidden=4, window=8, horizon=5, season=4, batch=4)
    data = arrays(100)
    changed = {**data, "y": data["y"].copy(), "X": data["X"].copy()}
    changed["y"][70:] *= 7
    changed["X"][70:] -= 7
    left, right = (made(config, frames_of(config, **part))[2] for part in (data, changed))
    assert left.windows.knows == right.windows.knows
    assert sorted(left.origins[TRAINING].tolist()) == list(range(8, 66))
    assert left.origins[VALIDATION].tolist() == list(range(70, 81)) and left.origins[TEST].tolist() == list(
        range(85, 96)
    )
    for step in range(20):
        assert left.loss(step).equal(right.loss(step))
    assert left.validate()["loss"] != right.validate()["loss"]


def test_a_filled_value_is_no_truth() -> None:
    data = arrays(100)
    config = ForecastConfig(hidden=4, window=8, horizon=5, season=4, fill="previous")
    holes = {**data, "y": data["y"].copy()}
    holes["y"][90, 0] = np.nan
    config, net, task = made(config, frames_of(config, **holes))
    batch = task.windows(np.array([88]))
    assert batch.there[:, 0, 0].tolist() == [1, 1, 0, 1, 1] and batch.there[:, 0, 1].all()
    first = task.test()
    task.windows.frames.values._values = np.array(task.windows.frames.values._values)
    score = net.score(task.windows, np.array([88]))
    assert score.count.tolist() == [4, 5]
    assert first is not None and all(map(math.isfinite, first.values()))
