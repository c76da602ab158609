"""What `classify` and `tag` share: from files to a trained net and its use. They differ in reader and topology."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cells import find
from ...errors import DataError
from ...lang import Definition
from ...nn import Recurrent, chrono_initialise
from ..data.lexicon import Lexicon
from ..data.parts import TEST, TRAINING, VALIDATION, Draw
from ..data.tables import Table, named
from ..job import SHARE, Found, Job, Prediction, layer_line
from ..pictures import matrix
from .dataset import Dataset, Encoding, Example
from .kinds import value
from .net import Front, LabelNet, LabelTask, Net

EMBED = 100  # numbers per word
_BLOCK = 2**17  # steps that are read before they are predicted


class Reader:
    """Examples out of files. `layout` says which columns were what; it is learned from the first file, or given."""

    def __init__(self, config: Any, layout: Mapping[str, Any] | None = None) -> None:
        self.config, self.layout = config, dict(layout or {})
        self._trained = bool(layout)

    def find(self, table: Table, name: str, option: str, what: str) -> int:
        """The place of a column, which `option` chooses in a training. DataError: there is none of this name."""
        return table.find(name, "" if self._trained else option, what)

    @abstractmethod
    def examples(self, path: str, labelled: bool, training: bool, digest: Any = None) -> Iterator[Example]:
        """The examples of a file or folder. DataError: it is not what it should be."""


class LabelJob(Job):
    """A task that gives labels."""

    scales: tuple[tuple[str, ...], ...] = ((SHARE, "accuracy", "macro F1", "span F1"),)
    takes: tuple[str, ...] = ("fill",)
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
            raise DataError(
                f"there are no data: name files or folders, as in `cellwright train {config.task} DATA --out RUN`; "
                f"what was given to `fit` is not in the run"
            )
        reader, dataset = self.reader(config), Dataset()

        def examples(paths: Sequence[str], drawn: bool) -> Iterator[Example]:
            for path in paths:
                yield from reader.examples(path, True, drawn, dataset.hash)

        parts = examples(config.data, True), examples(config.validation_data, False), examples(config.test_data, False)
        return self.gather(config, dataset, reader.layout, *parts)

    def gather(
        self,
        config: Any,
        data: Dataset,
        layout: Mapping[str, Any],
        drawn: Iterable[Example],
        validation: Iterable[Example] = (),
        test: Iterable[Example] = (),
    ) -> Dataset:
        """Examples in a data set: `drawn` for training, and by chance for the parts that have none of their own.

        DataError: too few, or labels that training does not have.
        """
        validation_share = 0.0 if config.validation_data else config.validation
        draw = Draw({TEST: 0.0 if config.test_data else config.test, VALIDATION: validation_share}, config.seed)
        for example in drawn:
            data.add(example, draw())
        for examples, part in ((validation, VALIDATION), (test, TEST)):
            for example in examples:
                if unknown := next((k for k in example.labels if k not in data.label_counts), None):
                    raise DataError(
                        f"{example.place} has the {layout.get('what', 'label')} {unknown!r}, which the training data "
                        f"do not have; leave these rows out, or add such rows to the training data"
                    )
                data.add(example, part)
        data.close()
        _enough(config, data)
        data.layout = layout
        return data

    def settle(self, config: Any, data: Dataset) -> Any:
        """Steps and evaluations from epochs."""
        return config.scheduled(-(-len(data.part(TRAINING)) // config.batch))

    def learn(self, config: Any, data: Dataset) -> dict[str, Any]:
        """The encoding and the cells."""
        words, characters, lower, embed = self.lexicons(config, data)
        mean, deviation = self.statistics(config, data) if data.features else ((), ())
        kind = data.layout.get("labels", "")  # what an estimator was given; of files all labels are texts
        labels = tuple(sorted(data.labels, key=lambda label: value(label, kind)))
        encoding = Encoding(labels, words, characters, lower, mean, deviation, data.layout)
        cell, options = find(config.cell), config.options
        spelling = []
        if characters is not None:
            spelling = [cell(len(characters), config.characters, **options).definition()]
        size = self.width(config, data) or embed or len(words or ())
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

    def width(self, config: Any, data: Dataset) -> int:
        """Features of a step as the layer sees it; 0: symbols."""
        return data.features

    def build(self, config: Any, documents: Mapping[str, Any]) -> Net:
        """The net."""
        encoding, cells = Encoding.from_json(documents["encoding.json"]), documents["cells.json"]
        front = Front(config, encoding, [Definition.from_json(one) for one in cells["characters"]], cells["embed"])
        recurrent = Recurrent(
            [Definition.from_json(one) for one in cells["layers"]],
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )
        if config.chrono:
            chrono_initialise(recurrent, config.chrono)
        output = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(recurrent.output_size, len(encoding.labels)))
        return Net(LabelNet(front, self.topology(config, recurrent, output)), encoding, self.spans)

    def task(self, config: Any, net: Net, data: Dataset) -> LabelTask:
        """The data in batches."""
        return LabelTask(config, net, data, self.unit)

    def facts(self, config: Any, net: Net, data: Dataset, task: LabelTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        encoding = net.encoding
        front = net.model.front
        inputs = f"{encoding.features} features" if encoding.features else f"{len(encoding.words or ())} symbols"
        counts = data.label_counts.most_common()
        alike = _alike(data.labels)
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
            **({"note": [f"the labels {named(alike)} differ in capitals or spaces only"]} if alike else {}),
        }

    def evaluate(self, config: Any, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """Accuracy and F1 on labelled files."""
        judgement = net.judgement()
        count = 0
        for _, scores, truth in self.answers(net, self._examples(self.filling(config, options), net, paths, True)):
            judgement.add(scores, truth)
            count += 1
        if not count:
            raise DataError(f"{', '.join(map(str, paths))}: no sequence; name files with data")
        numbers = judgement.measured
        words = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name != "loss")
        labels = int(judgement.confusion.counts.sum())
        title = f"{labels:,} {self.unit}s, {words}, {numbers['loss']:.4f} nats per {self.unit}"
        names = net.encoding.labels
        draw = partial(matrix, judgement.confusion.counts, names, self.unit)
        return Found(f"{title}\n{judgement.confusion.table(names)}", numbers, draw)

    def pictures(self, config: Any, net: Net, task: LabelTask, folder: Path) -> list[Path]:
        """The confusion matrix of the last evaluation."""
        if not task.judged:
            return []
        return [matrix(task.judged.confusion.counts, task.names, self.unit, folder / "confusion.png")]

    def last_losses(self, task: LabelTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """Those of the first sequences for validation: of their class, or of the label of their last step."""
        recurrent: Recurrent = task.model.topology.recurrent  # type: ignore[assignment]
        return recurrent, partial(task.last_losses, count)

    def predict(self, config: Any, net: Net, paths: Sequence[str], **options: Any) -> Prediction:
        """A label with its probability per sequence, or per step."""
        return self.told(net, self.answers(net, self._examples(self.filling(config, options), net, paths, False)))

    @abstractmethod
    def told(self, net: Net, found: Iterator[tuple[Example, NDArray[Any], Any]]) -> Prediction:
        """Predictions as records."""

    def answers(
        self, net: Net, examples: Iterable[Example]
    ) -> Iterator[tuple[Example, NDArray[Any], NDArray[np.int64]]]:
        """Examples in their order, with log-probabilities [1 or T, K] and labels [1 or T]; read as they are needed."""
        block: list[Example] = []
        steps = 0
        for example in examples:
            net.encoding.check(example)
            block.append(example)
            steps += len(example.inputs)
            if steps >= _BLOCK:
                yield from _answered(net, block)
                block, steps = [], 0
        yield from _answered(net, block)

    def _examples(self, config: Any, net: Net, paths: Sequence[str], labelled: bool) -> Iterator[Example]:
        reader = self.reader(config, net.encoding.layout)
        for path in paths:
            yield from reader.examples(str(path), labelled, False)


def _answered(net: Net, block: Sequence[Example]) -> Iterator[tuple[Example, NDArray[Any], NDArray[np.int64]]]:
    if not block:
        return
    data = Dataset()
    for example in block:
        data.add(example, TEST)
    data.close()
    results = net.run(net.batches(data), np.arange(len(data)))
    found = {index: (scores, truth) for index, scores, truth in results}
    for index, example in enumerate(block):
        yield example, *found[index]


def _alike(labels: Iterable[str]) -> list[str]:
    """Labels that are the same but for capitals and spaces."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault("".join(label.split()).casefold(), []).append(label)
    return [label for group in groups.values() if len(group) > 1 for label in sorted(group)]


def _enough(config: Any, data: Dataset) -> None:
    counts = [len(data.part(part)) for part in (TRAINING, VALIDATION, TEST)]
    names = ", ".join(config.data) or "the data"
    if not all(counts[:2]):
        raise DataError(
            f"{names}: {len(data)} sequence(s), of which {counts[0]} to train on and {counts[1]} for validation; at "
            f"least one each is needed: give more data, a larger --validation, or --validation-data"
        )
    if len(data.labels) < 2:
        raise DataError(
            f"{names}: all {counts[0]} training sequences have the label {next(iter(data.label_counts), '')!r}; at "
            f"least two labels are needed"
        )
