"""Two small kernels for generation: draw symbols from logits, and call several kernels one after the other."""

from functools import cache

from llvmlite import ir

from . import build
from .builder import Builder
from .machine import Machine
from .vectors import F32, I64, PTR

SAMPLE = (
    "rows",
    "symbols",
    "logits",
    "row",  # numbers from one row of logits to the next
    "scale",  # address of 1 / temperature
    "chance",  # a number in [0, 1) per row
    "ids",  # the result
    "barrier",
    "thread_number",
    "thread_count",
    "yield_now",
)


@cache
def chain(machine: Machine) -> int:
    """The address of a kernel that calls others; each of them waits for what it needs of the one before.

    Its arguments: the number of calls, then function and arguments of each.
    """
    return build.load("chain", lambda: _chain(Builder(machine)), machine)


@cache
def sample(machine: Machine) -> int:
    """The address of the kernel that draws one symbol per row: where the sum of exp(scale * logit) passes its chance.

    The first of equals for a chance of 0. Logits are replaced by their exponentials, memory beyond the last symbol by
    zero. The symbol is -1 where the sum is not a positive number.
    """
    return build.load("sample", lambda: _sample(Builder(machine)), machine)


def _chain(k: Builder) -> str:
    with k.loop(k.i(0), k.argument(0), "call") as n:
        place = k.b.add(k.b.mul(n, k.i(2)), k.i(1))
        function, arguments = (
            k.b.load(k.at(k.function.args[0], k.b.add(place, k.i(j)), I64), typ=I64) for j in range(2)
        )
        kind = ir.FunctionType(ir.VoidType(), [PTR]).as_pointer()
        k.b.call(k.b.inttoptr(function, kind), [k.b.inttoptr(arguments, PTR)])
    k.b.ret_void()
    return str(k.module)


def _sample(k: Builder) -> str:
    b, v = k.b, k.v
    head = {name: k.argument(n) for n, name in enumerate(SAMPLE)}
    number, count = k.ask(head["thread_number"], 0), k.ask(head["thread_count"], 1)
    with b.if_then(b.icmp_signed(">", count, k.i(1))):
        k.meet(b.inttoptr(head["barrier"], PTR), number, count, head["yield_now"])
    k.units["symbols"] = head["symbols"]
    total_at, least = b.alloca(v.type), v.splat(float("-inf"))
    total_at.align = 64
    scale = v.broadcast(b.load(b.inttoptr(head["scale"], PTR), typ=F32))
    first = b.sdiv(b.mul(head["rows"], number), count)
    end = b.sdiv(b.mul(head["rows"], b.add(number, k.i(1))), count)
    with k.loop(first, end, "row") as m:
        row = k.at(b.inttoptr(head["logits"], PTR), b.mul(m, head["row"]))
        v.store(least, total_at)
        with k.loop(k.i(0), k.blocks("symbols"), "largest") as n:
            at = b.mul(n, k.i(k.lanes))
            logit = b.select(k.inside("symbols", at), v.load(k.at(row, at)), least)
            v.store(v.larger(logit, v.load(total_at), ">"), total_at)
        largest = v.greatest(v.load(total_at))
        v.store(v.splat(0.0), total_at)
        with k.loop(k.i(0), k.blocks("symbols"), "weigh") as n:
            at = b.mul(n, k.i(k.lanes))
            weight = v.exp(b.fmul(b.fsub(v.load(k.at(row, at)), largest), scale))
            weight = b.select(k.inside("symbols", at), weight, v.splat(0.0))
            v.store(weight, k.at(row, at))
            v.store(b.fadd(v.load(total_at), weight), total_at)
        total = b.extract_element(v.total(v.load(total_at)), k.i(0))
        chance = b.load(k.at(b.inttoptr(head["chance"], PTR), m), typ=F32)
        _draw(k, row, total, b.fmul(chance, total), head["symbols"], k.at(b.inttoptr(head["ids"], PTR), m, I64))
    b.ret_void()
    return str(k.module)


def _draw(k: Builder, row: ir.Value, total: ir.Value, target: ir.Value, symbols: ir.Value, to: ir.Value) -> None:
    """The first symbol with which the sum of the weights is above the target; the last with a weight, if rounding
    keeps the sum below it."""
    b = k.b
    zero = ir.Constant(F32, 0.0)
    b.store(k.i(-1), to)
    before = b.block
    head, body, after = (b.append_basic_block(f"draw_{n}") for n in ("head", "body", "after"))
    right = b.fcmp_ordered(">", total, zero)
    b.cbranch(right, head, after)
    b.position_at_end(head)
    n, passed = b.phi(I64), b.phi(F32)
    n.add_incoming(k.i(0), before)
    passed.add_incoming(zero, before)
    b.cbranch(b.icmp_signed("<", n, symbols), body, after)
    b.position_at_end(body)
    weight = b.load(k.at(row, n), typ=F32)
    now = b.fadd(passed, weight)
    with b.if_then(b.fcmp_ordered(">", weight, zero)):
        b.store(n, to)
    n.add_incoming(b.add(n, k.i(1)), b.block)
    passed.add_incoming(now, b.block)
    b.cbranch(b.fcmp_ordered(">", now, target), after, head)
    b.position_at_end(after)
