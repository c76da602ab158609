"""Byte-pair encoding (Sennrich et al. 2016, on bytes): which pairs of symbols become one, the most frequent first."""

import heapq
from array import array
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

BYTES = 256
TWICE = 2  # what comes once says nothing about how it is used, and leaves something to be unknown
Pair = tuple[int, int]


def learn_merges(words: Mapping[bytes, int], most: int) -> list[Pair]:
    """At most so many merges, from words and how often they come; of equally frequent pairs the smaller one first."""
    ids = [list(word) for word in words]
    counts = list(words.values())
    pairs: Counter[Pair] = Counter()
    places: dict[Pair, array[int]] = {}  # the words in which a pair is, or was
    for k, word in enumerate(ids):
        for pair in pairwise(word):
            pairs[pair] += counts[k]
            places.setdefault(pair, array("l")).append(k)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < most:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            continue  # it has another count by now, and another place in the heap
        if -count < TWICE:
            break
        changed: set[Pair] = set()
        added = BYTES + len(merges)
        for k in places.pop(pair):
            new = replaced(ids[k], pair, added)
            if len(new) == len(ids[k]):
                continue
            for sign, word in ((-1, ids[k]), (1, new)):
                for one in pairwise(word):
                    pairs[one] += sign * counts[k]
                    changed.add(one)
            for one in pairwise(new):
                if added in one:
                    places.setdefault(one, array("l")).append(k)
            ids[k] = new
        merges.append(pair)
        for one in changed:
            if pairs[one] > 0:
                heapq.heappush(heap, (-pairs[one], one))
    return merges


def replaced(ids: list[int], pair: Pair, new: int) -> list[int]:
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
