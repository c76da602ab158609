"""Topologies: what goes in and what comes out of a recurrent net, as small modules around any layer of `cellwright`.

    OneToOne        [B, ...] -> [B, K]              one step
    ManyToMany      [T, B, ...] -> [T, B, K]        N to N
    ManyToOne       [T, B, ...] -> [B, K]           N to 1: last valid state, mean, max or attention over valid steps
    OneToMany       [B, ...] -> [T, B, K]           1 to N: the input at the first step, or at every step
    EncoderDecoder  [S, B, ...] -> [T, B, V]        N to M: attention, scheduled sampling, greedy and beam search

Time is in front. `lengths=` says how many steps of each sequence are valid: what the padding holds changes no result
and no gradient, and outputs are zero there. The first four give `(output, state)`, as the layers do.
"""

from .attention import Attention, BahdanauAttention, LuongAttention, Memory
from .bridge import CopyBridge, LinearBridge
from .decoder import Decoded, Decoder, inverse_sigmoid_decay
from .encoder_decoder import Encoder, EncoderDecoder, encoder_decoder
from .losses import sequence_cross_entropy, sequence_mse
from .many_to_many import ManyToMany, OneToOne
from .many_to_one import AttentionPool, ManyToOne, MaxPool, MeanPool
from .one_to_many import OneToMany
from .search import Hypotheses, beam_search, greedy_search, length_penalty

__all__ = [
    "Attention",
    "AttentionPool",
    "BahdanauAttention",
    "CopyBridge",
    "Decoded",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "Hypotheses",
    "LinearBridge",
    "LuongAttention",
    "ManyToMany",
    "ManyToOne",
    "MaxPool",
    "MeanPool",
    "Memory",
    "OneToMany",
    "OneToOne",
    "beam_search",
    "encoder_decoder",
    "greedy_search",
    "inverse_sigmoid_decay",
    "length_penalty",
    "sequence_cross_entropy",
    "sequence_mse",
]
