"""The product of weight gradients: a sum over all rows of outer products, left [N, m] and right [N, n] to [m, n].

Nothing is packed: a register tile takes single numbers of the left and whole vectors of the right. Rows are taken in
blocks, so that what a tile reads stays in the cache for the next. Every sum runs over the rows in their order, whatever
the number of threads.
"""

import ctypes
from functools import cache

from llvmlite import ir
from torch import Tensor

from . import build, threads
from .builder import Builder
from .machine import Machine
from .memory import empty, zeros
from .vectors import F32, PTR

HEAD = (
    "rows",
    "left",
    "left_row",
    "left_units",
    "right",
    "right_row",
    "right_units",
    "into",  # contiguous
    "thread_number",
    "thread_count",
)
BLOCK = 128  # rows at a time
HEIGHT = 6  # of a tile; its columns fill the registers
WORTH = 200_000  # multiplications that a second thread is worth


def outer(left: Tensor, right: Tensor, machine: Machine) -> Tensor:
    """left.T @ right, [m, n] in float32, of matrices [N, m] and [N, n] with the numbers of a row side by side."""
    rows, m = left.shape
    n = right.shape[1]
    into = empty(m, n) if rows else zeros(m, n)
    if not into.numel() or not rows:
        return into
    count = threads.threads() if rows * m * n >= WORTH else 1
    number, total = threads.addresses(count)
    values = (rows, left.data_ptr(), left.stride(0), m, right.data_ptr(), right.stride(0), n, into.data_ptr())
    arguments = (ctypes.c_int64 * len(HEAD))(*values, number, total)
    threads.run(kernel(machine), ctypes.addressof(arguments), count)
    return into


@cache
def kernel(machine: Machine) -> int:
    """The address of the compiled product."""
    return build.load("outer", lambda: text(machine), machine)


def text(machine: Machine) -> str:
    """The module of the product."""
    return _Outer(machine).text()


class _Outer(Builder):
    """Writes the module."""

    def text(self) -> str:
        b = self.b
        self.head = {name: self.argument(k) for k, name in enumerate(HEAD)}
        self.left, self.right, self.into = (b.inttoptr(self.head[n], PTR) for n in ("left", "right", "into"))
        number, count = self.ask(self.head["thread_number"], 0), self.ask(self.head["thread_count"], 1)
        columns = (self.machine.registers - 2) // (HEIGHT + 1)
        m, n, rows = self.head["left_units"], self.head["right_units"], self.head["rows"]
        # Threads share whole tiles of the left.
        tiles = self.up(m, HEIGHT)
        first = b.mul(b.sdiv(b.mul(tiles, number), count), self.i(HEIGHT))
        end = self.least(m, b.mul(b.sdiv(b.mul(tiles, b.add(number, self.i(1))), count), self.i(HEIGHT)))
        wide = columns * self.lanes
        whole = b.mul(b.sdiv(n, self.i(wide)), self.i(wide))
        with self.loop(self.i(0), rows, "rows", by=BLOCK) as start:
            stop = self.least(rows, b.add(start, self.i(BLOCK)))
            with self.loop(self.i(0), whole, "wide", by=wide) as j:
                self.tiles(first, end, j, start, stop, columns, None)
            with self.loop(whole, n, "narrow", by=self.lanes) as j:
                self.units["right"] = n
                self.tiles(first, end, j, start, stop, 1, self.inside("right", j))
        b.ret_void()
        return str(self.module)

    def tiles(
        self,
        first: ir.Value,
        end: ir.Value,
        j: ir.Value,
        start: ir.Value,
        stop: ir.Value,
        columns: int,
        inside: ir.Value | None,
    ) -> None:
        """All tiles of the left beside some columns of the right."""
        b = self.b
        with self.loop(first, end, "tile", by=HEIGHT) as i:
            left = b.sub(end, i)
            done = b.append_basic_block("tile_done")
            choice = b.switch(left, b.append_basic_block("tile_whole"))
            for height in range(1, HEIGHT + 1):
                block = choice.default if height == HEIGHT else b.append_basic_block(f"tile_{height}")
                if height < HEIGHT:
                    choice.add_case(self.i(height), block)
                b.position_at_end(block)
                self.tile(i, j, start, stop, height, columns, inside)
                b.branch(done)
            b.position_at_end(done)

    def tile(
        self,
        i: ir.Value,
        j: ir.Value,
        start: ir.Value,
        stop: ir.Value,
        height: int,
        columns: int,
        inside: ir.Value | None,
    ) -> None:
        """Add the rows from `start` to `stop` to height x columns vectors of the result."""
        b, v = self.b, self.v
        places = [
            self.at(row, b.add(j, self.i(c * self.lanes)))
            for row in (self.at(self.into, b.mul(b.add(i, self.i(r)), self.head["right_units"])) for r in range(height))
            for c in range(columns)
        ]
        begins = b.icmp_signed("==", start, self.i(0))

        def load(pointer: ir.Value) -> ir.Value:
            return v.load(pointer) if inside is None else v.load_some(pointer, inside)

        with self.carrying([v.splat(0.0)] * len(places), start, stop, "sum") as (k, sums):
            right = self.at(self.right, b.add(b.mul(k, self.head["right_row"]), j))
            left = self.at(self.left, b.add(b.mul(k, self.head["left_row"]), i))
            vectors = [load(self.at(right, self.i(c * self.lanes))) for c in range(columns)]
            for r in range(height):
                number = v.broadcast(b.load(self.at(left, self.i(r)), typ=F32, align=4))
                for c, vector in enumerate(vectors):
                    n = r * columns + c
                    sums[n] = self.multiply_add(number, vector, sums[n])
        for value, place in zip(sums, places, strict=True):
            # Block by block: a long sum of sums loses fewer digits than one long sum.
            value = b.fadd(value, b.select(begins, v.splat(0.0), load(place)))
            v.store(value, place) if inside is None else v.store_some(value, place, inside)
