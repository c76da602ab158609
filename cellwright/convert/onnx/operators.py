"""ONNX's own recurrent operators, and the cells of this package that compute the same.

    RNN    Elman with an activation that ONNX has
    LSTM   gates in the order i o f g, peepholes i o f
    GRU    gates in the order z r n; linear_before_reset is "reset after"

A coupled LSTM becomes a plain one whose input gate has the forget gate's weights with the opposite sign, as
1 - sigmoid(a) = sigmoid(-a). `input_forget` is not used: ONNX does not say which of the two gates it keeps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ... import cells
from ...lang import Definition, Equations

ORDER = {"RNN": ("h",), "LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n")}
PEEPHOLES = ("p_i", "p_o", "p_f")

# ONNX's name of an activation, with alpha and beta where it takes them.
ACTIVATIONS: dict[str, tuple[Any, ...]] = {
    "tanh": ("Tanh",),
    "relu": ("Relu",),
    "sigmoid": ("Sigmoid",),
    "identity": ("Affine", 1.0, 0.0),
    "elu": ("Elu", 1.0),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "leaky_relu": ("LeakyRelu", 0.01),
    "softplus": ("Softplus",),
    "softsign": ("Softsign",),
}


@dataclass(frozen=True)
class Operator:
    """An operator with attributes that make it compute what a cell does; `negated`: i has f's weights, negated."""

    op: Literal["RNN", "LSTM", "GRU"]
    attributes: dict[str, Any] = field(default_factory=dict)
    negated: bool = False


def operator_of(definition: Definition) -> Operator | None:
    """The operator whose equations are those of the cell, whatever class they come from; None if there is none."""
    params = definition.params
    bias: Any = True if "bias_hh" in params else "input" if "bias_ih" in params else False
    sizes = definition.sizes["input_size"], definition.sizes["hidden_size"]
    for cell, options, operator in _candidates(list(definition.states)):
        if definition.same_equations(cell(*sizes, bias=bias, **options).definition()):
            return operator
    return None


def _candidates(states: list[str]) -> Iterator[tuple[type[Equations], dict[str, Any], Operator]]:
    if states == ["h", "c"]:
        for peephole in (False, True):
            for coupled in (False, True):
                yield cells.LSTM, {"peephole": peephole, "coupled": coupled}, Operator("LSTM", negated=coupled)
    elif states == ["h"]:
        for after in (False, True):
            yield cells.GRU, {"reset_after": after}, Operator("GRU", {"linear_before_reset": int(after)})
        for name, (other, *numbers) in ACTIVATIONS.items():
            attributes = {"activations": [other]}
            for key, number in zip(("activation_alpha", "activation_beta"), numbers, strict=False):
                attributes[key] = [number]
            yield cells.Elman, {"activation": name}, Operator("RNN", attributes)


def weights_for(
    operator: Operator, definition: Definition, weights: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """One direction's weights in ONNX's layout: W [G*H, I], R [G*H, H], B [2*G*H] and P [3*H], if it has them."""
    params = definition.params

    def regrouped(name: str) -> NDArray[Any]:
        """The gates in ONNX's order."""
        param, weight = params[name], weights[name]
        parts = []
        for gate in ORDER[operator.op]:
            opposite = operator.negated and gate == "i"
            first, n = param.rows("f" if opposite else gate, definition.sizes)
            parts.append(-weight[first : first + n] if opposite else weight[first : first + n])
        return np.concatenate(parts)

    found = {"W": regrouped("weight_ih"), "R": regrouped("weight_hh")}
    if "bias_ih" in params:
        b = regrouped("bias_ih")
        found["B"] = np.concatenate([b, regrouped("bias_hh") if "bias_hh" in params else np.zeros_like(b)])
    if "p_f" in params:
        p = {**weights, "p_i": -weights["p_f"]} if operator.negated else weights
        found["P"] = np.concatenate([p[name] for name in PEEPHOLES])
    return found
