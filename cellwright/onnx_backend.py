"""This package as a backend of ONNX: what `onnx.backend.test.BackendTest` and other drivers of backends call.

    test = onnx.backend.test.BackendTest(cellwright.onnx_backend, __name__)

Values are numpy arrays. Models run on the CPU; DataError says which node of a model is not supported.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .convert import from_onnx
from .convert.onnx.file import package
from .convert.onnx.model import OnnxModel
from .errors import DataError, TargetError


class Prepared:
    """A model that is ready to run."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model

    def run(self, inputs: Any, **options: Any) -> tuple[NDArray[Any], ...]:
        """The outputs, from a list of inputs in their order, or a dict of them by name."""
        values = {k: _tensor(v) for k, v in inputs.items()} if isinstance(inputs, dict) else {}
        rows = [] if isinstance(inputs, dict) else [_tensor(v) for v in inputs]
        with torch.no_grad():
            found = self.model(*rows, **values)
        return tuple(_array(v.detach()) for v in (found if isinstance(found, tuple) else (found,)))


def _tensor(value: Any) -> torch.Tensor:
    array = np.array(value)
    if array.dtype.name == "bfloat16":  # of another package than numpy
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(value: torch.Tensor) -> NDArray[Any]:
    if value.dtype == torch.bfloat16:
        bfloat16 = package().helper.tensor_dtype_to_np_dtype(package().TensorProto.BFLOAT16)
        return value.view(torch.int16).numpy().view(bfloat16)
    return value.numpy()


def supports_device(device: str) -> bool:
    """Whether models run there."""
    return device.split(":")[0] == "CPU"


def is_compatible(model: Any, device: str = "CPU", **options: Any) -> bool:
    """Whether the model is made of what is supported."""
    try:
        from_onnx(model)
    except DataError:
        return False
    return supports_device(device)


def prepare(model: Any, device: str = "CPU", **options: Any) -> Prepared:
    """A model, ready to run. DataError: it holds what is not supported."""
    if not supports_device(device):
        raise TargetError(f"got the device {device!r}, expected 'CPU'")
    return Prepared(from_onnx(model))


def run_model(model: Any, inputs: Any, device: str = "CPU", **options: Any) -> tuple[NDArray[Any], ...]:
    """The outputs of a model."""
    return prepare(model, device).run(inputs)


def run_node(
    node: Any, inputs: Sequence[Any], device: str = "CPU", outputs_info: Any = None, **options: Any
) -> tuple[NDArray[Any], ...]:
    """The outputs of one node. `opset_version`: of its operator; else the newest of the installed onnx."""
    onnx = package()
    arrays = [np.asarray(v) for v in inputs]
    info, of = onnx.helper.make_tensor_value_info, onnx.helper.np_dtype_to_tensor_dtype
    names = [name for name in node.input if name]
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [info(name, of(a.dtype), a.shape) for name, a in zip(names, arrays, strict=True)],
        # Every output must have some type and shape, which nothing reads.
        [info(name, onnx.TensorProto.FLOAT, []) for name in node.output if name],
    )
    version = options.get("opset_version", onnx.defs.onnx_opset_version())
    return run_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)]), arrays)
