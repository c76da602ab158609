"""A layer whose input ends with what its own output has found in a memory: all steps as one scan."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..emit.attention import Memory
from ..lang import Definition
from .recurrent import Recurrent
from .scan import Program, Scanned, scan
from .sequences import Sequences


class Attended:
    """A layer with the equations of an attention.

    Args:
        layer: of one cell in one direction, without a connection past it (`fits`).
        equations: what a step becomes, such as `with_attention`.
    """

    def __init__(self, layer: Recurrent, equations: Callable[[Definition], Definition]) -> None:
        modes = (False, True) if layer._wrappers.moded else (False,)
        self._programs = [Program(equations(layer.equations(mode)[0])) for mode in modes]

    @staticmethod
    def fits(layer: Recurrent) -> bool:
        """Whether a layer has such a form."""
        return layer.num_layers == 1 and not layer.bidirectional and layer.shortcut_of(0) is None

    def program(self, training: bool) -> Program:
        """The equations of a step in training or in evaluation."""
        return self._programs[-1 if training else 0]

    def __call__(
        self,
        layer: Recurrent,
        weights: Mapping[str, Tensor],
        memory: Memory,
        batch: Sequences,
        before: dict[str, Tensor],
    ) -> Scanned:
        """A batch whose x [T, B, I] is zero where the context comes in, from the states `before`, [B, units] each.

        weights: what the equations have besides the layer's.
        """
        program = self.program(layer.training)
        program, own, masks = layer._prepared(0, "", program, batch.x, before, batch)
        own = {**own, **weights}
        return scan(program, own, batch.x, before, valid=batch.valid, reset=batch.reset, masks=masks, memory=memory)
