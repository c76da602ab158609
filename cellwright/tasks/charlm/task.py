"""The training of a character model: its text in chunks, and how well it predicts one.

By truncated back-propagation through time: the state goes on from chunk to chunk, its gradient does not.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...errors import DataError
from ..data.tokens import LIMITS, Symbols, Words
from ..task import Task
from .config import CharLMConfig
from .model import CharModel
from .state import State, detach, flatten, unflatten
from .streams import IGNORE, Streams, cuts, evaluation_chunks, stored
from .text import Corpus

PER_CHARACTER = "bits per character"
VALIDATION_LIMIT = 100_000  # symbols looked at by the evaluations during the training
_EVALUATION_STREAM = 4000  # symbols per stream at least: each stream begins without any context
_EVALUATION_STREAMS = 64
_EVALUATION_CHUNK = 256
_EVALUATION_LOGITS = 2**24  # numbers in memory at once


def unit_of(vocabulary: Symbols) -> str:
    """What is counted."""
    return {"char": "character", "byte": "byte"}.get(vocabulary.level, "token")


@dataclass(frozen=True)
class Evaluation:
    """The sum of -ln p over `count` predicted symbols."""

    total: float
    count: int

    @property
    def nats(self) -> float:
        """-ln p per symbol."""
        return self.total / self.count


@dataclass(frozen=True)
class Spelling:
    """From nats per symbol of a text to its bits per character, by which levels compare.

    `symbols`, `characters`: how long the text is. `unknown`: how many of its words are <unk>. Nothing has learned to
    spell these; `spelled` bytes, with one for the end of each, are counted with 8 bits each.
    """

    symbols: int
    characters: int
    unknown: int
    spelled: int

    @classmethod
    def of(cls, vocabulary: Symbols, symbols: int, characters: int, pieces: Iterable[str]) -> "Spelling":
        """That of a text in pieces."""
        unknown = vocabulary.unknown(pieces) if isinstance(vocabulary, Words) else (0, 0)
        return cls(symbols, characters, *unknown)

    def bits(self, nats: float) -> float:
        """Bits per character; `nats` per symbol."""
        return (nats / math.log(2) * self.symbols + 8 * self.spelled) / max(self.characters, 1)

    def words(self, what: str) -> str:
        """How many of `what` are unknown and how they count; empty where every word is known."""
        share = self.unknown / max(self.symbols, 1)
        return f"{share:.1%} of the {what} are <unk>, each spelled at 8 bits per byte" if self.unknown else ""


@torch.no_grad()
def evaluate(model: CharModel, ids: NDArray[Any]) -> Evaluation:
    """How well the model, put into evaluation mode, predicts each of `ids` [N] but the first. DataError: N < 2."""
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} symbol(s) has nothing to predict; at least 2 are needed")
    model.eval()
    device = next(model.parameters()).device
    streams = min(_EVALUATION_STREAMS, max(1, len(ids) // _EVALUATION_STREAM))
    chunk = max(1, min(_EVALUATION_CHUNK, _EVALUATION_LOGITS // (streams * model.output.out_features)))
    total = torch.zeros((), dtype=torch.float64, device=device)
    state: State | None = None
    for x, y in evaluation_chunks(ids, streams, chunk):
        logits, state = model(x.to(device), state)
        target = y.to(device).flatten()
        losses = cross_entropy(logits.flatten(0, 1), target, reduction="none", ignore_index=IGNORE)
        total += losses.sum(dtype=torch.float64)
    return Evaluation(total.item(), len(ids) - 1)


class CharLM(Task):
    """The task that the training loop sees: a model, its text, and the state carried from chunk to chunk."""

    model: CharModel

    def __init__(self, config: CharLMConfig, model: CharModel, vocabulary: Symbols, corpus: Corpus) -> None:
        """`corpus`: the whole text. DataError: it is too short for one chunk, one validation and one test symbol."""
        self.model = model
        self.unit = unit_of(vocabulary)
        self.tokens, self.words = vocabulary.level in LIMITS, isinstance(vocabulary, Words)
        self.better = {"loss": -1, **({PER_CHARACTER: -1} if self.tokens else {})}
        bounds = (0, *cuts(corpus.characters, config.validation, config.test), corpus.characters)
        if vocabulary.level == "byte":
            ids = corpus.utf8
            middle, last = cuts(len(ids), config.validation, config.test)
            parts = (ids[:middle], ids[middle:last], ids[last:])
        else:
            found = stored(vocabulary, (corpus.pieces(*span) for span in pairwise(bounds)))
            parts = (found[0], found[1], found[2])
        training, self.validation_ids, self.test_ids = parts
        self.spelling = [
            Spelling.of(vocabulary, len(ids), stop - start, corpus.pieces(start, stop))
            for ids, (start, stop) in zip(parts[1:], pairwise(bounds[1:]), strict=True)
        ]  # of validation and test
        _long_enough(config, self.unit, *map(len, parts))
        self.training_count = len(training)
        self.streams = Streams(training, config.batch, config.chunk)
        self.per_step = config.batch * config.chunk
        self._device = next(model.parameters()).device
        self._state: State | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The chunk of each stream, and what follows on each of its symbols, [T, B]."""
        x, y = self.streams(step % self.streams.chunks)
        return x.to(self._device), y.to(self._device)

    def criterion(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """Mean -ln p over the chunk. An epoch begins with a zero state."""
        x, y = batch
        logits, state = self.model(x, self._state if step % self.streams.chunks else None)
        self._state = detach(state)
        return cross_entropy(logits.flatten(0, 1), y.flatten())

    def carried(self) -> dict[str, Tensor]:
        """The state to go on with, as tensors by name."""
        return {} if self._state is None else flatten(self._state)

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the state of `carried`."""
        self._state = unflatten(tensors) if tensors else None

    def validate(self) -> dict[str, float]:
        """Nats per symbol on the validation text, or on its beginning if that is long; it is spelled as the whole."""
        return self._measured(evaluate(self.model, self.validation_ids[: VALIDATION_LIMIT + 1]).nats, self.spelling[0])

    def test(self) -> dict[str, float] | None:
        """Nats per symbol on the whole test text; None if there is none."""
        return (
            self._measured(evaluate(self.model, self.test_ids).nats, self.spelling[1]) if len(self.test_ids) else None
        )

    def _measured(self, nats: float, spelling: "Spelling") -> dict[str, float]:
        """Of words and pieces also the bits per character, by which levels compare."""
        return {"loss": nats, **({PER_CHARACTER: spelling.bits(nats)} if self.tokens else {})}

    def last_losses(self, count: int, steps: int) -> Tensor:
        """-ln p [B] of what follows on pieces of so many symbols. DataError: the validation text is too short."""
        ids = self.validation_ids
        if len(ids) < steps + 1:
            raise DataError(f"the validation text has {len(ids)} symbols, expected at least {steps + 1}; ask for fewer")
        starts = torch.linspace(0, len(ids) - steps - 1, count).long()
        places = (starts + torch.arange(steps + 1).unsqueeze(1)).numpy()
        pieces = torch.from_numpy(ids[places].astype("int64")).to(self._device)  # [T + 1, B]
        logits, _ = self.model(pieces[:-1])
        return cross_entropy(logits[-1], pieces[-1], reduction="none")

    def measures(self, loss: float) -> dict[str, float]:
        """The loss in other units."""
        return {"perplexity": math.exp(min(loss, 700))} if self.tokens else {"bits": loss / math.log(2)}


def _long_enough(config: CharLMConfig, unit: str, training: int, validation: int, test: int) -> None:
    total = training + validation + test
    needed = config.batch * config.chunk + 1
    if training < needed:
        whole = math.ceil(needed / (1 - config.validation - config.test))
        raise DataError(
            f"the text has {total} {unit}s, and about {whole} are needed: --batch {config.batch} times --chunk "
            f"{config.chunk} for one step of training, and the parts for validation and test; give more text, or a "
            f"smaller --batch or --chunk"
        )
    for name, count, fraction in (("validation", validation, config.validation), ("test", test, config.test)):
        if fraction and count < 2:
            raise DataError(
                f"--{name} {fraction} of a text of {total} {unit}s is {count}, and at least 2 are needed; give more "
                f"text, or a larger --{name}"
            )
