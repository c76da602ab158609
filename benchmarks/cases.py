"""One case: a layer of known weights and its input, computed by this package and by torch.nn, and compared."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import cellwright

from .timing import Call, once

KINDS = ("RNN", "LSTM", "GRU")  # RNN with tanh, GRU with the reset after the product: what torch.nn has
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the largest entry; bf16 has 8 bits, and 64 steps add up
TRIES = 3  # calls of each setting, of which the fastest is taken

Values = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Case:
    """A layer with I = H inputs, its weights by torch's names, x [T, B, I] and the gradient of its output [T, B, H]."""

    kind: str
    T: int
    B: int
    H: int
    weights: dict[str, Tensor]
    x: Tensor
    seed: Tensor

    @classmethod
    def random(cls, kind: str, T: int, B: int, H: int) -> "Case":
        """Torch's initial weights, normal inputs."""
        torch.manual_seed(0)
        weights = {k.removesuffix("_l0"): v.clone() for k, v in getattr(nn, kind)(H, H).state_dict().items()}
        return cls(kind, T, B, H, weights, torch.randn(T, B, H), torch.randn(T, B, H))

    def __str__(self) -> str:
        return f"{self.kind} B{self.B} H{self.H}"

    def numpy(self, name: str) -> np.ndarray[Any, Any]:
        """A weight, "x" or "seed" as an array."""
        tensor = getattr(self, name) if name in ("x", "seed") else self.weights[name]
        return np.ascontiguousarray(tensor.numpy())


@dataclass(frozen=True)
class Run:
    """A way to compute a case: `call` runs to its end, `read` turns what it gave into named arrays to be compared.

    The names: "output" [T, B, H] in inference; in training "x" [T, B, I], "weight_ih" [G*H, I], "weight_hh" [G*H, H]
    and "bias_ih" [G*H], the gradients.
    """

    setting: str
    call: Call
    read: Callable[[Any], Values]


def torch_runs(case: Case, training: bool, dtype: torch.dtype) -> list[Run]:
    """torch.nn at its settings: for bf16 under autocast and with weights of bf16."""
    runs = [_run("default", _layer(nn, case), case, training, _autocast(dtype))]
    if dtype != torch.float32:
        runs[0] = _run("autocast", _layer(nn, case), case, training, _autocast(dtype))
        runs.append(_run("weights of bf16", _layer(nn, case).to(dtype), case, training, nullcontext, dtype))
    return runs


def our_runs(case: Case, training: bool, dtype: torch.dtype) -> list[Run]:
    """This package; bf16 means autocast."""
    setting = "default" if dtype == torch.float32 else "autocast"
    return [_run(setting, _layer(cellwright, case), case, training, _autocast(dtype))]


def _layer(library: Any, case: Case) -> nn.Module:
    layer: nn.Module = getattr(library, case.kind)(case.H, case.H)
    layer.load_state_dict({f"{name}_l0": value for name, value in case.weights.items()}, strict=True)
    return layer


def _autocast(dtype: torch.dtype) -> Callable[[], AbstractContextManager[Any]]:
    return nullcontext if dtype == torch.float32 else partial(torch.autocast, "cpu", dtype)


def _run(
    setting: str,
    layer: nn.Module,
    case: Case,
    training: bool,
    context: Callable[[], AbstractContextManager[Any]],
    dtype: torch.dtype = torch.float32,
) -> Run:
    x, seed = case.x.to(dtype), case.seed
    if not training:
        return Run(setting, inference(layer, x, context), lambda output: {"output": output.float().numpy()})
    names = ["x", *(name.removesuffix("_l0") for name, _ in layer.named_parameters())]

    def read(gradients: Sequence[Tensor]) -> Values:
        return {n: g.float().numpy() for n, g in zip(names, gradients, strict=True)}

    return Run(setting, training_step(layer, x, seed, context), read)


def inference(
    layer: nn.Module, x: Tensor, context: Callable[[], AbstractContextManager[Any]] = nullcontext, **options: Any
) -> Callable[[], Tensor]:
    """The output of all steps, without what training would keep. `options` go to the layer's call."""

    @torch.inference_mode()
    def call() -> Tensor:
        with context():
            output: Tensor = layer(x, **options)[0]
            return output

    return call


def training_step(
    layer: nn.Module,
    x: Tensor,
    seed: Tensor,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    **options: Any,
) -> Callable[[], Sequence[Tensor]]:
    """Forward and backward: the gradients of x and of all weights, in this order. `options` go to the layer's call."""
    leaf = x.detach().clone().requires_grad_()
    wanted = [leaf, *layer.parameters()]

    def call() -> Sequence[Tensor]:
        with context():
            output = layer(leaf, **options)[0]
        return torch.autograd.grad(output, wanted, seed.to(output.dtype))

    return call


def check(name: str, got: Mapping[str, Any], want: Mapping[str, Any], bound: float) -> None:
    """No speed without this: SystemExit where `got` misses `want` by more than `bound` of its largest entry."""
    for key in sorted(want.keys() & got.keys()):
        a, b = (np.asarray(v.detach() if isinstance(v, Tensor) else v) for v in (got[key], want[key]))
        if a.shape != b.shape:
            raise SystemExit(f"{name}: {key} has the shape {a.shape}, expected {b.shape}; nothing was timed")
        error = float(np.abs(a - b).max() / max(1e-30, np.abs(b).max()))
        if not error <= bound:  # a NaN is no agreement
            raise SystemExit(
                f"{name}: {key} differs by {error:.1e} of its largest entry, more than {bound:.0e}; nothing was timed"
            )
    if missing := want.keys() - got.keys():
        raise SystemExit(f"{name}: gave no {', '.join(sorted(missing))} to compare; nothing was timed")


def reference(case: Case, training: bool) -> Values:
    """What torch.nn computes in float32, under the names that every library has."""
    run = torch_runs(case, training, torch.float32)[0]
    found = run.read(run.call())
    return {name: value for name, value in found.items() if name != "bias_hh"}


def fastest(name: str, runs: Sequence[Run], want: Values, bound: float) -> Run:
    """The quickest of some settings, each of them compared with `want` first."""
    seconds = []
    for run in runs:
        check(f"{name} ({run.setting})", run.read(run.call()), want, bound)
        seconds.append(min(once(run.call) for _ in range(TRIES)) if len(runs) > 1 else 0.0)
    return runs[seconds.index(min(seconds))]
