"""Losses over valid steps."""

from typing import Any

import pytest
import torch

from cellwright import InputError
from cellwright.topologies import sequence_cross_entropy, sequence_mse

F64 = torch.float64
LENGTHS = [3, 0, 5]


def test_cross_entropy_is_the_mean_over_valid_symbols(assert_close: Any) -> None:
    logits = torch.randn(5, 3, 4, dtype=F64)
    targets = torch.randint(0, 4, (5, 3))
    padded = torch.arange(5).unsqueeze(1) >= torch.tensor(LENGTHS)
    terms = [-logits[t, b].log_softmax(-1)[targets[t, b]] for b, n in enumerate(LENGTHS) for t in range(n)]
    given = logits.masked_fill(padded.unsqueeze(-1), torch.nan).requires_grad_()
    loss = sequence_cross_entropy(given, targets.masked_fill(padded, -1), LENGTHS)
    assert_close("loss", loss, sum(terms) / 8, 1e-14)
    loss.backward()
    want = torch.zeros_like(logits)
    for b, n in enumerate(LENGTHS):
        for t in range(n):
            want[t, b] = (logits[t, b].softmax(-1) - torch.eye(4, dtype=F64)[targets[t, b]]) / 8
    assert_close("gradient", given.grad, want, 1e-15)
    whole = sequence_cross_entropy(logits, targets)
    assert_close("no lengths", whole, sequence_cross_entropy(logits, targets, [5, 5, 5]), 1e-14)


def test_label_smoothing(assert_close: Any) -> None:
    """(1 - s) times the loss and s times the mean over all symbols."""
    logits, targets = torch.randn(5, 3, 4, dtype=F64), torch.randint(0, 4, (5, 3))
    got = sequence_cross_entropy(logits, targets, LENGTHS, label_smoothing=0.1)
    uniform = [-logits[t, b].log_softmax(-1).mean() for b, n in enumerate(LENGTHS) for t in range(n)]
    want = 0.9 * sequence_cross_entropy(logits, targets, LENGTHS) + 0.1 * sum(uniform) / 8
    assert_close("loss", got, want, 1e-14)


def test_mse(assert_close: Any) -> None:
    outputs, targets = torch.randn(5, 3, 2, dtype=F64), torch.randn(5, 3, 2, dtype=F64)
    terms = [(outputs[t, b] - targets[t, b]).square().mean() for b, n in enumerate(LENGTHS) for t in range(n)]
    padded = (torch.arange(5).unsqueeze(1) >= torch.tensor(LENGTHS)).unsqueeze(-1)
    given = outputs.masked_fill(padded, torch.inf).requires_grad_()
    loss = sequence_mse(given, targets, LENGTHS)
    assert_close("loss", loss, sum(terms) / 8, 1e-14)
    loss.backward()
    assert given.grad.isfinite().all() and not given.grad.masked_select(padded).any()
    assert_close("no lengths", sequence_mse(outputs, targets), (outputs - targets).square().mean(), 1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sequence_cross_entropy(torch.zeros(5, 3), torch.zeros(5, 3)), "expected logits"),
        (lambda: sequence_cross_entropy(torch.zeros(5, 3, 4), torch.zeros(5, 3)), "expected integers"),
        (lambda: sequence_cross_entropy(torch.zeros(5, 3, 4), torch.zeros(4, 3).long()), r"expected \[5, 3\]"),
        (lambda: sequence_cross_entropy(torch.zeros(5, 3, 4), torch.full((5, 3), 4)), "got the target 4"),
        (lambda: sequence_cross_entropy(torch.zeros(5, 3, 4), torch.zeros(5, 3).long(), [0, 0, 0]), "no valid step"),
        (lambda: sequence_cross_entropy(torch.zeros(0, 3, 4), torch.zeros(0, 3).long()), "no valid step"),
        (lambda: sequence_mse(torch.zeros(5, 3, 2), torch.zeros(5, 3)), "got targets of shape"),
        (lambda: sequence_mse(torch.zeros(5, 3, 2), None), "NoneType"),
        (lambda: sequence_mse(torch.zeros(5, 0), torch.zeros(5, 0)), "no valid step"),
    ],
)
def test_wrong_calls(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
