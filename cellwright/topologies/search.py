"""The most probable sequences of a net that gives one symbol after the other: greedy, or with a beam.

A step function is called as `step(ids [N], state) -> (logits [N, V], state)`. A state is a tensor with the N rows in
its last dimension but one, [..., N, units], as those of the layers and of `Decoder`, or a tuple of such of any depth.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, OptionError
from ..lang.cell import positive
from .states import map_state, select

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Hypotheses:
    """What a search found, the best one first: B sequences with K hypotheses each.

    ids: [T, B, K] without the end symbol; filled up with it.
    lengths: [B, K] symbols of each, the end symbol not counted.
    finished: [B, K]; false where a hypothesis has no end symbol within the steps that were allowed.
    log_probability: [B, K] of all its symbols, with the end symbol, in nats; -inf where there is no further hypothesis.
    score: [B, K] log_probability / length_penalty.
    """

    ids: Tensor
    lengths: Tensor
    finished: Tensor
    log_probability: Tensor
    score: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """ids [T, B] and lengths [B] of the best hypothesis of each sequence."""
        return self.ids[:, :, 0], self.lengths[:, 0]


def length_penalty(length: float, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / (5 + 1))^alpha, by which a log-probability is divided: alpha > 0 lengthens what is found.

    |Y|: symbols, with the end symbol. Wu et al. 2016, Google's Neural Machine Translation System, equation 14.
    """
    return float(((5 + length) / 6) ** alpha)


@torch.no_grad()
def greedy_search(step: Step, state: Any, start: Tensor, *, end: int, max_length: int) -> Hypotheses:
    """At every step the most probable symbol (of equals the smaller one), until the end symbol: a beam of width 1.

    Args:
        step: see the module.
        state: before the first step.
        start: integers [B], the first input of each sequence.
        end: the symbol that ends a sequence.
        max_length: symbols of a sequence at most, the end symbol included.

    InputError, OptionError: wrong shapes and values.
    """
    return beam_search(step, state, start, end=end, max_length=max_length, beam_width=1, alpha=0.0)


@torch.no_grad()
def beam_search(
    step: Step, state: Any, start: Tensor, *, end: int, max_length: int, beam_width: int = 5, alpha: float = 0.6
) -> Hypotheses:
    """The best sequences among those whose beginnings are always among the best of their length.

    Each step extends K beginnings by every symbol. Of these, best first (equals: the better beginning, then the smaller
    symbol), those that end among the first K are hypotheses, and the first K that do not end go on. A sequence is
    done when it has K hypotheses, or after max_length steps, when the beginnings count as hypotheses without an end.
    Hypotheses are ranked by log p(Y) / lp(Y).

    Args:
        beam_width: K, at least 1.
        alpha: of `length_penalty`, at least 0; 0: ranked by the probability.
        step, state, start, end, max_length: see `greedy_search`.

    InputError, OptionError: wrong shapes and values.
    """
    K, steps = positive("beam_width", beam_width), positive("max_length", max_length)
    if not isinstance(alpha, (int, float)) or not 0 <= alpha < float("inf"):
        raise OptionError(f"got alpha={alpha!r}, expected a number of at least 0")
    if not isinstance(start, Tensor) or start.dim() != 1 or start.is_floating_point():
        got = f"{start.dtype} {list(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise InputError(f"got {got} as the first inputs of a search, expected integers [B]")
    B = len(start)
    first_rows = torch.arange(B, device=start.device).unsqueeze(1) * K
    state = map_state(lambda s: s.repeat_interleave(K, -2), state)
    ids = start.long().repeat_interleave(K)
    texts = ids.new_empty(B, K, 0)  # the beginnings
    found, live = None, None  # live: [B, K], their log-probabilities
    for t in range(1, steps + 1):
        logits, state = step(ids, state)
        log_p = _log_probabilities(logits, B * K, end)
        V = log_p.shape[-1]
        log_p = log_p.view(B, K, V)
        if found is None or live is None:
            found, live = _Found.none(texts, log_p), torch.full_like(log_p[:, :, 0], -torch.inf)
            live[:, 0] = 0  # the K beginnings are still the same one
        open_ = ~found.full()
        scores, places = _best((live.unsqueeze(-1) + log_p).flatten(1), min(2 * K, K * V))  # [B, 2K]
        rows, new = places // V, places % V
        ends = new == end
        counts = ends[:, :K] & open_.unsqueeze(1)
        found = found.longer(end)
        if counts.any():
            ended = torch.cat([_of(texts, rows[:, :K]), new[:, :K].unsqueeze(-1)], -1)
            found = found.add(ended, scores[:, :K].masked_fill(~counts, -torch.inf), t, alpha, True)
        going = ends.long().sort(dim=1, stable=True).indices[:, :K]  # at most K of the 2K have ended
        live = scores.masked_fill(ends, -torch.inf).gather(1, going)
        rows, ids = rows.gather(1, going), new.gather(1, going).flatten()
        texts = torch.cat([_of(texts, rows), ids.view(B, K, 1)], -1)
        open_ = ~found.full() & (live > -torch.inf).any(1)
        if not open_.any():
            break
        state = select(state, (first_rows + rows).flatten())
    else:
        assert found is not None
        assert live is not None
        found = found.add(texts, live.masked_fill(~open_.unsqueeze(1), -torch.inf), steps, alpha, False)
    return found.hypotheses(end)


@dataclass(frozen=True)
class _Found:
    """The K best hypotheses so far: `texts` [B, K, t], the others [B, K]; those that are not there have -inf."""

    texts: Tensor
    lengths: Tensor
    finished: Tensor
    log_p: Tensor
    scores: Tensor

    @classmethod
    def none(cls, texts: Tensor, like: Tensor) -> "_Found":
        rows = texts.shape[:2]
        nothing = like.new_full(rows, -torch.inf)
        return cls(texts, texts.new_zeros(rows), torch.zeros_like(nothing, dtype=torch.bool), nothing, nothing)

    def full(self) -> Tensor:
        """[B]: there are K."""
        return (self.log_p > -torch.inf).all(1)

    def longer(self, end: int) -> "_Found":
        return replace(self, texts=torch.cat([self.texts, torch.full_like(self.lengths, end).unsqueeze(-1)], -1))

    def add(self, texts: Tensor, log_p: Tensor, symbols: int, alpha: float, finished: bool) -> "_Found":
        """With K more of as many symbols, the end symbol counted; of equals, the older one is better."""
        scores = torch.cat([self.scores, log_p / length_penalty(symbols, alpha)], 1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        K = log_p.shape[1]
        order = order[:, :K]
        return _Found(
            _of(torch.cat([self.texts, texts], 1), order),
            torch.cat([self.lengths, torch.full_like(self.lengths, symbols - finished)], 1).gather(1, order),
            torch.cat([self.finished, torch.full_like(self.finished, finished)], 1).gather(1, order),
            torch.cat([self.log_p, log_p], 1).gather(1, order),
            scores[:, :K],
        )

    def hypotheses(self, end: int) -> Hypotheses:
        there = self.log_p > -torch.inf
        lengths = self.lengths * there
        texts = self.texts.masked_fill(~there.unsqueeze(-1), end)[:, :, : int(lengths.max()) if len(lengths) else 0]
        return Hypotheses(texts.permute(2, 0, 1), lengths, self.finished & there, self.log_p, self.scores)


def _of(texts: Tensor, rows: Tensor) -> Tensor:
    """The texts [B, K, t] of some beginnings [B, N], in their order."""
    return texts.gather(1, rows.unsqueeze(-1).expand(-1, -1, texts.shape[-1]))


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of scores [B, N], and their places; of equals, the one further to the left."""
    values, places = scores.topk(count, 1)
    if ((scores >= values[:, -1:]).sum(1) > count).any():  # which of the last ones, topk does not say
        values, places = (t[:, :count] for t in scores.sort(dim=1, descending=True, stable=True))
        return values, places
    places = places.sort(1).values
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)


def _log_probabilities(logits: Any, rows: int, end: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != rows or not logits.shape[1]:
        got = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"got logits of {got} from a step, expected [{rows}, V]")
    if not 0 <= end < logits.shape[1]:
        raise OptionError(f"got the end symbol {end!r}, expected 0 to {logits.shape[1] - 1}")
    log_p = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    log_p = log_p.log_softmax(-1)
    if log_p.isnan().any():
        raise InputError("got logits from a step that are not numbers (NaN), or all -inf in one row")
    return log_p
