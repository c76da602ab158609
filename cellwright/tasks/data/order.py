"""In which order the sequences come: shuffled, with sequences of about the same length side by side."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_POOL = 50  # batches that are sorted by length together: more is less padding and less chance


class Order:
    """Batches of indices. That of step s depends on the seed and s only, so that a training goes on exactly."""

    def __init__(self, indices: NDArray[np.int64], lengths: NDArray[np.int64], batch: int, seed: int) -> None:
        """`indices` [N] of the sequences, and their `lengths` [N]; N > 0."""
        self._indices, self._lengths, self._batch, self._seed = indices, lengths, batch, seed
        self.batches = -(-len(indices) // batch)  # per epoch
        self._epoch, self._plan = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> NDArray[np.int64]:
        """The indices of the batch of step 0, 1, ...; every sequence comes once per epoch."""
        epoch, k = divmod(step, self.batches)
        if epoch != self._epoch:
            self._epoch, (self._plan, self._starts) = epoch, self._planned(epoch)
        return self._indices[self._plan[self._starts[k] : self._starts[k] + self._batch]]

    def _planned(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of all sequences in their order, and where each batch begins."""
        chance = np.random.default_rng([self._seed, epoch])
        plan = chance.permutation(len(self._indices))
        pool = self._batch * _POOL
        for first in range(0, len(plan), pool):
            part = plan[first : first + pool]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        starts = np.arange(0, len(plan), self._batch)
        return plan, chance.permutation(starts)


def by_length(indices: NDArray[np.int64], lengths: NDArray[np.int64], batch: int) -> Iterator[NDArray[np.int64]]:
    """Batches of all `indices` [N], the shortest sequences first: for evaluations, where order changes nothing."""
    sorted_ = indices[np.argsort(lengths, kind="stable")]
    for first in range(0, len(sorted_), batch):
        yield sorted_[first : first + batch]
