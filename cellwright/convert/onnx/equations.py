"""The equations of ONNX's recurrent operators with every attribute, for those that the plain cells do not cover."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ... import cells
from ...errors import DataError
from ...lang import Equations
from ...lang.functions import clamp, elu, leaky_relu, relu, sigmoid, softplus, softsign, tanh, where
from ..limits import one_line
from .operators import ACTIVATIONS

# Every activation of the operators, with the values of alpha and beta where the model gives none: those of ONNX's
# operators of the same name. There are none named Affine and ScaledTanh, so these must be told.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[float | None, ...]]] = {
    "Relu": (relu, ()),
    "Tanh": (tanh, ()),
    "Sigmoid": (sigmoid, ()),
    "Softsign": (softsign, ()),
    "Softplus": (softplus, ()),
    "Elu": (elu, (1.0,)),
    "LeakyRelu": (leaky_relu, (0.01,)),
    "ThresholdedRelu": (lambda a, alpha: where(alpha < a, a, 0.0), (1.0,)),
    "Affine": (lambda a, alpha, beta: alpha * a + beta, (None, None)),
    "ScaledTanh": (lambda a, alpha, beta: alpha * tanh(beta * a), (None, None)),
    "HardSigmoid": (lambda a, alpha, beta: clamp(alpha * a + beta, 0.0, 1.0), (0.2, 0.5)),
}
_DEFAULTS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


class Clipped(Equations):
    """What the operators have in common: activations by name ("HardSigmoid 0.2 0.5"), and a limit to their arguments.

    Options:
        clip: gates are limited to [-clip, clip] before their activation; 0: they are not. h(c) of an LSTM is not
            limited, as in ONNX Runtime.
    """

    clip = 0.0

    def act(self, activation: str, a: Any, clip: bool = True) -> Any:
        """The activation of a gate."""
        name, *numbers = activation.split()
        return _FUNCTIONS[name][0](clamp(a, -self.clip, self.clip) if clip and self.clip else a, *map(float, numbers))


class OnnxRNN(Clipped):
    """h_t = f(W x_t + b + R h_{t-1} + b')"""

    states = "h"
    f = "Tanh"

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        return self.act(self.f, self.linear("h", x) + self.linear("h", h))


class OnnxLSTM(Clipped):
    """i, f, o = f(W x_t + b + R h_{t-1} + b'),  g = g(...),  c_t = f c_{t-1} + i g,  h_t = o h(c_t)

    Options:
        peephole: i and f also see c_{t-1}, o sees c_t.
        coupled: f = 1 - i, and no weights for f (`input_forget`).
    """

    states = ("h", "c")
    f = "Sigmoid"
    g = "Tanh"
    h = "Tanh"
    peephole = False
    coupled = False

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the next hidden state and cell state."""

        def peep(name: str, c: Any) -> Any:
            return self.scale(name, c) if self.peephole else 0

        names = "i g o" if self.coupled else "i f g o"
        gates = dict(zip(names.split(), self.linear(names, x) + self.linear(names, h), strict=True))
        i = self.act(self.f, gates["i"] + peep("p_i", c))
        f = 1 - i if self.coupled else self.act(self.f, gates["f"] + peep("p_f", c))
        c = f * c + i * self.act(self.g, gates["g"])
        o = self.act(self.f, gates["o"] + peep("p_o", c))
        return o * self.act(self.h, c, clip=False), c


class OnnxGRU(Clipped):
    """r, z = f(W x_t + b + R h_{t-1} + b'),  n = g(...),  h_t = (1 - z) n + z h_{t-1}

    Options:
        reset_after: n sees r (R_n h + b'_n), else R_n (r h) + b'_n (`linear_before_reset`).
    """

    states = "h"
    f = "Sigmoid"
    g = "Tanh"
    reset_after = False

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        x_r, x_z, x_n = self.linear("r z n", x)
        h_r, h_z, *h_n = self.linear("r z n" if self.reset_after else "r z", h)
        r, z = self.act(self.f, x_r + h_r), self.act(self.f, x_z + h_z)
        n = self.act(self.g, x_n + (r * h_n[0] if self.reset_after else self.linear("n", r * h)))
        return (1 - z) * n + z * h


def activations(op: str, attributes: Mapping[str, Any], directions: int, place: str) -> list[tuple[str, ...]]:
    """The activations of each direction, with their numbers, from a node's attributes."""
    default = _DEFAULTS[op]
    names = attributes.get("activations") or list(default) * directions
    if len(names) != len(default) * directions:
        raise DataError(
            f"{place}, attribute 'activations': got {len(names)}, expected {len(default)} for each of {directions} "
            "direction(s)"
        )
    known = {name.lower(): name for name in _FUNCTIONS}
    alphas, betas = (iter(attributes.get(f"activation_{k}") or ()) for k in ("alpha", "beta"))
    found = []
    for name in names:
        if name.lower() not in known:
            got, all_ = one_line(name, 40), ", ".join(_FUNCTIONS)
            raise DataError(f"{place}, attribute 'activations': got {got!r}, expected some of {all_}")
        name = known[name.lower()]
        words = [name]
        for key, given, usual in zip(("alpha", "beta"), (alphas, betas), _FUNCTIONS[name][1], strict=False):
            number = next(given, usual)
            if number is None:
                raise DataError(f"{place}, attribute 'activation_{key}': it has no value for {name}, which needs one")
            words.append(repr(float(number)))
        found.append(" ".join(words))
    _nothing_left(alphas, f"{place}, attribute 'activation_alpha'")
    _nothing_left(betas, f"{place}, attribute 'activation_beta'")
    n = len(default)
    return [tuple(found[d * n : (d + 1) * n]) for d in range(directions)]


def _nothing_left(numbers: Iterator[float], what: str) -> None:
    if next(numbers, None) is not None:
        raise DataError(f"{what}: got more values than the activations take")


def cell_for(
    op: str, acts: tuple[str, ...], attributes: Mapping[str, Any], sizes: tuple[int, int], bias: bool, peephole: bool
) -> Equations:
    """The cell of one direction of a node: a plain one of `cells` where its equations suffice."""
    clip, coupled = float(attributes.get("clip", 0.0)), bool(attributes.get("input_forget", 0))
    after = bool(attributes.get("linear_before_reset", 0))
    usual = not clip and not coupled and acts == _DEFAULTS[op]
    if op == "LSTM":
        if usual:
            return cells.LSTM(*sizes, bias=bias, peephole=peephole)
        f, g, h = acts
        return OnnxLSTM(*sizes, bias=bias, clip=clip, f=f, g=g, h=h, peephole=peephole, coupled=coupled)
    if op == "GRU":
        if usual:
            return cells.GRU(*sizes, bias=bias, reset_after=after)
        return OnnxGRU(*sizes, bias=bias, clip=clip, f=acts[0], g=acts[1], reset_after=after)
    for name, (other, *numbers) in ACTIVATIONS.items():
        if not clip and acts[0] == " ".join((other, *map(repr, numbers))):
            return cells.Elman(*sizes, bias=bias, activation=name)
    return OnnxRNN(*sizes, bias=bias, clip=clip, f=acts[0])
