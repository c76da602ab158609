"""Labelled sequences: from examples as they are read to batches of tensors.

Example     one sequence of words, characters or rows of numbers, with one label or one per step
Dataset     all examples, encoded on the disk as they come; what the net will know is learned from on the way
Encoding    what a net knows: symbols, labels, statistics; in the run folder
Batches     examples of a data set as tensors
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from ..data.lexicon import Lexicon
from ..data.moments import Moments
from ..data.parts import TRAINING
from ..data.ragged import Ragged
from ..data.tables import named

IGNORE = -100  # a label that does not count: cross_entropy's default


@dataclass(frozen=True)
class Example:
    """`inputs`: symbols [T], or numbers [T, F] with NaN where one is missing. `labels`: one, T, or none.

    `place`: file and row, for errors. `shown`: what a prediction repeats of it: a text, or a word or row per step.
    """

    place: str
    inputs: Any
    labels: Sequence[str] = ()
    shown: Any = ""


@dataclass(frozen=True)
class Batch:
    """T steps of B sequences: `x` int64 [T, B] or float32 [T, B, F]; `y` int64 [B] or [T, B], IGNORE in the padding.

    `characters` of the distinct words: ids [C, U], lengths [U], and which word stands where, [T, B]; or None.
    """

    x: Tensor
    lengths: Tensor
    y: Tensor
    characters: tuple[Tensor, Tensor, Tensor] | None = None


class Dataset:
    """Examples, encoded with numbers in the order in which symbols and labels first came."""

    features = 0  # F of rows of numbers; 0: symbols
    layout: Mapping[str, Any] = {}  # which columns were what

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.symbol_counts: Counter[str] = Counter()  # in the training part
        self.label_counts: Counter[str] = Counter()
        self.targets = Ragged(np.int32)
        self._parts = bytearray()
        self._digest = hashlib.sha256()

    def _begin(self, inputs: Any) -> None:
        """The first example says what all of them are."""
        if isinstance(inputs, np.ndarray):
            self.features = inputs.shape[1]
        self.moments = Moments(self.features)
        self.inputs = Ragged(np.float32, self.features) if self.features else Ragged(np.int32)

    @property
    def hash(self) -> Any:
        """What the bytes that are read are added to."""
        return self._digest

    def add(self, example: Example, part: int = TRAINING) -> None:
        """One more example. DataError: it has other columns than those before it, or labels that training has not."""
        if not self._parts:
            self._begin(example.inputs)
        features = example.inputs.shape[1] if isinstance(example.inputs, np.ndarray) else 0
        if features != self.features:
            got, expected = (f"{n} feature(s) per step" if n else "symbols" for n in (features, self.features))
            raise DataError(f"{example.place} has {got}, expected {expected} as in the first example")
        if self.features:
            self.inputs.append(example.inputs)
        else:
            ids = [self.symbols.setdefault(s, len(self.symbols)) for s in example.inputs]
            self.inputs.append(np.array(ids, np.int32))
        codes = [self.labels.setdefault(label, len(self.labels)) for label in example.labels]
        self.targets.append(np.array(codes, np.int32))
        if part == TRAINING:
            self.label_counts.update(example.labels)
            if self.features:
                self.moments.add(example.inputs)
            else:
                self.symbol_counts.update(example.inputs)
        self._parts.append(part)

    def close(self) -> "Dataset":
        """No more of them."""
        if not self._parts:
            self._begin([])
        self.inputs.close()
        self.targets.close()
        self.parts: NDArray[np.uint8] = np.frombuffer(self._parts, dtype=np.uint8)
        return self

    def __len__(self) -> int:
        return len(self._parts)

    def part(self, which: int) -> NDArray[np.int64]:
        """The indices of the examples of one part."""
        return np.flatnonzero(self.parts == which)

    @property
    def digest(self) -> str:
        """SHA-256 of all that was read."""
        return self._digest.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "examples": len(self)}


@dataclass(frozen=True)
class Encoding:
    """What a net knows of its inputs and labels.

    `lower`: words are looked up in small letters; their characters are as they are. `mean`, `deviation` [F] of the
    training data, for numbers only. `layout`: which columns were what; its "what": what a label is called.
    """

    labels: tuple[str, ...]
    words: Lexicon | None
    characters: Lexicon | None
    lower: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    layout: Mapping[str, Any]

    @property
    def features(self) -> int:
        """F; 0: symbols."""
        return len(self.mean)

    @cached_property
    def known(self) -> frozenset[str]:
        """The labels."""
        return frozenset(self.labels)

    def check(self, example: Example) -> None:
        """DataError: a label or a number of features that the net does not know."""
        features = example.inputs.shape[1] if isinstance(example.inputs, np.ndarray) else 0
        if features != self.features:
            kinds = [f"{n} features per step" if n else "words or characters" for n in (features, self.features)]
            raise DataError(f"{example.place} has {kinds[0]}, and the net was trained on {kinds[1]}")
        for label in example.labels:
            if label not in self.known:
                raise DataError(
                    f"{example.place} has the {self.layout.get('what', 'label')} {label!r}, which was not in the "
                    f"training data; they had {named([name for name in self.labels if name])}; leave these rows out, "
                    f"or train with them"
                )

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "labels": list(self.labels),
            "words": self.words and self.words.to_json(),
            "characters": self.characters and self.characters.to_json(),
            "lower": self.lower,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "layout": dict(self.layout),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Encoding":
        """What `to_json` gave. KeyError, TypeError: it is something else."""
        return cls(
            tuple(map(str, data["labels"])),
            data["words"] and Lexicon.from_json(data["words"]),
            data["characters"] and Lexicon.from_json(data["characters"]),
            bool(data["lower"]),
            tuple(map(float, data["mean"])),
            tuple(map(float, data["deviation"])),
            data["layout"],
        )


class Batches:
    """Examples of a data set as tensors, by their indices."""

    def __init__(self, data: Dataset, encoding: Encoding) -> None:
        self.data, self._encoding = data, encoding
        self._labels = np.array([encoding.labels.index(label) for label in data.labels], np.int64)
        if encoding.features:
            self._mean = np.array(encoding.mean, np.float32)
            self._scale = (1 / np.array(encoding.deviation)).astype(np.float32)
            return
        assert encoding.words is not None
        spelled = list(data.symbols)
        self._words = encoding.words.encode(s.lower() if encoding.lower else s for s in spelled)
        self._characters = Ragged(np.int32)
        if encoding.characters is not None:
            for word in spelled:
                self._characters.append(encoding.characters.encode(word))
        self._characters.close()

    def __call__(self, indices: NDArray[np.int64]) -> Batch:
        """Those examples side by side."""
        data = self.data
        lengths = torch.from_numpy(data.inputs.lengths[indices])
        characters = None
        if data.features:
            rows = (data.inputs.pad(indices, np.nan) - self._mean) * self._scale  # [T, B, F]
            x = torch.from_numpy(np.nan_to_num(rows, copy=False))  # a missing number is the mean, which is 0 now
        else:
            ids = data.inputs.pad(indices, 0)  # [T, B]
            x = torch.from_numpy(self._words[ids])
            if self._encoding.characters is not None:
                distinct, where = np.unique(ids, return_inverse=True)
                spelled = torch.from_numpy(self._characters.pad(distinct, 0).astype(np.int64))
                places = torch.from_numpy(where.reshape(ids.shape))
                characters = (spelled, torch.from_numpy(self._characters.lengths[distinct]), places)
        return Batch(x, lengths, self._targets(indices), characters)

    def _targets(self, indices: NDArray[np.int64]) -> Tensor:
        codes = self.data.targets.pad(indices, IGNORE).astype(np.int64)  # [T or 1 or 0, B]
        y = np.where(codes == IGNORE, IGNORE, self._labels[np.maximum(codes, 0)]) if codes.size else codes
        return torch.from_numpy(y)
