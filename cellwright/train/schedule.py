"""The learning rate over the training: a linear rise, then a cosine fall or none."""

import math
from typing import Protocol


class Settings(Protocol):
    """The settings that every training has; a task's configuration brings them along."""

    @property
    def steps(self) -> int:
        """Updates of the weights."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises to it."""

    @property
    def decay(self) -> str:
        """`cosine`, or `none`: the rate stays where it is."""

    @property
    def final(self) -> float:
        """The rate that a decay ends at, as a fraction of `lr`."""

    @property
    def clip(self) -> float:
        """The largest norm of the gradient; 0: no limit."""

    @property
    def patience(self) -> int:
        """Evaluations without improvement before the training stops; 0: it does not."""

    @property
    def best(self) -> str:
        """The measure by which evaluations are compared, in small letters, with `-` for a space."""

    @property
    def eval_every(self) -> int:
        """Steps between evaluations."""


def learning_rate(step: int, settings: Settings) -> float:
    """The rate of update 0, 1, ..., steps - 1."""
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.decay == "none":
        return settings.lr
    done = (step - warmup) / max(1, settings.steps - 1 - warmup)
    return settings.lr * (settings.final + (1 - settings.final) * (1 + math.cos(math.pi * done)) / 2)
