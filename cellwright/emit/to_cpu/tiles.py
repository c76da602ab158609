"""Products of bfloat16 in the processor's tiles: 16 rows x 16 units at once, on the panels that registers use too.

Tiles 0 to 3 hold sums, 4 and 5 rows of a source, 6 and 7 parts of a panel: two blocks of rows meet two columns, or one
block meets four. The rows of a step are split into blocks of equal height; the last one may begin early, and what it
computes twice is the same. Where a row ends within a tile, its end is copied and filled with zeros.
"""

from llvmlite import ir

from .amx import BYTES, CONFIG, HEIGHTS, PALETTE, ROWS, SPELLINGS, TILES
from .builder import Builder
from .layout import DEEP
from .vectors import I8, I16, I64

LEAST = 8  # rows of a batch from which on tiles are taken: an estimate, not measured
SUMS, LEFT, RIGHT = 0, 4, 6  # first tiles of each use
Source = tuple[ir.Value, ir.Value, ir.Value, ir.Value]  # address of row 0, stride of rows, pairs in a row; its panel


class Tiles:
    """The tile unit in a kernel."""

    def __init__(self, k: Builder, sources: int, rows: ir.Value) -> None:
        """`sources`: the most that a product has. `rows`: of the batch, so that all threads choose alike."""
        self.k, self.b = k, k.b
        self.unit = SPELLINGS[k.machine.tiles](k)
        self.used = k.b.icmp_signed(">=", rows, k.i(LEAST))
        self._ends = k.memory(sources * 2 * ROWS * DEEP)
        self._config = k.memory(CONFIG)
        for at in range(0, 64, 8):
            k.b.store(k.i(int(at == PALETTE)), k.at(self._config, k.i(at), I8))
        for tile in range(TILES):
            k.b.store(I16(64), k.at(self._config, k.i(BYTES + 2 * tile), I8))

    def room(self, columns: int) -> ir.Value:
        """The buffer for results of two blocks of rows; the second of them may begin before the first one does."""
        line = columns * self.k.lanes
        return self.k.at(self.k.memory(3 * ROWS * line), self.k.i(ROWS * line))

    def begin(self, first: ir.Value, end: ir.Value) -> None:
        """A step with these rows."""
        k, b = self.k, self.b
        rows = b.sub(end, first)
        some = b.icmp_signed(">", rows, k.i(0))
        blocks = b.select(some, k.up(rows, ROWS), k.i(1))
        self.height = b.sdiv(b.add(rows, b.sub(blocks, k.i(1))), blocks)
        place = k.at(self._config, k.i(HEIGHTS), I8)
        heights = b.add(b.mul(self.height, k.i(0x0000_0101_0101_0101)), k.i(0x1010_0000_0000_0000))
        other = b.icmp_signed("!=", heights, b.load(place, typ=I64))
        with b.if_then(b.and_(self.used, b.and_(some, other))):
            b.store(heights, place)
            self.unit.configure(self._config)

    def finish(self) -> None:
        """The tiles are left as they were found."""
        with self.b.if_then(self.used):
            self.unit.release()

    def multiply(
        self, sources: list[Source], columns: int, start: list[ir.Value], m: ir.Value, end: ir.Value
    ) -> ir.Value:
        """One or two blocks of rows from m on times a panel, into the buffer; how many rows these are.

        start: what the sums of each column begin with; empty: 0.
        """
        k, b = self.k, self.b
        for c, value in enumerate(start):
            k.v.store(value, self._result(k.i(0), c, columns))
        last, second = b.sub(end, self.height), b.add(m, self.height)
        with b.if_else(b.icmp_signed("<", second, end)) as (two, one):
            with two:
                self._blocks(sources, columns, bool(start), m, [m, k.least(second, last)])
            with one:
                self._blocks(sources, columns, bool(start), m, [k.least(m, last)])
        return k.least(b.sub(end, m), b.mul(self.height, k.i(2)))

    def _result(self, row: ir.Value, column: int, columns: int) -> ir.Value:
        """Where in the buffer."""
        line = self.k.at(self.k.buffer, self.b.mul(row, self.k.i(columns * self.k.lanes)))
        return self.k.at(line, self.k.i(column * self.k.lanes))

    def _blocks(self, sources: list[Source], columns: int, started: bool, m: ir.Value, begins: list[ir.Value]) -> None:
        """Blocks of rows that begin at `begins`: as many columns at a time as there are tiles for sums."""
        k, b, unit = self.k, self.b, self.unit
        line = k.i(4 * columns * k.lanes)
        ends = [self._copy(source, begins, n) for n, source in enumerate(sources)]
        per = (LEFT - SUMS) // len(begins)
        for first in range(0, columns, per):
            own = range(first, min(columns, first + per))
            sums = {(r, c): SUMS + r * per + c - first for r in range(len(begins)) for c in own}
            for (_, c), tile in sums.items():
                if started:
                    unit.load(tile, self._result(k.i(0), c, columns), k.i(0))
                else:
                    unit.zero(tile)
            for (base, row, pairs, panel), (end, stride) in zip(sources, ends, strict=True):
                starts = [k.at(base, b.mul(row, r), I16) for r in begins]
                whole = b.sdiv(pairs, k.i(DEEP))
                with k.loop(k.i(0), whole, "tile_depth") as at:
                    places = [k.at(s, b.mul(at, k.i(2 * DEEP)), I16) for s in starts]
                    self._step(sums, places, b.mul(row, k.i(2)), panel, at, columns)
                with b.if_then(b.icmp_signed("<", b.mul(whole, k.i(DEEP)), pairs)):
                    self._step(sums, end, stride, panel, whole, columns)
            for (r, c), tile in sums.items():
                unit.store(tile, self._result(b.sub(begins[r], m), c, columns), line)

    def _step(
        self,
        sums: dict[tuple[int, int], int],
        places: list[ir.Value],
        stride: ir.Value,
        panel: ir.Value,
        at: ir.Value,
        columns: int,
    ) -> None:
        """Add what tiles of rows at `places` and part `at` of a panel give."""
        k, b, unit = self.k, self.b, self.unit
        for r, place in enumerate(places):
            unit.load(LEFT + r, place, stride)
        part = k.at(panel, b.mul(at, k.i(DEEP * columns * k.lanes)))
        for c in sorted({c for _, c in sums}):
            unit.load(RIGHT + c % 2, k.at(part, k.i(c * k.lanes)), k.i(4 * columns * k.lanes))
            for r in range(len(places)):
                unit.dot(sums[r, c], LEFT + r, RIGHT + c % 2)

    def _copy(self, source: Source, begins: list[ir.Value], n: int) -> tuple[list[ir.Value], ir.Value]:
        """The ends of rows that fill no tile, with zeros after them; where they are, and their stride."""
        k, b = self.k, self.b
        base, row, pairs, _ = source
        whole = b.mul(b.sdiv(pairs, k.i(DEEP)), k.i(DEEP))
        places = [k.at(self._ends, k.i((2 * n + r) * ROWS * DEEP)) for r in range(len(begins))]
        with b.if_then(b.icmp_signed("<", whole, pairs)):
            inside = k.below(b.sub(pairs, whole))
            for begin, place in zip(begins, places, strict=True):
                with k.loop(k.i(0), self.height, "end_of_row") as r:
                    line = k.at(base, b.add(b.mul(row, b.add(begin, r)), b.mul(whole, k.i(2))), I16)
                    k.v.store(k.v.load_some(line, inside, 2), k.at(place, b.mul(r, k.i(DEEP))))
        return places, k.i(4 * DEEP)
