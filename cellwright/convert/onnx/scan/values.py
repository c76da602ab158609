"""Values of an ONNX graph as equations of the language of cells, for the operators that it has words for.

A value is a row of units per sequence, known by what gives any stretch of it as a symbol; so a product of all gates
that is split later becomes one slice of weights for each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ....lang.graph import ONE, Graph, Node, Param
from ....lang.ops import apply
from ....lang.trace import Symbol

_PIECES = 1000  # of a value: doubling it forty times would take more memory than there is


class ForeignError(Exception):
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
            raise ForeignError(f"{name} is a bias and stands alone too")
        return part

    def params(self, size: Callable[[int], str]) -> tuple[dict[str, Param], dict[str, Tensor]]:
        """The weights with their slices, and their values. ForeignError: stretches that overlap."""
        params: dict[str, Param] = {}
        values: dict[str, Tensor] = {}
        for name, rows in self.rows.items():
            if not rows:
                continue
            spans = sorted(rows)
            if any(a + n > b for (a, n), (b, _) in pairwise(spans)):
                raise ForeignError(f"{name} is used in stretches that overlap")
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
        if len(pieces) > _PIECES:
            raise ForeignError(f"a value of {len(pieces)} pieces")

    @property
    def width(self) -> int:
        """Its units. ForeignError: nothing tells."""
        if self._width is None:
            raise ForeignError("a value of unknown size")
        return self._width

    @property
    def pieces(self) -> tuple[int, ...]:
        """The widths of its pieces."""
        return self._pieces or (self.width,)

    def settle(self, width: int) -> None:
        """Say how wide it is. ForeignError: it has another width."""
        self._width = width if self._width is None else self._width
        if self._width != width:
            raise ForeignError(f"a value of {self._width} units where {width} are expected")

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
            return self.node("const", size=self.size(count), value=finite(found))
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
            raise ForeignError(f"a constant of {tensor.dtype}")
        if tensor.dim() == 0:
            number = finite(tensor.item())
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
            raise ForeignError(f"a product with a matrix of {matrix.dtype}, {list(matrix.shape)}")
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
            raise ForeignError(f"values of {', '.join(str(v.width) for v in values)} units side by side")

        def take(first: int, count: int) -> Any:
            return function(*(v.take(first, count) if v.width == width else self.one(v.take(0, 1)) for v in values))

        pieces = next((v.pieces for v in values if v.width == width and len(v.pieces) > 1), ())
        leaves = frozenset[str]().union(*(v.leaves for v in values))
        return Value(width, take, leaves=leaves, pieces=pieces, truth=truth)

    def whole_row(self, function: Callable[[Symbol], Any], value: Value, width: int) -> Value:
        """A function of all units of a row together."""

        def take(first: int, count: int) -> Any:
            if count != width:
                raise ForeignError("a part of what is computed from a whole row")
            return function(self.row(value, 0, value.width))

        return Value(width, take, leaves=value.leaves)


def finite(number: float) -> float:
    """A number that is one. ForeignError: it is infinite or none."""
    if not math.isfinite(number):
        raise ForeignError(f"the number {number}")
    return float(number)
