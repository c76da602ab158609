"""Weights that do not fit, cells that a framework does not have, files that are damaged, too large or hostile."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwright import (
    GRU,
    LSTM,
    Cell,
    CellwrightError,
    DataError,
    GRUCell,
    InputError,
    LSTMCell,
    OptionError,
    Recurrent,
    TargetError,
    convert,
    tanh,
)
from cellwright.app.exchange import import_

from .cases import CASES, Case, H, I

cases = pytest.mark.parametrize("case", CASES, ids=str)


def case(name: str) -> Case:
    return next(c for c in CASES if c.name == name)


@cases
def test_every_missing_extra_and_wrongly_shaped_array_is_named_at_once(case: Case) -> None:
    arrays = case.arrays()
    names = list(arrays)
    want = {name: value.shape for name, value in arrays.items()}
    wrong, missing = names[-1], names[0]
    arrays[wrong] = np.zeros((*want[wrong], 2))
    del arrays[missing]
    arrays |= {"surplus": np.zeros((2, 3)), "other/thing": np.zeros(4)}
    with pytest.raises(InputError) as caught:
        case.load(arrays, case.cell, **case.options)
    message = str(caught.value)
    assert "\n" not in message
    for words in (
        f"{missing} is missing, expected [",
        f"{wrong} is {[*want[wrong], 2]}, expected [",
        "surplus is extra, got [2, 3]",
        "other/thing is extra, got [4]",
    ):
        assert words in message, message


@cases
def test_the_array_with_a_wrong_extent_is_named(case: Case) -> None:
    """Whatever the axis: the other arrays outvote it; only of the input's size a single array may tell."""
    for name in (arrays := case.arrays()):
        for axis in range(arrays[name].ndim):
            shape = list(arrays[name].shape)
            shape[axis] += 1
            try:
                layer = case.load({**arrays, name: np.zeros(shape)}, case.cell, **case.options)
            except InputError as error:
                message = str(error)
            else:
                assert (axis, layer.input_size) == (0, I + 1) or name == "projection/kernel"
                assert sum(value.shape[0] in (I, I + H) for value in arrays.values()) <= 2
                continue
            # Where only two arrays tell of a size, the first is believed.
            believed = {("tf1-rnn", "kernel"): "bias", ("tf1-gru", "gates/kernel"): "candidate/kernel"}
            shown = believed.get((case.name, name), name)
            assert f"{shown} is " in message or f"{name} is {shape}, expected" in message


@cases
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_the_array_with_numbers_that_are_none_is_named(case: Case, number: float) -> None:
    arrays = case.arrays()
    name = list(arrays)[-1]
    arrays[name].reshape(-1)[-1] = number
    with pytest.raises(InputError) as caught:
        case.load(arrays, case.cell, **case.options)
    size = arrays[name].size
    assert f": {name} holds NaN or infinite numbers (1 of {size}), expected finite ones" in str(caught.value)


def test_the_arrays_of_all_layers_and_directions_are_looked_at() -> None:
    arrays = convert.to_keras(GRU(I, H, 2, bidirectional=True))
    del arrays["bidirectional_1/forward_gru_1/gru_cell/kernel"]
    arrays["bidirectional/backward_gru/gru_cell/bias"] = np.zeros(15, "float32")
    with pytest.raises(InputError) as caught:
        convert.from_keras(arrays, "gru")
    assert "bidirectional_1/forward_gru_1/gru_cell/kernel is missing" in str(caught.value)
    assert "bidirectional/backward_gru/gru_cell/bias is [15], expected [2, 3H] = [2, 15]" in str(caught.value)


def test_names_are_spelled_as_torch_spells_them() -> None:
    state: dict[str, Any] = dict(torch.nn.LSTM(I, H, bidirectional=True).state_dict())
    state["weight_hh_l0_reverse"] = torch.zeros(20, 6)
    state["weight_xx_l0"] = torch.zeros(1)
    del state["bias_hh_l0"]
    with pytest.raises(InputError) as caught:
        convert.from_torch(state, "lstm")
    for words in (
        "weight_hh_l0_reverse is [20, 6], expected [4H, H] = [20, 5]",
        "weight_xx_l0 is extra, got [1]",
        "bias_hh_l0 is missing",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: {}, "no arrays at all"),
        (lambda a: {"x": a["kernel"]}, "x is extra"),
        (lambda a: {**a, "kernel": a["kernel"].astype("int64")}, "kernel holds int64, expected floating"),
        (lambda a: {**a, "kernel": a["kernel"].astype("complex64")}, "kernel holds complex64"),
        (lambda a: {**a, "kernel": None}, "kernel is []"),
        (lambda a: {**a, "kernel": [[1.0], [2.0, 3.0]]}, "expected an array"),
        (lambda a: {**a, "kernel": {"a": 1}}, "kernel is []"),
        (lambda a: {n: v[..., :0] for n, v in a.items()}, "kernel is [3, 0], expected [I, 4H]"),
        (lambda a: {**a, 3: a["kernel"]}, "the names [3]"),
        (lambda a: {f"fw/{n}": v for n, v in a.items()}, "only one direction"),
        (lambda a: {f"a/{n}": v for n, v in a.items()} | {f"b/{n}": v for n, v in a.items()}, "order; say it: layers="),
        (lambda a: {f"{k}/{n}": v for n, v in a.items() for k in ("l0", "l1")}, "3 inputs, expected 5, the outputs"),
        (lambda a: {f"{k}/{n}": v for n, v in a.items() for k in ("fw", "forward")}, "does not tell their order"),
    ],
)
def test_arrays_by_name(change: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        convert.from_keras(change(case("keras-lstm").arrays()), "lstm")
    assert words in str(caught.value)


def test_directions_of_different_sizes_or_arrays() -> None:
    small, large = case("keras-lstm").arrays(), case("keras-lstm").arrays(I, 6)
    both = {f"fw/{n}": v for n, v in small.items()} | {f"bw/{n}": v for n, v in large.items()}
    with pytest.raises(InputError, match="bw has I = 3, H = 6, P = 6, and the first has I = 3, H = 5, P = 5"):
        convert.from_keras(both, "lstm")
    both = {f"fw/{n}": v for n, v in small.items()} | {f"bw/{n}": v for n, v in small.items() if n != "bias"}
    with pytest.raises(InputError, match="bw/bias is missing, and the other direction has it"):
        convert.from_keras(both, "lstm")


def test_flax_cells_that_may_be_layers_or_directions() -> None:
    arrays = case("flax-gru").arrays(H, H)
    both = {f"GRUCell_{k}/{n}": v for n, v in arrays.items() for k in range(2)}
    with pytest.raises(InputError, match=r"say it: layers=\['first', 'second'\], or layers=\[\('forward'"):
        convert.from_flax(both, "gru")
    assert convert.from_flax(both, "gru", layers=["GRUCell_0", "GRUCell_1"]).num_layers == 2
    assert convert.from_flax(both, "gru", layers=[("GRUCell_0", "GRUCell_1")]).bidirectional


def test_layers_that_are_not_there() -> None:
    arrays = convert.to_tf1(LSTM(I, H, 2))
    for layers in (["rnn/cell_3"], [], [("rnn", "rnn")], [("a", "b", "c")], [("rnn/multi_rnn_cell/cell_0",) * 2]):
        with pytest.raises(OptionError, match=r"got (layers=|the layer)"):
            convert.from_tf1(arrays, "lstm", layers=layers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("convert_it", "words"),
    [
        (lambda: convert.to_keras(LSTM(I, H, peephole=True)), "Keras LSTM has no peephole=True"),
        (lambda: convert.to_keras(LSTM(I, H, coupled=True, proj_size=2)), "no coupled=True and no proj_size=2"),
        (lambda: convert.to_tf1(GRU(I, H)), "TF1 GRUCell has no reset_after=True"),
        (lambda: convert.to_tf1(LSTM(I, H, coupled=True)), "TF1 LSTMCell has no coupled=True"),
        (lambda: convert.to_flax(GRU(I, H, reset_after=False)), "Flax GRUCell has no reset_after=False"),
        (lambda: convert.to_flax(GRU(I, H), variant="nnx"), "has d_n, not zero, and Flax nnx GRUCell has no place"),
        (lambda: convert.to_flax(GRU(I, H), variant="haiku"), "variant='haiku', expected 'linen' or 'nnx'"),
        (lambda: convert.to_torch(LSTM(I, H, peephole=True)), "torch.nn LSTM has no peephole=True"),
        (lambda: convert.to_keras(torch.nn.LSTM(I, H)), "got a LSTM, expected a layer or cell such as"),
        (lambda: convert.to_keras(Recurrent([LSTMCell(I, H), Mine(H, 4)])), "got a layer of Mine, whose equations"),
        (lambda: convert.to_keras(Recurrent(Disguised, I, H)), "got a layer of Disguised"),
        (lambda: convert.to_keras(LSTM(H, H, residual=True)), "got a layer with residual=True"),
        (lambda: convert.to_torch(GRU(I, H, bidirectional=True, merge="sum")), "got a layer with merge='sum'"),
        (lambda: convert.to_flax(LSTM(I, H, zoneout=0.1)), "got a layer of LSTM, whose equations Flax does not have"),
        (lambda: convert.to_torch(LSTM(I, H, learn_initial_state=True)), "whose equations torch.nn does not have"),
        (
            lambda: convert.from_keras(case("keras-gru").arrays(), "lstmm"),
            "cell='lstmm' for weights of Keras, expected",
        ),
        (lambda: convert.from_keras(case("keras-gru").arrays()), "got no cell for weights of Keras"),
        (lambda: convert.from_keras(case("keras-gru").arrays(), "gru", units=3), "unknown option units=3"),
        (lambda: convert.from_keras(case("keras-gru").arrays(), "gru", bias="both"), "bias='both', expected True"),  # type: ignore[arg-type]
        (
            lambda: convert.from_keras(case("keras-gru").arrays(), "gru", bias="input"),
            "bias beside the state (d_z, d_r, d_n)",
        ),
        (lambda: convert.from_keras(case("keras-rnn").arrays(), "rnn", activation="step"), "activation='step'"),
        (lambda: convert.from_keras(3, "rnn"), "got a int, expected a Keras layer"),
        (lambda: convert.from_keras([np.zeros(3)] * 5, "rnn"), "got 5 arrays, expected those of one Keras SimpleRNN"),
        (
            lambda: convert.from_tf1(case("tf1-gru").arrays(), "gru", reset_after=True),
            "TF1 GRUCell has reset_after=False",
        ),
        (lambda: convert.from_tf1(convert.to_tf1(LSTM(I, H)), "rnn"), "got cell='rnn' for rnn/basic_lstm_cell, a lstm"),
        (lambda: convert.from_tf1(case("tf1-gru").arrays(), "gru", bias=False), "TF1 GRUCell always has biases"),
        (lambda: convert.from_flax(case("flax-gru").arrays(), "mgu"), "cell='mgu'"),
        (lambda: from_tf1(peephole=True), "got peephole=True, but the arrays are those of peephole=False"),
        (lambda: from_tf1(proj_size=3), "got proj_size=3, but the arrays are those of proj_size=0"),
        (lambda: from_tf1(layer_norm=True), "got layer_norm=True, but the arrays are those of layer_norm=False"),
        (lambda: from_tf1(forget_bias="abc"), "got forget_bias='abc', expected a number"),
        (lambda: from_tf1(forget_bias=[1]), "got forget_bias=[1], expected a number"),
        (lambda: from_tf1(forget_bias=float("nan")), "got forget_bias=nan, expected a number"),
        (lambda: from_tf1(batch_first="abc"), "got batch_first='abc', expected True or False"),
        (lambda: convert.to_tf1(LSTM(I, H), forget_bias=float("inf")), "got forget_bias=inf, expected a number"),
    ],
)
def test_what_cannot_be_converted(convert_it: Callable[[], Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        convert_it()
    assert words in str(caught.value)


def from_tf1(**options: Any) -> Recurrent:
    return convert.from_tf1(case("tf1-lstm").arrays(), "lstm", **options)


class Mine(Cell):
    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return tanh(self.linear("h", x) - self.linear("h", h))


class Disguised(GRUCell):
    """Weights and options of the GRU, other equations."""

    def step(self, x: Any, h: Any) -> Any:
        return -super().step(x, h)


def test_trees_and_state_dicts_that_are_none() -> None:
    for function in (convert.from_flax, convert.from_torch):
        with pytest.raises(InputError, match="got a list"):
            function([1, 2], "gru")


def test_a_framework_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")
    with pytest.raises(TargetError, match=r"needs keras, which is not here .*; pip install keras"):
        convert.from_keras(tmp_path / "m.keras")
    with pytest.raises(TargetError, match=r"needs tensorflow, which is not here .*; pip install tensorflow-cpu"):
        convert.from_tf1(tmp_path / "m.ckpt", "lstm")


def test_importing_the_package_imports_no_framework() -> None:
    names = ["keras", "tensorflow", "flax", "jax", "h5py"]
    code = f"import sys; from cellwright import convert; print(sorted(set(sys.modules) & set({names})))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Files ---------------------------------------------------------------------------------------------------------------


def saved(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_npz_is_what_numpy_writes_and_reads(tmp_path: Path) -> None:
    arrays = {
        "a/b": np.arange(6.0).reshape(2, 3),
        "file": np.asfortranarray(np.arange(6, dtype="float32").reshape(3, 2)),
        "big-endian": np.arange(3, dtype=">f8"),
        "empty": np.zeros((0, 2)),
        "number": np.array(3),
    }
    path = tmp_path / "a.npz"
    path.write_bytes(convert.npz(arrays))
    with np.load(path, allow_pickle=False) as read:
        for name, value in arrays.items():
            np.testing.assert_array_equal(read[name], value)
    ours = convert.read_npz(path)
    assert ours.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(ours[name], value)
        assert ours[name].dtype.isnative and ours[name].shape == value.shape
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if name != "file"})
    assert convert.read_npz(path).keys() == arrays.keys() - {"file"}


def test_truncations_and_changes_of_single_bytes_are_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    whole = convert.npz({"kernel": np.arange(12, dtype="float32"), "bias": np.ones(3)})
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            convert.read_npz(path)
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1 :])
        try:
            arrays = convert.read_npz(path)
        except DataError:
            continue
        # Times and versions may change; a changed name is another name. The numbers have a checksum.
        assert [value.tobytes() for value in arrays.values()] in (
            [np.arange(12, dtype="float32").tobytes(), np.ones(3).tobytes()],
            [np.arange(12, dtype="float32").tobytes()],
            [np.ones(3).tobytes()],
        )


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + data


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([Evil()])), "holds object"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}"), "expected 399,999,999,999,996"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -2)}", b"12345678"), "'a'"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", b"1234"), "4 bytes, expected 8"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"12345678"), "8 bytes, expected 4"),
        (npy("{'descr': '<U4', 'fortran_order': False, 'shape': ()}", b"1234567812345678"), "expected numbers"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"1234"), "expected numbers"),
        (npy("__import__('pathlib').Path('evil').touch()"), "'a'"),
        (npy("{" * 200), "'a'"),
        (npy("(" * 9000), "'a'"),
        (npy("{'descr': '<f4', " + " " * 20000, version=b"\x02\x00"), "'a'"),
        (npy("{}", version=b"\x03\x00"), "version (3, 0)"),
        (b"nothing", "'a'"),
        (b"", "'a'"),
    ],
)
def test_arrays_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: bytes, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("a.npy", entry)
    with pytest.raises(DataError) as caught:
        convert.read_npz(Path("a.npz"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("evil").exists()


def test_a_file_that_grows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(64):
            file.write(bytes(2**20))
    before = time.perf_counter()
    with pytest.raises(DataError, match="holds 67,108,864 bytes, expected 1,048,576 at most"):
        convert.read_npz(path, limit=2**20)
    # A file that says that it holds more than the limit: the sizes stand in the list of contents.
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="holds 4,294,967,294 bytes, expected 2,147,483,648 at most"):
        convert.read_npz(path)
    # And one that says less than it has.
    data[place + 24 : place + 28] = (200).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        convert.read_npz(path)
    assert time.perf_counter() - before < 5


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.npz", "a.keras", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name} is no regular file; expected a"):
            import_(tmp_path / name, "keras", tmp_path / "out.safetensors", "lstm", None, {})
    with pytest.raises(DataError, match=r"has the ending '', expected one of .npz, .safetensors"):
        import_(Path("."), "torch", tmp_path / "out.safetensors", "lstm", None, {})


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; name an .npz file"):
        convert.read_npz(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match="Is a directory"):
        convert.read_npz(tmp_path)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script.py", "print()")
    with pytest.raises(DataError, match=r"an entry 'script.py', which is no array"):
        convert.read_npz(path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(DataError, match="has 'a' twice"):
        convert.read_npz(path)


def keras_file(path: Path, config: Any, weights: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config if isinstance(config, (str, bytes)) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


SMALL = {"class_name": "LSTM", "config": {"units": 2, "recurrent_initializer": None}}
LARGE = {"class_name": "LSTM", "config": {"units": 10**5, "recurrent_initializer": None}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json cannot be read"),
        ("[" * 100_000, "config.json cannot be read"),
        ({"layers": [{"config": {"units": 10**9}}]}, "units=1,000,000,000, and its weights have 100 bytes"),
        ({"layers": [LARGE]}, "units=100,000, and"),
        (
            {"layers": [{**SMALL, "build_config": {"input_shape": [None, None, 10**9]}}]},
            "build_config=1,000,000,000, and",
        ),
        (
            {"layers": [{"config": {"layer": SMALL}, "build_config": {"input_shape": [None, 9, 10**9]}}]},
            "build_config=1,000,000,000, and",
        ),
        (
            {"config": {"layers": [{"class_name": "InputLayer"}, SMALL], "build_input_shape": [None, None, 10**9]}},
            "build_input_shape=1,000,000,000, and",
        ),
    ],
)
def test_keras_files_that_are_refused_before_keras_sees_them(tmp_path: Path, config: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        convert.from_keras(keras_file(tmp_path / "m.keras", config, bytes(100)))
    assert words in str(caught.value)


def test_keras_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with pytest.raises(DataError, match="does not exist"):
        convert.from_keras(path)
    path.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(DataError, match=r"cannot be read: File is not a zip file; expected a .keras file"):
        convert.from_keras(path)
    path.write_bytes(convert.npz({"a": np.zeros(2)}))
    with pytest.raises(DataError, match=r"has no config.json and no model.weights.h5"):
        convert.from_keras(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(2**26 + 1))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(DataError, match=r"a config.json of 67,108,865 bytes"):
        convert.from_keras(path)


def test_errors_are_of_this_package() -> None:
    """Random wrong names and shapes never lead to anything else."""
    rng = np.random.default_rng(1)
    names = ["kernel", "bias", "gates/kernel", "fw/kernel", "bw/kernel", "l0/bias", "ii/kernel", "w_f_diag", "", "/"]
    functions = [(convert.from_keras, "lstm"), (convert.from_tf1, "lstm"), (convert.from_flax, "gru")]
    functions += [(convert.from_torch, "rnn"), (convert.from_tf1, "gru"), (convert.from_keras, "gru")]
    for _ in range(300):
        chosen = rng.choice(names, rng.integers(1, 6), replace=False)
        arrays = {str(n): np.zeros(rng.integers(0, 9, rng.integers(0, 4))) for n in chosen}
        for function, cell in functions:
            with contextlib.suppress(CellwrightError):
                function(arrays, cell)
