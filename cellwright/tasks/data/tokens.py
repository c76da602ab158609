"""The symbols of a text model that are longer than a character: words, or pieces of words (byte-pair encoding).

Both cut a text so that nothing is lost: a word has the space before it, and other white space is a token. Tokens side
by side are the text again.
"""

import codecs
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError
from .vocabulary import Vocabulary

UNKNOWN = " <unk>"  # with a space, as most words have one before them
LIMITS = {"word": 10_000, "bpe": 2_000}  # symbols, where nothing else is asked for
_WORD = re.compile(r" ?\w+| ?[^\w\s]|\s")
_CHUNK = re.compile(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")
_BYTES = 256
_TWICE = 2  # what comes once says nothing about how it is used, and leaves something to be unknown
Pair = tuple[int, int]


class Words:
    """Words, punctuation and white space; what is not known is <unk>, id 0.

    `tokens`: the known ones. `start`: the id that a text without a prompt begins after.
    """

    level: Literal["word"] = "word"

    def __init__(self, tokens: Iterable[str], start: int) -> None:
        self.tokens = [UNKNOWN, *tokens]
        self.start = start
        self._ids = {token: k for k, token in enumerate(self.tokens)}

    @classmethod
    def build(cls, text: str, limit: int) -> "Words":
        """The most frequent tokens of a text that come twice at least, in all `limit` symbols with <unk>."""
        counts = Counter(_WORD.findall(text))
        known = sorted((t for t in counts if counts[t] >= _TWICE), key=lambda t: (-counts[t], t))[: limit - 1]
        made = cls(known, 0)
        made.start = made._ids.get("\n", min(1, len(known)))
        return made

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, what: str = "the text") -> NDArray[Any]:
        """The ids of a text, [N]."""
        return np.array([self._ids.get(token, 0) for token in _WORD.findall(text)], _dtype(len(self)))

    def unknown_bytes(self, text: str) -> int:
        """What it takes to spell the unknown words of a text: their bytes in UTF-8, and one for the end of each."""
        return sum(len(token.encode()) + 1 for token in _WORD.findall(text) if token not in self._ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return "".join(self.tokens[int(k)] for k in ids)

    def decoder(self) -> "TokenDecoder":
        """Turns ids into text one at a time."""
        return TokenDecoder([token.encode("utf-8", "surrogatepass") for token in self.tokens])

    def to_json(self) -> dict[str, Any]:
        """Pure data: what `vocabulary_from` reads."""
        return {"level": self.level, "tokens": self.tokens[1:], "start": self.start}


class BytePairs:
    """The 256 bytes, and pairs of symbols that stand side by side often (Sennrich et al. 2016, on bytes).

    `merges`: the k-th pair is symbol 256 + k. Every text can be written, and no merge goes over the end of a word.
    """

    level: Literal["bpe"] = "bpe"

    def __init__(self, merges: Iterable[Pair], start: int) -> None:
        self.merges = list(merges)
        self.start = start
        self.pieces = [bytes((k,)) for k in range(_BYTES)]
        for left, right in self.merges:
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self._ranks = {pair: _BYTES + k for k, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}

    @classmethod
    def build(cls, text: str, limit: int) -> "BytePairs":
        """Merges from a text, one after the other the most frequent pair, until there are `limit` symbols."""
        counts = Counter(_CHUNK.findall(text))
        words = {_raw(chunk): count for chunk, count in counts.items()}
        most = Counter[int]()
        for word, count in words.items():
            for byte in word:
                most[byte] += count
        newline = ord("\n")
        start = newline if newline in most else min(most, key=lambda b: (-most[b], b), default=newline)
        return cls(learn_merges(words, limit - _BYTES), start)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, what: str = "the text") -> NDArray[Any]:
        """The ids of a text, [N]; bytes of a command line that are not UTF-8 stay what they are."""
        found: list[int] = []
        for chunk in _CHUNK.findall(text):
            if chunk not in self._known:
                self._known[chunk] = self._merged(list(_raw(chunk)))
            found += self._known[chunk]
        return np.array(found, _dtype(len(self)))

    def _merged(self, ids: list[int]) -> list[int]:
        """The earliest merges first."""
        none = len(self)
        while len(ids) > 1:
            new = min(self._ranks.get(pair, none) for pair in pairwise(ids))
            if new == none:
                break
            ids = _replaced(ids, self.merges[new - _BYTES], new)
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


def vocabulary_of(text: str, level: str, limit: int | None) -> Symbols:
    """The symbols of a text at a level. Words and pieces: at most `limit`, or what `LIMITS` says."""
    if level == "word":
        return Words.build(text, limit or LIMITS[level])
    if level == "bpe":
        return BytePairs.build(text, limit or LIMITS[level])
    return Vocabulary.build(text, "byte" if level == "byte" else "char")


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
            isinstance(p, list) and len(p) == 2 and all(type(x) is int and 0 <= x < _BYTES + k for x in p)
            for k, p in enumerate(held)
        )
    if not sound or not 0 <= start < len(held) + (1 if level == "word" else _BYTES):
        raise RunError(f"the vocabulary of the level {level} is not one: {json.dumps(data, default=str)[:60]} ...")
    return Words(held, start) if level == "word" else BytePairs([(a, b) for a, b in held], start)


def learn_merges(words: Mapping[bytes, int], most: int) -> list[Pair]:
    """At most so many merges, from words and how often they come; of equally frequent pairs the smaller one first."""
    ids = [list(word) for word in words]
    counts = list(words.values())
    pairs: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = {}
    for k, word in enumerate(ids):
        for pair in pairwise(word):
            pairs[pair] += counts[k]
            places.setdefault(pair, set()).add(k)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < most:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            continue  # it has another count by now, and another place in the heap
        if -count < _TWICE:
            break
        changed: set[Pair] = set()
        for k in places.pop(pair):
            new = _replaced(ids[k], pair, _BYTES + len(merges))
            for sign, word in ((-1, ids[k]), (1, new)):
                for one in pairwise(word):
                    pairs[one] += sign * counts[k]
                    changed.add(one)
            for one in pairwise(new):
                places.setdefault(one, set()).add(k)
            ids[k] = new
        merges.append(pair)
        for one in changed:
            if pairs[one] > 0:
                heapq.heappush(heap, (-pairs[one], one))
    return merges


def _replaced(ids: list[int], pair: Pair, new: int) -> list[int]:
    """The ids with `new` in place of each pair, from the left."""
    found, k = [], 0
    while k < len(ids):
        if k + 1 < len(ids) and ids[k] == pair[0] and ids[k + 1] == pair[1]:
            found.append(new)
            k += 2
        else:
            found.append(ids[k])
            k += 1
    return found


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _dtype(size: int) -> Any:
    return np.min_scalar_type(max(size - 1, 0))
