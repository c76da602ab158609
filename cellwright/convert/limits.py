"""What protects from files of strangers, and explains a framework that is not here."""

import importlib
import zipfile
from pathlib import Path
from typing import Any

from ..errors import DataError, TargetError

LIMIT = 2**31  # bytes of all arrays of a file: 500 million weights
_ENTRIES = 100_000


def framework(name: str, purpose: str, package: str) -> Any:
    """A framework, imported. TargetError: it is not installed; says which package brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TargetError(f"{purpose} needs {name}, which is not here ({error}); pip install {package}") from None


def check_size(path: Path, size: int, limit: int) -> None:
    """DataError: the arrays of a file would take more than `limit` bytes."""
    if size > limit:
        raise DataError(f"{path} holds {size:,} bytes, expected {limit:,} at most; split it into smaller files")


def first_line(error: Exception) -> str:
    """What an error of somebody else says, in one line."""
    return one_line(str(error).strip().split("\n")[0]) or type(error).__name__


def one_line(text: object, most: int = 400) -> str:
    """A text of somebody else as one line: neither long, nor with characters that control a terminal."""
    line = " ".join(str(text)[: 4 * most].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= most else f"{line[:most]}..."


def check_regular(path: Path, what: str) -> None:
    """DataError: what is there is no file, so that reading it could wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is no regular file; expected {what}")


def open_zip(path: Path, what: str, limit: int = LIMIT) -> zipfile.ZipFile:
    """A zip archive whose declared sizes are within the limit. DataError: absent, no zip file, damaged or too large."""
    check_regular(path, what)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name {what}") from None
    except Exception as error:  # zipfile meets damaged files with errors of many kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise DataError(f"{path} cannot be read: {reason}; expected {what}") from None
    entries = archive.infolist()
    try:
        if len(entries) > _ENTRIES:
            raise DataError(f"{path} has {len(entries):,} entries, expected {_ENTRIES:,} at most")
        if any(entry.flag_bits & 1 for entry in entries):
            raise DataError(f"{path} is encrypted; expected {what}")
        check_size(path, sum(entry.file_size for entry in entries), limit)
    except DataError:
        archive.close()
        raise
    return archive
