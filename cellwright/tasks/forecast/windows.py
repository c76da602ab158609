"""Windows of series as batches: what the net looks at, what it knows of the future, and the truth.

    history          future                N steps of the window, H steps of the horizon; the season is m steps long
    o-N ... o-1      o ... o+H-1           o is the origin: the first step that is forecast

The targets of a window are relative to their mean l and to how far they spread, z = (y - l) / s, with s^2 =
mean (y - l)^2 + (e / 10)^2, where e is the error of the seasonal naive forecast. Of the future, the net is given the
known columns, the calendar, and the seasonal naive forecast, which is made of the past; and beside it how l and s
compare to the training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.moments import Moments
from ..data.parts import TEST, TRAINING, VALIDATION
from .clock import Clock, phases
from .config import ForecastConfig
from .frames import Frames, Layout

_LEAST = 0.1  # of the error of the seasonal naive forecast: what a window of equal values is divided by


@dataclass(frozen=True)
class Knowledge:
    """What a net knows of its series. Of the training part: `mean` and `deviation` of the columns [F]; `center` and
    `spread` of the targets as the net sees them [K]; for each series the mean error of the seasonal naive forecast one
    season back, in the units of the data (`naive`) and as the net sees them (`errors`). `until`: when its test begins.
    """

    layout: Layout
    clock: Clock
    cycles: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]
    naive: Mapping[str, list[float]]
    errors: Mapping[str, list[float]]
    until: Mapping[str, float]

    @property
    def inputs(self) -> tuple[int, int]:
        """Features of a step of the window, and of a step of the horizon."""
        layout, points = self.layout, 2 * len(self.cycles)
        known = len(layout.known) + points
        return len(layout.targets) + len(layout.covariates) + known, 3 * len(layout.targets) + known + 1

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        made = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return made | {"layout": self.layout.to_json(), "clock": self.clock.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Knowledge":
        """What `to_json` gave. KeyError, TypeError: it is something else."""
        numbers = {name: tuple(map(float, data[name])) for name in ("mean", "deviation", "center", "spread")}
        return cls(
            layout=Layout.from_json(data["layout"]),
            clock=Clock(**data["clock"]),
            cycles=tuple(map(str, data["cycles"])),
            naive=dict(data["naive"]),
            errors=dict(data["errors"]),
            until=dict(data["until"]),
            **numbers,
        )


def parts(config: ForecastConfig, history: NDArray[np.int64]) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where each part of each series begins and ends: training, then validation, then test."""

    def rows(part: float) -> NDArray[np.int64]:
        share = part if part < 1 else 0.0
        return np.asarray(
            np.minimum(history, np.int64(part >= 1) * int(part) + np.floor(history * share).astype(np.int64))
        )

    test = history - rows(config.test)
    validation = np.maximum(test - rows(config.validation), 0)
    return {TRAINING: (0 * test, validation), VALIDATION: (validation, test), TEST: (test, history)}


def learned(config: ForecastConfig, frames: Frames) -> Knowledge:
    """What there is to know of the training parts. `config` has its window, horizon and season."""
    assert frames.clock is not None
    assert config.season
    K, ends = frames.targets, parts(config, frames.history)[TRAINING][1]
    columns, targets = Moments(frames.width), Moments(K)
    naive: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for s, name in enumerate(frames.names):
        for block in frames.blocks(s, int(ends[s])):
            columns.add(block[:, : frames.width])
            targets.add(_seen(block[:, :K], config.log))
        naive[name] = seasonal_error(frames, s, int(ends[s]), config.season, False)
        errors[name] = seasonal_error(frames, s, int(ends[s]), config.season, config.log)
    until = frames.clock.at(frames.starts, parts(config, frames.history)[TEST][0])
    return Knowledge(
        layout=frames.layout,
        clock=frames.clock,
        cycles=frames.clock.cycles(float(ends.max(initial=0))) if config.calendar else (),
        mean=tuple(columns.mean.tolist()),
        deviation=tuple(columns.deviation.tolist()),
        center=tuple(targets.mean.tolist()),
        spread=tuple(targets.deviation.tolist()),
        naive=naive,
        errors=errors,
        until=dict(zip(frames.names, until.tolist(), strict=True)),
    )


def seasonal_error(frames: Frames, s: int, end: int, season: int, log: bool) -> list[float]:
    """mean |y_t - y_{t-m}| of each target over the first steps of a series; NaN where there are too few."""
    total, count = np.zeros(frames.targets), np.zeros(frames.targets)
    for block in frames.blocks(s, end, before=season):
        if len(block) > season:
            values = _seen(block[:, : frames.targets], log)
            changes = np.abs(values[season:] - values[:-season])
            total += np.nansum(changes, axis=0)
            count += (~np.isnan(changes)).sum(0)
    return [t / c if c and t else math.nan for t, c in zip(total.tolist(), count.tolist(), strict=True)]


def _seen(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    return np.log(values) if log else values


@dataclass(frozen=True)
class Batch:
    """B windows. `x` [N, B, I], `future` [H, B, J], `truth` and `there` (1 or 0) [H, B, K], as the net sees them.

    `unit` [B, K]: how many errors of the seasonal naive forecast one is for the net. `level`, `scale` [B, 1, K]: what
    it is in the data. `true`, `naive` [B, H, K]: the truth and the seasonal naive forecast in the data.
    """

    x: Tensor
    future: Tensor
    truth: Tensor
    there: Tensor
    unit: Tensor
    level: NDArray[np.float64]
    scale: NDArray[np.float64]
    true: NDArray[np.float64]
    naive: NDArray[np.float64]


class Windows:
    """The windows of series, by their origins."""

    def __init__(self, config: ForecastConfig, frames: Frames, knows: Knowledge) -> None:
        assert config.window
        assert config.horizon
        assert config.season
        self.config, self.frames, self.knows = config, frames, knows
        self.window, self.horizon, self.season = config.window, config.horizon, config.season
        self.history = max(self.window, self.season)  # steps that a forecast needs
        self._naive_at = self.history - self.season + np.arange(self.horizon) % self.season
        self._position = np.linspace(-1, 1, self.horizon)[:, None]
        mean, deviation = np.array(knows.mean), np.array(knows.deviation)
        self._mean, self._shift, self._scale = mean, mean[frames.targets :], 1 / deviation[frames.targets :]
        self._center, self._spread = np.array(knows.center), np.array(knows.spread)

    @cached_property
    def errors(self) -> NDArray[np.float64]:
        """The mean error of the seasonal naive forecast as the net sees it, [S, K]."""
        return self._known(self.knows.errors, self.config.log)

    @cached_property
    def naive(self) -> NDArray[np.float64]:
        """The same in the units of the data."""
        return self._known(self.knows.naive, False)

    def _known(self, given: Mapping[str, list[float]], log: bool) -> NDArray[np.float64]:
        """Of the training where the series was in it, else of its own past; of all series where there is none."""
        rows = [
            given[name] if name in given else seasonal_error(self.frames, s, int(self.first[s]), self.season, log)
            for s, name in enumerate(self.frames.names)
        ]
        found = np.array(rows).reshape(len(rows), -1)
        usual = [
            np.nanmean(column) if not np.isnan(column).all() else 1.0 for column in np.array(list(given.values())).T
        ]
        return np.where(np.isnan(found), usual, found)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The first step of each series that comes after what the net has learned from; 0 where there is none.

        Of a series that is new, that is after the training of all others: what they had in common then is known.
        """
        frames, clock = self.frames, self.knows.clock
        found = np.zeros(len(frames), np.int64)
        latest = max(self.knows.until.values())
        for s, name in enumerate(frames.names if frames.layout.time else ()):
            steps = clock.at(frames.starts[s], np.arange(frames.history[s]))
            gone = int(np.searchsorted(steps, self.knows.until.get(name, latest) - clock.tolerance))
            found[s] = gone if gone < frames.history[s] else 0
        return found

    def origins(self, first: NDArray[np.int64], end: NDArray[np.int64], stride: int = 1) -> NDArray[np.int64]:
        """Those whose horizon is between two steps of each series [S], by their places among all rows."""
        found = [
            offset + np.arange(max(a, self.history), b - self.horizon + 1, stride)
            for offset, a, b in zip(self.frames.offsets[:-1].tolist(), first.tolist(), end.tolist(), strict=True)
        ]
        return np.concatenate([*found, np.empty(0, np.int64)]).astype(np.int64)

    def counts(self, first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many origins each series has between two steps."""
        return np.maximum(end - self.horizon + 1 - np.maximum(first, self.history), 0)

    def series(self, origins: NDArray[np.int64]) -> NDArray[np.int64]:
        """To which series origins belong. An origin may be the end of its series."""
        return np.asarray(np.searchsorted(self.frames.offsets[:-1] + self.frames.history, origins, side="left"))

    def __call__(self, origins: NDArray[np.int64]) -> Batch:
        """Those windows side by side."""
        frames, knows, K, L = self.frames, self.knows, self.frames.targets, self.history
        s = self.series(origins)
        steps = origins[:, None] + np.arange(-L, self.horizon)  # [B, L + H]
        rows = np.array(frames.values.rows(np.minimum(steps, frames.offsets[s + 1, None] - 1)))
        values = np.where(np.isnan(rows[..., : frames.width]), self._mean, rows[..., : frames.width])
        seen = _seen(values[..., :K], self.config.log)
        past = seen[:, L - self.window : L]
        level = past.mean(1, keepdims=True)  # [B, 1, K]
        scale = np.sqrt(((past - level) ** 2).mean(1, keepdims=True) + (_LEAST * self.errors[s, None]) ** 2)
        seen = (seen - level) / scale
        more = (values[..., K:] - self._shift) * self._scale
        C = len(knows.layout.covariates)
        times = knows.clock.at(frames.starts[s, None], steps - frames.offsets[s, None])
        covariates, known = more[..., :C], np.concatenate([more[..., C:], phases(times, knows.cycles)], -1)
        window, horizon = slice(L - self.window, L), slice(L, None)
        reference = seen[:, self._naive_at]
        compared = np.tanh((level - self._center) / self._spread), np.log(scale / self._spread)
        return Batch(
            _tensor(seen[:, window], covariates[:, window], known[:, window]),
            _tensor(
                reference, known[:, horizon], *(part + 0 * reference[..., :1] for part in (self._position, *compared))
            ),
            _tensor(seen[:, horizon]),
            _tensor(rows[:, horizon, frames.width :]),
            torch.from_numpy((scale[:, 0] / self.errors[s]).astype(np.float32)),
            level,
            scale,
            values[:, horizon, :K],
            values[:, self._naive_at, :K],
        )

    def data(self, batch: Batch, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the net says, [H, B, K, Q], in the units of the data, [B, H, K, Q]."""
        values = z.swapaxes(0, 1) * batch.scale[..., None] + batch.level[..., None]
        return np.asarray(np.exp(values) if self.config.log else values)


def _tensor(*arrays: NDArray[np.float64]) -> Tensor:
    """[B, T, ...] side by side, as float32 [T, B, ...]."""
    joined = np.concatenate(arrays, -1).swapaxes(0, 1)
    return torch.from_numpy(np.ascontiguousarray(joined, np.float32))
