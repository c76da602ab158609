"""The text of a kernel: passes over memory as one LLVM function, for any sizes, any number of rows and any threads.

`kernel(arguments)` runs the loop over time. A dense product is computed in register tiles of rows x (parts x blocks of
units); the equations of the pass are the epilogue of its tile. Threads share the rows, or the units with a barrier
before each product; every number is computed by one thread in one order, so results do not depend on their number.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from ...lang.graph import ONE, Graph
from ...lang.plan import Product
from .layout import GRANULE, HEAD, Layout, Slot, blocks_per_tile, lay_out
from .machine import Machine
from .passes import Pass, single
from .vectors import F32, I32, I64, PTR, SPELLING, Vectors

UNROLL = 4  # of the loop over the depth of a product; divides the numbers in any vector register


def emit(
    graph: Graph,
    passes: list[Pass],
    machine: Machine,
    looked_up: frozenset[int] = frozenset(),
    carried: frozenset[int] = frozenset(),
    hoisted: frozenset[int] = frozenset(),
) -> tuple[str, Layout]:
    """The module's text, and the order of the arguments of its function `kernel`.

    `looked_up`: nodes whose row is chosen by an integer (`ids`) instead of by step and row. `carried`: nodes that are
    the gradient of a state, and so also go to the place where the next step looks for it. `hoisted`: nodes that were
    computed before the loop; a sum among them is a number, others lie in memory lane by lane.
    """
    layout = lay_out(graph, passes, carried)
    return _Kernel(graph, passes, machine, looked_up, hoisted, layout).text(), layout


class _Kernel:
    """Writes one module."""

    def __init__(
        self,
        graph: Graph,
        passes: list[Pass],
        machine: Machine,
        looked_up: frozenset[int],
        hoisted: frozenset[int],
        layout: Layout,
    ) -> None:
        self.graph, self.passes, self.machine, self.layout = graph, passes, machine, layout
        self.looked_up, self.hoisted = looked_up, hoisted
        self.lanes = machine.lanes
        self.module = ir.Module("cellwright")
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [PTR]), "kernel")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.v = Vectors(self.b, self.lanes)

    # small words of the builder

    def i(self, n: int) -> ir.Constant:
        return ir.Constant(I64, n)

    def at(self, pointer: ir.Value, index: ir.Value, kind: ir.Type = F32) -> ir.Value:
        return self.b.gep(pointer, [index], source_etype=kind)

    def argument(self, k: int) -> ir.Value:
        return self.b.load(self.at(self.function.args[0], self.i(k), I64), typ=I64)

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    @contextmanager
    def loop(self, start: ir.Value, end: ir.Value, name: str) -> Iterator[ir.PhiInstr]:
        """A counted loop; the body is what is written inside the `with`."""
        b = self.b
        before = b.block
        head, body, after = (b.append_basic_block(f"{name}_{part}") for part in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64, name)
        k.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", k, end), body, after)
        b.position_at_end(body)
        yield k
        k.add_incoming(b.add(k, self.i(1)), b.block)
        b.branch(head)
        b.position_at_end(after)

    # the kernel

    def text(self) -> str:
        b, layout = self.b, self.layout
        head = {name: self.argument(k) for k, name in enumerate(HEAD)}
        base = len(HEAD)
        self.units = {name: self.argument(base + k) for k, name in enumerate(layout.sizes)}
        base += len(layout.sizes)
        self.panels = [b.inttoptr(self.argument(base + k), PTR) for k in range(len(layout.products))]
        base += len(layout.products)
        self.slots = {}
        for k, slot in enumerate(layout.slots):
            pointer, row, step = (self.argument(base + 3 * k + j) for j in range(3))
            self.slots[slot] = (b.inttoptr(pointer, PTR), row, step)
        self.ids, self.ids_step = b.inttoptr(head["ids"], PTR), head["ids_step"]
        widest = max((len(p.results) * blocks_per_tile(p) * self.tile_rows(p) for p in layout.products), default=1)
        buffer = b.alloca(F32, self.i(widest * self.lanes))
        buffer.align = 64
        self.buffer = b.inttoptr(b.ptrtoint(buffer, I64), PTR)
        number, count = self.who(head["thread_number"], head["thread_count"])
        by_units = b.icmp_signed("!=", head["by_units"], self.i(0))
        rows = head["rows"]
        self.first_row = b.select(by_units, self.i(0), b.sdiv(b.mul(rows, number), count))
        self.end_row = b.select(by_units, rows, b.sdiv(b.mul(rows, b.add(number, self.i(1))), count))
        self.number = b.select(by_units, number, self.i(0))
        self.count = b.select(by_units, count, self.i(1))
        self.barrier, self.yield_now = b.inttoptr(head["barrier"], PTR), head["yield_now"]
        meetings = b.alloca(I64)
        b.store(self.i(0), meetings)
        with self.loop(self.i(0), head["steps"], "step") as k:
            for one in self.passes:
                if one.product:
                    with b.if_then(by_units):
                        self.meet(meetings)
                self.run(one, k)
        b.ret_void()
        return str(self.module)

    def who(self, *functions: ir.Value) -> list[ir.Value]:
        """This thread's number and the number of threads; without functions to ask, 0 and 1."""
        b, answers = self.b, []
        for address, alone in zip(functions, (0, 1), strict=True):
            before = b.block
            ask, after = b.append_basic_block("ask"), b.append_basic_block("asked")
            b.cbranch(b.icmp_signed("==", address, self.i(0)), after, ask)
            b.position_at_end(ask)
            told = b.zext(self.indirect(address, ir.FunctionType(I32, [])), I64)
            b.branch(after)
            b.position_at_end(after)
            answer = b.phi(I64)
            answer.add_incoming(self.i(alone), before)
            answer.add_incoming(told, ask)
            answers.append(answer)
        return answers

    def indirect(self, address: ir.Value, kind: ir.FunctionType) -> ir.Value:
        return self.b.call(self.b.inttoptr(address, kind.as_pointer()), [])

    def meet(self, meetings: ir.Value) -> None:
        """Wait until all threads have come here; after a while of spinning, leave the processor to others."""
        b = self.b
        met = b.add(b.load(meetings, typ=I64), self.i(1))
        b.store(met, meetings)
        b.atomic_rmw("add", self.barrier, self.i(1), "acq_rel")
        wanted = b.mul(met, self.count)
        before = b.block
        wait, spin, leave, done = (b.append_basic_block(f"meet_{n}") for n in ("wait", "spin", "leave", "done"))
        b.branch(wait)
        b.position_at_end(wait)
        spins = b.phi(I64)
        spins.add_incoming(self.i(0), before)
        seen = b.load_atomic(self.barrier, "acquire", 8, typ=I64)
        b.cbranch(b.icmp_signed("<", seen, wanted), spin, done)
        b.position_at_end(spin)
        more = b.add(spins, self.i(1))
        b.cbranch(b.icmp_signed(">", more, self.i(2000)), leave, wait)
        spins.add_incoming(more, spin)
        b.position_at_end(leave)
        self.indirect(self.yield_now, ir.FunctionType(I32, []))
        b.branch(wait)
        spins.add_incoming(self.i(0), leave)
        b.position_at_end(done)

    def blocks(self, size: str) -> ir.Value:
        return self.b.sdiv(self.b.add(self.units[size], self.i(self.lanes - 1)), self.i(self.lanes))

    def share(self, size: str, per: int) -> tuple[ir.Value, ir.Value]:
        """This thread's tiles of `per` blocks: whole granules, so that a unit belongs to one thread in all passes."""
        b = self.b
        granules = b.sdiv(b.add(self.blocks(size), self.i(GRANULE - 1)), self.i(GRANULE))
        first = b.sdiv(b.mul(granules, self.number), self.count)
        end = b.sdiv(b.mul(granules, b.add(self.number, self.i(1))), self.count)
        tiles = b.sdiv(b.add(self.blocks(size), self.i(per - 1)), self.i(per))
        scale = self.i(GRANULE // per)
        return b.mul(first, scale), self.least(b.mul(end, scale), tiles)

    def run(self, one: Pass, k: ir.Value) -> None:
        """One pass of one step."""
        if one.product is None:
            first, end = self.share(one.size, 1)
            with self.loop(self.first_row, self.end_row, "row") as m, self.loop(first, end, "block") as n:
                self.equations(one, k, m, n, {})
            return
        per, parts = blocks_per_tile(one.product), len(one.product.results)
        first, end = self.share(one.size, per)
        blocks = self.blocks(one.size)
        with self.loop(first, end, "tile") as tile:
            for m, rows in self.tiles_of_rows(one.product, k, tile, per):
                with self.loop(self.i(0), rows, "row") as r, self.loop(self.i(0), self.i(per), "block") as u:
                    n = self.b.add(self.b.mul(tile, self.i(per)), u)
                    with self.b.if_then(self.b.icmp_signed("<", n, blocks)):
                        where = self.b.mul(self.b.add(self.b.mul(r, self.i(per)), u), self.i(parts * self.lanes))
                        results = {
                            node: self.v.load(self.at(self.buffer, self.b.add(where, self.i(g * self.lanes))))
                            for g, node in enumerate(one.product.results)
                        }
                        self.equations(one, k, self.b.add(m, r), n, results)

    # the product

    def tile_rows(self, product: Product) -> int:
        """Rows of a register tile: accumulators, one row of the panel and one number fill the registers."""
        columns = len(product.results) * blocks_per_tile(product)
        return max(1, min(8, (self.machine.registers - 1 - columns) // columns))

    def tiles_of_rows(
        self, product: Product, k: ir.Value, tile: ir.Value, per: int
    ) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Loop over the tiles of rows; the product lies in the buffer when the body runs."""
        b = self.b
        most = self.tile_rows(product)
        heights = sorted({h for h in (most, 4, 2, 1) if h <= most}, reverse=True)
        before = b.block
        head, body, after = (b.append_basic_block(f"rows_{n}") for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        m = b.phi(I64, "m")
        m.add_incoming(self.first_row, before)
        left = b.sub(self.end_row, m)
        b.cbranch(b.icmp_signed(">", left, self.i(0)), body, after)
        b.position_at_end(body)
        done = b.append_basic_block("product_done")
        chosen: list[tuple[int, ir.Block]] = []
        for height in heights:
            this = b.append_basic_block(f"product_{height}")
            other = b.append_basic_block(f"not_{height}") if height > 1 else None
            if other is None:
                b.branch(this)
            else:
                b.cbranch(b.icmp_signed(">=", left, self.i(height)), this, other)
            b.position_at_end(this)
            self.multiply(product, k, m, tile, per, height)
            chosen.append((height, b.block))
            b.branch(done)
            if other is not None:
                b.position_at_end(other)
        b.position_at_end(done)
        rows = b.phi(I64, "rows")
        for height, block in chosen:
            rows.add_incoming(self.i(height), block)
        yield m, rows
        m.add_incoming(b.add(m, rows), b.block)
        b.branch(head)
        b.position_at_end(after)

    def multiply(self, product: Product, k: ir.Value, m: ir.Value, tile: ir.Value, per: int, height: int) -> None:
        """`height` rows of the source times one panel, into the buffer."""
        b, v = self.b, self.v
        parts = len(product.results)
        columns = parts * per
        panel = self.panels[self.layout.products.index(product)]
        depth: ir.Value = self.i(0)
        widths = [self.width(self.graph.nodes[i].size) for i in product.sources]
        for width in widths:
            depth = b.add(depth, width)
        panel = self.at(panel, b.mul(b.mul(tile, depth), self.i(columns * self.lanes)))
        start: list[ir.Value] = [v.splat(0.0)] * columns
        if product.bias:
            start = []
            for u in range(per):
                n = b.add(b.mul(tile, self.i(per)), self.i(u))
                for part in product.parts:
                    pointer, _, _ = self.slots[Slot(-1, product.bias, part)]
                    start.append(v.load(self.at(pointer, b.mul(n, self.i(self.lanes)))))
        sums: list[ir.Value] = start * height
        for i, width in zip(product.sources, widths, strict=True):
            pointer, row, step = self.slots[Slot(i)]
            base = self.at(pointer, b.add(b.mul(k, step), b.mul(m, row)))
            lines = [self.at(base, b.mul(row, self.i(r))) for r in range(height)]
            sums = self.accumulate(lines, panel, width, sums, columns)
            panel = self.at(panel, b.mul(width, self.i(columns * self.lanes)))
        for k_, value in enumerate(sums):
            v.store(value, self.at(self.buffer, self.i(k_ * self.lanes)))

    def accumulate(
        self, lines: list[ir.Value], panel: ir.Value, width: ir.Value, sums: list[ir.Value], columns: int
    ) -> list[ir.Value]:
        """sums[row, column] += lines[row][k] * panel[k, column] for all k."""
        b, v = self.b, self.v
        before = b.block
        loop, after = b.append_basic_block("k_loop"), b.append_basic_block("k_after")
        b.branch(loop)
        b.position_at_end(loop)
        k = b.phi(I64, "k")
        k.add_incoming(self.i(0), before)
        carried = []
        for value in sums:
            phi = b.phi(v.type)
            phi.add_incoming(value, before)
            carried.append(phi)
        now: list[ir.Value] = list(carried)
        for j in range(UNROLL):
            kj = b.add(k, self.i(j))
            at = self.at(panel, b.mul(kj, self.i(columns * self.lanes)))
            weights = [v.load(self.at(at, self.i(c * self.lanes))) for c in range(columns)]
            for r, line in enumerate(lines):
                number = v.broadcast(b.load(self.at(line, kj), typ=F32))
                for c in range(columns):
                    now[r * columns + c] = v.fma(number, weights[c], now[r * columns + c])
        more = b.add(k, self.i(UNROLL))
        k.add_incoming(more, loop)
        for phi, value in zip(carried, now, strict=True):
            phi.add_incoming(value, loop)
        b.cbranch(b.icmp_signed("<", more, width), loop, after)
        b.position_at_end(after)
        return now

    def width(self, size: str) -> ir.Value:
        """Numbers of a row in memory: the units, filled up to whole blocks."""
        return self.b.mul(self.blocks(size), self.i(self.lanes))

    # the equations

    def equations(self, one: Pass, k: ir.Value, m: ir.Value, n: ir.Value, results: dict[int, ir.Value]) -> None:
        """The elementwise work of a pass for row m and block n, on values in registers."""
        b, v = self.b, self.v
        values = dict(results)
        lane = ir.Constant(v.ints, list(range(self.lanes)))
        first = b.mul(n, self.i(self.lanes))
        inside = b.icmp_signed("<", lane, v.broadcast(b.trunc(b.sub(self.units[one.size], first), I32)))

        def value(i: int) -> ir.Value:
            if i not in values:
                values[i] = self.fetch(i, k, m, first) if not single(self.graph, i) else compute(i)
            return values[i]

        def compute(i: int) -> ir.Value:
            node = self.graph.nodes[i]
            return SPELLING[node.op](v, *(value(a) for a in node.args))

        for i in one.nodes:
            if self.graph.nodes[i].op == "sum":
                self.add_up(i, b.select(inside, value(self.graph.nodes[i].args[0]), v.splat(0.0)), k, m, n)
            else:
                values[i] = compute(i)
        for i in dict.fromkeys((*results, *one.nodes, *one.stores)):
            for slot in (Slot(i), Slot(i, "carried")):
                flows = slot.name and self.graph.nodes[i].op != "grad"
                if (
                    slot in self.slots
                    and (flows or (not slot.name and i in one.stores))
                    and self.graph.nodes[i].op != "sum"
                ):
                    pointer, row, step = self.slots[slot]
                    place = self.at(pointer, b.add(b.add(b.mul(k, step), b.mul(m, row)), first))
                    # Zero beyond the last unit: a later product goes over whole blocks.
                    v.store(b.select(inside, value(i), v.splat(0.0)), place)

    def fetch(self, i: int, k: ir.Value, m: ir.Value, first: ir.Value) -> ir.Value:
        """A leaf, or a value that another pass has stored."""
        b, v, node = self.b, self.v, self.graph.nodes[i]
        if node.op == "const":
            return v.splat(node.value)
        if node.op == "count":
            return v.broadcast(b.sitofp(self.units[node.name], F32))
        if node.op == "grad":
            places = []
            for name in ("outside", "carried"):
                pointer, row, step = self.slots[Slot(i, name)]
                places.append(self.at(pointer, b.add(b.add(b.mul(k, step), b.mul(m, row)), first)))
            return b.fadd(v.load(places[0]), v.load(places[1]))
        pointer, row, step = self.slots[Slot(i)]
        if i in self.looked_up:
            number = b.load(self.at(self.ids, b.add(b.mul(k, self.ids_step), m), I64), typ=I64)
            base, step = b.mul(number, row), self.i(0)
        else:
            base = b.add(b.mul(k, step), b.mul(m, row))
        if node.op == "sum" and i not in self.hoisted:
            return v.total(v.load(self.at(pointer, base)))
        if node.size == ONE:
            return v.broadcast(b.load(self.at(pointer, base), typ=F32))
        return v.load(self.at(pointer, b.add(base, first)))

    def add_up(self, i: int, value: ir.Value, k: ir.Value, m: ir.Value, n: ir.Value) -> None:
        """One block's share of a sum over the units, lane by lane."""
        b, v = self.b, self.v
        pointer, row, step = self.slots[Slot(i)]
        place = self.at(pointer, b.add(b.mul(k, step), b.mul(m, row)))
        before = b.select(b.icmp_signed("==", n, self.i(0)), v.splat(0.0), v.load(place))
        v.store(b.fadd(before, value), place)
