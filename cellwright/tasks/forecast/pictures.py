"""A forecast with its band, through matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import figure_of, save
from .clock import Style

_MOST = 8  # targets in one picture


@dataclass(frozen=True)
class Shown:
    """One target: times [L + H], the past [L], what came [H], quantiles of the forecast [H, Q]."""

    title: str
    times: NDArray[np.float64]
    style: Style
    past: NDArray[np.float64]
    true: NDArray[np.float64]
    forecast: NDArray[np.float64]


def draw(found: Sequence[Shown], file: Path) -> Path:
    """One below the other."""
    found = found[:_MOST]
    figure, all_axes = figure_of(8, 1 + 2.6 * len(found), rows=len(found))
    for axes, one in zip(np.atleast_1d(all_axes), found, strict=True):
        _draw(axes, one)
    return save(figure, file)


def _draw(axes: Any, one: Shown) -> None:
    dates = one.style.kind in ("date", "zoned")
    times: Any = (one.times * 1e6).round().astype("int64").astype("datetime64[us]") if dates else one.times
    past, future = times[: len(one.past)], times[len(one.past) :]
    Q = one.forecast.shape[1]
    for q in range(Q // 2):
        axes.fill_between(future, one.forecast[:, q], one.forecast[:, Q - 1 - q], color="C0", alpha=0.2, linewidth=0)
    axes.plot(past, one.past, color="0.4")
    axes.plot(future, one.true, color="0.4", linestyle=":", label="what came")
    axes.plot(future, one.forecast[:, Q // 2], color="C0", label="forecast, with its quantiles")
    axes.axvline(past[-1], color="0.8", linewidth=0.8)
    axes.set_title(one.title, fontsize=10)
    axes.legend(loc="upper left", fontsize=8)
    axes.tick_params(axis="x", labelrotation=20, labelsize=8)
