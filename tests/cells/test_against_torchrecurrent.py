"""The cells that the package torchrecurrent has too: the same numbers from the same weights, in float64.

pip install --no-deps torchrecurrent==0.2.5
"""

from typing import Any

import pytest
import torch

from benchmarks.zoo import TWINS, Twin
from cellwright import nn

theirs = pytest.importorskip("torchrecurrent", reason="torchrecurrent is not installed; pip install --no-deps it")
F64 = torch.float64
INPUT, UNITS = 3, 5


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.ours)
def test_same_numbers(twin: Twin) -> None:
    """Five steps and the gradient of the input; 1e-13 is some roundings of float64."""
    cell = nn.CELLS[f"{twin.ours}Cell"](INPUT, UNITS, dtype=F64, **twin.options)
    peer = getattr(theirs, f"{twin.theirs}Cell")(INPUT, UNITS).to(F64)
    with torch.no_grad():
        cell.load_state_dict(twin.weights({n: p.normal_() for n, p in peer.named_parameters() if n != "beta"}))
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
