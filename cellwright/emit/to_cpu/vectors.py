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


F32, I16, I32, I64, BF16 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64), _BFloat()
PTR = ir.PointerType()


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

    def load_some(self, pointer: ir.Value, inside: ir.Value) -> ir.Value:
        """The lanes that are inside, from memory that may end after them; zero in the others."""
        kind = ir.FunctionType(self.type, [PTR, I32, inside.type, self.type])
        name = f"llvm.masked.load.v{self.lanes}f32.p0"
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, [pointer, ir.Constant(I32, 4), inside, self.splat(0.0)])

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

    def limit(self, x: ir.Value, low: float, high: float) -> ir.Value:
        """x within [low, high]; NaN stays."""
        x = self.b.select(self.b.fcmp_ordered("<", x, self.splat(low)), self.splat(low), x)
        return self.b.select(self.b.fcmp_ordered(">", x, self.splat(high)), self.splat(high), x)

    def select(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """a where the condition holds, else b."""
        return self.b.select(condition, a, b)

    # functions

    def exp(self, x: ir.Value) -> ir.Value:
        """exp: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (the coefficients of Cephes' expf)."""
        b = self.b
        inside = self.limit(x, -104.0, 89.0)
        n = self.call("rint", b.fmul(inside, self.splat(1.44269504088896341)))
        r = self.fma(n, self.splat(-0.693359375), inside)
        r = self.fma(n, self.splat(2.12194440e-4), r)
        p = self.polynomial(
            r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
        )
        p = b.fadd(self.fma(b.fmul(r, r), p, r), self.splat(1.0))
        # Two factors of half the power: the whole one may leave the range of exponents where the result does not.
        power = b.fptosi(self.b.select(b.fcmp_ordered("ord", n, n), n, self.splat(0.0)), self.ints)
        half = b.ashr(power, self.whole(1))
        for part in (half, b.sub(power, half)):
            p = b.fmul(p, b.bitcast(b.shl(b.add(part, self.whole(127)), self.whole(23)), self.type))
        return p

    def sigmoid(self, x: ir.Value) -> ir.Value:
        """1 / (1 + exp(-x))."""
        return self.b.fdiv(self.splat(1.0), self.b.fadd(self.splat(1.0), self.exp(self.b.fneg(x))))

    def tanh(self, x: ir.Value) -> ir.Value:
        """Rational approximation of degree 13 / 6, as Eigen and XLA have it; x itself where that is exact."""
        b = self.b
        inside = self.limit(x, -7.90531110763549805, 7.90531110763549805)
        x2 = b.fmul(inside, inside)
        p = self.polynomial(
            x2,
            (
                -2.76076847742355e-16,
                2.00018790482477e-13,
                -8.60467152213735e-11,
                5.12229709037114e-08,
                1.48572235717979e-05,
                6.37261928875436e-04,
                4.89352455891786e-03,
            ),
        )
        q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
        small = b.fcmp_ordered("<", self.call("fabs", x), self.splat(0.0004))
        return b.select(small, x, b.fdiv(b.fmul(inside, p), self.polynomial(x2, q)))

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
