"""Recordings as samples: one channel at one rate, block by block, through soundfile and soxr, which are an extra."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")
SLOWEST = 1000  # samples per second
_BLOCK = 2**18  # samples that are read at once
_UNKNOWN = 0x7FFFF000  # sizes from here on are what programs write who do not know the end yet


def libraries() -> Any:
    """The modules soundfile and soxr. OptionError: they are not there."""
    try:
        import rapidfuzz  # noqa: F401  (used where errors are counted: all are asked for before anything is done)
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: soundfile without its library
        raise OptionError(
            f"speech needs soundfile, soxr and rapidfuzz ({error}): pip install 'cellwright[speech]'"
        ) from None
    return soundfile, soxr


class Audio:
    """A recording. `rate`: its samples per second. DataError: it cannot be read, or is not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._soundfile, self._soxr = libraries()
        try:
            size = os.stat(path).st_size
            if not size:
                raise DataError(f"{path} is empty: 0 bytes; leave it out, or record it again")
            _check_whole(path, size)
            with self._soundfile.SoundFile(path) as file:
                self.rate, self.frames, self.channels = file.samplerate, file.frames, file.channels
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; name a recording") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        except self._soundfile.SoundFileError as error:
            raise DataError(self._broken(error)) from None
        if not self.frames:
            raise DataError(f"{path} has no sound: 0 samples; leave it out, or record it again")
        if self.rate < SLOWEST:
            raise DataError(f"{path} has {self.rate} samples per second, expected at least {SLOWEST}")

    def blocks(self, rate: int) -> Iterator[NDArray[np.float32]]:
        """Samples [n] between -1 and 1 at `rate` per second, the mean of all channels.

        DataError: the file ends too early, or holds what is no number.
        """
        resampler = None if rate == self.rate else self._soxr.ResampleStream(self.rate, rate, 1, dtype="float32")
        done = 0
        try:
            with self._soundfile.SoundFile(self.path) as file:
                for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
                    done += len(block)
                    if not np.isfinite(block).all():
                        raise DataError(f"{self.path} has samples that are not finite; record or convert it again")
                    samples = block.mean(1, dtype=np.float32)
                    yield samples if resampler is None else resampler.resample_chunk(samples)
        except self._soundfile.SoundFileError as error:
            raise DataError(self._broken(error)) from None
        if done < self.frames:
            raise DataError(_truncated(self.path, f"it announces {self.frames} samples and has {done}"))
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _broken(self, error: Any) -> str:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        return f"{self.path} is not a recording that can be read: {reason}; leave it out, or convert it again"


def add_bytes(path: Path, digest: Any) -> None:
    """Add what is in a file to a digest."""
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)


def _check_whole(path: Path, size: int) -> None:
    """DataError: a RIFF file ends before its samples do. The library would read what is there and say nothing."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            left = size - file.tell()
            if name == b"data":
                if length < _UNKNOWN and length > left:
                    raise DataError(_truncated(path, f"it announces {length} bytes of samples and has {left}"))
                return
            file.seek(length + length % 2, os.SEEK_CUR)


def _truncated(path: Path, what: str) -> str:
    return f"{path} is truncated: {what}; leave it out, or copy it again"
