"""The words in which kernels are written: integers, addresses, loops, threads that wait for each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from .layout import GRANULE
from .machine import Machine
from .vectors import F32, I32, I64, PTR, Vectors


class Builder:
    """One function of a module, `kernel(arguments)` if not another, and where in it the next instruction goes."""

    def __init__(
        self, machine: Machine, module: ir.Module | None = None, name: str = "kernel", kinds: Sequence[ir.Type] = (PTR,)
    ) -> None:
        self.machine, self.lanes = machine, machine.lanes
        self.module = module or ir.Module("cellwright")
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.v = Vectors(self.b, self.lanes)
        # Set by the kernel, from its arguments:
        self.units: dict[str, ir.Value] = {}  # by name of size
        self.number: ir.Value  # of this thread among those that share the units, and how many these are
        self.count: ir.Value
        self.buffer: ir.Value  # memory for the results of a tile

    def i(self, n: int) -> ir.Constant:
        """An integer."""
        return ir.Constant(I64, n)

    def at(self, pointer: ir.Value, index: ir.Value, kind: ir.Type = F32) -> ir.Value:
        """The address of an entry."""
        return self.b.gep(pointer, [index], source_etype=kind)

    def argument(self, k: int) -> ir.Value:
        """Entry k of the arguments."""
        return self.b.load(self.at(self.function.args[0], self.i(k), I64), typ=I64)

    def pointer(self, k: int) -> ir.Value:
        """Entry k of the arguments, an address."""
        return self.b.inttoptr(self.argument(k), PTR)

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The smaller of two integers."""
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def up(self, a: ir.Value, per: int) -> ir.Value:
        """How many groups of `per` hold `a` things."""
        return self.b.sdiv(self.b.add(a, self.i(per - 1)), self.i(per))

    @contextmanager
    def loop(self, start: ir.Value, end: ir.Value, name: str, by: int = 1) -> Iterator[ir.PhiInstr]:
        """A counted loop; the body is what is written inside the `with`."""
        with self.carrying([], start, end, name, by) as (k, _):
            yield k

    @contextmanager
    def carrying(
        self, values: list[ir.Value], start: ir.Value, end: ir.Value, name: str, by: int = 1
    ) -> Iterator[tuple[ir.PhiInstr, list[ir.Value]]]:
        """A counted loop that hands values on: the body replaces those of the list that it is given; after the loop,
        the list has the last ones."""
        b = self.b
        before = b.block
        head, body, after = (b.append_basic_block(f"{name}_{part}") for part in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64, name)
        k.add_incoming(start, before)
        handed = [b.phi(value.type) for value in values]
        for phi, value in zip(handed, values, strict=True):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", k, end), body, after)
        b.position_at_end(body)
        now: list[ir.Value] = list(handed)
        yield k, now
        k.add_incoming(b.add(k, self.i(by)), b.block)
        for phi, value in zip(handed, now, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        now[:] = handed

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c in a product. Where nothing fuses them, a fused operation would be a call per number."""
        return self.v.call("fma" if self.machine.fused else "fmuladd", a, b, c)

    def blocks(self, size: str) -> ir.Value:
        """Vector registers that the units of a size fill."""
        return self.up(self.units[size], self.lanes)

    def width(self, size: str) -> ir.Value:
        """Numbers of a row in memory: the units, filled up to whole blocks."""
        return self.b.mul(self.blocks(size), self.i(self.lanes))

    def inside(self, size: str, first: ir.Value) -> ir.Value:
        """For each lane of the block that begins at unit `first`, whether it is one of the units."""
        return self.below(self.b.sub(self.units[size], first))

    def below(self, count: ir.Value) -> ir.Value:
        """For each lane, whether it is one of the first `count`."""
        lane = ir.Constant(self.v.ints, list(range(self.lanes)))
        return self.b.icmp_signed("<", lane, self.v.broadcast(self.b.trunc(count, I32)))

    def memory(self, numbers: int) -> ir.Value:
        """Memory of the function itself for so many numbers of 4 bytes, at a line of the cache."""
        room = self.b.alloca(F32, self.i(numbers))
        room.align = 64
        return self.b.inttoptr(self.b.ptrtoint(room, I64), PTR)

    def share(self, size: str, per: int, number: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """A thread's tiles of `per` blocks: whole granules, so that a unit belongs to one thread in all passes."""
        b = self.b
        granules = self.up(self.blocks(size), GRANULE)
        first = b.sdiv(b.mul(granules, number), count)
        end = b.sdiv(b.mul(granules, b.add(number, self.i(1))), count)
        scale = self.i(GRANULE // per)
        return b.mul(first, scale), self.least(b.mul(end, scale), self.up(self.blocks(size), per))

    def ask(self, address: ir.Value, alone: int) -> ir.Value:
        """What a function without arguments answers; without a function (address 0), `alone`."""
        b = self.b
        before = b.block
        call, after = b.append_basic_block("ask"), b.append_basic_block("asked")
        b.cbranch(b.icmp_signed("==", address, self.i(0)), after, call)
        b.position_at_end(call)
        told = b.zext(self.indirect(address), I64)
        b.branch(after)
        b.position_at_end(after)
        answer = b.phi(I64)
        answer.add_incoming(self.i(alone), before)
        answer.add_incoming(told, call)
        return answer

    def indirect(self, address: ir.Value) -> ir.Value:
        """Call a function of C without arguments."""
        kind = ir.FunctionType(I32, [])
        return self.b.call(self.b.inttoptr(address, kind.as_pointer()), [])

    def meet(self, barrier: ir.Value, number: ir.Value, count: ir.Value, yield_now: ir.Value) -> None:
        """Wait until all threads have come here; after a while of spinning, leave the processor to others.

        `barrier`: how many arrivals there were, then, a cache line each, how many of them were each thread's.
        """
        b = self.b
        mine = self.at(barrier, b.mul(b.add(number, self.i(1)), self.i(8)), I64)
        met = b.add(b.load(mine, typ=I64), self.i(1))
        b.store(met, mine)
        b.atomic_rmw("add", barrier, self.i(1), "acq_rel")
        wanted = b.mul(met, count)
        before = b.block
        wait, spin, leave, done = (b.append_basic_block(f"meet_{n}") for n in ("wait", "spin", "leave", "done"))
        b.branch(wait)
        b.position_at_end(wait)
        spins = b.phi(I64)
        spins.add_incoming(self.i(0), before)
        seen = b.load_atomic(barrier, "acquire", 8, typ=I64)
        b.cbranch(b.icmp_signed("<", seen, wanted), spin, done)
        b.position_at_end(spin)
        more = b.add(spins, self.i(1))
        b.cbranch(b.icmp_signed(">", more, self.i(2000)), leave, wait)
        spins.add_incoming(more, spin)
        b.position_at_end(leave)
        self.indirect(yield_now)
        b.branch(wait)
        spins.add_incoming(self.i(0), leave)
        b.position_at_end(done)
