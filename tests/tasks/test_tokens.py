"""Words and byte pairs: what is cut is the text again, and the merges are those of a slow, plain search."""

import json
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cellwright import RunError
from cellwright.tasks.data import tokens
from cellwright.tasks.data.merges import learn_merges
from cellwright.tasks.data.tokens import UNKNOWN, BytePairs, Words, vocabulary_from, vocabulary_of

TEXT = "the cat sat, the cat ran:\n\tthe  end of the cat\n" * 3 + "Straße 😀😀 über\r\n"
TEXTS = st.text(st.sampled_from("ab c.\n\tä😀_0"), max_size=60)


def plain_merges(words: dict[bytes, int], most: int) -> list[tuple[int, int]]:
    """Counts every pair anew for each merge."""
    held = [([*word], count) for word, count in words.items()]
    found: list[tuple[int, int]] = []
    while len(found) < most:
        counts: Counter[tuple[int, int]] = Counter()
        for ids, count in held:
            for pair in pairwise(ids):
                counts[pair] += count
        best = min(counts, key=lambda p: (-counts[p], p), default=None)
        if best is None or counts[best] < 2:
            break
        for ids, _ in held:
            k = 0
            while k + 1 < len(ids):
                if (ids[k], ids[k + 1]) == best:
                    ids[k : k + 2] = [256 + len(found)]
                k += 1
        found.append(best)
    return found


@given(
    st.dictionaries(st.binary(min_size=1, max_size=9).map(lambda b: bytes(x % 3 + 97 for x in b)), st.integers(1, 9))
)
def test_merges_are_those_of_a_plain_search(words: dict[bytes, int]) -> None:
    assert learn_merges(words, 12) == plain_merges(words, 12)


@given(TEXTS, TEXTS)
def test_byte_pairs_write_every_text(learned: str, text: str) -> None:
    vocabulary = BytePairs.build(learned, 300)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    decoder = vocabulary.decoder()
    assert "".join([*map(decoder.push, ids.tolist()), decoder.finish()]) == text


@given(TEXTS)
def test_words_write_what_they_know(text: str) -> None:
    twice = f"{text}\n{text}\n"
    vocabulary = Words.build(twice, 1000)
    assert vocabulary.decode(vocabulary.encode(twice)) == twice


def test_words() -> None:
    vocabulary = Words.build(TEXT, 5)
    assert vocabulary.tokens == [UNKNOWN, " cat", "\n", " the", "the"]  # 9 times, 7, 6 and 6
    assert vocabulary.tokens[vocabulary.start] == "\n"
    assert vocabulary.decode(vocabulary.encode("a cat of the cat\n")) == " <unk> cat <unk> the cat\n"
    assert vocabulary.unknown("a cat öf\n") == (2, (1 + 1) + (4 + 1))  # "a", " öf"
    assert Words.build("once only\n", 10).tokens == [UNKNOWN], "what comes once is unknown"


@given(TEXTS, st.lists(st.integers(0, 60)), st.sampled_from(["char", "byte", "word", "bpe"]))
def test_pieces_are_the_same_as_the_whole(text: str, places: list[int], level: str) -> None:
    cuts = [0, *sorted(min(k, len(text)) for k in places), len(text)]
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    whole = vocabulary_of(text, level, 270 if level == "bpe" else 5 if level == "word" else None)
    parts = vocabulary_of(pieces, level, 270 if level == "bpe" else 5 if level == "word" else None)
    assert parts.to_json() == whole.to_json()
    ids = [k for some in whole.encoded(iter(pieces)) for k in some.tolist()]
    assert ids == whole.encode(text).tolist()
    if isinstance(whole, Words):  # beside the tokens of the whole text
        tokens = re.findall(r" ?\w+| ?[^\w\s]|\s", text)
        assert ids == [whole.tokens.index(t) if t in whole.tokens[1:] else 0 for t in tokens]
        unknown = [t for t in tokens if t not in whole.tokens[1:]]
        assert whole.unknown(pieces) == (len(unknown), sum(len(t.encode()) + 1 for t in unknown))
    if isinstance(whole, BytePairs):
        chunks = re.findall(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+", text)
        assert whole.merges == plain_merges({t.encode(): n for t, n in Counter(chunks).items()}, 270 - 256)
        assert ids == [k for t in chunks for k in whole.encode(t).tolist()]


def test_what_words_are_made_of_is_forgotten_when_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = BytePairs.build(TEXT, 300)
    want = vocabulary.encode(TEXT).tolist()
    monkeypatch.setattr(tokens, "_REMEMBERED", 2)
    assert BytePairs(vocabulary.merges, vocabulary.start).encode(TEXT).tolist() == want


def test_byte_pairs_are_limited_and_stay_in_words() -> None:
    vocabulary = BytePairs.build(TEXT * 5, 280)
    assert len(vocabulary) == 280
    assert b" cat" in vocabulary.pieces and "😀".encode() in vocabulary.pieces
    assert all(b" " not in piece[1:] or not piece.strip() for piece in vocabulary.pieces)
    assert len(vocabulary.encode(TEXT)) < len(TEXT) / 2
    cut = [*vocabulary.encode("😀").tolist(), 0xF0]
    assert vocabulary.decode(cut) == "😀\ufffd"
    decoder = vocabulary.decoder()
    assert [decoder.push(b) for b in "ß".encode()] == ["", "ß"]


@pytest.mark.parametrize("level", ["char", "byte", "word", "bpe"])
def test_json_gives_the_same_vocabulary(level: str) -> None:
    first = vocabulary_of(TEXT, level, None)
    again = vocabulary_from(json.loads(json.dumps(first.to_json())))
    assert type(again) is type(first) and len(again) == len(first) and again.start == first.start
    assert again.encode(TEXT).tolist() == first.encode(TEXT).tolist()


@pytest.mark.parametrize(
    "data",
    [
        {"level": "word", "tokens": "ab", "start": 0},
        {"level": "word", "tokens": ["a", "a"], "start": 0},
        {"level": "word", "tokens": ["a", UNKNOWN], "start": 0},
        {"level": "word", "tokens": ["a"], "start": 2},
        {"level": "word", "tokens": [3], "start": 0},
        {"level": "bpe", "merges": [[1, 256]], "start": 0},
        {"level": "bpe", "merges": [[1, 2, 3]], "start": 0},
        {"level": "bpe", "merges": [[1, -2]], "start": 0},
        {"level": "bpe", "merges": [[1, 2]], "start": 257},
        {"level": "bpe", "merges": None, "start": 0},
        {"level": "bpe", "merges": [], "start": "0"},
        {"level": ["bpe"], "merges": [], "start": 0},
    ],
)
def test_other_data_are_no_vocabulary(data: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="the vocabulary"):
        vocabulary_from(data)
