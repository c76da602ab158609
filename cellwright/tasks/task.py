"""What the training loop sees of a task: batches by the number of their step, a loss, and how well the model does."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Task(ABC):
    """A training. What it says here of carried state holds where every sequence begins anew.

    unit: what is counted, "character". quantity: what the loss measures. per_step: units per step. better: what
    `validate` measures and evaluations may be compared by; 1: more is better, -1: less.
    """

    model: nn.Module
    unit: str
    quantity: str = "nats"
    per_step: int
    better: Mapping[str, int]
    reading = 0.0  # seconds spent on batches so far

    @abstractmethod
    def batch(self, step: int) -> Any:
        """What is learned from at step 0, 1, ...; it depends on the seed and this number only."""

    @abstractmethod
    def criterion(self, batch: Any, step: int) -> Tensor:
        """The loss of the model on a batch, in its quantity per unit: a scalar with a gradient."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """The validation loss per unit as `loss`, and whatever else is measured, by name."""

    @abstractmethod
    def test(self) -> dict[str, float] | None:
        """The same of the test data; None if there are none."""

    def loss(self, step: int) -> Tensor:
        """The loss to minimise at a step."""
        began = time.perf_counter()
        batch = self.batch(step)
        self.reading += time.perf_counter() - began
        return self.criterion(batch, step)

    def carried(self) -> dict[str, Tensor]:
        """What one step hands to the next besides the weights: nothing."""
        return {}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Go on with what `carried` gave."""

    def measures(self, loss: float) -> dict[str, float]:
        """The loss in other units, by their names."""
        return {}
