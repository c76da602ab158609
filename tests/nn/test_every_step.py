"""States and gates of every step, in stacks of both directions, against loops over single sequences."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellwright import Cell, Recurrent
from cellwright import tanh as tanh_of
from cellwright.cells import BY_NAME
from cellwright.nn.built_in import with_weights
from tests.cells.test_by_hand import Weights
from tests.grid import CELLS, F64, FORMS, definition, hidden_for

T, B = 5, 3
LENGTHS = [5, 0, 3]
RESET = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
s, tanh = torch.sigmoid, torch.tanh
Gates = dict[str, Tensor]


def single_cell(form: str, inputs: int, hidden: int, layer: Recurrent, suffix: str) -> Cell:
    """The cell of one layer and direction, with its weights."""
    name, options = FORMS[form]
    cell = with_weights(BY_NAME[name], "Single")(inputs, hidden, dtype=F64, **options)
    cell.load_state_dict({n: layer.get_parameter(n + suffix) for n in cell.state_dict()})
    return cell


def walk(reverse: bool) -> Iterator[tuple[int, int, bool]]:
    """Row, step, and whether the state before it is the initial one, in the order of the loop."""
    for row, n in enumerate(LENGTHS):
        for k in range(n):
            t = n - 1 - k if reverse else k
            begins = t + 1 if reverse else t
            yield row, t, bool(RESET[begins, row]) if begins < n else False


@pytest.mark.parametrize("form", FORMS)
def test_states_are_those_of_a_loop(form: str, assert_close: Any) -> None:
    """`return_states` of two layers in both directions, of cells whose output is smaller than their state too."""
    hidden = hidden_for(form, 4)
    name, options = FORMS[form]
    layer = Recurrent(BY_NAME[name], 3, hidden, 2, bidirectional=True, dtype=F64, **options)
    sizes = {n: layer.definitions[0].state_size(n) for n in layer.definitions[0].states}
    start = {n: torch.rand(4, B, units, dtype=F64) + 0.5 for n, units in sizes.items()}
    x = torch.randn(T, B, 3, dtype=F64)
    given = tuple(start.values()) if len(start) > 1 else next(iter(start.values()))
    output, last, states = layer(x, given, lengths=LENGTHS, reset=RESET, return_states=True)
    last, states = ((v,) if len(sizes) == 1 else v for v in (last, states))
    below = x
    for k in range(2):
        outputs = []
        for d, suffix in enumerate(("", "_reverse")):
            cell = single_cell(form, layer.definitions[k].input_size, hidden, layer, f"_l{k}{suffix}")
            now = {row: [v[2 * k + d, row : row + 1] for v in start.values()] for row in range(B)}
            out = torch.zeros(T, B, layer.definitions[k].output_size, dtype=F64)
            for row, t, anew in walk(bool(d)):
                before = [torch.zeros_like(v) for v in now[row]] if anew else now[row]
                after = cell(below[t, row : row + 1], tuple(before) if len(before) > 1 else before[0])[1]
                now[row] = [after] if isinstance(after, Tensor) else list(after)
                out[t, row] = now[row][0]
                for state, value, got in zip(sizes, now[row], states, strict=True):
                    assert_close(f"{state}_l{k}{suffix} at {t}", got[t, 2 * k + d, row], value[0], 1e-12)
            for n, (state, got) in enumerate(zip(sizes, last, strict=True)):
                want = torch.cat([now[row][n] for row in range(B)])
                assert_close(f"last {state}_l{k}{suffix}", got[2 * k + d], want, 1e-12)
            outputs.append(out)
        below = torch.cat(outputs, -1)
    assert_close("output", output, below, 1e-12)


# What each cell names within its step, from the states before it.


def four(sums: Any) -> Gates:
    i, f, g, o = sums
    return {"i": s(i), "f": s(f), "g": tanh(g), "o": s(o)}


def greff(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> Gates:
    i, f, g, o = w.sums(x, h, 4)
    i, f, g = s(i + w["p_i"] * c), s(f + w["p_f"] * c), tanh(g)
    return {"i": i, "f": f, "g": g, "o": s(o + w["p_o"] * (f * c + i * g))}


def multiplicative(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> Gates:
    m = (x @ w["weight_mx"].t()) * (h @ w["weight_mh"].t())
    return four(w.sums(x, m, 4)) | {"m": m}


def mogrifier(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> Gates:
    x = 2 * s(h @ w["weight_q1"].t()) * x
    return four(w.sums(x, 2 * s(x @ w["weight_q2"].t()) * h, 4)) | {"x": x}


def slstm(w: Weights, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> Gates:
    i, f, z, o = w.sums(x, h, 4)
    kept = torch.where(n > 0, F.logsigmoid(f) + m, i)
    top = torch.maximum(kept, i)
    return {"kept": kept, "i": (i - top).exp(), "f": (kept - top).exp(), "z": tanh(z), "o": s(o)}


def gru(w: Weights, x: Tensor, h: Tensor) -> Gates:
    a, b = w.product("ih", x, 3), w.product("hh", h, 3)
    r = s(a[0] + b[0])
    return {"r": r, "z": s(a[1] + b[1]), "past": r * b[2], "n": tanh(a[2] + r * b[2])}


def mgu(w: Weights, x: Tensor, h: Tensor) -> Gates:
    units = h.shape[-1]
    a, (r_f, r_n), (b_f, b_n) = w.product("ih", x, 2), w["weight_hh"].split(units), w["bias_hh"].split(units)
    f = s(a[0] + h @ r_f.t() + b_f)
    return {"f": f, "n": tanh(a[1] + (f * h) @ r_n.t() + b_n)}


def ugrnn(w: Weights, x: Tensor, h: Tensor) -> Gates:
    n, g = w.sums(x, h, 2)
    return {"n": tanh(n), "g": s(g)}


def ligru(w: Weights, x: Tensor, h: Tensor) -> Gates:
    z, n = w.sums(x, h, 2)
    return {"z": s(z), "n": F.relu(n)}


def janet(w: Weights, x: Tensor, h: Tensor) -> Gates:
    f, g = w.sums(x, h, 2)
    return {"s": f, "f": s(f), "g": tanh(g)}


def rhn(w: Weights, x: Tensor, h: Tensor) -> Gates:
    """Of the second of two layers."""
    n, t = w.sums(x, h, 2)
    n, t = w.product("hh_2", tanh(n) * s(t) + h * (1 - s(t)), 2)
    return {"n": tanh(n), "t": s(t), "c": 1 - s(t)}


def sru(w: Weights, x: Tensor, h: Tensor, c: Tensor) -> Gates:
    z, f, r = (x @ w["weight_ih"].t()).chunk(3, -1)
    b_f, b_r = w["bias_ih"].chunk(2)
    return {"z": z, "f": s(f + b_f + w["v_f"] * c), "r": s(r + b_r + w["v_r"] * c)}


def qrnn(w: Weights, x: Tensor, h: Tensor, c: Tensor, *back: Tensor) -> Gates:
    z, f, o = (a + b for a, b in zip(w.product("ih", x, 3), back, strict=True))
    return {"z": tanh(z), "f": s(f), "o": s(o)}


def mingru(w: Weights, x: Tensor, h: Tensor) -> Gates:
    z, n = w.product("ih", x, 2)
    return {"z": s(z), "n": n}


def minlstm(w: Weights, x: Tensor, h: Tensor) -> Gates:
    f, i, n = w.product("ih", x, 3)
    return {"a_f": f, "a_i": i, "n": n, "share": s(f) / (s(f) + s(i))}


GATES: dict[str, Callable[..., Gates]] = {
    "rnn": lambda w, x, h: {},
    "jordan": lambda w, x, y: {"h": tanh(w.product("ih", x) + w.product("hh", y))},
    "lstm": lambda w, x, h, c: four(w.sums(x, h, 4)),
    "grefflstm": greff,
    "multiplicativelstm": multiplicative,
    "mogrifierlstm": mogrifier,
    "slstm": slstm,
    "gru": gru,
    "mgu": mgu,
    "ugrnn": ugrnn,
    "ligru": ligru,
    "janet": janet,
    "rhn": rhn,
    "indrnn": lambda w, x, h: {},
    "sru": sru,
    "qrnn": qrnn,
    "mingru": mingru,
    "minlstm": minlstm,
}


@pytest.mark.parametrize("name", CELLS)
def test_gates_are_those_of_a_loop(name: str, assert_close: Any) -> None:
    """Every named value of `trace`, from the states of the step before; with wrappers that change these states."""
    H, options = 4, CELLS[name][1]
    layer = Recurrent(
        BY_NAME[name],
        definition(name, H).input_size,
        H,
        2,
        bidirectional=True,
        merge="sum",
        residual=True,
        zoneout=0.3,
        weight_drop=0.0,
        learn_initial_state=True,
        dropout=0.5,
        dtype=F64,
        **options,
    ).eval()
    states = list(layer.definitions[0].states)
    with torch.no_grad():
        for n, weight in layer.named_parameters():
            if n.startswith("initial"):
                weight.uniform_(0.5, 1.5)
    x = torch.randn(T, B, layer.input_size, dtype=F64)
    traced = layer.trace(x, lengths=LENGTHS, reset=RESET)
    v, below = traced.values, x
    output, _, every = layer(x, lengths=LENGTHS, reset=RESET, return_states=True)
    assert torch.equal(traced.output, output)
    for k in range(2):
        for d, suffix in enumerate(("", "_reverse")):
            place = f"_l{k}{suffix}"
            w = Weights(single_cell(name, layer.input_size, H, layer, place))
            initial = [layer.get_parameter(f"initial_{n}{place}").unsqueeze(0) for n in states]
            seen = set()
            now = dict.fromkeys(range(B), initial)
            for row, t, anew in walk(bool(d)):
                gates = GATES[name](w, below[t, row : row + 1], *(initial if anew else now[row]))
                now[row] = [v[n + place][t, row : row + 1] for n in states]
                seen |= gates.keys()
                for gate, want in gates.items():
                    assert_close(f"{gate}{place} at {t}", v[gate + place][t, row], want[0], 1e-12)
            named = {n.removesuffix(place) for n in v if n.partition("_l")[2] == place[2:]}
            assert named == seen | set(states)
            for n, got in zip(states, every if len(states) > 1 else (every,), strict=True):
                valid = (torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS)).unsqueeze(-1)
                assert_close(n, v[n + place], got[:, 2 * k + d] * valid, 1e-12)
                assert not v[n + place].masked_select(~valid).any()
        both = v[f"{states[0]}_l{k}"] + v[f"{states[0]}_l{k}_reverse"]
        below = both + below.masked_fill(~valid, 0.0)
    assert_close("output", output, below, 1e-12)


def test_names_of_values_that_words_give_as_groups_of_one() -> None:
    assert {"r", "z", "past", "n"} <= set(definition("gru layer_norm=True", 4).names().values())


def test_names_within_the_step_of_a_class_above() -> None:
    class Doubled(BY_NAME["ugrnn"]):  # type: ignore[misc]
        def step(self, x: Any, h: Any) -> Any:
            twice = 2 * tanh_of(x)
            return super().step(twice, h)

    assert set(Doubled(3, 4).definition().names().values()) == {"twice", "n", "g"}
