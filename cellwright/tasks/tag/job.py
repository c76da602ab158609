"""N to N: a label for every word of a sentence, or for every frame of a recording."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import DataError
from ...nn import Recurrent
from ...topologies import ManyToMany
from ..data.columns import filled, label_column, with_deltas
from ..data.lexicon import Lexicon, in_small_letters
from ..data.tables import SUFFIXES, Table, exists, lines, named, numbers
from ..job import Prediction
from ..labels.dataset import Dataset, Example
from ..labels.job import EMBED, LabelJob, Reader
from ..labels.net import LabelTask, Net
from .config import TagConfig

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_TIME = re.compile(r"(?:time|timestamp|datetime|date|t|index|unnamed: 0)(?:[ _(\[].*)?", re.IGNORECASE)
_LONGEST = 4096  # frames that go through the net at once when it is used
_WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")
_ID = re.compile(r"\d+(?:[-.]\d+)?")  # of a word, of several words, of a word that is not in the text
_COMMENT = re.compile(r"# ?[\w.:]+( id)? = [^\t]*$")  # `# text = ...`


class TagReader(Reader):
    """Sentences or recordings, with a label per step."""

    def examples(self, path: str, labelled: bool, training: bool, digest: Any = None) -> Iterator[Example]:
        """Frames from tables; sentences from anything else, without labels also from running text (.txt).

        What is CoNLL-U is seen in the file, whatever its name.
        """
        place = exists(Path(path))
        if place.is_dir():
            raise DataError(f"{place} is a folder; name its files, for example {place}/*.conllu")
        if place.suffix.lower() in SUFFIXES:
            yield from self._frames(Table(place, digest), labelled, training)
            return
        universal, found = _recognised(lines(place, digest))
        if not labelled and place.suffix.lower() == ".txt" and not universal:
            for number, line in enumerate(found, 1):
                if words := _WORD.findall(line):
                    yield Example(f"{place}, line {number}", words, [], words)
        else:
            universal = universal or place.suffix.lower() == ".conllu"
            yield from self._sentences(place, found, labelled, universal)

    def _sentences(self, path: Path, found: Iterator[str], labelled: bool, universal: bool) -> Iterator[Example]:
        """Columns, an empty line between sentences; `#` begins a comment in CoNLL-U, -DOCSTART- is left out."""
        if self.layout.setdefault("kind", "words") != "words":
            raise DataError(f"{path} has words, and this run was trained on frames; name a .csv, .tsv or .jsonl file")
        words: list[str] = []
        labels: list[str] = []
        first = 0
        for number, line in enumerate(found, 1):
            line = line.rstrip("\r\n")
            if line.startswith("#") and (universal or (not words and _COMMENT.match(line))):
                continue
            cells = line.split("\t") if "\t" in line else line.split()
            if not cells or cells[0] == "-DOCSTART-":
                if words:
                    yield Example(f"{path}, line {first}", words, labels, words)
                words, labels = [], []
                continue
            if universal and not cells[0].isdigit():
                continue  # the joint form of several words, or a word that is not in the text
            at = self._column(path, number, cells, self.config.word, "--word", 1 if universal else 0, universal)
            words.append(cells[at].strip())
            first = number if len(words) == 1 else first
            if labelled:
                default = 3 if universal else len(cells) - 1
                label_at = self._column(path, number, cells, self.config.label, "--label", default, universal)
                if label_at == at:
                    raise DataError(
                        f"{path}, line {number} has one column, {cells[0]!r}, expected a word and a label; separate "
                        f"them by a tab or a space"
                    )
                labels.append(cells[label_at].strip())
            if not words[-1] or (labelled and not labels[-1]):
                what = "label" if words[-1] else "word"
                raise DataError(f"{path}, line {number} has an empty {what}; fill it in, or leave the sentence out")
        if words:
            yield Example(f"{path}, line {first}", words, labels, words)

    def _column(
        self, path: Path, number: int, cells: list[str], wanted: str, option: str, default: int, universal: bool
    ) -> int:
        """The place of a column in one line."""
        at = default
        if wanted:
            names = CONLLU if universal else ()
            if wanted.lower() in names:
                at = names.index(wanted.lower())
            elif wanted.isdigit() and int(wanted):
                at = int(wanted) - 1
            else:
                expected = f"{', '.join(names)}, or a number" if names else "a number from 1 on"
                raise DataError(f"{option} {wanted}: {path} has columns without names, expected {expected}")
        if at >= len(cells):
            raise DataError(
                f"{path}, line {number} has {len(cells)} column(s), expected at least {at + 1} for {option}; separate "
                f"them by tabs or spaces"
            )
        return at

    def _frames(self, table: Table, labelled: bool, training: bool) -> Iterator[Example]:
        """A frame per row; a recording per file, or as long as --sequence stays the same."""
        layout, config = self.layout, self.config
        if not layout:
            label = label_column(table, config.label)
            for name in config.drop:
                table.find(name, "--drop", "something to leave out")
            left = {label, config.sequence, *config.drop}
            layout.update(kind="frames", label=label, columns=[name for name in table.columns if name not in left])
            layout["times"] = [name for name in layout["columns"] if _TIME.fullmatch(name)]
            if not layout["columns"]:
                raise DataError(f"{table.path} has no features: {named(table.columns)} and nothing else")
        if layout["kind"] != "frames":
            raise DataError(f"{table.path} has frames, and this run was trained on words; name a file of columns")
        names = layout["columns"]
        at = [self.find(table, name, "--drop", "a feature") for name in names]
        label_at = self.find(table, layout["label"], "--label", "the label") if labelled else -1
        group_at = self.find(table, config.sequence, "--sequence", "the recording") if config.sequence else -1
        longest = (config.window or _LONGEST) if training else _LONGEST
        rows: list[Any] = []
        labels: list[str] = []
        shown: list[str] = []
        group, before, clock = "", None, None
        for number, cells in table.rows():
            place = f"{table.path}, row {number}"
            here = cells[group_at] if group_at >= 0 else ""
            clock = self._grows(table, cells, place, clock if here == group else None)
            if rows and (here != group or len(rows) == longest):
                piece = self._recording(table, rows, labels, shown, before)
                yield piece
                before = piece.inputs[-1, : len(names)] if here == group else None
                rows, labels, shown = [], [], []
            group = here
            rows.append(numbers([cells[k] for k in at], names, place, bool(config.fill)))
            shown.append(f"{number}")
            if labelled:
                if not cells[label_at].strip():
                    raise DataError(
                        f"{place}, column {layout['label']!r} has no label; fill it in or leave the row out"
                    )
                labels.append(cells[label_at].strip())
        if rows:
            yield self._recording(table, rows, labels, shown, before)

    def _grows(self, table: Table, cells: list[str], place: str, before: Any) -> Any:
        """Of the columns that may be a time, those that grow from row to row stay in the layout. Gives their values."""
        if self._trained or not (names := self.layout["times"]):
            return None
        found = numbers([cells[table.columns.index(name)] for name in names], names, place, True, np.float64)
        now = dict(zip(names, found.tolist(), strict=True))
        self.layout["times"] = [name for name in names if before is None or now[name] > before[name]]
        return now

    def _recording(self, table: Table, rows: list[Any], labels: list[str], shown: list[str], before: Any) -> Example:
        place = f"{table.path}, rows {shown[0]} to {shown[-1]}"
        # The frame before goes along, so that a piece is filled, and differs, as in the whole recording.
        values = filled(np.stack(rows if before is None else [before, *rows]), self.config.fill)
        values = with_deltas(values) if self.config.deltas else values
        return Example(place, values[-len(rows) :], labels, shown)


def _recognised(found: Iterator[str]) -> tuple[bool, Iterator[str]]:
    """Whether lines are CoNLL-U: the first one of a word has ten columns and begins with an ID. And all the lines."""
    seen = []
    for line in found:
        seen.append(line)
        if line.strip() and not line.startswith("#"):
            cells = line.split("\t")
            return len(cells) == len(CONLLU) and bool(_ID.fullmatch(cells[0])), chain(seen, found)
    return False, iter(seen)


class TagJob(LabelJob):
    """One label per step."""

    config = TagConfig
    unit = "label"
    spans = True
    reader = TagReader

    def topology(self, config: TagConfig, recurrent: Recurrent, output: nn.Module) -> nn.Module:
        """N to N."""
        return ManyToMany(recurrent, output)

    def facts(self, config: TagConfig, net: Net, data: Dataset, task: LabelTask) -> dict[str, list[str]]:
        """Those of all labels, and a time that is a feature."""
        rows = super().facts(config, net, data, task)
        if times := data.layout.get("times"):
            drop = " ".join(f"--drop {shlex.quote(name)}" for name in times)
            rows["note"] = [
                f"{named(times)} among the features: a time, as it grows from row to row; {drop} leaves it out"
            ]
        return rows

    def lexicons(self, config: TagConfig, data: Dataset) -> tuple[Lexicon | None, Lexicon | None, bool, int]:
        """A vector per word in small letters, and its characters as they are."""
        if data.features:
            return None, None, False, 0
        words, characters = in_small_letters(data.symbol_counts), Counter[str]()
        for word, count in data.symbol_counts.items():
            for character in word:
                characters[character] += count
        known = Lexicon.build(characters, at_least=2) if config.characters else None
        return Lexicon.build(words, at_least=2), known, True, EMBED if config.embed is None else config.embed

    def told(self, net: Net, found: Iterator[tuple[Example, NDArray[Any], Any]]) -> Prediction:
        """One record per word or frame."""
        what = "row" if net.encoding.features else "word"

        def records() -> Iterator[dict[str, Any]]:
            for example, scores, _ in found:
                for t, shown in enumerate(example.shown):
                    k = int(scores[t].argmax())
                    yield {
                        "place": example.place,
                        what: shown,
                        "label": net.encoding.labels[k],
                        "probability": round(float(np.exp(scores[t, k])), 6),
                        "last": t == len(example.shown) - 1,
                    }

        def columns(record: dict[str, Any]) -> str:
            return f"{record['word']}\t{record['label']}" + ("\n" if record["last"] else "")

        return Prediction(
            records(), ("place", what, "label", "probability"), None if net.encoding.features else columns
        )


JOB = TagJob()
