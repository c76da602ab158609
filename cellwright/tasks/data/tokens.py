"""The symbols of a text model that are longer than a character: words, or pieces of words (byte-pair encoding).

Both cut a text so that nothing is lost: a word has the space before it, and other white space is a token. Tokens side
by side are the text again.
"""

import codecs
import heapq
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError
from .merges import BYTES, TWICE, Pair, learn_merges, replaced
from .vocabulary import Text, Vocabulary, joined, pieces_of, smallest

UNKNOWN = " <unk>"  # with a space, as most words have one before them
LIMITS = {"word": 10_000, "bpe": 2_000}  # symbols, where nothing else is asked for
_WORD = re.compile(r" ?\w+| ?[^\w\s]|\s")
CHUNK = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")
_REMEMBERED = 2**18  # words of which it is remembered, twice at most, what they are made of


class _Known(dict[str, int]):
    """The ids of words."""

    def __missing__(self, word: str) -> int:
        return 0


class _Tokens(ABC):
    """What is cut out of texts, and numbered."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encoded(self, pieces: Iterable[str], what: str = "the text") -> Iterator[NDArray[Any]]:
        """The ids of a text that comes in pieces, some at a time."""

    @property
    def dtype(self) -> Any:
        """The smallest one for its ids."""
        return smallest(len(self))

    def encode(self, text: str, what: str = "the text") -> NDArray[Any]:
        """The ids of a text, [N]; bytes of a command line that are not UTF-8 stay what they are."""
        return joined(self.encoded((text,), what), self.dtype)


class Words(_Tokens):
    """Words, punctuation and white space; what is not known is <unk>, id 0.

    `tokens`: the known ones. `start`: the id that a text without a prompt begins after.
    """

    level: Literal["word"] = "word"

    def __init__(self, tokens: Iterable[str], start: int) -> None:
        self.tokens = [UNKNOWN, *tokens]
        self.start = start
        self._ids = _Known({token: k for k, token in enumerate(self.tokens)})

    @classmethod
    def build(cls, text: Text, limit: int) -> "Words":
        """The most frequent tokens of a text that come twice at least, in all `limit` symbols with <unk>."""
        counts = _counted(_WORD, text)
        often = (t for t in counts if counts[t] >= TWICE)
        known = heapq.nsmallest(limit - 1, often, key=lambda t: (-counts[t], t))
        made = cls(known, 0)
        made.start = made._ids.get("\n", min(1, len(known)))
        return made

    def __len__(self) -> int:
        return len(self.tokens)

    def encoded(self, pieces: Iterable[str], what: str = "the text") -> Iterator[NDArray[Any]]:
        """The ids of a text that comes in pieces, some at a time."""
        for found in _cut(_WORD, pieces):
            yield np.fromiter(map(self._ids.__getitem__, found), self.dtype, len(found))

    def unknown(self, text: Text) -> tuple[int, int]:
        """How many words of a text are unknown, and what it takes to spell them: their bytes, and one for each end."""
        count = spelled = 0
        for found in _cut(_WORD, pieces_of(text)):
            new = [token for token in found if not self._ids[token]]
            count, spelled = count + len(new), spelled + sum(len(token.encode()) + 1 for token in new)
        return count, spelled

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return "".join(self.tokens[int(k)] for k in ids)

    def decoder(self) -> "TokenDecoder":
        """Turns ids into text one at a time."""
        return TokenDecoder([token.encode("utf-8", "surrogatepass") for token in self.tokens])

    def to_json(self) -> dict[str, Any]:
        """Pure data: what `vocabulary_from` reads."""
        return {"level": self.level, "tokens": self.tokens[1:], "start": self.start}


class BytePairs(_Tokens):
    """The 256 bytes, and pairs of symbols that stand side by side often (Sennrich et al. 2016, on bytes).

    `merges`: the k-th pair is symbol 256 + k. Every text can be written, and no merge goes over the end of a word.
    """

    level: Literal["bpe"] = "bpe"

    def __init__(self, merges: Iterable[Pair], start: int) -> None:
        self.merges = list(merges)
        self.start = start
        self.pieces = [bytes((k,)) for k in range(BYTES)]
        for left, right in self.merges:
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self._ranks = {pair: BYTES + k for k, pair in enumerate(self.merges)}
        self.spelled = _Spelled(self)  # word: its ids

    @classmethod
    def build(cls, text: Text, limit: int) -> "BytePairs":
        """Merges from a text, one after the other the most frequent pair, until there are `limit` symbols."""
        return cls.of(_counted(CHUNK, text), limit)

    @classmethod
    def of(cls, counts: "Counter[str]", limit: int) -> "BytePairs":
        """The same from how often each word comes; it takes the counts out of memory."""
        words: dict[bytes, int] = {}
        while counts:
            chunk, count = counts.popitem()
            words[_raw(chunk)] = count
        newline = ord("\n")
        start = newline
        if not any(newline in word for word in words):
            most = Counter[int]()
            for word, count in words.items():
                for byte in word:
                    most[byte] += count
            start = min(most, key=lambda b: (-most[b], b), default=newline)
        return cls(learn_merges(words, limit - BYTES), start)

    def __len__(self) -> int:
        return len(self.pieces)

    def encoded(self, pieces: Iterable[str], what: str = "the text") -> Iterator[NDArray[Any]]:
        """The ids of a text that comes in pieces, some at a time."""
        for found in _cut(CHUNK, pieces):
            yield np.fromiter(chain.from_iterable(map(self.spelled.__getitem__, found)), self.dtype)

    def spell(self, word: str) -> list[int]:
        """The ids of one word: the earliest merges first."""
        ids, none = list(_raw(word)), len(self)
        while len(ids) > 1:
            new = min(self._ranks.get(pair, none) for pair in pairwise(ids))
            if new == none:
                break
            ids = replaced(ids, self.merges[new - BYTES], new)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.pieces[int(k)] for k in ids).decode("utf-8", "replace")

    def decoder(self) -> "TokenDecoder":
        """Turns ids into text one at a time."""
        return TokenDecoder(self.pieces)

    def to_json(self) -> dict[str, Any]:
        """Pure data: what `vocabulary_from` reads."""
        return {"level": self.level, "merges": [list(pair) for pair in self.merges], "start": self.start}


class _Spelled(dict[str, list[int]]):
    """What words are made of, as far as it is remembered."""

    def __init__(self, pairs: BytePairs) -> None:
        super().__init__()
        self._pairs = pairs
        self._before: dict[str, list[int]] = {}  # what was remembered last time that it became too much

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= _REMEMBERED:
            self._before = dict(self)
            self.clear()
        found = self[word] = self._before.get(word) or self._pairs.spell(word)
        return found


class TokenDecoder:
    """Ids to text, one at a time: a character whose bytes are in several tokens comes out with its last byte."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces, self._utf8 = pieces, codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, symbol: int) -> str:
        """The text that this id completes; empty in the middle of a character."""
        return self._utf8.decode(self._pieces[symbol])

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was cut, else nothing."""
        return self._utf8.decode(b"", final=True)


Symbols = Vocabulary | Words | BytePairs


def vocabulary_of(text: Text, level: str, limit: int | None) -> Symbols:
    """The symbols of a text at a level. Words and pieces: at most `limit`, or what `LIMITS` says."""
    if level == "word":
        return Words.build(text, limit or LIMITS[level])
    if level == "bpe":
        return BytePairs.build(text, limit or LIMITS[level])
    return Vocabulary.build(text, "byte" if level == "byte" else "char")


def byte_pairs_from(data: Mapping[str, Any]) -> BytePairs:
    """What `to_json` of byte pairs gave. RunError: the data are something else."""
    found = vocabulary_from(data)
    if not isinstance(found, BytePairs):
        raise RunError(f"the pieces of words are not byte pairs: {json.dumps(data, default=str)[:60]} ...")
    return found


def vocabulary_from(data: Mapping[str, Any]) -> Symbols:
    """What `to_json` of any of them gave. RunError: the data are something else."""
    level: Any = data.get("level")
    if not isinstance(level, str) or level not in LIMITS:
        return Vocabulary.from_json(data)
    start: Any = data.get("start")
    held: Any = data.get("tokens" if level == "word" else "merges")
    sound = type(start) is int and isinstance(held, list)
    if level == "word":
        sound = sound and all(isinstance(t, str) and t for t in held) and len({UNKNOWN, *held}) == len(held) + 1
    else:
        sound = sound and all(
            isinstance(p, list) and len(p) == 2 and all(type(x) is int and 0 <= x < BYTES + k for x in p)
            for k, p in enumerate(held)
        )
    if not sound or not 0 <= start < len(held) + (1 if level == "word" else BYTES):
        raise RunError(f"the vocabulary of the level {level} is not one: {json.dumps(data, default=str)[:60]} ...")
    return Words(held, start) if level == "word" else BytePairs([(a, b) for a, b in held], start)


def _cut(pattern: "re.Pattern[str]", pieces: Iterable[str]) -> Iterator[list[str]]:
    """The tokens of a text that comes in pieces, as if it came in one: the last one of a piece may go on."""
    rest = ""
    for piece in pieces:
        found = pattern.findall(rest + piece)
        rest = found.pop() if found else ""
        yield found
    yield [rest] if rest else []


def _counted(pattern: "re.Pattern[str]", text: Text) -> "Counter[str]":
    """How often each token of a text comes."""
    counts: Counter[str] = Counter()
    for found in _cut(pattern, pieces_of(text)):
        counts.update(found)
    return counts


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
