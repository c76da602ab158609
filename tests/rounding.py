"""What rounding to float32 may do to a result: the same operations in float64, each with an error of its own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

UNIT = 2.0**-24  # of float32: half the distance of 1 to the next number
SAMPLES = 12  # at most: three numbers say less about the largest one that may come than three thousand
_SUMS = {"mm", "addmm", "bmm", "sum", "mean", "linear", "cumsum"}


class Rounding(TorchDispatchMode):
    """Float64, but whatever an operation gives is off by up to `units` roundings of float32, at random.

    A sum of k terms rounds k times; with errors independent of each other that is sqrt(k) roundings of its terms
    (Higham & Mary 2019). The way back through autograd is made of operations too.
    """

    def __init__(self, seed: int, units: float = 2.0) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        self._units = units

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _SUMS:
            args = tree_map(lambda v: self._off(v, terms=_terms(func, args)), args)
        result = func(*args, **(kwargs or {}))
        if any(r.alias_info is not None for r in func._schema.returns):
            return result  # a view, or in place
        return tree_map(self._off, result)

    def _off(self, value: Any, terms: float = 1.0) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            return value
        noise = torch.rand(value.shape, generator=self._generator, dtype=value.dtype)
        return value * (1 + (2 * noise - 1) * (self._units * UNIT * math.sqrt(terms)))


def _terms(func: Any, args: Any) -> float:
    """How many numbers are added for one number of the result, at most."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if func.overloadpacket.__name__ in ("mm", "addmm", "bmm"):
        return float(tensors[-1].shape[-2])
    return float(max(tensors[0].shape, default=1))


def assert_roundings(got: dict[str, Tensor], want: dict[str, Tensor], compute: Callable[[], dict[str, Tensor]]) -> None:
    """Values in float32 against those of `compute()` in float64, which are `want`.

    A few roundings of the largest number are always allowed; more, only where as many come about when each operation of
    `compute` is rounded: a bound that knows where a graph multiplies errors, such as in a layer norm of equal units.
    """
    sizes = {n: v.abs().max().item() if v.numel() else 0.0 for n, v in want.items()}
    error = {n: (got[n].double() - v).abs().max().item() if v.numel() else 0.0 for n, v in want.items()}
    if all(error[n] <= 4 * UNIT * sizes[n] for n in want):  # false for a NaN
        return
    assert all(got[n].shape == value.shape for n, value in want.items())
    off = dict.fromkeys(want, 0.0)  # by how much they differ when every operation rounds: the most, of some runs
    for seed in range(SAMPLES):
        with Rounding(seed):
            values = compute()
        off = {n: max(off[n], (v - want[n]).abs().max().item()) if v.numel() else 0.0 for n, v in values.items()}
        beyond = [n for n in want if not error[n] <= max(4 * UNIT * sizes[n], 2 * off[n])]
        if not beyond:
            return
    n = beyond[0]
    raise AssertionError(f"{n}: error {error[n]:.2e}, roundings explain {off[n]:.2e}")
