"""Symbols: what a cell's `step` works on while it is traced, and the tracer that collects graph and weights.

A symbol is one node of the graph; ordinary Python arithmetic on it adds nodes. A group is several symbols, treated
alike: what `linear("i f g o", x)` gives. Anything that is not in the table of operations raises CellError.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, NoReturn, TypeVar

from ..errors import CellError, OptionError
from . import functions
from .graph import ONE, Graph, Node, Param
from .ops import OPS, apply

T = TypeVar("T")


class Operators:
    """Python's operators, written as operations of the table."""

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return apply("div", other, self)

    def __neg__(self) -> Any:
        return apply("neg", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return apply("abs", self)

    def __pow__(self, power: Any) -> Any:
        exponent = float(power) if isinstance(power, Real) else 0.0
        if abs(exponent) == 0.5:
            root = apply("sqrt", self)
            return root if exponent > 0 else 1.0 / root
        if exponent == 0 or not exponent.is_integer():
            got = "a traced value" if isinstance(power, Operators) else repr(power)
            raise CellError(f"got the power {got}, expected a whole number other than 0, or 0.5 (else exp and log)")
        result: Any = self
        for _ in range(int(abs(exponent)) - 1):
            result = result * self
        return result if exponent > 0 else 1.0 / result

    def __lt__(self, other: Any) -> Any:
        return apply("less", self, other)

    def __gt__(self, other: Any) -> Any:
        return apply("less", other, self)

    def __le__(self, other: Any) -> Any:
        return 1.0 - apply("less", other, self)

    def __ge__(self, other: Any) -> Any:
        return 1.0 - apply("less", self, other)

    def __eq__(self, other: object) -> NoReturn:
        raise CellError("a step compares traced values with == or !=, which has no derivative; use < or > with where()")

    def __ne__(self, other: object) -> NoReturn:
        self.__eq__(other)

    def __bool__(self) -> NoReturn:
        raise CellError(
            "a step branches on a traced value (if, and, or, not, while, max, min): it runs once, on symbols; "
            "write where(condition, a, b), maximum(a, b) or minimum(a, b). Branches on the cell's options are fine"
        )


# How other libraries' functions and Python's own conversions reach a symbol, and what they are then called.
_FOREIGN = {
    "__float__": "float() or a function of the math module",
    "__int__": "int()",
    "__index__": "its use as an index",
    "__len__": "len()",
    "__iter__": "iteration or unpacking",
    "__getitem__": "indexing",
    "__matmul__": "@ (use linear for a dense product)",
    "__rmatmul__": "@ (use linear for a dense product)",
    "__mod__": "%",
    "__floordiv__": "//",
    "__round__": "round()",
    "__array__": "a function of NumPy",
}


# What NumPy calls the arithmetic of its own numbers with a symbol.
_ARITHMETIC = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div"}


def _mend(name: str = "") -> str:
    """What an author can write instead."""
    known = [k for k, f in vars(functions).items() if callable(f) and f.__module__ == functions.__name__]
    if name in known:
        return f"write cellwright.{name}(...)"
    return f"the language has + - * / ** abs() < > and {', '.join(sorted(known))}"


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(self: "Symbol", *args: Any, **kwargs: Any) -> NoReturn:
        raise CellError(f"a step uses {what} on a traced value; {_mend()}")

    return refuse


# The number that leaves the other side as it is; so an option that is off leaves no trace in the graph.
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1}


class Symbol(Operators):
    """One value of the step that is being traced: node `index` of `graph`."""

    __slots__ = ("graph", "index")

    def __init__(self, graph: Graph, index: int) -> None:
        self.graph, self.index = graph, index

    @property
    def size(self) -> str:
        """The name of its size: "hidden_size", "input_size", ..., or "one"."""
        return self.graph.nodes[self.index].size

    def __repr__(self) -> str:
        label = self.graph.labels.get(self.index, f"node {self.index}")
        return f"<{label} [{letter(self.size)}]>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise CellError(f"a step uses .{name} on a traced value; {_mend(name)}")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(func, "__name__", str(func))
        raise CellError(f"a step uses torch's {name}() on a traced value; {_mend(name)}")

    def __array_ufunc__(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(func, "__name__", str(func))
        if name in _ARITHMETIC and all(isinstance(a, (Symbol, Real)) for a in args[1:]):
            return apply(_ARITHMETIC[name], *args[1:])  # a NumPy number on the left of an operator
        raise CellError(f"a step uses NumPy's {name}() on a traced value; {_mend(name)}")

    def spread_like(self, one: "Symbol") -> "Symbol":
        """`one`, a number per row, spread over as many units as this symbol has."""
        return one if self.size == ONE else Symbol(self.graph, self.graph.add(Node("spread", (one.index,), self.size)))

    def constant(self, value: float) -> "Symbol":
        """A number, as a symbol of this symbol's size."""
        return Symbol(self.graph, self.graph.add(Node("const", size=self.size, value=float(value))))

    def apply_op(self, name: str, args: tuple[Any, ...]) -> Any:
        """Add a node to the graph (called by `apply`)."""
        if any(isinstance(a, Group) for a in args):
            return Group.apply_op(next(a for a in args if isinstance(a, Group)), name, args)
        op = OPS[name]
        if len(args) != op.arity:
            raise CellError(f"{name}() takes {op.arity} arguments, got {len(args)}")
        if name in _NEUTRAL and isinstance(args[1], Real) and args[1] == _NEUTRAL[name]:
            return args[0]
        symbols = _alike(name, args)
        if name == "where" and isinstance(args[0], Real):
            return symbols[1] if args[0] else symbols[2]
        size = ONE if op.kind == "sum" else symbols[0].size
        nodes = [s.graph.nodes[s.index] for s in symbols]
        if all(n.op == "const" for n in nodes) and op.kind == "elementwise":
            return self.constant(op.meaning(*(n.value for n in nodes)))
        return Symbol(self.graph, self.graph.add(Node(name, tuple(s.index for s in symbols), size)))


for _name, _what in _FOREIGN.items():
    setattr(Symbol, _name, _refuse(_what))


def _alike(name: str, args: tuple[Any, ...]) -> list[Symbol]:
    """The arguments as symbols of one size: numbers become constants, single values are spread over the units."""
    for a in args:
        if not isinstance(a, (Symbol, Real)):
            raise CellError(f"{name}() got a {type(a).__name__}, expected the symbols of the step or numbers")
    symbols = [a for a in args if isinstance(a, Symbol)]
    if any(s.graph is not symbols[0].graph for s in symbols):
        raise CellError(f"{name}() got values of two different cells or steps; a step may not keep its values")
    wide = next((s for s in symbols if s.size != ONE), symbols[0])
    for s in symbols:
        if s.size != ONE and not wide.graph.same_size(wide.size, s.size):
            sizes = wide.graph.sizes
            raise CellError(
                f"{name}() got vectors of {letter(wide.size)} = {sizes[wide.size]} and {letter(s.size)} = "
                f"{sizes[s.size]} units, expected the same number; linear(...) takes one size to the other"
            )
    full = [a if isinstance(a, Symbol) else wide.constant(a) for a in args]
    return [wide.spread_like(s) if s.size == ONE else s for s in full]


class Group(Operators, tuple[Symbol, ...]):
    """Several symbols that are treated alike: operations act on each, groups combine member by member."""

    __slots__ = ()
    __hash__ = tuple.__hash__

    def apply_op(self, name: str, args: tuple[Any, ...]) -> "Group":
        """Apply an operation to each member (called by `apply`)."""
        for a in args:
            if isinstance(a, Group) and len(a) != len(self):
                raise CellError(f"{name}() got groups of {len(self)} and {len(a)} values, expected the same number")
        rows = [a if isinstance(a, Group) else [a] * len(self) for a in args]
        return Group(apply(name, *members) for members in zip(*rows, strict=True))


def standardised(values: Sequence[Symbol], eps: float) -> list[Symbol]:
    """(v - mean) / sqrt(variance + eps), with mean and variance over the units of all values, which have one size."""

    def mean(summands: Sequence[Symbol]) -> Any:
        first, *others = (apply("sum", v) for v in summands)
        graph = values[0].graph
        count = Symbol(graph, graph.add(Node("count", name=values[0].size)))
        return sum(others, first) / (count if not others else count * len(values))

    middle = mean(values)
    centred = [v - middle for v in values]
    # One division per row, also on the way back.
    scale = 1.0 / apply("sqrt", mean([v * v for v in centred]) + eps)
    return [v * scale for v in centred]


def letter(size: str) -> str:
    """The letter that papers use for a size."""
    known = {"input_size": "I", "hidden_size": "H", "proj_size": "P", "output_size": "O", ONE: "1"}
    return known.get(size, size.removesuffix("_size"))


class Tracer:
    """Collects the graph and the weights of one cell while its step runs."""

    def __init__(self, sizes: dict[str, int], bias: bool | str) -> None:
        self.graph = Graph(sizes)
        self.params: dict[str, Param] = {}
        self.bias = bias

    def leaf(self, op: str, name: str, size: str, part: str = "") -> Symbol:
        """A symbol for an input, a state or a vector of weights."""
        return Symbol(self.graph, self.graph.add(Node(op, size=size, name=name, part=part)))

    def declare(
        self,
        name: str,
        part: str,
        size: str,
        source: str | None,
        start: float = 0.0,
        random: bool = True,
        heads: int = 1,
    ) -> None:
        """Add the slice `part` to the weights `name`; the same slice again means the same weights."""
        if size not in self.graph.sizes:
            raise CellError(f"{name} got the size {size!r}, expected one of {', '.join(self.graph.sizes)}")
        if not name.isidentifier() or not part.isidentifier():
            raise CellError(f"got the weight name {name!r}, slice {part!r}; expected names like those of variables")
        param = self.params.setdefault(name, Param(name, {}, source, random=random, heads=heads))
        if param.heads != heads:
            raise CellError(f"{name} got heads={heads!r}, but it was declared with {param.heads}; name another matrix")
        if not isinstance(heads, int) or heads < 1 or any(self.graph.sizes[s] % heads for s in (size, source) if s):
            units = " x ".join(str(self.graph.sizes[s]) for s in (size, source or ONE))
            raise CellError(f"{name} got heads={heads!r} for {units} units, expected a number that divides both")
        if (param.source is None) != (source is None) or (
            source is not None and param.source is not None and not self.graph.same_size(param.source, source)
        ):
            raise CellError(
                f"{name} got a source of size {letter(source or ONE)}, but it was declared with "
                f"{letter(param.source or ONE)}; name another matrix: linear(names, v, matrix='...')"
            )
        if param.slices.setdefault(part, size) != size:
            raise CellError(f"slice {part!r} of {name} got size {size}, but it was declared with {param.slices[part]}")
        if start:
            param.starts[part] = float(start)

    def linear(
        self,
        names: str,
        v: Any,
        matrix: str | None,
        size: str,
        bias: bool,
        starts: dict[str, float] | None,
        heads: int = 1,
    ) -> Symbol | Group:
        """One dense product, W v + b, one slice per name."""
        v = self.one_symbol("linear", names, v)
        recurrent = set(self.graph.find("state").values())
        inside = not recurrent.isdisjoint(self.graph.reachable([v.index]))
        matrix = matrix or ("hh" if inside else "ih")
        biased = bias and (self.bias is True or (self.bias == "input" and (matrix == "ih" or not inside)))
        self.known(starts, names, "linear")
        for part, start in (starts or {}).items():
            if start and not biased:
                raise OptionError(
                    f"got {start} for the initial bias of {part!r} with bias={self.bias!r}, expected a bias"
                )
        result = []
        for part in self.split(names):
            self.declare(f"weight_{matrix}", part, size, v.size, heads=heads)
            if biased:
                self.declare(f"bias_{matrix}", part, size, None, (starts or {}).get(part, 0.0))
            name, b = f"weight_{matrix}", f"bias_{matrix}" if biased else ""
            node = Node("linear", (v.index,), size, name=name, part=part, bias=b)
            result.append(Symbol(self.graph, self.graph.add(node)))
        return result[0] if len(result) == 1 else Group(result)

    def vector(self, name: str, size: str, start: float = 0.0, random: bool = True, part: str = "") -> Symbol:
        """A vector of weights, one per unit; or a slice of one."""
        self.declare(name, part or name, size, None, start, random)
        return self.leaf("param", name, size, part=part or name)

    def known(self, starts: dict[str, float] | None, names: str, what: str) -> None:
        """CellError where `starts` has a name that is not among the slices."""
        unknown = set(starts or {}) - set(self.split(names))
        if unknown:
            raise CellError(f"{what} got starts for {', '.join(sorted(unknown))}, expected some of {names!r}")

    def each(self, what: str, names: str, v: Any, fn: Callable[[str, Symbol], Symbol]) -> Any:
        """`fn(name, v)` for one name, or for each name and member of a group."""
        parts = self.split(names)
        if len(parts) == 1 and not isinstance(v, Group):
            return fn(parts[0], self.one_symbol(what, names, v))
        members = list(v) if isinstance(v, Group) else [self.one_symbol(what, names, v)] * len(parts)
        if len(members) != len(parts):
            raise CellError(f"{what} got {len(parts)} names ({names!r}) for {len(members)} values, expected as many")
        return Group(fn(part, m) for part, m in zip(parts, members, strict=True))

    @staticmethod
    def split(names: str) -> list[str]:
        """ "i f g o" -> ["i", "f", "g", "o"]."""
        parts = names.split() if isinstance(names, str) else []
        if not parts or len(set(parts)) != len(parts):
            raise CellError(f'got the names {names!r}, expected different names with spaces between, like "i f g o"')
        return parts

    @staticmethod
    def one_symbol(what: str, names: str, v: Any) -> Symbol:
        """`v`, which must be a symbol of the step."""
        if not isinstance(v, Symbol):
            raise CellError(f"{what}({names!r}, ...) got a {type(v).__name__}, expected one value of the step")
        return v


def watch(step: Callable[..., T], args: Iterable[Any]) -> tuple[T, dict[str, Any]]:
    """Call `step`; also return its local variables at the end, which give the values the names their author chose.

    Those of a step of a class above that it calls too; its own come first.
    """
    kinds = type(getattr(step, "__self__", None)).__mro__
    codes = {getattr(one, "__code__", None) for one in (step, *(vars(kind).get("step") for kind in kinds))} - {None}
    found: dict[str, Any] = {}

    def on_return(frame: Any, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code in codes:
            found.update(frame.f_locals)

    if sys.getprofile() is not None:
        return step(*args), found  # somebody profiles the program, and a profiler in C cannot be put back
    sys.setprofile(on_return)
    try:
        return step(*args), found
    finally:
        sys.setprofile(None)
