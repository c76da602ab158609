import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright import DataError, RunError
from cellwright.tasks.data.vocabulary import Level, Vocabulary

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)  # all planes, no half surrogates


@given(TEXT, st.sampled_from(["char", "byte"]))
def test_encode_and_decode_are_inverse(text: str, level: Level) -> None:
    vocabulary = Vocabulary.from_json(json.loads(json.dumps(Vocabulary.build(text, level).to_json())))
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert len(ids) == len(text if level == "char" else text.encode())


@given(TEXT)
def test_symbols_are_the_characters_in_order(text: str) -> None:
    vocabulary = Vocabulary.build(text)
    assert list(vocabulary.symbols) == sorted(set(text))
    assert [vocabulary.symbols[i] for i in vocabulary.encode(text)] == list(text)
    assert len(vocabulary) == len(set(text))


@pytest.mark.parametrize(("count", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65537, np.uint32)])
def test_ids_have_the_smallest_dtype(count: int, dtype: type) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + count)))
    ids = Vocabulary.build(text).encode(text)
    assert ids.dtype == dtype
    assert ids.tolist() == list(range(count))


@pytest.mark.parametrize(
    ("text", "level", "start"),
    [("b\na", "char", "\n"), ("abba b", "char", "b"), ("b\na", "byte", "\n"), ("abba b", "byte", "b")],
)
def test_a_text_from_nothing_begins_after_a_newline_or_the_commonest_symbol(
    text: str, level: Level, start: str
) -> None:
    vocabulary = Vocabulary.build(text, level)
    assert vocabulary.decode([vocabulary.start]) == start


def test_unknown_characters_are_counted_and_named() -> None:
    vocabulary = Vocabulary.build("abc")
    with pytest.raises(DataError) as caught:
        vocabulary.encode("a\u00e9\u00e9\n😀", "the prompt")
    message = str(caught.value)
    assert message.startswith("the prompt has")
    assert r"'\xe9' (2 times)" in message
    assert r"'\n' (1 time)" in message
    assert r"'\U0001f600' (1 time)" in message


def test_unknown_characters_of_all_pieces_are_counted() -> None:
    found = Vocabulary.build("abc").encoded(iter(["ab", "azzy", "b", "zy"]))
    assert next(found).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"'z' \(3 times\), 'y' \(2 times\)"):
        next(found)


@given(TEXT, TEXT)
def test_exactly_the_unknown_characters_are_refused(text: str, other: str) -> None:
    vocabulary = Vocabulary.build(text)
    if set(other) <= set(text):
        assert vocabulary.decode(vocabulary.encode(other)) == other
    else:
        with pytest.raises(DataError):
            vocabulary.encode(other)


def test_half_a_surrogate_from_the_command_line_is_an_unknown_character() -> None:
    with pytest.raises(DataError, match="udce9"):
        Vocabulary.build("abc").encode(b"\xe9".decode("utf-8", "surrogateescape"))
    assert Vocabulary.build("abc", "byte").encode(b"\xe9".decode("utf-8", "surrogateescape")).tolist() == [0xE9]


def test_the_byte_level_knows_every_text() -> None:
    vocabulary = Vocabulary.build("abc", "byte")
    assert len(vocabulary) == 256
    assert vocabulary.encode("é😀").tolist() == list("é😀".encode())


def test_bytes_come_out_as_whole_characters() -> None:
    decoder = Vocabulary.build("x", "byte").decoder()
    assert [decoder.push(b) for b in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert decoder.push(0xFF) == "\ufffd"
    assert decoder.push(0xC3) == ""
    assert decoder.push(ord("a")) == "\ufffda"
    assert decoder.push(0xE2) == ""
    assert decoder.finish() == "\ufffd"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"level": "word", "symbols": "ab", "start": 0},
        {"level": "char", "symbols": "ba", "start": 0},
        {"level": "char", "symbols": "aa", "start": 0},
        {"level": "char", "symbols": ["a"], "start": 0},
        {"level": "char", "symbols": "ab", "start": 2},
        {"level": "char", "symbols": "ab", "start": -1},
        {"level": "char", "symbols": "ab", "start": True},
        {"level": "char", "symbols": "", "start": 0},
    ],
)
def test_what_is_no_vocabulary_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(RunError):
        Vocabulary.from_json(data)


def test_five_megabytes_take_no_time() -> None:
    text = "import antigravity  # 😀\n" * 200_000
    start = time.perf_counter()
    ids = Vocabulary.build(text).encode(text)
    assert time.perf_counter() - start < 1.0
    assert len(ids) == len(text)
