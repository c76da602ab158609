"""N to 1: the class of a text or of a series."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import DataError
from ...nn import Recurrent
from ...topologies import ManyToOne
from ..data.columns import filled, label_column
from ..data.lexicon import Lexicon, in_small_letters
from ..data.tables import SUFFIXES, Table, lines, named, numbers
from ..job import Prediction
from ..labels.dataset import Dataset, Example
from ..labels.job import EMBED, LabelJob, Reader
from ..labels.net import Net
from .config import ClassifyConfig

_MEND = "mend it, or leave --series away if a row is a text and its label"
WORD = re.compile(r"\w+|[^\w\s]")


def symbols_of(text: str, config: ClassifyConfig) -> list[str]:
    """Its first characters, or words."""
    return list(text[: config.limit]) if config.level == "char" else WORD.findall(text)[: config.limit]


class ClassifyReader(Reader):
    """Texts or series, with one label each."""

    def examples(self, path: str, labelled: bool, training: bool, digest: Any = None) -> Iterator[Example]:
        """The rows of a table, the texts of a folder, or (without labels) the lines of a text."""
        place = Path(path)
        if place.is_dir():
            yield from self._folder(place, labelled, digest)
        elif place.suffix.lower() in SUFFIXES:
            known = self.layout or {"text": self.config.text, "label": self.config.label}
            asked = [known.get("text", ""), known["label"]]
            series = self.config.series
            table = Table(place, digest, asked, lists=bool(series))
            yield from self._series(table, labelled) if series else self._texts(table, labelled)
        elif labelled:
            raise DataError(
                f"{place} has no labels: it is neither a folder nor a table; name a .csv, .tsv or .jsonl file with a "
                f"header, or a folder of classes"
            )
        else:
            yield from self._lines(place, "", digest)

    def _texts(self, table: Table, labelled: bool) -> Iterator[Example]:
        """A text per row."""
        layout = self.layout
        if not layout:
            label = label_column(table, self.config.label)
            others = [name for name in table.columns if name != label]
            text = self.config.text or ("text" if "text" in others else others[0] if len(others) == 1 else "text")
            layout.update(text=text, label=label)
        at = self.find(table, layout["text"], "--text", "the text")
        label_at = self.find(table, layout["label"], "--label", "the label") if labelled else -1
        for number, cells in table.rows():
            yield self._text(f"{table.path}, row {number}", cells[at], [cells[label_at]] if labelled else [])

    def _series(self, table: Table, labelled: bool) -> Iterator[Example]:
        """A series per row: the label and `steps * width` numbers; empty cells at the end make it shorter.

        Or the label and a column of lists of numbers, which may be lists of steps.
        """
        layout, width = self.layout, self.config.series
        if not layout:
            label = label_column(table, self.config.label)
            columns = [name for name in table.listed or table.columns if name != label]
            if table.listed and len(columns) != 1:
                raise DataError(f"{table.path} has {len(columns)} lists per row, {named(columns)}, expected one series")
            layout.update(label=label, columns=columns, named=table.header, lists=bool(table.listed))
        names = layout["columns"]
        bare = not layout["named"] and not labelled and len(table.columns) <= len(names)
        label_at = self.find(table, layout["label"], "--label", "the label") if labelled else -1
        if bare:
            wanted = list(range(len(table.columns)))
        elif not layout["named"]:
            wanted = [k for k, name in enumerate(table.columns) if name != layout["label"]]
        else:
            wanted = [self.find(table, name, "--label", "a value of the series") for name in names]
        mend = "mend it" if self._trained else _MEND
        for number, cells in table.rows(ragged=True):
            place = f"{table.path}, row {number}"
            if layout.get("lists"):
                found = self._listed(cells[wanted[0]], place, names[0])
            else:
                found = [(cells[k], table.columns[k]) for k in wanted if k < len(cells)]
                while found and not found[-1][0].strip():
                    found.pop()
            if not found:
                raise DataError(f"{place} has no value at all; leave the row out")
            if len(found) % width:
                expected = f"{width}, the values per step" if self._trained else f"--series {width}"
                raise DataError(f"{place} has {len(found)} values, expected a multiple of {expected}")
            values = numbers([c for c, _ in found], [n for _, n in found], place, bool(self.config.fill), mend=mend)
            if labelled and (label_at >= len(cells) or not cells[label_at].strip()):
                raise DataError(f"{place}, column {layout['label']!r} has no label; fill it in or leave the row out")
            labels = [cells[label_at].strip()] if labelled else []
            yield Example(place, filled(values.reshape(-1, width), self.config.fill), labels)

    def _listed(self, cell: str, place: str, column: str) -> list[tuple[str, str]]:
        """The numbers of a list [T * F] or [T][F], each with the name of its column."""
        place, width = f"{place}, column {column!r}", self.config.series
        values = json.loads(cell) if cell.startswith("[") else None
        if values is None:
            raise DataError(f"{place} is {cell[:40]!r}, expected a list of numbers as in the first row")
        steps = values if any(isinstance(value, list) for value in values) else [values]
        flat = []
        for t, step in enumerate(steps, 1):
            if steps is values and not (isinstance(step, list) and len(step) == width):
                got = f"a list of {len(step)}" if isinstance(step, list) else repr(step)
                raise DataError(f"{place} has {got} as step {t}, expected a list of {width}, the values per step")
            flat += [("" if value is None else str(value), column) for value in step]
        return flat

    def _folder(self, folder: Path, labelled: bool, digest: Any) -> Iterator[Example]:
        """folder/CLASS/file: a text per file; folder/CLASS.txt: a text per line."""
        if self.config.series:
            raise DataError(f"{folder} is a folder, and series are read from tables; name .csv, .tsv or .jsonl files")
        self.layout.setdefault("text", self.config.text or "text")  # where a table is read later
        self.layout.setdefault("label", self.config.label or "label")
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        if not entries:
            raise DataError(f"{folder} is an empty folder; name one with a folder or a file per class")
        for entry in entries:
            if digest is not None:
                digest.update(f"\0{entry.name}\0".encode())
            if not entry.is_dir():
                yield from self._lines(entry, entry.stem if labelled else "", digest)
                continue
            for file in sorted(f for f in entry.iterdir() if f.is_file() and not f.name.startswith(".")):
                if digest is not None:
                    digest.update(f"\0{file.name}\0".encode())
                yield self._text(str(file), "".join(lines(file, digest)), [entry.name] if labelled else [])

    def _lines(self, path: Path, label: str, digest: Any) -> Iterator[Example]:
        """A text per line that is not empty."""
        for number, line in enumerate(lines(path, digest), 1):
            if line.strip():
                yield self._text(f"{path}, line {number}", line.strip(), [label] if label else [])

    def _text(self, place: str, text: str, labels: list[str]) -> Example:
        labels = [label.strip() for label in labels]
        if "" in labels:
            raise DataError(f"{place} has no label; fill it in or leave the row out")
        symbols = symbols_of(text, self.config)
        if not symbols or not text.strip():
            raise DataError(f"{place} has an empty text ({text!r}); leave it out")
        return Example(place, symbols, labels, text)


class ClassifyJob(LabelJob):
    """One label per sequence."""

    config = ClassifyConfig
    unit = "sequence"
    spans = False
    reader = ClassifyReader

    def topology(self, config: ClassifyConfig, recurrent: Recurrent, output: nn.Module) -> nn.Module:
        """N to 1."""
        return ManyToOne(recurrent, output, pool=config.pool)

    def lexicons(self, config: ClassifyConfig, data: Dataset) -> tuple[Lexicon | None, Lexicon | None, bool, int]:
        """Characters are one-hot, words are vectors."""
        if data.features:
            return None, None, False, 0
        if config.level == "char":
            return Lexicon.build(data.symbol_counts), None, False, config.embed or 0
        words = in_small_letters(data.symbol_counts)
        return Lexicon.build(words, at_least=2), None, True, EMBED if config.embed is None else config.embed

    def statistics(self, config: ClassifyConfig, data: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """One mean and one deviation: the columns of a series are the same quantity."""
        moments = data.moments
        total = moments.count.sum()
        mean = (moments.mean * moments.count).sum() / max(total, 1)
        square = (moments.square + moments.count * (moments.mean - mean) ** 2).sum()
        deviation = float(np.sqrt(square / max(total, 1))) or 1.0
        return (float(mean),) * data.features, (deviation,) * data.features

    def told(self, net: Net, found: Iterator[tuple[Example, NDArray[Any], Any]]) -> Prediction:
        """One record per sequence."""

        def records() -> Iterator[dict[str, Any]]:
            for example, scores, _ in found:
                k = int(scores[0].argmax())
                yield {
                    "place": example.place,
                    **({"text": example.shown} if example.shown else {}),
                    "label": net.encoding.labels[k],
                    "probability": round(float(np.exp(scores[0, k])), 6),
                }

        columns: Sequence[str] = ("place", *([] if net.encoding.features else ["text"]), "label", "probability")
        return Prediction(records(), tuple(columns))


JOB = ClassifyJob()
