"""The random masks of every regulariser: their rates, what is drawn apart and what is not, and their expectation."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellwright import Cell, EmbeddingDropout, LockedDropout, Recurrent, RecurrentDropout, RNNCell, Zoneout, use_target

T, B, H = 4, 24, 30


class Next(Cell):
    """h_t = h_{t-1} + 1."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return h + 1.0 + 0.0 * x


class Pass(Cell):
    """h_t = x_t."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return x + 0.0 * h


def check(on: Tensor, chance: float, apart: str) -> None:
    """`on`, with axes of more than one that are `apart`: drawn with this chance, pairs of neighbours with its square.

    Counts within 5 standard deviations; the pairs have no member in common.
    """

    def within(found: Tensor, chance: float) -> None:
        n = found.numel()
        assert abs(found.sum().item() - n * chance) <= 5 * math.sqrt(n * chance * (1 - chance))

    within(on, chance)
    for axis, name in enumerate(apart.split()):
        both = on.unflatten(axis, (-1, 2))
        assert both.shape[axis] > 0, name
        within(both.select(axis + 1, 0) & both.select(axis + 1, 1), chance**2)


def states(target: str, reset: bool, **options: Any) -> Tensor:
    """All states of two layers in both directions, [T, layers * directions, B, H]; sequences start at 1."""
    layer = Recurrent(Next, H, H, 2, bidirectional=True, merge="sum", learn_initial_state=True, **options)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.fill_(1.0)
        starts = torch.full((T, B), reset)
        with use_target(target):
            found: Tensor = layer(torch.zeros(T, B, H), reset=starts, return_states=True)[2]
    return found


@pytest.mark.parametrize("target", ["cpu", "torch"])
@pytest.mark.parametrize("per_step", [False, True])
def test_recurrent_dropout(per_step: bool, target: str) -> None:
    """Where a sequence begins at every step, h_t is the mask plus 1; where it goes on, its mask stays as it is.

    A mask that lasts has no scale, as h enters no product.
    """
    masks = states(target, True, recurrent_dropout=RecurrentDropout(0.3, per_step=per_step)) - 1
    assert torch.allclose(masks.unique(), torch.tensor([0.0, 1 / 0.7 if per_step else 1.0]))
    check(masks > 0.5, 0.7, "steps layers-and-directions rows units")
    h = states(target, False, recurrent_dropout=RecurrentDropout(0.3, per_step=per_step))
    forth, back = h[:, 0::2], h[:, 1::2].flip(0)
    masks = torch.stack([(v[1:] - 1) / v[:-1] for v in (forth, back)])
    same = torch.allclose(masks[:, :1].expand_as(masks), masks, atol=1e-5)
    assert same == (not per_step)


@pytest.mark.parametrize("target", ["cpu", "torch"])
@pytest.mark.parametrize("wrapper", [0.3, Zoneout(h=0.3)])
def test_zoneout(wrapper: Any, target: str) -> None:
    moved = states(target, True, zoneout=wrapper) - 1
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    check(moved > 0, 0.7, "steps layers-and-directions rows units")
    h = states(target, False, zoneout=wrapper)
    moved = torch.stack([torch.diff(h[:, 0::2], dim=0), torch.diff(h[:, 1::2].flip(0), dim=0)])[:, :2]
    check(moved.transpose(0, 1) > 0, 0.7, "steps directions layers rows units")


@pytest.mark.parametrize("target", ["cpu", "torch"])
def test_weight_drop(target: str) -> None:
    """Row k of the batch shows column k of the matrix; all sequences and steps have the same matrix."""
    layer = Recurrent(
        RNNCell, 1, H, 2, activation="identity", bias=False, bidirectional=True, merge="sum", weight_drop=0.3
    )
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            weight.fill_(float("hh" in name))
        with use_target(target):
            h = layer(torch.zeros(2, H, 1), torch.eye(H).expand(4, H, H), return_states=True)[2]
    for k in range(4):
        first, second = (h[0, k], h[1, k]) if k % 2 == 0 else (h[1, k], h[0, k])
        assert torch.allclose(second, first @ first, rtol=1e-5)
    matrices = torch.stack([h[k % 2, k] for k in range(4)])
    assert torch.allclose(matrices.unique(), torch.tensor([0.0, 1 / 0.7]))
    check(matrices > 0, 0.7, "layers-and-directions columns rows")


@pytest.mark.parametrize("target", ["cpu", "torch"])
@pytest.mark.parametrize("locked", [False, True])
def test_dropout_between_layers(locked: bool, target: str) -> None:
    layer = Recurrent(Pass, H, H, 3, dropout=LockedDropout(0.3) if locked else 0.3)
    with torch.no_grad(), use_target(target):
        h = layer(torch.ones(T, B, H), return_states=True)[2]
        anew = layer(torch.ones(T, B, H), reset=torch.ones(T, B, dtype=torch.bool), return_states=True)[2]
    for found in (anew,) if locked else (h, anew):
        check(found[:, 1] > 0, 0.7, "steps rows units")
        check(found[:, 2] > 0, 0.49, "steps rows units")  # both masks, drawn apart
    assert torch.equal(h[:1].expand_as(h), h) == locked


def every_random_thing() -> dict[str, Any]:
    return {
        "recurrent_dropout": RecurrentDropout(0.3),
        "zoneout": 0.3,
        "weight_drop": 0.3,
        "dropout": LockedDropout(0.3),
    }


@pytest.mark.parametrize("name", every_random_thing())
def test_a_seed_gives_the_same_on_every_target(name: str) -> None:
    layer = Recurrent(RNNCell, 3, 5, 2, bidirectional=True, **{name: every_random_thing()[name]})
    x, found = torch.randn(T, 3, 3), []
    for target, seed in (("cpu", 4), ("torch", 4), ("cpu", 5)):
        with use_target(target):
            torch.manual_seed(seed)
            found.append(layer(x, lengths=[4, 0, 2], reset=torch.eye(T, 3) > 0)[0])
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def mean_is(values: Tensor, want: float) -> None:
    """Of independent values: within 5 standard deviations."""
    assert abs(values.mean().item() - want) <= 5 * values.std().item() / math.sqrt(values.numel())


@pytest.mark.parametrize("options", [{"dropout": 0.4}, {"dropout": LockedDropout(0.4)}], ids=str)
def test_dropout_is_evaluation_on_average(options: Any) -> None:
    layer = Recurrent(Pass, 40, 40, 2, **options)
    x = torch.full((1, 500, 40), 1.5)
    with torch.no_grad():
        mean_is(layer(x)[0], layer.eval()(x)[0].mean().item())
        assert torch.equal(layer(x)[0], x)


def test_weight_drop_is_evaluation_on_average() -> None:
    """Of a linear step: each unit of the output has masks of its own."""
    layer = Recurrent(RNNCell, 1, 300, activation="identity", bias=False, weight_drop=0.4)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(0.1)
        given = torch.zeros(1, 1, 1), torch.randn(1, 1, 300)
        mean_is(layer(*given)[0], layer.eval()(*given)[0].mean().item())


def test_embedding_dropout_is_evaluation_on_average() -> None:
    drop = EmbeddingDropout(nn.Embedding.from_pretrained(torch.full((2000, 1), 1.5)), 0.4)
    mean_is(drop(torch.arange(2000)), 1.5)
    check(drop(torch.arange(2000)).squeeze(-1) > 0, 0.6, "words")
