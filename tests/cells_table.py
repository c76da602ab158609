"""The table of cells in docs/cells.md, made of their definitions: `python -m tests.cells_table` prints it."""

import inspect
import re
from collections import Counter
from typing import Any

from cellwright.cells import BY_NAME
from cellwright.lang import Definition, Equations, Plan
from cellwright.lang.plan import Product
from cellwright.lang.show import Writer
from cellwright.lang.trace import letter

# Shorter than by default, so that the equations of a round or layer stand there once or twice.
OPTIONS: dict[str, dict[str, Any]] = {"rhn": {"depth": 2}, "mogrifierlstm": {"rounds": 2}}
I, H = 6, 4


def term(count: int, *sizes: str) -> str:
    letters = "".join(sorted(map(letter, sizes))).replace("HH", "H²")
    return f"{count if count > 1 else ''}{letters}"


def rows(sizes: list[str], source: str | None) -> str:
    """The numbers of a matrix with slices of these sizes, or of a vector."""
    return " + ".join(term(n, size, *([source] if source else [])) for size, n in Counter(sizes).items())


def parameters(definition: Definition) -> str:
    counts: Counter[tuple[str, ...]] = Counter()
    for param in definition.params.values():
        for size in param.slices.values():
            counts[tuple(sorted((size, *([param.source] if param.source else []))))] += 1
    order = sorted(counts, key=lambda sizes: (-len(sizes), sizes != ("hidden_size", "input_size"), sizes))
    return " + ".join(term(counts[sizes], *sizes) for sizes in order)


def products(definition: Definition) -> str:
    def size(product: Product) -> str:
        param = definition.params[product.matrix]
        return rows([param.slices[part] for part in product.parts], param.source)

    found = [size(stage.product) for stage in Plan(definition).forward.loop if stage.product]
    return f"{len(found)}: {', '.join(found)}" if found else "none"


def purpose(kind: type[Equations]) -> str:
    found = re.search(r"^For: (.*?)\n\n", inspect.cleandoc(kind.__doc__ or "") + "\n\n", re.M | re.S)
    assert found, f"the docstring of {kind.__name__} does not say what the cell is for"
    return " ".join(found[1].split())


def table() -> str:
    lines = ["| cell | equations, without biases | parameters | products per step | for |", "|---|---|---|---|---|"]
    for name, kind in BY_NAME.items():
        options = OPTIONS.get(name, {})
        definition = kind(I, H, **options).definition()
        bare = Writer(kind(I, H, bias=False, **options).definition())
        equations = "<br>".join(f"`{left} = {right}`" for _, left, right in bare.lines())
        shown = "".join(f", {k}={v}" for k, v in options.items())
        numbers = f"{parameters(definition)} | {products(definition)}"
        lines.append(f"| `{name}`{shown} | {equations} | {numbers} | {purpose(kind)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201
