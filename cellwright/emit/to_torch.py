"""The reference target: a plan run by torch, one operation at a time. What it computes is what the equations mean.

It is written to be read, works for every floating dtype and device of torch, and its gradient is torch's own, so
gradients of gradients work. `run` is the forward loop. `run_back` carries out the backward plan literally; it is not
used for training (autograd is), but proves the plan that faster targets compile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..lang.grad import WeightGradient
from ..lang.graph import ONE, Graph, Param
from ..lang.plan import Plan, Product, Stage, stages
from .attention import Memory

Value = Tensor | float

# Constants reach these as Python numbers, everything else as tensors [..., units].
SPELLING: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": lambda a, b: a - b,
    "mul": torch.mul,
    "div": lambda a, b: a / b,
    "neg": torch.neg,
    "maximum": lambda a, b: torch.maximum(*_tensors(a, b)),
    "minimum": lambda a, b: torch.minimum(*_tensors(a, b)),
    "less": lambda a, b: (a < b).to(_dtype(a, b)),
    "where": lambda c, a, b: _where(c, *_tensors(a, b, like=c)),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": lambda a: torch.where(a.isnan(), a, torch.sign(a)),
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "sum": lambda a: a.sum(-1, keepdim=True),
    "spread": lambda a, units: a.expand(*a.shape[:-1], units),
}


def _tensors(*values: Value, like: Tensor | None = None) -> list[Tensor]:
    """The values as tensors of one dtype and device."""
    first = next((v for v in values if isinstance(v, Tensor)), like)
    assert first is not None
    return [v if isinstance(v, Tensor) else first.new_full((), v) for v in values]


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition != 0, a, b)


def _dtype(*values: Value) -> torch.dtype:
    return next(v.dtype for v in values if isinstance(v, Tensor))


@dataclass
class Step:
    """Evaluates nodes of `graph`: `values` holds what has been computed so far, by node.

    `like` gives dtype and device of constants; `lead` the leading sizes of a full value: (T, B), or (B,) in a step.
    `memory` is what look-ups read. Of the last one, `attended` are the weights [S, B]; on the way back, `seed` is the
    gradient of these, and `shares` are the gradients of the memory.
    """

    graph: Graph
    params: dict[str, Param]
    weights: Mapping[str, Tensor]
    values: dict[int, Value]
    like: Tensor
    lead: tuple[int, ...]
    memory: Memory | None = None
    attended: Tensor | None = None
    seed: Tensor | None = None
    shares: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, name: str, parts: tuple[str, ...]) -> Tensor:
        """The rows of some slices of a weight; the tensor itself when these are all, in order."""
        param, weight = self.params[name], self.weights[name]
        if parts == tuple(param.slices):
            return weight
        spans = [param.rows(part, self.graph.sizes) for part in parts]
        if all(a + n == b for (a, n), (b, _) in pairwise(spans)):
            return weight.narrow(0, spans[0][0], sum(n for _, n in spans))
        return torch.cat([weight.narrow(0, a, n) for a, n in spans])

    def stage(self, stage: Stage) -> None:
        """A product or a look-up, then the operations that follow it."""
        if stage.product:
            self.product(stage.product)
        if stage.lookup is not None:
            self.look_up(stage.lookup)
        for i in stage.nodes:
            node = self.graph.nodes[i]
            args = [self.values[a] for a in node.args]
            if node.op == "spread":
                args.append(self.graph.sizes[node.size])
            self.values[i] = SPELLING[node.op](*args)

    def product(self, p: Product) -> None:
        """One dense product. Integers stand for one-hot vectors: a look-up of the matrix's columns."""
        matrix = self.rows(p.matrix, p.parts)
        if p.transposed:
            units = [self.graph.sizes[self.params[p.matrix].slices[part]] for part in p.parts]
            v = torch.cat([self.row(i, n) for i, n in zip(p.sources, units, strict=True)], -1)
            self.values[p.results[0]] = F.linear(v, matrix.t())
            return
        source = self.values[p.sources[0]]
        if not isinstance(source, Tensor):
            source = self.row(p.sources[0], matrix.shape[1])
        bias = self.rows(p.bias, p.parts) if p.bias else None
        if source.is_floating_point():
            result = F.linear(source, matrix, bias)
        else:
            result = F.embedding(source, matrix.t())
            result = result if bias is None else result + bias
        sizes = [self.graph.sizes[self.graph.nodes[i].size] for i in p.results]
        self.values.update(zip(p.results, torch.split(result, sizes, -1), strict=True))

    def look_up(self, i: int) -> None:
        """One look into the memory, or its way back."""
        sizes, node = self.graph.sizes, self.graph.nodes[i]
        *g, query = (self.row(a, sizes[self.graph.nodes[a].size]) for a in node.args)
        assert self.memory is not None
        if g:
            self.values[i], self.shares = self.memory.back(query, g[0][..., -sizes[node.name] :], self.seed)
        else:
            context, self.attended = self.memory.look(query)
            self.values[i] = F.pad(context, (sizes[node.size] - sizes[node.name], 0))

    def row(self, i: int, units: int) -> Tensor:
        """A value as rows of units, [..., B, units], where a constant or a weight vector may stand for it."""
        value = self.values[i]
        return (value if isinstance(value, Tensor) else self.like.new_full((), value)).expand(*self.lead, units)


def begin(plan: Plan, graph: Graph, weights: Mapping[str, Tensor], inputs: dict[str, Tensor], like: Tensor) -> Step:
    """What is known before any step: constants, weights, and the inputs of all steps. `like` is a state [B, units]."""
    x = inputs["x"]
    leaves = graph.find("input")
    whole = not x.is_floating_point()
    if whole and (leaves["x"] in plan.definition.results.values() or beside_products(graph, leaves["x"])):
        x = F.one_hot(x, plan.definition.input_size).to(like.dtype)
    step = Step(graph, plan.definition.params, weights, {}, like, (len(x), len(like)))
    for i, node in enumerate(graph.nodes):
        if node.op == "const":
            step.values[i] = node.value
        elif node.op == "count":
            step.values[i] = float(graph.sizes[node.name])
        elif node.op == "param":
            step.values[i] = step.rows(node.name, (node.part,))
    step.values |= {i: (inputs | {"x": x})[name] for name, i in leaves.items()}
    return step


def beside_products(graph: Graph, x: int) -> bool:
    """Whether x is used other than by a product, for which an integer can stand for a one-hot vector."""
    return any(x in n.args and n.op != "linear" for n in graph.nodes)


@dataclass(frozen=True)
class Record:
    """What a run leaves: `states` after every step, [B, units], by name; `nodes`, other values that were asked for;
    `attended`, the weights [B, S] of a look-up at every step."""

    states: dict[str, list[Tensor]]
    nodes: dict[int, list[Tensor]]
    attended: list[Tensor] = field(default_factory=list)


def run(
    plan: Plan,
    weights: Mapping[str, Tensor],
    inputs: dict[str, Tensor],
    state: dict[str, Tensor],
    reverse: bool = False,
    record: tuple[int, ...] = (),
    memory: Memory | None = None,
) -> Record:
    """The forward loop: the states after every step, in order of time.

    Args:
        plan: of the cell, with its masks as further inputs.
        weights: by the names in `plan.definition.params`.
        inputs: "x" [T, B, I], or integers [T, B] for one-hot vectors; masks [T, B, 1] of 0 and 1.
        state: the state before the first step, [B, units] each.
        reverse: go from the last step to the first.
        record: further nodes to keep, such as those that the backward plan saves.
        memory: for equations that look into one.
    """
    definition, forward = plan.definition, plan.forward
    graph = definition.graph
    step = begin(plan, graph, weights, inputs, next(iter(state.values())))
    step.memory = memory
    for stage in forward.hoisted:
        step.stage(stage)
    T, batch = step.lead
    timed = graph.depends(graph.find("input").values())
    rows: dict[int, Any] = {i: step.values[i] for i in (*forward.carried, *record) if i in timed and i in step.values}
    per_step = {i: rows[i].unbind(0) for i in rows}
    leaves = graph.find("state")
    states: dict[str, list[Tensor]] = {name: [] for name in definition.states}
    nodes: dict[int, list[Tensor]] = {i: [] for i in record}
    attended: list[Tensor] = []
    step.lead = (batch,)
    for t in reversed(range(T)) if reverse else range(T):
        step.values |= {i: values[t] for i, values in per_step.items()}
        step.values |= {leaves[name]: s for name, s in state.items()}
        for stage in forward.loop:
            step.stage(stage)
        # Under autocast a product may come in another dtype than the states, which keep theirs.
        new = {name: step.row(i, definition.state_size(name)) for name, i in definition.results.items()}
        state = {name: s.to(state[name].dtype) for name, s in new.items()}
        for name in states:
            states[name].append(state[name])
        for i in record:
            nodes[i].append(step.row(i, graph.sizes[graph.nodes[i].size]))
        if step.attended is not None:
            attended.append(step.attended.t())
    order = slice(None, None, -1 if reverse else 1)
    return Record({k: v[order] for k, v in states.items()}, {k: v[order] for k, v in nodes.items()}, attended[order])


@dataclass(frozen=True)
class Gradients:
    """Gradients by name: of the inputs [T, B, ...], of the state before the first step, of the weights, and of the
    tensors of a memory."""

    inputs: dict[str, Tensor]
    states: dict[str, Tensor]
    weights: dict[str, Tensor]
    memory: dict[str, Tensor] = field(default_factory=dict)


def run_back(
    plan: Plan,
    weights: Mapping[str, Tensor],
    inputs: dict[str, Tensor],
    state: dict[str, Tensor],
    done: Record,
    gradients: dict[str, Tensor],
    reverse: bool = False,
    memory: Memory | None = None,
    attended: Tensor | None = None,
) -> Gradients:
    """Carry out the backward plan: `gradients` of every state after every step, [T, B, units], to all gradients.

    `done` is what `run` left, with `record=plan.backward.saved`; `attended` is the gradient of its `attended`.
    """
    definition, backward, gradient = plan.definition, plan.backward, plan.gradient
    graph, known = gradient.graph, len(definition.graph.nodes)
    step = begin(plan, graph, weights, inputs, next(iter(state.values())))
    step.memory = memory
    into_memory = {} if memory is None else {name: torch.zeros_like(v) for name, v in memory.tensors.items()}
    T, batch = step.lead
    whole = {i: step.values[i] for i in graph.find("input").values()}
    recompute = stages(graph, backward.recomputed)
    leaves, seeds = graph.find("state"), graph.find("grad")
    carried = {name: torch.zeros_like(s) for name, s in state.items()}
    sources = {w.source for w in backward.weights if w.source is not None}
    used = {a for stage in backward.after for i in stage.members for a in graph.nodes[i].args} | sources
    used = {i for i in used if i >= known or graph.nodes[i].op not in ("input", "const", "count", "param")}
    used = (used | set(backward.kept)) - {i for stage in backward.after for i in stage.members}
    history: dict[int, list[Tensor]] = {i: [] for i in used}
    step.lead = (batch,)
    order = range(T) if reverse else range(T - 1, -1, -1)
    for t in order:
        before = t + 1 if reverse else t - 1
        step.values |= {i: v[t] for i, v in whole.items()}  # type: ignore[index]
        for name in definition.states:
            step.values[leaves[name]] = done.states[name][before] if 0 <= before < T else state[name]
            step.values[definition.results[name]] = done.states[name][t]
            step.values[seeds[name]] = gradients[name][t] + carried[name]
        step.values |= {i: v[t] for i, v in done.nodes.items()}
        step.seed = None if attended is None else attended[t].t()
        for stage in (*recompute, *backward.loop):
            step.stage(stage)
        for name, share in step.shares.items():
            into_memory[name] += share
        for name, i in gradient.states.items():
            units = definition.state_size(name)
            carried[name] = torch.zeros_like(state[name]) if i is None else step.row(i, units)
        for i in history:
            history[i].append(step.row(i, graph.sizes[graph.nodes[i].size]))
    step.lead = (T, batch)
    step.values |= whole
    step.values |= {i: torch.stack(v if reverse else v[::-1]) for i, v in history.items()}
    for stage in backward.after:
        step.stage(stage)
    into = {n: step.row(i, graph.sizes[graph.nodes[i].size]) for n, i in gradient.inputs.items() if i is not None}
    return Gradients(into, carried, _weight_gradients(step, backward.weights), into_memory)


def _weight_gradients(step: Step, shares: tuple[WeightGradient, ...]) -> dict[str, Tensor]:
    """Each share as one product or sum over all steps and rows, added to the rows of its slices."""
    result = {name: torch.zeros_like(w) for name, w in step.weights.items()}
    sizes = step.graph.sizes
    for share in shares:
        param = step.params[share.name]
        units = [sizes[param.slices[part]] for part in share.parts]
        g = torch.cat([step.row(i, n) for i, n in zip(share.gradients, units, strict=True)], -1).flatten(0, 1)
        if share.source is None:
            total = g.sum(0)
        else:
            source = step.values[share.source]
            if isinstance(source, Tensor) and not source.is_floating_point():
                source = F.one_hot(source, sizes["input_size"]).to(g.dtype)
                step.values[share.source] = source
            total = g.t() @ step.row(share.source, sizes[param.source or ONE]).flatten(0, 1)
        for part, rows in zip(share.parts, torch.split(total, units), strict=True):
            first, n = param.rows(part, sizes)
            result[share.name].narrow(0, first, n).add_(rows)
    return result
