"""`layer.source(target)`: what runs."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch

import cellwright
from cellwright import GRU, LSTM, Cell, GRUCell, LSTMCell, Recurrent, RNNCell, TargetError, sum_units, tanh
from cellwright.emit.to_cpu import build, outer, program

PARTS = ("before the loop", "forward", "back", "after the loop", "gradients of the weights")


def headings(text: str, mark: str) -> list[str]:
    lines = text.splitlines()
    return [line for line, after in pairwise(lines) if line.startswith(mark) and "ModuleID" in after]


def test_the_modules_of_a_layer() -> None:
    """Whole modules, one form of cell once however many layers have it."""
    text = LSTM(3, 4, 2, bidirectional=True).source("cpu")
    who = "; LSTM (layer 0) and LSTM (layer 1)"
    assert headings(text, ";") == [f"{who}, {part}" for part in PARTS]
    llvm.initialize_native_target()
    for module in text.split(who)[1:]:
        llvm.parse_assembly(";" + module).verify()
    mixed = Recurrent([LSTMCell(3, 4), GRUCell(4, 5)]).source("cpu")
    assert [h.split(",")[0] for h in headings(mixed, ";")] == 5 * ["; LSTMCell (layer 0)"] + 5 * ["; GRUCell (layer 1)"]


def test_it_is_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def load(recipe: str, text: Callable[[], str], machine: Any) -> int:
        if recipe != "trial":  # of tiles, where there are such
            compiled.append(text())
        return real(recipe, text, machine)

    real = build.load
    monkeypatch.setattr(build, "load", load)
    monkeypatch.setattr(program, "_kernels", {})
    outer.kernel.cache_clear()
    layer = Recurrent(RNNCell(3, 4))
    shown = layer.source("cpu")
    assert not compiled
    layer(torch.randn(5, 2, 3, requires_grad=True))[0].sum().backward()
    assert len(compiled) == len(PARTS)
    for text in compiled:
        assert text.strip() in shown


def test_the_reference_shows_the_equations() -> None:
    text = GRU(3, 4).source("torch")
    assert text.startswith("# GRU (layer 0)\n")
    assert "h[t]  = (1 - z) * n + z * h[t-1]" in text
    with cellwright.use_target("torch"):
        assert GRU(3, 4).source() == text


def test_a_cell() -> None:
    cell = GRUCell(3, 4)
    assert headings(cell.source(), ";") == [f"; GRUCell, {part}" for part in PARTS]


def test_what_has_no_source() -> None:
    class Share(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return tanh(self.linear("a", x) + h * sum_units(self.linear("b", h)))

    with pytest.raises(TargetError, match=r"cannot run Share: single numbers per row .*; use the target 'torch'"):
        Share(3, 4).source("cpu")
    with pytest.raises(TargetError, match="got the target 'gpu', expected one of torch, cpu"):
        GRU(3, 4).source("gpu")
