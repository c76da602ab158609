"""Text from files and folders, as one text on the disk.

Files are UTF-8. The characters are kept exactly as they are in the file, `\\r\\n` included: a model writes what it has
read, and a byte offset in an error is an offset in the file. Only a byte order mark at the start of a file, which is no
text, is left out. Files are joined with a newline where one is missing between two of them.
"""

import codecs
import hashlib
import os
import sysconfig
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..data.ragged import Ragged
from ..data.tables import CONVERT, UTF16

_BOM = "\ufeff"
_PIECE = 2**20  # bytes or characters that are in memory at once


class Corpus:
    """A text in a temporary file: memory holds one piece of it. `add` pieces of whole characters, then `close`.

    `files`: how many it came from. `skipped`: how many files of a folder were left out, by reason.
    """

    def __init__(self) -> None:
        self.files = 0
        self.skipped: Counter[str] = Counter()
        self._blocks = Ragged(np.uint8)  # UTF-8
        self._ends = array("q", [0])  # characters up to the end of each block
        self._pending: list[str] = []
        self._waiting = 0
        self._digest = hashlib.sha256()
        self._last = "\n"

    def add(self, text: str) -> None:
        """One more piece."""
        self._pending.append(text)
        self._waiting += len(text)
        self._last = text[-1:] or self._last
        if self._waiting >= _PIECE:
            self._write()

    def add_file(self, pieces: Iterable[str]) -> None:
        """The text of one more file, on a line of its own."""
        self.files += 1
        begins = True
        for piece in filter(None, pieces):
            if begins and self._last != "\n":
                self.add("\n")
            self.add(piece)
            begins = False

    def close(self) -> "Corpus":
        """No more of them."""
        self._write()
        self._blocks.close()
        return self

    @property
    def characters(self) -> int:
        """How many there are."""
        return self._ends[-1]

    @property
    def utf8(self) -> NDArray[np.uint8]:
        """Its bytes, which stay on the disk."""
        return np.asarray(self._blocks.rows(slice(None)))

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """The text from a character to another one, piece by piece."""
        stop = self.characters if stop is None else stop
        for i in range(bisect_right(self._ends, start) - 1, len(self._blocks)):
            begin = self._ends[i]
            if begin >= stop:
                return
            yield self._blocks.read(i).tobytes().decode()[max(start - begin, 0) : stop - begin]

    @property
    def digest(self) -> str:
        """SHA-256 of the text as UTF-8, hexadecimal."""
        return self._digest.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "characters": self.characters, "files": self.files}

    @property
    def note(self) -> str:
        """`3 files skipped (2 binary, 1 not UTF-8)`; empty when every file was read."""
        total = sum(self.skipped.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return f"{total} file{'s' if total != 1 else ''} skipped ({reasons})" if total else ""

    def _write(self) -> None:
        block = "".join(self._pending).encode()
        if block:
            self._digest.update(block)
            self._blocks.append(np.frombuffer(block, np.uint8))
            self._ends.append(self._ends[-1] + self._waiting)
        self._pending, self._waiting = [], 0


class _UnreadableError(Exception):
    """Why one file is not text, in few words and in a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def read(paths: Sequence[str | os.PathLike[str]], glob: str = "*") -> Corpus:
    """The text of `paths` in the given order; without paths that of the Python standard library's own source.

    A folder stands for its files, recursively and sorted, whose name (or path, when it has a slash) matches `glob`;
    hidden files and `__pycache__` are left out, files that are not UTF-8 text are skipped and counted.
    DataError: a path is missing, a file named in `paths` is not UTF-8 text, or there is no text at all.
    """
    corpus = Corpus()
    for path in [Path(p) for p in paths]:
        if path.is_dir():
            _add_folder(corpus, _walk(path, glob))
        else:
            _add(corpus, path)
    if not paths:
        _add_folder(corpus, _standard_library())
    corpus.close()
    if not corpus.characters:
        raise DataError(_nothing(paths, glob, corpus))
    return corpus


def _nothing(paths: Sequence[str | os.PathLike[str]], glob: str, corpus: Corpus) -> str:
    """The sentence for a corpus without a single character."""
    if not paths:
        return "no text was named and this Python comes without the source of its library; name a text file or a folder"
    names = ", ".join(str(p) for p in paths)
    if corpus.files:
        return f"{names}: the text is empty (0 characters in {corpus.files} file(s)); name a file that has text"
    skipped = f", {corpus.note}" if corpus.note else ""
    return f"{names}: no text file matches --glob {glob!r}{skipped}; name another folder or pattern"


def _add(corpus: Corpus, path: Path) -> None:
    """The text of a file. DataError: there is none."""
    try:
        corpus.add_file(_decoded(path))
    except _UnreadableError as error:
        raise DataError(str(error)) from None


def _add_folder(corpus: Corpus, files: Iterable[Path]) -> None:
    """The texts of the files that are text; the others are counted by reason."""
    for file in files:
        try:
            for _ in _decoded(file):  # to its end: where a file is no text may be said by its last byte
                pass
        except _UnreadableError as error:
            corpus.skipped[error.reason] += 1
        else:
            _add(corpus, file)


def _decoded(path: Path) -> Iterator[str]:
    """The text of one file, piece by piece. _UnreadableError, at any time: it is none."""
    decoder, at, begins = codecs.getincrementaldecoder("utf-8")(), 0, True
    broken = None  # not UTF-8; with a NUL byte later on it is something else
    for block in _blocks(path):
        if not at and block.startswith(UTF16):
            raise _UnreadableError("not UTF-8", f"{path} {CONVERT}")
        nul = block.find(b"\0")
        if nul >= 0:
            sentence = f"{path} is not text: it has a NUL byte at offset {at + nul}; name a UTF-8 text file"
            raise _UnreadableError("binary", sentence)
        cut = len(decoder.getstate()[0])  # bytes of a character that the block before began
        try:
            text = "" if broken else decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            broken = _UnreadableError(
                "not UTF-8",
                f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {at - cut + error.start} "
                f"({error.reason}); convert it first, for example with `iconv -f latin1 -t utf-8`",
            )
        else:
            yield text.removeprefix(_BOM) if begins else text
            begins = begins and not text
        at += len(block)
    if broken:
        raise broken


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and nothing at its end. _UnreadableError: they cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_PIECE):
                yield block
    except FileNotFoundError:
        raise _UnreadableError("missing", f"{path} does not exist; name a text file or a folder") from None
    except OSError as error:
        raise _UnreadableError("unreadable", f"{path} cannot be read: {error.strerror or error}") from None
    yield b""


def _walk(folder: Path, glob: str) -> Iterator[Path]:
    """The visible files of a folder that match `glob`, in sorted order, at every depth."""
    # `match` compares from the right, so that "*.py" and "**/*.py" both mean every depth.
    pattern = glob.removeprefix("**/")
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
        for name in sorted(names):
            path = Path(here, name)
            if name.startswith(".") or not path.is_file():
                continue
            if PurePosixPath(path.relative_to(folder).as_posix()).match(pattern):
                yield path


def _standard_library() -> Iterator[Path]:
    """The modules at the top of the running Python's standard library: real, large, and already on the machine."""
    return iter(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
