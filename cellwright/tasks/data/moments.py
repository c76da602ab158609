"""Mean and deviation of numbers that come in pieces."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Mean and standard deviation of columns, piece by piece (Chan, Golub and LeVeque 1983); NaN is left out."""

    def __init__(self, columns: int) -> None:
        self.count, self.mean, self.square = np.zeros(columns), np.zeros(columns), np.zeros(columns)

    def add(self, rows: NDArray[Any]) -> None:
        """More rows [T, F]."""
        there = ~np.isnan(rows)
        values = np.where(there, rows, 0).astype(np.float64)
        count = there.sum(0)
        mean = values.sum(0) / np.maximum(count, 1)
        square = (np.where(there, values - mean, 0) ** 2).sum(0)
        total = self.count + count
        shift, safe = mean - self.mean, np.maximum(total, 1)
        self.mean = self.mean + shift * count / safe
        self.square = self.square + square + shift**2 * self.count * count / safe
        self.count = total

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Of each column; 1 where it is constant."""
        deviation = np.sqrt(self.square / np.maximum(self.count, 1))
        return np.where(deviation > 1e-6 * np.maximum(np.abs(self.mean), 1e-30), deviation, 1.0)
