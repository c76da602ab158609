"""Symbols that a net knows, characters or words: number 0 is every other one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0


def in_small_letters(counts: Mapping[str, int]) -> Counter[str]:
    """How often words come, whatever the size of their letters."""
    found: Counter[str] = Counter()
    for word, count in counts.items():
        found[word.lower()] += count
    return found


class Lexicon:
    """Symbols with the ids 1 ... len - 1, the most frequent first; id 0 stands for all others."""

    def __init__(self, symbols: Sequence[str], counts: Sequence[int]) -> None:
        """`counts`: how often each is in the training data."""
        self.symbols, self.counts = list(symbols), list(counts)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols, 1)}

    @classmethod
    def build(cls, counts: Mapping[str, int], at_least: int = 1, most: int | None = None) -> "Lexicon":
        """The symbols that come `at_least` so often, and of those the `most` frequent."""
        known = sorted((s for s, n in counts.items() if n >= at_least), key=lambda s: (-counts[s], s))[:most]
        return cls(known, [counts[s] for s in known])

    def __len__(self) -> int:
        return len(self.symbols) + 1

    def encode(self, symbols: Iterable[str]) -> NDArray[np.int64]:
        """Ids [N]."""
        return np.fromiter((self._ids.get(symbol, UNKNOWN) for symbol in symbols), np.int64)

    def doubt(self, strength: float) -> NDArray[np.float32]:
        """How probably an id [len] is taken for unknown in training, a / (a + its count): rare ones often.

        Kiperwasser and Goldberg 2016, Simple and Accurate Dependency Parsing; a = 0.25 there.
        """
        counts = np.array([0, *self.counts], dtype=np.float64)
        chance = strength / np.maximum(strength + counts, 1e-30)
        chance[UNKNOWN] = 0
        return chance.astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"symbols": self.symbols, "counts": self.counts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Lexicon":
        """What `to_json` gave. KeyError, TypeError: it is something else."""
        return cls([str(s) for s in data["symbols"]], [int(n) for n in data["counts"]])
