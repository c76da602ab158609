"""From equations to a plan: `trace -> graph -> check -> grad -> plan`. Knows no target and imports no torch."""

from .cell import Definition, Equations
from .functions import ACTIVATIONS
from .graph import Graph, Node, Param, check
from .masks import with_reset, with_valid
from .ops import OPS
from .plan import Plan

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "Definition",
    "Equations",
    "Graph",
    "Node",
    "Param",
    "Plan",
    "check",
    "with_reset",
    "with_valid",
]
