"""Connections past a layer: its input beside what it makes of it. The recurrent state stays the cell's own."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError

KINDS = (False, True, "highway")


def shortcut_weights(kind: bool | str, size: int, device: Any, dtype: Any) -> dict[str, nn.Parameter]:
    """The weights of one layer's connection past it, for `size` features: none, or those of the highway's gate."""
    shapes = {"weight_highway": (size, size), "bias_highway": (size,)} if kind == "highway" else {}
    return {name: nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) for name, shape in shapes.items()}


@torch.no_grad()
def start_shortcut(weights: Mapping[str, Tensor]) -> None:
    """First values of a highway's gate: a bias of -1, so that most of the input passes (Srivastava et al. 2015)."""
    if not weights:
        return
    weights["weight_highway"].uniform_(-(bound := 1 / math.sqrt(len(weights["bias_highway"]))), bound)
    weights["bias_highway"].fill_(-1.0)


def shortcut(
    kind: bool | str, weights: Mapping[str, Tensor], x: Tensor, output: Tensor, valid: Tensor | None
) -> Tensor:
    """The output [T, B, n] of a layer together with its input x of the same size.

    True: output + x (He et al. 2016; Wu et al. 2016). "highway": t * output + (1 - t) * x with t = sigmoid(W x + b)
    (Srivastava, Greff & Schmidhuber 2015; not the recurrent highway of Zilly et al. 2017). Zero in the padding.
    """
    if not x.is_floating_point():
        x = F.one_hot(x if valid is None else x.where(valid, 0), output.shape[-1])
    x = x.to(output.dtype)
    if valid is not None:
        x = x.where(valid.unsqueeze(-1), 0.0)
    if kind is True:
        return output + x
    gate = torch.sigmoid(F.linear(x, weights["weight_highway"], weights["bias_highway"]))
    return x + gate.to(output.dtype) * (output - x)


def check_shortcuts(kind: bool | str, fits: list[bool]) -> None:
    """OptionError: no such kind, or no layer whose input and output have the same number of features."""
    if kind not in KINDS or (kind is not False and not isinstance(kind, (bool, str))):
        raise OptionError(f"got residual={kind!r}, expected True, False or 'highway'")
    if kind and not any(fits):
        raise OptionError(
            f"got residual={kind!r}, but no layer has as many features in its input as in its output, which is what "
            "it takes to add them; make the sizes equal, or take more layers"
        )
