"""What a net hears: the logarithm of the energy in bands that are as wide as the ear's, a hundred times a second.

For each frame of 25 ms, every 10 ms, with the Hann window w and N samples:

    S[k] = |sum_n w[n] x[n] exp(-2 pi i k n / M)|^2        M: a power of two, N or more
    y[m] = ln(e + sum_k F[m, k] S[k])                      m = 1 ... the number of filters
    F[m, k]: triangles over mel(f) = 2595 log10(1 + f / 700), f = k rate / M, from 0 to half the rate; neighbours
    meet at half their height, and each one's peak is where the next ones begin

Davis and Mermelstein 1980, Comparison of Parametric Representations for Monosyllabic Word Recognition; the scale is the
one of the HTK Book (Young et al. 2006).
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WINDOW, HOP = 0.025, 0.010  # seconds
FLOOR = 1e-8  # e: about the energy of rounding to 16 bits, with samples between -1 and 1
_FRAMES = 4096  # frames that are transformed at once


def mel(hertz: Tensor) -> Tensor:
    """Frequency on a scale of equal distances to the ear."""
    return 2595 * torch.log10(1 + hertz / 700)


def mel_filters(rate: int, bins: int, mels: int) -> Tensor:
    """F [mels, bins], float64, of bins from 0 to half the rate."""
    top = torch.tensor(rate / 2, dtype=torch.float64)
    places = mel(torch.linspace(0, float(top), bins, dtype=torch.float64))
    edges = torch.linspace(0, float(mel(top)), mels + 2, dtype=torch.float64)
    width = edges[1] - edges[0]
    return (1 - (places - edges[1:-1, None]).abs() / width).clamp(min=0)


class LogMel:
    """Samples to frames. `rate`: samples per second."""

    def __init__(self, rate: int, mels: int) -> None:
        self.rate, self.mels = rate, mels
        self._size, self._hop = round(WINDOW * rate), round(HOP * rate)
        self._points = 2 ** math.ceil(math.log2(self._size))
        filters = mel_filters(rate, self._points // 2 + 1, mels)
        while not (filters > 0).any(1).all():  # narrow filters need finer bins
            self._points *= 2
            filters = mel_filters(rate, self._points // 2 + 1, mels)
        self._filters = filters.T.float().contiguous()
        self._window = torch.hann_window(self._size)

    def __call__(self, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Samples in blocks [n] to frames [T, mels]; what is shorter than a frame is one, with silence at its end."""
        found: list[Tensor] = []
        left = np.empty(0, np.float32)
        for block in blocks:
            left = np.concatenate([left, block])
            if (count := self._count(len(left))) > 0:
                found.append(self._frames(left, count))
                left = left[count * self._hop :]
        if not found:
            found.append(self._frames(np.pad(left, (0, self._size - len(left))), 1))
        return torch.cat(found).numpy()

    def _count(self, samples: int) -> int:
        return 1 + (samples - self._size) // self._hop if samples >= self._size else 0

    def _frames(self, samples: NDArray[np.float32], count: int) -> Tensor:
        frames = torch.from_numpy(samples).unfold(0, self._size, self._hop)[:count]  # [T, N]
        parts = []
        for part in torch.split(frames, _FRAMES):
            spectrum = torch.fft.rfft(part * self._window, self._points)
            parts.append(torch.log(FLOOR + spectrum.abs().square() @ self._filters))
        return torch.cat(parts)


@lru_cache(maxsize=4)
def log_mel(rate: int, mels: int) -> LogMel:
    """One that may be there already."""
    return LogMel(rate, mels)
