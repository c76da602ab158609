"""Cells that nobody would write: random equations over every operation, several matrices, sizes and states."""

import random
from collections.abc import Callable
from typing import Any

from cellwright import (
    Equations,
    clamp,
    cos,
    erf,
    exp,
    gelu,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    sum_units,
    tanh,
    where,
)

UNARY: tuple[Callable[[Any], Any], ...] = (
    tanh,
    sigmoid,
    relu,
    softplus,
    abs,
    sign,
    sin,
    cos,
    erf,
    gelu,
    lambda a: -a,
    lambda a: exp(-(a * a)),
    lambda a: log(1 + a * a),
    lambda a: sqrt(1 + a * a),
    lambda a: 1 / (1.5 + a * a),
    lambda a: 0.1 * a**3,
    lambda a: clamp(a, -0.7, 0.6),
    lambda a: 1 - a / 3,
    lambda a: a,
)
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (1 + b * b),
    maximum,
    minimum,
    lambda a, b: (a < b) * b,
    lambda a, b: where(a < b, a, b * b),
    lambda a, b: where(a < 0.1, 0.2, b),
)
SIZES = ("input_size", "hidden_size", "third_size")


def random_cell(seed: int) -> Equations:
    """A cell with up to three states of different sizes and up to 25 random values."""
    choice = random.Random(seed)
    states = {f"s{k}": choice.choice(SIZES) for k in range(choice.randint(1, 3))}

    class Random(Equations):
        third_size = choice.choice([1, 2, 5, 17])

        def step(self, x: Any, *before: Any) -> Any:
            r = random.Random(seed)
            pool = [x, *before]

            def pick(size: str | None = None) -> Any:
                fitting = [v for v in pool if size is None or v.size == size]
                return r.choice(fitting[-6:] + fitting) if fitting else None

            def linear(names: str, v: Any, size: str) -> Any:
                matrix = f"{r.choice('ab')}_{v.size}_{size}"
                return self.linear(names, v, matrix=matrix, size=size, bias=r.random() < 0.6)

            for _ in range(r.randint(3, 25)):
                a, kind = pick(), r.random()
                if kind < 0.3:
                    pool.append(r.choice(UNARY)(a))
                elif kind < 0.6:
                    pool.append(r.choice(BINARY)(a, pick(a.size)))
                elif kind < 0.8:
                    parts = r.sample("abcd", r.randint(1, 3))
                    made = linear(" ".join(parts), a, r.choice(SIZES))
                    pool.extend(made if isinstance(made, tuple) else [made])
                elif kind < 0.86:
                    pool.append(0.3 * sum_units(a))
                elif kind < 0.92:
                    pool.append(self.scale(f"p_{a.size}", a))
                elif kind < 0.96:
                    size = r.choice(SIZES)
                    pool.append(self.bias(f"b_{size}", size=size, start=0.5) if self.with_bias else a)
                else:
                    pool.append(self.norm(f"n_{a.size}", a, eps=0.1))
            results = []
            for (name, size), old in zip(self.states.items(), before, strict=True):
                v = pick(size)
                v = linear("z", pick(), size) if v is None else v
                # Most states keep a part of themselves, as cells do; the others try what is unusual.
                results.append(tanh(v) + 0.5 * old if r.random() < 0.7 or name == "s0" else v)
            return results

    Random.states = states
    return Random(choice.choice([1, 3, 16]), choice.choice([1, 4, 20]), bias=choice.choice([True, False, "input"]))
