"""A look into a memory in a kernel: `attend` and its way back for one row, whatever the number of positions.

Lanes are features of a query or of the values; in the softmax they are positions. A row sees its own memory at all
steps. The way back adds its shares of the memory's gradients up in memory of the same form.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llvmlite import ir

from .layout import Slot
from .vectors import F32, I32, I64

if TYPE_CHECKING:
    from .kernel import _Kernel


class LookUp:
    """Writes the node `i` for row `m` of a step, whose result goes to `places`."""

    def __init__(self, k: "_Kernel", i: int, m: ir.Value, places: list[ir.Value]) -> None:
        self.k, self.b, self.v, self.i, self.m, self.places = k, k.b, k.v, i, m, places
        node = k.graph.nodes[i]
        *g, query = node.args
        self.additive, self.back = node.part == "additive", bool(g)
        self.query = k.address(Slot(query), m)
        self.keys, self.values, self.weights = (self.own(name) for name in ("keys", "values", "weights"))
        if self.additive:
            self.energy = self.own("energy")
        self.count = self.b.load(self.own("positions"), typ=I64)
        self.zero, self.lanes = k.i(0), k.lanes
        self.width = k.width(k.graph.nodes[query].size)  # of a key
        self.size, self.depth = node.name, k.width(node.name)  # of a value
        row = k.graph.nodes[g[0] if g else i].size
        self.before, self.row = self.b.sub(k.units[row], k.units[node.name]), k.width(row)
        if g:
            self.g = k.at(k.address(Slot(g[0]), m), self.before)

    def own(self, name: str) -> ir.Value:
        """Where something of the memory begins, for this row."""
        return self.k.address(Slot(self.i, name), self.m)

    def write(self) -> None:
        """The whole node."""
        if self.back:
            self._to_query()
        else:
            self._softmax()
            self._context()

    def _give(self, c: ir.Value, value: ir.Value, inside: ir.Value | None = None) -> None:
        """The block of the result that begins at unit c."""
        for place in self.places:
            if inside is None:
                self.v.store(value, self.k.at(place, c))
            else:
                self.v.store_some(value, self.k.at(place, c), inside)

    def _number(self, line: ir.Value, at: ir.Value) -> ir.Value:
        """One number in all lanes."""
        return self.v.broadcast(self.b.load(self.k.at(line, at), typ=F32, align=4))

    def _put(self, value: ir.Value, line: ir.Value, at: ir.Value) -> None:
        """The first lane, as one number."""
        number = self.b.extract_element(value, ir.Constant(I32, 0))
        self.b.store(number, self.k.at(line, at), align=4)

    def _softmax(self) -> None:
        k, b, v = self.k, self.b, self.v
        with k.loop(self.zero, self.count, "position") as s:
            key = k.at(self.keys, b.mul(s, self.width))
            with k.carrying([v.splat(0.0)], self.zero, self.width, "score", by=self.lanes) as (c, total):
                one, other = v.load(k.at(self.query, c)), v.load(k.at(key, c))
                if self.additive:
                    one, other = v.tanh(b.fadd(one, other)), v.load(k.at(self.energy, c))
                total[0] = v.fma(one, other, total[0])
            self._put(v.total(total[0]), self.weights, s)
        low = v.splat(float("-inf"))
        with self._positions([low]) as (s, inside, greatest):
            score = b.select(inside, v.load(k.at(self.weights, s)), low)
            greatest[0] = v.larger(score, greatest[0], ">")
        top = v.greatest(greatest[0])
        with self._positions([v.splat(0.0)]) as (s, inside, total):
            place = k.at(self.weights, s)
            e = b.select(inside, v.exp(b.fsub(v.load(place), top)), v.splat(0.0))
            v.store(e, place)
            total[0] = b.fadd(total[0], e)
        whole = v.total(total[0])
        with self._positions([]) as (s, _, _):
            place = k.at(self.weights, s)
            v.store(b.fdiv(v.load(place), whole), place)
        # What lies beyond belongs to the result too.
        _, room = k.slots[Slot(self.i, "weights")]
        with k.loop(b.mul(k.up(self.count, self.lanes), k.i(self.lanes)), room, "beyond", by=self.lanes) as s:
            v.store(v.splat(0.0), k.at(self.weights, s))

    @contextmanager
    def _positions(self, values: list[ir.Value]) -> "Iterator[tuple[ir.Value, ir.Value, list[ir.Value]]]":
        """A loop over blocks of positions: the first, which lanes are inside, and the values handed on."""
        k = self.k
        with k.carrying(values, self.zero, self.count, "positions", by=self.lanes) as (s, handed):
            yield s, k.below(self.b.sub(self.count, s)), handed

    def _context(self) -> None:
        k, b, v = self.k, self.b, self.v
        with k.loop(self.zero, self.row, "zeros", by=self.lanes) as c:
            self._give(c, v.splat(0.0))
        with k.loop(self.zero, self.depth, "context", by=self.lanes) as c:
            column = k.at(self.values, c)
            with k.carrying([v.splat(0.0)], self.zero, self.count, "position") as (s, total):
                value = v.load(k.at(column, b.mul(s, self.depth)))
                total[0] = v.fma(self._number(self.weights, s), value, total[0])
            self._give(b.add(self.before, c), total[0], k.inside(self.size, c))

    def _to_query(self) -> None:
        k, b, v = self.k, self.b, self.v
        into_keys, into_values, scores, seed = (self.own(name) for name in ("of keys", "of values", "scores", "seed"))
        with k.carrying([v.splat(0.0)], self.zero, self.count, "position") as (s, mean):
            a, line = self._number(self.weights, s), b.mul(s, self.depth)
            value, into = k.at(self.values, line), k.at(into_values, line)
            with k.carrying([v.splat(0.0)], self.zero, self.depth, "value", by=self.lanes) as (c, total):
                g, place = v.load_some(k.at(self.g, c), k.inside(self.size, c)), k.at(into, c)
                total[0] = v.fma(g, v.load(k.at(value, c)), total[0])
                v.store(v.fma(a, g, v.load(place)), place)
            of_a = b.fadd(v.total(total[0]), self._number(seed, s))
            self._put(of_a, scores, s)
            mean[0] = v.fma(a, of_a, mean[0])
        with self._positions([]) as (s, _, _):
            place = k.at(scores, s)
            a = v.load(k.at(self.weights, s))
            v.store(b.fmul(a, b.fsub(v.load(place), mean[0])), place)
        into_energy = self.own("of energy") if self.additive else None
        with k.loop(self.zero, self.width, "query", by=self.lanes) as c:
            query = v.load(k.at(self.query, c))
            with k.carrying([v.splat(0.0)] * 2, self.zero, self.count, "position") as (s, sums):
                at = b.add(b.mul(s, self.width), c)
                of_score, key, place = self._number(scores, s), v.load(k.at(self.keys, at)), k.at(into_keys, at)
                if into_energy is None:
                    share = b.fmul(of_score, query)
                    sums[0] = v.fma(of_score, key, sums[0])
                else:
                    t = v.tanh(b.fadd(query, key))
                    of_key = b.fmul(of_score, v.load(k.at(self.energy, c)))
                    share = b.fmul(of_key, v.fma(b.fneg(t), t, v.splat(1.0)))
                    sums[0] = b.fadd(sums[0], share)
                    sums[1] = v.fma(of_score, t, sums[1])
                v.store(b.fadd(v.load(place), share), place)
            self._give(c, sums[0])
            if into_energy is not None:
                place = k.at(into_energy, c)
                v.store(b.fadd(v.load(place), sums[1]), place)
