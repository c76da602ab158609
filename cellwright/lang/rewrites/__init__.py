"""Wrappers as rewrites of the equations: one short file each, for every cell and every target."""

from .attention import QUERY, with_attention
from .clip import with_state_clip
from .dropout import with_recurrent_dropout
from .initial import with_initial_state
from .layer_norm import with_layer_norm
from .perturbation import with_perturbation
from .zoneout import with_expected_zoneout, with_zoneout

__all__ = [
    "QUERY",
    "with_attention",
    "with_expected_zoneout",
    "with_initial_state",
    "with_layer_norm",
    "with_perturbation",
    "with_recurrent_dropout",
    "with_state_clip",
    "with_zoneout",
]
