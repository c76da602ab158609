"""Captions out of tables and JSON, found again by the names of images."""

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..data.ragged import Ragged
from ..data.tables import Table, named
from .images import is_images


class Captions:
    """Names of images and captions on the disk: memory holds some numbers for each. `add`, then `close`."""

    def __init__(self) -> None:
        self._names, self._texts = Ragged(np.uint8), Ragged(np.uint8)
        self._hashes = array("q")

    def add(self, name: str, text: str) -> None:
        """One more caption."""
        for kept, one in ((self._names, name), (self._texts, text)):
            kept.append(np.frombuffer(one.encode("utf-8", "surrogatepass"), np.uint8))
        self._hashes.append(hash(name))

    def close(self) -> "Captions":
        """No more of them."""
        self._names.close()
        self._texts.close()
        hashes = np.frombuffer(self._hashes, np.int64)
        self._order = np.argsort(hashes, kind="stable")
        self._sorted: NDArray[np.int64] = hashes[self._order]
        self._taken = np.zeros(len(hashes), bool)
        return self

    def take(self, name: str) -> list[str]:
        """The captions of a name, in their order."""
        first, end = np.searchsorted(self._sorted, hash(name)), np.searchsorted(self._sorted, hash(name), "right")
        places = [i for i in self._order[first:end].tolist() if self._name(i) == name]
        self._taken[places] = True
        return [self._texts[i].tobytes().decode("utf-8", "surrogatepass") for i in places]

    def left(self) -> list[str]:
        """The names that nobody has asked for."""
        return list(dict.fromkeys(self._name(i) for i in np.flatnonzero(~self._taken).tolist()))

    def _name(self, i: int) -> str:
        return self._names[i].tobytes().decode("utf-8", "surrogatepass")


def read(tables: Sequence[Path], config: Any, digest: Any) -> Captions:
    """The captions of all tables. DataError: they are not what they should be."""
    found = Captions()
    for path in tables:
        for place, name, text in _rows(path, config, digest):
            text = text.strip()
            if not name.strip() or not text:
                lacks = "name of an image" if not name.strip() else "caption"
                raise DataError(f"{place} has no {lacks}; fill it in, or leave the row out")
            found.add(name.strip(), text.lower() if config.lower else text)
    return found.close()


def _rows(path: Path, config: Any, digest: Any) -> Iterator[tuple[str, str, str]]:
    """Place, name of the image and caption of each row."""
    if path.suffix.lower() == ".json":
        yield from _object(path, config, digest)
        return
    table = Table(path, digest)
    if is_images(Path(table.columns[0])) or len(table.columns) < 2:
        raise DataError(
            f"{path} has the columns {named(table.columns)}, expected names of columns in its first row, such as "
            f"`image` and `caption`"
        )
    at = []
    for k, (wanted, default) in enumerate(((config.image, "image"), (config.caption, "caption"))):
        name = wanted or (default if default in table.columns else table.columns[k])
        at.append(table.find(name, f"--{default}", f"the {default}"))
    for number, cells in table.rows():
        yield f"{path}, row {number}", cells[at[0]], cells[at[1]]


def _object(path: Path, config: Any, digest: Any) -> Iterator[tuple[str, str, str]]:
    """A JSON file: a list of objects with `image` and `caption`, or an object of names to a caption or several."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if digest is not None:
        digest.update(raw)
    image, caption = config.image or "image", config.caption or "caption"
    rows: list[tuple[Any, Any]] = list(data.items()) if isinstance(data, dict) else []
    for n, row in enumerate(data if isinstance(data, list) else (), 1):
        if not isinstance(row, dict) or image not in row or caption not in row:
            raise DataError(f"{path}, entry {n} is not an object with {image!r} and {caption!r}")
        rows.append((row[image], row[caption]))
    for n, (key, texts) in enumerate(rows, 1):
        for text in texts if isinstance(texts, list) else [texts]:
            if not isinstance(text, str) or not isinstance(key, (str, int)):
                raise DataError(f"{path}, entry {n} has no text as its caption but a {type(text).__name__}")
            yield f"{path}, entry {n}", str(key), text
    if not rows:
        raise DataError(f"{path} has no captions: it is a {type(data).__name__}, expected a list of objects with rows")
