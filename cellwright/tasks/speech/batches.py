"""Recordings side by side, as the net hears them: changed by chance in training, normalised, in steps of frames."""

import math
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from ..labels.dataset import IGNORE, Batch, Batches, Dataset, Encoding
from .config import SpeechConfig
from .features import FLOOR

_DECIBEL = math.log(10) / 10  # of energy, in nats
Frames = NDArray[np.float32]  # [T, B, F]
Lengths = NDArray[np.int64]  # [B]


class SpeechBatches(Batches):
    """Recordings of a data set as tensors, by their indices."""

    def __init__(self, data: Dataset, encoding: Encoding, config: SpeechConfig) -> None:
        super().__init__(data, encoding)
        self._config = config

    def __call__(self, indices: NDArray[np.int64], chance: Generator | None = None) -> Batch:
        """Those recordings side by side. `chance`: changed by it, as in training."""
        config = self._config
        x: Frames = self.data.inputs.pad(indices, 0.0)
        lengths = self.data.inputs.lengths[indices]
        y = self._targets(indices)
        if chance is not None:
            x = louder(x, config.gain, config.noise, chance)
            x, lengths = stretched(x, lengths, config.speed, config.shift, _fewest(y.numpy()) * config.stack, chance)
        x = normalised(x, lengths) if config.normalise == "recording" else (x - self._mean) * self._scale
        x *= _inside(lengths, len(x))[:, :, None]
        if chance is not None:
            hide(x, lengths, config.masks, config.mask_mels, config.mask_time, chance)
        if config.deltas:
            x = np.concatenate([x, deltas(x, lengths)], 2)
        if config.stack > 1:
            x, lengths = stacked(x, config.stack), -(-lengths // config.stack)
        return Batch(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(lengths), y)


def louder(x: Frames, gain: float, noise: float, chance: Generator) -> Frames:
    """Another level for each recording, up to `gain` decibels, and a floor of noise up to `noise` above silence."""
    count = x.shape[1]
    if gain:
        x = x + chance.uniform(-gain, gain, (count, 1)).astype(np.float32) * np.float32(_DECIBEL)
    if noise:
        floor = math.log(FLOOR) + chance.uniform(0, noise, (count, 1)) * _DECIBEL
        x = np.logaddexp(x, floor.astype(np.float32))
    return x


def stretched(
    x: Frames, lengths: Lengths, speed: float, shift: int, fewest: Lengths, chance: Generator
) -> tuple[Frames, Lengths]:
    """Faster or slower by up to the part `speed`, after up to `shift` frames that are like the first one.

    Frames are interpolated (Ko et al. 2015 do it with samples). No recording gets shorter than `fewest` frames [B].
    """
    if not speed and not shift:
        return x, lengths
    factor = chance.uniform(1 - speed, 1 + speed, len(lengths))
    ahead = chance.integers(0, shift, len(lengths), endpoint=True)
    longer = np.maximum(np.maximum(np.round(lengths * factor).astype(np.int64), 1), np.minimum(lengths, fewest))
    t = np.arange(int((longer + ahead).max()))[:, None] - ahead  # [T', B]
    place = np.clip(t * ((lengths - 1) / np.maximum(longer - 1, 1)), 0, lengths - 1)
    below = place.astype(np.int64)
    part = (place - below).astype(np.float32)[:, :, None]
    b = np.arange(len(lengths))
    return x[below, b] * (1 - part) + x[np.minimum(below + 1, lengths - 1), b] * part, longer + ahead


def normalised(x: Frames, lengths: Lengths) -> Frames:
    """Mean 0 and deviation 1 of each filter over each recording; the smallest deviation is a decibel's."""
    inside = _inside(lengths, len(x))[:, :, None]
    count = lengths[:, None].astype(np.float32)
    x = x - (x * inside).sum(0) / count
    deviation = np.sqrt((np.square(x) * inside).sum(0) / count)
    scaled: Frames = x / np.maximum(deviation, np.float32(_DECIBEL))
    return scaled


def hide(x: Frames, lengths: Lengths, masks: int, mels: float, time: float, chance: Generator) -> None:
    """Zeros, which are the mean, in bands of filters and spans of time, in place (SpecAugment, Park et al. 2019)."""
    _, B, F = x.shape
    for _ in range(masks):
        for axis, size, most in ((2, np.full(B, F), mels), (0, lengths, time)):
            width = np.floor(chance.uniform(0, 1, B) * (most * size + 1)).astype(np.int64)
            first = np.floor(chance.uniform(0, 1, B) * (size - width + 1)).astype(np.int64)
            n = np.arange(x.shape[axis])[:, None]
            hidden = (n >= first) & (n < first + width)  # [F or T, B]
            x *= ~(hidden.T[None] if axis == 2 else hidden[:, :, None])


def deltas(x: Frames, lengths: Lengths) -> Frames:
    """The slope over five frames, sum_k k (x[t+k] - x[t-k]) / 10 with k = 1, 2; the ends are repeated."""
    t = np.arange(len(x))[:, None]
    b = np.arange(len(lengths))

    def at(shift: int) -> Frames:
        found: Frames = x[np.clip(t + shift, 0, lengths - 1), b]
        return found

    slope: Frames = (at(1) - at(-1) + 2 * (at(2) - at(-2))) * np.float32(0.1)
    slope *= _inside(lengths, len(x))[:, :, None]
    return slope


def stacked(x: Frames, stack: int) -> Frames:
    """[T, B, F] to [T / stack, B, stack * F], with zeros, which are the mean, after the end."""
    T, B, F = x.shape
    x = np.pad(x, ((0, -T % stack), (0, 0), (0, 0)))
    made: Frames = x.reshape(-1, stack, B, F).transpose(0, 2, 1, 3).reshape(-1, B, stack * F)
    return made


def _inside(lengths: Lengths, steps: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.arange(steps)[:, None] < lengths  # [T, B]
    return inside


def _fewest(y: NDArray[Any]) -> Lengths:
    """The steps that each column of y [U, B] needs: its symbols, and a blank between equal neighbours."""
    there = y != IGNORE
    fewest: Lengths = there.sum(0) + ((y[1:] == y[:-1]) & there[1:]).sum(0)
    return fewest
