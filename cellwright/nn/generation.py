"""One symbol at a time, all layers in one call: the way to a stepper from a layer."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .recurrent import Recurrent
from .scan import compiled_programs
from .weights import whole

if TYPE_CHECKING:
    from ..emit.to_cpu import Stepper


def stepper(
    layer: Recurrent, output: nn.Linear, *, symbols: Tensor | None = None, state: Any = None, streams: int = 1
) -> "Stepper | None":
    """A layer and the output layer after it as one compiled step: ids [B] in, logits [B, V] or drawn ids [B] out.

    Args:
        layer: in one direction, as it is in evaluation.
        output: O to V features, with a bias.
        symbols: [V, I], such as the weight of an embedding; None: symbols are one-hot vectors.
        state: before the first step, in the form of the layer's results; None: zero.
        streams: B, the number of sequences side by side.

    Returns:
        None where only layer by layer will do: another target, dtype or device, or equations that it does not take.
    """
    weights = [whole(definition, layer._weights(k, "")) for k, definition in enumerate(layer.definitions)]
    others = [output.weight, output.bias, *([] if symbols is None else [symbols])]
    shortcuts = [layer.shortcut_of(k) for k in range(layer.num_layers)]
    others += [w for one in shortcuts for w in one or ()]
    if layer.bidirectional or output.bias is None or any(t.dtype != torch.float32 for t in others):
        return None
    tensors = [w for one in weights for w in one.values()] + others
    programs = compiled_programs(layer._programs, [t.detach() for t in tensors])
    if programs is None:
        return None
    from ..emit.to_cpu import Stepper, why_not

    if why_not(programs):
        return None
    made = Stepper(programs, weights, symbols, (output.weight, output.bias), streams, shortcuts)
    with torch.no_grad():
        made.set([pair[0] for pair in layer._read_state(state, streams, True, weights[0][next(iter(weights[0]))])])
    return made
