"""The symbols of a text model: the characters of a text, or the 256 bytes of its UTF-8 form."""

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, RunError

Level = Literal["char", "byte"]
Text = str | Iterable[str]  # a text, or its pieces one after the other
_NAMED = 5  # how many unknown characters an error names


class Vocabulary:
    """Symbols with the ids 0 ... len - 1, in the order of their code points.

    `symbols`: the characters in one string (char level), or empty: the 256 bytes (byte level).
    `start`: the id that a text without a prompt begins after.
    """

    def __init__(self, level: Level, symbols: str, start: int) -> None:
        self.level: Level = level
        self.symbols = symbols
        self.start = start
        points = _points(symbols) if level == "char" else np.arange(256, dtype=np.uint32)
        self._size = len(points)
        self.dtype = smallest(self._size)
        # One entry more than the largest code point: everything above it falls on that entry and is unknown.
        self._table = np.full(int(points.max(initial=0)) + 2, -1, dtype=np.int32)
        self._table[points] = np.arange(self._size, dtype=np.int32)

    @classmethod
    def build(cls, text: Text, level: Level = "char") -> "Vocabulary":
        """The vocabulary of a text, which begins after a newline if it has one, else after its most frequent symbol."""
        counts = np.zeros(256, np.int64)
        for piece in pieces_of(text):
            found = np.bincount(_points(piece) if level == "char" else _bytes(piece), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        present = np.flatnonzero(counts)
        symbols = "".join(map(chr, present.tolist())) if level == "char" else ""
        first = ord("\n") if counts[ord("\n")] else int(counts.argmax())
        return cls(level, symbols, int(np.searchsorted(present, first)) if level == "char" else first)

    def __len__(self) -> int:
        return self._size

    def encode(self, text: str, what: str = "the text") -> NDArray[Any]:
        """The ids of a text, [N], in the smallest unsigned dtype.

        DataError: a character without an id; `what` names the text in it.
        """
        return joined(self.encoded((text,), what), self.dtype)

    def encoded(self, pieces: Iterable[str], what: str = "the text") -> Iterator[NDArray[Any]]:
        """The ids of a text that comes in pieces, some at a time. DataError, at its end: as in `encode`."""
        unknown: Counter[str] = Counter()
        known = set(self.symbols)
        for piece in pieces:
            if self.level == "byte":
                yield np.array(_bytes(piece))
                continue
            ids = self._table.take(_points(piece), mode="clip")
            if ids.size and ids.min() < 0:
                unknown.update(c for c in piece if c not in known)
            if not unknown:
                yield ids.astype(self.dtype)
        if unknown:
            raise DataError(self._unknown(unknown, what))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        decoder = self.decoder()
        return "".join([decoder.push(int(i)) for i in ids]) + decoder.finish()

    def decoder(self) -> "Decoder":
        """Turns ids into text one at a time."""
        return Decoder(self)

    def to_json(self) -> dict[str, Any]:
        """Pure data: what `from_json` reads."""
        return {"level": self.level, "symbols": self.symbols, "start": self.start}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary of `to_json`. RunError: the data are something else."""
        level: Any = data.get("level")
        symbols: Any = data.get("symbols")
        start: Any = data.get("start")
        sound = level in ("char", "byte") and isinstance(symbols, str) and type(start) is int
        if not sound or list(symbols) != sorted(set(symbols)):
            raise RunError("the vocabulary is not one: it needs a level, its symbols in their order, and a start")
        vocabulary = cls(level, symbols, start)
        if not 0 <= start < len(vocabulary):
            raise RunError(
                f"the vocabulary starts after symbol {start}, and it has the symbols 0 to {len(vocabulary) - 1}"
            )
        return vocabulary

    def _unknown(self, found: "Counter[str]", what: str) -> str:
        """The sentence about the characters of a text that have no id, and how often they come."""
        counts = found.most_common()
        named = ", ".join(f"{c!a} ({n} time{'s' if n > 1 else ''})" for c, n in counts[:_NAMED])
        more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
        return (
            f"{what} has characters outside the vocabulary, whose {len(self)} symbols come from the training text: "
            f"{named}{more}; leave them out, or train on text that has them, or with --level byte"
        )


class Decoder:
    """Ids to text, one at a time: a character that takes several bytes comes out with its last byte."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._symbols = vocabulary.symbols
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.level == "byte" else None

    def push(self, symbol: int) -> str:
        """The text that this id completes; empty in the middle of a character."""
        return self._symbols[symbol] if self._utf8 is None else self._utf8.decode(bytes((symbol,)))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was cut, else nothing."""
        return "" if self._utf8 is None else self._utf8.decode(b"", final=True)


def pieces_of(text: Text) -> Iterable[str]:
    """The pieces of a text."""
    return (text,) if isinstance(text, str) else text


def joined(parts: Iterable[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """Ids that came some at a time."""
    return np.concatenate([np.empty(0, dtype), *parts])


def smallest(size: int) -> Any:
    """The smallest unsigned dtype for so many ids."""
    return np.min_scalar_type(max(size - 1, 0))


def _points(text: str) -> NDArray[np.uint32]:
    """The code points of a text, [N]; half a surrogate pair (from a command line that is not UTF-8) counts as one."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _bytes(text: str) -> NDArray[np.uint8]:
    """The UTF-8 bytes of a text, [N]; bytes of a command line that are not UTF-8 come back as they were."""
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
