"""Each framework's cells as plain loops over time, written from its documentation, on arrays under its names.

x is [T, B, I], the result [T, B, P]; everything is float64. Names are those of one cell: kernel, bias, ...
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def over_time(
    x: Array, units: int, step: Callable[[Array, Array, Array], tuple[Array, Array]], output: int = 0
) -> Array:
    """Run `step(x, h, c) -> (h, c)` from zero states."""
    h, c = np.zeros((x.shape[1], output or units)), np.zeros((x.shape[1], units))
    outputs = []
    for now in x:
        h, c = step(now, h, c)
        outputs.append(h)
    return np.stack(outputs)


def keras_rnn(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return np.tanh(x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0.0)), c

    return over_time(x, len(w["recurrent_kernel"]), step)


def keras_lstm(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i, f, g, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0.0), 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return over_time(x, len(w["recurrent_kernel"]), step)


def keras_gru(x: Array, w: Weights) -> Array:
    H = len(w["recurrent_kernel"])
    bias = w.get("bias", np.zeros((2, 3 * H)))

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        if bias.ndim == 2:  # reset_after
            z, r, n = np.split(x @ w["kernel"] + bias[0], 3, -1)
            h_z, h_r, h_n = np.split(h @ w["recurrent_kernel"] + bias[1], 3, -1)
            z, r = sigmoid(z + h_z), sigmoid(r + h_r)
            n = np.tanh(n + r * h_n)
        else:
            z, r, n = np.split(x @ w["kernel"] + bias, 3, -1)
            R_z, R_r, R_n = np.split(w["recurrent_kernel"], 3, -1)
            z, r = sigmoid(z + h @ R_z), sigmoid(r + h @ R_r)
            n = np.tanh(n + (r * h) @ R_n)
        return z * h + (1 - z) * n, c

    return over_time(x, H, step)


def tf1_rnn(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return np.tanh(np.concatenate([x, h], -1) @ w["kernel"] + w["bias"]), c

    return over_time(x, len(w["bias"]), step)


def tf1_lstm(x: Array, w: Weights, forget_bias: float = 1.0) -> Array:
    units = len(w["bias"]) // 4
    p_i, p_f, p_o = (w.get(f"w_{gate}_diag", 0.0) for gate in "ifo")
    projection = w.get("projection/kernel")

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i, j, f, o = np.split(np.concatenate([x, h], -1) @ w["kernel"] + w["bias"], 4, -1)
        c = sigmoid(f + forget_bias + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(j)
        m = sigmoid(o + p_o * c) * np.tanh(c)
        return (m if projection is None else m @ projection), c

    return over_time(x, units, step, 0 if projection is None else projection.shape[1])


def tf1_gru(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        r, u = np.split(sigmoid(np.concatenate([x, h], -1) @ w["gates/kernel"] + w["gates/bias"]), 2, -1)
        n = np.tanh(np.concatenate([x, r * h], -1) @ w["candidate/kernel"] + w["candidate/bias"])
        return u * h + (1 - u) * n, c

    return over_time(x, len(w["candidate/bias"]), step)


def flax_rnn(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return np.tanh(x @ w["i/kernel"] + w["i/bias"] + h @ w["h/kernel"]), c

    return over_time(x, len(w["h/kernel"]), step)


def flax_lstm(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i, f, g, o = (x @ w[f"i{k}/kernel"] + h @ w[f"h{k}/kernel"] + w[f"h{k}/bias"] for k in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return over_time(x, len(w["hi/kernel"]), step)


def flax_gru(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        r = sigmoid(x @ w["ir/kernel"] + w["ir/bias"] + h @ w["hr/kernel"])
        z = sigmoid(x @ w["iz/kernel"] + w["iz/bias"] + h @ w["hz/kernel"])
        n = np.tanh(x @ w["in/kernel"] + w["in/bias"] + r * (h @ w["hn/kernel"] + w["hn/bias"]))
        return (1 - z) * n + z * h, c

    return over_time(x, len(w["hr/kernel"]), step)


def nnx_rnn(x: Array, w: Weights) -> Array:
    return flax_rnn(x, {name.removeprefix("dense_"): value for name, value in w.items()})


def nnx_lstm(x: Array, w: Weights) -> Array:
    """The names of OptimizedLSTMCell."""
    named = {"kernel": w["dense_i/kernel"], "recurrent_kernel": w["dense_h/kernel"], "bias": w["dense_h/bias"]}
    return keras_lstm(x, named)


def nnx_gru(x: Array, w: Weights) -> Array:
    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        r, z, n = np.split(x @ w["dense_i/kernel"] + w["dense_i/bias"], 3, -1)
        h_r, h_z, h_n = np.split(h @ w["dense_h/kernel"], 3, -1)
        r, z = sigmoid(r + h_r), sigmoid(z + h_z)
        return (1 - z) * np.tanh(n + r * h_n) + z * h, c

    return over_time(x, len(w["dense_h/kernel"]), step)
