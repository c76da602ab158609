"""The body of a `Scan` as the step of a cell: one kernel runs what the language of cells has words for.

Products and other work of the input that stand before the `Scan`, for all steps at once, become part of the step, so
that its input is what the weights of the input see. Masks of 0 and 1 (lengths, resets) stay inputs of their own.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from ....errors import CellwrightError
from ....lang import Definition, Graph, with_reset, with_valid
from ....lang.cell import prune
from ....lang.graph import ONE
from ....lang.trace import Symbol
from ..file import TYPES, attributes_of
from ..functions import constants_of, integers
from .values import ForeignError, LookUp, Matrix, Value, Weights, Words
from .words import call

# Operators whose result holds no floating numbers; and those whose result holds what their first input does.
_WHOLE = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not", "And", "Or", "Xor", "IsNaN", "Shape")
_SAME = ("Identity", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Slice", "Split", "Concat", "Expand",
         "Gather", "ReverseSequence")  # fmt: skip
_STATE = ""  # in the leaves of a value: it is another one at every step


@dataclass(frozen=True)
class Step:
    """A `Scan` node as a cell.

    plain: the equations without masks. masked: with `valid` and `reset` as inputs, as far as there are any. short:
    without `valid`. weights: by their names in the equations. x: where it comes from in the graph around; masks:
    likewise, by what they are. integer: x holds whole numbers. states: those of the node. collected: whose values
    it collects at every step; more than the node's are there for that alone, and nothing reads them. reverse: from
    the last step to the first.
    """

    plain: Definition
    masked: Definition
    short: Definition
    weights: dict[str, Tensor]
    x: str
    masks: dict[str, str]
    integer: bool
    states: tuple[str, ...]
    collected: tuple[str, ...]
    reverse: bool


class Around:
    """What stands before a `Scan`: nodes, constants, and types and shapes of the inputs; which values are masks."""

    def __init__(
        self,
        nodes: Sequence[tuple[Any, Mapping[str, Any]]],
        constants: Mapping[str, Tensor | None],
        inputs: Mapping[str, tuple[torch.dtype, list[int | None] | None]],
    ) -> None:
        self.nodes, self.constants, self.inputs = nodes, constants, inputs
        self.whole = {name for name, (kind, _) in inputs.items() if not kind.is_floating_point}
        self.masks: set[str] = set()
        self.units = {name: shape[2] for name, (_, shape) in inputs.items() if shape is not None and len(shape) == 3}
        for node, attributes in nodes:
            first = node.input[0] if node.input else ""
            axes = attributes.get("axes") or (constants.get(node.input[1]) if len(node.input) > 1 else None)
            if node.op_type == "Unsqueeze" and axes is not None and integers(axes) in ([2], [-1]):
                self.units.update(dict.fromkeys(node.output, 1))
            elif first in self.units and (
                node.op_type in ("Identity", "Cast", "Not")
                or (node.op_type == "Slice" and self.units[first] == 1)
                or (node.op_type == "Concat" and attributes.get("axis") in (0, 1))
            ):
                self.units.update(dict.fromkeys(node.output, self.units[first]))
            if node.op_type == "Cast" and first in self.whole:
                self.masks.update(node.output)
            elif node.op_type in _WHOLE or (node.op_type in _SAME and first in self.whole):
                self.whole.update(node.output)


def step_of(node: Any, attributes: Mapping[str, Any], opset: int, around: Around) -> Step | None:
    """The step of a `Scan` node; None: the language of cells has no words for something in it."""
    ways = {int(way) for side in ("input", "output") for way in attributes.get(f"scan_{side}_directions") or [0]}
    if opset == 8 or len(ways) != 1 or any(any(attributes.get(f"scan_{k}_axes") or ()) for k in ("input", "output")):
        return None
    for absorb in (True, False):
        try:
            return _Reader(node, attributes, around, absorb).step(bool(ways.copy().pop()))
        except (ForeignError, CellwrightError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            continue  # also what a damaged body makes of an operator
    return None


class _Source(Value):
    """A value of the graph around that is read as it is, by its name."""

    def __init__(self, name: str, inputs: Mapping[str, Any], width: int | None) -> None:
        def take(first: int, count: int) -> Any:
            if count != self.width:
                raise ForeignError(f"a part of {name}")
            return inputs[name]

        super().__init__(width, take, leaves=frozenset([name]))


@dataclass
class _Reading:
    """What one reading found: `symbols`, `sources` and `values` by the names of the graph around."""

    words: Words
    sources: dict[str, _Source]
    symbols: dict[str, Any]
    values: dict[str, Any]
    looked_up: set[str]


class _Reader:
    """Reads a node; `absorb`: with what stands before it."""

    def __init__(self, node: Any, attributes: Mapping[str, Any], around: Around, absorb: bool) -> None:
        self.node, self.body, self.around, self.absorb = node, attributes["body"], around, absorb
        self.count = len(self.body.input) - int(attributes["num_scan_inputs"])
        if self.count < 1 or len(node.input) != len(self.body.input) or not all(node.input):
            raise ForeignError("a loop without states")
        shapes = [_shape_of(v) for v in self.body.input]
        self.widths = [width for _, width in shapes]
        kinds = {kind for kind, _ in shapes}
        if len(kinds) != 1 or None in self.widths[: self.count]:
            raise ForeignError("states of unknown sizes")
        self.dtype = kinds.pop()
        self.own = constants_of(self.body)
        self.states = _names((v.name for v in self.body.input[: self.count]), ("x", "valid", "reset"))

    def step(self, reverse: bool) -> Step:
        """The step. ForeignError: there are no words for it."""
        masked, collected, x, masks, weights, integer = self.read({}, {})
        if not masks:
            return Step(masked, masked, masked, weights, x, {}, integer, self.states, collected, reverse)
        for words in permutations(("valid", "reset"), len(masks)):
            named = dict(zip(masks, words, strict=False))
            told = {source: float(word == "valid") for source, word in named.items()}
            plain = self.read(told, {})[0]
            masked, collected, *_, weights, _ = self.read({}, named)
            initial = _initial(masked)
            plain = replace(plain, params=masked.params, initial=initial)
            masked = replace(masked, initial=initial)
            short = with_reset(plain) if "reset" in words else plain
            if (with_valid(short) if "valid" in words else short).same_equations(masked):
                sources = {word: source for source, word in named.items()}
                return Step(plain, masked, short, weights, x, sources, integer, self.states, collected, reverse)
        raise ForeignError("masks that are neither lengths nor resets")

    def read(
        self, told: Mapping[str, float], named: Mapping[str, str]
    ) -> tuple[Definition, tuple[str, ...], str, list[str], dict[str, Tensor], bool]:
        """The equations; the states that are collected; where x and the masks come from; the weights; whether x holds
        whole numbers. `told`: what is known of masks, by their sources; `named`: what masks are called."""
        found = self.outside()
        w, inner = found.words, dict[str, Any]()
        leaves: dict[str, None] = {}
        rows = list(zip(self.node.input, self.body.input, self.widths, strict=True))
        for name, given, width in rows[self.count :]:
            value = found.values.get(name) if self.absorb else None
            if not isinstance(value, Value):
                value = found.sources.setdefault(name, _Source(name, found.symbols, None))
            if width is not None:
                value.settle(width)
            inner[given.name] = value
            leaves |= dict.fromkeys(sorted(value.leaves))
        masks = [name for name in leaves if name in self.around.masks]
        xs = [name for name in leaves if name not in masks]
        if len(xs) > 1 or len(masks) > 2 or any(found.sources[name].width != 1 for name in masks):
            raise ForeignError("several inputs")
        x = [*xs, *masks][0]  # a step that sees no input is told of the steps by a mask
        sizes = w.graph.sizes
        sizes |= {"hidden_size": self.widths[0] or 0, "input_size": found.sources[x].width}
        found.symbols[x] = w.node("input", size="input_size", name="x")
        for k, name in enumerate(masks):
            mask = told[name] if name in told else w.node("input", size=ONE, name=named.get(name, f"mask_{k}"))
            found.symbols[name] = mask
        states, results = dict[str, str](), dict[str, int]()
        for name, (_, given, width) in zip(self.states, rows, strict=False):
            states[name] = w.size(width or 0)
            symbol = w.node("state", size=states[name], name=name)
            inner[given.name] = Value(width, _all_of(symbol, width or 0), leaves=frozenset([_STATE]))
        ends = self.inside(found, inner)
        for name, value in zip(self.states, ends, strict=False):
            results[name] = w.row(value, 0, sizes[states[name]]).index
            if value.width not in (0, 1, sizes[states[name]]):
                raise ForeignError("a state of another size")
        collected = []
        for value in ends[self.count :]:
            i = w.row(value, 0, max(value.width, 1)).index
            same = [name for name, k in results.items() if k == i]
            if not same:
                same = [*_names(["output"], (*states, "x", "valid", "reset"))]
                states[same[0]], results[same[0]] = w.size(max(value.width, 1)), i
                w.node("state", size=states[same[0]], name=same[0])
            collected.append(same[0])
        graph, results = prune(w.graph, {}, results)
        params, values = w.weights.params(w.size)
        definition = Definition("Scan", {}, states, results, params, graph)
        return definition, tuple(collected), x, masks, values, x in found.looked_up

    def outside(self) -> _Reading:
        """What stands before the loop, as far as there are words for it."""
        words = Words(Graph({ONE: 1}), Weights(), self.dtype)
        found = _Reading(words, {}, {}, {}, set())
        values, around = found.values, self.around

        def source(name: str, width: int | None = None) -> _Source:
            width = around.units.get(name) if width is None else width
            return found.sources.setdefault(name, _Source(name, found.symbols, width))

        for name, held in around.constants.items():
            if held is not None:
                values[name] = words.constant(name, _hint(name), held)
        for name, (_, shape) in around.inputs.items():
            if name not in around.whole and shape is not None and len(shape) == 3:
                values[name] = source(name)
        for node, attributes in around.nodes if self.absorb else ():
            given = [values.get(name) if name else None for name in node.input]
            try:
                if node.op_type == "Gather" and isinstance(given[0], Matrix) and not attributes.get("axis", 0):
                    table, ids = given[0], node.input[1]
                    made = words.product(source(ids, len(table.value)), table.key, table.hint, table.value.t())
                    outputs: list[Any] = [LookUp(made.width, made.make, made.leaves, source(node.output[0]))]
                    found.looked_up.add(ids)
                elif any(name and v is None for name, v in zip(node.input, given, strict=True)) or (
                    node.op_type == "Cast" and isinstance(given[0], _Source)
                ):
                    raise ForeignError("what may be whole numbers")
                else:
                    outputs = call(words, node.op_type, given, attributes, 3, len(node.output))
            except (ForeignError, CellwrightError, IndexError, TypeError, ArithmeticError):
                outputs = [None if name in around.whole or not name else source(name) for name in node.output]
            values.update(zip(node.output, outputs, strict=False))
        return found

    def inside(self, found: _Reading, inner: dict[str, Any]) -> list[Value]:
        """The outputs of the body, from its inputs."""
        own = {n: found.words.constant(f"{self.node.name}/{n}", _hint(n), v) for n, v in self.own.items()}

        def value(name: str) -> Any:
            for scope in (inner, own, found.values):
                if name in scope:
                    if scope is found.values and isinstance(scope[name], Value) and scope[name].leaves:
                        raise ForeignError("a value of the graph around")
                    return scope[name]
            raise ForeignError("a value of the graph around")

        for node in self.body.node:
            if node.op_type == "Constant":
                continue
            if node.domain not in ("", "ai.onnx"):
                raise ForeignError("an operator of somebody else")
            given = [value(name) if name else None for name in node.input]
            outputs = call(found.words, node.op_type, given, attributes_of(node), 2, len(node.output))
            if len(outputs) < len(node.output):
                raise ForeignError("outputs that are not there")
            inner.update(zip(node.output, outputs, strict=False))
        ends = [value(v.name) for v in self.body.output]
        if any(not isinstance(v, Value) or v.truth for v in ends):
            raise ForeignError("an output that holds no numbers")
        return ends


def _all_of(symbol: Symbol, width: int) -> Any:
    def take(first: int, count: int) -> Symbol:
        if count != width:
            raise ForeignError("a part of a state")
        return symbol

    return take


def _shape_of(value: Any) -> tuple[torch.dtype, int | None]:
    """The type of an input of a body, and its units, where it is declared as [B, units]."""
    tensor = value.type.tensor_type
    kind = TYPES.get(tensor.elem_type, (None,))[0]
    if kind not in (torch.float32, torch.float64) or not tensor.HasField("shape") or len(tensor.shape.dim) != 2:
        raise ForeignError(f"the input {value.name} of an unknown shape")
    assert kind is not None
    return kind, tensor.shape.dim[1].dim_value or None


def _names(given: Iterable[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Names for states, from those of the values before a step."""
    found: list[str] = []
    for name in given:
        base = re.sub(r"\W", "_", name.removesuffix("_before")) or "state"
        base = base if base.isidentifier() else f"state_{base}"
        name, k = base, 1
        while name in found or name in taken:
            name, k = f"{base}_{k}", k + 1
        found.append(name)
    return tuple(found)


def _hint(name: str) -> str:
    """What a weight is called that comes from a constant of this name."""
    base = re.sub(r"\W", "_", re.sub(r"_l\d+(_reverse)?(_\d+)?$", "", name)) or "weight"
    return base if base.isidentifier() else f"weight_{base}"


def _initial(definition: Definition) -> dict[str, str]:
    """The weights that a reset puts in the place of a state."""
    nodes, found = definition.graph.nodes, {}
    for node in nodes:
        if node.op == "where":
            chosen, first, second = (nodes[a] for a in node.args)
            mask = nodes[chosen.args[0]] if chosen.op == "spread" else chosen
            if (mask.op, mask.name, first.op, second.op) == ("input", "reset", "param", "state"):
                found[second.name] = first.name
    return found
