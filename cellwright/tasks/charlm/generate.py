"""Text from a character model, one symbol at a time."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import DataError, OptionError
from ..data.tokens import Symbols
from .state import State

if TYPE_CHECKING:
    from .model import CharModel

TEMPERATURE = 0.8


def probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Logits [V] to the float64 probabilities [V] to draw from. The filters apply in the order of the arguments:

    temperature: softmax(logits / temperature); 0 gives all to the largest logit (the first of equals)
    top_k: only the k most probable symbols stay
    top_p: of those, only the fewest most probable ones whose share reaches top_p
    min_p: of those, only the ones at least min_p times as probable as the most probable one
    """
    logits = logits.double()
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(0, logits.argmax(0, keepdim=True), 1.0)
    # Without the largest logit in it, no temperature can make the quotient overflow to NaN.
    p = ((logits - logits.max()) / temperature).softmax(0)
    if top_k is None and top_p is None and min_p is None:
        return p
    p, order = p.sort(descending=True, stable=True)
    if top_k is not None:
        p[top_k:] = 0
    if top_p is not None:
        before = p.cumsum(0) - p
        p = p.where(before < top_p * p.sum(), 0)
    if min_p is not None:
        p = p.where(p >= min_p * p[0], 0)
    return torch.zeros_like(p).scatter_(0, order, p / p.sum())


def generate(
    model: "CharModel",
    vocabulary: Symbols,
    prompt: str = "",
    *,
    length: int = 500,
    temperature: float = TEMPERATURE,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """The continuation of a prompt, in pieces as they are written: `length` symbols, or fewer if one of `stop` comes.

    The model is put into evaluation mode. The same seed gives the same text. A piece is of whole characters, and
    bytes that are not UTF-8 become U+FFFD.
    OptionError: a value that is not possible. DataError: the prompt has characters outside the vocabulary.
    """
    _check(length, temperature, top_k, top_p, min_p, stop)
    ids = vocabulary.encode(prompt, "the prompt").tolist() or [vocabulary.start]
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    model.eval()
    symbols = _symbols(model, ids, length, generator, (temperature, top_k, top_p, min_p))
    return _until(_text(vocabulary, symbols), stop)


def _symbols(
    model: "CharModel",
    ids: list[int],
    length: int,
    generator: torch.Generator,
    filters: tuple[float, int | None, float | None, float | None],
) -> Iterator[int]:
    """The ids that follow `ids`.

    Each symbol takes one number of the generator, so a seed gives the same text symbol by symbol in one call or layer
    by layer.
    """
    device = next(model.parameters()).device
    temperature, plain = filters[0], filters[1:] == (None, None, None)
    state: State | None = None
    steps: Any = None
    for n in range(length):
        # Entered anew for each symbol: around the `yield` it would be in force in the caller's code as well.
        with torch.inference_mode():
            chance = torch.rand(1, generator=generator)
            if steps is not None and plain:
                symbol = int(steps.draw(chance, temperature))  # and it goes in next
            else:
                if steps is not None:
                    logits = steps.step()
                else:
                    logits, state = model(torch.tensor(ids, device=device).unsqueeze(1), state)  # [T, 1, V]
                    logits = logits[-1]
                symbol = _draw(probabilities(logits[0].cpu(), *filters), chance)
                if n == 0 and length > 1:
                    # The prompt went through the layers as a sequence; from here on it goes symbol by symbol.
                    steps = model.stepper(state)
                if steps is not None:
                    steps.ids[0] = symbol
            ids = [symbol]
        if symbol < 0:
            raise DataError("the model's logits are not numbers (NaN): the weights of this run are of no use")
        yield symbol


def _draw(p: Tensor, chance: Tensor) -> int:
    """The first symbol with which the sum of the probabilities [V] passes `chance`; -1 where they are not numbers."""
    total = p.cumsum(0)
    if not total[-1] > 0:
        return -1
    last = int(p.nonzero()[-1])  # rounding may keep the sum below the chance
    return min(int(torch.searchsorted(total, chance.double() * total[-1], right=True)), last)


def _text(vocabulary: Symbols, symbols: Iterator[int]) -> Iterator[str]:
    decoder = vocabulary.decoder()
    for symbol in symbols:
        if piece := decoder.push(symbol):
            yield piece
    if piece := decoder.finish():
        yield piece


def _until(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to and including the first of `stop`."""
    tail = ""
    keep = max(map(len, stop), default=0)
    for piece in pieces:
        for n, character in enumerate(piece, 1):
            tail = (tail + character)[-keep:] if keep else ""
            if any(tail.endswith(text) for text in stop):
                yield piece[:n]
                return
        yield piece


def _check(
    length: int, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, stop: Sequence[str]
) -> None:
    if length < 0:
        raise OptionError(f"--length {length}: a text has 0 or more symbols")
    if not 0 <= temperature < math.inf:
        raise OptionError(
            f"--temperature {temperature}: a number from 0 (always the most probable symbol) upwards is expected"
        )
    if top_k is not None and top_k < 1:
        raise OptionError(f"--top-k {top_k}: 1 or more symbols must stay; leave it away to keep all of them")
    if top_p is not None and not 0 < top_p <= 1:
        raise OptionError(
            f"--top-p {top_p}: a share above 0 and up to 1 is expected; leave it away to keep all symbols"
        )
    if min_p is not None and not 0 <= min_p <= 1:
        raise OptionError(f"--min-p {min_p}: a share from 0 to 1 is expected; leave it away to keep all symbols")
    if "" in stop:
        raise OptionError("--stop '': a text to stop at has one character or more")
