"""Images out of files, one after the other: .npz archives, folders, PNG and JPEG files; or features made of them."""

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from ..data.tables import named

SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LARGEST = 2**28  # numbers in one image
_ORIENTATION = 0x0112  # of EXIF; 1: upright
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """`values`: uint8 [H, W, C], or features as float32 [S, F]. `keys`: the names that captions may use for it."""

    place: str
    keys: tuple[str, ...]
    values: NDArray[Any]


def is_images(path: Path) -> bool:
    """Whether a path is of images, and not of captions."""
    return path.is_dir() or path.suffix.lower() in (".npz", *SUFFIXES)


class Images:
    """All images of some paths, in one shape. `shape`: [H, W, C] or [S, F]; None: as the first one has it."""

    def __init__(
        self, paths: Iterable[Path], shape: tuple[int, ...] | None, size: tuple[int, int] | None, digest: Any = None
    ) -> None:
        """`size`: width and height that every image is made to have. `digest`: what the bytes are added to."""
        self.shape, self._paths, self._size, self._digest = shape, list(paths), size, digest
        self._given = shape is not None

    def __iter__(self) -> Iterator[Picture]:
        """DataError: a file that cannot be read, or an image of another shape."""
        for path in self._paths:
            for found in _read(path, self._channels, self._digest):
                values = found.values if self._size is None or found.values.ndim < 3 else self._sized(found.values)
                if self.shape is None:
                    self.shape = values.shape
                if values.shape != self.shape:
                    raise DataError(
                        f"{found.place} {_said(values.shape)}, expected one that {_said(self.shape)} as "
                        + ("those of the training; change its size" if self._given else "those before it; mend it")
                        + (", or train with --size WIDTHxHEIGHT" if values.ndim == 3 else "")
                    )
                yield Picture(found.place, found.keys, values)

    @property
    def _channels(self) -> int:
        return self.shape[2] if self.shape is not None and len(self.shape) == 3 else 3

    def _sized(self, values: NDArray[Any]) -> NDArray[Any]:
        assert self._size is not None
        if values.shape[1::-1] == self._size:
            return values
        image = _pillow().fromarray(values[..., 0] if values.shape[2] == 1 else values)
        return np.asarray(image.resize(self._size)).reshape(self._size[1], self._size[0], -1)


def _said(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return f"has {shape[0]} x {shape[1]} features"
    return f"is {shape[1]} x {shape[0]} pixels with {shape[2]} channel(s)"


def _read(path: Path, channels: int, digest: Any) -> Iterator[Picture]:
    """The images of one path."""
    if path.is_dir():
        empty = True
        for file in _walk(path):
            empty, name = False, file.relative_to(path)
            keys = (name.as_posix(), name.name, name.stem)
            yield Picture(str(file), tuple(dict.fromkeys(keys)), _pixels(file, channels, digest))
        if empty:
            raise DataError(f"{path} has no image: no file that ends with {', '.join(SUFFIXES)}")
    elif path.suffix.lower() == ".npz":
        yield from _archive(path, digest)
    else:
        yield Picture(str(path), (path.name, path.stem), _pixels(path, channels, digest))


def _walk(folder: Path) -> Iterator[Path]:
    """The images of a folder, at every depth, in the order of their names."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
            yield Path(entry.path)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise OptionError(
            "files of images need Pillow: pip install 'cellwright[images]', or give the images as an .npz file"
        ) from None
    return Image


def _pixels(file: Path, channels: int, digest: Any) -> NDArray[Any]:
    """[H, W, C] of a file."""
    pillow = _pillow()
    try:
        raw = file.read_bytes()
        with pillow.open(io.BytesIO(raw)) as image:
            if image.width * image.height * channels > _LARGEST:
                raise DataError(f"{file} is {image.width} x {image.height} pixels, which is too large; make it smaller")
            values = np.asarray(_upright(file, image, pillow, channels))
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; name a file or a folder") from None
    except (OSError, SyntaxError, ValueError, struct.error, pillow.DecompressionBombError) as error:
        what = str(error).split(" <_io")[0]
        raise DataError(f"{file} is not a sound image: {what}; mend it, or leave it out") from None
    if digest is not None:
        digest.update(f"\0{file.name}\0".encode() + raw)
    return values.reshape(*values.shape[:2], -1)


def _upright(file: Path, image: Any, pillow: Any, channels: int) -> Any:
    """As a person sees it: turned as its EXIF says, with 8 bits for each number, and on white where it is transparent.

    With 4 channels the transparency stays what it is.
    """
    # Before Pillow 10.3 a PNG of 16 bits has the mode I.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode in ("I", "F") and not deep:
        raise DataError(f"{file} has 32 bits per number ({image.mode}), expected 8 or 16; save it as a PNG of 8 bits")
    if turn := _TURNS.get(image.getexif().get(_ORIENTATION)):  # exif_transpose fails where other entries are broken
        image = image.transpose(pillow.Transpose[turn])
    if deep:
        values = np.asarray(image).astype(np.int64)
        values[values == image.info.get("transparency")] = 65535
        image = pillow.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data and channels < 4:
        white = pillow.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert(_MODES[channels])


def _archive(path: Path, digest: Any) -> Iterator[Picture]:
    """The rows of the array of images, read while they are asked for."""
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()}
            keys = _keys(path, archive, headers)
            name = _chosen(path, {n: shape for n, (shape, _, _) in headers.items()})
            shape, columns, dtype = headers[name]
            ranks = (3, 4) if dtype == np.uint8 else (2, 3, 4) if dtype.kind == "f" else ()
            if len(shape) not in ranks or columns:
                raise DataError(
                    f"{path}: the array {name!r} is {dtype} {list(shape)}, expected images as uint8 [N, H, W] or "
                    f"[N, H, W, C] or as float [N, H, W, C] from 0 to 1, or features as float [N, F] or [N, S, F]"
                )
            row = shape[1:] if len(shape) == 4 else (*shape[1:], 1) if dtype.kind == "u" else (1, *shape[1:])[-2:]
            if not all(row) or int(np.prod(row)) > _LARGEST or (len(row) == 3 and row[2] not in _MODES):
                mend = "; features of places are [N, S, F]" if dtype.kind == "f" else ""
                raise DataError(
                    f"{path}: the array {name!r} is {list(shape)}, expected images with 1, 3 or 4 channels{mend}"
                )
            if keys is not None and len(keys) != shape[0]:
                raise DataError(f"{path} has {len(keys)} names in `keys` and {shape[0]} images; give each one name")
            if twice := next((str(key) for key, n in Counter(keys).items() if n > 1), None):
                raise DataError(f"{path} has the name {twice!r} twice in `keys`; give every image a name of its own")
            with archive.open(f"{name}.npy") as file:
                _skip_header(file)
                for n in range(shape[0]):
                    raw = file.read(int(np.prod(row)) * dtype.itemsize)
                    values = np.frombuffer(raw, dtype).reshape(row)
                    key = str(n if keys is None else keys[n])
                    if dtype.kind == "f" and len(row) == 3:
                        if not ((values >= 0) & (values <= 1)).all():
                            raise DataError(
                                f"{path}: the image {key!r} has numbers from {values.min():.4g} to {values.max():.4g}, "
                                f"expected 0 to 1, or uint8 from 0 to 255: (255 * images).astype('uint8') if 1 is white"
                            )
                        values = (255 * values.astype(np.float32)).round().astype(np.uint8)
                    elif dtype.kind == "f":
                        values = values.astype(np.float32)
                        if not np.isfinite(values).all():
                            raise DataError(f"{path}: the features of {key!r} are not all finite numbers; mend them")
                    if digest is not None:
                        digest.update(f"\0{key}\0".encode() + raw)
                    yield Picture(f"{path}, image {key!r}", (key,), values)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a file or a folder") from None
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError) as error:
        raise DataError(f"{path} is not a sound .npz file: {error}; write it again with numpy.savez") from None


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype of an array."""
    with archive.open(name) as file:
        return _skip_header(file)


def _skip_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns, dtype = read(file)
    return shape, columns, dtype


def _keys(path: Path, archive: zipfile.ZipFile, headers: dict[str, Any]) -> NDArray[Any] | None:
    """The names of the images; None: they have none."""
    if "keys" not in headers:
        return None
    with archive.open("keys.npy") as file:
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if found.ndim != 1 or found.dtype.kind not in "Uiu":
        raise DataError(f"{path}: the array 'keys' is {found.dtype} {list(found.shape)}, expected names or numbers [N]")
    return found


def _chosen(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """The array of the images."""
    for name in ("images", "features"):
        if name in shapes:
            return name
    large = [name for name, shape in shapes.items() if len(shape) > 1]
    if len(large) != 1:
        raise DataError(f"{path} has the arrays {named(list(shapes))}; call the one of the images `images`")
    return large[0]
