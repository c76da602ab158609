"""A cell as its equations: the class that authors derive from, and how these are traced."""

import inspect
import math
import threading
import traceback
from typing import Any, ClassVar, Literal

from ..errors import CellError, CellwrightError, OptionError
from .definition import Definition
from .functions import ACTIVATIONS
from .graph import LEAVES, ONE, Graph, Node, Param
from .trace import Group, Symbol, Tracer, standardised, watch

_RESERVED = ("input_size", "hidden_size", "with_bias", "bias", "linear", "scale", "norm", "step", "options", "check")
_tracing = threading.RLock()  # a step may make another cell


class Equations:
    """The equations of one recurrent cell, without weights: derive from it, name the states, write one `step`.

    `states` names the states, "h" or ("h", "c"); as a dict it also gives their sizes: {"h": "proj_size", "c":
    "hidden_size"}. Every other class attribute that is a number, a truth value or a string is an option with its
    default: `peephole = False`; one named `...activation` takes the names in `ACTIVATIONS`. `step(self, x, *states)`
    returns the next states; the first is the output. It runs once, on symbols: `if`s on options are resolved then.
    `keeps` names gates with a bias that decide how long is remembered, for `chrono_initialise`: "f -i" says that f at 1
    keeps what was, and that i at 1 lets in what is new. `auxiliary` names states that are no values by themselves, such
    as a normaliser: wrappers that are for all states leave them as they are.

    Args:
        input_size: I, features of one input.
        hidden_size: H, units.
        bias: True: every `linear` has one; "input": only those of the input (one bias per gate, as papers write it);
            False: none.
        options: values for the cell's options; OptionError names unknown ones.
    """

    states: ClassVar[Any] = "h"
    keeps: ClassVar[str] = ""
    auxiliary: ClassVar[Any] = ""
    _tracer: Tracer | None = None
    _definition: Definition | None = None

    def __init__(
        self, input_size: int, hidden_size: int, *, bias: bool | Literal["input"] = True, **options: Any
    ) -> None:
        super().__init__()
        self.input_size = positive("input_size", input_size)
        self.hidden_size = positive("hidden_size", hidden_size)
        if bias not in (True, False, "input"):
            raise OptionError(f"got bias={bias!r}, expected True, False or 'input'")
        self.with_bias: bool | Literal["input"] = "input" if bias == "input" else bool(bias)
        for name, value in self.check_options(options).items():
            setattr(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise OptionError for sizes and options that do not go together; cells add their own rules."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The cell's options and their default values."""
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if issubclass(base, Equations) and base is not Equations:
                for name, value in vars(base).items():
                    plain = isinstance(value, (bool, int, float, str))
                    if plain and not name.startswith("_") and name not in ("states", "keeps", "auxiliary"):
                        if name in _RESERVED:
                            raise OptionError(f"{base.__name__} has an option {name!r}; every cell has that: rename it")
                        found[name] = value
        return found

    @classmethod
    def check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        """All options with their values; OptionError names what is unknown or of the wrong type."""
        defaults = cls.defaults()
        for name, value in options.items():
            if name not in defaults:
                known = ", ".join(f"{k}={v!r}" for k, v in defaults.items()) or "none"
                raise OptionError(f"{cls.__name__} got an unknown option {name}={value!r}; its options are: {known}")
            want = type(defaults[name])
            fits = isinstance(value, (int, float)) if want is float else isinstance(value, want)
            if not fits or (isinstance(value, bool) and want is not bool):
                raise OptionError(f"{cls.__name__} got {name}={value!r}, expected {_article(want.__name__)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise OptionError(f"{cls.__name__} got {name}={value!r}, expected a finite number")
            if name.endswith("activation") and defaults[name] in ACTIVATIONS and value not in ACTIVATIONS:
                raise OptionError(f"got {name}={value!r}, expected one of {', '.join(ACTIVATIONS)}")
        return defaults | {k: type(defaults[k])(v) for k, v in options.items()}

    @property
    def options(self) -> dict[str, Any]:
        """The options of this cell, with their values."""
        return {name: getattr(self, name) for name in self.defaults()}

    def step(self, x: Any, *states: Any) -> Any:
        """The equations of one step in time; to be written by the cell."""
        raise CellError(f"{type(self).__name__} has no step; write `def step(self, x, {self.states}): ...`")

    # The words of the language; each works inside `step` only.

    def linear(
        self,
        names: str,
        v: Any,
        *,
        matrix: str | None = None,
        size: str = "hidden_size",
        bias: bool = True,
        starts: dict[str, float] | None = None,
        heads: int = 1,
    ) -> Any:
        """Dense products W v + b, one slice of the weights per name: `i, f = self.linear("i f", x)`.

        The slices go to `weight_ih` and `bias_ih` when v does not depend on a state, else to `weight_hh` and
        `bias_hh`, or to `weight_{matrix}` and `bias_{matrix}`. `size` names an attribute of the cell that holds the
        number of rows of a slice. `starts` is added to the initial biases of the slices it names. matrix="ih" counts
        as a product of the input even where v is an input that a state has changed. `heads` > 1 makes the matrices
        block-diagonal: each of so many equal shares of the result sees its share of v only. The weights are the blocks,
        [size, v's size / heads]; targets multiply by the whole matrix with its zeros, so a step costs what it costs
        without heads.
        """
        return self._now("linear").linear(names, v, matrix, size, bias, starts, heads)

    def scale(self, names: str, v: Any) -> Any:
        """Each unit times its own weight: p * v (peepholes, IndRNN)."""
        tracer = self._now("scale")
        return tracer.each("scale", names, v, lambda name, u: tracer.vector(name, u.size) * u)

    def bias(self, name: str, *, size: str = "hidden_size", start: float = 0.0) -> Any:
        """A vector of weights, one per unit: random values around `start`; 0 if the cell has `bias=False`."""
        tracer = self._now("bias")
        return tracer.vector(name, size, start) if self.with_bias else 0.0

    def norm(
        self, names: str, v: Any, *, together: str = "", eps: float = 1e-5, starts: dict[str, float] | None = None
    ) -> Any:
        """Layer norm over the units (Ba et al. 2016): gain * (v - mean) / sqrt(variance + eps) + shift.

        Each value of a group has its own mean and variance, and the weights `{name}_gain`, which start at one, and
        `{name}_shift`, which start at zero, or at what `starts` has under their name. With `together`, a name, there
        is one mean and one variance over all values of the group, and the weights are slices of `{together}_gain` and
        `{together}_shift`.
        """
        tracer = self._now("norm")
        tracer.known(starts, names, "norm")

        def over(members: list[Symbol]) -> list[Symbol]:
            if any(u.size != members[0].size for u in members):
                raise CellError(f"norm({names!r}, ...) got values of different sizes to normalise together")
            return standardised(members, eps)

        def weighted(name: str, u: Symbol) -> Any:
            gain, shift = (f"{together or name}_gain", f"{together or name}_shift")
            start, part = (starts or {}).get(name, 0.0), name if together else ""
            scaled = u * tracer.vector(gain, u.size, 1.0, random=False, part=part)
            return scaled + tracer.vector(shift, u.size, start, random=False, part=part)

        if together:
            v = Group(over(list(v) if isinstance(v, Group) else [tracer.one_symbol("norm", names, v)]))
            return tracer.each("norm", names, v, weighted)
        return tracer.each("norm", names, v, lambda name, u: weighted(name, over([u])[0]))

    def _now(self, what: str) -> Tracer:
        if self._tracer is None:
            raise CellError(f"{what}(...) was called outside of a step; it has a meaning only inside `step`")
        return self._tracer

    def definition(self) -> Definition:
        """The traced equations (traced once and kept)."""
        if self._definition is None:
            with _tracing:
                self._definition = self._definition or self._trace()
        return self._definition

    def _trace(self) -> Definition:
        kind = type(self).__name__
        states = _named_states(self)
        named = {k: getattr(self, k) for k in sorted({*dir(type(self)), *vars(self)}) if k.endswith("_size")}
        sizes = {"input_size": self.input_size, "hidden_size": self.hidden_size}
        sizes |= {k: v for k, v in named.items() if isinstance(v, int) and v > 0}
        for state, size in states.items():
            if size not in sizes:
                raise CellError(f"{kind}: state {state!r} got the size {size!r}, expected one of {', '.join(sizes)}")
        tracer = Tracer(sizes | {ONE: 1}, self.with_bias)
        arguments = [tracer.leaf("input", "x", "input_size")]
        arguments += [tracer.leaf("state", name, size) for name, size in states.items()]
        _check_signature(self, states)
        self._tracer = tracer
        try:
            returned, variables = watch(self.step, arguments)
        except CellError as error:
            raise CellError(f"{kind}.step: {error}") from None
        except CellwrightError:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}, line {place.lineno}"
            raise CellError(f"{kind}.step could not be traced: {type(error).__name__}: {error} ({where})") from error
        finally:
            self._tracer = None
        results = _results(kind, tracer.graph, states, returned)
        graph, results = prune(tracer.graph, variables, results)
        keeps = {name.removeprefix("-"): -1 if name[0] == "-" else 1 for name in self.keeps.split()}
        params, auxiliary = _ordered(tracer.params), tuple(self.auxiliary.split())
        if wrong := set(auxiliary) - set(list(states)[1:]):
            raise CellError(f"{kind} got auxiliary={self.auxiliary!r}: {min(wrong)!r} is no state behind the output")
        return Definition(kind, self.options, states, results, params, graph, keeps=keeps, auxiliary=auxiliary)


def positive(name: str, value: Any) -> int:
    """`value` as an int of at least 1; OptionError otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise OptionError(f"got {name}={value!r}, expected a whole number of at least 1")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a truth value; OptionError otherwise: a word such as "no" would count as true."""
    if value not in (True, False):
        raise OptionError(f"got {name}={value!r}, expected True or False")
    return bool(value)


def _article(word: str) -> str:
    return {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "a string"}[word]


def _named_states(cell: Equations) -> dict[str, str]:
    """The states and the names of their sizes."""
    states = cell.states
    if isinstance(states, str):
        states = states.split()
    given = len(states) if isinstance(states, (list, tuple, dict)) else 0
    if not isinstance(states, dict):
        # A set has no order, so no first state.
        states = dict.fromkeys(states, "hidden_size") if given else {}
    if not states or not all(isinstance(s, str) and s.isidentifier() for s in states) or len(states) < given:
        raise CellError(f'{type(cell).__name__} got states={cell.states!r}, expected names such as "h" or ("h", "c")')
    return states


def _check_signature(cell: Equations, states: dict[str, str]) -> None:
    try:
        inspect.signature(cell.step).bind(None, *states)
    except TypeError:
        want = ", ".join(("self", "x", *states))
        got = inspect.signature(cell.step)
        raise CellError(f"{type(cell).__name__}.step got the arguments {got}, expected step({want})") from None


def _results(kind: str, graph: Graph, states: dict[str, str], returned: Any) -> dict[str, int]:
    """The nodes of the next states, from what `step` returned."""
    values = returned if isinstance(returned, (tuple, list)) else (returned,)
    if returned is None or len(values) != len(states):
        got = "nothing" if returned is None else f"{len(values)} values"
        raise CellError(f"{kind}.step returned {got}, expected one per state: {', '.join(states)}")
    results = {}
    for (state, size), value in zip(states.items(), values, strict=True):
        if not isinstance(value, Symbol):
            raise CellError(
                f"{kind}.step returned a {type(value).__name__} for state {state!r}, expected a traced value"
            )
        if not graph.same_size(value.size, size):
            raise CellError(
                f"{kind}.step returned a vector of size {value.size} = {graph.sizes[value.size]} for state {state!r}, "
                f"expected {size} = {graph.sizes[size]}"
            )
        results[state] = value.index
    return results


def prune(old: Graph, variables: dict[str, Any], results: dict[str, int]) -> tuple[Graph, dict[str, int]]:
    """The graph without what no result needs, labelled with the author's names for the values."""
    leaves = [i for i, n in enumerate(old.nodes) if n.op in ("input", "state")]
    keep = {i: k for k, i in enumerate(old.reachable([*leaves, *results.values()]))}
    nodes = []
    for i in keep:
        n = old.nodes[i]
        nodes.append(Node(n.op, tuple(keep[a] for a in n.args), n.size, n.name, n.part, n.bias, n.value))
    labels: dict[int, str] = {}
    for name, value in variables.items():
        if name in results:
            continue  # the name of a state is that of its next value, whatever the variable held
        if isinstance(value, Group) and len(value) == 1:
            (value,) = value
        if isinstance(value, Symbol) and value.index in keep and old.nodes[value.index].op not in LEAVES:
            labels.setdefault(keep[value.index], name)
    for state, i in results.items():
        labels[keep[i]] = state
    return Graph(old.sizes, nodes, labels), {state: keep[i] for state, i in results.items()}


def _ordered(params: dict[str, Param]) -> dict[str, Param]:
    """The order of torch.nn: matrices of input and state, their biases, then the rest as declared."""
    first = [n for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if n in params]
    return {n: params[n] for n in (*first, *(n for n in params if n not in first))}
