"""What an example is for: training, validation or test, as its file says or as chance has it."""

from collections.abc import Mapping

import numpy as np

TRAINING, VALIDATION, TEST = range(3)


class Draw:
    """To which part an example goes, one after the other: by chance, with shares that are right at any time."""

    def __init__(self, shares: Mapping[int, float], seed: int) -> None:
        self._shares = shares
        self._chance = np.random.default_rng([seed, 2**32 - 1])  # the epochs have smaller numbers
        self._due = dict.fromkeys(shares, 0.0)

    def __call__(self) -> int:
        """The next one's part."""
        for part, share in self._shares.items():
            self._due[part] += share
        for part, due in self._due.items():
            # What is overdue comes for sure: ten examples have one for validation, not none with some bad luck.
            if self._chance.random() < due + 1e-9 and due > 0:
                self._due[part] -= 1
                return part
        return TRAINING
