"""The functions that equations are written with: the operations of the table, and what is composed of them.

Each takes symbols of a step, or groups of them, or plain numbers. `ACTIVATIONS` names those that a cell may take as
an activation.
"""

import math
from typing import Any

from .ops import apply


def tanh(a: Any) -> Any:
    """Hyperbolic tangent."""
    return apply("tanh", a)


def sigmoid(a: Any) -> Any:
    """Logistic function 1 / (1 + exp(-a))."""
    return apply("sigmoid", a)


def relu(a: Any) -> Any:
    """max(a, 0), with derivative 0 at 0."""
    return apply("relu", a)


def softplus(a: Any) -> Any:
    """log(1 + exp(a))."""
    return apply("softplus", a)


def exp(a: Any) -> Any:
    """Exponential function."""
    return apply("exp", a)


def log(a: Any) -> Any:
    """Natural logarithm."""
    return apply("log", a)


def sqrt(a: Any) -> Any:
    """Square root."""
    return apply("sqrt", a)


def sign(a: Any) -> Any:
    """-1, 0 or 1; no gradient flows."""
    return apply("sign", a)


def sin(a: Any) -> Any:
    """Sine."""
    return apply("sin", a)


def cos(a: Any) -> Any:
    """Cosine."""
    return apply("cos", a)


def erf(a: Any) -> Any:
    """Error function."""
    return apply("erf", a)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values; at a tie each gets half of the gradient."""
    return apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values; at a tie each gets half of the gradient."""
    return apply("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition (such as `x < y`) is not zero, else `b`; no gradient flows through the condition."""
    return apply("where", condition, a, b)


def sum_units(a: Any) -> Any:
    """The sum over the units: one number per row, which spreads over the units again where it meets a vector."""
    return apply("sum", a)


def identity(a: Any) -> Any:
    """The value itself."""
    return a


def clamp(a: Any, low: float, high: float) -> Any:
    """`a`, limited to [low, high]."""
    return minimum(maximum(a, low), high)


def hard_tanh(a: Any) -> Any:
    """`a`, limited to [-1, 1]."""
    return clamp(a, -1.0, 1.0)


def hard_sigmoid(a: Any) -> Any:
    """a / 6 + 1/2, limited to [0, 1] (torch's and Keras 3's; ONNX's default slope is 0.2)."""
    return clamp(a / 6.0 + 0.5, 0.0, 1.0)


def leaky_relu(a: Any, slope: float = 0.01) -> Any:
    """`a` where positive, else slope * a (Maas et al. 2013)."""
    return relu(a) - slope * relu(-a)


def elu(a: Any, alpha: float = 1.0) -> Any:
    """`a` where positive, else alpha * (exp(a) - 1) (Clevert et al. 2016)."""
    return relu(a) + alpha * (exp(minimum(a, 0.0)) - 1.0)


def selu(a: Any) -> Any:
    """Scaled elu that keeps mean and variance (Klambauer et al. 2017)."""
    return 1.0507009873554805 * elu(a, 1.6732632423543772)


def silu(a: Any) -> Any:
    """a * sigmoid(a), also called swish."""
    return a * sigmoid(a)


def gelu(a: Any) -> Any:
    """a * Phi(a), with the exact normal distribution function (Hendrycks & Gimpel 2016)."""
    return 0.5 * a * (1.0 + erf(a / math.sqrt(2.0)))


def softsign(a: Any) -> Any:
    """a / (1 + |a|)."""
    return a / (1.0 + abs(a))


ACTIVATIONS = {
    "tanh": tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "identity": identity,
    "elu": elu,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_tanh": hard_tanh,
    "leaky_relu": leaky_relu,
    "selu": selu,
    "silu": silu,
    "sin": sin,
    "softplus": softplus,
    "softsign": softsign,
}
