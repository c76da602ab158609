"""Rates, and the random masks drawn with them: by torch, so that a seed gives the same on every target."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...errors import OptionError
from ...lang import Definition

Kind = TypeVar("Kind")


def rate_of(name: str, value: Any) -> float:
    """`value` as a rate; OptionError unless it is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise OptionError(f"got {name}={value!r}, expected a rate in [0, 1)")
    return float(value)


def factor_of(name: str, value: Any) -> float:
    """`value` as the factor of a term of the loss; OptionError unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise OptionError(f"got {name}={value!r}, expected a number of at least 0")
    return float(value)


def wrapper_of(kind: type[Kind], name: str, value: Any) -> Kind | None:
    """`value` as a wrapper: one of its kind, or made from a rate; None for the rate 0."""
    if isinstance(value, kind):
        return value
    if isinstance(value, type) or not isinstance(value, Real):
        raise OptionError(f"got {name}={value!r}, expected a rate in [0, 1) or a {kind.__name__}")
    return kind(rate_of(name, value)) if rate_of(name, value) else None  # type: ignore[call-arg]


def check_names(what: str, names: Iterable[str], known: Iterable[str], definition: Definition) -> None:
    """OptionError unless all `names` are among the `known` ones of a cell."""
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(known) or "none"
        raise OptionError(f"got {what} for {unknown[0]!r} of {definition.name}, expected some of: {listed}")


def draw(rate: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """1 with the probability `rate`, else 0, in the dtype and on the device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(rate)


def kept(rate: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """What dropout multiplies with: 0 with the probability `rate`, else 1 / (1 - rate)."""
    return draw(1 - rate, shape, like).div_(1 - rate)


def kept_by_sequence(rate: float, shape: tuple[int, int, int], like: Tensor, reset: Tensor | None = None) -> Tensor:
    """The same mask at all steps of a sequence, [T, B, units]; `reset` [T, B]: true where a new sequence begins."""
    if reset is None:
        return kept(rate, (1, *shape[1:]), like).expand(shape)
    steps = torch.arange(shape[0], device=reset.device).unsqueeze(1)
    first = torch.where(reset, steps, 0).cummax(0).values  # the step at which each one's sequence began
    return kept(rate, shape, like).gather(0, first.unsqueeze(-1).expand(shape))
