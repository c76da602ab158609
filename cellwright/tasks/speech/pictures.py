"""What a net heard and when it said what: the spectrogram of a recording above the net's answer, step by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import figure_of, legend, plain, save, shown
from .ctc import BLANK
from .features import HOP


def alignment(
    frames: NDArray[Any],
    scores: NDArray[Any],
    names: Sequence[str],
    spans: Sequence[tuple[int, int, int]],
    seconds: float,
    title: str,
    file: Path,
) -> Path:
    """Frames [T, F]; log-probabilities [S, K] of steps of so many `seconds`; symbol, first and last step of each."""
    figure, (above, below) = figure_of(max(6.0, min(20.0, 2 + len(scores) * 0.12)), 5, rows=2)
    above.imshow(frames.T, origin="lower", aspect="auto", extent=(0, len(frames) * HOP, 0, frames.shape[1]))
    above.set_ylabel("mel filter")
    above.set_title(plain(title), fontsize=10)
    times = (np.arange(len(scores)) + 0.5) * seconds
    below.plot(times, np.exp(scores[:, BLANK]), color="0.8", label="blank")
    drawn: dict[int, str] = {}
    for symbol, first, last in spans:
        start, end = first * seconds, (last + 1) * seconds
        name = shown(names[symbol])
        if symbol not in drawn:
            drawn[symbol] = f"C{len(drawn) % 10}"
            below.plot(times, np.exp(scores[:, symbol]), color=drawn[symbol], label=name)
        for edge in (start, end):
            above.axvline(edge, color="white", linewidth=0.8, alpha=0.8)
        below.axvspan(start, end, color=drawn[symbol], alpha=0.15, linewidth=0)
        above.text((start + end) / 2, frames.shape[1] * 0.96, name, ha="center", va="top", color="white", fontsize=10)
    for axes in (above, below):
        axes.set_xlim(0, max(len(frames) * HOP, len(scores) * seconds))
    below.set_ylim(0, 1.02)
    below.set_xlabel("seconds")
    below.set_ylabel("probability")
    legend(below)
    return save(figure, file)
