"""Text from files and folders, as one string.

Files are UTF-8. The characters are kept exactly as they are in the file, `\\r\\n` included: a model writes what it has
read, and a byte offset in an error is an offset in the file. Only a byte order mark at the start of a file, which is no
text, is left out. Files are joined with a newline where one is missing between two of them.
"""

import hashlib
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DataError

_BOM = "\ufeff"


@dataclass(frozen=True)
class Corpus:
    """A text, the number of files it came from, and how many files of a folder were left out, by reason."""

    text: str
    files: int
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the text as UTF-8, hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """What a run remembers of it."""
        return {"sha256": self.digest, "characters": len(self.text), "files": self.files}

    @property
    def note(self) -> str:
        """`3 files skipped (2 binary, 1 not UTF-8)`; empty when every file was read."""
        total = sum(self.skipped.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        return f"{total} file{'s' if total != 1 else ''} skipped ({reasons})" if total else ""


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
    texts: list[str] = []
    skipped: Counter[str] = Counter()
    for path in [Path(p) for p in paths]:
        if path.is_dir():
            texts += _folder(_walk(path, glob), skipped)
        else:
            try:
                texts.append(_decode(path))
            except _UnreadableError as error:
                raise DataError(str(error)) from None
    if not paths:
        texts += _folder(_standard_library(), skipped)
    corpus = Corpus(_join(texts), len(texts), dict(skipped))
    if not corpus.text:
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


def _join(texts: Sequence[str]) -> str:
    """The texts one after the other, each but the last ending with a newline."""
    filled = [text for text in texts if text]
    return "".join(text if text.endswith("\n") else text + "\n" for text in filled[:-1]) + "".join(filled[-1:])


def _decode(path: Path) -> str:
    """The text of one file; _UnreadableError: there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _UnreadableError("missing", f"{path} does not exist; name a text file or a folder") from None
    except OSError as error:
        raise _UnreadableError("unreadable", f"{path} cannot be read: {error.strerror or error}") from None
    nul = data.find(b"\0")
    if nul >= 0:
        sentence = f"{path} is not text: it has a NUL byte at offset {nul}; name a UTF-8 text file"
        raise _UnreadableError("binary", sentence)
    try:
        return data.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        sentence = (
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason}); convert it "
            f"first, for example with `iconv -f latin1 -t utf-8`"
        )
        raise _UnreadableError("not UTF-8", sentence) from None


def _folder(files: Iterator[Path], skipped: "Counter[str]") -> Iterator[str]:
    """The texts of the files that are text; the others are counted in `skipped` by reason."""
    for file in files:
        try:
            yield _decode(file)
        except _UnreadableError as error:
            skipped[error.reason] += 1


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
