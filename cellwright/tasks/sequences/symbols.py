"""Texts as symbols and back: words that know whether a space stood before them, or characters.

With byte pairs a text is cut into words with the space before them, and what these are made of is learned. A symbol is
then some bytes, each written as the character of this number (Latin-1): half a character is a symbol, too.
"""

import re
from collections.abc import Iterable

from ..data.tokens import CHUNK

JOINT = "\uffed"  # before a symbol that follows the one before it without a space
NEVER_WRITTEN = "\ufffd"  # what an unknown symbol looks like
_WORD = re.compile(r"(\s*)(\w+|[^\w\s])")


def split(text: str, level: str) -> list[str]:
    """The characters of a text; or its words and marks: `the dog.` is `the`, `dog`, `￭.`. White space is one space.

    Klein et al. 2017 (OpenNMT) mark joints like this, so that what is written can be put together again.
    """
    if level == "char":
        return list(" ".join(text.split()))
    if level == "bpe":
        return CHUNK.findall(" ".join(text.split()))
    found = [JOINT + word if not space else word for space, word in _WORD.findall(text)]
    return [found[0].removeprefix(JOINT), *found[1:]] if found else []


def join(symbols: Iterable[str], level: str) -> str:
    """The text of symbols: what `split` was given, but for white space."""
    if level == "char":
        return "".join(symbols)
    if level == "bpe":
        return to_read("".join(symbols), level).strip()
    return " ".join(symbols).replace(" " + JOINT, "").removeprefix(JOINT)


def to_write(piece: bytes) -> str:
    """Bytes as a symbol."""
    return piece.decode("latin-1")


def to_read(symbol: str, level: str) -> str:
    """A symbol as one reads it; bytes that are no character become U+FFFD."""
    return symbol.encode("latin-1", "replace").decode("utf-8", "replace") if level == "bpe" else symbol
