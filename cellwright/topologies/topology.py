"""What the topologies of one recurrent layer share: x -> input -> recurrent layer -> output."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..lang.cell import positive
from ..nn import Recurrent
from ..nn.sequences import valid_steps, without_padding
from ..nn.wrappers.rates import rate_of
from .masks import batched, sequence


class Topology(nn.Module):
    """A recurrent layer, with a module before it and one after it that act at every step by themselves.

    Args:
        recurrent: any layer of `cellwright`, with the time in front ([T, B, ...]).
        output: K: the last product `V h + c` with K features; or a module of one's own for [..., D*O].
        input: a module for what comes in, such as `nn.Embedding`; None: x goes into the layer as it is.
    """

    def __init__(self, recurrent: Recurrent, output: int | nn.Module, *, input: nn.Module | None = None) -> None:
        super().__init__()
        self.input = input
        self.recurrent = time_first(recurrent, type(self).__name__)
        self.output = output if isinstance(output, nn.Module) else linear(recurrent, recurrent.output_size, output)

    def _read(self, x: Any, lengths: Any) -> tuple[Tensor, Tensor | None]:
        """What goes into the layer, [T, B, I] or integers [T, B], and which steps are valid, [T, B] of bool or None."""
        owner = type(self).__name__
        x = sequence(x, owner)
        valid = valid_steps(lengths, x.shape[0], x.shape[1], x.device)
        if self.input is not None:
            x = self.input(x if valid is None else without_padding(x, valid))
        return batched(x, owner), valid

    def _write(self, output: Tensor, valid: Tensor | None) -> Tensor:
        """The outputs of the layer [T, B, D*O] to those of the topology, zero in the padding."""
        y: Tensor = self.output(output)
        return y if valid is None else without_padding(y, valid)


def time_first(recurrent: Any, owner: str, directions: int = 2) -> Recurrent:
    """A layer that a topology can run. OptionError: no layer, batch-first, or in more directions than there may be."""
    if not isinstance(recurrent, Recurrent):
        got = f"the class {recurrent.__name__}" if isinstance(recurrent, type) else f"a {type(recurrent).__name__}"
        raise OptionError(f"got {got} for {owner}, expected a layer of cellwright, such as LSTM(10, 20)")
    if recurrent.batch_first:
        raise OptionError(f"got a layer with batch_first=True for {owner}, which has the time in front: [T, B, ...]")
    if recurrent.merge == "none":
        raise OptionError(f"got a layer with merge='none' for {owner}, which takes one output; merge it by 'concat'")
    if recurrent.directions > directions:
        raise OptionError(
            f"got a bidirectional layer for {owner}, which feeds back what it gives; it has one direction"
        )
    return recurrent


def dropout_of(rate: Any) -> nn.Dropout:
    """Dropout with a rate in [0, 1). OptionError: another rate."""
    return nn.Dropout(rate_of("dropout", rate))


def linear(recurrent: Recurrent, features: int, output: Any, *, bias: bool = True) -> nn.Linear:
    """A product with the dtype and device of a layer."""
    like = next(recurrent.parameters(), torch.empty(0))
    return nn.Linear(features, positive("output", output), bias=bias, device=like.device, dtype=like.dtype)
