"""`check` and definitions as data: what is not legal is refused, what is legal survives JSON."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright import Recurrent
from cellwright.cells import GRU, LSTM, SLSTM, Elman
from cellwright.emit.to_latex import latex
from cellwright.errors import CellError
from cellwright.lang import Definition, Equations, Graph, Node, Param, check, show

SIZES = {"input_size": 2, "hidden_size": 3, "one": 1}
PARAMS = {
    "W": Param("W", {"a": "hidden_size"}, "input_size"),
    "b": Param("b", {"a": "hidden_size"}),
}
X = Node("input", size="input_size", name="x")
H = Node("state", size="hidden_size", name="h")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("tan", (1,), "hidden_size"), "the operations are"),
        (Node("tanh", (5,), "hidden_size"), "must stand before it"),
        (Node("tanh", (1, 1), "hidden_size"), "takes 1 arguments and has 2"),
        (Node("add", (0, 1), "hidden_size"), "its arguments have sizes"),
        (Node("tanh", (1,), "width"), "size 'width' is none of"),
        (Node("sum", (1,), "hidden_size"), "is one number"),
        (Node("spread", (1,), "hidden_size"), "spreads one number"),
        (Node("linear", (0,), "hidden_size", name="V", part="a"), "no matrix named 'V'"),
        (Node("linear", (0,), "hidden_size", name="b", part="a"), "no matrix named 'b'"),
        (Node("linear", (0,), "hidden_size", name="W", part="z"), "has the slices a, not 'z'"),
        (Node("linear", (1,), "hidden_size", name="W", part="a"), "takes sizes"),
        (Node("linear", (0,), "input_size", name="W", part="a"), "gives size hidden_size"),
        (Node("linear", (0,), "hidden_size", name="W", part="a", bias="c"), "no bias 'c'"),
        (Node("linear_t", (0,), "input_size", name="W", part="a"), "takes sizes"),
        (Node("param", size="hidden_size", name="b", part="z"), "no slice 'z'"),
        (Node("param", size="hidden_size", name="W", part="a"), "no vector of weights named 'W'"),
        (Node("const", (0,), "hidden_size"), "a leaf has no arguments"),
        (Node("count", name="width"), "size 'width'"),
    ],
)
def test_check_refuses(node: Node, message: str) -> None:
    with pytest.raises(CellError, match=message):
        check(Graph(SIZES, [X, H, node]), PARAMS)


def test_check_accepts_what_is_legal() -> None:
    good = Node("linear", (0,), "hidden_size", name="W", part="a", bias="b")
    check(Graph(SIZES, [X, H, good, Node("add", (1, 2), "hidden_size")]), PARAMS, [3])
    with pytest.raises(CellError, match="result 4 is not a node"):
        check(Graph(SIZES, [X, H, good, Node("add", (1, 2), "hidden_size")]), PARAMS, [4])


def test_equal_nodes_are_stored_once() -> None:
    graph = Graph(SIZES)
    assert graph.add(X) == graph.add(X) == 0


@pytest.mark.parametrize(
    "cell", [Elman(3, 5), LSTM(3, 5, peephole=True, proj_size=2), GRU(3, 5, reset_after=False), SLSTM(3, 6, heads=2)]
)
def test_json_round_trip(cell: Equations) -> None:
    definition = cell.definition()
    assert Definition.from_json(json.loads(json.dumps(definition.to_json()))) == definition


@settings(deadline=None)  # the first one to run compiles a kernel
@given(st.data())
def test_damaged_json_is_a_cell_error(data: Any) -> None:
    """Any one value of the JSON replaced by another type never gives anything but CellError or a legal definition."""
    tree = json.loads(json.dumps(LSTM(2, 3).definition().to_json()))
    node, path = tree, []
    while isinstance(node, (dict, list)) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        path.append((node, data.draw(st.sampled_from(keys))))
        node = node[path[-1][1]]
        if data.draw(st.booleans()):
            break
    parent, key = path[-1]
    parent[key] = data.draw(st.sampled_from([None, -1, 10**6, "q", [], {}, 1.5, True]))
    with contextlib.suppress(CellError):
        read = Definition.from_json(tree)
        if max(read.sizes.values()) < 1000:
            show.text(read)
            latex(read)
            Recurrent([read])(torch.zeros(2, 1, read.input_size))[0].sum().backward()


def _edit(tree: Any, path: str, value: Any) -> None:
    *inner, last = path.split(".")
    for key in inner:
        tree = tree[int(key) if isinstance(tree, list) else key]
    tree[int(last) if isinstance(tree, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("results.h", 0),
        ("results.h", 1.0),
        ("results.h", True),
        ("states.h", "input_size"),
        ("nodes.0.3", "y"),
        ("nodes.1.3", "k"),
        ("nodes.0.0", "grad"),
        ("nodes.5.6", "inf"),
        ("params.0.starts", {"q": 1}),
        ("params.0.starts", {"i": "q"}),
        ("params.0.starts", []),
        ("params.0.starts", None),
        ("params.0.random", "no"),
        ("params.0.source", 3),
        ("params.1.heads", 2),
        ("params.1.heads", 0),
        ("params.1.heads", 3.0),
        ("params.2.heads", 3),
        ("params.0.slices", {}),
        ("sizes.hidden_size", 0),
        ("sizes.hidden_size", True),
        ("sizes.hidden_size", 10**12),
        ("sizes", {"input_size": 2}),
        ("options", None),
        ("options", []),
        ("name", None),
        ("labels", {"999": "a"}),
        ("labels", {"1": 3}),
        ("format", 2),
    ],
)
def test_an_edited_definition_is_refused(path: str, value: Any) -> None:
    tree = json.loads(json.dumps(LSTM(2, 3).definition().to_json()))
    Definition.from_json(tree)
    _edit(tree, path, value)
    with pytest.raises(CellError):
        Definition.from_json(tree)


@pytest.mark.parametrize("broken", [None, [], {}, "text", {"format": 99}])
def test_json_of_something_else(broken: Any) -> None:
    with pytest.raises(CellError):
        Definition.from_json(broken)


def test_a_definition_checks_itself() -> None:
    definition = Elman(2, 3).definition()
    with pytest.raises(CellError):
        replace(definition, results={"h": 99})
