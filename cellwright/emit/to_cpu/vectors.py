"""Vectors of float32 in LLVM IR: memory, arithmetic, and the functions that the operations of the language need.

Functions are polynomial or rational approximations on the vector unit, a few units in the last place from the truth;
the loop calls no mathematics library. A NaN stays a NaN: comparisons are ordered and select the argument.
"""

import math
import struct
from collections.abc import Callable, Sequence

from llvmlite import ir


class _BFloat(ir.Type):  # type: ignore[misc]
    """A float32 without the lower half of its bits."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


F32, BF16 = ir.FloatType(), _BFloat()
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
PTR = ir.PointerType()

_LN2 = 0.693147182464599609375  # the float32 next to ln 2, and what it lacks
_LN2_LOW = math.log(2) - _LN2
# Our own minimax fits for |r| <= ln 2 / 2 by Remez exchange; the coefficients are rounded to float32 one by one, each
# time with the others fitted anew. e^r = 1 + r + r^2 (g0 + g1 r + ...), to 3.2e-9 of e^r; lowest power first.
_GROWTH = (0.49999994, 0.166665167, 0.0416681021, 0.00836919248, 0.00138389028)
# tanh(r / 2) = r (a + b r^2 + c r^4), to 9.0e-9 of e^r = (1 + tanh(r / 2)) / (1 - tanh(r / 2)); highest power first.
_HALF_TANH = (0.00407540845, -0.0416609608, 0.499999911)


def _bits(x: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", x))[0])


class Vectors:
    """Writes vector code of one width at the place where an IR builder stands."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.b, self.lanes = builder, lanes
        self.type, self.ints = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)

    # constants and memory

    def splat(self, x: float) -> ir.Constant:
        """The same number in all lanes."""
        return ir.Constant(self.type, [_rounded(x)] * self.lanes)

    def whole(self, x: int) -> ir.Constant:
        """The same integer in all lanes."""
        return ir.Constant(self.ints, [x] * self.lanes)

    def broadcast(self, scalar: ir.Value) -> ir.Value:
        """A scalar in all lanes."""
        kind = self.type if scalar.type == F32 else self.ints
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(first, undefined, ir.Constant(self.ints, [0] * self.lanes))

    def load(self, pointer: ir.Value, kind: ir.Type = F32) -> ir.Value:
        """A vector from memory of any alignment."""
        return self.b.load(pointer, typ=self.type if kind == F32 else self.ints, align=4)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """A vector to memory of any alignment."""
        self.b.store(value, pointer, align=4)

    def load_some(self, pointer: ir.Value, inside: ir.Value, align: int = 4) -> ir.Value:
        """The lanes that are inside, from memory that may end after them; zero in the others."""
        kind = ir.FunctionType(self.type, [PTR, I32, inside.type, self.type])
        name = f"llvm.masked.load.v{self.lanes}f32.p0"
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, [pointer, ir.Constant(I32, align), inside, self.splat(0.0)])

    def store_some(self, value: ir.Value, pointer: ir.Value, inside: ir.Value) -> None:
        """The lanes that are inside, to memory that may end after them."""
        kind = ir.FunctionType(ir.VoidType(), [self.type, PTR, I32, inside.type])
        name = f"llvm.masked.store.v{self.lanes}f32.p0"
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        self.b.call(function, [value, pointer, ir.Constant(I32, 4), inside])

    def transposed(self, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """The columns of a square: blocks beside the diagonal change places, then those within them."""
        lines, half = list(rows), 1
        while half < self.lanes:
            lanes = range(self.lanes)
            low = [lane if not lane & half else lane - half + self.lanes for lane in lanes]
            high = [lane + half if not lane & half else lane + self.lanes for lane in lanes]
            for r in (r for r in lanes if not r & half):
                pair = lines[r], lines[r + half]
                lines[r] = self.b.shuffle_vector(*pair, ir.Constant(self.ints, low))
                lines[r + half] = self.b.shuffle_vector(*pair, ir.Constant(self.ints, high))
            half *= 2
        return lines

    def call(self, name: str, *args: ir.Value) -> ir.Value:
        """An LLVM intrinsic on vectors, such as fma, floor or fabs."""
        full = f"llvm.{name}.v{self.lanes}f32"
        module = self.b.module
        kind = ir.FunctionType(args[0].type, [a.type for a in args])
        function = module.globals.get(full) or ir.Function(module, kind, full)
        return self.b.call(function, args)

    # pairs of bfloat16: the operands of products, where the processor has such

    def narrow(self, value: ir.Value) -> ir.Value:
        """Rounded to bfloat16, as many integers of 16 bits."""
        rounded = self.b.fptrunc(value, ir.VectorType(BF16, self.lanes))
        return self.b.bitcast(rounded, ir.VectorType(I16, self.lanes))

    def pairs(self, low: ir.Value, high: ir.Value) -> ir.Value:
        """Two vectors, rounded: in each lane the pair of their numbers."""
        kind = ir.VectorType(I16, 2 * self.lanes)
        order = [n for lane in range(self.lanes) for n in (lane, lane + self.lanes)]
        both = self.b.shuffle_vector(
            self.narrow(low), self.narrow(high), ir.Constant(ir.VectorType(I32, 2 * self.lanes), order)
        )
        return self.b.bitcast(self.b.bitcast(both, kind), self.ints)

    def dot(self, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """total + the product of the pairs in each lane, summed in float32."""
        kind = ir.VectorType(BF16, 2 * self.lanes)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        function = self.b.module.globals.get(name) or ir.Function(
            self.b.module, ir.FunctionType(self.type, [self.type, kind, kind]), name
        )
        return self.b.call(function, [total, self.b.bitcast(a, kind), self.b.bitcast(b, kind)])

    # arithmetic

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once."""
        return self.call("fma", a, b, c)

    def polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """Horner's scheme, highest power first."""
        result: ir.Value = self.splat(coefficients[0])
        for c in coefficients[1:]:
            result = self.fma(result, x, self.splat(c))
        return result

    def at_most(self, x: ir.Value, high: float) -> ir.Value:
        """min(x, high); NaN stays."""
        return self.b.select(self.b.fcmp_ordered(">", x, self.splat(high)), self.splat(high), x)

    def limit(self, x: ir.Value, low: float, high: float) -> ir.Value:
        """x within [low, high]; NaN stays."""
        x = self.b.select(self.b.fcmp_ordered("<", x, self.splat(low)), self.splat(low), x)
        return self.at_most(x, high)

    def select(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """a where the condition holds, else b."""
        return self.b.select(condition, a, b)

    # functions

    def reduce(self, x: ir.Value, c: int, bias: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """e^(c x) = 2^n e^(c r), |c r| <= ln 2 / 2: the bits that `power` makes 2^(n + bias - 127) of, n, and r.

        Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. r is rounded once, and
        too large by n * _LN2_LOW / c.
        """
        shift = self.splat(1.5 * 2**23 + bias)
        shifted = self.fma(x, self.splat(c / math.log(2)), shift)
        n = self.b.fsub(shifted, shift)
        return self.b.bitcast(shifted, self.ints), n, self.fma(n, self.splat(-_LN2 / c), x)

    def power(self, bits: ir.Value) -> ir.Value:
        """The number with these bits as its exponent; what stands above them falls off."""
        return self.b.bitcast(self.b.shl(bits, self.whole(23)), self.type)

    def growth(self, r: ir.Value, c: int) -> ir.Value:
        """(e^(c r) - 1) / c for |c r| <= ln 2 / 2."""
        g = [self.splat(a * c ** (k + 1)) for k, a in enumerate(_GROWTH)]
        r2 = self.b.fmul(r, r)
        high, low = self.fma(r, g[3], g[2]), self.fma(r, g[1], g[0])
        return self.fma(r2, self.fma(r2, self.fma(r2, g[4], high), low), r)

    def exp(self, x: ir.Value) -> ir.Value:
        """2^n (1 + growth), with 2^n as two factors: it may leave the range of exponents where the result does not."""
        bits, n, r = self.reduce(self.limit(x, -104.0, 89.0), 1, 2 * 127)
        g = self.growth(self.fma(n, self.splat(-_LN2_LOW), r), 1)
        half = self.b.lshr(bits, self.whole(1))
        first = self.power(half)
        return self.b.fmul(self.fma(first, g, first), self.power(self.b.sub(bits, half)))

    def sigmoid(self, x: ir.Value) -> ir.Value:
        """1 / (1 + e^-x) with one division: e^-x = 2^n (1 - t) / (1 + t), t = tanh(r / 2).

        All is scaled by 2^-24, so that 2^n stays in range down to where the result is 0.
        """
        bits, n, r = self.reduce(self.limit(x, -104.0, 18.0), -1, 127 - 24)
        exact = self.fma(n, self.splat(_LN2_LOW), r)  # r2 can do without, and does not wait for it
        r2 = self.b.fmul(r, r)
        two = self.power(bits)
        t = self.b.fmul(exact, self.polynomial(r2, _HALF_TANH))
        scale = self.splat(2.0**-24)
        above = self.fma(t, scale, scale)
        return self.b.fdiv(above, self.fma(two, self.b.fsub(self.splat(1.0), t), above))

    def tanh(self, x: ir.Value) -> ir.Value:
        """h / (1 + h) with h = (e^(2 |x|) - 1) / 2, and the sign of x.

        Written m - m * m / (1 + h) with m = min(h, 1): from 1/2 on this is 1 less something small, and rounds well.
        """
        b = self.b
        bits, _, r = self.reduce(self.at_most(self.call("fabs", x), 10.0), 2, 127)
        two = self.power(bits)
        base = self.fma(two, self.splat(0.5), self.splat(-0.5))
        h = self.fma(two, self.growth(r, 2), base)
        below = b.fadd(h, self.splat(1.0))
        m = self.at_most(h, 1.0)
        y = self.fma(b.fneg(m), b.fdiv(m, below), m)
        # Not copysign: y has no sign yet, and machines without an instruction for it are spared one operation.
        sign = b.and_(b.bitcast(x, self.ints), self.whole(-(2**31)))
        return b.bitcast(b.or_(b.bitcast(y, self.ints), sign), self.type)

    def log(self, x: ir.Value) -> ir.Value:
        """Natural logarithm (the coefficients of Cephes' logf); -inf at 0, NaN below."""
        b = self.b
        tiny = b.fcmp_ordered("<", x, self.splat(1.17549435e-38))
        scaled = b.select(tiny, b.fmul(x, self.splat(8388608.0)), x)
        bits = b.bitcast(scaled, self.ints)
        exponent = b.sub(b.ashr(bits, self.whole(23)), self.whole(126))
        e = b.sitofp(exponent, self.type)
        e = b.fsub(e, b.select(tiny, self.splat(23.0), self.splat(0.0)))
        m = b.bitcast(b.or_(b.and_(bits, self.whole(0x007FFFFF)), self.whole(0x3F000000)), self.type)
        low = b.fcmp_ordered("<", m, self.splat(math.sqrt(0.5)))
        e = b.fsub(e, b.select(low, self.splat(1.0), self.splat(0.0)))
        m = b.fsub(b.fadd(m, b.select(low, m, self.splat(0.0))), self.splat(1.0))
        z = b.fmul(m, m)
        p = self.polynomial(
            m,
            (
                7.0376836292e-2,
                -1.1514610310e-1,
                1.1676998740e-1,
                -1.2420140846e-1,
                1.4249322787e-1,
                -1.6668057665e-1,
                2.0000714765e-1,
                -2.4999993993e-1,
                3.3333331174e-1,
            ),
        )
        y = b.fmul(b.fmul(m, z), p)
        y = self.fma(e, self.splat(-2.12194440e-4), y)
        y = self.fma(z, self.splat(-0.5), y)
        y = self.fma(e, self.splat(0.693359375), b.fadd(m, y))
        infinite = b.fcmp_ordered("==", x, self.splat(math.inf))
        y = b.select(b.fcmp_ordered("==", x, self.splat(0.0)), self.splat(-math.inf), b.select(infinite, x, y))
        return b.select(b.fcmp_unordered("<", x, self.splat(0.0)), self.splat(math.nan), y)

    def softplus(self, x: ir.Value) -> ir.Value:
        """max(x, 0) + log(1 + exp(-|x|)), with the logarithm right for small arguments too."""
        b = self.b
        e = self.exp(b.fneg(self.call("fabs", x)))
        u = b.fadd(e, self.splat(1.0))
        d = b.fsub(u, self.splat(1.0))
        none = b.fcmp_ordered("==", d, self.splat(0.0))
        safe = b.select(none, self.splat(1.0), d)
        y = b.select(none, e, b.fmul(self.log(u), b.fdiv(e, safe)))
        return b.fadd(b.select(b.fcmp_ordered("<", x, self.splat(0.0)), self.splat(0.0), x), y)

    def sine(self, x: ir.Value, quarter: int) -> ir.Value:
        """sin(x + quarter * pi / 2) (the polynomials of Cephes' sinf and cosf); |x| beyond 1e4 loses digits."""
        b = self.b
        n = self.call("rint", b.fmul(x, self.splat(2 / math.pi)))
        r = x
        for part in (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8):
            r = self.fma(n, self.splat(-part), r)
        sane = b.fcmp_ordered("<", self.call("fabs", n), self.splat(1e9))
        whole = b.add(b.fptosi(b.select(sane, n, self.splat(0.0)), self.ints), self.whole(quarter))
        z = b.fmul(r, r)
        s = self.polynomial(z, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
        s = self.fma(b.fmul(s, z), r, r)
        c = self.polynomial(z, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2))
        c = self.fma(b.fmul(z, z), c, self.fma(z, self.splat(-0.5), self.splat(1.0)))
        odd = b.icmp_signed("!=", b.and_(whole, self.whole(1)), self.whole(0))
        y = b.select(odd, c, s)
        turned = b.icmp_signed("!=", b.and_(whole, self.whole(2)), self.whole(0))
        y = b.select(turned, b.fneg(y), y)
        return b.select(sane, y, self.splat(math.nan))

    def erf(self, x: ir.Value) -> ir.Value:
        """A Taylor series below 1; above, 1 - exp(-x^2) times a polynomial (Abramowitz & Stegun 7.1.26)."""
        b = self.b
        a = self.call("fabs", x)
        x2 = b.fmul(x, x)
        terms = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(12)]
        inner = b.fmul(x, self.polynomial(x2, terms[::-1]))
        t = b.fdiv(self.splat(1.0), self.fma(a, self.splat(0.3275911), self.splat(1.0)))
        q = self.polynomial(t, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0))
        outer = self.fma(b.fneg(q), self.exp(b.fneg(x2)), self.splat(1.0))
        outer = b.select(b.fcmp_ordered("<", x, self.splat(0.0)), b.fneg(outer), outer)
        return b.select(b.fcmp_ordered(">", a, self.splat(1.0)), outer, inner)

    def larger(self, a: ir.Value, b: ir.Value, sign: str) -> ir.Value:
        """maximum (">") or minimum ("<"); NaN if one of them is."""
        chosen = self.b.select(self.b.fcmp_ordered(sign, a, b), a, b)
        return self.b.select(self.b.fcmp_ordered("ord", a, a), chosen, a)

    def sign(self, x: ir.Value) -> ir.Value:
        """-1, 0, 1; NaN stays."""
        one = self.b.select(self.b.fcmp_ordered(">", x, self.splat(0.0)), self.splat(1.0), x)
        return self.b.select(self.b.fcmp_ordered("<", x, self.splat(0.0)), self.splat(-1.0), one)

    def relu(self, x: ir.Value) -> ir.Value:
        """max(x, 0); NaN stays."""
        return self.b.select(self.b.fcmp_unordered(">", x, self.splat(0.0)), x, self.splat(0.0))

    def total(self, value: ir.Value) -> ir.Value:
        """The sum of all lanes, in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        half = self.lanes // 2
        while half:
            turned = [(lane + half) % self.lanes for lane in range(self.lanes)]
            value = self.b.fadd(value, self.b.shuffle_vector(value, undefined, ir.Constant(self.ints, turned)))
            half //= 2
        return value

    def greatest(self, value: ir.Value) -> ir.Value:
        """The largest of all lanes, in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        half = self.lanes // 2
        while half:
            turned = ir.Constant(self.ints, [(lane + half) % self.lanes for lane in range(self.lanes)])
            value = self.larger(value, self.b.shuffle_vector(value, undefined, turned), ">")
            half //= 2
        return value

    def truth(self, condition: ir.Value) -> ir.Value:
        """1 where the condition holds, else 0."""
        return self.b.select(condition, self.splat(1.0), self.splat(0.0))


def _rounded(x: float) -> float:
    """The float32 next to x."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


# "sum" and "spread" cross the units of a row; the kernel writes them itself.
SPELLING: dict[str, Callable[..., ir.Value]] = {
    "add": lambda v, a, b: v.b.fadd(a, b),
    "sub": lambda v, a, b: v.b.fsub(a, b),
    "mul": lambda v, a, b: v.b.fmul(a, b),
    "div": lambda v, a, b: v.b.fdiv(a, b),
    "neg": lambda v, a: v.b.fneg(a),
    "maximum": lambda v, a, b: v.larger(a, b, ">"),
    "minimum": lambda v, a, b: v.larger(a, b, "<"),
    "less": lambda v, a, b: v.truth(v.b.fcmp_ordered("<", a, b)),
    "where": lambda v, c, a, b: v.select(v.b.fcmp_unordered("!=", c, v.splat(0.0)), a, b),
    "tanh": lambda v, a: v.tanh(a),
    "sigmoid": lambda v, a: v.sigmoid(a),
    "relu": lambda v, a: v.relu(a),
    "softplus": lambda v, a: v.softplus(a),
    "exp": lambda v, a: v.exp(a),
    "log": lambda v, a: v.log(a),
    "sqrt": lambda v, a: v.call("sqrt", a),
    "abs": lambda v, a: v.call("fabs", a),
    "sign": lambda v, a: v.sign(a),
    "sin": lambda v, a: v.sine(a, 0),
    "cos": lambda v, a: v.sine(a, 1),
    "erf": lambda v, a: v.erf(a),
    "sum": lambda v, a: a,
    "spread": lambda v, a: a,
}
