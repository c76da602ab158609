"""The net that gives labels, and its training.

x_t = numbers, one-hot characters, or [word embedding, last states of a net over the word's characters]
h_t = recurrent(x_t, h_{t-1}), in both directions
p   = softmax(V pool(h) + c), or one per step
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from ...lang import Definition
from ...nn import Recurrent
from ..data.lexicon import UNKNOWN
from ..data.order import Order, by_length
from ..data.parts import TEST, TRAINING, VALIDATION
from ..scores import Confusion, SpanScore
from ..task import Task
from .config import LabelsConfig
from .dataset import IGNORE, Batch, Batches, Dataset, Encoding

_STEPS_AT_ONCE = 2**15  # steps of all sequences of a batch, in evaluations


class Front(nn.Module):
    """What comes before the layer: numbers and one-hot characters as they are, words as vectors."""

    def __init__(self, config: LabelsConfig, encoding: Encoding, characters: Sequence[Definition], embed: int) -> None:
        super().__init__()
        self.embed = None
        self.characters = Recurrent(list(characters), bidirectional=True) if characters else None
        self.dropout = nn.Dropout(config.dropout)
        self.doubt: Tensor | None
        self.register_buffer("doubt", None, persistent=False)
        if encoding.words is not None:
            if embed:
                self.embed = nn.Embedding(len(encoding.words), embed)
                nn.init.uniform_(self.embed.weight, -math.sqrt(3 / embed), math.sqrt(3 / embed))
            self.register_buffer("doubt", torch.from_numpy(encoding.words.doubt(config.unknown)), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """[T, B, I], or integers [T, B]."""
        x = batch.x
        if self.doubt is not None and self.training:
            x = x.masked_fill(torch.rand(x.shape) < self.doubt[x], UNKNOWN)
        if self.embed is None:
            return x
        x = self.embed(x)
        if self.characters is not None and batch.characters is not None:
            spelled, lengths, where = batch.characters
            _, state = self.characters(spelled, lengths=lengths)
            x = torch.cat([x, embedding(where, self.characters.last_output(state))], -1)  # [T, B, E + 2C]
        dropped: Tensor = self.dropout(x)
        return dropped


class LabelNet(nn.Module):
    """A front and a topology, which goes from [T, B, I] to [B, K] or [T, B, K]."""

    def __init__(self, front: Front, topology: nn.Module) -> None:
        super().__init__()
        self.front, self.topology = front, topology

    def forward(self, batch: Batch) -> Tensor:
        """Logits."""
        logits: Tensor = self.topology(self.front(batch), lengths=batch.lengths)[0]
        return logits


class Net:
    """A net, and what it knows of inputs and labels; `spans`: F1 of whole spans is measured too."""

    def __init__(self, model: LabelNet, encoding: Encoding, spans: bool = False) -> None:
        self.model, self.encoding, self.spans = model, encoding, spans

    def batches(self, data: Dataset) -> Batches:
        """Examples as this net takes them."""
        return Batches(data, self.encoding)

    def judgement(self) -> "Judgement":
        """An empty one, to be added to."""
        return Judgement(self.encoding.labels, self.spans)

    @torch.no_grad()
    def run(
        self, batches: Batches, indices: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[Any], NDArray[np.int64]]]:
        """Each example's index, log-probabilities [1 or T, K] and its labels [U], the shortest examples first."""
        self.model.eval()
        lengths = batches.data.inputs.lengths
        longest = int(lengths[indices].max(initial=1))
        for chosen in by_length(indices, lengths[indices], max(1, min(256, _STEPS_AT_ONCE // longest))):
            batch = batches(chosen)
            scores = self.model(batch).log_softmax(-1).double().numpy()
            sizes = batch.lengths.tolist() if scores.ndim == 3 else [1] * len(chosen)
            scores = scores.reshape(-1, len(chosen), scores.shape[-1])
            truth = batch.y.reshape(-1, len(chosen)).numpy()
            for b, index in enumerate(chosen.tolist()):
                yield index, scores[: sizes[b], b], truth[truth[:, b] != IGNORE, b]


class Judgement:
    """Loss, accuracy and F1 over examples that come one by one."""

    def __init__(self, labels: Sequence[str], spans: bool) -> None:
        self.confusion = Confusion(len(labels))
        self.spans = SpanScore(labels) if spans else None
        self.total = 0.0

    def add(self, scores: NDArray[Any], truth: NDArray[np.int64]) -> None:
        """One example: log-probabilities [T, K] and labels [T]."""
        guess = scores.argmax(-1)
        self.total -= float(scores[np.arange(len(truth)), truth].sum())
        self.confusion.add(truth, guess)
        if self.spans is not None:
            self.spans.add(truth, guess)

    @property
    def better(self) -> dict[str, int]:
        """What is measured; 1: more is better, -1: less."""
        return {"loss": -1, "accuracy": 1, "macro F1": 1, **({} if self.spans is None else {"span F1": 1})}

    @property
    def measured(self) -> dict[str, float]:
        """By name, the loss first."""
        spans = {} if self.spans is None else {"span F1": self.spans.f1}
        count = max(int(self.confusion.counts.sum()), 1)
        return {
            "loss": self.total / count,
            "accuracy": self.confusion.accuracy,
            "macro F1": self.confusion.macro_f1,
            **spans,
        }


class LabelTask(Task):
    """The task that the training loop sees."""

    model: LabelNet

    def __init__(self, config: Any, net: Net, data: Dataset, unit: str) -> None:
        self.net, self.model, self.unit, self.data = net, net.model, unit, data
        self.names = net.encoding.labels
        self._batches = net.batches(data)
        indices = data.part(TRAINING)
        self.order = Order(indices, data.inputs.lengths[indices], config.batch, config.seed)
        labels = int(data.targets.lengths[indices].sum())
        self.per_step = max(1, round(labels / self.order.batches))
        self.better = net.judgement().better
        self.judged: Any = None  # the judgement of the last evaluation
        self._weight = None
        if config.balance:
            counts = np.array([data.label_counts[name] for name in self.names], np.float64)
            fair = counts.sum() / (len(counts) * np.maximum(counts, 1))
            self._weight = torch.from_numpy(fair**config.balance).float()

    def batch(self, step: int) -> Batch:
        """Sequences of about the same length."""
        return self._batches(self.order(step))

    def criterion(self, batch: Batch, step: int) -> Tensor:
        """Mean -ln p(label) over the labels of a batch."""
        logits = self.model(batch)  # [B, K] or [T, B, K]
        return cross_entropy(logits.flatten(0, -2), batch.y.flatten(), self._weight, ignore_index=IGNORE)

    def validate(self) -> dict[str, float]:
        """Loss, accuracy and F1 on the validation part."""
        return self._judge(VALIDATION)

    def test(self) -> dict[str, float] | None:
        """The same on the test part; None if there is none."""
        return self._judge(TEST) if len(self.data.part(TEST)) else None

    def last_losses(self, count: int) -> Tensor:
        """-ln p(label) [B] of the class, or of the label of the last step, of the first sequences for validation."""
        batch = self._batches(self.data.part(VALIDATION)[:count])
        logits = self.model(batch)
        losses = cross_entropy(logits.flatten(0, -2), batch.y.flatten(), reduction="none").view_as(batch.y)
        steps = (batch.y != IGNORE).sum(0) - 1
        return losses[steps, torch.arange(losses.shape[1])]

    def _judge(self, part: int) -> dict[str, float]:
        judgement = self.net.judgement()
        for _, scores, truth in self.net.run(self._batches, self.data.part(part)):
            judgement.add(scores, truth)
        self.judged = judgement
        return judgement.measured
