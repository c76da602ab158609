"""DropConnect on the recurrent weights (Wan et al. 2013; Merity, Keskar & Socher 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...errors import OptionError
from ...lang import Definition
from .rates import check_names, rate_of


@dataclass(frozen=True)
class WeightDrop:
    """In training, zeros in the recurrent matrices, drawn once per call for all steps and sequences.

    These are all that stand between a state and the next one: `weight_hh`, and `weight_hr` of a projection.

    The rest is scaled by 1 / (1 - rate). The parameters stay as they are, under their names.

    Args:
        rate: in [0, 1), the probability of a zero.
        weights: the names of the matrices; None: the recurrent ones.

    OptionError: no rate, or one outside of [0, 1); a matrix that the cell does not have.
    """

    rate: Any = None
    weights: tuple[str, ...] | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", rate_of("rate", self.rate))
        if isinstance(self.weights, str):
            object.__setattr__(self, "weights", tuple(self.weights.split()))
        if self.weights is not None and not (isinstance(self.weights, tuple) and self.weights):
            raise OptionError(f'got weights={self.weights!r}, expected names such as ("weight_hh",)')

    def check(self, definition: Definition) -> None:
        """OptionError unless the cell has these matrices."""
        matrices = [name for name, param in definition.params.items() if param.source is not None]
        check_names("weight drop", self.weights or (), matrices, definition)
        if not self._chosen(definition):
            listed = ", ".join(matrices) or "none"
            raise OptionError(
                f"got weight drop for {definition.name}, which has no recurrent matrix; expected some of: {listed}"
            )

    def drop(self, definition: Definition, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of one call; gradients reach the parameters through the mask."""
        return dict(weights) | {name: F.dropout(weights[name], self.rate) for name in self._chosen(definition)}

    def _chosen(self, definition: Definition) -> tuple[str, ...]:
        return definition.reach.matrices if self.weights is None else tuple(self.weights)
