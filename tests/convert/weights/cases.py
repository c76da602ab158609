"""One row per convention: the shapes of a cell's arrays, its loop, and the two functions that convert it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellwright import GRU, LSTM, RNN, Recurrent, convert

from . import loops

Array = NDArray[Any]
I, H, P, T, B = 3, 5, 4, 7, 2


@dataclass(frozen=True)
class Case:
    """`shapes` of the arrays of one cell; `load` and `save` ours; `layer` makes a layer that `save` can convert."""

    name: str
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]]
    loop: Callable[..., Array]
    load: Callable[..., Recurrent]
    cell: str
    save: Callable[..., dict[str, Any]]
    layer: Callable[..., Recurrent]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def arrays(self, inputs: int = I, hidden: int = H, dtype: str = "float64") -> dict[str, Array]:
        """Random arrays of one cell."""
        rng = np.random.default_rng(hidden * 100 + inputs)
        return {
            name: rng.uniform(-0.8, 0.8, shape).astype(dtype) for name, shape in self.shapes(inputs, hidden).items()
        }


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Array]:
    """A tree of Flax by names with "/"."""
    found: dict[str, Array] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def own_names(arrays: dict[str, Array], names: Any) -> dict[str, Array]:
    """Arrays of one cell under the names of the cell: what a longer name ends with."""
    found = {}
    for name, value in arrays.items():
        (short,) = [n for n in sorted(names, key=len) if name == n or name.endswith(f"/{n}")][-1:]
        found[short] = value
    return found


def randomise(layer: Recurrent) -> Recurrent:
    """Random weights and biases, larger than the initial ones."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.rand(weight.shape, generator=generator, dtype=torch.float64) * 1.6 - 0.8)
    return layer


def keras(gates: int, *bias: int) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    def shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {"kernel": (i, gates * h), "recurrent_kernel": (h, gates * h)}
        return found | ({"bias": (*bias[:-1], bias[-1] * h)} if bias else {})

    return shapes


def tf1_lstm(peephole: bool, project: bool) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    def shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
        p = h - 2 if project else h
        found: dict[str, tuple[int, ...]] = {"kernel": (i + p, 4 * h), "bias": (4 * h,)}
        found |= {f"w_{gate}_diag": (h,) for gate in "ifo"} if peephole else {}
        return found | ({"projection/kernel": (h, p)} if project else {})

    return shapes


def tf1_rnn(i: int, h: int) -> dict[str, tuple[int, ...]]:
    return {"kernel": (i + h, h), "bias": (h,)}


def tf1_gru(i: int, h: int) -> dict[str, tuple[int, ...]]:
    kernels = {"gates/kernel": (i + h, 2 * h), "candidate/kernel": (i + h, h)}
    return {**kernels, "gates/bias": (2 * h,), "candidate/bias": (h,)}


def flax(gates: str, *biases: str) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    def shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {f"{place}/bias": (h,) for place in biases}
        found |= {f"i{gate}/kernel": (i, h) for gate in gates.split(",")}
        return found | {f"h{gate}/kernel": (h, h) for gate in gates.split(",")}

    return shapes


def nnx(gates: int, side: str) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    def shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
        kernels = {"dense_i/kernel": (i, gates * h), "dense_h/kernel": (h, gates * h)}
        return {**kernels, f"dense_{side}/bias": (gates * h,)}

    return shapes


def to_nnx(layer: Recurrent) -> dict[str, Any]:
    return convert.to_flax(layer, variant="nnx")


KERAS = (convert.from_keras, convert.to_keras)
TF1 = (convert.from_tf1, convert.to_tf1)
FLAX = (convert.from_flax, convert.to_flax)
BEFORE = {"reset_after": False}


def gru_before(*sizes: int, **options: Any) -> Recurrent:
    return GRU(*sizes, reset_after=False, **options)


def peephole(*sizes: int, **options: Any) -> Recurrent:
    return LSTM(*sizes, peephole=True, **options)


def projected(*sizes: int, **options: Any) -> Recurrent:
    return LSTM(*sizes, peephole=True, proj_size=sizes[1] - 2, **options)


def one_bias(*sizes: int, **options: Any) -> Recurrent:
    return GRU(*sizes, bias="input", **options)


def _case(name: str, shapes: Any, loop: Any, pair: Any, cell: str, layer: Any, **options: Any) -> Case:
    return Case(name, shapes, loop, pair[0], cell, pair[1], layer, options)


CASES = [
    _case("keras-rnn", keras(1, 1), loops.keras_rnn, KERAS, "rnn", RNN),
    _case("keras-lstm", keras(4, 4), loops.keras_lstm, KERAS, "lstm", LSTM),
    _case("keras-gru", keras(3, 2, 3), loops.keras_gru, KERAS, "gru", GRU),
    _case("keras-gru-before", keras(3, 3), loops.keras_gru, KERAS, "gru", gru_before, **BEFORE),
    _case("tf1-rnn", tf1_rnn, loops.tf1_rnn, TF1, "rnn", RNN),
    _case("tf1-lstm", tf1_lstm(False, False), loops.tf1_lstm, TF1, "BasicLSTMCell", LSTM),
    _case("tf1-peephole", tf1_lstm(True, False), loops.tf1_lstm, TF1, "LSTMCell", peephole),
    _case("tf1-projection", tf1_lstm(True, True), loops.tf1_lstm, TF1, "lstm", projected),
    _case("tf1-gru", tf1_gru, loops.tf1_gru, TF1, "gru", gru_before),
    _case("flax-rnn", flax("", "i"), loops.flax_rnn, FLAX, "rnn", RNN),
    _case("flax-lstm", flax("i,f,g,o", "hi", "hf", "hg", "ho"), loops.flax_lstm, FLAX, "lstm", LSTM),
    _case("flax-gru", flax("r,z,n", "ir", "iz", "in", "hn"), loops.flax_gru, FLAX, "gru", GRU),
    _case("nnx-rnn", nnx(1, "i"), loops.nnx_rnn, (FLAX[0], to_nnx), "rnn", RNN),
    _case("nnx-lstm", nnx(4, "h"), loops.nnx_lstm, (FLAX[0], to_nnx), "OptimizedLSTMCell", LSTM),
    _case("nnx-gru", nnx(3, "i"), loops.nnx_gru, (FLAX[0], to_nnx), "gru", one_bias),
]
