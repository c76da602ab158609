"""ONNX models of layers, and modules and layers of ONNX models.

operators, equations    ONNX's recurrent operators, and what they compute, as cells
export, attentive       a layer as a model, on what `assembly` has for both
file                    a model of a stranger, looked at before it is believed
model, functions        its graph as a module, and what stands around the recurrent nodes
recurrent, scan/        those nodes as layers
stack                   or all of them as one layer, with its weights
"""

from .export import to_onnx
from .model import from_onnx
from .stack import layer_from_onnx

__all__ = ["from_onnx", "layer_from_onnx", "to_onnx"]
