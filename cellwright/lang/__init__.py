"""From equations to a plan: `trace -> graph -> check -> grad -> plan`. Knows no target and imports no torch."""

from .cell import Equations
from .definition import Definition
from .functions import ACTIVATIONS
from .graph import Graph, Node, Param, check
from .masks import with_reset, with_valid
from .ops import OPS
from .plan import Plan
from .rewrites import (
    QUERY,
    with_attention,
    with_expected_zoneout,
    with_initial_state,
    with_layer_norm,
    with_perturbation,
    with_recurrent_dropout,
    with_state_clip,
    with_zoneout,
)

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "QUERY",
    "Definition",
    "Equations",
    "Graph",
    "Node",
    "Param",
    "Plan",
    "check",
    "with_attention",
    "with_expected_zoneout",
    "with_initial_state",
    "with_layer_norm",
    "with_perturbation",
    "with_recurrent_dropout",
    "with_reset",
    "with_state_clip",
    "with_valid",
    "with_zoneout",
]
