"""Attention beside loops over single numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cellwright import InputError, OptionError
from cellwright.topologies import Attention, BahdanauAttention, LuongAttention

F64 = torch.float64
LENGTHS = [6, 0, 1, 4]
ATTENTIONS: dict[str, Any] = {
    "dot": lambda: LuongAttention(5, 5, "dot", dtype=F64),
    "general": lambda: LuongAttention(5, 3, dtype=F64),
    "concat": lambda: LuongAttention(5, 3, "concat", 7, dtype=F64),
    "bahdanau": lambda: BahdanauAttention(5, 3, 7, dtype=F64),
}


def score(attention: Attention, q: Tensor, m: Tensor) -> Tensor:
    """The formulas of the papers for one query [Q] and one value [M]."""
    if isinstance(attention, BahdanauAttention):
        a = attention.additive
        return a.v.weight[0] @ torch.tanh(a.query.weight @ q + a.memory.weight @ m + a.memory.bias)
    assert isinstance(attention, LuongAttention)
    if attention.score == "dot":
        return q @ m
    if attention.score == "general":
        return q @ (attention.weight.weight @ m)
    a = attention.additive
    W = torch.cat([a.query.weight, a.memory.weight], 1)
    return a.v.weight[0] @ torch.tanh(W @ torch.cat([q, m]))


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_by_hand(name: str, lengths: Any, assert_close: Any) -> None:
    """Contexts, weights and all gradients; poisoned padding."""
    attention = ATTENTIONS[name]()
    clean = torch.randn(6, 4, attention.memory_size, dtype=F64)
    query = torch.randn(3, 4, 5, dtype=F64, requires_grad=True)
    valid = torch.arange(6).unsqueeze(1) < torch.tensor(lengths or [6] * 4)
    values = clean.masked_fill(~valid.unsqueeze(-1), torch.nan).requires_grad_()
    context, weights = attention(query, attention.memory(values, lengths))
    assert context.shape == (3, 4, attention.memory_size) and weights.shape == (3, 4, 6)
    seed = torch.randn_like(context)
    (context * seed).sum().backward()
    given = [values, query, *attention.parameters()]
    got = [p.grad.clone() for p in given]
    plain = clean.clone().requires_grad_()
    for p in given:
        p.grad = None
    total: Any = 0
    for b, n in enumerate(lengths or [6] * 4):
        for t in range(3):
            if not n:
                assert not context[t, b].any() and not weights[t, b].any()
                continue
            e = torch.stack([torch.exp(score(attention, query[t, b], plain[s, b])) for s in range(n)])
            a = e / e.sum()
            c = sum(a[s] * plain[s, b] for s in range(n))
            assert_close("weights", weights[t, b, :n], a, 1e-14)
            assert_close("context", context[t, b], c, 1e-14)
            assert not weights[t, b, n:].any()
            total = total + (c * seed[t, b]).sum()
    total.backward()
    want = [plain.grad, query.grad, *(p.grad for p in attention.parameters())]
    for g, w in zip(got, want, strict=True):
        assert_close("gradient", g, w, 1e-13)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_one_query_is_one_of_many(name: str, assert_close: Any) -> None:
    attention = ATTENTIONS[name]()
    memory = attention.memory(torch.randn(6, 4, attention.memory_size, dtype=F64), LENGTHS)
    query = torch.randn(3, 4, 5, dtype=F64)
    context, weights = attention(query, memory)
    for t in range(3):
        one, a = attention(query[t], memory)
        assert_close("context", one, context[t], 1e-14)
        assert_close("weights", a, weights[t], 1e-14)
    twice = memory.repeat(2)
    again, _ = attention(query[0].repeat_interleave(2, 0), twice)
    assert_close("repeated", again[1::2], context[0], 1e-14)


def test_a_memory_of_no_steps() -> None:
    attention = LuongAttention(5, 3)
    context, weights = attention(torch.randn(2, 4, 5), attention.memory(torch.zeros(0, 4, 3), [0] * 4))
    assert not context.any() and context.shape == (2, 4, 3) and weights.shape == (2, 4, 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LuongAttention(5, 3, "product"), "got score='product', expected dot, general or concat"),
        (lambda: LuongAttention(5, 3, "dot"), 'use score="general"'),
        (lambda: LuongAttention(5, 3, units=4), "only concat has units"),
        (lambda: LuongAttention(0, 3), "query_size"),
        (lambda: BahdanauAttention(5, 3, 0), "units"),
    ],
)
def test_wrong_options(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize(
    ("query", "values", "lengths", "words"),
    [
        (torch.zeros(4, 5), torch.zeros(6, 4, 2), None, r"expects \[S, B, 3\]"),
        (torch.zeros(4, 5), torch.zeros(6, 3), None, "got a memory of shape"),
        (torch.zeros(4, 5), None, None, "got a memory of NoneType"),
        (torch.zeros(4, 5), torch.zeros(6, 4, 3), [7, 1, 1, 1], "length 7"),
        (torch.zeros(4, 4), torch.zeros(6, 4, 3), None, "got a query of shape"),
        (torch.zeros(3, 5), torch.zeros(6, 4, 3), None, "B = 4 like the memory"),
        (torch.zeros(5), torch.zeros(6, 4, 3), None, "got a query of shape"),
    ],
)
def test_wrong_calls(query: Tensor, values: Any, lengths: Any, words: str) -> None:
    attention = LuongAttention(5, 3)
    with pytest.raises(InputError, match=words):
        attention(query, attention.memory(values, lengths))
