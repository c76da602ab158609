"""The log of a run, metrics.jsonl: one JSON object per line, and a place to go back to."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import RunError

NAME = "metrics.jsonl"


class Metrics:
    """An open log. Lines after the last `position` may be lost in a crash, and are cut away by `reopen`."""

    def __init__(self, file: IO[bytes], content: bytes) -> None:
        self._file = file
        self._bytes = len(content)
        self._digest = hashlib.sha256(content)

    @classmethod
    def create(cls, folder: Path) -> "Metrics":
        """An empty log."""
        return cls(open(folder / NAME, "xb"), b"")

    @classmethod
    def reopen(cls, folder: Path, position: Mapping[str, Any], mend: str) -> "Metrics":
        """The log as it was at `position`. RunError, with the mend: lines up to there are missing or not the same."""
        path = folder / NAME
        try:
            with open(path, "rb") as file:
                content = file.read(position["bytes"])
        except FileNotFoundError:
            raise RunError(f"{path} is missing; {mend}") from None
        log = cls(open(path, "r+b"), content)  # noqa: SIM115
        if log._position() != position:
            log.close()
            raise RunError(f"{path} was changed after it was written: its first lines differ; {mend}")
        log._file.truncate(position["bytes"])
        log._file.seek(position["bytes"])
        return log

    def append(self, record: Mapping[str, Any]) -> None:
        """One more line."""
        line = json.dumps(record).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._bytes += len(line)
        self._digest.update(line)

    def position(self) -> dict[str, Any]:
        """Where the log stands; all lines up to here are on the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._position()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _position(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}
