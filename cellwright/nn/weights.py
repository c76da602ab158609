"""The weights of a cell as torch parameters: making them and giving them their first values."""

import math

import torch
from torch import nn

from ..lang import Definition


def new_parameters(
    definition: Definition, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, nn.Parameter]:
    """Uninitialised parameters, by their names in the definition."""
    return {
        name: nn.Parameter(torch.empty(param.shape(definition.sizes), device=device, dtype=dtype))
        for name, param in definition.params.items()
    }


@torch.no_grad()
def initialise(definition: Definition, weights: dict[str, nn.Parameter]) -> None:
    """U(-1/sqrt(H), 1/sqrt(H)), as in torch.nn, plus what the equations add to the start of single slices."""
    bound = 1 / math.sqrt(definition.sizes["hidden_size"])
    for name, param in definition.params.items():
        weight = weights[name]
        if param.random:
            weight.uniform_(-bound, bound)
        else:
            weight.zero_()
        for part, start in param.starts.items():
            first, rows = param.rows(part, definition.sizes)
            weight.narrow(0, first, rows).add_(start)
