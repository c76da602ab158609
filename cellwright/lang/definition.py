"""A cell as pure data: what tracing makes of its equations, and every target and layer works from."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import CellError
from .graph import ONE, Graph, Node, Param, check, check_cell, check_initial, check_types, same_values
from .reach import Reach

FORMAT = 1


@dataclass(frozen=True)
class Definition:
    """The traced equations of a cell, as plain data: what every target and layer works from.

    `states` maps each state to the name of its size, `results` to the node of its next value; the first state is the
    output. `params` are in the order in which a layer registers them. `initial` names the weights that are the state
    before the first step, by state; others begin with zero. `keeps` has the gates that decide how long is remembered: 1
    where a gate at 1 keeps what was, -1 where it lets in what is new. `auxiliary` states are no values by themselves.
    """

    name: str
    options: dict[str, Any]
    states: dict[str, str]
    results: dict[str, int]
    params: dict[str, Param]
    graph: Graph = field(repr=False)
    initial: dict[str, str] = field(default_factory=dict)
    keeps: dict[str, int] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self.graph, self.params, self.results.values())
        check_initial(self.params, self.states, self.initial)
        check_cell(self.graph, self.params, self.states, self.results)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of units of each size."""
        return self.graph.sizes

    @property
    def input_size(self) -> int:
        """I, the number of features of one input."""
        return self.sizes["input_size"]

    @property
    def output_size(self) -> int:
        """The number of units of the output, which is the first state."""
        return self.state_size(next(iter(self.states)))

    def state_size(self, state: str) -> int:
        """The number of units of one state."""
        return self.sizes[self.states[state]]

    @property
    def plain(self) -> tuple[str, ...]:
        """The states that are values by themselves."""
        return tuple(state for state in self.states if state not in self.auxiliary)

    @cached_property
    def reach(self) -> Reach:
        """Where the states go within a step."""
        return Reach.of(self.graph, self.params, self.results)

    @property
    def masks(self) -> tuple[str, ...]:
        """The inputs besides x, in the order in which rewrites have added them. No gradient flows to them."""
        return tuple(name for name in self.graph.find("input") if name != "x")

    def names(self) -> dict[int, str]:
        """The values within a step that the author has named, by node; a state's name means its next value."""
        return {i: name for i, name in self.graph.labels.items() if name not in self.states}

    def same_equations(self, other: "Definition") -> bool:
        """Whether two cells have the same weights and compute the same from them, whatever the names of their values
        and the order in which they are written down."""
        forms = [
            ([(p.name, [*p.slices.items()], p.source, p.heads) for p in d.params.values()], [*d.states.items()])
            for d in (self, other)
        ]
        values = same_values(self.graph, self.results.values(), other.graph, other.results.values())
        return forms[0] == forms[1] and values

    def to_json(self) -> dict[str, Any]:
        """The definition as JSON values; `from_json` reads it back."""
        return {
            "format": FORMAT,
            "name": self.name,
            "options": self.options,
            "sizes": {k: v for k, v in self.sizes.items() if k != ONE},
            "states": self.states,
            "results": self.results,
            "params": [
                {"name": p.name, "slices": p.slices, "source": p.source, "starts": p.starts, "random": p.random}
                | ({"heads": p.heads} if p.heads > 1 else {})
                for p in self.params.values()
            ],
            "nodes": [[n.op, list(n.args), n.size, n.name, n.part, n.bias, n.value] for n in self.graph.nodes],
            "labels": {str(k): v for k, v in self.graph.labels.items()},
            "initial": self.initial,
            "keeps": self.keeps,
            "auxiliary": list(self.auxiliary),
        }

    @classmethod
    def from_json(cls, data: Any) -> "Definition":
        """Read what `to_json` gave; CellError if it is anything else. Nothing is executed."""
        try:
            if data["format"] != FORMAT:
                raise CellError(f"the definition has format {data['format']!r}, this version reads {FORMAT}")
            nodes = [Node(op, tuple(args), *rest) for op, args, *rest in data["nodes"]]
            labels = {int(k): v for k, v in data["labels"].items()}
            params = {p["name"]: Param(**p) for p in data["params"]}
            graph = Graph(dict(data["sizes"]) | {ONE: 1}, nodes, labels)
            name, options, states, results = (data[k] for k in ("name", "options", "states", "results"))
            initial, keeps = dict(data.get("initial", {})), dict(data.get("keeps", {}))
            auxiliary = tuple(data.get("auxiliary", ()))
            if not isinstance(name, str) or not isinstance(options, dict) or not isinstance(states, dict):
                raise TypeError(f"name {name!r}, options {options!r}, states {states!r}")
            if not all(isinstance(gate, str) and sign in (-1, 1) for gate, sign in keeps.items()):
                raise ValueError(f"keeps {keeps!r}")
            if not set(auxiliary) <= set(states):
                raise ValueError(f"auxiliary {auxiliary!r}")
            check_types(graph, params, results)
            return cls(name, options, states, results, params, graph, initial, keeps, auxiliary)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise CellError(f"got a damaged definition of a cell ({error!r}), expected what to_json() wrote") from error
