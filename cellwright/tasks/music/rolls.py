"""Tunes as a data set: kept on the disk, and put side by side as tensors."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.ragged import Ragged
from .files import Tune
from .keys import KEYS, Roll

TRAINING, VALIDATION, TEST = range(3)
Ints = NDArray[np.int64]


class Rolls:
    """Tunes as they come."""

    def __init__(self) -> None:
        self.keys = Ragged(np.uint8, KEYS)
        self.labels: list[str] = []
        self._parts = bytearray()
        self.hash = hashlib.sha256()  # what the bytes that are read are added to

    def add(self, tune: Tune, part: int) -> None:
        """One more."""
        self.keys.append(tune.roll)
        self.labels.append(tune.label)
        self._parts.append(part)

    def close(self) -> "Rolls":
        """No more of them."""
        self.keys.close()
        self.parts = np.frombuffer(self._parts, dtype=np.uint8)
        return self

    def __len__(self) -> int:
        return len(self._parts)

    def part(self, which: int) -> Ints:
        """The indices of the tunes of one part."""
        return np.flatnonzero(self.parts == which)

    def counts(self) -> "Counter[str]":
        """How many tunes of each class there are to train on."""
        return Counter(self.labels[i] for i in self.part(TRAINING))

    @property
    def digest(self) -> str:
        """SHA-256 of all that was read."""
        return self.hash.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "tunes": len(self)}

    def windows(self, indices: Ints, window: int) -> tuple[Ints, Ints, Ints]:
        """The tunes in pieces of at most `window` steps (0: whole): tune, first step and length of each, [N]."""
        tunes, starts, sizes = [], [], []
        for i in indices.tolist():
            length = int(self.keys.lengths[i])
            for start in range(0, length, window or length):
                tunes.append(i)
                starts.append(start)
                sizes.append(min(window or length, length - start))
        return np.array(tunes, np.int64), np.array(starts, np.int64), np.array(sizes, np.int64)

    def batch(
        self, tunes: Ints, starts: Ints, sizes: Ints, classes: Sequence[str] = (), shifts: Ints | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Pieces of tunes side by side.

        Args:
            tunes, starts, sizes: [B] which tune, from which step on, how many steps.
            classes: what a net knows, all of these tunes' classes among them.
            shifts: [B] semitones to move each piece by; less where a key would leave the piano.

        Returns:
            float32 [T, B, 88], keys that are down one step earlier, zero before a tune begins and in the padding;
            float32 [T, B, 88], keys that are down; int64 [B] lengths; int64 [B] classes, or None without any.
        """
        T = int(sizes.max())
        rows = np.zeros((T + 1, len(tunes), KEYS), np.float32)
        for b, (i, start, size) in enumerate(zip(tunes.tolist(), starts.tolist(), sizes.tolist(), strict=True)):
            piece = self.keys[i][max(start - 1, 0) : start + size]
            rows[size + 1 - len(piece) : size + 1, b] = piece if shifts is None else moved(piece, int(shifts[b]))
        label = None
        if classes:
            places = {name: k for k, name in enumerate(classes)}
            label = torch.tensor([places[self.labels[i]] for i in tunes.tolist()])
        keys = torch.from_numpy(rows)
        x = keys[:-1].clone()
        lengths = torch.from_numpy(sizes)
        x[torch.arange(T)[:, None] >= lengths] = 0  # the last step of a tune is nobody's input
        return x, keys[1:], lengths, label


def moved(roll: Roll, semitones: int) -> Roll:
    """A roll [T, 88] so many semitones higher, or as many as leave every key on the piano."""
    used = np.flatnonzero(roll.any(0))
    if not len(used):
        return roll
    by = int(np.clip(semitones, -used[0], KEYS - 1 - used[-1]))
    return np.roll(roll, by, axis=1)
