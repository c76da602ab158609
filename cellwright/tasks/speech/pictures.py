"""What a net heard and when it said what: the spectrogram of a recording above the net's answer, step by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import figure_of, save
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
    above.set_title(title, fontsize=10)
    times = (np.arange(len(scores)) + 0.5) * seconds
    below.plot(times, np.exp(scores[:, BLANK]), color="0.8", label="blank")
    drawn: dict[int, str] = {}
    for symbol, first, last in spans:
        for axes in (above, below):
            axes.axvspan(first * seconds, (last + 1) * seconds, color="C1", alpha=0.25, linewidth=0)
        middle = (first + last + 1) / 2 * seconds
        above.text(middle, frames.shape[1] * 0.96, names[symbol], ha="center", va="top", color="white", fontsize=10)
        if symbol not in drawn:
            drawn[symbol] = f"C{len(drawn) % 10}"
            below.plot(times, np.exp(scores[:, symbol]), color=drawn[symbol], label=names[symbol].replace(" ", "␣"))
    for axes in (above, below):
        axes.set_xlim(0, max(len(frames) * HOP, len(scores) * seconds))
    below.set_ylim(0, 1.02)
    below.set_xlabel("seconds")
    below.set_ylabel("probability")
    below.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return save(figure, file)
