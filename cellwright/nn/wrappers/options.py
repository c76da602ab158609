"""The wrappers of one layer object together: what they make of the equations, and what they draw at each call."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...lang import Definition, with_initial_state, with_layer_norm
from ...lang.cell import flag
from .rates import wrapper_of
from .recurrent_dropout import RecurrentDropout
from .state_clip import clipped
from .weight_drop import WeightDrop
from .zoneout import Zoneout


@dataclass(frozen=True)
class Wrappers:
    """The keywords of `Recurrent` that hold for the step of every layer."""

    recurrent_dropout: RecurrentDropout | None
    zoneout: Zoneout | None
    weight_drop: WeightDrop | None
    layer_norm: bool
    learn_initial_state: bool
    state_clip: Any

    @classmethod
    def of(
        cls,
        recurrent_dropout: Any,
        zoneout: Any,
        weight_drop: Any,
        layer_norm: bool,
        learn_initial_state: bool,
        state_clip: Any,
    ) -> "Wrappers":
        """From what the caller gave. OptionError: a rate that is none."""
        return cls(
            wrapper_of(RecurrentDropout, "recurrent_dropout", recurrent_dropout),
            wrapper_of(Zoneout, "zoneout", zoneout),
            wrapper_of(WeightDrop, "weight_drop", weight_drop),
            flag("layer_norm", layer_norm),
            flag("learn_initial_state", learn_initial_state),
            state_clip,
        )

    @property
    def moded(self) -> bool:
        """Whether the equations differ between training and evaluation."""
        return self.recurrent_dropout is not None or self.zoneout is not None

    @property
    def random(self) -> bool:
        """Whether something is drawn at each call in training."""
        return self.moded or self.weight_drop is not None

    def equations(self, definition: Definition) -> Definition:
        """The equations with what is part of them in training and in evaluation."""
        if self.layer_norm and not definition.options.get("layer_norm"):  # once is enough
            definition = with_layer_norm(definition)
        if self.state_clip is not None:
            definition = clipped(definition, self.state_clip)
        if self.weight_drop is not None:
            self.weight_drop.check(definition)
        return with_initial_state(definition) if self.learn_initial_state else definition

    def in_mode(self, definition: Definition, training: bool) -> Definition:
        """`equations` with what differs between training and evaluation."""
        for wrapper in (self.recurrent_dropout, self.zoneout):
            if wrapper is not None:
                definition = wrapper.rewrite(definition, training)
        return definition

    def draw(
        self, definition: Definition, weights: dict[str, Tensor], x: Tensor, like: Tensor, reset: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """For one call in training on x [T, B, ...]: the weights that it works with, and its masks by input."""
        masks: dict[str, Tensor] = {}
        if self.weight_drop is not None:
            weights = self.weight_drop.drop(definition, weights)
        for wrapper in (self.recurrent_dropout, self.zoneout):
            if wrapper is not None:
                masks |= wrapper.masks(definition, x.shape[0], x.shape[1], like, reset)
        return weights, masks

    def shown(self) -> list[str]:
        """What `print` shows: the keywords that are in use."""
        return [f"{k}={v!r}" for k, v in vars(self).items() if v not in (None, False)]
