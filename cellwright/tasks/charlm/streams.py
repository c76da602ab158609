"""Ids cut into streams: for training in chunks with carried state, and for evaluation without a gap."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Piece = TypeVar("Piece", NDArray[Any], str)
IGNORE = -100  # a target that does not count: cross_entropy's default


class Streams:
    """Training ids as `batch` streams, each `chunks` chunks of `chunk` symbols long, and the symbol that follows.

    Stream b begins where stream b - 1 ends, so that a state carried from chunk k to chunk k + 1 is a state of the same
    text. What is left at the end of a stream, less than one chunk, is not used.
    """

    def __init__(self, ids: NDArray[Any], batch: int, chunk: int) -> None:
        """`ids` [N], N > batch * chunk."""
        length = (len(ids) - 1) // batch
        self.chunk = chunk
        self.chunks = length // chunk
        rows = self.chunks * chunk + 1
        # Time first, so that a chunk is one contiguous piece of memory.
        self._ids = np.ascontiguousarray(np.stack([ids[b * length : b * length + rows] for b in range(batch)], axis=1))

    def __call__(self, k: int) -> tuple[Tensor, Tensor]:
        """Input and target of chunk k, 0 <= k < chunks: int64 [T, B] each, the target one symbol later."""
        rows = self._ids[k * self.chunk : (k + 1) * self.chunk + 1]
        ids = torch.from_numpy(rows.astype(np.int64))  # [T + 1, B]
        return ids[:-1], ids[1:]


def split(ids: Piece, validation: float, test: float) -> tuple[Piece, Piece, Piece]:
    """Training, validation and test ids, or texts: contiguous pieces, the last two as fractions."""
    last = len(ids) - round(len(ids) * test)
    middle = last - round(len(ids) * validation)
    return ids[:middle], ids[middle:last], ids[last:]


def evaluation_chunks(ids: NDArray[Any], streams: int, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Input and target of successive chunks, int64 [T, B] each, in which every id but the first is a target once.

    The streams are nearly equally long, and the last target of a stream is the first input of the next. At the end of
    the shorter ones the target is IGNORE: padding after the end of a stream changes nothing that came before it.
    """
    targets = len(ids) - 1
    base, extra = divmod(targets, streams)
    lengths = base + (np.arange(streams) < extra)  # [B]
    starts = np.cumsum(lengths) - lengths  # [B]
    for begin in range(0, base + (extra > 0), chunk):
        steps = np.arange(begin, min(begin + chunk, base + (extra > 0)))[:, None]  # [T, 1]
        valid = steps < lengths  # [T, B]
        at = np.where(valid, starts + steps, 0)  # [T, B]
        x = ids[at].astype(np.int64)
        y = np.where(valid, ids[at + 1].astype(np.int64), IGNORE)
        yield torch.from_numpy(x), torch.from_numpy(y)
