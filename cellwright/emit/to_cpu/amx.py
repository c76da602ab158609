"""Tiles of the processor: Intel's AMX, and the same operations in plain code, for tests where there is no such unit.

There are 8 tiles of at most 16 rows of 64 bytes: 16 numbers of float32, or 16 pairs of bfloat16. A configuration in
memory says how many rows and bytes of each are in use. Denormal operands and results count as 0 there, as in AVX-512's
products of bfloat16; the plain code keeps them.
"""

from collections.abc import Callable

from llvmlite import ir

from .builder import Builder
from .vectors import I8, I16, I32, I64, PTR

TILES, ROWS = 8, 16
CONFIG = 16  # numbers of 4 bytes; tiles follow it in the memory of the plain code
PALETTE, BYTES, HEIGHTS = 0, 16, 48  # where in a configuration: a 1, then of each tile bytes per row (16 bits) and rows
_KINDS = {
    "ldtilecfg": [PTR],
    "tilerelease": [],
    "tilezero": [I8],
    "tileloadd64": [I8, PTR, I64],
    "tilestored64": [I8, PTR, I64],
    "tdpbf16ps": [I8, I8, I8],
}


class Amx:
    """The instructions, by LLVM's intrinsics. Tiles are numbers; strides are in bytes."""

    def __init__(self, k: Builder) -> None:
        self.k = k

    def configure(self, memory: ir.Value) -> None:
        """Take these sizes of tiles; all tiles are zero then."""
        self.call("ldtilecfg", memory)

    def release(self) -> None:
        """No more tiles."""
        self.call("tilerelease")

    def zero(self, tile: int) -> None:
        """All numbers of a tile."""
        self.call("tilezero", I8(tile))

    def load(self, tile: int, memory: ir.Value, stride: ir.Value) -> None:
        """A tile's rows from memory; with a stride of 0, one row for all."""
        self.call("tileloadd64", I8(tile), memory, stride)

    def store(self, tile: int, memory: ir.Value, stride: ir.Value) -> None:
        """A tile's rows to memory."""
        self.call("tilestored64", I8(tile), memory, stride)

    def dot(self, into: int, left: int, right: int) -> None:
        """into[m, n] += the sum over k of left[m, k] . right[k, n], pairs of bfloat16."""
        self.call("tdpbf16ps", I8(into), I8(left), I8(right))

    def call(self, name: str, *arguments: ir.Value) -> None:
        """One instruction."""
        full, module = f"llvm.x86.{name}", self.k.module
        kind = ir.FunctionType(ir.VoidType(), _KINDS[name])
        self.k.b.call(module.globals.get(full) or ir.Function(module, kind, full), arguments)


class Emulated(Amx):
    """The same in plain code, as slow as it is: what the processor refuses ends the process here too."""

    def __init__(self, k: Builder) -> None:
        super().__init__(k)
        self._memory = k.memory(CONFIG + TILES * ROWS * k.lanes)
        k.b.store(k.i(0), self._memory)

    def call(self, name: str, *arguments: ir.Value) -> None:
        """One instruction, as a function of its own in the module."""
        module = self.k.module
        function = module.globals.get(name)
        if function is None:
            routine = _Routine(self.k.machine, module, name, (PTR, *_KINDS[name]))
            _PLAIN[name](routine, *routine.function.args[1:])
            routine.b.ret_void()
            function = routine.function
            function.linkage = "internal"
            function.attributes.add("noinline")
        self.k.b.call(function, [self._memory, *arguments])


class _Routine(Builder):
    """A function on the memory of the plain code."""

    def byte(self, offset: ir.Value, kind: ir.Type) -> ir.Value:
        """An entry of the configuration."""
        return self.b.zext(self.b.load(self.at(self.function.args[0], offset, I8), typ=kind, align=1), I64)

    def rows(self, tile: ir.Value) -> ir.Value:
        """Rows of a tile that are in use."""
        return self.byte(self.b.add(self.wide(tile), self.i(HEIGHTS)), I8)

    def numbers(self, tile: ir.Value) -> ir.Value:
        """Numbers or pairs of a row that are in use."""
        at = self.b.add(self.b.mul(self.wide(tile), self.i(2)), self.i(BYTES))
        return self.b.sdiv(self.byte(at, I16), self.i(4))

    def wide(self, tile: ir.Value) -> ir.Value:
        """A tile's number as an index."""
        return tile if tile.type == I64 else self.b.zext(tile, I64)

    def row(self, tile: ir.Value, r: ir.Value) -> ir.Value:
        """Where a row of a tile is."""
        row = self.b.add(self.b.mul(self.wide(tile), self.i(ROWS)), r)
        return self.at(self.function.args[0], self.b.add(self.b.mul(row, self.i(self.lanes)), self.i(CONFIG)))

    def demand(self, *conditions: ir.Value) -> None:
        """What must hold."""
        b, kind = self.b, ir.FunctionType(ir.VoidType(), [])
        for condition in conditions:
            with b.if_then(b.not_(condition)):
                b.call(self.module.globals.get("llvm.trap") or ir.Function(self.module, kind, "llvm.trap"), [])

    def used(self, tile: ir.Value) -> ir.Value:
        """Whether a tile has been configured."""
        return self.b.icmp_signed(">", self.rows(tile), self.i(0))

    def same(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Whether two integers are equal."""
        return self.b.icmp_signed("==", a, b)

    def clear(self, tile: ir.Value, first: ir.Value) -> None:
        """Zeros from a row on."""
        with self.loop(first, self.i(ROWS), "clear") as r:
            self.v.store(self.v.splat(0.0), self.row(tile, r))


def _configure(k: _Routine, memory: ir.Value) -> None:
    b = k.b
    # Palette 1, and zero where nothing is to be said.
    for at, value in ((PALETTE, 1), (8, 0), (32, 0), (40, 0), (56, 0)):
        k.demand(k.same(b.load(k.at(memory, k.i(at), I8), typ=I64, align=1), k.i(value)))
    k.v.store(k.v.load(memory), k.function.args[0])
    with k.loop(k.i(0), k.i(TILES), "tile") as tile:
        for size, most in ((k.rows(tile), ROWS), (k.numbers(tile), k.lanes)):
            k.demand(b.icmp_signed(">", size, k.i(0)), b.icmp_signed("<=", size, k.i(most)))
        k.clear(tile, k.i(0))


def _release(k: _Routine) -> None:
    k.v.store(k.v.splat(0.0), k.function.args[0])


def _zero(k: _Routine, tile: ir.Value) -> None:
    k.demand(k.used(tile))
    k.clear(tile, k.i(0))


def _load(k: _Routine, tile: ir.Value, memory: ir.Value, stride: ir.Value) -> None:
    k.demand(k.used(tile))
    inside = k.below(k.numbers(tile))
    with k.loop(k.i(0), k.rows(tile), "row") as r:
        line = k.at(memory, k.b.mul(r, stride), I8)
        k.v.store(k.v.load_some(line, inside, 1), k.row(tile, r))
    k.clear(tile, k.rows(tile))


def _store(k: _Routine, tile: ir.Value, memory: ir.Value, stride: ir.Value) -> None:
    k.demand(k.used(tile))
    inside = k.below(k.numbers(tile))
    with k.loop(k.i(0), k.rows(tile), "row") as r:
        k.v.store_some(k.v.load(k.row(tile, r)), k.at(memory, k.b.mul(r, stride), I8), inside)


def _dot(k: _Routine, into: ir.Value, left: ir.Value, right: ir.Value) -> None:
    """First and second numbers of the pairs are summed apart, then both sums are added: so does the processor."""
    b, v = k.b, k.v
    k.demand(k.used(into), k.same(k.rows(into), k.rows(left)))
    k.demand(k.same(k.numbers(into), k.numbers(right)), k.same(k.numbers(left), k.rows(right)))
    inside = k.below(k.numbers(into))

    def halves(pairs: ir.Value) -> list[ir.Value]:
        low, high = b.shl(pairs, v.whole(16)), b.and_(pairs, v.whole(-(2**16)))
        return [b.bitcast(half, v.type) for half in (low, high)]

    with k.loop(k.i(0), k.rows(into), "row") as m:
        with k.carrying([v.splat(0.0)] * 2, k.i(0), k.numbers(left), "depth") as (at, sums):
            pair = v.broadcast(b.load(k.at(k.row(left, m), at, I32), typ=I32))
            weights = v.load(k.row(right, at), I32)
            for n, (x, w) in enumerate(zip(halves(pair), halves(weights), strict=True)):
                sums[n] = v.fma(x, w, sums[n])
        place = k.row(into, m)
        v.store(b.select(inside, b.fadd(v.load(place), b.fadd(*sums)), v.splat(0.0)), place)
    k.clear(into, k.rows(into))


_PLAIN: dict[str, Callable[..., None]] = {
    "ldtilecfg": _configure,
    "tilerelease": _release,
    "tilezero": _zero,
    "tileloadd64": _load,
    "tilestored64": _store,
    "tdpbf16ps": _dot,
}
SPELLINGS: dict[str, type[Amx]] = {"amx": Amx, "emulated": Emulated}
