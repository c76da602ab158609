"""Weights and models from other frameworks and for them: Keras 3, TensorFlow 1, Flax, torch.nn, ONNX.

    layer = convert.from_keras(keras_layer)      arrays = convert.to_keras(layer)
    layer = convert.from_tf1(arrays, "lstm")     arrays = convert.to_tf1(layer)
    layer = convert.from_flax(params, "gru")     params = convert.to_flax(layer)
    module = convert.from_onnx("model.onnx")     convert.to_onnx(layer, "model.onnx")

No framework is imported here; their objects bring their own, and files ask for it. A layer of weights is called as it
was there: [B, T, I], unless `batch_first=False`.
"""

from .onnx import from_onnx, layer_from_onnx, to_onnx
from .weights import (
    from_flax,
    from_keras,
    from_tf1,
    from_torch,
    npz,
    read_npz,
    to_flax,
    to_keras,
    to_tf1,
    to_torch,
)

__all__ = [
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_tf1",
    "from_torch",
    "layer_from_onnx",
    "npz",
    "read_npz",
    "to_flax",
    "to_keras",
    "to_onnx",
    "to_tf1",
    "to_torch",
]
