"""The cells that the package torchrecurrent has too: the same numbers from the same weights, in float64.

pip install --no-deps torchrecurrent==0.2.5
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cellwright import nn

theirs = pytest.importorskip("torchrecurrent", reason="torchrecurrent is not installed; pip install --no-deps it")
F64 = torch.float64
INPUT, UNITS = 3, 5
Weights = dict[str, Tensor]


def same(names: Weights) -> Weights:
    return names


def indrnn(w: Weights) -> Weights:
    """Ours has one bias, as the paper; their second is zero here."""
    w["bias_hh"].zero_()
    return {"weight_ih": w["weight_ih"], "bias_ih": w["bias_ih"], "u": w["vector_u"]}


def peephole(w: Weights) -> Weights:
    p = dict(zip(("p_i", "p_f", "p_o"), w["weight_ph"].chunk(3), strict=True))
    return p | {n: v for n, v in w.items() if n != "weight_ph"}


def multiplicative(w: Weights) -> Weights:
    """Ours has no biases on the way to m, as the paper; theirs are zero here."""
    for bias in (w["bias_ih"][:UNITS], w["bias_hh"]):
        bias.zero_()
    found = {"weight_mx": w["weight_ih"][:UNITS], "weight_mh": w["weight_hh"], "weight_hh": w["weight_mh"]}
    return found | {"weight_ih": w["weight_ih"][UNITS:], "bias_ih": w["bias_ih"][UNITS:], "bias_hh": w["bias_mh"]}


CASES: list[tuple[str, str, dict[str, Any], Callable[[Weights], Weights]]] = [
    ("MGUCell", "MGUCell", {}, same),
    ("UGRNNCell", "UGRNNCell", {}, same),
    ("LiGRUCell", "LiGRUCell", {}, same),
    ("JANETCell", "JANETCell", {}, same),
    ("IndRNNCell", "IndRNNCell", {"activation": "tanh"}, indrnn),
    ("LSTMCell", "PeepholeLSTMCell", {"peephole": True}, peephole),
    ("GreffLSTMCell", "PeepholeLSTMCell", {}, peephole),
    ("MultiplicativeLSTMCell", "MultiplicativeLSTMCell", {}, multiplicative),
]


@pytest.mark.parametrize(("ours", "other", "options", "rename"), CASES, ids=[c[0] for c in CASES])
def test_same_numbers(ours: str, other: str, options: dict[str, Any], rename: Callable[[Weights], Weights]) -> None:
    """Five steps and the gradient of the input; 1e-13 is some roundings of float64."""
    cell, peer = nn.CELLS[ours](INPUT, UNITS, dtype=F64, **options), getattr(theirs, other)(INPUT, UNITS).to(F64)
    with torch.no_grad():
        cell.load_state_dict(rename({n: p.normal_() for n, p in peer.named_parameters() if n != "beta"}))
    x = torch.randn(5, 2, INPUT, dtype=F64)
    found = []
    for step in (lambda v, s: cell(v, s)[1], lambda v, s: peer(v, s)):
        leaf, outputs = x.clone().requires_grad_(), []
        state: Any = None
        for value in leaf:
            state = step(value, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        found.append([torch.stack(outputs), *torch.autograd.grad(torch.stack(outputs).square().sum(), leaf)])
    for got, want in zip(*found, strict=True):
        assert (got - want).abs().max() < 1e-13 * max(1.0, want.abs().max().item())
