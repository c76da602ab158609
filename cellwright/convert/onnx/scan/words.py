"""The operators of ONNX that the language of cells has words for, and which words."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ....lang import functions as f
from ....lang.ops import apply
from ....lang.trace import Symbol, standardised
from ..file import TYPES
from .values import ForeignError, Matrix, Product, Value, Vector, Whole, Words, finite


def call(words: Words, op: str, given: list[Any], attributes: Mapping[str, Any], rank: int, outputs: int) -> list[Any]:
    """The outputs of a node whose values have `rank` dimensions, the last one the units'.

    ForeignError: there are no words for it.
    """
    if op in _OWN:
        found = _OWN[op](words, given, {**attributes, "rank": rank, "outputs": outputs})
        return found if isinstance(found, list) else [found]
    if op not in _EACH or not given or not all(isinstance(v, Value) for v in given):
        raise ForeignError(f"the operator {op}")
    function, known, truths = _EACH[op]
    if not attributes.keys() <= set(known) or any(v.truth and k not in truths for k, v in enumerate(given)):
        raise ForeignError(f"the operator {op}")
    return [words.each(lambda *a: function(*a, **attributes), *given, truth=op in _TRUTHS)]


def _add(a: Any, b: Any) -> Any:
    """a + b; max(a, 0) + log(1 + exp(-|a|)) is the softplus of a, also in its derivative at 0."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Symbol) and isinstance(other, Symbol):
            node = one.graph.nodes[one.index]
            if node.op == "relu" and other.graph.nodes[other.index].op == "log":
                inner = Symbol(one.graph, node.args[0])
                if (f.log(f.exp(-abs(inner)) + 1.0)).index == other.index:
                    return f.softplus(inner)
    return a + b


def _max(a: Any, b: Any) -> Any:
    if isinstance(b, float) and b == 0 and isinstance(a, Symbol):
        return f.relu(a)
    return f.relu(b) if isinstance(a, float) and a == 0 and isinstance(b, Symbol) else f.maximum(a, b)


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def fold(first: Any, *rest: Any) -> Any:
        for other in rest:
            first = function(first, other)
        return first

    return fold


def _gelu(a: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return f.gelu(a)
    return 0.5 * a * (1.0 + f.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a * a * a)))


def _power(a: Any, b: Any) -> Any:
    if not isinstance(b, float) or abs(b) > 16:
        raise ForeignError("a power that is no small number")
    return a**b


_TRUTHS = ("Less", "Greater", "Not", "And", "Or", "IsNaN")
# Elementwise operators: the function, its attributes, and which arguments are asked for being zero only.
_EACH: dict[str, tuple[Callable[..., Any], tuple[str, ...], tuple[int, ...]]] = {
    "Add": (_add, (), ()),
    "Sub": (lambda a, b: a - b, (), ()),
    "Mul": (lambda a, b: a * b, (), ()),
    "Div": (lambda a, b: a / b, (), ()),
    "Pow": (_power, (), ()),
    "Max": (_fold(_max), (), ()),
    "Min": (_fold(f.minimum), (), ()),
    "Sum": (_fold(_add), (), ()),
    "Neg": (lambda a: -a, (), ()),
    "Abs": (abs, (), ()),
    "Reciprocal": (lambda a: 1.0 / a, (), ()),
    "Sqrt": (f.sqrt, (), ()),
    "Exp": (f.exp, (), ()),
    "Log": (f.log, (), ()),
    "Sin": (f.sin, (), ()),
    "Cos": (f.cos, (), ()),
    "Erf": (f.erf, (), ()),
    "Sign": (f.sign, (), ()),
    "Tanh": (f.tanh, (), ()),
    "Sigmoid": (f.sigmoid, (), ()),
    "Relu": (f.relu, (), ()),
    "Softplus": (f.softplus, (), ()),
    "Softsign": (f.softsign, (), ()),
    "Gelu": (_gelu, ("approximate",), ()),
    "Elu": (lambda a, alpha=1.0: f.elu(a, alpha), ("alpha",), ()),
    "LeakyRelu": (lambda a, alpha=0.01: f.leaky_relu(a, alpha), ("alpha",), ()),
    "ThresholdedRelu": (lambda a, alpha=1.0: f.where(apply("less", alpha, a), a, 0.0), ("alpha",), ()),
    "HardSigmoid": (
        lambda a, alpha=0.2, beta=0.5: f.clamp(alpha * a + beta, 0.0, 1.0),
        ("alpha", "beta"),
        (),
    ),
    "Less": (lambda a, b: apply("less", a, b), (), ()),
    "Greater": (lambda a, b: apply("less", b, a), (), ()),
    "Not": (lambda a: f.where(a, 0.0, 1.0), (), (0,)),
    "And": (lambda a, b: f.where(a, f.where(b, 1.0, 0.0), 0.0), (), (0, 1)),
    "Or": (lambda a, b: f.where(a, 1.0, f.where(b, 1.0, 0.0)), (), (0, 1)),
    # A number is below 1 or above -1, and what is neither is none.
    "IsNaN": (lambda a: f.where(apply("less", a, 1.0), 0.0, f.where(apply("less", -1.0, a), 0.0, 1.0)), (), ()),
    "Where": (f.where, (), (0,)),
}


def _value(given: list[Any], k: int) -> Value:
    if k >= len(given) or not isinstance(given[k], Value) or given[k].truth:
        raise ForeignError("an operator without the input that it needs")
    found: Value = given[k]
    return found


def _numbers(given: list[Any], k: int, attributes: Mapping[str, Any], name: str) -> list[int] | None:
    """Whole numbers, which are an attribute in older models and an input in newer ones."""
    if k < len(given) and given[k] is not None:
        if not isinstance(given[k], Whole) or given[k].numbers is None:
            raise ForeignError(f"{name} that are computed")
        return list(given[k].numbers)
    found = attributes.get(name)
    return None if found is None else [int(n) for n in found]


def _over_units(axes: list[int] | None, rank: int) -> None:
    if axes not in ([-1], [rank - 1]):
        raise ForeignError(f"work along the axes {axes}")


def _identity(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    return given[0]


def _shape(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    if a.keys() & {"start", "end"}:
        raise ForeignError("a part of a shape")
    return Whole(of=_value(given, 0))


def _expand(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value, shape = _value(given, 0), given[1]
    if not isinstance(shape, Whole):
        raise ForeignError("a shape that is computed")
    if shape.of is not None:
        width = shape.of.width
    else:
        *others, width = shape.numbers or [0]
        if set(others) - {1} or len(others) >= a["rank"]:
            raise ForeignError(f"the shape {shape.numbers}")
    if value.width > 1 and width in (1, value.width):
        return value
    if value.width > 1 or width < 1:
        raise ForeignError(f"{value.width} units as {width}")
    if width == 1 and value.width == 1:
        return value

    def take(first: int, count: int) -> Any:
        one = value.take(0, 1)
        return w.row(value, first, count) if isinstance(one, Symbol) else one

    return Value(width, take, leaves=value.leaves)


def _concat(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    values = [_value(given, k) for k in range(len(given))]
    _over_units([a.get("axis", 0)], a["rank"])
    ends: list[int] = []
    for v in values:
        if not v.width:
            raise ForeignError("a number among values side by side")
        ends.append((ends[-1] if ends else 0) + v.width)

    def take(first: int, count: int) -> Any:
        for v, end in zip(values, ends, strict=True):
            start = end - v.width
            if start <= first and first + count <= end:
                return w.row(v, first - start, count)
        raise ForeignError("a stretch over several values side by side")

    pieces = [n for v in values for n in v.pieces]
    return Value(ends[-1], take, leaves=frozenset[str]().union(*(v.leaves for v in values)), pieces=pieces)


def _stretch(value: Value, start: int, width: int) -> Value:
    if width < 1:
        raise ForeignError("no units")
    inside, at = [], 0
    for n in value.pieces:
        low, high = max(at, start), min(at + n, start + width)
        inside += [high - low] if high > low else []
        at += n
    return Value(width, lambda a, n: value.take(start + a, n), leaves=value.leaves, pieces=inside)


def _split(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value, sizes = _value(given, 0), _numbers(given, 1, a, "split")
    _over_units([a.get("axis", 0)], a["rank"])
    if a.get("num_outputs", a["outputs"]) != a["outputs"]:
        raise ForeignError(f"{a['num_outputs']} parts, of which {a['outputs']} are named")
    if sizes is None:
        each = -(-value.width // a["outputs"])
        sizes = [min(each, value.width - k) for k in range(0, value.width, each)]
    if sum(sizes) != value.width or len(sizes) != a["outputs"]:
        raise ForeignError(f"{value.width} units split into {sizes}")
    return [_stretch(value, sum(sizes[:k]), n) for k, n in enumerate(sizes)]


def _slice(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value = _value(given, 0)
    starts, ends, axes, steps = (
        _numbers(given, k, a, name) for k, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None or len(starts) != 1 or len(ends) != 1 or steps not in (None, [1]):
        raise ForeignError("a slice of several axes or with steps")
    _over_units(axes, a["rank"])
    inside = range(value.width)[starts[0] : ends[0]]
    return _stretch(value, inside.start, len(inside))


def _matrix(given: list[Any]) -> "Matrix":
    found = given[1] if len(given) > 1 else None
    found = found.matrix if isinstance(found, Vector) else found
    if not isinstance(found, Matrix) or found.value.dim() != 2:
        raise ForeignError("a product of two values")
    return found


def _matmul(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    matrix = _matrix(given)
    return w.product(_value(given, 0), matrix.key, matrix.hint, matrix.value.t())


def _gemm(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    if a.get("transA", 0) or a["rank"] != 2:
        raise ForeignError("a product of a transposed value")
    matrix, turned = _matrix(given), bool(a.get("transB", 0))
    value = matrix.value if turned else matrix.value.t()
    result: Value = w.product(_value(given, 0), matrix.key + "'" * turned, matrix.hint, value)
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    if alpha != 1:
        result = w.each(lambda v: v * alpha, result)
    if len(given) < 3 or given[2] is None:
        return result
    bias = _value(given, 2)
    return _sum(w, [result, bias if beta == 1 else w.each(lambda v: v * beta, bias)], {})


def _sum(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    """A product and a constant are a product with a bias."""
    for one, other in (given, given[::-1]):
        if isinstance(one, Product) and isinstance(other, Vector) and one.width == other.width:
            return one.biased(other)
    return w.each(_add, _value(given, 0), _value(given, 1))


def _cast(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    if not isinstance(given[0], Value):
        raise ForeignError("a cast of whole numbers")
    value, to = given[0], TYPES.get(a["to"], (None,))[0]
    if to == torch.bool:
        return w.each(f.identity, value, truth=True)
    if to != w.dtype:
        raise ForeignError(f"a cast to {to}")
    return w.each(lambda c: _as_number(c), value) if value.truth else value


def _as_number(c: Any) -> Any:
    """0 or 1; comparisons are that already."""
    if isinstance(c, Symbol) and c.graph.nodes[c.index].op == "less":
        return c
    return f.where(c, 1.0, 0.0) if isinstance(c, Symbol) else float(bool(c))


def _reduced(mean: bool) -> Callable[..., Any]:
    def reduce(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
        value, axes = _value(given, 0), _numbers(given, 1, a, "axes")
        _over_units(axes, a["rank"])
        if a.get("keepdims", 1) != 1:
            raise ForeignError("a sum that leaves the units' axis away")

        def take(first: int, count: int) -> Any:
            total, start = 0.0, 0
            for n in value.pieces:
                total = total + apply("sum", w.row(value, start, n))
                start += n
            return total / float(value.width) if mean else total

        return Value(1, take, leaves=value.leaves)

    return reduce


def _layer_norm(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value, eps = _value(given, 0), float(a.get("epsilon", 1e-5))
    _over_units([a.get("axis", -1)], a["rank"])
    if a["outputs"] != 1:
        raise ForeignError("the mean of a layer norm")
    result = w.each(
        lambda v, g: v * g, w.whole_row(lambda v: standardised([v], eps)[0], value, value.width), _value(given, 1)
    )
    return w.each(_add, result, _value(given, 2)) if len(given) > 2 and given[2] is not None else result


def _clip(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value = _value(given, 0)
    for k, name, limit in ((1, "min", f.maximum), (2, "max", f.minimum)):
        if k < len(given) and given[k] is not None:
            value = w.each(limit, value, _value(given, k))
        elif name in a:
            number = finite(a[name])
            value = w.each(lambda v, limit=limit, number=number: limit(v, number), value)
    return value


_OWN: dict[str, Callable[[Words, list[Any], Mapping[str, Any]], Any]] = {
    "Identity": _identity,
    "Shape": _shape,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _sum,
    "Cast": _cast,
    "ReduceSum": _reduced(False),
    "ReduceMean": _reduced(True),
    "LayerNormalization": _layer_norm,
    "Clip": _clip,
}
