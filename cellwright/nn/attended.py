"""A layer whose input ends with what its own output has found in a memory: all steps as one scan."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..emit.attention import Memory
from ..lang import Definition
from .recurrent import Recurrent
from .scan import Program, scan


class Attended:
    """A layer with the equations of an attention.

    Args:
        layer: of one cell in one direction, without a connection past it (`fits`).
        equations: what a step becomes, such as `with_attention`.
    """

    def __init__(self, layer: Recurrent, equations: Callable[[Definition], Definition]) -> None:
        self._programs = {mode: Program(equations(layer.equations(mode)[0])) for mode in (False, True)}

    @staticmethod
    def fits(layer: Recurrent) -> bool:
        """Whether a layer has such a form."""
        return layer.num_layers == 1 and not layer.bidirectional and layer.shortcut_of(0) is None

    def __call__(
        self, layer: Recurrent, weights: Mapping[str, Tensor], memory: Memory, x: Tensor, state: Any, lengths: Any
    ) -> tuple[Tensor, Any, Tensor]:
        """x [T, B, I], zero where the context comes in, to output, last state, and the weights a [T, B, S].

        weights: what the equations have besides the layer's. state, lengths: as the layer takes them.
        """
        batch, befores = layer._read(x, state, lengths, None)
        before, own, masks = befores[0][0], layer._weights(0, ""), dict[str, Tensor]()
        if layer.training and layer._wrappers.random:
            like = next(iter(before.values()))
            own, masks = layer._wrappers.draw(layer.definitions[0], own, batch.x, like, None)
        program = self._programs[layer.training]
        if layer._watch is not None:
            program, more = layer._watch("l0", program, before, batch)
            masks = masks | more
        found = scan(program, {**own, **weights}, batch.x, before, valid=batch.valid, masks=masks, memory=memory)
        return found.output, layer._give_state([[found.last]], True), found.weights
