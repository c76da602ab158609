"""Sequences as a topology is given them, checked."""

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.sequences import without_padding


def sequence(x: Any, owner: str) -> Tensor:
    """`x`, which must be a tensor [T, B, ...]."""
    if not isinstance(x, Tensor) or x.dim() < 2:
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"got an input of {got} for {owner}, expected a tensor [T, B, ...]")
    return x


def one_step(x: Any, owner: str) -> Tensor:
    """`x` [B, ...] as a sequence of one step, [1, B, ...]."""
    if not isinstance(x, Tensor) or not x.dim():
        got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"got an input of {got} for {owner}, expected a tensor [B, ...] without time")
    return x.unsqueeze(0)


def batched(x: Tensor, owner: str) -> Tensor:
    """`x`, which must be what a layer takes as a batch: numbers [T, B, I] or integers [T, B]."""
    if x.dim() != (3 if x.is_floating_point() else 2):
        raise InputError(
            f"got an input of shape {list(x.shape)} and dtype {x.dtype} for the layer of {owner}, expected numbers "
            "[T, B, I] or integers [T, B]; a single sequence is a batch of one: x.unsqueeze(1)"
        )
    return x


def symbols(ids: Any, valid: Tensor | None, count: int, what: str) -> Tensor:
    """`ids` [T, B] as int64, zeros in the padding. InputError: other shapes and dtypes, ids outside of 0 to V - 1."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        got = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"got {got} as {what}, expected integers [T, B]")
    made: Tensor = ids.long() if valid is None else without_padding(ids.long(), valid)
    if torch.compiler.is_compiling() or not made.numel():
        return made
    wrong = (made < 0) | (made >= count)
    if wrong.any():
        raise InputError(f"got the symbol {int(made[wrong][0])} in {what}, expected 0 to {count - 1}")
    return made
