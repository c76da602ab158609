"""Problems that make their own data: what is drawn, what is to be said, and what tells that it was said.

A batch is drawn from a generator alone. T steps, B sequences; K outputs per step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

IGNORE = -100  # no answer is asked for at this step


@dataclass(frozen=True)
class Drawn:
    """x: [T, B, I] or symbols [T, B]; y: answers [T, B], IGNORE or NaN where none is asked for; lengths: [B].

    allowed: of bool, [T, B, K]: the answers that are not wrong, where there may be several.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor
    allowed: Tensor | None = None


class Problem(ABC):
    """One problem. `inputs` and `outputs`: I and K; `fixed`: a length is no option."""

    inputs: ClassVar[int]
    outputs: ClassVar[int]
    unit: ClassVar[str]
    quantity: ClassVar[str] = "nats"
    shares: ClassVar[tuple[str, ...]]  # the names of what else is measured
    usual: ClassVar[int] = 0  # the length, if none is given; 0: the problem has none
    least: ClassVar[int] = 1

    def __init__(self, length: int | None) -> None:
        self.length = length or self.usual

    @abstractmethod
    def draw(self, chance: np.random.Generator, count: int) -> Drawn:
        """So many sequences."""

    @property
    @abstractmethod
    def blind(self) -> tuple[str, float]:
        """The best loss without memory, and what such an answer is."""

    def losses(self, output: Tensor, drawn: Drawn) -> Tensor:
        """The loss of every answer, [T, B], zero where none is asked for; from outputs [T, B, K]."""
        return cross_entropy(output.flatten(0, 1), drawn.y.flatten(), reduction="none").view_as(drawn.y)

    def asked(self, drawn: Drawn) -> Tensor:
        """Where an answer is asked for, [T, B] of bool."""
        return drawn.y != IGNORE

    @abstractmethod
    def measured(self, output: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """What else is measured, by the names of `shares`: a number from 0 to 1 for each case, whose mean counts."""

    def hardest(self, drawn: Drawn) -> Tensor:
        """The steps [B] whose answers need the longest memory: the last ones."""
        return drawn.lengths - 1


class Adding(Problem):
    """The sum of two marked numbers among T, said after the last (Hochreiter & Schmidhuber 1997, experiment 4).

    x_t = (number from U(0, 1), mark); one mark in the first half, one in the second. In this form, of Le, Jaitly &
    Hinton 2015 and of Arjovsky, Shah & Bengio 2016, all sequences have T steps, and whoever always says 1 has a squared
    error of 1/6. A sequence is right with an error below 0.04, as in the first paper, whose sums lie between 0 and 1.
    """

    inputs, outputs, unit, quantity, usual, least = 2, 1, "sequence", "squared error", 100, 2
    shares = ("right",)

    def draw(self, chance: np.random.Generator, count: int) -> Drawn:
        """Numbers and marks [T, B, 2]."""
        T, half, rows = self.length, self.length // 2, np.arange(count)
        x = np.zeros((T, count, 2), np.float32)
        x[..., 0] = chance.random((T, count), np.float32)
        marked = chance.integers(0, half, count), chance.integers(half, T, count)
        y = np.full((T, count), np.nan, np.float32)
        y[-1] = x[marked[0], rows, 0] + x[marked[1], rows, 0]
        for steps in marked:
            x[steps, rows, 1] = 1
        return Drawn(torch.from_numpy(x), torch.from_numpy(y), torch.full((count,), T))

    @property
    def blind(self) -> tuple[str, float]:
        """Var(u + v) of two numbers from U(0, 1)."""
        return "always 1", 1 / 6

    def asked(self, drawn: Drawn) -> Tensor:
        """The last step."""
        return ~drawn.y.isnan()

    def losses(self, output: Tensor, drawn: Drawn) -> Tensor:
        """The squared error."""
        found = mse_loss(output[-1, :, 0], drawn.y[-1], reduction="none")
        return torch.cat([found.new_zeros(len(drawn.y) - 1, len(found)), found.unsqueeze(0)])

    def measured(self, output: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """The share of sequences with an error below 0.04."""
        return {"right": ((output[-1, :, 0] - drawn.y[-1]).abs() < 0.04).double()}


class Copy(Problem):
    """Ten symbols of eight kinds, and T steps later the same ten (Hochreiter & Schmidhuber 1997 in the form of
    Arjovsky, Shah & Bengio 2016).

    x = s_1 ... s_10, T - 1 blanks, a sign to begin, 10 blanks; y = T + 10 blanks, s_1 ... s_10. Without memory, the
    best that can be said is the blanks and any of the eight: 10 ln 8 / (T + 20) nats per symbol.
    """

    inputs, outputs, unit, usual = 10, 9, "symbol", 100
    shares = ("copied",)
    symbols: ClassVar[int] = 10

    def draw(self, chance: np.random.Generator, count: int) -> Drawn:
        """Symbols [T + 20, B]: 0 is the blank, 9 the sign."""
        kept = chance.integers(1, 9, (self.symbols, count))
        x = np.zeros((self.length + 2 * self.symbols, count), np.int64)
        y = np.zeros_like(x)
        x[: self.symbols] = y[-self.symbols :] = kept
        x[-self.symbols - 1] = 9
        return Drawn(torch.from_numpy(x), torch.from_numpy(y), torch.full((count,), len(x)))

    @property
    def blind(self) -> tuple[str, float]:
        """10 ln 8 / (T + 20)."""
        return "without memory", float(self.symbols * np.log(8) / (self.length + 2 * self.symbols))

    def measured(self, output: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """The share of the ten symbols that are right."""
        n = self.symbols
        return {"copied": (output[-n:].argmax(-1) == drawn.y[-n:]).double()}


class Parity(Problem):
    """Whether the ones among the bits are odd, said after the last of 1 to T bits.

    One bit that is missed makes the answer wrong, and no answer is better than chance without all of them (Bengio,
    Simard & Frasconi 1994; Hochreiter & Schmidhuber 1997). Short sequences among the long ones show the way.
    """

    inputs, outputs, unit, usual = 2, 2, "sequence", 20
    shares = ("accuracy",)

    def draw(self, chance: np.random.Generator, count: int) -> Drawn:
        """Bits [T, B]."""
        bits = chance.integers(0, 2, (self.length, count))
        lengths = chance.integers(1, self.length + 1, count)
        last = lengths - 1, np.arange(count)
        y = np.full_like(bits, IGNORE)
        y[last] = (bits.cumsum(0) % 2)[last]
        return Drawn(torch.from_numpy(bits), torch.from_numpy(y), torch.from_numpy(lengths))

    @property
    def blind(self) -> tuple[str, float]:
        """ln 2."""
        return "by chance", float(np.log(2))

    def measured(self, output: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """The share of right answers."""
        asked = self.asked(drawn)
        return {"accuracy": (output[asked].argmax(-1) == drawn.y[asked]).double()}


_SYMBOLS = "BTPSXVE"
# Reber's grammar: from each state two symbols, each with the state after it; 6 is the end.
_ARCS = (
    (("T", 1), ("P", 2)),
    (("S", 1), ("X", 3)),
    (("T", 2), ("V", 4)),
    (("X", 2), ("S", 5)),
    (("P", 3), ("V", 5)),
    (("E", 6), ("E", 6)),
)


class Reber(Problem):
    """The next symbol of strings of the embedded Reber grammar (Reber 1967; Hochreiter & Schmidhuber 1997,
    experiment 1, after Cleeremans et al. 1989).

    B, T or P, a string of Reber's grammar (B ... E), the same T or P, E; both ways on are as probable wherever there
    are two. "allowed": the share of steps at which the possible next symbols are those that the net finds the most
    probable. "embedded": the share of strings whose second T or P is the first one again, which needs memory over the
    whole string in between; without it, half of them.
    """

    inputs, outputs, unit = 7, 7, "symbol"
    shares = ("allowed", "embedded")

    def draw(self, chance: np.random.Generator, count: int) -> Drawn:
        """Symbols [T, B] with the longest string's T."""
        strings = [embedded(chance) for _ in range(count)]
        lengths = np.array([len(string) - 1 for string, _ in strings])
        x = np.zeros((lengths.max(), count), np.int64)
        y = np.full_like(x, IGNORE)
        allowed = np.zeros((*x.shape, self.outputs), bool)
        for b, (string, ways) in enumerate(strings):
            ids = [_SYMBOLS.index(symbol) for symbol in string]
            x[: lengths[b], b], y[: lengths[b], b] = ids[:-1], ids[1:]
            for t, way in enumerate(ways):
                allowed[t, b, [_SYMBOLS.index(symbol) for symbol in way]] = True
        return Drawn(*map(torch.from_numpy, (x, y, lengths, allowed)))

    @property
    def blind(self) -> tuple[str, float]:
        """ln 2 for each choice of the grammar, and for the second T or P, over the symbols; both as expected."""
        ways = np.array([[state == after for state in range(6)] for arcs in _ARCS for _, after in arcs], float)
        choices = np.array([float(one != other) for one, other in _ARCS])
        # From each state: what comes now, and what comes from the two states after it.
        many = np.linalg.solve(np.eye(6) - ways.reshape(6, 2, 6).mean(1), np.stack([choices, np.ones(6)], 1))[0]
        return "without the first T or P", float((many[0] + 2) * np.log(2) / (many[1] + 4))

    def measured(self, output: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """`allowed` and `embedded`."""
        assert drawn.allowed is not None
        asked = self.asked(drawn)
        scores, allowed = output[asked], drawn.allowed[asked]
        lowest = scores.masked_fill(~allowed, torch.inf).amin(-1)
        highest = scores.masked_fill(allowed, -torch.inf).amax(-1)
        at = self.hardest(drawn), torch.arange(len(drawn.lengths))
        return {
            "allowed": (lowest > highest).double(),
            "embedded": (output[at].argmax(-1) == drawn.y[at]).double(),
        }

    def hardest(self, drawn: Drawn) -> Tensor:
        """The last but one: what follows is always E."""
        return drawn.lengths - 2


def embedded(chance: np.random.Generator) -> tuple[str, list[str]]:
    """A string of n symbols, and for each of its first n - 1 the symbols that may follow."""
    outer = "TP"[chance.integers(2)]
    string, ways, state = "B" + outer + "B", ["TP", "B"], 0
    while state < 6:
        arcs = _ARCS[state]
        ways.append("".join(sorted({symbol for symbol, _ in arcs})))
        symbol, state = arcs[chance.integers(2)]
        string += symbol
    return f"{string}{outer}E", [*ways, outer, "E"]


PROBLEMS: dict[str, type[Problem]] = {"adding": Adding, "copy": Copy, "parity": Parity, "reber": Reber}
