"""The text of a kernel: passes over memory as one LLVM function, for any sizes, any number of rows and any threads.

`kernel(arguments)` packs the matrices, then runs the loop over time. A dense product is computed in register tiles; the
equations of the pass are the epilogue of its tile. Threads share the rows, or the units with a barrier before each
product; every number is computed by one thread in one order, so results do not depend on their number.
"""

from dataclasses import astuple, dataclass
from functools import cached_property

from llvmlite import ir

from ...lang.graph import ONE, Graph
from .builder import Builder
from .layout import BEFORE, HEAD, NOW, Layout, Slot, lay_out
from .lookup import LookUp
from .machine import Machine
from .passes import Pass, single
from .product import Panels
from .tiles import Tiles
from .vectors import F32, I16, I64, PTR, SPELLING


@dataclass(frozen=True)
class Recipe:
    """All that decides a kernel; the sizes in the graph do not.

    `looked_up`: nodes whose row is chosen by an integer (`ids`) instead of by step and row. `carried`: nodes that are
    the gradient of a state, and so also go to the place where the next step looks for it. `numbers`: sums over units
    that were computed before: a number in memory; others lie there lane by lane. `narrow`: the operands of products are
    bfloat16, and these nodes are stored as such too.
    """

    graph: Graph
    passes: list[Pass]
    machine: Machine
    looked_up: frozenset[int] = frozenset()
    carried: frozenset[int] = frozenset()
    numbers: frozenset[int] = frozenset()
    narrow: frozenset[int] | None = None

    @cached_property
    def layout(self) -> Layout:
        """The order of the kernel's arguments."""
        return lay_out(self.graph, self.passes, self.carried, self.narrow)

    def key(self) -> str:
        """Equal for recipes that give the same text; cheaper than the text."""
        marked = (self.looked_up, self.carried, self.numbers, self.narrow)
        marks = [None if nodes is None else sorted(nodes) for nodes in marked]
        return repr(([astuple(n) for n in self.graph.nodes], self.passes, self.layout, marks))

    def text(self) -> str:
        """The module; its function is `kernel`."""
        return _Kernel(self).text()


def kind_of(slot: Slot) -> ir.Type:
    """The numbers of a slot: float32, or bfloat16 as integers of that width; counts are integers."""
    return {"narrow": I16, "positions": I64}.get(slot.name, F32)


class _Kernel(Builder):
    """Writes one module."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.machine)
        self.graph, self.passes, self.layout = recipe.graph, recipe.passes, recipe.layout
        self.looked_up, self.numbers, self.narrow = recipe.looked_up, recipe.numbers, recipe.narrow

    def text(self) -> str:
        """The whole module."""
        b, layout = self.b, self.layout
        head = {name: self.argument(k) for k, name in enumerate(HEAD)}
        at = len(HEAD)
        for name in layout.sizes:
            self.units[name], at = self.argument(at), at + 1
        self.tiles = None
        if self.narrow is not None and self.machine.tiles and layout.products:
            self.tiles = Tiles(self, max(len(p.sources) for p in layout.products), head["rows"])
        self.panels, parts = [], []
        for product in layout.products:
            panel, stride = self.pointer(at), self.argument(at + 1)
            self.panels.append(Panels(self, self.graph, product, panel, stride, self.narrow is not None, self.tiles))
            parts.append([self.pointer(at + 2 + n) for n in range(len(product.parts))])
            at += 2 + len(product.parts)
        places = {slot: [self.argument(at + 4 * n + j) for j in range(4)] for n, slot in enumerate(layout.slots)}
        if self.tiles:
            self.buffer = self.tiles.room(max(p.columns for p in self.panels))
        else:
            self.buffer = self.memory(max((p.columns * p.rows for p in self.panels), default=1) * self.lanes)

        number, count = self.ask(head["thread_number"], 0), self.ask(head["thread_count"], 1)
        by_units = b.icmp_signed("!=", head["by_units"], self.i(0))
        self.number = b.select(by_units, number, self.i(0))
        self.count = b.select(by_units, count, self.i(1))
        barrier = b.inttoptr(head["barrier"], PTR)
        several = b.icmp_signed(">", count, self.i(1))
        if self.panels:
            with b.if_then(b.icmp_signed("==", head["packed"], self.i(0))):
                for panels, starts in zip(self.panels, parts, strict=True):
                    panels.pack(starts, number, count)
                # Threads that share the units meet before every product anyhow.
                with b.if_then(b.and_(several, b.icmp_signed("==", head["by_units"], self.i(0)))):
                    self.meet(barrier, number, count, head["yield_now"])
        rows = head["rows"]
        first = b.select(by_units, self.i(0), b.sdiv(b.mul(rows, number), count))
        end = b.select(by_units, rows, b.sdiv(b.mul(rows, b.add(number, self.i(1))), count))
        mine = b.mul(b.select(by_units, self.i(0), number), head["steps"])
        with self.loop(self.i(0), head["steps"], "step") as k:
            self.rows(head["table"], b.add(mine, k), first, end)
            if self.tiles:
                self.tiles.begin(self.first_row, self.end_row)
            self.slots = {slot: self.place(slot, place, k) for slot, place in places.items()}
            shift = self.shifted(self.i(NOW))
            self.ids = self.at(b.inttoptr(head["ids"], PTR), b.add(b.mul(k, head["ids_step"]), shift), I64)
            for one in self.passes:
                if one.product:
                    with b.if_then(b.and_(by_units, several)):
                        self.meet(barrier, number, count, head["yield_now"])
                self.run(one)
        if self.tiles:
            self.tiles.finish()
        b.ret_void()
        return str(self.module)

    def rows(self, table: ir.Value, k: ir.Value, first: ir.Value, end: ir.Value) -> None:
        """This thread's rows at one step.

        Without a table they are the same at all steps. An entry of it: the first row and one past the last, then how
        far on the rows of this step lie in memory that has one row per valid input, and those of the step before.
        """
        b = self.b
        before = b.block
        read, after = b.append_basic_block("read_rows"), b.append_basic_block("rows_read")
        b.cbranch(b.icmp_signed("==", table, self.i(0)), after, read)
        b.position_at_end(read)
        entry = self.at(b.inttoptr(table, PTR), b.mul(k, self.i(4)), I64)
        found = [b.load(self.at(entry, self.i(j), I64), typ=I64) for j in range(4)]
        b.branch(after)
        b.position_at_end(after)
        given = (first, end, self.i(0), self.i(0))
        merged = []
        for one, other in zip(given, found, strict=True):
            phi = b.phi(I64)
            phi.add_incoming(one, before)
            phi.add_incoming(other, read)
            merged.append(phi)
        self.first_row, self.end_row, self.shift_now, self.shift_before = merged

    def shifted(self, kind: ir.Value) -> ir.Value:
        """How far on the rows of a slot lie at this step."""
        b = self.b
        early = b.select(b.icmp_signed("==", kind, self.i(BEFORE)), self.shift_before, self.i(0))
        return b.select(b.icmp_signed("==", kind, self.i(NOW)), self.shift_now, early)

    def place(self, slot: Slot, place: list[ir.Value], k: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(address of row 0 at this step, stride of rows)."""
        pointer, row, step, shift = place
        b = self.b
        offset = b.add(b.mul(k, step), b.mul(self.shifted(shift), row))
        return self.at(b.inttoptr(pointer, PTR), offset, kind_of(slot)), row

    def address(self, slot: Slot, m: ir.Value) -> ir.Value:
        """Where row m of a slot begins at this step."""
        base, row = self.slots[slot]
        return self.at(base, self.b.mul(m, row), kind_of(slot))

    def run(self, one: Pass) -> None:
        """One pass of one step."""
        b, v = self.b, self.v
        if one.lookup:
            with self.loop(self.first_row, self.end_row, "row") as m:
                (i,) = one.nodes
                places = [self.address(s, m) for s in (Slot(i), Slot(i, "carried")) if s in self.slots]
                LookUp(self, i, m, places).write()
            return
        if one.product is None:
            first, end = self.share(one.size, 1, self.number, self.count)
            sums = [i for i in one.nodes if self.graph.nodes[i].op == "sum"]
            with self.loop(self.first_row, self.end_row, "row") as m:
                numbers = self.numbers_of(one, m)
                with self.carrying([v.splat(0.0)] * len(sums), first, end, "block") as (n, totals):
                    shares = self.equations(one, m, n, numbers)
                    totals[:] = [b.fadd(total, shares[i]) for i, total in zip(sums, totals, strict=True)]
                for i, total in zip(sums, totals, strict=True):
                    v.store(total, self.address(Slot(i), m))
            return
        panels = self.panels[self.layout.products.index(one.product)]
        per, parts = panels.per, panels.parts
        first, end = self.share(one.size, per, self.number, self.count)
        blocks = self.blocks(one.size)
        kind = "" if self.narrow is None else "narrow"
        lines = [self.slots[Slot(i, kind)] for i in one.product.sources]
        bias = [self.slots[Slot(-1, one.product.bias, part)][0] for part in one.product.parts if one.product.bias]
        with self.loop(first, end, "tile") as tile:
            for m, rows in panels.tiles_of_rows(lines, bias, tile, self.first_row, self.end_row):
                with self.loop(self.i(0), rows, "row") as r, self.loop(self.i(0), self.i(per), "block") as u:
                    n = b.add(b.mul(tile, self.i(per)), u)
                    with b.if_then(b.icmp_signed("<", n, blocks)):
                        where = b.mul(b.add(b.mul(r, self.i(per)), u), self.i(parts * self.lanes))
                        results = {
                            node: v.load(self.at(self.buffer, b.add(where, self.i(g * self.lanes))))
                            for g, node in enumerate(one.product.results)
                        }
                        row = b.add(m, r)
                        for i, share in self.equations(one, row, n, results).items():
                            self.add_up(i, share, row, n)

    def numbers_of(self, one: Pass, m: ir.Value) -> dict[int, ir.Value]:
        """The numbers of row m that the elementwise work of a pass uses: sums over units, and what follows from them.

        LLVM would compute them anew for every block: it cannot know that what a block stores leaves them as they are.
        """
        nodes = self.graph.nodes
        wanted = {a for i in one.nodes for a in nodes[i].args if nodes[a].size == ONE} - {*one.nodes}
        values: dict[int, ir.Value] = {}
        for i in sorted(wanted):
            self.value(i, values, m, self.i(0), None)
        return values

    def value(
        self, i: int, values: dict[int, ir.Value], m: ir.Value, first: ir.Value, inside: ir.Value | None
    ) -> ir.Value:
        """A value for row m from unit `first` on, which is added to those that are there."""
        if i not in values:
            if single(self.graph, i):
                values[i] = self.computed(i, values, m, first, inside)
            else:
                values[i] = self.fetch(i, m, first, inside)
        return values[i]

    def computed(
        self, i: int, values: dict[int, ir.Value], m: ir.Value, first: ir.Value, inside: ir.Value | None
    ) -> ir.Value:
        """The operation of a node on the values of its arguments."""
        node = self.graph.nodes[i]
        return SPELLING[node.op](self.v, *(self.value(a, values, m, first, inside) for a in node.args))

    def equations(self, one: Pass, m: ir.Value, n: ir.Value, values: dict[int, ir.Value]) -> dict[int, ir.Value]:
        """The elementwise work of a pass for row m and block n, on values in registers; its shares of sums over units.

        `values`: what is known already.
        """
        b, v, nodes = self.b, self.v, self.graph.nodes
        values, shares = dict(values), {}
        first = b.mul(n, self.i(self.lanes))
        inside = self.inside(one.size, first)
        for i in one.nodes:
            if nodes[i].op == "sum":
                summand = self.value(nodes[i].args[0], values, m, first, inside)
                shares[i] = b.select(inside, summand, v.splat(0.0))
            else:
                values[i] = self.computed(i, values, m, first, inside)
        for i in dict.fromkeys((*one.results, *one.nodes, *one.stores)):
            if nodes[i].op == "sum":
                continue
            flows = Slot(i, "carried") in self.slots and nodes[i].op != "grad"
            places = [Slot(i, "carried")] * flows + [Slot(i)] * (Slot(i) in self.slots and i in one.stores)
            for slot in places:
                # Zero beyond the last unit: whoever adds up or packs whole blocks finds nothing there.
                value = self.value(i, values, m, first, inside)
                v.store(b.select(inside, value, v.splat(0.0)), self.at(self.address(slot, m), first))
            slot = Slot(i, "narrow")
            if self.narrow is not None and i in self.narrow:
                rounded = v.narrow(b.select(inside, self.value(i, values, m, first, inside), v.splat(0.0)))
                b.store(rounded, self.at(self.address(slot, m), first, I16), align=2)
        return shares

    def fetch(self, i: int, m: ir.Value, first: ir.Value, inside: ir.Value | None) -> ir.Value:
        """A leaf, or a value that another pass has stored; a number per row needs no `inside`."""
        b, v, node = self.b, self.v, self.graph.nodes[i]
        if node.op == "const":
            return v.splat(node.value)
        if node.op == "count":
            return v.broadcast(b.sitofp(self.units[node.name], F32))
        if node.op == "grad":
            outside, carried = (self.at(self.address(Slot(i, n), m), first) for n in ("outside", "carried"))
            return b.fadd(v.load_some(outside, inside), v.load(carried))
        if i in self.looked_up:
            base, row = self.slots[Slot(i)]
            here = self.at(base, b.mul(b.load(self.at(self.ids, m, I64), typ=I64), row))
        else:
            here = self.address(Slot(i), m)
        if node.op == "sum" and i not in self.numbers:
            return v.total(v.load(here))
        if node.size == ONE:
            return v.broadcast(b.load(here, typ=F32, align=4))
        here = self.at(here, first)
        # What others have made need not be readable beyond its last number.
        return v.load_some(here, inside) if node.op in ("input", "param") else v.load(here)

    def add_up(self, i: int, value: ir.Value, m: ir.Value, n: ir.Value) -> None:
        """One block's share of a sum over the units, lane by lane."""
        b, v = self.b, self.v
        place = self.address(Slot(i), m)
        before = b.select(b.icmp_signed("==", n, self.i(0)), v.splat(0.0), v.load(place))
        v.store(b.fadd(before, value), place)
