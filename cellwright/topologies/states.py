"""The state of a recurrent layer, seen from outside: tensors [..., B, units] in tuples of any depth."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..nn import Recurrent

State: TypeAlias = Tensor | tuple["State", ...]


def map_state(function: Callable[..., Tensor], *states: Any) -> Any:
    """`function` of each tensor of a state, or of the tensors at the same place of several."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))


def tensors(state: Any) -> list[Tensor]:
    """The tensors of a state from left to right."""
    return [state] if isinstance(state, Tensor) else [t for part in state for t in tensors(part)]


def select(state: Any, rows: Tensor) -> Any:
    """The state of some rows of the batch, `rows` [N] of int64, in their order."""
    return map_state(lambda s: s.index_select(-2, rows), state)


def kept(valid: Tensor, after: Any, before: Any) -> Any:
    """The state after a step where the row is valid, [B] of bool, else the one before it."""
    return map_state(lambda a, b: torch.where(valid.unsqueeze(-1), a, b), after, before)


def zero_state(recurrent: Recurrent, B: int) -> Any:
    """The zero state of a layer, in the form of its results: the state after no step."""
    like = next(recurrent.parameters(), torch.empty(0))
    state = recurrent(like.new_zeros(0, B, recurrent.input_size))[1]
    return map_state(torch.Tensor.detach, state)
