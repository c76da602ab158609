"""N to M: the next values of series, with intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...cells import find
from ...errors import DataError
from ...lang import Definition
from ...nn import Recurrent
from ..data.parts import TEST, TRAINING, VALIDATION
from ..job import SHARE, Found, Job, Prediction, layer_line
from .config import ForecastConfig
from .frames import Frames
from .net import ForecastNet, ForecastTask, Net, too_short
from .pictures import Shown, draw
from .reader import read
from .windows import Knowledge, Windows, learned, parts

_DEFAULT = 10  # steps to forecast where nothing is known of seasons


class ForecastJob(Job):
    """Quantiles of the next steps of each series."""

    config = ForecastConfig
    scales = (("scaled error", "MASE", "naive MASE"), (SHARE, "coverage"))
    takes = ("stride", "fill")

    def read(self, config: ForecastConfig) -> Frames:
        """All files, once: a row per step on the disk."""
        if not config.data:
            raise DataError(
                "there are no data: name files, as in `cellwright train forecast DATA.csv --out RUN`; what was given "
                "to `fit` is not in the run"
            )
        return read(config, config.data)

    def settle(self, config: ForecastConfig, data: Frames) -> ForecastConfig:
        """Season, horizon and window from the steps of the data, steps and evaluations from epochs."""
        if data.clock is None:
            raise DataError(f"{', '.join(config.data) or 'the data'}: there is no row")
        season = config.season or data.clock.season
        horizon = config.horizon or (season if season > 1 else _DEFAULT)
        window = config.window or 2 * max(season, horizon)
        where, before = parts(config, data.history)[TRAINING], max(window, season)
        windows = int(np.maximum(where[1] - where[0] - before - horizon + 1, 0).sum())
        if not windows:  # before there is a net of an absurd size
            raise too_short(config, data.history, where, "training", before, horizon)
        config = config.changed(season=season, horizon=horizon, window=window)
        return config.scheduled(-(-windows // config.batch), per_epoch=2)

    def learn(self, config: ForecastConfig, data: Frames) -> dict[str, Any]:
        """Columns, steps, statistics and the cells."""
        knows = learned(config, data)
        cell, cells = find(config.cell), {}
        options: Any = config.options
        for part, size in zip(("encoder", "decoder"), knows.inputs, strict=True):
            layers: list[Definition] = []
            for _ in range(config.layers):
                layers.append(cell(size, config.hidden, **options).definition())
                size = layers[-1].output_size
            cells[part] = [one.to_json() for one in layers]
        return {"series.json": knows.to_json(), "cells.json": cells}

    def build(self, config: ForecastConfig, documents: Mapping[str, Any]) -> Net:
        """The net."""
        assert config.window
        assert config.horizon
        knows, quantiles = Knowledge.from_json(documents["series.json"]), config.quantiles
        dropout = config.dropout if config.layers > 1 else 0.0
        encoder, decoder = (
            Recurrent([Definition.from_json(one) for one in documents["cells.json"][part]], dropout=dropout)
            for part in ("encoder", "decoder")
        )
        shape = len(knows.layout.targets), quantiles.index(0.5), len(quantiles)
        return Net(ForecastNet(encoder, decoder, config.window, config.horizon, *shape, config.dropout), knows)

    def task(self, config: ForecastConfig, net: Net, data: Frames) -> ForecastTask:
        """The data in windows."""
        return ForecastTask(config, net, Windows(config, data, net.knows))

    def facts(self, config: ForecastConfig, net: Net, data: Frames, task: ForecastTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        knows, layout = net.knows, net.knows.layout
        text = layout.style.text
        names = ("to train on", "for validation", "for the test")
        short = int((task.windows.counts(*parts(config, data.history)[TRAINING]) == 0).sum())
        return {
            "model": layer_line(config, net.model, "encoder and decoder", "log of the targets" if config.log else ""),
            "data": [
                f"{len(data):,} series" if len(data) > 1 else "",
                f"{int(data.history.sum()):,} steps ({knows.clock.words()}) from {text(data.starts.min())} to "
                f"{text(data.lasts.max())}",
                f"{short} of the series too short to train on" if short else "",
                "times in UTC" if layout.style.kind == "zoned" else "",
            ],
            "target": [
                ", ".join(layout.targets),
                f"covariates {', '.join(layout.covariates)}" if layout.covariates else "",
                f"known {', '.join(layout.known)}" if layout.known else "",
                f"calendar: {', '.join(knows.cycles)}" if knows.cycles else "",
            ],
            "split": [
                f"{len(task.origins[part]):,} windows {name}"
                for part, name in zip((TRAINING, VALIDATION, TEST), names, strict=True)
            ],
            "plan": [
                f"{config.horizon} steps from {config.window}",
                f"season {config.season}",
                f"quantiles {', '.join(f'{q:g}' for q in config.quantiles)}",
                f"{config.steps} steps of {config.batch} windows",
                f"{(config.steps or 0) / task.order.batches:.1f} epochs",
            ],
        }

    def last_losses(self, task: ForecastTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """How far back in its window a forecast looks: the loss of its last step, at the states of the encoder."""
        return task.model.encoder, partial(task.last_losses, count)

    def evaluate(self, config: ForecastConfig, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Forecasts from every origin, or every `stride` of them, of what comes after the training."""
        windows = self._windows(self.filling(config, options), net, paths)
        stride = options.get("stride") or config.stride
        return self.judged(net, windows, stride, ", ".join(map(str, paths)))

    def judged(self, net: Net, windows: Windows, stride: int, what: str) -> Found:
        """What `evaluate` finds. DataError: no forecast has its truth."""
        frames = windows.frames
        origins = windows.origins(windows.first, frames.history, stride)
        if not len(origins):
            raise DataError(
                f"{what}: the longest series has {int(frames.history.max(initial=0))} steps, expected at least "
                f"{windows.history} before a forecast and {windows.horizon} to compare it with"
            )
        score = net.score(windows, origins)
        numbers = score.measured | score.standardised
        words = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name != "loss")
        after = " after the training" if windows.first.any() else ""
        if not frames.layout.time:
            after = " (without times, rows of the training count too where they are there)"
        title = f"{len(origins):,} forecasts of {windows.horizon} steps{after}, {words}"
        return Found(
            f"{title}\n{score.table()}",
            numbers,
            partial(draw, self.shown(net, windows, origins[-1:]), windows.config.quantiles),
        )

    def pictures(self, config: ForecastConfig, net: Net, task: ForecastTask, folder: Path) -> list[Path]:
        """The last forecast of the test, or of the validation."""
        origins = task.origins[TEST] if len(task.origins[TEST]) else task.origins[VALIDATION]
        return [draw(self.shown(net, task.windows, origins[-1:]), config.quantiles, folder / "forecast.png")]

    def shown(self, net: Net, windows: Windows, origins: NDArray[np.int64]) -> list[Shown]:
        """A forecast with what came before it and what came."""
        ((chosen, batch, said),) = net.run(windows, origins)
        found = windows.data(batch, said.double().numpy())[0]  # [H, K, Q]
        frames, layout = windows.frames, net.knows.layout
        s, place = int(windows.series(chosen)[0]), int(chosen[0])
        steps = place - int(frames.offsets[s]) + np.arange(-windows.history, windows.horizon)
        times = net.knows.clock.at(frames.starts[s], steps)
        past = np.array(frames.values.rows(slice(place - windows.history, place)))
        return [
            Shown(
                f"{frames.names[s]} {name}".strip(), times, layout.style, past[:, k], batch.true[0, :, k], found[:, k]
            )
            for k, name in enumerate(layout.targets)
        ]

    def predict(self, config: ForecastConfig, net: Net, paths: Sequence[str], **options: Any) -> Prediction:
        """The next steps after the last value of each series."""
        windows = self._windows(self.filling(config, options), net, paths)
        quantiles = tuple(f"q{q:g}" for q in config.quantiles)
        named = ("series",) if net.knows.layout.series or len(paths) > 1 else ()

        def records() -> Iterator[dict[str, Any]]:
            for name, times, found in self.told(net, windows):
                for k, target in enumerate(net.knows.layout.targets):
                    for step, (time, values) in enumerate(zip(times, found[:, k].tolist(), strict=True), 1):
                        numbers = dict(zip(quantiles, (float(f"{v:.7g}") for v in values), strict=True))
                        place = {"series": name, "target": target, "time": time, "step": step}
                        yield place | {"forecast": numbers["q0.5"]} | numbers

        return Prediction(records(), (*named, "target", "time", "step", "forecast", *quantiles))

    def told(self, net: Net, windows: Windows) -> Iterator[tuple[str, list[str], NDArray[np.float64]]]:
        """Name, times and quantiles [H, K, Q] of each series. DataError: one is too short, or lacks its future."""
        frames, layout, H = windows.frames, net.knows.layout, windows.horizon
        rows = np.diff(frames.offsets)
        for s, (file, name) in enumerate(frames.keys):
            place, future = f"{file}, series {name!r}" if layout.series else file, int(rows[s] - frames.history[s])
            if frames.history[s] < windows.history:
                raise DataError(
                    f"{place} has {frames.history[s]} steps with values, expected at least {windows.history} before a "
                    f"forecast"
                )
            if layout.known:
                columns = slice(len(layout.targets) + len(layout.covariates), frames.width)
                after = np.array(frames.values[s][frames.history[s] :][:H, columns])
                if future < H or (np.isnan(after).any() and not windows.config.fill):
                    has = f"{future} such rows" if future < H else "a row without all of them"
                    raise DataError(
                        f"{place} has {has}, expected {H} rows after the last value of {layout.targets[0]!r} with "
                        f"{', '.join(layout.known)}, which the model was told would be known, and an empty target"
                    )
        for chosen, batch, said in net.run(windows, frames.offsets[:-1] + frames.history):
            found = windows.data(batch, said.double().numpy())
            for s, values in zip(windows.series(chosen).tolist(), found, strict=True):
                times = net.knows.clock.at(frames.lasts[s], 1 + np.arange(H)).tolist()
                yield frames.names[s], [layout.style.text(time) for time in times], values

    def _windows(self, config: ForecastConfig, net: Net, paths: Sequence[str]) -> Windows:
        """The windows of other files. DataError: their columns or their steps are not those of the training."""
        if not paths:
            raise DataError("there are no data: name files")
        frames = read(config.changed(rows=0), [str(path) for path in paths], net.knows.layout, net.knows.clock)
        return Windows(config, frames, net.knows)


JOB = ForecastJob()
