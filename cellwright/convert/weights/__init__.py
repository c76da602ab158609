"""Weights of layers as the arrays of other frameworks, and back: a file per framework, one mechanism.

blocks    arrays as the pieces of gates: a framework is a table of them
layers    layers of this package as pieces, and made of them
names     which array belongs to which layer and direction
"""

from .flax import from_flax, to_flax
from .keras import from_keras, to_keras
from .npz import npz, read_npz
from .tf1 import from_tf1, to_tf1
from .torch_nn import from_torch, to_torch

__all__ = [
    "from_flax",
    "from_keras",
    "from_tf1",
    "from_torch",
    "npz",
    "read_npz",
    "to_flax",
    "to_keras",
    "to_tf1",
    "to_torch",
]
