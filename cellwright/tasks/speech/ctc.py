"""Connectionist temporal classification: from a symbol or a blank per step to a text, and back.

A path says a symbol, or the blank (number 0), at every step. Its text: of equal neighbours only one is left, then
blanks go. The probability of a text is the sum over its paths; those of a path multiply over the steps.

Graves, Fernandez, Gomez and Schmidhuber 2006. Here are what is needed to use such a net; the loss is torch's.
All scores are natural logarithms, [T, K] with the blank in column 0.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import ctc_loss

BLANK = 0
_NOTHING = -math.inf


def steps_needed(symbols: Sequence[Any]) -> int:
    """The fewest steps that a text fits into: one per symbol, and a blank between equal neighbours."""
    return len(symbols) + sum(bool(a == b) for a, b in pairwise(symbols))


def nats(scores: NDArray[Any], symbols: Sequence[int]) -> float:
    """-ln p(text); infinite for a text that does not fit into the steps."""
    found = ctc_loss(
        torch.from_numpy(np.ascontiguousarray(scores)),
        torch.tensor(symbols, dtype=torch.long),
        torch.tensor(len(scores)),
        torch.tensor(len(symbols)),
        BLANK,
        "sum",
    )
    return float(found)


def best_path(scores: NDArray[Any]) -> list[int]:
    """The text of the most probable path."""
    path = scores.argmax(1)
    keep = (path != BLANK) & (path != np.concatenate([[BLANK], path[:-1]]))
    found: list[int] = path[keep].tolist()
    return found


def beam(scores: NDArray[Any], width: int) -> list[int]:
    """The most probable text that is found with so many beginnings of texts kept after each step.

    Prefix search: of every beginning, ln p of its paths that end with a blank, and of those that end with a symbol.
    Hannun, Maas, Jurafsky and Ng 2014, First-Pass Large Vocabulary Continuous Speech Recognition, algorithm 1.
    """
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _NOTHING)}
    for row in scores.tolist():
        # The most probable symbols are enough: others cannot get into the beam before these.
        symbols = sorted(range(1, len(row)), key=lambda k: -row[k])[: width + 1]
        found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [_NOTHING, _NOTHING])
        for text, (blank, said) in kept.items():
            both = _sum(blank, said)
            here = found[text]
            here[0] = _sum(here[0], both + row[BLANK])
            if text:
                here[1] = _sum(here[1], said + row[text[-1]])
            for symbol in symbols:
                longer = found[text + (symbol,)]  # noqa: RUF005
                before = blank if text and text[-1] == symbol else both
                longer[1] = _sum(longer[1], before + row[symbol])
        best = sorted(found.items(), key=lambda item: -_sum(*item[1]))[:width]
        kept = {text: (blank, said) for text, (blank, said) in best}
    return list(next(iter(kept)))


def _sum(a: float, b: float) -> float:
    """ln(exp(a) + exp(b))."""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == _NOTHING else high + math.log1p(math.exp(low - high))


def align(scores: NDArray[Any], symbols: Sequence[int]) -> list[tuple[int, int]]:
    """First and last step (included) of each symbol on the most probable path of a text (Viterbi).

    ValueError: the text does not fit into the steps.
    """
    if steps_needed(symbols) > len(scores):
        raise ValueError(f"{len(symbols)} symbols do not fit into {len(scores)} steps")
    if not symbols:
        return []
    states = np.zeros(2 * len(symbols) + 1, np.int64)  # blank, symbol, blank, ..., blank
    states[1::2] = symbols
    skips = np.zeros(len(states), bool)  # from a symbol to the next one, which is another
    skips[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), _NOTHING)
    best[:2] = scores[0, states[:2]]
    came = np.zeros((len(scores), len(states)), np.int64)  # how many states back the path was
    for t in range(1, len(scores)):
        ways = np.full((3, len(states)), _NOTHING)
        ways[0], ways[1, 1:] = best, best[:-1]
        ways[2, 2:] = np.where(skips[2:], best[:-2], _NOTHING)
        came[t] = ways.argmax(0)
        best = ways.max(0) + scores[t, states]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    steps: list[list[int]] = [[] for _ in symbols]
    for t in range(len(scores) - 1, -1, -1):
        if state % 2:
            steps[state // 2].append(t)
        state -= int(came[t, state])
    return [(found[-1], found[0]) for found in steps]
