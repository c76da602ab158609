"""What `classify` and `tag` share: the net, its training and its use; they differ in what they read and in topology.

x_t = numbers, one-hot characters, or [word embedding, last states of a net over the word's characters]
h_t = recurrent(x_t, h_{t-1}), in both directions
p   = softmax(V pool(h) + c), or one per step
"""

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from ..cells import find
from ..errors import DataError
from ..lang import Definition
from ..nn import Recurrent
from .dataset import IGNORE, TEST, TRAINING, VALIDATION, Batch, Batches, Dataset, Encoding, Example
from .job import Found, Job, Prediction, layer_line
from .labels_config import LabelsConfig
from .lexicon import UNKNOWN, Lexicon
from .order import Order, by_length
from .scores import Confusion, SpanScore

EMBED = 100  # numbers per word
_STEPS_AT_ONCE = 2**15  # steps of all sequences of a batch, in evaluations
_BLOCK = 2**17  # steps that are read before they are predicted


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
    """A net, and what it knows of inputs and labels."""

    def __init__(self, model: LabelNet, encoding: Encoding) -> None:
        self.model, self.encoding = model, encoding

    @torch.no_grad()
    def run(
        self, batches: Batches, indices: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[Any], NDArray[np.int64]]]:
        """Each example's index, log-probabilities [1 or T, K] and labels [1 or T], the shortest examples first."""
        self.model.eval()
        lengths = batches.data.inputs.lengths
        longest = int(lengths[indices].max(initial=1))
        for chosen in by_length(indices, lengths[indices], max(1, min(256, _STEPS_AT_ONCE // longest))):
            batch = batches(chosen)
            scores = self.model(batch).log_softmax(-1).double().numpy()
            steps = scores.shape[0] if scores.ndim == 3 else 1
            scores = scores.reshape(steps, len(chosen), -1)
            for b, index in enumerate(chosen.tolist()):
                size = int(lengths[index]) if steps > 1 else 1
                yield index, scores[:size, b], batch.y[:size, b].numpy()


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


class LabelTask:
    """The task that the training loop sees."""

    def __init__(self, config: LabelsConfig, net: Net, data: Dataset, unit: str, spans: bool) -> None:
        self.net, self.model, self.unit, self._data, self._spans = net, net.model, unit, data, spans
        self.names = net.encoding.labels
        self._batches = Batches(data, net.encoding)
        indices = data.part(TRAINING)
        self.order = Order(indices, data.inputs.lengths[indices], config.batch, config.seed)
        labels = int(data.targets.lengths[indices].sum())
        self.per_step = max(1, round(labels / self.order.batches))
        self.confusion: Confusion | None = None  # of the last evaluation
        self.reading = 0.0
        self._weight = None
        if config.balance:
            counts = np.array([data.label_counts[name] for name in self.names], np.float64)
            fair = counts.sum() / (len(counts) * np.maximum(counts, 1))
            self._weight = torch.from_numpy(fair**config.balance).float()

    def loss(self, step: int) -> Tensor:
        """Mean -ln p(label) over the labels of the batch of a step."""
        began = time.perf_counter()
        batch = self._batches(self.order(step))
        self.reading += time.perf_counter() - began
        logits = self.model(batch)
        return cross_entropy(logits.flatten(0, -2), batch.y.flatten(), self._weight, ignore_index=IGNORE)

    def carried(self) -> dict[str, Tensor]:
        """Nothing: sequences begin anew."""
        return {}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def validate(self) -> dict[str, float]:
        """Loss, accuracy and F1 on the validation part."""
        return self._judge(VALIDATION)

    def test(self) -> dict[str, float] | None:
        """The same on the test part; None if there is none."""
        return self._judge(TEST) if len(self._data.part(TEST)) else None

    def measures(self, loss: float) -> dict[str, float]:
        """None."""
        return {}

    def _judge(self, part: int) -> dict[str, float]:
        judgement = Judgement(self.names, self._spans)
        for _, scores, truth in self.net.run(self._batches, self._data.part(part)):
            judgement.add(scores, truth)
        self.confusion = judgement.confusion
        return judgement.measured


class Reader:
    """Examples out of files. `layout` says which columns were what; it is learned from the first file, or given."""

    def __init__(self, config: Any, layout: Mapping[str, Any] | None = None) -> None:
        self.config, self.layout = config, dict(layout or {})

    @abstractmethod
    def examples(self, path: str, labelled: bool, training: bool, digest: Any = None) -> Iterator[Example]:
        """The examples of a file or folder. DataError: it is not what it should be."""


class LabelJob(Job):
    """A task that gives labels."""

    unit: str
    spans: bool  # one label per step
    reader: type[Reader]

    @abstractmethod
    def topology(self, config: Any, recurrent: Recurrent, output: nn.Module) -> nn.Module:
        """What is around the layer."""

    @abstractmethod
    def lexicons(self, config: Any, data: Dataset) -> tuple[Lexicon | None, Lexicon | None, bool, int]:
        """Words, their characters, whether words are looked up in small letters, and the size of the embedding."""

    def read(self, config: Any) -> Dataset:
        """All files, once: encoded on the disk."""
        if not config.data:
            raise DataError(f"no data: name files or folders, as in `cellwright train {config.task} DATA --out RUN`")
        data, reader = Dataset(), self.reader(config)
        chance = np.random.default_rng([config.seed, 2**32 - 1])  # epochs have smaller numbers
        shares = (not config.test_data) * config.test, (not config.validation_data) * config.validation
        bounds = np.cumsum(shares)
        for paths, fixed in ((config.data, None), (config.validation_data, VALIDATION), (config.test_data, TEST)):
            for path in paths:
                for example in reader.examples(path, True, True, data.hash):
                    part = fixed
                    if part is None:
                        part = (TEST, VALIDATION, TRAINING)[int(np.searchsorted(bounds, chance.random(), "right"))]
                    elif unknown := next((k for k in example.labels if k not in data.label_counts), None):
                        raise DataError(
                            f"{example.place} has the label {unknown!r}, which the training data do not have; leave "
                            f"these rows out, or add such rows to the training data"
                        )
                    data.add(example, part)
        data.close()
        _enough(config, data)
        data.layout = reader.layout
        return data

    def settle(self, config: Any, data: Dataset) -> Any:
        """Steps and evaluations from epochs."""
        batches = -(-len(data.part(TRAINING)) // config.batch)
        steps = config.steps or config.epochs * batches
        return config.changed(steps=steps, eval_every=config.eval_every or min(batches, steps))

    def learn(self, config: Any, data: Dataset) -> dict[str, Any]:
        """The encoding and the cells."""
        words, characters, lower, embed = self.lexicons(config, data)
        mean, deviation = self.statistics(config, data) if data.features else ((), ())
        encoding = Encoding(tuple(sorted(data.labels)), words, characters, lower, mean, deviation, data.layout)
        cell, options = find(config.cell), config.options
        spelling = []
        if characters is not None:
            spelling = [cell(len(characters), config.characters, **options).definition()]
        size = data.features or embed or len(words or ())
        size += sum(2 * one.output_size for one in spelling)
        layers: list[Definition] = []
        for _ in range(config.layers):
            layers.append(cell(size, config.hidden, **options).definition())
            size = (2 if config.bidirectional else 1) * layers[-1].output_size
        cells = {
            "embed": embed,
            "characters": [one.to_json() for one in spelling],
            "layers": [one.to_json() for one in layers],
        }
        return {"encoding.json": encoding.to_json(), "cells.json": cells}

    def statistics(self, config: Any, data: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each feature."""
        return tuple(data.moments.mean.tolist()), tuple(data.moments.deviation.tolist())

    def build(self, config: Any, documents: Mapping[str, Any]) -> Net:
        """The net."""
        encoding, cells = Encoding.from_json(documents["encoding.json"]), documents["cells.json"]
        front = Front(config, encoding, [Definition.from_json(one) for one in cells["characters"]], cells["embed"])
        recurrent = Recurrent(
            [Definition.from_json(one) for one in cells["layers"]],
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )
        output = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(recurrent.output_size, len(encoding.labels)))
        return Net(LabelNet(front, self.topology(config, recurrent, output)), encoding)

    def task(self, config: Any, net: Net, data: Dataset) -> LabelTask:
        """The data in batches."""
        return LabelTask(config, net, data, self.unit, self.spans)

    def facts(self, config: Any, net: Net, data: Dataset, task: LabelTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        encoding = net.encoding
        front = net.model.front
        inputs = f"{encoding.features} features" if encoding.features else f"{len(encoding.words or ())} symbols"
        counts = data.label_counts.most_common()
        return {
            "model": layer_line(
                config,
                net.model,
                "both directions" if config.bidirectional else "one direction",
                f"embedding of {front.embed.embedding_dim}" if front.embed is not None else "",
                f"characters by {config.characters} units" if front.characters is not None else "",
            ),
            "data": [
                f"{len(data):,} sequences of {data.inputs.lengths.mean():.1f} steps",
                inputs,
                f"{len(counts)} classes ({counts[0][0]} {counts[0][1]:,} ... {counts[-1][0]} {counts[-1][1]:,})",
            ],
            "split": [
                f"{len(data.part(part)):,} {name}"
                for part, name in ((TRAINING, "to train on"), (VALIDATION, "for validation"), (TEST, "for the test"))
            ],
            "plan": [
                f"{config.steps} steps of {config.batch} sequences",
                f"{config.steps / task.order.batches:.1f} epochs",
                f"balance {config.balance:g}" if config.balance else "",
            ],
        }

    def evaluate(self, config: Any, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Accuracy and F1 on labelled files."""
        judgement = Judgement(net.encoding.labels, self.spans)
        count = 0
        for _, scores, truth in self._predicted(config, net, paths, True):
            judgement.add(scores, truth)
            count += 1
        if not count:
            raise DataError(f"{', '.join(map(str, paths))}: no sequence; name files with data")
        numbers = judgement.measured
        words = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name != "loss")
        labels = int(judgement.confusion.counts.sum())
        title = f"{labels:,} {self.unit}s, {words}, {numbers['loss']:.4f} nats per {self.unit}"
        names = net.encoding.labels
        return Found(f"{title}\n{judgement.confusion.table(names)}", numbers, judgement.confusion.counts, names)

    def predict(self, config: Any, net: Net, paths: Sequence[str]) -> Prediction:
        """A label with its probability per sequence, or per step."""
        return self.told(net, self._predicted(config, net, paths, False))

    @abstractmethod
    def told(self, net: Net, found: Iterator[tuple[Example, NDArray[Any], Any]]) -> Prediction:
        """Predictions as records."""

    def _predicted(
        self, config: Any, net: Net, paths: Sequence[str], labelled: bool
    ) -> Iterator[tuple[Example, NDArray[Any], NDArray[np.int64]]]:
        """Examples of files in their order, with log-probabilities [1 or T, K] and labels [1 or T]; read as needed."""
        reader = self.reader(config, net.encoding.layout)
        block: list[Example] = []
        steps = 0
        for path in paths:
            for example in reader.examples(str(path), labelled, False):
                net.encoding.check(example)
                block.append(example)
                steps += len(example.inputs)
                if steps >= _BLOCK:
                    yield from _answered(net, block)
                    block, steps = [], 0
        yield from _answered(net, block)


def _answered(net: Net, block: Sequence[Example]) -> Iterator[tuple[Example, NDArray[Any], NDArray[np.int64]]]:
    if not block:
        return
    data = Dataset()
    for example in block:
        data.add(example, TEST)
    data.close()
    results = net.run(Batches(data, net.encoding), np.arange(len(data)))
    found = {index: (scores, truth) for index, scores, truth in results}
    for index, example in enumerate(block):
        yield example, *found[index]


def _enough(config: Any, data: Dataset) -> None:
    counts = [len(data.part(part)) for part in (TRAINING, VALIDATION, TEST)]
    if not all(counts[:2]):
        raise DataError(
            f"{', '.join(config.data)}: {len(data)} sequence(s), of which {counts[0]} to train on and {counts[1]} for "
            f"validation; at least one each is needed: give more data, a larger --validation, or --validation-data"
        )
    if len(data.label_counts) < 2:
        raise DataError(
            f"{', '.join(config.data)}: all {counts[0]} training sequences have the label "
            f"{next(iter(data.label_counts), '')!r}; at least two labels are needed"
        )
