"""Attention over the outputs of an encoder: which of them a step of the decoder looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..emit.attention import Memory as Looked
from ..emit.attention import masked_softmax
from ..errors import InputError, OptionError
from ..lang import QUERY, Definition, with_attention
from ..lang.cell import positive
from ..nn.sequences import valid_steps, without_padding


@dataclass(frozen=True)
class Memory:
    """What an attention reads, made once for all steps.

    values: [B, S, M]. keys: [B, S, A]. valid: [B, 1, S] of bool, or None: all are.
    """

    values: Tensor
    keys: Tensor
    valid: Tensor | None

    def repeat(self, times: int) -> "Memory":
        """Each sequence `times` times, one beside the other: the memory of a beam."""
        parts = (self.values, self.keys, self.valid)
        return Memory(*(p if p is None else p.repeat_interleave(times, 0) for p in parts))  # type: ignore[arg-type]


class Attention(nn.Module):
    """A context for each query: the mean of a memory's values, weighted by how well the query fits them.

        a_s = softmax over the valid s of score(q, m_s)
        c   = sum_s a_s m_s                              of an empty memory: zero

    Derive from it to write a score: `keys` [B, S, M] -> [B, S, A] once per memory, `scores` per query.

    Args:
        query_size: Q, features of a query: the output of the decoder's layer.
        memory_size: M, features of a value: the output of the encoder.
    """

    #: Whether the context enters the recurrent step (Bahdanau) or is looked up after it (Luong).
    enters_the_step = False

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query_size = positive("query_size", query_size)
        self.memory_size = positive("memory_size", memory_size)

    def memory(self, values: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Memory:
        """What `forward` reads, from the outputs of an encoder: values [S, B, M], lengths [B] or None.

        InputError: wrong shapes or lengths.
        """
        if not isinstance(values, Tensor) or values.dim() != 3 or values.shape[-1] != self.memory_size:
            got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(f"got a memory of {got}, {type(self).__name__} expects [S, B, {self.memory_size}]")
        valid = valid_steps(lengths, values.shape[0], values.shape[1], values.device)
        if valid is not None:
            values, valid = without_padding(values, valid), valid.t().unsqueeze(1)
        values = values.transpose(0, 1).contiguous()
        return Memory(values, self.keys(values), valid)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Queries to contexts and weights.

        Args:
            query: [T, B, Q] for all steps at once, or [B, Q] for one.
            memory: from `memory`.

        Returns:
            context: [T, B, M] or [B, M].
            weights: [T, B, S] or [B, S]; they sum to 1 over the source, zero in its padding.
        """
        rows = memory.values.shape[0]
        if not isinstance(query, Tensor) or query.dim() not in (2, 3) or query.shape[-2:] != (rows, self.query_size):
            got = f"shape {list(query.shape)}" if isinstance(query, Tensor) else type(query).__name__
            raise InputError(
                f"got a query of {got}, {type(self).__name__} expects [T, B, Q] or [B, Q] with "
                f"Q = {self.query_size}, and B = {rows} like the memory"
            )
        q = query.unsqueeze(1) if query.dim() == 2 else query.transpose(0, 1)  # [B, T, Q]
        weights = masked_softmax(self.scores(q, memory.keys), memory.valid, -1)
        context = weights @ memory.values  # [B, T, M]
        if query.dim() == 2:
            return context.squeeze(1), weights.squeeze(1)
        return context.transpose(0, 1), weights.transpose(0, 1)

    def keys(self, values: Tensor) -> Tensor:
        """The part of the scores that depends on the memory alone."""
        raise NotImplementedError

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries [B, T, Q] and keys [B, S, A] to scores [B, T, S]."""
        raise NotImplementedError


class LuongAttention(Attention):
    """Multiplicative attention, looked up with the output of the decoder's layer after its step.

        "dot"      score(h_t, m_s) = h_t m_s             Q = M
        "general"  score(h_t, m_s) = h_t W m_s
        "concat"   score(h_t, m_s) = v tanh(W [h_t; m_s])

    As the layer does not wait for the context, it runs over all steps in one call, and so does the attention. "concat"
    holds B T S A numbers at once.

    Luong, Pham, Manning 2015, Effective Approaches to Attention-based Neural Machine Translation (global attention).

    Args:
        score: as above.
        units: A of "concat"; None: Q.
        query_size, memory_size: see `Attention`.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        score: str = "general",
        units: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(query_size, memory_size)
        if score not in ("dot", "general", "concat"):
            raise OptionError(f"got score={score!r}, expected dot, general or concat")
        if score == "dot" and query_size != memory_size:
            raise OptionError(
                f'got score="dot" with queries of {query_size} and a memory of {memory_size} features, which must '
                'be as many; use score="general"'
            )
        if score != "concat" and units is not None:
            raise OptionError(f"got units={units} with score={score!r}; only concat has units of its own")
        self.score = score
        if score == "general":
            self.weight = nn.Linear(memory_size, query_size, bias=False, device=device, dtype=dtype)
        elif score == "concat":
            self.additive = _Additive(query_size, memory_size, units, False, device, dtype)

    def keys(self, values: Tensor) -> Tensor:
        """W m_s for "general", m_s itself for "dot"."""
        made: Tensor = values
        if self.score == "general":
            made = self.weight(values)
        elif self.score == "concat":
            made = self.additive.memory(values)
        return made

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See the class."""
        made: Tensor = self.additive(query, keys) if self.score == "concat" else query @ keys.transpose(1, 2)
        return made

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"score={self.score!r}"


class BahdanauAttention(Attention):
    """Additive attention, looked up with the output before the step; its context is part of the step's input.

        score(h_{t-1}, m_s) = v tanh(W h_{t-1} + U m_s + b)
        h_t = recurrent([x_t; c_t], h_{t-1})

    Each step waits for its context and each context for the step before it. In a layer of one cell the look into the
    memory is a part of its equations, so that known symbols take one call for all steps. Other layers run as a loop
    with one call per step, also in training, which holds B S A numbers per step, and all of them for the way back.

    Bahdanau, Cho, Bengio 2015, Neural Machine Translation by Jointly Learning to Align and Translate.

    Args:
        units: A; None: Q.
        query_size, memory_size: see `Attention`.
    """

    enters_the_step = True

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        units: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(query_size, memory_size)
        self.additive = _Additive(query_size, memory_size, units, True, device, dtype)

    def keys(self, values: Tensor) -> Tensor:
        """U m_s + b."""
        made: Tensor = self.additive.memory(values)
        return made

    def equations(self, definition: Definition) -> Definition:
        """With the query W h as one more product."""
        return with_attention(definition, "additive", self.additive.query.out_features, self.memory_size)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What these equations have besides the cell's."""
        return {QUERY: self.additive.query.weight}

    def within(self, memory: Memory) -> Looked:
        """The memory as these equations read it."""
        keys, values = (v.transpose(0, 1) for v in (memory.keys, memory.values))
        valid = None if memory.valid is None else memory.valid.squeeze(1).t()
        return Looked(keys, values, self.additive.v.weight[0], valid)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """See the class."""
        made: Tensor = self.additive(query, keys)
        return made


class _Additive(nn.Module):
    """v tanh(W q + U m + b): a layer of A units that sees both. [W U] is one matrix on [q; m], cut in two."""

    def __init__(
        self, query_size: int, memory_size: int, units: int | None, bias: bool, device: Any, dtype: Any
    ) -> None:
        super().__init__()
        units = query_size if units is None else positive("units", units)
        self.query = nn.Linear(query_size, units, bias=False, device=device, dtype=dtype)
        self.memory = nn.Linear(memory_size, units, bias=bias, device=device, dtype=dtype)
        self.v = nn.Linear(units, 1, bias=False, device=device, dtype=dtype)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores: Tensor = self.v(torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        return scores
