"""Without the package onnx, the functions are there and say what is missing."""

import sys

import pytest

from cellwright import LSTM, TargetError
from cellwright.convert import from_onnx, to_onnx


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: to_onnx(LSTM(3, 4)), lambda: from_onnx(b"")):
        with pytest.raises(TargetError, match=r"ONNX files needs onnx, .*pip install 'cellwright\[onnx\]'"):
            call()
