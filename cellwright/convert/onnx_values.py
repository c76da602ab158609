"""Values of an ONNX graph as equations of the language of cells, for the operators that it has words for.

A value is a row of units per sequence, known by what gives any stretch of it as a symbol; so a product of all gates
that is split later becomes one slice of weights for each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..lang import functions as f
from ..lang.graph import ONE, Graph, Node, Param
from ..lang.ops import apply
from ..lang.trace import Symbol, standardised
from .onnx_file import TYPES


class Foreign(Exception):
    """The language of cells has no words for this."""


@dataclass
class Weights:
    """What the equations use of the constants: stretches of rows of matrices and vectors, which become slices."""

    names: dict[Any, str] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)  # [rows, source] or [rows]
    rows: dict[str, dict[tuple[int, int], str]] = field(default_factory=dict)

    def name(self, key: Any, hint: str, value: Tensor) -> str:
        """The weight of a constant; `hint`: what it would be called."""
        if key not in self.names:
            name, k = hint, 1
            while name in self.values:
                name, k = f"{hint}_{k}", k + 1
            self.names[key], self.values[name], self.rows[name] = name, value, {}
        return self.names[key]

    def part(self, name: str, first: int, count: int, *, alone: bool = False) -> str:
        """The name of a stretch of rows; `alone`: of a vector, which is called like itself where it is whole."""
        part = name if alone and count == len(self.values[name]) else f"rows_{first}_{first + count}"
        if self.rows[name].setdefault((first, count), part) != part:
            raise Foreign(f"{name} is a bias and stands alone too")
        return part

    def params(self, size: Callable[[int], str]) -> tuple[dict[str, Param], dict[str, Tensor]]:
        """The weights with their slices, and their values. Foreign: stretches that overlap."""
        params: dict[str, Param] = {}
        values: dict[str, Tensor] = {}
        for name, rows in self.rows.items():
            if not rows:
                continue
            spans = sorted(rows)
            if any(a + n > b for (a, n), (b, _) in zip(spans, spans[1:], strict=False)):
                raise Foreign(f"{name} is used in stretches that overlap")
            value = self.values[name]
            source = size(value.shape[1]) if value.dim() == 2 else None
            params[name] = Param(name, {rows[a, n]: size(n) for a, n in spans}, source)
            values[name] = torch.cat([value[a : a + n] for a, n in spans])
        return params, values


class Value:
    """A row of `width` units: `take(first, count)` gives a stretch of it as a symbol, or a number for all of it.

    width 0: a number. `pieces`: the stretches that it was put together from. `truth`: it is asked for being zero only.
    """

    def __init__(
        self,
        width: int | None,
        take: Callable[[int, int], Any],
        *,
        leaves: frozenset[str] = frozenset(),
        pieces: Sequence[int] = (),
        truth: bool = False,
    ) -> None:
        self._width, self._take, self._seen = width, take, dict[tuple[int, int], Any]()
        self.leaves, self.truth = leaves, truth
        self._pieces = tuple(pieces)

    @property
    def width(self) -> int:
        """Its units. Foreign: nothing tells."""
        if self._width is None:
            raise Foreign("a value of unknown size")
        return self._width

    @property
    def pieces(self) -> tuple[int, ...]:
        """The widths of its pieces."""
        return self._pieces or (self.width,)

    def settle(self, width: int) -> None:
        """Say how wide it is. Foreign: it has another width."""
        self._width = width if self._width is None else self._width
        if self._width != width:
            raise Foreign(f"a value of {self._width} units where {width} are expected")

    def take(self, first: int, count: int) -> Any:
        """Units first to first + count."""
        if (first, count) not in self._seen:
            self._seen[first, count] = self._take(first, count)
        return self._seen[first, count]


class Product(Value):
    """A dense product, to which a bias may still come."""

    def __init__(self, width: int, take: Callable[[int, int, Value | None], Any], leaves: frozenset[str]) -> None:
        super().__init__(width, lambda a, n: take(a, n, None), leaves=leaves)
        self.make = take

    def biased(self, bias: "Vector") -> Value:
        """With a bias."""
        return Value(self.width, lambda a, n: self.make(a, n, bias), leaves=self.leaves)


class LookUp(Product):
    """Rows of a table by whole numbers: a product with one-hot vectors; or, where a product follows, an embedding,
    `instead`."""

    def __init__(
        self, width: int, take: Callable[[int, int, Value | None], Any], leaves: frozenset[str], instead: Value
    ) -> None:
        super().__init__(width, take, leaves)
        self.instead = instead


class Vector(Value):
    """A constant, one number per unit; `name` gives that of its weight."""

    def __init__(self, take: Callable[[int, int], Any], name: Callable[[], str], matrix: "Matrix") -> None:
        super().__init__(matrix.value.numel(), take)
        self.name, self.matrix = name, matrix


@dataclass
class Whole:
    """A constant of whole numbers, or the shape of a value."""

    numbers: list[int] | None = None
    of: Value | None = None


@dataclass
class Matrix:
    """A constant with several rows."""

    key: str
    hint: str
    value: Tensor


class Words:
    """What the operators mean, on values of `rank` dimensions, of which the last is that of the units."""

    def __init__(self, graph: Graph, weights: Weights, dtype: torch.dtype) -> None:
        self.graph, self.weights, self.dtype = graph, weights, dtype

    def size(self, n: int) -> str:
        """The name of a size."""
        for name, units in self.graph.sizes.items():
            if units == n and name != ONE:
                return name
        self.graph.sizes[f"units_{n}_size"] = n
        return f"units_{n}_size"

    def node(self, op: str, *args: int, **fields: Any) -> Symbol:
        """A node as a symbol."""
        return Symbol(self.graph, self.graph.add(Node(op, args, **fields)))

    def row(self, value: Value, first: int, count: int) -> Symbol:
        """A stretch of a value, with all its units."""
        found = value.take(first, count) if value.width > 1 or count == 1 else value.take(0, 1)
        if not isinstance(found, Symbol):
            return self.node("const", size=self.size(count), value=_finite(found))
        if found.size == ONE or (value.width < 2 and count > 1):
            return self.node("spread", self.one(found).index, size=self.size(count))
        return found

    def one(self, symbol: Any) -> Any:
        """A single unit as the number per row that it is."""
        return symbol if not isinstance(symbol, Symbol) or symbol.size == ONE else apply("sum", symbol)

    def constant(self, key: str, hint: str, tensor: Tensor) -> Any:
        """A constant of the graph: whole numbers, a number, a vector; matrices stand in products only."""
        if not tensor.is_floating_point():
            return Whole(tensor.flatten().tolist()) if tensor.dtype != torch.bool and tensor.dim() < 2 else None
        if tensor.dtype != self.dtype:
            raise Foreign(f"a constant of {tensor.dtype}")
        if tensor.dim() == 0:
            number = _finite(tensor.item())
            return Value(0, lambda a, n: number)
        if tensor.dim() > 2 or tensor.numel() != tensor.shape[-1] or not tensor.numel():
            return Matrix(key, hint, tensor)

        def name() -> str:
            return self.weights.name(key, hint, tensor.reshape(-1))

        def take(first: int, count: int) -> Symbol:
            part = self.weights.part(name(), first, count, alone=True)
            return self.node("param", size=self.size(count), name=name(), part=part)

        return Vector(take, name, Matrix(key, hint, tensor))

    def product(self, source: Value, key: str, hint: str, matrix: Tensor) -> Product:
        """Rows of `matrix` [rows, source] times a value, piece by piece."""
        if matrix.dtype != self.dtype or matrix.dim() != 2 or 0 in matrix.shape:
            raise Foreign(f"a product with a matrix of {matrix.dtype}, {list(matrix.shape)}")
        source = source.instead if isinstance(source, LookUp) else source
        source.settle(matrix.shape[1])

        def take(first: int, count: int, bias: Value | None) -> Any:
            start, total = 0, None
            for k, units in enumerate(source.pieces):
                name = self.weights.name((key, start), hint, matrix[:, start : start + units])
                more = {}
                if isinstance(bias, Vector) and not k:
                    self.weights.part(bias.name(), first, count)
                    more = {"bias": bias.name()}
                part = self.weights.part(name, first, count)
                row = self.row(source, start, units)
                one = self.node("linear", row.index, size=self.size(count), name=name, part=part, **more)
                total = one if total is None else total + one
                start += units
            return total

        return Product(matrix.shape[0], take, source.leaves)

    def each(self, function: Callable[..., Any], *values: Value, truth: bool = False) -> Value:
        """A function of each unit alone."""
        width = max(v.width for v in values)
        if any(v.width not in (0, 1, width) for v in values):
            raise Foreign(f"values of {', '.join(str(v.width) for v in values)} units side by side")

        def take(first: int, count: int) -> Any:
            return function(*(v.take(first, count) if v.width == width else self.one(v.take(0, 1)) for v in values))

        pieces = next((v.pieces for v in values if v.width == width and len(v.pieces) > 1), ())
        leaves = frozenset[str]().union(*(v.leaves for v in values))
        return Value(width, take, leaves=leaves, pieces=pieces, truth=truth)

    def whole_row(self, function: Callable[[Symbol], Any], value: Value, width: int) -> Value:
        """A function of all units of a row together."""

        def take(first: int, count: int) -> Any:
            if count != width:
                raise Foreign("a part of what is computed from a whole row")
            return function(self.row(value, 0, value.width))

        return Value(width, take, leaves=value.leaves)

    def call(self, op: str, given: list[Any], attributes: Mapping[str, Any], rank: int, outputs: int) -> list[Any]:
        """The outputs of a node. Foreign: there are no words for it."""
        own = _OWN.get(op)
        if own is not None:
            found = own(self, given, {**attributes, "rank": rank, "outputs": outputs})
            return found if isinstance(found, list) else [found]
        if op not in _EACH or not given or not all(isinstance(v, Value) for v in given):
            raise Foreign(f"the operator {op}")
        function, known, truths = _EACH[op]
        if not attributes.keys() <= set(known) or any(v.truth and k not in truths for k, v in enumerate(given)):
            raise Foreign(f"the operator {op}")
        return [
            self.each(lambda *a: function(*a, **attributes), *given, truth=op in ("Less", "Greater", "Not", *_LOGIC))
        ]


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise Foreign(f"the number {number}")
    return float(number)


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
        raise Foreign("a power that is no small number")
    return a**b


_LOGIC = ("And", "Or", "IsNaN")
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
        lambda a, alpha=0.2, beta=0.5: f.clamp(alpha * a + beta, 0.0, 1.0), ("alpha", "beta"), ()),  # fmt: skip
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
        raise Foreign("an operator without the input that it needs")
    found: Value = given[k]
    return found


def _numbers(given: list[Any], k: int, attributes: Mapping[str, Any], name: str) -> list[int] | None:
    """Whole numbers, which are an attribute in older models and an input in newer ones."""
    if k < len(given) and given[k] is not None:
        if not isinstance(given[k], Whole) or given[k].numbers is None:
            raise Foreign(f"{name} that are computed")
        return list(given[k].numbers)
    found = attributes.get(name)
    return None if found is None else [int(n) for n in found]


def _over_units(axes: list[int] | None, rank: int) -> None:
    if axes not in ([-1], [rank - 1]):
        raise Foreign(f"work along the axes {axes}")


def _identity(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    return given[0]


def _shape(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    if a.keys() & {"start", "end"}:
        raise Foreign("a part of a shape")
    return Whole(of=_value(given, 0))


def _expand(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value, shape = _value(given, 0), given[1]
    if not isinstance(shape, Whole):
        raise Foreign("a shape that is computed")
    if shape.of is not None:
        width = shape.of.width
    else:
        *others, width = shape.numbers or [0]
        if set(others) - {1} or len(others) >= a["rank"]:
            raise Foreign(f"the shape {shape.numbers}")
    if value.width > 1 and width in (1, value.width):
        return value
    if value.width > 1 or width < 1:
        raise Foreign(f"{value.width} units as {width}")
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
            raise Foreign("a number among values side by side")
        ends.append((ends[-1] if ends else 0) + v.width)

    def take(first: int, count: int) -> Any:
        for v, end in zip(values, ends, strict=True):
            start = end - v.width
            if start <= first and first + count <= end:
                return w.row(v, first - start, count)
        raise Foreign("a stretch over several values side by side")

    pieces = [n for v in values for n in v.pieces]
    return Value(ends[-1], take, leaves=frozenset[str]().union(*(v.leaves for v in values)), pieces=pieces)


def _stretch(value: Value, start: int, width: int) -> Value:
    if width < 1:
        raise Foreign("no units")
    inside, at = [], 0
    for n in value.pieces:
        low, high = max(at, start), min(at + n, start + width)
        inside += [high - low] if high > low else []
        at += n
    return Value(width, lambda a, n: value.take(start + a, n), leaves=value.leaves, pieces=inside)


def _split(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value, sizes = _value(given, 0), _numbers(given, 1, a, "split")
    _over_units([a.get("axis", 0)], a["rank"])
    if sizes is None:
        each = -(-value.width // a.get("num_outputs", a["outputs"]))
        sizes = [min(each, value.width - k) for k in range(0, value.width, each)]
    if sum(sizes) != value.width or len(sizes) != a["outputs"]:
        raise Foreign(f"{value.width} units split into {sizes}")
    return [_stretch(value, sum(sizes[:k]), n) for k, n in enumerate(sizes)]


def _slice(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    value = _value(given, 0)
    starts, ends, axes, steps = (
        _numbers(given, k, a, name) for k, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None or len(starts) != 1 or len(ends) != 1 or steps not in (None, [1]):
        raise Foreign("a slice of several axes or with steps")
    _over_units(axes, a["rank"])
    inside = range(value.width)[starts[0] : ends[0]]
    return _stretch(value, inside.start, len(inside))


def _matrix(given: list[Any]) -> "Matrix":
    found = given[1] if len(given) > 1 else None
    found = found.matrix if isinstance(found, Vector) else found
    if not isinstance(found, Matrix) or found.value.dim() != 2:
        raise Foreign("a product of two values")
    return found


def _matmul(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    matrix = _matrix(given)
    return w.product(_value(given, 0), matrix.key, matrix.hint, matrix.value.t())


def _gemm(w: Words, given: list[Any], a: Mapping[str, Any]) -> Any:
    if a.get("transA", 0) or a["rank"] != 2:
        raise Foreign("a product of a transposed value")
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
        raise Foreign("a cast of whole numbers")
    value, to = given[0], TYPES.get(a["to"], (None,))[0]
    if to == torch.bool:
        return w.each(f.identity, value, truth=True)
    if to != w.dtype:
        raise Foreign(f"a cast to {to}")
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
            raise Foreign("a sum that leaves the units' axis away")

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
        raise Foreign("the mean of a layer norm")
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
            number = _finite(a[name])
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
