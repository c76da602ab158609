"""The package `onnx`, which only the ONNX format needs."""

from typing import Any

from .limits import framework


def package() -> Any:
    """The module. TargetError when it is not installed."""
    return framework("onnx", "reading and writing ONNX files", "'cellwright[onnx]'")
