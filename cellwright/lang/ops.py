"""The closed list of operations: one row each, with its meaning on plain numbers and its derivative.

A row of values is one sequence of the batch: elementwise operations act on each unit alone, row operations (`sum`,
`spread`) on all units of a row. A derivative rule takes the gradient `g` of the result, the result `y` and the
arguments, and gives one gradient per argument, written with the same operations (None: no gradient flows). A rule
sees whatever `apply` accepts, so it builds graphs from symbols and gives numbers from numbers.

Targets spell each operation in a table of their own; a test fails for a target that lacks one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from ..errors import CellError


@dataclass(frozen=True)
class Op:
    """One row of the table.

    `kind`: "elementwise"; "sum" takes a row to one number, "spread" takes one number to a row.
    """

    name: str
    arity: int
    meaning: Callable[..., float]
    derivative: Callable[..., tuple[Any, ...]]
    kind: Literal["elementwise", "sum", "spread"] = "elementwise"


def apply(name: str, *args: Any) -> Any:
    """Apply the operation `name`: to symbols (grows their graph), to groups of them, or to plain numbers."""
    for a in args:
        if hasattr(type(a), "apply_op"):
            return a.apply_op(name, args)
    for a in args:
        if not isinstance(a, Real):
            raise CellError(
                f"{name}() got a {type(a).__name__}, expected the symbols that a cell's step works on, or numbers; "
                "for tensors use the function of the same name in torch"
            )
    return OPS[name].meaning(*map(float, args))


def _sigmoid(a: float) -> float:
    return 1 / (1 + _exp(-a)) if a >= 0 else (e := _exp(a)) / (1 + e)


def _exp(a: float) -> float:
    return math.exp(a) if not a > 709.7 else math.inf


def _div(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _pick(a: float, b: float, first: bool) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else (a if first else b)


def _sign(a: float) -> float:
    return math.nan if math.isnan(a) else float((a > 0) - (a < 0))


def _share(g: Any, a: Any, b: Any) -> Any:
    """The part of g that goes to a in maximum(a, b): all, none, or half at a tie."""
    return g * (0.5 + 0.5 * apply("sign", a - b))


ROWS = (
    Op("add", 2, lambda a, b: a + b, lambda g, y, a, b: (g, g)),
    Op("sub", 2, lambda a, b: a - b, lambda g, y, a, b: (g, -g)),
    Op("mul", 2, lambda a, b: a * b, lambda g, y, a, b: (g * b, g * a)),
    Op("div", 2, _div, lambda g, y, a, b: (g / b, -g * y / b)),
    Op("neg", 1, lambda a: -a, lambda g, y, a: (-g,)),
    Op("maximum", 2, lambda a, b: _pick(a, b, a >= b), lambda g, y, a, b: (_share(g, a, b), _share(g, b, a))),
    Op("minimum", 2, lambda a, b: _pick(a, b, a <= b), lambda g, y, a, b: (_share(g, b, a), _share(g, a, b))),
    Op("less", 2, lambda a, b: float(a < b), lambda g, y, a, b: (None, None)),
    Op(
        "where",
        3,
        lambda c, a, b: a if c else b,
        lambda g, y, c, a, b: (None, apply("where", c, g, 0.0), apply("where", c, 0.0, g)),
    ),
    Op("tanh", 1, math.tanh, lambda g, y, a: (g * (1 - y * y),)),
    Op("sigmoid", 1, _sigmoid, lambda g, y, a: (g * (y * (1 - y)),)),
    Op("relu", 1, lambda a: _pick(a, 0.0, a > 0), lambda g, y, a: (apply("where", apply("less", 0.0, a), g, 0.0),)),
    Op(
        "softplus",
        1,
        lambda a: max(a, 0.0) + math.log1p(_exp(-abs(a))) if a == a else a,
        lambda g, y, a: (g * apply("sigmoid", a),),
    ),
    Op("exp", 1, _exp, lambda g, y, a: (g * y,)),
    Op(
        "log",
        1,
        lambda a: math.log(a) if a > 0 else (-math.inf if a == 0 else math.nan),
        lambda g, y, a: (g / a,),
    ),
    Op("sqrt", 1, lambda a: math.sqrt(a) if a >= 0 else math.nan, lambda g, y, a: (g / (2 * y),)),
    Op("abs", 1, abs, lambda g, y, a: (g * apply("sign", a),)),
    Op("sign", 1, _sign, lambda g, y, a: (None,)),
    Op("sin", 1, lambda a: math.sin(a) if math.isfinite(a) else math.nan, lambda g, y, a: (g * apply("cos", a),)),
    Op("cos", 1, lambda a: math.cos(a) if math.isfinite(a) else math.nan, lambda g, y, a: (-g * apply("sin", a),)),
    Op("erf", 1, math.erf, lambda g, y, a: (g * (2 / math.sqrt(math.pi)) * apply("exp", -(a * a)),)),
    Op("sum", 1, lambda a: a, lambda g, y, a: (a.spread_like(g),), kind="sum"),
    Op("spread", 1, lambda a: a, lambda g, y, a: (apply("sum", g),), kind="spread"),
)

OPS = {row.name: row for row in ROWS}
