"""Dense products in kernels: a matrix packed into panels once, then register tiles of rows x (parts x blocks of units).

A panel holds what one tile of units needs, in the order of its reading: [tiles, depth, columns, lanes], where a column
is one block of one part. The accumulators of a tile and one row of its panel fill the registers. Where the
processor has a unit for products of tiles (`tiles`), that multiplies by the same panels.
"""

from collections.abc import Iterator

from llvmlite import ir

from ...lang.graph import Graph
from ...lang.plan import Product
from .builder import Builder
from .layout import DEEP, blocks_per_tile
from .tiles import Tiles
from .vectors import F32, I16, I32, I64

UNROLL = 4  # of the loop over the depth of a product
Lines = list[tuple[ir.Value, ir.Value]]  # of each source: address of row 0, and the stride of its rows


class Panels:
    """Writes the products of a kernel."""

    def __init__(
        self,
        k: Builder,
        graph: Graph,
        product: Product,
        panel: ir.Value,
        stride: ir.Value,
        narrow: bool,
        tiles: Tiles | None,
    ) -> None:
        """`narrow`: operands are bfloat16. Then two neighbours of the depth share a row of the panel.

        `tiles`: the unit that multiplies in tiles, if any.
        """
        self.k, self.b, self.v, self.narrow = k, k.b, k.v, narrow
        self.graph, self.product, self.tiles = graph, product, tiles
        self.panel, self.stride = panel, stride
        self.per, self.parts = blocks_per_tile(product), len(product.results)
        self.columns = self.per * self.parts
        self.size = graph.nodes[product.results[0]].size

    @property
    def rows(self) -> int:
        """Rows of a register tile: accumulators, one row of the panel and one number fill the registers."""
        return max(1, min(8, (self.k.machine.registers - 1 - self.columns) // self.columns))

    def numbers(self, i: int) -> ir.Value:
        """Rows of a panel that belong to one source: its units, or pairs of these."""
        units = self.k.units[self.graph.nodes[i].size]
        return self.k.up(units, 2) if self.narrow else units

    def filled(self, numbers: ir.Value) -> ir.Value:
        """The same with the zeros that follow where there are tiles: these take several rows at once."""
        return self.b.mul(self.k.up(numbers, DEEP), self.k.i(DEEP)) if self.tiles else numbers

    def depth(self) -> ir.Value:
        """Rows of the panel of a tile."""
        total: ir.Value = self.k.i(0)
        for i in self.product.sources:
            total = self.b.add(total, self.filled(self.numbers(i)))
        return total

    def line(self, tile: ir.Value, depth: ir.Value, k: ir.Value) -> ir.Value:
        """Where row k of the panel of a tile begins."""
        row = self.b.add(self.b.mul(tile, depth), k)
        return self.k.at(self.panel, self.b.mul(row, self.k.i(self.columns * self.k.lanes)))

    # packing

    def pack(self, parts: list[ir.Value], number: ir.Value, count: ir.Value) -> None:
        """Fill this thread's share of the panels from the matrix's rows; `parts` are where the rows of each begin."""
        k, b = self.k, self.b
        first, end = k.share(self.size, self.per, number, count)
        depth = self.depth()
        with k.loop(first, end, "pack") as tile, k.loop(k.i(0), k.i(self.per), "pack_block") as u:
            start = b.mul(b.add(b.mul(tile, k.i(self.per)), u), k.i(k.lanes))  # first unit of the block
            if self.product.transposed:
                column = b.mul(u, k.i(k.lanes))
                above: ir.Value = k.i(0)
                for i, part in zip(self.product.sources, parts, strict=True):
                    to = k.at(self.line(tile, depth, above), column)
                    units = k.units[self.graph.nodes[i].size]
                    self._pack_rows(k.at(part, start), to, k.i(0), units, self.stride, k.i(1), start)
                    above = b.add(above, self.filled(self.numbers(i)))
            else:
                units = k.units[self.graph.nodes[self.product.sources[0]].size]
                whole = b.icmp_signed("<=", b.add(start, k.i(k.lanes)), k.units[self.size])
                squares = b.select(whole, b.mul(b.sdiv(units, k.i(k.lanes)), k.i(k.lanes)), k.i(0))
                for g, part in enumerate(parts):
                    column = b.mul(b.add(b.mul(u, k.i(self.parts)), k.i(g)), k.i(k.lanes))
                    source, to = k.at(part, b.mul(start, self.stride)), k.at(self.line(tile, depth, k.i(0)), column)
                    self._pack_squares(source, to, squares)
                    self._pack_rows(source, to, squares, units, k.i(1), self.stride, start)

    def _row(self, to: ir.Value, number: ir.Value) -> ir.Value:
        """Where, from a block of a panel's first row on, the row for one number of the depth is."""
        row = self.b.sdiv(number, self.k.i(2)) if self.narrow else number
        return self.k.at(to, self.b.mul(row, self.k.i(self.columns * self.k.lanes)))

    def _pack_rows(
        self,
        source: ir.Value,
        to: ir.Value,
        first: ir.Value,
        end: ir.Value,
        down: ir.Value,
        across: ir.Value,
        start: ir.Value,
    ) -> None:
        """One block's rows of a panel from `first` to `end`; strides of the source down and across a row."""
        k, b = self.k, self.b
        left = b.sub(k.units[self.size], start)
        last = b.mul(k.up(end, 2 * DEEP), k.i(2 * DEEP)) if self.tiles else end
        with k.loop(first, last, "pack_row", by=2 if self.narrow else 1) as r:
            here = b.select(b.icmp_signed("<", r, end), left, k.i(0)) if self.tiles else left
            line = self._collect(k.at(source, b.mul(r, down)), across, here)
            if self.narrow:
                next_ = b.add(r, k.i(1))
                there = b.select(b.icmp_signed("<", next_, end), left, k.i(0))
                line = self.v.pairs(line, self._collect(k.at(source, b.mul(next_, down)), across, there))
                b.store(line, self._row(to, r), align=4)
            else:
                self.v.store(line, self._row(to, r))

    def _pack_squares(self, source: ir.Value, to: ir.Value, end: ir.Value) -> None:
        """Units below each other come side by side: squares of lanes x lanes are transposed in registers."""
        k, b = self.k, self.b
        with k.loop(k.i(0), end, "pack_square", by=k.lanes) as at:
            lines = [self.v.load(k.at(source, b.add(b.mul(k.i(r), self.stride), at))) for r in range(k.lanes)]
            turned = self.v.transposed(lines)
            if self.narrow:
                turned = [self.v.pairs(low, high) for low, high in zip(turned[::2], turned[1::2], strict=True)]
            for c, line in enumerate(turned):
                number = b.add(at, k.i(2 * c if self.narrow else c))
                b.store(line, self._row(to, number), align=4)

    def _collect(self, source: ir.Value, across: ir.Value, left: ir.Value) -> ir.Value:
        """A block of numbers at a stride, the first `left` of them; zero beyond."""
        k, b = self.k, self.b
        whole = b.and_(b.icmp_signed("==", across, k.i(1)), b.icmp_signed(">=", left, k.i(k.lanes)))
        with b.if_else(whole) as (then, otherwise):
            with then:
                self.v.store(self.v.load(source), k.buffer)
            with otherwise:
                self.v.store(self.v.splat(0.0), k.buffer)
                with k.loop(k.i(0), k.least(left, k.i(k.lanes)), "pack_lane") as lane:
                    number = b.load(k.at(source, b.mul(lane, across)), typ=F32, align=4)
                    b.store(number, k.at(k.buffer, lane), align=4)
        return self.v.load(k.buffer)

    # multiplying

    def tiles_of_rows(
        self,
        lines: Lines,
        bias: list[ir.Value],
        tile: ir.Value,
        first: ir.Value,
        end: ir.Value,
    ) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Loop over the tiles of rows from `first` to `end`; the product lies in the buffer when the body runs."""
        k, b = self.k, self.b
        depth = self.depth()
        before = b.block
        head, body, after = (b.append_basic_block(f"rows_{n}") for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        m = b.phi(I64, "m")
        m.add_incoming(first, before)
        left = b.sub(end, m)
        b.cbranch(b.icmp_signed(">", left, k.i(0)), body, after)
        b.position_at_end(body)
        if self.tiles is None:
            rows = self._in_registers(lines, bias, tile, depth, m, left)
        else:
            with b.if_else(self.tiles.used) as (then, otherwise):
                with then:
                    in_tiles = self._in_tiles(self.tiles, lines, bias, tile, depth, m, end), b.block
                with otherwise:
                    in_registers = self._in_registers(lines, bias, tile, depth, m, left), b.block
            rows = b.phi(I64)
            for way in (in_tiles, in_registers):
                rows.add_incoming(*way)
        yield m, rows
        m.add_incoming(b.add(m, rows), b.block)
        b.branch(head)
        b.position_at_end(after)

    def _start(self, bias: list[ir.Value], tile: ir.Value) -> list[ir.Value]:
        """The bias of each column, where there is one."""
        k, b, start = self.k, self.b, []
        for u in range(self.per if bias else 0):
            unit = b.mul(b.add(b.mul(tile, k.i(self.per)), k.i(u)), k.i(k.lanes))
            start += [self.v.load_some(k.at(pointer, unit), k.inside(self.size, unit)) for pointer in bias]
        return start

    def _sources(self, lines: Lines) -> "Iterator[tuple[ir.Value, ir.Value, ir.Value, ir.Value]]":
        """Of each source: address of row 0, stride of rows, how many rows of a panel it has and where these begin."""
        above: ir.Value = self.k.i(0)
        for i, (base, row) in zip(self.product.sources, lines, strict=True):
            numbers = self.numbers(i)
            yield base, row, numbers, above
            above = self.b.add(above, self.filled(numbers))

    def _in_tiles(
        self,
        tiles: Tiles,
        lines: Lines,
        bias: list[ir.Value],
        tile: ir.Value,
        depth: ir.Value,
        m: ir.Value,
        end: ir.Value,
    ) -> ir.Value:
        """Rows from m on times one panel, into the buffer; how many rows."""
        start = self._start(bias, tile)
        sources = [
            (base, row, pairs, self.line(tile, depth, above)) for base, row, pairs, above in self._sources(lines)
        ]
        return tiles.multiply(sources, self.columns, start, m, end)

    def _in_registers(
        self, lines: Lines, bias: list[ir.Value], tile: ir.Value, depth: ir.Value, m: ir.Value, left: ir.Value
    ) -> ir.Value:
        """The same in registers, for `left` rows at most."""
        k, b = self.k, self.b
        # Tiles of nearly equal height: 8 rows are better done as 4 + 4 than as 6 + 2.
        rows = k.up(left, self.rows)
        rows = b.sdiv(b.add(left, b.sub(rows, k.i(1))), rows)
        done = b.append_basic_block("product_done")
        choice = b.switch(rows, done)
        for height in range(1, self.rows + 1):
            block = b.append_basic_block(f"product_{height}")
            choice.add_case(k.i(height), block)
            b.position_at_end(block)
            self._multiply(lines, bias, tile, depth, m, height)
            b.branch(done)
        b.position_at_end(done)
        return rows

    def _multiply(
        self, lines: Lines, bias: list[ir.Value], tile: ir.Value, depth: ir.Value, m: ir.Value, height: int
    ) -> None:
        """`height` rows of the sources times one panel, into the buffer."""
        k, b, v = self.k, self.b, self.v
        sums: list[ir.Value] = (self._start(bias, tile) or [v.splat(0.0)] * self.columns) * height
        for base, row, numbers, above in self._sources(lines):
            of_rows = [k.at(base, b.mul(row, b.add(m, k.i(r))), I16 if self.narrow else F32) for r in range(height)]
            panel = self.line(tile, depth, above)
            whole = b.mul(b.sdiv(numbers, k.i(UNROLL)), k.i(UNROLL))
            sums = self._accumulate(of_rows, panel, k.i(0), whole, sums, UNROLL)
            sums = self._accumulate(of_rows, panel, whole, numbers, sums, 1)
        for n, value in enumerate(sums):
            v.store(value, k.at(k.buffer, k.i(n * k.lanes)))

    def _accumulate(
        self, lines: list[ir.Value], panel: ir.Value, start: ir.Value, end: ir.Value, sums: list[ir.Value], unroll: int
    ) -> list[ir.Value]:
        """sums[row, column] += lines[row][k] * panel[k, column] for k from start to end."""
        k, b, v = self.k, self.b, self.v
        kind = I32 if self.narrow else F32
        with k.carrying(sums, start, end, "depth", by=unroll) as (at, now):
            for j in range(unroll):
                kj = b.add(at, k.i(j))
                row = k.at(panel, b.mul(kj, k.i(self.columns * k.lanes)))
                weights = [v.load(k.at(row, k.i(c * k.lanes)), kind) for c in range(self.columns)]
                for r, line in enumerate(lines):
                    # A pair is as wide as a float32: the same addresses serve both.
                    number = v.broadcast(b.load(k.at(line, kj, kind), typ=kind, align=2))
                    for c, weight in enumerate(weights):
                        n = r * self.columns + c
                        if self.narrow:
                            now[n] = v.dot(now[n], number, weight)
                        else:
                            now[n] = k.multiply_add(number, weight, now[n])
        return now
