"""The slopes that `check_grads` measures, where these are known; what it says of cells is tested with the cells."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cellwright import Cell, GradientError, RNNCell, check_grads
from cellwright.emit import to_torch
from cellwright.nn.check import TOLERANCE, Line

# By what is hard about it: a function of a vector, and its slope at zero along (1, 2).
LINES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "smooth": (lambda v: torch.sin(v).sum(), 3.0),
    "a kink that one step goes over": (lambda v: (v - 3e-7).abs().sum(), -3.0),
    "beside a pole": (lambda v: (1 / (v + 1e-4)).sum(), -3e8),
    "far away from zero": (lambda v: 1e6 + v.sum(), 3.0),
}


@pytest.mark.parametrize("what", LINES)
def test_the_limit_of_slopes(what: str) -> None:
    f, slope = LINES[what]
    line = Line(f, torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert abs(line.limit() - slope) <= TOLERANCE * abs(slope)


class Pole(Cell):
    """Its divisor begins at random, and so near zero at times."""

    states = {"h": "hidden_size", "n": "hidden_size"}

    def step(self, x: Tensor, h: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        z = self.linear("z", x) + self.linear("z", h)
        return z / (n + 1), 0.5 * n


def test_a_pole_is_no_error() -> None:
    for seed in range(20):
        check_grads(Pole, seed=seed)


def test_a_wrong_gradient_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(to_torch.SPELLING, "tanh", lambda a: torch.tanh(a).detach() + 0.9 * (a - a.detach()))
    with pytest.raises(GradientError, match="WRONG"):
        check_grads(RNNCell)
