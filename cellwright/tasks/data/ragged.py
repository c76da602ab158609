"""Sequences of different lengths, one after the other in a temporary file: memory holds only where they begin.

The file is in the folder that `TMPDIR` names, and has no name of its own: it goes with the process. What is read often
stays in the system's cache, as far as there is memory.
"""

import os
import tempfile
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

_BUFFER = 2**20  # bytes before something is written


class Ragged:
    """`append` arrays [n] or [n, width], `close`, then `self[i]` is the i-th of them."""

    def __init__(self, dtype: Any, width: int = 0) -> None:
        """`width` 0: arrays [n]. DataError: there is no folder for temporary files."""
        self._dtype, self._row = np.dtype(dtype), (width,) if width else ()
        try:
            # Without a buffer of its own: what a full disk does not take is not tried again at the end.
            self._file = tempfile.TemporaryFile(prefix="cellwright-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DataError(
                f"no temporary file can be made: {error.strerror or error}; name a folder for them in TMPDIR"
            ) from None
        self._pending = bytearray()
        self._ends = array("q", [0])
        self._values: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, values: NDArray[Any]) -> None:
        """One more sequence."""
        self._pending += np.ascontiguousarray(values, dtype=self._dtype).tobytes()
        self._ends.append(self._ends[-1] + len(values))
        if len(self._pending) >= _BUFFER:
            self._write()

    def extend(self, values: NDArray[Any]) -> None:
        """More of the sequence that was appended last."""
        self.append(values)
        del self._ends[-2]

    def close(self) -> "Ragged":
        """No more of them."""
        self._write()
        self.ends: NDArray[np.int64] = np.frombuffer(self._ends, dtype=np.int64)  # [N + 1], with the 0 in front
        self.lengths: NDArray[np.int64] = np.diff(self.ends)  # [N]
        shape = (self._ends[-1], *self._row)
        empty = not shape[0]
        self._values = np.empty(shape, self._dtype) if empty else np.memmap(self._file, self._dtype, "r", shape=shape)
        return self

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __getitem__(self, i: int) -> NDArray[Any]:
        assert self._values is not None
        return self._values[self.ends[i] : self.ends[i + 1]]

    def read(self, i: int) -> NDArray[Any]:
        """A copy of the i-th of arrays [n]: reading all of them in turn takes the memory of one."""
        size = self._dtype.itemsize
        raw = bytearray(size * int(self.lengths[i]))
        self._file.seek(size * int(self.ends[i]))
        self._file.readinto(raw)
        return np.frombuffer(raw, self._dtype)

    def rows(self, places: Any) -> NDArray[Any]:
        """Rows by their places among those of all sequences, one after the other: a slice, or indices of any shape."""
        assert self._values is not None
        found: NDArray[Any] = self._values[places]
        return found

    def pad(self, indices: NDArray[Any], filler: Any) -> NDArray[Any]:
        """Some of them side by side, [T, B] or [T, B, width], with `filler` after the end of the shorter ones."""
        found = [self[i] for i in indices]
        steps = max((len(one) for one in found), default=0)
        rows = np.full((len(found), steps, *self._row), filler, dtype=self._dtype)
        for row, one in zip(rows, found, strict=True):
            row[: len(one)] = one
        return np.ascontiguousarray(rows.swapaxes(0, 1))

    def _write(self) -> None:
        left = memoryview(self._pending)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            done = os.fstat(self._file.fileno()).st_size / 1e6
            raise DataError(
                f"the data do not fit into the folder for temporary files, {tempfile.gettempdir()}, after {done:,.0f} "
                f"MB: {error.strerror or error}; make room there, or name another folder in TMPDIR"
            ) from None
        self._pending = bytearray()
