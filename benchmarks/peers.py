"""The optional peers: ONNX Runtime, Flax on JAX, Keras. Each turns a case into runs at its documented settings.

`pip install 'cellwright[bench]'` brings them all; whatever is missing is said and left out. Each is imported when it is
first asked for a case, after `use_threads` has set the environment that it reads.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from .cases import Case, Run, Values
from .report import version_of

GATES = {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}  # in torch's order


@dataclass(frozen=True)
class Peer:
    """A library: the packages it needs, and its runs of a case in float32 (inference or training; none: it has none).

    Modules are the packages' names for import, and the first package gives the version that is shown.
    """

    name: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    runs: Callable[[Case, bool], list[Run]]

    def absence(self) -> str | None:
        """None when it can be used, else why not."""
        try:
            for module in self.modules:
                importlib.import_module(module)
        except ImportError as error:
            return f"{self.name} is absent: {error}; pip install {' '.join(self.packages)}"
        return None

    def __str__(self) -> str:
        return f"{self.name} {version_of(self.packages[0])}"


def _regrouped(matrix: np.ndarray[Any, Any], kind: str, order: str) -> np.ndarray[Any, Any]:
    """The gates of a matrix [G*H, ...] or bias [G*H] of torch in another order: "iofg" for ONNX's LSTM."""
    parts = dict(zip(GATES[kind], np.split(matrix, len(GATES[kind])), strict=True))
    return np.concatenate([parts[gate] for gate in order])


def _back(matrix: np.ndarray[Any, Any], kind: str, order: str) -> np.ndarray[Any, Any]:
    """The inverse: from the other order to torch's."""
    parts = dict(zip(order, np.split(matrix, len(order)), strict=True))
    return np.concatenate([parts[gate] for gate in GATES[kind]])


# ONNX Runtime: one operator per layer, inference only.

ONNX_ORDER = {"RNN": "h", "LSTM": "iofg", "GRU": "zrn"}


def onnx_model(case: Case) -> bytes:
    """A model of one RNN, LSTM or GRU operator, with its weights as constants, x [T, B, I] to y [T, 1, B, H]."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, *parts: str) -> Any:
        values = [_regrouped(case.numpy(part), case.kind, ONNX_ORDER[case.kind]) for part in parts]
        return numpy_helper.from_array(np.concatenate(values)[None], name)  # one direction

    weights = [constant("W", "weight_ih"), constant("R", "weight_hh"), constant("B", "bias_ih", "bias_hh")]
    options = {"linear_before_reset": 1} if case.kind == "GRU" else {}
    node = helper.make_node(case.kind, ["x", "W", "R", "B"], ["y"], hidden_size=case.H, **options)
    shapes = {"x": [case.T, case.B, case.H], "y": [case.T, 1, case.B, case.H]}
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n])] for n in ("x", "y")]
    graph = helper.make_graph([node], case.kind, *ends, initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def onnx_runs(case: Case, training: bool) -> list[Run]:
    """A session with all optimizations, and its input bound once."""
    if training:
        return []
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its threads spin within a run, as they do by default, but not on into the time of the next library.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(onnx_model(case), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", case.numpy("x"))
    binding.bind_output("y")

    def read(_: object) -> Values:
        return {"output": binding.copy_outputs_to_cpu()[0][:, 0]}

    return [Run("all optimizations", partial(session.run_with_iobinding, binding), read)]


# Flax: a jitted scan, time first, the cells that its documentation calls efficient.

FLAX_CELLS = {"RNN": "SimpleCell", "LSTM": "OptimizedLSTMCell", "GRU": "GRUCell"}
FLAX_UNROLL = (1, 4)  # steps per turn of the compiled loop: the option of flax.linen.RNN


def _flax_name(kind: str, side: str, gate: str) -> str:
    """The name of a gate's dense layer: "ii" for the input gate's product with the input, "hi" with the state."""
    return side if kind == "RNN" else f"{side}{gate}"


def flax_weights(case: Case) -> dict[str, Any]:
    """The parameters of a Flax cell. It has one bias per gate; only the GRU's candidate has two."""
    cell: dict[str, Any] = {}
    split = {
        name: dict(zip(GATES[case.kind], np.split(case.numpy(name), len(GATES[case.kind])), strict=True))
        for name in case.weights
    }
    for gate in GATES[case.kind]:
        of_input, of_state = (_flax_name(case.kind, side, gate) for side in "ih")
        cell[of_input] = {"kernel": split["weight_ih"][gate].T}
        cell[of_state] = {"kernel": split["weight_hh"][gate].T}
        if case.kind == "GRU" and gate == "n":
            cell[of_input]["bias"], cell[of_state]["bias"] = split["bias_ih"][gate], split["bias_hh"][gate]
        else:
            with_bias = of_state if case.kind == "LSTM" else of_input
            cell[with_bias]["bias"] = split["bias_ih"][gate] + split["bias_hh"][gate]
    return {"params": {"cell": cell}}


def flax_runs(case: Case, training: bool) -> list[Run]:
    """flax.linen.RNN under jax.jit, the loop unrolled or not; in training, jax.value_and_grad."""
    import jax
    from flax import linen

    weights = jax.device_put(jax.tree.map(np.ascontiguousarray, flax_weights(case)))
    x, seed = jax.device_put(case.numpy("x")), jax.device_put(case.numpy("seed"))

    def run(unroll: int) -> Run:
        model = linen.RNN(getattr(linen, FLAX_CELLS[case.kind])(case.H), time_major=True, unroll=unroll)
        infer = jax.jit(model.apply)
        if not training:
            return Run(
                f"unroll={unroll}",
                lambda: jax.block_until_ready(infer(weights, x)),
                lambda output: {"output": np.asarray(output)},
            )
        step = jax.jit(jax.value_and_grad(lambda w, x, seed: (model.apply(w, x) * seed).sum(), argnums=(0, 1)))
        return Run(f"unroll={unroll}", lambda: jax.block_until_ready(step(weights, x, seed)), read)

    def read(result: Any) -> Values:
        _, (of_weights, of_x) = result
        cell = of_weights["params"]["cell"]

        def joined(side: str, name: str) -> np.ndarray[Any, Any]:
            layers = [cell[_flax_name(case.kind, side, gate)] for gate in GATES[case.kind]]
            return np.concatenate([np.asarray(layer[name]).T for layer in layers])

        return {
            "x": np.asarray(of_x),
            "weight_ih": joined("i", "kernel"),
            "weight_hh": joined("h", "kernel"),
            "bias_ih": joined("h" if case.kind == "LSTM" else "i", "bias"),
        }

    return [run(unroll) for unroll in FLAX_UNROLL]


# Keras 3 on TensorFlow: a layer in a compiled function.

KERAS_ORDER = {"RNN": "h", "LSTM": "ifgo", "GRU": "zrn"}
KERAS_NAMES = {"RNN": "SimpleRNN", "LSTM": "LSTM", "GRU": "GRU"}
# (unroll, jit_compile): the loop as TensorFlow runs it, compiled by XLA, or written out as a graph of all steps.
KERAS_SETTINGS = ((False, False), (False, True), (True, False))


def keras_runs(case: Case, training: bool) -> list[Run]:
    """A Keras layer in a tf.function; in training, a GradientTape within it."""
    import keras
    import tensorflow as tf

    x = tf.constant(case.numpy("x").swapaxes(0, 1))  # [B, T, I], the only layout that Keras 3 has
    seed = tf.constant(case.numpy("seed").swapaxes(0, 1))

    def run(unroll: bool, compiled: bool) -> Run:
        layer = getattr(keras.layers, KERAS_NAMES[case.kind])(case.H, return_sequences=True, unroll=unroll)
        layer.build((case.B, case.T, case.H))
        layer.set_weights(keras_weights(case))
        setting = f"unroll={unroll}, jit_compile={compiled}"
        if not training:
            infer = tf.function(layer, jit_compile=compiled)
            return Run(setting, lambda: infer(x), lambda output: {"output": output.numpy().swapaxes(0, 1)})

        @tf.function(jit_compile=compiled)
        def step(x: Any, seed: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = layer(x, training=True)
            return tape.gradient(output, [x, *layer.trainable_variables], output_gradients=seed)

        return Run(setting, lambda: step(x, seed), read)

    def read(gradients: Any) -> Values:
        of_x, kernel, recurrent, bias = (tf.convert_to_tensor(g).numpy() for g in gradients)
        order = KERAS_ORDER[case.kind]
        return {
            "x": of_x.swapaxes(0, 1),
            "weight_ih": _back(kernel.T, case.kind, order),
            "weight_hh": _back(recurrent.T, case.kind, order),
            "bias_ih": _back(bias[0] if case.kind == "GRU" else bias, case.kind, order),
        }

    return [run(*setting) for setting in KERAS_SETTINGS]


def keras_weights(case: Case) -> list[np.ndarray[Any, Any]]:
    """Kernel [I, G*H], recurrent kernel [H, G*H], bias [G*H], or [2, 3H] for the GRU."""
    order = KERAS_ORDER[case.kind]
    matrices = [_regrouped(case.numpy(name), case.kind, order).T for name in ("weight_ih", "weight_hh")]
    biases = [_regrouped(case.numpy(name), case.kind, order) for name in ("bias_ih", "bias_hh")]
    return [*matrices, np.stack(biases) if case.kind == "GRU" else biases[0] + biases[1]]


@cache
def start() -> None:
    """What must be said to JAX, Keras and TensorFlow before their first computation: this processor, these threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        import tensorflow as tf
    except ImportError:
        return
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
    tf.config.threading.set_inter_op_parallelism_threads(torch.get_num_threads())


PEERS = (
    Peer("ONNX Runtime", ("onnxruntime", "onnx"), ("onnxruntime", "onnx"), onnx_runs),
    Peer("Flax", ("flax", "jax"), ("jax", "flax"), flax_runs),
    Peer("Keras", ("keras", "tensorflow-cpu"), ("tensorflow", "keras"), keras_runs),
)


def present() -> tuple[list[Peer], list[str]]:
    """The peers that can be used, and why the others cannot."""
    start()
    absences = {peer.name: peer.absence() for peer in PEERS}
    return [p for p in PEERS if absences[p.name] is None], [reason for reason in absences.values() if reason]
