"""docs/conventions.md: its tables are those of the code, its blocks that need a framework run where there is one."""

import re
from pathlib import Path

import pytest

from cellwright.convert.weights.blocks import Convention
from cellwright.convert.weights.flax import NNX
from cellwright.convert.weights.keras import KERAS
from cellwright.convert.weights.tf1 import TF1
from cellwright.convert.weights.torch_nn import TORCH

from .test_frameworks import load

PAGE = (Path(__file__).parents[3] / "docs" / "conventions.md").read_text(encoding="utf-8")
TABLES: dict[str, tuple[Convention, ...]] = {
    "torch.nn": TORCH,
    "Keras": KERAS,
    "TF1": TF1,
    "Flax nnx": tuple(c for c in NNX if "LSTMCell" not in c.cells),
}


@pytest.mark.parametrize("framework", TABLES)
def test_the_tables_are_those_of_the_code(framework: str) -> None:
    found = re.search(rf"^\| {re.escape(framework)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    assert found
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]
    conventions = TABLES[framework]
    for column, convention in enumerate(conventions, 1):
        assert {row[0]: row[column] for row in rows if row[column]} == convention.arrays
    head = found[0].splitlines()[0].strip("|").split("|")[1:]
    assert [name.split(",")[0].strip() for name in head] == [c.cells[0] for c in conventions]


@pytest.mark.parametrize("framework", ["keras", "flax.linen"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_that_need_a_framework(framework: str) -> None:
    load(framework)
    (block,) = [
        b for b in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S) if b.startswith(f"import {framework}\n")
    ]
    exec(block, {})
