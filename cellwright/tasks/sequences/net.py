"""The net that writes a text for a source, and its training.

p(s_{t+1} | s_1 ... s_t, source) = decoder(s_1 ... s_t, attention over the encoder's memory)
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cells import find
from ...errors import OptionError
from ...lang import Definition
from ...nn import Recurrent
from ...topologies import Attention, BahdanauAttention, Decoder, EncoderDecoder, LuongAttention
from ..data.lexicon import UNKNOWN, Lexicon
from ..data.order import Order, by_length
from ..data.parts import TEST, TRAINING, VALIDATION
from ..data.tokens import byte_pairs_from
from .config import SequencesConfig
from .dataset import Batches, Pairs
from .scores import ABSENT, known_scores, scored
from .symbols import NEVER_WRITTEN, join, to_read

_JUDGED = 500  # texts that are written in an evaluation during the training
_SYMBOLS_AT_ONCE = 2**15  # symbols of all sources of a batch, in evaluations
_LOGITS_AT_ONCE = 2**26  # numbers in memory: the symbols of a batch times those that may be written


def layers(config: Any, size: int, both: bool) -> list[Definition]:
    """The cells of a layer for inputs of a size, with a user's own equations as they are now."""
    cell = find(config.cell)
    made: list[Definition] = []
    for _ in range(config.layers):
        made.append(cell(size, config.hidden, **config.options).definition())
        size = (2 if both else 1) * made[-1].output_size
    return made


def recurrent(config: SequencesConfig, cells: Sequence[Definition], both: bool) -> Recurrent:
    """The layer of those cells."""
    return Recurrent(list(cells), dropout=config.dropout if len(cells) > 1 else 0.0, bidirectional=both)


def decoder_cells(config: SequencesConfig, memory: int) -> list[Definition]:
    """The cells of a decoder whose attention reads `memory` numbers per place: Bahdanau's context enters the step."""
    return layers(config, (config.embed or config.hidden) + (memory if config.attention == "bahdanau" else 0), False)


def decoder(config: SequencesConfig, cells: Sequence[Definition], symbols: int, memory: int) -> Decoder:
    """A decoder of so many symbols over a memory of so many numbers per place."""
    layer, looks = recurrent(config, cells, False), None
    if config.attention != "none":
        kind: type[Attention] = BahdanauAttention if config.attention == "bahdanau" else LuongAttention
        looks = kind(layer.output_size, memory)
    features = None if looks is None else config.hidden
    embedding = nn.Embedding(symbols, config.embed or config.hidden)
    nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)
    return Decoder(embedding, layer, attention=looks, features=features, dropout=config.dropout)


@dataclass(frozen=True)
class Written:
    """What the net writes for a source, and ln p of it, in nats with the end."""

    text: str
    log_probability: float


class Net(ABC):
    """A net, and what it knows of symbols. The ids of the lexicon are followed by those of start and end."""

    def __init__(
        self, config: SequencesConfig, model: EncoderDecoder, known: Mapping[str, Any], lexicon: Lexicon
    ) -> None:
        self.config, self.model, self.lexicon = config, model, lexicon
        self.layout: Mapping[str, Any] = known["layout"]
        self.pieces = [data and byte_pairs_from(data) for data in known["pieces"]]  # of sources and texts
        longest = int(known["longest"])
        self.most = longest + longest // 2 + 5  # symbols of a text at most
        self.sample: str | None = None  # what it wrote for one source of the last evaluation

    @abstractmethod
    def reader(self, data: Pairs) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]:
        """A function of indices of sources to what the encoder takes, and their lengths."""

    def pairs(self) -> Pairs:
        """An empty data set, for what this net reads and writes."""
        return Pairs(self.config.level, pieces=self.pieces)

    def batches(self, data: Pairs) -> Batches:
        """A data set for this net."""
        return Batches(data, self.lexicon, self.reader(data))

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        symbols = [NEVER_WRITTEN if i == UNKNOWN else self.lexicon.symbols[i - 1] for i in ids]
        return join(symbols, self.config.level)

    @torch.no_grad()
    def nats(self, batches: Batches, pairs: NDArray[np.int64]) -> tuple[float, int]:
        """The sum of -ln p over the symbols and ends of these pairs, and how many they are."""
        self.model.eval()
        data, total, count = batches.data, 0.0, 0
        lengths = data.targets.lengths[pairs]
        longest = int(lengths.max(initial=1)) + 1
        fit = _LOGITS_AT_ONCE // (longest * (len(self.lexicon) + 2))
        for chosen in by_length(pairs, lengths, max(1, min(fit, _at_once(longest - 1)))):
            b = batches(chosen)
            symbols = int(b.target_lengths.sum()) + len(chosen)
            loss = self.model.loss(b.source, b.target, source_lengths=b.source_lengths, target_lengths=b.target_lengths)
            total, count = total + float(loss) * symbols, count + symbols
        return total, count

    @torch.no_grad()
    def write(self, batches: Batches, sources: NDArray[np.int64], beam: int) -> Iterator[tuple[int, Written]]:
        """Each source's index and the text for it, the shortest sources first. An empty source gives an empty text."""
        self.model.eval()
        assert batches.data.sources is not None
        lengths = batches.data.sources.lengths[sources]
        for index in sources[lengths == 0].tolist():
            yield index, Written("", 0.0)
        sources, lengths = sources[lengths > 0], lengths[lengths > 0]
        at_once = _at_once(max(int(lengths.max(initial=1)), self.most) * beam)
        for chosen in by_length(sources, lengths, at_once):
            x, steps = batches.sources(chosen)
            alpha = self.config.alpha if beam > 1 else 0.0
            never = (UNKNOWN, self.model.start)
            found = self.model.beam(x, steps, max_length=self.most, beam_width=beam, alpha=alpha, never=never)
            ids, sizes = (one.tolist() for one in (found.best[0].T, found.best[1]))
            for b, index in enumerate(chosen.tolist()):
                yield index, Written(self.text(ids[b][: sizes[b]]), float(found.log_probability[b, 0]))

    @torch.no_grad()
    def looked(self, batches: Batches, source: int) -> tuple[list[str], NDArray[Any] | None]:
        """What is written for a source, symbol by symbol and `end`, and where each looked: weights [T + 1, S]."""
        self.model.eval()
        x, steps = batches.sources(np.array([source]))
        found = self.model.beam(x, steps, max_length=self.most, beam_width=self.config.beam, alpha=self.config.alpha,
                                never=(UNKNOWN, self.model.start))  # fmt: skip
        ids, sizes = found.best
        weights = self.model(x, ids, source_lengths=steps, target_lengths=sizes).weights
        level, chosen = self.config.level, ids[:, 0].tolist()[: int(sizes[0])]
        symbols = [to_read(self.lexicon.symbols[i - 1], level) for i in chosen]
        return [*symbols, "end"], None if weights is None else weights[: len(symbols) + 1, 0].numpy()


class PairTask:
    """The task that the training loop sees."""

    unit, quantity = "symbol", "nats"

    def __init__(self, config: SequencesConfig, net: Net, data: Pairs, scores: Sequence[str]) -> None:
        self.config, self.net, self.model, self.data, self._scores = config, net, net.model, data, scores
        self.better = {"loss": -1, **dict.fromkeys(known_scores(scores), 1)}
        if config.best in [name.lower() for name in scores if name not in self.better]:
            raise OptionError(f"--best {config.best}: {ABSENT}")
        self.batches = net.batches(data)
        pairs = data.pairs(TRAINING)
        assert data.sources is not None
        lengths = data.targets.lengths[pairs] + data.sources.lengths[data.source_of[pairs]]
        self.order = Order(pairs, lengths, config.batch, config.seed)
        self.per_step = max(1, round((int(data.targets.lengths[pairs].sum()) + len(pairs)) / self.order.batches))
        self.reading = 0.0

    def loss(self, step: int) -> Tensor:
        """Mean -ln p(symbol) over the symbols and ends of the batch of a step."""
        began = time.perf_counter()
        b = self.batches(self.order(step))
        self.reading += time.perf_counter() - began
        return self.model.loss(
            b.source,
            b.target,
            source_lengths=b.source_lengths,
            target_lengths=b.target_lengths,
            sampling=self.config.sampling * min(1.0, step / (self.config.steps or 1)),
            label_smoothing=self.config.smoothing,
        )

    def carried(self) -> dict[str, Tensor]:
        """Nothing: texts begin anew."""
        return {}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def validate(self) -> dict[str, float]:
        """Loss on the validation part; scores of what is written greedily for its first sources."""
        found = self._judge(VALIDATION, _JUDGED, 1)
        self.model.train()
        return found

    def test(self) -> dict[str, float] | None:
        """Loss and scores on the whole test part, with the beam; None if there is none."""
        return self._judge(TEST, None, self.config.beam) if len(self.data.part(TEST)) else None

    def measures(self, loss: float) -> dict[str, float]:
        """The perplexity: e^loss."""
        return {"perplexity": perplexity(loss)}

    def _judge(self, part: int, most: int | None, beam: int) -> dict[str, float]:
        sources = self.data.part(part)[:most]
        judged = judge(self.net, self.batches, self.data.pairs(part), sources, beam, self._scores)
        k = int(sources[0])
        self.net.sample = f"{self.data.shown(k)}\n-> {judged.texts[0]}\n   ({self.data.texts(k)[0]})"
        return judged.numbers


@dataclass(frozen=True)
class Judged:
    """Numbers by name, the loss first; what was written for the sources, in their order."""

    numbers: dict[str, float]
    texts: list[str]


def judge(
    net: Net, batches: Batches, pairs: NDArray[np.int64], sources: NDArray[np.int64], beam: int, scores: Sequence[str]
) -> Judged:
    """The loss on pairs, and the scores of what is written for sources."""
    total, count = net.nats(batches, pairs)
    found = dict(net.write(batches, sources, beam))
    texts = [found[k].text for k in sources.tolist()]
    references = [batches.data.texts(k) for k in sources.tolist()]
    if net.config.lower:
        references = [[text.lower() for text in one] for one in references]
    return Judged({"loss": total / count, **scored(texts, references, scores, net.config.bleu)}, texts)


def perplexity(loss: float) -> float:
    """e^loss, for a loss in nats per symbol."""
    return math.exp(min(loss, 100.0))


def _at_once(longest: int) -> int:
    return max(1, min(256, _SYMBOLS_AT_ONCE // max(longest, 1)))
