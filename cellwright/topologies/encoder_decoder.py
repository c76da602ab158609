"""N to M: one sequence into another (translation, speech to text, captions)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import cells
from ..errors import InputError, OptionError
from ..lang import Equations
from ..lang.cell import positive
from ..nn import Recurrent
from ..nn.sequences import valid_steps, without_padding
from .attention import Attention, BahdanauAttention, LuongAttention, Memory
from .bridge import CopyBridge, LinearBridge
from .decoder import Decoded, Decoder, decoder_inputs
from .masks import batched, sequence, symbols
from .search import Hypotheses, beam_search
from .states import tensors
from .topology import dropout_of, time_first


class Encoder(nn.Module):
    """A sequence to the outputs of a layer, which an attention reads, and to its last state, which a bridge reads.

    Args:
        recurrent: any layer, also bidirectional.
        input: a module for what comes in, such as `nn.Embedding`; None: it goes into the layer as it is.
        dropout: on what goes into the layer.
    """

    def __init__(
        self,
        recurrent: Recurrent,
        *,
        input: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input, self.recurrent, self.dropout = input, time_first(recurrent, "Encoder"), dropout_of(dropout)

    def forward(
        self, source: Tensor, lengths: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Any, Sequence[int] | Tensor | None]:
        """source [S, B, ...], and [B] valid steps or None.

        Returns:
            values: [S, B, D*O], zero in the padding.
            state: after the last valid step.
            lengths: of the values, [B] or None: here those of the source.
        """
        x = sequence(source, "Encoder")
        valid = valid_steps(lengths, x.shape[0], x.shape[1], x.device)
        if isinstance(self.input, nn.Embedding):
            x = symbols(x, valid, self.input.num_embeddings, "the source")
        elif self.input is not None and valid is not None:
            x = without_padding(x, valid)
        x = x if self.input is None else self.input(x)
        x = self.dropout(x) if x.is_floating_point() else x
        output, state = self.recurrent(batched(x, "Encoder"), lengths=lengths)
        return output, state, lengths


class EncoderDecoder(nn.Module):
    """N to M: an encoder reads a sequence, a decoder writes another one, until its end symbol.

    `encoder_decoder(...)` makes one from sizes. From parts of one's own:

    Args:
        encoder: an `Encoder`, or any module called like one (over images, for captions).
        decoder: its embedding's V symbols include the start and the end symbol.
        bridge: "copy" (`CopyBridge`), "linear" (`LinearBridge`), or a module that makes a state of the decoder's layer;
            None: "copy" where it fits, else "linear". An encoder that is no `Encoder` needs a module.
        start: the first input of the decoder.
        end: the symbol after the last one of a sequence.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        *,
        bridge: str | nn.Module | None = None,
        start: int = 0,
        end: int = 1,
    ) -> None:
        super().__init__()
        V = decoder.embedding.num_embeddings
        for name, symbol in (("start", start), ("end", end)):
            if isinstance(symbol, bool) or not isinstance(symbol, int) or not 0 <= symbol < V:
                raise OptionError(f"got {name}={symbol!r}, expected a symbol of the decoder, 0 to {V - 1}")
        self.encoder, self.decoder, self.start, self.end = encoder, decoder, start, end
        self.bridge = bridge if isinstance(bridge, nn.Module) else _bridge(bridge, encoder, decoder)

    def encode(self, source: Tensor, source_lengths: Sequence[int] | Tensor | None = None) -> tuple[Any, Memory | None]:
        """What the decoder begins with: its state, and the memory of its attention (None without attention)."""
        values, last, lengths = self.encoder(source, source_lengths)
        attention = self.decoder.attention
        memory = None if attention is None else attention.memory(values, lengths)
        return self.decoder.start(values.shape[1], self.bridge(last)), memory

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_lengths: Sequence[int] | Tensor | None = None,
        target_lengths: Sequence[int] | Tensor | None = None,
        sampling: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Decoded:
        """The logits of a known target and of the end symbol after it.

        Args:
            source: [S, B, ...] for the encoder.
            target: integers [T, B], without start and end symbols.
            source_lengths, target_lengths: [B] valid steps; None: all.
            sampling, generator: see `Decoder.forward`.

        Returns:
            logits [T + 1, B, V], the state after them, weights [T + 1, B, S] or None. Step t predicts symbol t.

        InputError: wrong shapes, dtypes, lengths or rates, and symbols outside of 0 to V - 1.
        """
        inputs, _, lengths = self.shift(target, target_lengths)
        state, memory = self._encode_for(target, source, source_lengths)
        decoded: Decoded = self.decoder(inputs, state, memory, lengths=lengths, sampling=sampling, generator=generator)
        return decoded

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_lengths: Sequence[int] | Tensor | None = None,
        target_lengths: Sequence[int] | Tensor | None = None,
        sampling: float = 0.0,
        generator: torch.Generator | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The mean of -ln p over all symbols of the targets and their end symbols, in nats per symbol: a scalar.

        The same as `sequence_cross_entropy` of `forward`, but the padding takes no part in the product with V. For the
        arguments and errors see `forward`. InputError also for a batch without sequences.
        """
        inputs, wanted, lengths = self.shift(target, target_lengths)
        if not wanted.shape[1]:
            raise InputError("got a batch without any sequence, expected at least one: there is nothing to average")
        state, memory = self._encode_for(target, source, source_lengths)
        a, _, _ = self.decoder.read(inputs, state, memory, lengths=lengths, sampling=sampling, generator=generator)
        valid = valid_steps(lengths, inputs.shape[0], inputs.shape[1], inputs.device)
        a, wanted = (a.flatten(0, 1), wanted.flatten()) if valid is None else (a[valid], wanted[valid])
        return F.cross_entropy(self.decoder.output(a), wanted, label_smoothing=label_smoothing)

    def shift(
        self, target: Tensor, lengths: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Targets [T, B] to the inputs of the decoder, [start, y_1 ... y_n], what they predict, [y_1 ... y_n, end],
        both [T + 1, B], and their lengths, [B] or None."""
        target = _whole(target)
        valid = valid_steps(lengths, target.shape[0], target.shape[1], target.device)
        target = symbols(target, valid, self.decoder.embedding.num_embeddings, "the targets")
        target = target if valid is None else target.masked_fill(~valid, self.end)
        edge = target.new_full((1, target.shape[1]), self.end)
        inputs = torch.cat([torch.full_like(edge, self.start), target])
        return inputs, torch.cat([target, edge]), None if valid is None else valid.sum(0) + 1

    def greedy(
        self, source: Tensor, source_lengths: Sequence[int] | Tensor | None = None, *, max_length: int
    ) -> Hypotheses:
        """At every step the most probable symbol; see `greedy_search`. Call `eval()` before: no dropout then."""
        return self.beam(source, source_lengths, max_length=max_length, beam_width=1, alpha=0.0)

    @torch.no_grad()
    def beam(
        self,
        source: Tensor,
        source_lengths: Sequence[int] | Tensor | None = None,
        *,
        max_length: int,
        beam_width: int = 5,
        alpha: float = 0.6,
        never: Sequence[int] = (),
    ) -> Hypotheses:
        """The best of `beam_width` beginnings, with a length penalty; see `beam_search`. Call `eval()` before.

        `never`: symbols that are not written, such as the one for unknown words; the others share their probability.
        """
        V = self.decoder.embedding.num_embeddings
        if any(not 0 <= symbol < V for symbol in never):
            raise OptionError(f"got never={tuple(never)}, expected symbols of the decoder, 0 to {V - 1}")
        state, memory = self.encode(source, source_lengths)
        B = tensors(state)[0].shape[-2]
        repeated = None if memory is None else memory.repeat(beam_width)
        start = torch.full((B,), self.start, device=self.decoder.output.weight.device)
        left_out = torch.tensor(list(never), dtype=torch.long, device=start.device)

        def step(ids: Tensor, state: Any) -> tuple[Tensor, Any]:
            logits, after = self.decoder.step(ids, state, repeated)
            return logits.index_fill(-1, left_out, -torch.inf), after

        return beam_search(
            step,
            state,
            start,
            end=self.end,
            max_length=max_length,
            beam_width=beam_width,
            alpha=alpha,
        )

    def _encode_for(self, target: Tensor, source: Tensor, source_lengths: Any) -> tuple[Any, Memory | None]:
        state, memory = self.encode(source, source_lengths)
        B = tensors(state)[0].shape[-2]
        if target.shape[1] != B:
            raise InputError(f"got {B} sources and {target.shape[1]} targets, expected one target [T] for each source")
        return state, memory


def _whole(target: Any) -> Tensor:
    if not isinstance(target, Tensor) or target.dim() != 2:
        got = f"shape {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise InputError(f"got targets of {got}, expected integers [T, B]")
    return target


def _bridge(bridge: str | None, encoder: nn.Module, decoder: Decoder) -> nn.Module:
    if bridge not in (None, "copy", "linear"):
        raise OptionError(f"got bridge={bridge!r}, expected copy, linear or a module")
    if not isinstance(encoder, Encoder):
        raise OptionError(
            f"got a {type(encoder).__name__} as encoder, which needs a module as bridge to the decoder's state"
        )
    layers = encoder.recurrent, decoder.recurrent
    if bridge == "copy" or (bridge is None and CopyBridge.fits(*layers)):
        return CopyBridge(*layers)
    return LinearBridge(*layers)


ATTENTIONS = ("luong", "luong-dot", "luong-concat", "bahdanau")


def encoder_decoder(
    source_vocabulary: int,
    target_vocabulary: int,
    hidden_size: int,
    *,
    cell: str | type[Equations] = "lstm",
    num_layers: int = 1,
    attention: str | None = "luong",
    embedding_size: int | None = None,
    bidirectional: bool = False,
    dropout: float = 0.0,
    input_feeding: bool = False,
    bridge: str | None = None,
    start: int = 0,
    end: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> EncoderDecoder:
    """An `EncoderDecoder` from sizes.

    Args:
        source_vocabulary: symbols of the source.
        target_vocabulary: V, symbols of the target, with the start and the end symbol.
        hidden_size: H, of all layers and of a_t.
        cell: a name ("rnn", "lstm", "gru", "mine.py:Mine") or a class of cells.
        num_layers: L, of encoder and decoder.
        attention: "luong" (score "general"), "luong-dot", "luong-concat", "bahdanau", or None.
        embedding_size: E, of both embeddings; None: H.
        bidirectional: the encoder reads in both directions.
        dropout: on all embedded symbols, between the layers and on a_t.
        options: of the cell; the rest as in `Decoder` and `EncoderDecoder`.

    OptionError: unknown cells, attentions, bridges and options, and values that do not fit.
    """
    like: dict[str, Any] = {"device": device, "dtype": dtype}
    kind = cells.find(cell) if isinstance(cell, str) else cell
    sources = positive("source_vocabulary", source_vocabulary)
    targets = positive("target_vocabulary", target_vocabulary)
    H = positive("hidden_size", hidden_size)
    E = H if embedding_size is None else positive("embedding_size", embedding_size)
    between = dropout if num_layers > 1 else 0.0

    def layer(input_size: int, both: bool) -> Recurrent:
        return Recurrent(kind, input_size, H, num_layers, dropout=between, bidirectional=both, **like, **options)

    encoder = layer(E, bidirectional)
    # The size of a cell's output does not depend on that of its input.
    output = encoder.output_size // encoder.directions
    looks = _attention(attention, output, encoder.output_size, like)
    decoder = Decoder(
        nn.Embedding(targets, E, **like),
        layer(decoder_inputs(E, H, looks, input_feeding), False),
        attention=looks,
        features=None if looks is None else H,
        dropout=dropout,
        input_feeding=input_feeding,
    )
    source = Encoder(encoder, input=nn.Embedding(sources, E, **like), dropout=dropout)
    return EncoderDecoder(source, decoder, bridge=bridge, start=start, end=end)


def _attention(name: str | None, query_size: int, memory_size: int, like: dict[str, Any]) -> Attention | None:
    if name is None:
        return None
    if name not in ATTENTIONS:
        raise OptionError(f"got attention={name!r}, expected {', '.join(ATTENTIONS)} or None")
    if name == "bahdanau":
        return BahdanauAttention(query_size, memory_size, **like)
    return LuongAttention(query_size, memory_size, name.removeprefix("luong").lstrip("-") or "general", **like)
