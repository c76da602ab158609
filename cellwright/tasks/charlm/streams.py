"""Ids cut into streams: for training in chunks with carried state, and for evaluation without a gap.

The ids are on the disk (`stored`), and a batch reads what it needs of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from ..data.ragged import Ragged
from ..data.tokens import Symbols

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
        rows, size = self.chunks * chunk + 1, ids.itemsize
        # A view: the last row of a stream may be the first of the next one.
        self._ids = as_strided(np.asarray(ids), (rows, batch), (size, length * size), writeable=False)

    def __call__(self, k: int) -> tuple[Tensor, Tensor]:
        """Input and target of chunk k, 0 <= k < chunks: int64 [T, B] each, the target one symbol later."""
        rows = self._ids[k * self.chunk : (k + 1) * self.chunk + 1]
        ids = torch.from_numpy(rows.astype(np.int64, order="C"))  # [T + 1, B]
        return ids[:-1], ids[1:]


def cuts(count: int, validation: float, test: float) -> tuple[int, int]:
    """Where of so many ids or characters validation and test begin: they are the last ones, as fractions."""
    last = count - round(count * test)
    return last - round(count * validation), last


def stored(vocabulary: Symbols, texts: Iterable[Iterable[str]]) -> Ragged:
    """The ids of texts that come in pieces, on the disk, in the smallest dtype. DataError: as in `encode`."""
    found = Ragged(vocabulary.dtype)
    for pieces in texts:
        found.append(np.empty(0, vocabulary.dtype))
        for ids in vocabulary.encoded(pieces):
            found.extend(ids)
    return found.close()


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
