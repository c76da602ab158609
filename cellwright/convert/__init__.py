"""Models of other libraries, in and out: ONNX."""

from .onnx_export import to_onnx
from .onnx_import import from_onnx

__all__ = ["from_onnx", "to_onnx"]
