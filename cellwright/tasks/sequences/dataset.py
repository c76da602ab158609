"""Sources with texts: from examples as they are read to batches of tensors.

Example     a source, which is symbols or numbers, and the texts that belong to it
Pairs       all examples, encoded on the disk as they come; what the net will know is learned from on the way
Batches     pairs of a source and a text as tensors
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from ..data.lexicon import Lexicon
from ..data.parts import TEST, TRAINING, VALIDATION
from ..data.ragged import Ragged
from ..data.tokens import BytePairs
from .symbols import split, to_write

_LEFT_OUT = 255  # the part of pairs that are too long


@dataclass(frozen=True)
class Example:
    """`source`: symbols, or numbers [n, width]. `texts`: none for a prediction, else one or more.

    `place`: file and row, for errors. `shown`: what a prediction repeats of the source.
    """

    place: str
    source: Any
    texts: Sequence[str] = ()
    shown: str = ""


@dataclass(frozen=True)
class Batch:
    """B pairs: `source` as the encoder takes it, `target` int64 [T, B], and their lengths [B]."""

    source: Tensor
    source_lengths: Tensor | None
    target: Tensor
    target_lengths: Tensor


class Pairs:
    """Examples, encoded with numbers in the order in which symbols first came. A pair is a source and one text of it.

    `source_of` [P]: the source of each pair. `parts` [N] of the sources. Texts are kept as they are for the parts that
    are judged.
    """

    layout: Mapping[str, Any] = {}  # which columns were what
    facts: Mapping[str, Any] = {}  # what else is known of the sources, such as the shape of an image

    def __init__(self, level: str, longest: int = 0, pieces: Sequence[BytePairs | None] = (None, None)) -> None:
        """`longest`: pairs with more symbols on one side do not come into the training; 0: all do.

        `pieces`: what the words of sources and targets are made of; else `cut` learns it.
        """
        self.level, self._longest, self.pieces = level, longest, pieces
        self.source_symbols: dict[str, int] = {}
        self.target_symbols: dict[str, int] = {}
        self.source_counts: Counter[str] = Counter()  # in the training part
        self.target_counts: Counter[str] = Counter()
        self.targets, self._texts, self._shown = Ragged(np.int32), Ragged(np.uint8), Ragged(np.uint8)
        self.left_out = self.longest_target = 0
        self._parts, self._source_of, self._pair_parts = bytearray(), array("q"), bytearray()
        self._digest = hashlib.sha256()
        self.sources: Ragged | None = None

    @property
    def hash(self) -> Any:
        """What the bytes that are read are added to."""
        return self._digest

    def add(self, example: Example, part: int = TRAINING) -> None:
        """One more example. DataError: its source has another width than those before it."""
        source: Any = example.source
        numbers = isinstance(source, np.ndarray)
        texts = [_spelled(self.pieces[1], split(text, self.level)) for text in example.texts]
        source = source if numbers else _spelled(self.pieces[0], source)
        if self._longest and part == TRAINING:
            fits = [len(text) <= self._longest for text in texts]
            fits = fits if numbers or len(source) <= self._longest else [False] * len(texts)
            self.left_out += len(fits) - sum(fits)
            texts = [text for text, fit in zip(texts, fits, strict=True) if fit]
            if not texts:
                return
        if self.sources is None:
            self.sources = Ragged(source.dtype, source.shape[1]) if numbers else Ragged(np.int32)
        if not numbers:
            if part == TRAINING:
                self.source_counts.update(source)
            symbols = self.source_symbols
            source = np.array([symbols.setdefault(s, len(symbols)) for s in source], np.int32)
        self.sources.append(source)
        self._parts.append(part)
        for text in texts:
            if part == TRAINING:
                self.target_counts.update(text)
                self.longest_target = max(self.longest_target, len(text))
            symbols = self.target_symbols
            self.targets.append(np.array([symbols.setdefault(s, len(symbols)) for s in text], np.int32))
            self._source_of.append(len(self._parts) - 1)
            self._pair_parts.append(part)
        kept = "" if part == TRAINING else "\n".join(" ".join(text.split()) for text in example.texts)
        self._texts.append(np.frombuffer(kept.encode("utf-8", "replace"), np.uint8))
        shown = "" if part == TRAINING else example.shown
        self._shown.append(np.frombuffer(shown.encode("utf-8", "replace"), np.uint8))

    def close(self) -> "Pairs":
        """No more of them."""
        self.sources = Ragged(np.int32) if self.sources is None else self.sources
        for one in (self.sources, self.targets, self._texts, self._shown):
            one.close()
        self.parts: NDArray[np.uint8] = np.frombuffer(self._parts, np.uint8)
        self.pair_parts: NDArray[np.uint8] = np.frombuffer(self._pair_parts, np.uint8)
        self.source_of: NDArray[np.int64] = np.frombuffer(self._source_of, np.int64)
        return self

    def cut(self, limit: int) -> None:
        """Words into pieces, at most `limit` on each side, learned from the training part; after `close`."""
        assert self.sources is not None
        both: list[BytePairs | None] = [None, None]
        if self.source_counts:
            found = _cut(self.sources, self.source_symbols, self.source_counts, limit)
            both[0], self.sources, self.source_symbols, self.source_counts = found
        found = _cut(self.targets, self.target_symbols, self.target_counts, limit)
        both[1], self.targets, self.target_symbols, self.target_counts = found
        self.pieces = both
        lengths = self.targets.lengths
        longest = lengths if both[0] is None else np.maximum(lengths, self.sources.lengths[self.source_of])
        training = self.pair_parts == TRAINING
        if self._longest:
            out = training & (longest > self._longest)
            self.pair_parts[out] = _LEFT_OUT
            self.left_out += int(out.sum())
            training &= ~out
        self.longest_target = int(lengths[training].max(initial=0))

    def __len__(self) -> int:
        return len(self._parts)

    def part(self, which: int) -> NDArray[np.int64]:
        """The indices of the sources of one part."""
        return np.flatnonzero(self.parts == which)

    def pairs(self, which: int) -> NDArray[np.int64]:
        """The indices of the pairs of one part."""
        return np.flatnonzero(self.pair_parts == which)

    def texts(self, source: int) -> list[str]:
        """The texts of a source that is not in the training part."""
        kept = self._texts[source].tobytes().decode()
        return kept.split("\n") if kept else []

    def shown(self, source: int) -> str:
        """What is said of a source that is not in the training part."""
        return self._shown[source].tobytes().decode()

    @property
    def digest(self) -> str:
        """SHA-256 of all that was read."""
        return self._digest.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "examples": len(self), "pairs": len(self.source_of)}

    def check(self, names: str) -> None:
        """DataError: there are too few to train on."""
        counts = [len(self.pairs(part)) for part in (TRAINING, VALIDATION, TEST)]
        if not all(counts[:2]):
            longer = f" ({self.left_out} left out by --longest {self._longest})" if self.left_out else ""
            raise DataError(
                f"{names}: {sum(counts)} pair(s){longer}, of which {counts[0]} to train on and {counts[1]} for "
                f"validation; at least one each is needed: give more data, a larger --validation, or --validation-data"
            )


class Batches:
    """Pairs of a data set as tensors. `source_batch` makes the sources of a net's kind from their indices."""

    def __init__(self, data: Pairs, lexicon: Lexicon, source_batch: Any) -> None:
        self.data = data
        self._ids = lexicon.encode(data.target_symbols)
        self._source_batch = source_batch

    def sources(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Those sources side by side, and their lengths."""
        found: tuple[Tensor, Tensor | None] = self._source_batch(indices)
        return found

    def __call__(self, pairs: NDArray[np.int64]) -> Batch:
        """Those pairs side by side."""
        data = self.data
        source, lengths = self.sources(data.source_of[pairs])
        codes = data.targets.pad(pairs, 0)  # [T, B]
        target = torch.from_numpy(self._ids[codes] if codes.size else codes.astype(np.int64))
        return Batch(source, lengths, target, torch.from_numpy(data.targets.lengths[pairs]))


def _spelled(pairs: BytePairs | None, words: Sequence[str]) -> Sequence[str]:
    """Words as the symbols that they are made of."""
    if pairs is None:
        return words
    return [to_write(pairs.pieces[k]) for word in words for k in pairs.spelled[word]]


def _cut(
    kept: Ragged, symbols: Mapping[str, int], counts: "Counter[str]", limit: int
) -> tuple[BytePairs, Ragged, dict[str, int], "Counter[str]"]:
    """Byte pairs learned from counts of words; sequences of them, their symbols with numbers, and counts of those."""
    pairs = BytePairs.of(Counter(counts), limit)
    made_of = [pairs.spell(word) for word in symbols]
    found = Ragged(np.int32)
    for i in range(len(kept)):
        found.append(np.array([k for code in kept[i].tolist() for k in made_of[code]], np.int32))
    names = [to_write(piece) for piece in pairs.pieces]
    count: Counter[str] = Counter()
    for word, code in symbols.items():
        for k in made_of[code]:
            count[names[k]] += counts[word]
    return pairs, found.close(), {name: k for k, name in enumerate(names)}, +count
