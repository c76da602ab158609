"""The package `onnx`, which only the ONNX format needs."""

import importlib
from typing import Any

from ..errors import TargetError


def package() -> Any:
    """The module. TargetError when it is not installed."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise TargetError(f"ONNX files need the package onnx ({error}); pip install 'cellwright[onnx]'") from None
