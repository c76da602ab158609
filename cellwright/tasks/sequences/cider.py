"""CIDEr-D: how much a caption says what people say about the same image (Vedantam, Zitnick, Parikh 2015).

    g_n(s)           = counts of the n-grams w of s, times log(|I| / df(w))        df: images with w in a reference
    CIDEr-D_n(c, S)  = 10 / m  sum_j  exp(-(l(c) - l(s_j))^2 / (2 sigma^2))  min(g_n(c), g_n(s_j)) g_n(s_j)
                                      / (|g_n(c)| |g_n(s_j)|)
    CIDEr-D          = the mean over n = 1 ... 4;  sigma = 6;  of all images: their mean

Counts are not divided by the length and words are not stemmed, as in the authors' program. From 0 to 10. With one image
only, every n-gram is in all images, and the score is 0.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

SIGMA, LONGEST = 6.0, 4
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """Words in small letters, without punctuation."""
    return _WORD.findall(text.lower())


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The mean over images: one caption and at least one reference each."""
    found = [[_grams(words(reference)) for reference in one] for one in references]
    images: Counter[tuple[str, ...]] = Counter()
    for one in found:
        images.update({gram for reference in one for gram in reference})
    total = 0.0
    for caption, one in zip(captions, found, strict=True):
        mine = _grams(words(caption))
        total += sum(_alike(mine, reference, images, len(found)) for reference in one) / len(one)
    return 10 * total / max(len(found), 1)


def _grams(symbols: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each n-gram of 1 to 4 words comes."""
    return Counter(tuple(symbols[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(symbols) - n + 1))


def _alike(
    caption: Counter[tuple[str, ...]], reference: Counter[tuple[str, ...]], images: Counter[tuple[str, ...]], N: int
) -> float:
    """CIDEr-D of a caption and one reference, without the 10."""
    product, square, other = ([0.0] * LONGEST for _ in range(3))
    for grams, sums in ((caption, square), (reference, other)):
        for gram, count in grams.items():
            sums[len(gram) - 1] += (count * math.log(N / max(images[gram], 1))) ** 2
    for gram, count in caption.items():
        if gram in reference:
            rarity = math.log(N / max(images[gram], 1))
            product[len(gram) - 1] += min(count, reference[gram]) * reference[gram] * rarity**2
    lengths = [sum(count for gram, count in grams.items() if len(gram) == 1) for grams in (caption, reference)]
    near = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * SIGMA**2))
    cosines = (p / math.sqrt(a * b) if a and b else 0.0 for p, a, b in zip(product, square, other, strict=True))
    return near * sum(cosines) / LONGEST
