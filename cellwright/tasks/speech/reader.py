"""Recordings with what is said in them: folders with a table of transcripts, tables, names, or recordings alone."""

import unicodedata
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import DataError
from ..data.tables import SUFFIXES as TABLES
from ..data.tables import Table, named
from ..labels.dataset import Example
from ..labels.job import Reader
from . import audio
from .ctc import steps_needed
from .features import log_mel

_FILE = ("file", "path", "wav", "audio", "recording", "filename", "file_name")
_TEXT = ("transcript", "transcription", "text", "sentence", "label", "word")
_SHOWN = 3  # names that an error repeats


class SpeechReader(Reader):
    """Log-mel frames [T, F] with symbols or a label. `layout` has the rate, which the first recording decides."""

    def examples(self, path: str, labelled: bool, training: bool, digest: Any = None) -> Iterator[Example]:
        """The recordings of a folder or table, or one by its name."""
        audio.libraries()
        self.layout["what"] = "label" if self.config.level == "label" else "symbol"
        place = Path(path)
        if place.is_dir():
            yield from self._folder(place, labelled, digest)
        elif place.suffix.lower() in TABLES:
            for row, file, transcript in self._rows(place, labelled, digest):
                yield self._example(row, file, transcript, digest)
        elif labelled and place.exists():
            raise DataError(
                f"{place} is neither a folder nor a table; name a folder of recordings with a transcripts.tsv, or a "
                f"table of file and transcript"
            )
        else:
            yield self._example(str(place), place, None, digest)

    def _folder(self, folder: Path, labelled: bool, digest: Any) -> Iterator[Example]:
        files = (p for p in folder.rglob("*") if p.suffix.lower() in audio.SUFFIXES and not p.name.startswith("."))
        found = sorted(p for p in files if p.is_file())
        if not found:
            raise DataError(f"{folder} has no recordings; name a folder with files {', '.join(audio.SUFFIXES)}")
        table = _table_of(folder) if labelled else None
        if table is None and labelled and self.config.level != "label":
            raise DataError(
                f"{folder} has no table of transcripts; write {folder / 'transcripts.tsv'} with a file and its "
                f"transcript per line, separated by a tab; or, for one label per recording, --level label"
            )
        if table is None:
            for file in found:
                yield self._example(str(file), file, _name_label(folder, file) if labelled else None, digest)
            return
        listed = set()
        for row, file, transcript in self._rows(table, labelled, digest):
            listed.add(file.resolve())
            yield self._example(row, file, transcript, digest)
        if alone := [str(file.relative_to(folder)) for file in found if file.resolve() not in listed]:
            raise DataError(
                f"{table} has no transcript of {named(alone, _SHOWN)}; add them, move them away, or name the table "
                f"instead of the folder"
            )

    def _rows(self, path: Path, labelled: bool, digest: Any) -> Iterator[tuple[str, Path, str | None]]:
        """Place, recording and transcript of each row; names without a folder are beside the table."""
        table = Table(path, digest)
        first = any(Path(name).suffix.lower() in audio.SUFFIXES for name in table.columns)
        bare = first or not table.header  # no row of names
        if bare and len(table.columns) < 1 + labelled:
            raise DataError(f"{path}, row 1 has one column, expected a file and a transcript, separated by a tab")
        at, text_at = 0, 1
        if not bare:
            options = ("", "") if self._trained else ("--file", "--text")
            at = _column(table, self.config.file, options[0], "the recordings", _FILE)
            text_at = _column(table, self.config.text, options[1], "the transcripts", _TEXT) if labelled else -1
        rows = table.rows()
        if first and table.header:
            rows = chain([(1, list(table.columns))], rows)
        for number, cells in rows:
            place = f"{path}, row {number}"
            if not cells[at].strip():
                raise DataError(f"{place} names no recording; fill it in or leave the row out")
            file = path.parent / cells[at].strip()
            if not file.is_file():
                raise DataError(f"{place} names {cells[at]!r}, and there is no file {file}; mend the name or the row")
            yield place, file, cells[text_at] if labelled else None

    def _example(self, place: str, file: Path, transcript: str | None, digest: Any) -> Example:
        recording = audio.Audio(file)
        if digest is not None:
            digest.update(f"\0{file.name}\0{transcript}\0".encode())
            audio.add_bytes(file, digest)
        rate = self.layout.setdefault("rate", self.config.rate or recording.rate)
        if recording.rate != rate:
            self.layout["resampled"] = self.layout.get("resampled", 0) + 1
        frames = log_mel(rate, self.config.mels)(recording.blocks(rate))
        labels = [] if transcript is None else self._symbols(place, file, transcript)
        if self.config.level != "label":
            steps, needed = -(-len(frames) // self.config.stack), steps_needed(labels)
            if needed > steps:
                raise DataError(
                    f"{place}: the transcript {(transcript or '')[:60]!r} needs {needed} steps, and {file} has {steps} "
                    f"({len(frames)} frames, --stack {self.config.stack}); leave it out, or train with less --stack"
                )
        return Example(place, frames, labels, str(file))

    def _symbols(self, place: str, file: Path, transcript: str) -> list[str]:
        text = clean(transcript, self.config.lower)
        if not text:
            raise DataError(f"{place}: {file} has an empty transcript; fill it in or leave it out")
        level = self.config.level
        return [text] if level == "label" else text.split() if level == "word" else list(text)


def clean(text: str, lower: bool) -> str:
    """A transcript with one spelling of each letter (NFC), and one space between words."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text.lower() if lower else text


def _table_of(folder: Path) -> Path | None:
    """The table of transcripts in a folder: the one with this name, or the only one. DataError: several."""
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLES and not p.name.startswith("."))
    best = [p for p in tables if p.stem.lower() in ("transcripts", "metadata")] or tables
    if len(best) > 1:
        raise DataError(
            f"{folder} has several tables, {named([p.name for p in best])}; call one transcripts.tsv, or name it "
            f"instead of the folder"
        )
    return best[0] if best else None


def _name_label(folder: Path, file: Path) -> str:
    """The folder that a recording is in, or the beginning of its name: LABEL/x.wav, LABEL_x.wav."""
    return file.stem.split("_")[0] if file.parent == folder else file.parent.name


def _column(table: Table, wanted: str, option: str, what: str, usual: tuple[str, ...]) -> int:
    """The place of a column by the name that was given, or by a usual one."""
    if not wanted:
        wanted = next((name for name in table.columns if name.lower() in usual), usual[0])
    return table.find(wanted, option, what)
