"""The weights of a cell as torch parameters: making them and giving them their first values."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..lang import Definition, Param


def weights_of(module: nn.Module, definition: Definition, suffix: str = "") -> dict[str, Tensor]:
    """The weights of a cell by their names, also where parametrisations or replicas hold them in another way."""
    return {name: getattr(module, name + suffix) for name in definition.params}


def new_parameters(
    definition: Definition, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, nn.Parameter]:
    """Uninitialised parameters, by their names in the definition. OptionError: a dtype that is not floating."""
    if dtype is not None and (not isinstance(dtype, torch.dtype) or not dtype.is_floating_point):
        raise OptionError(f"got dtype={dtype!r} for the weights, expected a floating dtype such as torch.float32")
    return {
        name: nn.Parameter(torch.empty(param.shape(definition.sizes), device=device, dtype=dtype))
        for name, param in definition.params.items()
    }


def whole(definition: Definition, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights as targets take them: matrices of several heads with the zeros outside of their blocks.

    The only place that knows of them; gradients come back to the blocks through torch's autograd.
    """
    blocks = {name: param for name, param in definition.params.items() if param.heads > 1}
    return {**weights, **{name: _with_zeros(param, weights[name], definition.sizes) for name, param in blocks.items()}}


def _with_zeros(param: Param, weight: Tensor, sizes: dict[str, int]) -> Tensor:
    """[sum of the slices, source] from [sum of the slices, source / heads]."""
    slices = [weight.narrow(0, *param.rows(part, sizes)) for part in param.slices]
    return torch.cat([torch.block_diag(*rows.chunk(param.heads)) for rows in slices])  # type: ignore[no-untyped-call]


@torch.no_grad()
def initialise(definition: Definition, weights: Mapping[str, Tensor]) -> None:
    """U(-1/sqrt(H), 1/sqrt(H)), as in torch.nn, plus what the equations add to the start of single slices.

    weights: those to start, by name.
    """
    bound = 1 / math.sqrt(definition.sizes["hidden_size"])
    for name, weight in weights.items():
        param = definition.params[name]
        if param.random:
            weight.uniform_(-bound, bound)
        else:
            weight.zero_()
        for part, start in param.starts.items():
            first, rows = param.rows(part, definition.sizes)
            weight.narrow(0, first, rows).add_(start)
