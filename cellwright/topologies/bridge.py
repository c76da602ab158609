"""From the last state of an encoder to the first state of a decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..lang.cell import positive
from ..nn import Recurrent
from .states import map_state, tensors, zero_state
from .topology import linear


class CopyBridge(nn.Module):
    """The encoder's last state is the decoder's first one (Sutskever, Vinyals, Le 2014, Sequence to Sequence Learning).

    OptionError: the two layers have states of different forms.
    """

    def __init__(self, encoder: Recurrent, decoder: Recurrent) -> None:
        super().__init__()
        if not self.fits(encoder, decoder):
            raise OptionError(
                "got layers whose states differ in layers, directions or units, so that they cannot be copied; "
                'use bridge="linear"'
            )

    @staticmethod
    def fits(encoder: Recurrent, decoder: Recurrent) -> bool:
        """Whether the states of two layers have the same form."""
        return bool(_form(zero_state(encoder, 1)) == _form(zero_state(decoder, 1)))

    def forward(self, state: Any) -> Any:
        """A state to the same state."""
        return state


class LinearBridge(nn.Module):
    """The decoder's first state is learned from the last output of the encoder (Bahdanau et al. 2015, for all states).

        s = tanh(W e + b)     e [B, D*O]: both directions of the encoder's last layer after their last valid step

    It fits any two layers: other cells, sizes, numbers of layers, directions. An encoder that is no layer, such as one
    of images, gives e itself: `encoder` is then its number of features (Vinyals et al. 2015, Show and Tell).
    """

    def __init__(self, encoder: Recurrent | int, decoder: Recurrent) -> None:
        super().__init__()
        # Not registered a second time: they belong to the encoder and the decoder.
        self._layers = (encoder, decoder)
        units = sum(s.numel() for s in tensors(zero_state(decoder, 1)))
        features = encoder.output_size if isinstance(encoder, Recurrent) else positive("encoder", encoder)
        self.project = linear(decoder, features, units)

    def forward(self, state: Any) -> Any:
        """A state of the encoder, or e [B, features], to a state of the decoder, in the form of its results."""
        encoder, decoder = self._layers
        e = encoder.last_output(state) if isinstance(encoder, Recurrent) else state
        template = zero_state(decoder, e.shape[0])  # tensors [L, B, units]
        flat: Tensor = torch.tanh(self.project(e))
        parts = iter(torch.split(flat, [s.shape[0] * s.shape[2] for s in tensors(template)], -1))
        return map_state(lambda s: next(parts).view(s.shape[1], s.shape[0], s.shape[2]).transpose(0, 1), template)


def _form(state: Any) -> Any:
    return tuple(state.shape) if isinstance(state, Tensor) else [_form(part) for part in state]
