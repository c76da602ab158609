"""The tests that the package onnx brings for its operators, driven by its own runner."""

import re
import unittest
import warnings
from typing import Any

import numpy as np
import pytest

import cellwright.onnx_backend as backend
from cellwright import TargetError, use_target
from cellwright.convert.onnx.functions import FUNCTIONS
from cellwright.convert.onnx.recurrent import ATTRIBUTES
from tests.convert.onnx.models import recurrent

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")

# What is refused on purpose, by the name of the test.
REFUSED = {
    r"test_training_dropout(?!_zero_ratio)": "got dropout in training mode",
    r"test_identity_(sequence|opt)": "is no tensor; expected tensors only",
    r"test_reduce_(max|min)_empty_set": "non-zero size",
    r"test_cast_e8m0_FLOAT(16)?_to": "attribute 'round_mode': it is not supported",
}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings(), use_target("torch"):  # small nets: compiling would take longer than running
        warnings.simplefilter("ignore")  # numpy's, while onnx computes what it expects
        yield


def test_recurrent_nodes() -> None:
    """All of RNN, LSTM, GRU and Scan."""
    runner = __import__("onnx.backend.test", fromlist=["BackendTest"]).BackendTest(backend, __name__)
    cases = runner.test_cases["OnnxBackendNodeModelTest"]
    wanted = re.compile(r"test_(rnn|simple_rnn|lstm|gru|scan\d*)_.*_cpu$")
    suite = unittest.TestSuite(cases(name) for name in dir(cases) if wanted.match(name))
    result = unittest.TestResult()
    suite.run(result)
    assert not result.failures + result.errors + result.skipped, result
    assert result.testsRun >= 22


def test_every_operator_that_is_supported() -> None:
    """Each test of nodes that are all in our tables. Types that torch lacks are refused by name."""
    loader = __import__("onnx.backend.test.loader", fromlist=["load_model_tests"])
    similar = __import__("onnx.backend.test.runner", fromlist=["Runner"]).Runner.assert_similar_outputs
    wrong, seen = [], set()
    for case in loader.load_model_tests(kind="node"):
        operators = {node.op_type for node in case.model.graph.node}
        if not operators <= {*FUNCTIONS, *ATTRIBUTES, "Scan"} or any(n.domain for n in case.model.graph.node):
            continue
        try:
            prepared = backend.prepare(case.model)
            for given, want in case.data_sets:
                if any(not isinstance(v, np.ndarray) or v.dtype == object for v in given):
                    continue  # a file that holds no plain array
                similar(want, prepared.run(given), case.rtol, case.atol)
            seen |= operators
        except Exception as error:
            reason = next((r for name, r in REFUSED.items() if re.match(name, case.name)), "has the type [A-Z0-9]+, ")
            if not re.search(reason, str(error)):
                wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    assert seen == {*FUNCTIONS, *ATTRIBUTES, "Scan"}


def test_single_nodes_and_devices() -> None:
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    a, b = np.array([1.0, 2.0], "float32"), np.array([10.0, 20.0], "float32")
    (c,) = backend.run_node(node, [a, b])
    assert np.array_equal(c, a + b)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA:0")
    model, given = recurrent("GRU")
    assert backend.is_compatible(model)
    by_name, by_place = backend.prepare(model).run(given), backend.run_model(model, list(given.values()))
    assert all(np.array_equal(v, w) for v, w in zip(by_name, by_place, strict=True))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("activations", ["Gelu", "Tanh"]))
    assert not backend.is_compatible(model)
    with pytest.raises(TargetError, match="got the device 'CUDA', expected 'CPU'"):
        backend.prepare(model, "CUDA")
