"""`gradient_norms` beside explicit loops of torch.nn's cells, and `chrono_initialise`."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cellwright import (
    GRU,
    LSTM,
    Cell,
    InputError,
    MinGRUCell,
    OptionError,
    Recurrent,
    RNNCell,
    chrono_initialise,
    sigmoid,
    tanh,
)
from cellwright import gradient_norms as norms_of
from cellwright.lang import Definition
from cellwright.nn import current_target
from cellwright.topologies import ManyToOne

T, B, H = 9, 3, 5


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize("lengths", [None, [9, 4, 1]])
def test_two_layers_beside_a_loop(lengths: list[int] | None) -> None:
    """Every state of a step is cloned, so that its gradient is that of what is handed on, up and to the next step."""
    torch.manual_seed(0)
    layer = LSTM(4, H, 2, dtype=torch.float64)
    cells = [torch.nn.LSTMCell(n, H, dtype=torch.float64) for n in (4, H)]
    for k, cell in enumerate(cells):
        cell.load_state_dict({name: getattr(layer, f"{name}_l{k}") for name, _ in cell.named_parameters()})
    x, way = torch.randn(T, B, 4, dtype=torch.float64), torch.randn(H, dtype=torch.float64)
    got = norms_of(layer, lambda: ManyToOne(layer, torch.nn.Identity())(x, lengths=lengths)[0].square() @ way)
    assert list(got) == ["h_l0", "c_l0", "h_l1", "c_l1"]
    want = {name: torch.full((T, B), torch.nan, dtype=torch.float64) for name in got}
    for b, length in enumerate(lengths or [T] * B):
        state = [(torch.zeros(1, H, dtype=torch.float64),) * 2 for _ in cells]
        seen: list[dict[str, Tensor]] = []
        for t in range(length):
            v = x[t, b : b + 1]
            seen.append({})
            for k, cell in enumerate(cells):
                state[k] = tuple(s.clone() for s in cell(v, state[k]))
                seen[t] |= {f"h_l{k}": state[k][0], f"c_l{k}": state[k][1]}
                v = state[k][0]
        loss = (v.square() @ way).sum()
        for t, one in enumerate(seen):
            found = torch.autograd.grad(loss, list(one.values()), retain_graph=True, allow_unused=True)
            for name, g in zip(one, found, strict=True):
                want[name][length - 1 - t, b] = 0.0 if g is None else math.sqrt(g.square().sum())
    for name in got:
        close(got[name], want[name])
    assert (got["h_l1"][:length] > 0).all()
    assert (got["c_l1"][0] == 0).all(), "the output was made before"


def test_against_time_is_the_other_way_round() -> None:
    torch.manual_seed(1)
    both = GRU(3, H, bidirectional=True, dtype=torch.float64)
    one = GRU(3, H, dtype=torch.float64)
    one.load_state_dict({name: getattr(both, f"{name}_reverse") for name in one.state_dict()})
    x = torch.randn(T, B, 3, dtype=torch.float64)
    got = norms_of(both, lambda: both(x)[0][0, :, H:].sum(-1))
    close(got["h_l0_reverse"], norms_of(one, lambda: one(x.flip(0))[0][-1].sum(-1))["h_l0"])
    assert (got["h_l0"] == 0).all(), "its loss is of the other direction"


def test_a_linear_cell_has_its_powers() -> None:
    """h_t = a h_{t-1}: the gradient k steps back is a^k, far beyond what a sum of squares in float32 can hold."""
    layer = Recurrent(RNNCell, 1, 1, activation="identity")
    with torch.no_grad():
        layer.weight_hh_l0.fill_(0.25)
    got = norms_of(layer, lambda: layer(torch.zeros(60, 1, 1))[0][-1].sum())["h_l0"][:, 0]
    close(got, 0.25 ** torch.arange(60, dtype=torch.float64))


def test_it_leaves_the_layer_as_it_was() -> None:
    layer, x = LSTM(3, 4), torch.randn(5, 3)
    before, target = layer(x)[0], current_target()
    with torch.no_grad():
        got = norms_of(layer, lambda: layer(x)[0][-1].sum())
    assert got["h_l0"].shape == (5,)
    assert layer(x)[0].equal(before)
    assert current_target() == target
    assert all(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda layer, x: torch.zeros(3, requires_grad=True).sum(), "did not call the layer"),
        (lambda layer, x: layer(x)[0].detach().sum(), "has no gradient"),
        (lambda layer, x: layer(x)[0].sum() + layer(x)[0].sum(), "more than once"),
    ],
)
def test_a_loss_that_is_none(loss: Callable[[Any, Tensor], Tensor], message: str) -> None:
    layer, x = GRU(3, 4), torch.randn(5, 2, 3)
    with pytest.raises(InputError, match=message):
        norms_of(layer, lambda: loss(layer, x))
    assert norms_of(layer, lambda: layer(x)[0][-1].sum(-1))["h_l0"].shape == (5, 2)


def test_only_layers_of_this_package() -> None:
    with pytest.raises(InputError, match="got a GRU, expected a layer of cellwright"):
        norms_of(torch.nn.GRU(3, 4), lambda: torch.zeros(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_chrono(kind: str) -> None:
    """The gates are those of Tallec & Ollivier 2018: with zero input and state, memories lie within 1 to 99 steps."""
    layer = {"LSTM": LSTM, "GRU": GRU}[kind](3, 500, 2, bidirectional=True)
    others = {n: p.clone() for n, p in layer.state_dict().items() if "weight" in n}
    chrono_initialise(layer, 100)
    traced = layer.trace(torch.zeros(1, 1, 3)).values
    for place in ("l0", "l0_reverse"):
        keeps = traced[f"{'f' if kind == 'LSTM' else 'z'}_{place}"].detach()
        steps = keeps / (1 - keeps)
        assert steps.min() >= 0.999 and steps.max() <= 99.01
        assert abs(steps.mean() - 50) < 5 and (steps > 75).float().mean() == pytest.approx(0.24, abs=0.08)
        if kind == "LSTM":
            torch.testing.assert_close(traced[f"i_{place}"], 1 - keeps, rtol=1e-4, atol=1e-6)
    assert all(getattr(layer, n).equal(p) for n, p in others.items())


def test_chrono_of_a_gate_that_lets_in_what_is_new() -> None:
    layer = Recurrent(MinGRUCell, 3, 500)
    chrono_initialise(layer, 100)
    z = layer.trace(torch.zeros(1, 1, 3)).values["z_l0"].detach()
    assert ((1 - z) / z).mean() == pytest.approx(50, abs=5)


def test_chrono_of_a_cell_of_ones_own() -> None:
    class Mine(Cell):
        keeps = "-z"

        def step(self, x: Any, h: Any) -> Any:
            z, n = self.linear("z n", x) + self.linear("z n", h)
            return h + sigmoid(z) * (tanh(n) - h)

    layer = Recurrent([Definition.from_json(Mine(3, 500).definition().to_json())])
    chrono_initialise(layer, 100)
    z = 1 / (1 + layer.bias_ih_l0[:500].detach().neg().exp())
    assert ((1 - z) / z).mean() == pytest.approx(50, abs=5)
    assert not layer.bias_hh_l0[:500].any() and layer.bias_hh_l0[500:].all()


def test_chrono_refuses_what_has_no_gate() -> None:
    with pytest.raises(OptionError, match=r"layer of RNNCell .* no gate of memory with a bias; expected such as LSTM"):
        chrono_initialise(Recurrent(RNNCell, 3, 4), 100)
    with pytest.raises(OptionError, match="no gate of memory with a bias"):
        chrono_initialise(LSTM(3, 4, bias=False), 100)
    with pytest.raises(OptionError, match="got 2 as longest memory"):
        chrono_initialise(LSTM(3, 4), 2)
