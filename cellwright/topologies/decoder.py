"""The second half of N to M: a net that writes one symbol after the other, with or without attention."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, OptionError
from ..nn import Recurrent
from ..nn.attended import Attended
from ..nn.sequences import valid_steps, without_padding
from .attention import Attention, BahdanauAttention, Memory
from .masks import symbols
from .states import kept, zero_state
from .topology import dropout_of, linear, time_first


class Decoded(NamedTuple):
    """What a decoder gives.

    logits: [T, B, V], zero in the padding.
    state: after the last valid step, to go on with.
    weights: [T, B, S] of the attention; None without attention.
    """

    logits: Tensor
    state: Any
    weights: Tensor | None


class Decoder(nn.Module):
    """Symbols to the logits of the symbols that follow them.

        x_t = E s_t
        h_t = recurrent(x_t, h_{t-1})
        a_t = tanh(W [h_t; c_t])               c_t: context of h_t; without attention a_t = h_t
        p(s_{t+1} | s_1 ... s_t) = softmax(V a_t + b)

    When all s_t are given (teacher forcing), this is one call of the layer and one of the attention for all steps. With
    BahdanauAttention it is one call for a layer of one cell; stacks, and another form, need one call per step, also in
    training:

        BahdanauAttention       h_t = recurrent([x_t; c_t], h_{t-1}),  c_t: context of h_{t-1}
        input_feeding=True      h_t = recurrent([x_t; a_{t-1}], h_{t-1}),  a_0 = 0               (Luong 2015, 3.3)

    and so does scheduled sampling (Bengio et al. 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural
    Networks). Bahdanau's maxout output layer is replaced by the same a_t.

    A state is a pair: that of the layer, and a_{t-1} [B, A], which is () without input feeding. `state=None` is zero.

    Args:
        embedding: of V symbols in E features.
        recurrent: a layer in one direction; its input has E features, plus M for BahdanauAttention, plus A for input
            feeding.
        attention: None: all that is known of a source is in the state.
        features: A, of a_t; None: O. Only with attention.
        dropout: on x_t and a_t.
        input_feeding: see above; only with LuongAttention.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        recurrent: Recurrent,
        *,
        attention: Attention | None = None,
        features: int | None = None,
        dropout: float = 0.0,
        input_feeding: bool = False,
    ) -> None:
        super().__init__()
        O = recurrent.output_size if isinstance(recurrent, Recurrent) else 0
        if attention is None and (features is not None or input_feeding):
            raise OptionError("got features or input_feeding without attention, expected them only with it")
        if attention is not None and attention.enters_the_step and input_feeding:
            raise OptionError(f"got input_feeding with {type(attention).__name__}, whose context is fed in already")
        self.features = O if features is None else features
        self.input_feeding = bool(input_feeding)
        self.embedding, self.attention, self.dropout = embedding, attention, dropout_of(dropout)
        self.recurrent = time_first(recurrent, type(self).__name__, directions=1)
        wants = decoder_inputs(embedding.embedding_dim, self.features, attention, input_feeding)
        if recurrent.input_size != wants:
            raise OptionError(
                f"got a layer with input_size={recurrent.input_size}, expected {wants}: the embedding's "
                f"{embedding.embedding_dim} features and what is fed in beside them"
            )
        if attention is not None:
            if attention.query_size != O:
                raise OptionError(
                    f"got an attention with query_size={attention.query_size}, expected {O} like the layer"
                )
            self.combine = linear(recurrent, O + attention.memory_size, self.features, bias=False)
        self.output = linear(recurrent, self.features, embedding.num_embeddings)
        self._attended = None
        if isinstance(attention, BahdanauAttention) and Attended.fits(recurrent):
            self._attended = Attended(recurrent, attention.equations)

    @property
    def loops(self) -> bool:
        """Whether each step waits for the one before it, so that also known symbols go one step at a time."""
        waits = self.attention is not None and self.attention.enters_the_step and self._attended is None
        return self.input_feeding or waits

    def start(self, B: int, recurrent_state: Any = None) -> tuple[Any, Any]:
        """The state before the first step, from one of the layer, such as a bridge gives; None: zero."""
        state = zero_state(self.recurrent, B) if recurrent_state is None else recurrent_state
        return state, self.output.weight.new_zeros(B, self.features) if self.input_feeding else ()

    def forward(
        self,
        ids: Tensor,
        state: Any = None,
        memory: Memory | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        sampling: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """Symbols to the logits of the next ones.

        Args:
            ids: integers [T, B]: the start symbol and the right symbols (teacher forcing).
            state: before the first step, from `start` or from a call before; None: zero.
            memory: `attention.memory(...)`; None without attention.
            lengths: [B] valid steps of each sequence, 0 to T.
            sampling: the chance that a step after the first one is given a symbol drawn from what the net itself
                predicted for it, in place of the right one. 0: teacher forcing; 1: the net is on its own. No gradient
                goes through the draw.
            generator: for these draws, on the device of the weights; None: torch's own.

        InputError: wrong shapes, dtypes, lengths or rates, and symbols outside of 0 to V - 1.
        """
        features, state, weights = self.read(
            ids, state, memory, lengths=lengths, sampling=sampling, generator=generator
        )
        valid = valid_steps(lengths, ids.shape[0], ids.shape[1], ids.device)
        logits: Tensor = self.output(features)
        return Decoded(logits if valid is None else without_padding(logits, valid), state, weights)

    def read(
        self,
        ids: Tensor,
        state: Any = None,
        memory: Memory | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        sampling: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """`forward` up to the last product: a_t [T, B, A], state and weights. `output` makes logits of a_t."""
        if not isinstance(ids, Tensor) or ids.dim() != 2:
            got = f"shape {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
            raise InputError(f"got symbols of {got}, expected integers [T, B]")
        if not isinstance(sampling, (int, float)) or not 0 <= sampling <= 1:
            raise InputError(f"got sampling={sampling!r}, expected a chance from 0 to 1")
        if (memory is None) != (self.attention is None):
            raise InputError(
                "got no memory for the attention, expected attention.memory(values, lengths)"
                if memory is None
                else "got a memory for a decoder without attention"
            )
        valid = valid_steps(lengths, ids.shape[0], ids.shape[1], ids.device)
        ids = symbols(ids, valid, self.embedding.num_embeddings, "the symbols of a decoder")
        state = self.start(ids.shape[1]) if state is None else state
        if sampling or self.loops:
            return self._loop(ids, state, memory, valid, sampling, generator)
        x, found = self.dropout(self.embedding(ids)), None
        if self._attended is not None and memory is not None:
            look, x = self.attention, F.pad(x, (0, memory.values.shape[-1]))
            assert isinstance(look, BahdanauAttention)
            batch, befores = self.recurrent._read(x, state[0], lengths, None)
            done = self._attended(self.recurrent, look.weights, look.within(memory), batch, befores[0][0])
            h, after = done.output, self.recurrent._give_state([[done.last]], True)
            found = (done.weights.transpose(0, 1) @ memory.values).transpose(0, 1), done.weights
        else:
            h, after = self.recurrent(x, state[0], lengths=lengths)
        a, weights_of_steps = self._look(h, memory, found)
        return a, (after, ()), weights_of_steps

    def step(self, ids: Tensor, state: Any, memory: Memory | None = None) -> tuple[Tensor, Any]:
        """One step of every sequence: symbols [B] and the state before them to logits [B, V] and the state after them.

        Without any check: the step of a search.
        """
        a, state, _ = self._step(self.embedding(ids), state, memory)
        return self.output(a), state

    def _look(self, h: Tensor, memory: Memory | None, found: Any = None) -> tuple[Tensor, Tensor | None]:
        """Outputs of the layer, [T, B, O] or [B, O], to a and the weights; `found`: context and weights, if known."""
        if self.attention is None:
            return self.dropout(h), None
        context, weights = self.attention(h, memory) if found is None else found
        return self.dropout(torch.tanh(self.combine(torch.cat([h, context], -1)))), weights

    def _step(self, x: Tensor, state: Any, memory: Memory | None) -> tuple[Tensor, Any, Tensor | None]:
        """One step of embedded symbols [B, E]."""
        before, fed = state
        x, found = self.dropout(x), None
        if self.attention is not None and self.attention.enters_the_step:
            found = self.attention(self.recurrent.last_output(before), memory)
            x = torch.cat([x, found[0]], -1)
        elif self.input_feeding:
            x = torch.cat([x, fed], -1)
        h, after = self.recurrent(x.unsqueeze(0), before)
        a, weights = self._look(h.squeeze(0), memory, found)
        return a, (after, a if self.input_feeding else ()), weights

    def _loop(
        self,
        ids: Tensor,
        state: Any,
        memory: Memory | None,
        valid: Tensor | None,
        sampling: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Any, Tensor | None]:
        T, B = ids.shape
        if not T:
            a = self.output.weight.new_zeros(0, B, self.features)
            return a, state, None if memory is None else memory.values.new_zeros(0, B, memory.values.shape[1])
        found: list[Tensor] = []
        looked: list[Tensor | None] = []
        for t in range(T):
            now = ids[t]
            if t and sampling:
                with torch.no_grad():
                    drawn = torch.multinomial(self.output(found[-1]).float().softmax(-1), 1, generator=generator)
                    own = torch.rand(B, device=ids.device, generator=generator) < sampling
                    now = torch.where(own, drawn.squeeze(-1), now)
            a, after, weights = self._step(self.embedding(now), state, memory)
            state = after if valid is None else kept(valid[t], after, state)
            found.append(a)
            looked.append(weights)
        return torch.stack(found), state, None if memory is None else torch.stack(looked)  # type: ignore[arg-type]


def decoder_inputs(embedding_size: int, features: int, attention: Attention | None, input_feeding: bool) -> int:
    """Features of one input of a decoder's layer: the symbol's and what is fed in beside them."""
    entering = attention.memory_size if attention is not None and attention.enters_the_step else 0
    return embedding_size + entering + (features if input_feeding else 0)


def inverse_sigmoid_decay(step: int, k: float) -> float:
    """The chance of the right symbol in scheduled sampling, k / (k + e^(step / k)): 1 - it is `sampling`.

    It falls from nearly 1 to 0, fastest at step k ln k. k: at least 1. Bengio et al. 2015, section 2.4.
    """
    if not k >= 1 or step < 0:
        raise OptionError(f"got step={step!r} and k={k!r}, expected a step of at least 0 and k of at least 1")
    return k / (k + math.exp(min(step / k, 700.0)))
