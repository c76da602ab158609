"""A cell that looks into a memory as an ONNX model: a `Scan` whose step reads the memory from around it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...emit import to_onnx as emit
from ...nn import Attentive
from ...nn.weights import whole as dense
from .assembly import Assembly, Results, array


@dataclass
class AttentiveExport(Assembly):
    """The export of `Attentive`."""

    layer: Attentive

    def run(self, onnx: Any, symbols: Tensor | None, output: nn.Linear | None) -> Any:
        """All steps as a model."""
        b, layer, M = self.b, self.layer, self.layer.memory_size
        program, cell = layer.attended.program(False), layer.recurrent
        definition = program.definition
        states = {name: ["batch", definition.state_size(name)] for name in definition.states}
        for name in ("output", "weights", *(f"{n}{when}" for n in states for when in "0n")):
            b.name(name)
        x, masks = self.sequences()
        x, whole = self.looked_up(x, symbols)
        x = emit.one_hot(b, x, self.input_size) if whole else x
        own = cell._weights(0, "") | layer.attention.weights
        result, last, looked = emit.scan(
            b,
            program.plan(self.reset, self.lengths),
            {name: array(value) for name, value in dense(definition, own).items()},
            {"x": b.op("Pad", x, b.numbers(0, 0, 0, 0, 0, M))} | {name: b.real(mask) for name, mask in masks.items()},
            {name: f"{name}0" for name in states},
            memory=self._memory(),
        )
        if self.lengths:
            result, looked = (b.op("Where", masks["valid"], value, b.constant(0.0)) for value in (result, looked))
        result, features = self.linear(result, output, definition.output_size)
        if self.batch_first:
            result, looked = (b.op("Transpose", value, perm=[1, 0, 2]) for value in (result, looked))
        ends: Results = {"output": (result, [*self.lead, features])}
        ends |= {f"{name}n": (value, states[name]) for name, value in last.items()}
        ends["weights"] = looked, [*self.lead, "positions"]
        inputs = self.inputs() | {"memory": self.real(*(n.replace("time", "positions") for n in self.lead), M)}
        inputs |= {"memory_lengths": ("int64", ["batch"])} if self.lengths else {}
        inputs |= {f"{name}0": self.real(*shape) for name, shape in states.items()}
        return self.model(onnx, type(layer).__name__, inputs, ends)

    def _memory(self) -> emit.Memory:
        """What all steps read, computed once."""
        b, attention, valid = self.b, self.layer.attention, ""
        memory = "memory" if self.batch_first else b.op("Transpose", "memory", perm=[1, 0, 2])
        if self.lengths:
            limits = b.op("Unsqueeze", "memory_lengths", b.numbers(1))
            valid = b.op("Less", self.positions(memory, 1), limits)
            memory = b.op("Where", b.op("Unsqueeze", valid, b.numbers(2)), memory, b.constant(0.0))
        keys = (
            memory if attention.score == "dot" else self.dense(memory, attention.key.weight, attention.key.bias, "key")
        )
        energy = b.constant(array(attention.energy.weight).T, "energy") if attention.score == "additive" else ""
        return emit.Memory(keys, memory, energy, valid)
