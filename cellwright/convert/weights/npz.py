"""Arrays by name in an `.npz` file: read without pickle, and only after their declared sizes have been looked at."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import DataError
from ..limits import LIMIT, first_line, open_zip
from .blocks import Array

_WHAT = "an .npz file, as numpy.savez(file, **arrays) writes it"


def read_npz(path: Path, limit: int = LIMIT) -> dict[str, Array]:
    """The arrays of a file by name. DataError: absent, damaged, larger than `limit` bytes, or holds other things."""
    arrays = {}
    with open_zip(path, _WHAT, limit) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                raise DataError(f"{path} has an entry {entry.filename!r}, which is no array; expected {_WHAT}")
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise DataError(f"{path} has {name!r} twice; expected {_WHAT}")
            try:
                with archive.open(entry) as file:
                    arrays[name] = _array(file, entry.file_size)
            except Exception as error:  # of zipfile, zlib, numpy and Python's parser: whatever a damaged file leads to
                raise DataError(f"{path} is damaged: {name!r}: {first_line(error)}; expected {_WHAT}") from None
    return arrays


def npz(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of an `.npz` file."""
    data = io.BytesIO()
    # Not numpy.savez, which takes the names as arguments, so that one called "file" would be lost.
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return data.getvalue()


def _array(file: IO[bytes], size: int) -> Array:
    """One array. ValueError: its header does not say what the file has."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"it has version {version} of the format, expected 1.0 or 2.0")
    shape, fortran, dtype = read[version](file)
    if dtype.hasobject or dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype}, expected numbers")
    count = 1
    for extent in shape:
        count *= extent
    left = size - file.tell()
    if count * dtype.itemsize != left or any(extent < 0 for extent in shape):
        raise ValueError(f"it has {left:,} bytes, expected {count * dtype.itemsize:,} for its shape {list(shape)}")
    data = file.read()
    array = np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(shape)  # else [1] for a single number
