"""Regularisers and wrappers of layers: one short file each. Their rewrites of the equations are in `lang`."""

from .activation_regularisation import activation_regularisation, temporal_activation_regularisation
from .attention import Attention
from .embedding_dropout import EmbeddingDropout
from .locked_dropout import LockedDropout
from .options import Wrappers
from .recurrent_dropout import RecurrentDropout
from .weight_drop import WeightDrop
from .zoneout import Zoneout

__all__ = [
    "Attention",
    "EmbeddingDropout",
    "LockedDropout",
    "RecurrentDropout",
    "WeightDrop",
    "Wrappers",
    "Zoneout",
    "activation_regularisation",
    "temporal_activation_regularisation",
]
