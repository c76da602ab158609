"""The grid of cells x wrappers x situations: its points, what is refused and why, and which of them every run takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cellwright import Attentive, LockedDropout, Recurrent, RecurrentDropout, WeightDrop, Zoneout
from cellwright.cells import BY_NAME
from cellwright.lang import Definition
from cellwright.nn.built_in import with_weights
from tests.cells.test_gradients import CASES
from tests.emit.test_to_cpu_cells import OPTIONS, SHORTER

F64 = torch.float64
T, B, H = 4, 3, 4
MEMORY = 2  # positions of what `Attentive` reads, and their features

Options = dict[str, Any]
# The cells by themselves, and then with the options that change their equations.
CELLS: dict[str, tuple[str, Options]] = {name: (name, SHORTER.get(name, {})) for name in BY_NAME}
FORMS = dict(CELLS)
for _name, _options in [*CASES, *OPTIONS]:
    if _options:
        FORMS[" ".join([_name, *(f"{k}={v}" for k, v in _options.items())])] = (_name, _options)


def matrices(definition: Definition) -> tuple[str, ...]:
    return tuple(name for name, param in definition.params.items() if param.source is not None)


@dataclass(frozen=True)
class Wrapper:
    """Keywords of `Recurrent`, which may depend on the cell."""

    options: Callable[[Definition], Options]
    layers: int = 1
    training: bool = True
    score: str = ""  # of `Attentive`


def _plain(**options: Any) -> Callable[[Definition], Options]:
    return lambda definition: options


def _everything(d: Definition) -> Options:
    return {
        "recurrent_dropout": 0.3,
        "zoneout": 0.2,
        "weight_drop": WeightDrop(0.4, matrices(d)),
        "layer_norm": True,
        "residual": "highway",
        "learn_initial_state": True,
        "state_clip": 0.7,
        "dropout": LockedDropout(0.2),
    }


def _in_other_forms(d: Definition) -> Options:
    first, *_, last = (*d.states, *d.states)
    return {
        "recurrent_dropout": RecurrentDropout(0.2, tuple(d.states), per_step=True),
        "zoneout": Zoneout(**{last: 0.3}),
        "residual": True,
        "learn_initial_state": True,
        "state_clip": {first: 0.6},
        "dropout": 0.2,
    }


WRAPPERS: dict[str, Wrapper] = {
    "nothing": Wrapper(_plain()),
    "recurrent dropout": Wrapper(_plain(recurrent_dropout=0.3)),
    "of every state": Wrapper(lambda d: {"recurrent_dropout": RecurrentDropout(0.3, tuple(d.states))}),
    "of each step": Wrapper(lambda d: {"recurrent_dropout": RecurrentDropout(0.3, tuple(d.states), per_step=True)}),
    "zoneout": Wrapper(_plain(zoneout=0.3)),
    "zoneout of one state": Wrapper(lambda d: {"zoneout": Zoneout(**{list(d.states)[-1]: 0.4})}),
    "zoneout in evaluation": Wrapper(_plain(zoneout=0.3), training=False),
    "weight drop": Wrapper(_plain(weight_drop=0.4)),
    "weight drop everywhere": Wrapper(lambda d: {"weight_drop": WeightDrop(0.4, matrices(d))}),
    "layer norm": Wrapper(_plain(layer_norm=True)),
    "residual": Wrapper(_plain(residual=True)),
    "highway": Wrapper(_plain(residual="highway")),
    "initial state": Wrapper(_plain(learn_initial_state=True)),
    "clip": Wrapper(_plain(state_clip=0.4)),
    "clip of one state": Wrapper(lambda d: {"state_clip": {list(d.states)[-1]: 0.3}}),
    "dropout": Wrapper(_plain(dropout=0.3), layers=2),
    "locked dropout": Wrapper(_plain(dropout=LockedDropout(0.3)), layers=2),
    "attention": Wrapper(_plain(), score="additive"),
    "attention by products": Wrapper(_plain(), score="general"),
    "attention and more": Wrapper(
        _plain(recurrent_dropout=0.3, zoneout=0.2, layer_norm=True, learn_initial_state=True, state_clip=0.7),
        score="additive",
    ),
    "everything": Wrapper(_everything, layers=2),
    "in other forms": Wrapper(_in_other_forms, layers=2),
}


@dataclass(frozen=True)
class Situation:
    lengths: bool = False
    reset: bool = False
    bidirectional: bool = False
    layers: int = 1
    state: bool = False
    batch_first: bool = False


SITUATIONS = {
    "plain": Situation(),
    "lengths": Situation(lengths=True),
    "reset": Situation(reset=True),
    "lengths, reset, state": Situation(lengths=True, reset=True, state=True),
    "bidirectional": Situation(bidirectional=True),
    "stacked bidirectional, state": Situation(bidirectional=True, layers=2, state=True, batch_first=True),
    "stacked bidirectional, lengths, reset": Situation(lengths=True, reset=True, bidirectional=True, layers=2),
}


def refusal(form: str, wrapper: str) -> str | None:
    """What the OptionError says of a cell that cannot have a wrapper."""
    if wrapper == "weight drop" and "weight_hh" not in matrices(definition(form, H)):
        return "got weight drop for .*, which has no recurrent matrix; expected some of: weight_ih"
    return None


def absent(wrapper: str, situation: str) -> str | None:
    """Why a wrapper has no such situation: its call has no word for it."""
    s = SITUATIONS[situation]
    if WRAPPERS[wrapper].score and (s.bidirectional or s.layers > 1):
        return "Attentive runs one cell, forward in time"
    return None


def every() -> Iterator[tuple[str, str, str]]:
    """The points of the whole grid."""
    for form in FORMS:
        for wrapper in WRAPPERS:
            if not refusal(form, wrapper):
                yield from ((form, wrapper, s) for s in SITUATIONS if not absent(wrapper, s))


def covering() -> list[tuple[str, str, str]]:
    """Few points with every pair: each cell with each wrapper, and each of the two in each situation.

    The pairs of cell and wrapper are all there is to choose from but the situation, which moves on from point to point.
    """
    cells, wrappers, situations = list(CELLS), list(WRAPPERS), list(SITUATIONS)
    found = []
    for i, cell in enumerate(cells):
        for j, wrapper in enumerate(wrappers):
            if not refusal(cell, wrapper):
                allowed = [s for s in situations if not absent(wrapper, s)]
                found.append((cell, wrapper, allowed[(i + j) % len(allowed)]))
    return found


@cache
def definition(form: str, hidden: int, inputs: int | None = None) -> Definition:
    """The equations of a form with as many features in its input as in its output, or `inputs` of them."""
    name, options = FORMS[form]
    made = BY_NAME[name](inputs or hidden, hidden, **options).definition()
    return made if inputs or made.output_size == made.input_size else definition(form, hidden, made.output_size)


def hidden_for(form: str, hidden: int) -> int:
    """The least size from `hidden` on that the options allow: heads divide it, a projection is smaller."""
    options = FORMS[form][1]
    heads, least = options.get("heads", 1), options.get("proj_size", 0) + 1
    return max(hidden + -hidden % heads, least)


class Point:
    """A net with random weights, what it is given, and its results with all gradients."""

    def __init__(self, form: str, wrapper: str, situation: str, hidden: int = H) -> None:
        hidden = hidden_for(form, hidden)
        given, s = WRAPPERS[wrapper], SITUATIONS[situation]
        name, options = FORMS[form]
        self.definition = definition(form, hidden)
        self.inputs = self.definition.input_size
        self.call: Options = {"lengths": torch.tensor([T, 0, 2])} if s.lengths else {}
        self.net: nn.Module
        if given.score:
            wrappers, kind = given.options(self.definition), with_weights(BY_NAME[name], "Wrapped")
            sizes = (self.inputs + MEMORY, hidden)
            cell = Recurrent(BY_NAME[name], *sizes, **wrappers | options) if wrappers else kind(*sizes, **options)
            self.net, count = Attentive(cell, MEMORY, score=given.score), 1
        else:
            more = {"merge": "mean"} if s.bidirectional else {}
            layers = max(s.layers, given.layers)
            self.net = Recurrent(
                BY_NAME[name],
                self.inputs,
                hidden,
                layers,
                bidirectional=s.bidirectional,
                batch_first=s.batch_first,
                **more,
                **given.options(self.definition) | options,
            )
            count = layers * (1 + s.bidirectional)
        if s.reset:
            self.call["reset"] = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
        self.net.train(given.training)
        self.fill(hidden)
        self.leaves = {"x": torch.randn(B, T, self.inputs) if s.batch_first else torch.randn(T, B, self.inputs)}
        if given.score:
            self.leaves["memory"] = torch.randn(MEMORY, B, MEMORY)
        if s.state:
            lead = (B,) if given.score else (count, B)
            for state in self.definition.states:
                self.leaves[f"state {state}"] = self.start(state, *lead, self.definition.state_size(state))
        self.leaves |= {f"weight {n}": p.detach().clone() for n, p in self.net.named_parameters()}

    def start(self, state: str, *shape: int) -> Tensor:
        """A state; the normaliser of an sLSTM is a sum of positive numbers."""
        value = torch.randn(shape)
        return 0.5 + value.abs() if state == "n" and "m" in self.definition.states else value

    @torch.no_grad()
    def fill(self, hidden: int) -> None:
        """Weights that leave nothing at its start: gains apart from one, biases and initial states from zero."""
        for name, weight in self.net.named_parameters():
            if name.startswith("initial_"):
                weight.copy_(self.start(name.split("_")[1], *weight.shape))
            elif "gain" in name:
                weight.uniform_(0.5, 1.5)
            else:
                weight.uniform_(-1, 1).mul_(min(1.0, 2 * hidden**-0.5))

    def results(self, leaves: dict[str, Tensor]) -> list[Tensor]:
        """Output and last states, with the masks of one seed."""
        torch.manual_seed(7)
        weights = {n.removeprefix("weight "): v for n, v in leaves.items() if n.startswith("weight ")}
        states = tuple(v for n, v in leaves.items() if n.startswith("state "))
        state = None if not states else states[0] if len(states) == 1 else states
        given = [leaves[n] for n in ("x", "memory") if n in leaves]
        found = torch.func.functional_call(self.net, weights, (*given, state), self.call)
        return [found[0], *((found[1],) if isinstance(found[1], Tensor) else found[1]), *found[2:]]

    def values(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """All results and all gradients of a sum of the results, in which each counts differently."""
        leaves = {n: v.to(dtype).requires_grad_() for n, v in self.leaves.items()}
        results = self.results(leaves)
        gradients = torch.autograd.grad(
            results, list(leaves.values()), [_weights_like(r) for r in results], allow_unused=True
        )
        found = {f"result {k}": r.detach() for k, r in enumerate(results)}
        return found | {
            f"gradient of {n}": torch.zeros_like(leaves[n]) if g is None else g
            for n, g in zip(leaves, gradients, strict=True)
        }


def _weights_like(value: Tensor) -> Tensor:
    return torch.linspace(-1, 1, value.numel(), dtype=torch.float32).view(value.shape).to(value.dtype)
