"""The real Keras, TensorFlow and Flax, where they are installed: outputs agree to 1e-5 in float32."""

import importlib
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.peers import start
from cellwright import GRU, LSTM, RNN, DataError, OptionError, Recurrent, convert, use_target
from cellwright.app.exchange import import_

from ...conftest import Assert
from .cases import Array, B, H, I, T, randomise

# float32: sums in another order, and the frameworks' own sigmoid and tanh.
NEAR = 1e-5


@pytest.fixture(autouse=True)
def _reference() -> Iterator[None]:
    with use_target("torch"):  # small nets: compiling would take longer than running
        yield


def load(name: str) -> Any:
    """A framework; what it warns of while it is imported is its own affair. Skips where it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start()  # once in a process, before any of them computes; where TensorFlow is, Keras runs on it
        os.environ.setdefault("KERAS_BACKEND", "torch")  # which is there in any case
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} is not installed ({error})")


@pytest.fixture
def keras() -> Iterator[Any]:
    module = load("keras")
    with warnings.catch_warnings():
        # TensorFlow asks NumPy for what NumPy has renamed.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="(keras|tensorflow|numpy).*")
        yield module


@pytest.fixture
def flax() -> Any:
    return load("flax.linen")


@pytest.fixture
def nnx() -> Any:
    return load("flax.nnx")


def inputs() -> Array:
    return np.random.default_rng(5).normal(size=(B, T, I)).astype("float32")


def same(name: str, layer: Recurrent, x: Array, want: Any, assert_close: Assert) -> None:
    found = want.detach() if isinstance(want, torch.Tensor) else torch.from_numpy(np.array(want))
    assert_close(name, layer(torch.from_numpy(x))[0].detach(), found, NEAR)


def random_weights(shapes: list[Any]) -> list[Array]:
    rng = np.random.default_rng(9)
    return [rng.uniform(-0.8, 0.8, tuple(shape)).astype("float32") for shape in shapes]


# Keras ---------------------------------------------------------------------------------------------------------------

KERAS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("SimpleRNN", {}),
    "rnn-relu": ("SimpleRNN", {"activation": "relu"}),
    "rnn-linear": ("SimpleRNN", {"activation": "linear", "use_bias": False}),
    "rnn-gelu": ("SimpleRNN", {"activation": "gelu"}),
    "lstm": ("LSTM", {}),
    "lstm-no-bias": ("LSTM", {"use_bias": False}),
    "lstm-dropout": ("LSTM", {"dropout": 0.5, "recurrent_dropout": 0.5}),
    "gru": ("GRU", {}),
    "gru-before": ("GRU", {"reset_after": False}),
    "gru-no-bias": ("GRU", {"use_bias": False}),
    "gru-before-no-bias": ("GRU", {"reset_after": False, "use_bias": False}),
}


def keras_layer(keras: Any, name: str, bidirectional: bool = False, units: int = H, features: int = I) -> Any:
    kind, options = KERAS[name]
    layer = getattr(keras.layers, kind)(units, return_sequences=True, **options)
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer(np.zeros((1, 1, features), "float32"))
    layer.set_weights(random_weights([w.shape for w in layer.get_weights()]))
    return layer


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", KERAS)
def test_keras_layers(keras: Any, name: str, bidirectional: bool, assert_close: Assert) -> None:
    theirs, x = keras_layer(keras, name, bidirectional), inputs()
    layer = convert.from_keras(theirs)
    same(name, layer, x, theirs(x), assert_close)
    other = keras_layer(keras, name, bidirectional)
    other.set_weights([0 * w for w in other.get_weights()])
    convert.to_keras(layer, into=other)
    for got, want in zip(other.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "gru-before"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_in_keras(keras: Any, name: str, bidirectional: bool, assert_close: Assert) -> None:
    """With two random biases, which Keras adds to one where it has one."""
    kind: Callable[..., Recurrent] = {"rnn": RNN, "lstm": LSTM}.get(name, GRU)
    options = {"reset_after": False} if name == "gru-before" else {}
    layer = randomise(kind(I, H, 2, batch_first=True, bidirectional=bidirectional, **options))
    low = keras_layer(keras, name, bidirectional)
    high = keras_layer(keras, name, bidirectional, features=(1 + bidirectional) * H)
    arrays = convert.to_keras(layer, into=[low, high])
    x = inputs()
    same(name, layer, x, high(low(x)), assert_close)
    model = keras.Sequential([keras.Input((None, I)), low, high])
    model.set_weights([0 * w for w in model.get_weights()])
    model.set_weights(list(arrays.values()))
    same(name, layer, x, model(x), assert_close)
    names = [w.path.split("/", 1)[1] for w in model.weights]
    assert [n.rsplit("/", 1)[1] for n in names] == [n.rsplit("/", 1)[1] for n in arrays]


def test_the_names_of_the_arrays_are_those_of_a_new_keras_model(keras: Any) -> None:
    keras.utils.clear_session()
    two = [keras.layers.Bidirectional(keras.layers.GRU(H, return_sequences=True)) for _ in range(2)]
    model = keras.Sequential([keras.Input((None, I)), *two])
    ours = convert.to_keras(GRU(I, H, 2, bidirectional=True))
    assert list(ours) == [w.path.split("/", 1)[1] for w in model.weights]


def test_layers_of_keras_one_after_the_other(keras: Any, assert_close: Assert) -> None:
    low, high, x = keras_layer(keras, "lstm"), keras_layer(keras, "lstm", units=4, features=H), inputs()
    layer = convert.from_keras([low, high])
    assert type(layer) is Recurrent
    same("sizes", layer, x, high(low(x)), assert_close)
    cells = [keras.layers.GRUCell(4), keras.layers.GRUCell(6)]
    stack = keras.layers.RNN(keras.layers.StackedRNNCells(cells), return_sequences=True)
    stack(x)
    stack.set_weights(random_weights([w.shape for w in stack.get_weights()]))
    same("cells", convert.from_keras(stack), x, stack(x), assert_close)


def test_arrays_by_the_names_of_a_keras_model(keras: Any, assert_close: Assert) -> None:
    low, high, x = keras_layer(keras, "gru", True), keras_layer(keras, "gru", True, features=2 * H), inputs()
    model = keras.Sequential([keras.Input((None, I)), low, high, keras.layers.Dense(2)])
    arrays = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    layer = convert.from_keras(arrays, "gru", layers=[low.name, high.name])
    same("model", layer, x, high(low(x)), assert_close)


def test_a_keras_file(keras: Any, tmp_path: Path, assert_close: Assert) -> None:
    low, high, x = keras_layer(keras, "lstm", True), keras_layer(keras, "gru", features=2 * H), inputs()
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((None, I)), low, keras.layers.Dropout(0.1), high]).save(path)
    with pytest.raises(OptionError, match=f"{low.name}, {high.name}; name those"):
        convert.from_keras(path)
    first, second = (convert.from_keras(path, layers=[one.name]) for one in (low, high))
    same("first", first, x, low(x), assert_close)
    same("second", second, keras.ops.convert_to_numpy(low(x)), high(low(x)), assert_close)
    with pytest.raises(OptionError, match=r"got layers=\['dense'\]; .* has these recurrent layers"):
        convert.from_keras(path, layers=["dense"])
    words = import_(path, "keras", tmp_path / "high.safetensors", None, [high.name], {"batch_first": False})
    assert f"cellwright.GRU({2 * H}, {H})" in words
    weights = load_file(tmp_path / "high.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in second.state_dict().items())
    inner = keras.Sequential([keras.Input((None, I)), keras_layer(keras, "rnn")])
    keras.Sequential([keras.Input((None, I)), inner]).save(path)
    same("nested", convert.from_keras(str(path)), x, inner(x), assert_close)


def test_keras_files_with_code_or_without_weights(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    name = str(tmp_path / "evil")
    evil = keras.layers.Lambda(lambda x: __import__("pathlib").Path(name).touch() or x)
    keras.Sequential([keras.Input((None, I)), keras_layer(keras, "lstm")]).save(path)
    whole = path.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            convert.from_keras(path)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in parts.items():
            archive.writestr(entry, data[:-1000] if entry.endswith("h5") else data)
    with pytest.raises(DataError, match="refused by Keras"):
        convert.from_keras(path)
    config = parts["config.json"].replace(b"keras.layers", b"os.path").replace(b'"LSTM"', b'"join"')
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in {**parts, "config.json": config}.items():
            archive.writestr(entry, data)
    with pytest.raises(DataError, match="refused by Keras"):
        convert.from_keras(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of what is wanted here
        keras.Sequential([keras.Input((None, I)), evil, keras_layer(keras, "lstm")]).save(path)
        Path(name).unlink()
        with pytest.raises(DataError, match=r"refused by Keras: .*Lambda"):
            convert.from_keras(path)
    assert not Path(name).exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda k: k.layers.LSTM(H, activation="relu"), "activation='relu', expected 'tanh'"),
        (lambda k: k.layers.GRU(H, recurrent_activation="hard_sigmoid"), "recurrent_activation='hard_sigmoid'"),
        (lambda k: k.layers.SimpleRNN(H, activation="leaky_relu"), "'leaky_relu'"),
        (lambda k: k.layers.SimpleRNN(H, activation=lambda a: a), "the activation <function"),
        (lambda k: k.layers.GRU(H, go_backwards=True), "go_backwards=True"),
        (
            lambda k: k.layers.Bidirectional(k.layers.GRU(H), merge_mode="mul"),
            "merge_mode='mul', expected one of 'concat'",
        ),
        (
            lambda k: k.layers.Bidirectional(k.layers.GRU(H), backward_layer=k.layers.LSTM(H, go_backwards=True)),
            "layers of different kinds",
        ),
        (lambda k: k.layers.Dense(H), "of the class Dense"),
        (lambda k: k.layers.ConvLSTM1D(2, 3), "ConvLSTM1D"),
        (lambda k: k.layers.RNN(type("LSTMCell", (k.layers.LSTMCell,), {})(H)), "a Keras cell of the class LSTMCell"),
        (lambda k: type("LSTM", (k.layers.LSTM,), {})(H), "of the class LSTM"),
        (lambda k: [k.layers.LSTM(H), k.layers.GRU(H)], "different kinds"),
        (lambda k: k.layers.LSTM(H), "without weights"),
    ],
)
def test_keras_layers_that_are_refused(keras: Any, make: Any, words: str) -> None:
    made = make(keras)
    if "without" not in words:
        shape = (1, 7, 4, I) if "ConvLSTM1D" in words else (1, 7, I)
        for layer in made if isinstance(made, list) else [made]:
            layer(np.zeros(shape, "float32"))
    with pytest.raises(OptionError, match=words.replace("(", r"\(")):
        convert.from_keras(made)


@pytest.mark.parametrize(("theirs", "ours"), [("sum", "sum"), ("ave", "mean"), (None, "none")])
def test_keras_ways_of_merging(keras: Any, theirs: Any, ours: str, tmp_path: Path, assert_close: Assert) -> None:
    x = inputs()

    def make() -> Any:
        count = 1 if theirs is None else 2
        inner = [keras.layers.GRU(H, return_sequences=True, bias_initializer="random_normal") for _ in range(count)]
        return [keras.layers.Bidirectional(one, merge_mode=theirs) for one in inner]

    def check(layer: Any, stack: Any) -> None:
        want = x
        for one in stack:
            want = one(want)
        got = layer(torch.from_numpy(x))[0]
        for a, b in zip(got, want, strict=True) if theirs is None else [(got, want)]:
            assert_close(f"merge {ours}", a.detach(), torch.from_numpy(keras.ops.convert_to_numpy(b)), 1e-5)

    stack, other = make(), make()
    for one in stack:
        one.build((None, None, I if one is stack[0] else H))
    layer = convert.from_keras(stack)
    assert layer.merge == ours
    check(layer, stack)
    for one in other:
        one.build((None, None, I if one is other[0] else H))
    convert.to_keras(randomise(layer), into=other)
    check(layer, other)
    with pytest.raises(OptionError, match=f"got a layer with merge='{ours}', which is not converted"):
        convert.to_keras(layer)
    with pytest.raises(OptionError, match=f"that merge as our 'concat', expected '{ours}'"):
        convert.to_keras(layer, into=[keras.layers.Bidirectional(keras.layers.GRU(H)) for _ in other])
    if theirs == "sum":
        i = keras.Input((None, I))
        keras.Model(i, stack[1](stack[0](i))).save(tmp_path / "m.keras")
        names = [one.name for one in stack]
        said = import_(tmp_path / "m.keras", "keras", tmp_path / "w.safetensors", None, names, {})
        assert "cellwright.GRU(3, 5, num_layers=2, batch_first=True, bidirectional=True, merge='sum')" in said


def test_keras_layers_that_cannot_take_the_weights(keras: Any) -> None:
    lstm = keras_layer(keras, "lstm")
    relu = keras.layers.LSTM(H, activation="relu")
    relu(np.zeros((1, 1, I), "float32"))
    for layer, into, words in [
        (LSTM(I, H), relu, "activation='relu', expected 'tanh'"),
        (LSTM(I, H), keras.layers.LSTM(H), r"with weights \[\], expected"),
        (GRU(I, H), lstm, "Keras LSTM cannot hold this layer: it is a gru"),
        (GRU(I, H), keras_layer(keras, "gru-before"), "Keras GRU has no reset_after=True"),
        (LSTM(I, 6), lstm, r"with weights \[\[3, 20\]"),
        (LSTM(I, H), keras_layer(keras, "lstm-no-bias"), "not zero, and Keras LSTM has no place"),
        (LSTM(I, H), keras_layer(keras, "lstm", True), "directions"),
        (RNN(I, H), keras_layer(keras, "rnn-relu"), "activation='relu', expected 'tanh'"),
        (LSTM(I, H), 3, "got a int, expected a layer of Keras"),
    ]:
        before = [] if isinstance(into, int) else into.get_weights()
        with pytest.raises(OptionError, match=words):
            convert.to_keras(layer, into=into)
        for got, want in zip([] if isinstance(into, int) else into.get_weights(), before, strict=True):
            np.testing.assert_array_equal(got, want)
    convert.to_keras(LSTM(I, H, bias=False), into=lstm)
    assert not lstm.get_weights()[2].any()


# TensorFlow 1 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tf1() -> Iterator[tuple[Any, Any]]:
    """TensorFlow and its cells of version 1, which its public interface does not give with Keras 3."""
    tensorflow = load("tensorflow")
    cells = load("tensorflow.python.keras.layers.legacy_rnn.rnn_cell_impl")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(deprecated|add_variable).*", category=UserWarning)
        yield tensorflow, cells


TF1: dict[str, tuple[str, Callable[[Any], Any], dict[str, Any]]] = {
    "rnn": ("BasicRNNCell", lambda c: c.BasicRNNCell(H), {}),
    "rnn-relu": ("BasicRNNCell", lambda c: c.BasicRNNCell(H, activation="relu"), {"activation": "relu"}),
    "basic-lstm": ("BasicLSTMCell", lambda c: c.BasicLSTMCell(H), {}),
    "forget-bias": ("lstm", lambda c: c.BasicLSTMCell(H, forget_bias=0.5), {"forget_bias": 0.5}),
    "lstm": ("lstm", lambda c: c.LSTMCell(H), {}),
    "peephole": ("lstm", lambda c: c.LSTMCell(H, use_peepholes=True), {}),
    "projection": ("LSTMCell", lambda c: c.LSTMCell(H, use_peepholes=True, num_proj=3), {}),
    "gru": ("GRUCell", lambda c: c.GRUCell(H), {}),
    "stack": ("lstm", lambda c: c.MultiRNNCell([c.LSTMCell(H), c.LSTMCell(4, num_proj=2), c.LSTMCell(6)]), {}),
}


def tf1_net(tf1: tuple[Any, Any], make: Callable[[Any], Any], bidirectional: bool = False) -> tuple[Any, Any, Any]:
    """In a graph: the input, the output of `dynamic_rnn`, the variables."""
    tensorflow, cells = tf1
    v1 = tensorflow.compat.v1
    x = v1.placeholder("float32", [B, T, I])
    if bidirectional:
        pair, _ = v1.nn.bidirectional_dynamic_rnn(make(cells), make(cells), x, dtype="float32")
        return x, tensorflow.concat(pair, -1), v1.global_variables()
    output, _ = v1.nn.dynamic_rnn(make(cells), x, dtype="float32")
    return x, output, v1.global_variables()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", [name for name in TF1 if name != "stack"])
def test_tf1_cells(tf1: Any, name: str, bidirectional: bool, assert_close: Assert) -> None:
    cell, make, options = TF1[name]
    v1, x = tf1[0].compat.v1, inputs()
    with tf1[0].Graph().as_default(), v1.Session() as session:
        place, output, variables = tf1_net(tf1, make, bidirectional)
        for variable, value in zip(variables, random_weights([v.shape for v in variables]), strict=True):
            variable.load(value, session)
        arrays = {v.name: value for v, value in zip(variables, session.run(variables), strict=True)}
        layer = convert.from_tf1(arrays, cell, **options)
        same(name, layer, x, session.run(output, {place: x}), assert_close)
        # And back, from random weights with two biases, under the names that TF1 gave.
        back = convert.to_tf1(randomise(layer), forget_bias=options.get("forget_bias", 1.0))
        for variable in variables:
            (key,) = [
                k
                for k in back
                if k == variable.op.name
                or (name in ("lstm", "forget-bias") and k == variable.op.name.replace("/lstm_cell", "/basic_lstm_cell"))
            ]
            variable.load(back.pop(key), session)
        assert not back
        same(name, layer, x, session.run(output, {place: x}), assert_close)


@pytest.mark.parametrize("name", ["basic-lstm", "projection", "gru", "stack"])
def test_tf1_checkpoints(tf1: Any, name: str, tmp_path: Path, assert_close: Assert) -> None:
    """As a training writes them: with another layer, a number of steps, and what the optimizer keeps."""
    cell, make, _ = TF1[name]
    v1, x, path = tf1[0].compat.v1, inputs(), tmp_path / "model.ckpt"
    with tf1[0].Graph().as_default(), v1.Session() as session:
        place, output, variables = tf1_net(tf1, make)
        dense = v1.get_variable("dense/kernel", [int(output.shape[-1]), 4])
        loss = tf1[0].reduce_sum(tf1[0].tensordot(output, dense, 1) ** 2)
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdamOptimizer(0.01).minimize(loss, step)
        session.run(v1.global_variables_initializer())
        for variable, value in zip(variables, random_weights([v.shape for v in variables]), strict=True):
            variable.load(value, session)
        session.run(train, {place: x})
        saved = v1.train.Saver().save(session, str(path), step)
        want = session.run(output, {place: x})
    same(name, convert.from_tf1(saved, cell, layers=["rnn"]), x, want, assert_close)
    same(name, convert.from_tf1(tmp_path, cell, layers=["rnn"]), x, want, assert_close)
    import_(Path(saved), "tf1", tmp_path / "w.safetensors", cell, ["rnn"], {})
    weights = load_file(tmp_path / "w.safetensors")
    layer = convert.from_tf1(saved, cell, layers=["rnn"])
    assert all(torch.equal(weights[name], value) for name, value in layer.state_dict().items())
    with pytest.raises(OptionError, match=r"no array; it has beta1_power"):
        convert.from_tf1(saved, cell, layers=["lstm"])


def test_tf1_checkpoints_that_are_damaged(tf1: Any, tmp_path: Path) -> None:
    v1, path = tf1[0].compat.v1, tmp_path / "model.ckpt"
    with pytest.raises(DataError, match="is not a checkpoint that TensorFlow can read"):
        convert.from_tf1(path, "lstm")
    with tf1[0].Graph().as_default(), v1.Session() as session:
        tf1_net(tf1, TF1["lstm"][1])
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(path))
    convert.from_tf1(path, "lstm")
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    for damaged in (whole[:50], bytes(len(whole))):
        data.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is (damaged|not a checkpoint)"):
            convert.from_tf1(path, "lstm")
    index = tmp_path / "model.ckpt.index"
    index.write_bytes(index.read_bytes()[:40])
    with pytest.raises(DataError, match="is not a checkpoint"):
        convert.from_tf1(path, "lstm")


# Flax ----------------------------------------------------------------------------------------------------------------

FLAX: dict[str, tuple[str, dict[str, Any]]] = {
    "SimpleCell": ("rnn", {}),
    "LSTMCell": ("lstm", {}),
    "OptimizedLSTMCell": ("OptimizedLSTMCell", {}),
    "GRUCell": ("gru", {}),
}


def random_tree(tree: Any) -> Any:
    jax = load("jax")
    leaves, form = jax.tree_util.tree_flatten(tree)
    return jax.tree_util.tree_unflatten(form, random_weights([leaf.shape for leaf in leaves]))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", FLAX)
def test_flax_cells(flax: Any, name: str, bidirectional: bool, assert_close: Assert) -> None:
    jax, x, (cell, _) = load("jax"), inputs(), FLAX[name]
    module = flax.RNN(getattr(flax, name)(H))
    module = flax.Bidirectional(module, flax.RNN(getattr(flax, name)(H))) if bidirectional else module
    params = random_tree(module.init(jax.random.key(0), x))
    layer = convert.from_flax(params, cell)
    same(name, layer, x, module.apply(params, x), assert_close)
    tree = convert.to_flax(layer)
    for got, want in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)
    tree = convert.to_flax(randomise(layer))
    same(name, layer, x, module.apply({"params": tree if bidirectional else {"cell": tree}}, x), assert_close)


def test_a_flax_module(flax: Any, assert_close: Assert) -> None:
    jax, x = load("jax"), inputs()

    class Net(flax.Module):  # type: ignore[misc,name-defined]
        @flax.compact
        def __call__(self, x: Any) -> Any:
            y = flax.RNN(flax.LSTMCell(H))(x)
            y = flax.RNN(flax.LSTMCell(H))(y)
            z = flax.Bidirectional(flax.RNN(flax.GRUCell(I)), flax.RNN(flax.GRUCell(I)))(x)
            return y, z, flax.Dense(2)(y)

    params = random_tree(Net().init(jax.random.key(0), x))
    y, z, _ = Net().apply(params, x)
    same("layers", convert.from_flax(params, "lstm", layers=["LSTMCell_0", "LSTMCell_1"]), x, y, assert_close)
    pair = [("GRUCell_0", "GRUCell_1")]
    same("directions", convert.from_flax(params, "gru", layers=pair), x, z, assert_close)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", FLAX)
def test_nnx_cells(nnx: Any, name: str, bidirectional: bool, assert_close: Assert) -> None:
    x, (cell, _) = inputs(), FLAX[name]

    def one() -> Any:
        return nnx.RNN(getattr(nnx, name)(I, H, rngs=nnx.Rngs(0)))

    module = nnx.Bidirectional(one(), one(), rngs=nnx.Rngs(0)) if bidirectional else one()
    state = nnx.state(module, nnx.Param)
    nnx.update(module, random_tree(state))
    state = nnx.state(module, nnx.Param)
    layer = convert.from_flax(state, cell)
    same(name, layer, x, module(x, **({} if bidirectional else {"rngs": nnx.Rngs(0)})), assert_close)
    if name != "LSTMCell":  # nnx's LSTM that is written is the optimized one
        tree = convert.to_flax(layer, variant="nnx")
        nnx.update(module, random_tree(nnx.state(module, nnx.Param)))
        nnx.update(module, tree if bidirectional else {"cell": tree})
        same(name, layer, x, module(x, **({} if bidirectional else {"rngs": nnx.Rngs(0)})), assert_close)
