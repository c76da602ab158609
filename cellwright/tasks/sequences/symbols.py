"""Texts as symbols and back: words that know whether a space stood before them, or characters."""

import re
from collections.abc import Iterable

JOINT = "\uffed"  # before a symbol that follows the one before it without a space
NEVER_WRITTEN = "\ufffd"  # what an unknown symbol looks like
_WORD = re.compile(r"(\s*)(\w+|[^\w\s])")


def split(text: str, level: str) -> list[str]:
    """The characters of a text; or its words and marks: `the dog.` is `the`, `dog`, `￭.`. White space is one space.

    Klein et al. 2017 (OpenNMT) mark joints like this, so that what is written can be put together again.
    """
    if level == "char":
        return list(" ".join(text.split()))
    found = [JOINT + word if not space else word for space, word in _WORD.findall(text)]
    return [found[0].removeprefix(JOINT), *found[1:]] if found else []


def join(symbols: Iterable[str], level: str) -> str:
    """The text of symbols: what `split` was given, but for white space."""
    if level == "char":
        return "".join(symbols)
    return " ".join(symbols).replace(" " + JOINT, "").removeprefix(JOINT)
