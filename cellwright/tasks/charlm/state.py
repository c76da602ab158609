"""The state of a recurrent layer, seen from outside: a tensor or a tuple of such, to any depth."""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

State: TypeAlias = Tensor | tuple["State", ...]


def detach(state: State) -> State:
    """The same values without their history: where truncated back-propagation through time is truncated."""
    return state.detach() if isinstance(state, Tensor) else tuple(detach(part) for part in state)


def flatten(state: State, name: str = "state") -> dict[str, Tensor]:
    """The tensors by their place: `state` itself, or `state.0`, `state.1.0`, ..."""
    if isinstance(state, Tensor):
        return {name: state}
    return {key: t for i, part in enumerate(state) for key, t in flatten(part, f"{name}.{i}").items()}


def unflatten(tensors: Mapping[str, Tensor], name: str = "state") -> State:
    """The state whose `flatten` is `tensors`. KeyError: there is none."""
    if name in tensors:
        return tensors[name]
    parts = sorted({int(key[len(name) + 1 :].split(".")[0]) for key in tensors if key.startswith(f"{name}.")})
    if not parts:
        raise KeyError(name)
    return tuple(unflatten(tensors, f"{name}.{i}") for i in parts)
