"""A language pair that is made: dates as people write them, and ISO 8601.

    the twenty-third of March, nineteen hundred and eighty-four   ->   1984-03-23

Parts stand in other orders, numbers are words or digits, months have short names, and years are read in pairs or as a
whole. A date of the test is in no form in the training data.
"""

import datetime
import random
from pathlib import Path

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}


def below_hundred(n: int) -> str:
    """`forty-two`."""
    return _ONES[n] if n < 20 else _TENS[n // 10] + (f"-{_ONES[n % 10]}" if n % 10 else "")


def ordinal(n: int, words: bool) -> str:
    """`twenty-third` or `23rd`, for n below 32."""
    if not words:
        return f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
    head, dash, last = below_hundred(n).rpartition("-")
    last = _ORDINALS.get(last, last[:-2] + "fth" if last.endswith("ve") else last[:-1] + "ieth" if last[-1] == "y"
                         else last + "th")  # fmt: skip
    return head + dash + last


def year_in_words(year: int, draw: random.Random) -> str:
    """`nineteen eighty-four`, `nineteen hundred and eighty-four` or `two thousand and four`."""
    head, rest = divmod(year, 100)
    if head % 10 == 0:
        return f"{_ONES[head // 10]} thousand" + (f" and {below_hundred(rest)}" if rest else "")
    if not rest:
        return f"{below_hundred(head)} hundred"
    if draw.random() < 0.5:
        return f"{below_hundred(head)} hundred and {below_hundred(rest)}"
    return f"{below_hundred(head)} {'oh ' if rest < 10 else ''}{below_hundred(rest)}"


def spoken(date: datetime.date, draw: random.Random) -> str:
    """One of the ways to say a date."""
    month = date.strftime("%B") if draw.random() < 0.7 else date.strftime("%b") + "."
    words = draw.random() < 0.6
    year = year_in_words(date.year, draw) if draw.random() < 0.6 else str(date.year)
    day = ordinal(date.day, words)
    said = draw.choice(
        (
            f"the {day} of {month}, {year}",
            f"{month} {day}, {year}",
            f"in {year}, on {month} the {day}",
            f"{month} {year}, the {day}",
            f"the {day} day of {month} in the year {year}",
        )
    )
    return f"{date.strftime('%A')}, {said}" if draw.random() < 0.4 else said


def write(train: Path, test: Path, count: int = 20_000, held: int = 1_000, seed: int = 1) -> None:
    """Two TSV files of sources and targets; the dates of `test` are not among those of `train`."""
    draw = random.Random(seed)
    first = datetime.date(1000, 1, 1).toordinal()
    days = draw.sample(range(first, datetime.date(2999, 12, 31).toordinal() + 1), count + held)
    for path, part in ((train, days[:count]), (test, days[count:])):
        dates = [datetime.date.fromordinal(day) for day in part]
        path.write_text("".join(f"{spoken(date, draw)}\t{date.isoformat()}\n" for date in dates), encoding="utf-8")
