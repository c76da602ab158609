"""Dropout on the way from a state to the next step (Gal & Ghahramani 2016; Moon et al. 2015)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import OptionError
from ...lang import Definition, with_recurrent_dropout
from .rates import check_names, kept, kept_by_sequence, rate_of


@dataclass(frozen=True)
class RecurrentDropout:
    """In training, zeros in a state where a dense product reads it; the rest is scaled by 1 / (1 - rate).

    The mask is one per sequence, the same at all its steps (Gal & Ghahramani 2016, "variational"), or with `per_step` a
    fresh one for each. A state that enters no dense product, such as c of an LSTM, is masked wherever it is read (Moon
    et al. 2015): units without a memory for the length of a sequence. There is no scale then, which would multiply
    itself from step to step. Not the dropout of the candidate by Semeniuta et al. 2016, which leaves the state whole.

    Args:
        rate: in [0, 1), the probability of a zero.
        states: names such as ("h", "c"); None: those that enter a product, or else the first that the step reads.
        per_step: a fresh mask at each step.

    OptionError: no rate, or one outside of [0, 1); a state that the cell does not have.
    """

    rate: Any = None
    states: tuple[str, ...] | str | None = None
    per_step: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", rate_of("rate", self.rate))
        if isinstance(self.states, str):
            object.__setattr__(self, "states", tuple(self.states.split()))
        if self.states is not None and not (isinstance(self.states, tuple) and self.states):
            raise OptionError(f'got states={self.states!r}, expected names such as ("h",), or None for the output')

    def rewrite(self, definition: Definition, training: bool) -> Definition:
        """The equations with it: in evaluation they are as they were."""
        check_names("recurrent dropout", self._chosen(definition), definition.states, definition)
        return with_recurrent_dropout(definition, self._chosen(definition)) if training else definition

    def masks(self, definition: Definition, T: int, B: int, like: Tensor, reset: Tensor | None) -> dict[str, Tensor]:
        """The masks of one call by the names of the inputs, [T, B, units]."""
        found = {}
        for name in self._chosen(definition):
            shape = (T, B, definition.state_size(name))
            mask = kept(self.rate, shape, like) if self.per_step else kept_by_sequence(self.rate, shape, like, reset)
            lasting = not self.per_step and name not in definition.reach.multiplied
            found[f"keep_{name}"] = mask.sign() if lasting else mask
        return found

    def _chosen(self, definition: Definition) -> tuple[str, ...]:
        reach = definition.reach
        usual = reach.multiplied or tuple(name for name in reach.read if name in definition.plain)[:1]
        return usual if self.states is None else tuple(self.states)
