"""Captions out of tables, JSON and the files of COCO and Flickr, found again by the names of images."""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..data.ragged import Ragged
from ..data.tables import SUFFIXES, Table, lines, named
from .images import is_images

_LINES = (".txt", ".token")  # what is in them is seen in the first line
_TOKEN = re.compile(r"[^\t]+\.(?:png|jpe?g)#\d+\t", re.IGNORECASE)  # Flickr8k


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


def is_captions(path: Path) -> bool:
    """Whether the ending of a file may be one of captions."""
    return path.suffix.lower() in (*SUFFIXES, ".json", *_LINES)


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
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield from _object(path, config, digest)
        return
    first = next(lines(path), "") if SUFFIXES.get(suffix) != "" else ""  # of JSON Lines none is looked at
    if _TOKEN.match(first):
        for number, line in enumerate(lines(path, digest), 1):
            if line.strip():
                name, tab, text = line.partition("\t")
                yield f"{path}, line {number}", name.rpartition("#")[0], text if tab else ""
        return
    rows: Iterator[tuple[int, Sequence[str]]]
    if "|" in first and not any(separator in first for separator in ",;\t"):
        columns = [name.strip() for name in first.split("|")]
        rows, last = _piped(path, len(columns), digest), len(columns) - 1  # the text is behind the numbers
    elif suffix in _LINES:
        raise DataError(
            f"{path}, line 1 is neither `a.jpg#0`, a tab and a caption, nor names between `|`; a table with commas is "
            f"a .csv file, one with tabs a .tsv file: give it another name"
        )
    else:
        table = Table(path, digest)
        columns, rows, last = list(table.columns), table.rows(), 1
    if is_images(Path(columns[0])) or len(columns) < 2:
        raise DataError(
            f"{path} has the columns {named(columns)}, expected names of columns in its first row, such as "
            f"`image` and `caption`"
        )
    at = []
    for wanted, default, k in ((config.image, "image", 0), (config.caption, "caption", last)):
        name = wanted or (default if default in columns else columns[k])
        if name not in columns:
            what = f"no column {name!r} with the {default}; it has {named(columns)}"
            raise DataError(f"{path} has {what}; say which with --{default}")
        at.append(columns.index(name))
    for number, cells in rows:
        yield f"{path}, row {number}", cells[at[0]], cells[at[1]]


def _piped(path: Path, columns: int, digest: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with `|` between its cells, and without quotes; the last cell may have one, too."""
    for number, line in enumerate(lines(path, digest), 1):
        cells = line.split("|", columns - 1)
        if number == 1 or not line.strip():
            continue
        if len(cells) < columns:
            raise DataError(
                f"{path}, row {number} has {len(cells)} columns, expected {columns} as in row 1; mend the row"
            )
        yield number, cells


def _object(path: Path, config: Any, digest: Any) -> Iterator[tuple[str, str, str]]:
    """A JSON file: a list of objects with `image` and `caption`, an object of names to a caption or several, or COCO's.

    The file is in memory as a whole while it is read.
    """
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if digest is not None:
        digest.update(raw)
    if isinstance(data, dict) and isinstance(data.get("annotations"), list) and isinstance(data.get("images"), list):
        yield from _coco(path, data["images"], data["annotations"], config.partial)
        return
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


def _coco(path: Path, images: list[Any], annotations: list[Any], partial: bool) -> Iterator[tuple[str, str, str]]:
    """The format of COCO: images with `id` and `file_name`, annotations with `image_id` and `caption`."""
    for kind, found, keys in (
        ("image", images, ("id", "file_name")),
        ("annotation", annotations, ("image_id", "caption")),
    ):
        for n, one in enumerate(found, 1):
            if not isinstance(one, dict) or not all(isinstance(one.get(key), (str, int)) for key in keys):
                raise DataError(
                    f"{path}, {kind} {n} has no {keys[0]!r} or no {keys[1]!r}, expected COCO's captions, such as "
                    f"captions_train2017.json"
                )
    names = {one["id"]: str(one["file_name"]) for one in images}
    lost = list(dict.fromkeys(str(one["image_id"]) for one in annotations if one["image_id"] not in names))
    if lost and not partial:
        raise DataError(
            f"{path}: {len(lost)} annotation(s) have an image_id that is not among its images: {named(lost, 5)}; add "
            f"these images, or leave the captions out with --partial"
        )
    if not annotations:
        raise DataError(f"{path} has no captions: its annotations are empty")
    for n, one in enumerate(annotations, 1):
        if one["image_id"] in names:
            yield f"{path}, annotation {n}", names[one["image_id"]], str(one["caption"])
