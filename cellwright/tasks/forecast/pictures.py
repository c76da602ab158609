"""A forecast with its band, through matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import figure_of, legend, plain, save
from .clock import ROW, Style

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


def draw(found: Sequence[Shown], quantiles: Sequence[float], file: Path) -> Path:
    """One below the other."""
    found = found[:_MOST]
    figure, all_axes = figure_of(9, 1 + 2.6 * len(found), rows=len(found), sharex=True)
    for axes, one in zip(np.atleast_1d(all_axes), found, strict=True):
        _draw(axes, one, quantiles)
    np.atleast_1d(all_axes)[-1].set_xlabel("time" if found[0].style.kind != ROW else "row")
    return save(figure, file)


def bands(quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """The two edges of each band, the widest first; the median where one side has fewer quantiles than the other."""
    median = quantiles.index(0.5)
    return list(zip_longest(range(median), range(len(quantiles) - 1, median, -1), fillvalue=median))


def _draw(axes: Any, one: Shown, quantiles: Sequence[float]) -> None:
    dates = one.style.dates
    times: Any = (one.times * 1e6).round().astype("int64").astype("datetime64[us]") if dates else one.times
    past, future = times[: len(one.past)], times[len(one.past) :]
    median = quantiles.index(0.5)
    for first, last in bands(quantiles):
        low, high = one.forecast[:, first], one.forecast[:, last]
        name = f"quantiles {quantiles[first]:g} to {quantiles[last]:g}"
        axes.fill_between(future, low, high, color="C0", alpha=0.2, linewidth=0, label=name)
    axes.plot(past, one.past, color="0.4", label="the past")
    axes.plot(times[len(past) - 1 :], np.append(one.past[-1:], one.true), color="0.4", linestyle=":", label="what came")
    axes.plot(future, one.forecast[:, median], color="C0", label="forecast, the median")
    axes.axvline(past[-1], color="0.8", linewidth=0.8)
    axes.set_ylabel(plain(one.title))
    axes.grid(alpha=0.25)
    legend(axes)
    if dates:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
