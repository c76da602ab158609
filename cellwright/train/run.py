"""The run folder: everything about one training, and nothing that can run code.

    config.json        format, package version, the settings and the digest of the text; as the run was started
    ... .json          what else the task needs to be used again (for text: vocabulary.json, cells.json)
    metrics.jsonl      one JSON object per line: training, evaluations, test
    best.safetensors   the weights with the lowest validation loss, or the best of the measure that was asked for
    last.safetensors   the weights, optimizer, carried state and random state to go on with; the counters as metadata

`last` and `best` hold the digests of the JSON files, and their own, so that a change of any file is noticed. `last`
also says how much of metrics.jsonl belongs to it.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from .. import __version__
from ..errors import RunError
from . import files
from .metrics import Metrics

FORMAT = 1
CONFIG = "config.json"
Which = Literal["best", "last"]
_RESTORE = "restore the folder from a copy, or train again into another one"


def check_free(path: Path) -> None:
    """RunError: something is at `path` that is not an empty folder."""
    if path.is_symlink() and not path.exists():
        raise RunError(f"--out {path} is a link to nothing; name another folder")
    if path.exists() and not path.is_dir():
        raise RunError(f"--out {path} is a file; name a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()):
        raise RunError(f"--out {path} exists and is not empty; name another folder, or go on with --resume {path}")


class Run:
    """One run folder. `create` makes it whole at once, `open` reads it; `documents` are its JSON files by name."""

    def __init__(self, path: Path, documents: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        self.path = path
        self.documents = documents
        self._digests = digests

    @classmethod
    def create(
        cls, path: Path, documents: Mapping[str, Any], tensors: Mapping[str, Tensor], counters: Mapping[str, Any]
    ) -> "Run":
        """A new folder with these JSON files, empty metrics and the first `last`. RunError: the folder is in use."""
        check_free(path)
        stamped = {**documents, CONFIG: {"format": FORMAT, "cellwright": __version__, **documents[CONFIG]}}
        texts = {name: (json.dumps(data, indent=1) + "\n").encode() for name, data in stamped.items()}
        # Written elsewhere and renamed, so that a run folder is there as a whole or not at all.
        part = path if path.is_dir() else path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True, exist_ok=True)
            run = cls(part, stamped, {name: files.digest(text) for name, text in texts.items()})
            for name, text in texts.items():
                files.write(part / name, text)
            metrics = Metrics.create(part)
            run.save("last", tensors, {**counters, "metrics": metrics.position()})
            metrics.close()
            if part != path:
                os.rename(part, path)
                files.sync_folder(path.parent)
        except OSError as error:
            raise RunError(f"--out {path} cannot be made: {error.strerror or error}; name another folder") from None
        finally:
            if part != path:
                shutil.rmtree(part, ignore_errors=True)
        run.path = path
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run folder; its documents are not to be trusted before a `load`. RunError: absent or damaged."""
        if not path.is_dir():
            raise RunError(f"{path} is not a run folder: there is no such folder; name the --out of a training")
        if not (path / CONFIG).is_file():
            raise RunError(f"{path} is not a run folder: it has no {CONFIG}; name the --out of a training")
        names = sorted(file.name for file in path.glob("*.json") if not file.name.startswith("."))
        raw = {name: files.read(path / name, _RESTORE) for name in names}
        documents = {name: _parse(text) for name, text in raw.items()}
        config = documents[CONFIG]
        if not isinstance(config, dict):
            raise RunError(f"{path / CONFIG} is damaged: it is not a JSON object; {_RESTORE}")
        _check_format(path / CONFIG, config.get("format"), config.get("cellwright"))
        return cls(path, documents, {name: files.digest(text) for name, text in raw.items()})

    def save(self, which: Which, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Replace `best` or `last` at once. RunError: it cannot be written."""
        metadata = {
            "format": "pt",  # what readers of safetensors expect of files from torch
            "cellwright": __version__,
            "cellwright_format": str(FORMAT),
            "documents": json.dumps(self._digests, sort_keys=True),
            "counters": json.dumps(counters, sort_keys=True),
        }
        files.write(self.path / f"{which}.safetensors", files.pack(tensors, metadata))

    def load(self, which: Which) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and counters of `save`.

        RunError: absent, damaged, edited, of another version, or the documents are not those it was written with.
        """
        path = self.path / f"{which}.safetensors"
        mend = _RESTORE
        if which == "best":
            mend = (
                f"it is written at the first evaluation; go on with --resume {self.path}, or use the weights of --last"
            )
        data = files.read(path, mend)
        metadata = files.metadata_of(path, data, _RESTORE)
        _check_format(path, metadata.get("cellwright_format"), metadata.get("cellwright"))
        tensors, metadata = files.unpack(path, data, _RESTORE)
        expected: dict[str, str] = json.loads(metadata["documents"])
        for name, digest in expected.items():
            if name not in self._digests:
                raise RunError(f"{self.path / name} is missing; {_RESTORE}")
            if self._digests[name] != digest:
                raise RunError(
                    f"{self.path / name} is not the one that {path.name} was written with: it was changed, or one of "
                    f"the two is of another run; {_RESTORE}"
                )
        # Whatever else is in the folder does not belong to the run.
        self.documents, self._digests = {name: self.documents[name] for name in expected}, expected
        counters: dict[str, Any] = json.loads(metadata["counters"])
        return tensors, counters

    def metrics(self, position: Mapping[str, Any]) -> Metrics:
        """The metrics, cut to what they were at `position`. RunError: the lines up to there are not the same."""
        return Metrics.reopen(self.path, position, _RESTORE)


def _parse(raw: bytes) -> Any:
    """JSON as data; None if it is none, which the digests will tell if the file is one of the run."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _check_format(path: Path, found: object, version: object) -> None:
    if str(found) != str(FORMAT):
        by = f"cellwright {version}" if version else "something else"
        raise RunError(
            f"{path} has format {found}, written by {by}, and cellwright {__version__} reads format {FORMAT}; use that "
            f"version, or train again"
        )
