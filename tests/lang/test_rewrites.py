"""Wrappers as rewrites of the equations: what they change and what they leave, and that the result is a definition."""

import json
from typing import Any

import pytest

from cellwright import CellError, OptionError, tanh
from cellwright.cells import GRU, LSTM, Elman
from cellwright.lang import (
    Definition,
    Equations,
    Plan,
    with_expected_zoneout,
    with_initial_state,
    with_layer_norm,
    with_recurrent_dropout,
    with_reset,
    with_state_clip,
    with_zoneout,
)
from cellwright.lang.show import Writer


class Independent(Equations):
    """A state that enters no dense product."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return tanh(self.linear("h", x) + self.scale("u", h))


def lines(definition: Definition) -> dict[str, str]:
    return {left: right for _, left, right in Writer(definition).lines()}


def test_dropout_is_on_the_way_into_products() -> None:
    """Also through r * h, and not where h goes on beside them."""
    got = lines(with_recurrent_dropout(GRU(3, 4, reset_after=False).definition(), ("h",)))
    assert got == {
        "a1": "h[t-1] * keep_h[t]",
        "r": "sigmoid(W_r x[t] + bW_r + R_r a1 + bR_r)",
        "z": "sigmoid(W_z x[t] + bW_z + R_z a1 + bR_z)",
        "n": "tanh(W_n x[t] + bW_n + R_n (r * a1) + bR_n)",
        "h[t]": "(1 - z) * n + z * h[t-1]",
    }


def test_a_state_that_enters_no_product_is_masked_wherever_it_is_read() -> None:
    assert lines(with_recurrent_dropout(Independent(3, 4).definition(), ("h",))) == {
        "h[t]": "tanh(W_h x[t] + bW_h + u * (h[t-1] * keep_h[t]))"
    }
    both = lines(with_recurrent_dropout(LSTM(3, 4).definition(), ("h", "c")))
    assert both["c[t]"] == "f * (c[t-1] * keep_c[t]) + i * g"
    assert both["i"] == "sigmoid(W_i x[t] + bW_i + R_i a1 + bR_i)"


def test_zoneout_is_around_the_step() -> None:
    training = lines(with_zoneout(Elman(3, 4).definition(), ("h",)))
    assert training["h[t]"] == "where(stay_h[t], h[t-1], h)"
    assert lines(with_expected_zoneout(Elman(3, 4).definition(), {"h": 0.25}))["h[t]"] == "0.25 * h[t-1] + 0.75 * h"


def test_what_follows_from_a_state_sees_it_clipped() -> None:
    got = lines(with_state_clip(LSTM(3, 4).definition(), {"c": 3.0}))
    assert got["c[t]"] == "minimum(maximum(f * c[t-1] + i * g, (-3)), 3)"
    assert got["h[t]"] == "o * tanh(c[t])"


def test_a_state_that_is_the_input_is_clipped_as_the_next_state_only() -> None:
    class Shift(Equations):
        states = {"h": "hidden_size", "last": "input_size"}

        def step(self, x: Any, h: Any, last: Any) -> Any:
            return tanh(self.linear("a", x) + h), x

    got = lines(with_state_clip(Shift(3, 4).definition(), {"last": 1.0}))
    assert got == {"h[t]": "tanh(W_a x[t] + bW_a + h[t-1])", "last[t]": "minimum(maximum(x[t], (-1)), 1)"}


def test_a_reset_begins_with_the_learned_state() -> None:
    got = lines(with_reset(with_initial_state(Elman(3, 4).definition())))
    assert got["h[t]"] == "tanh(W_h x[t] + bW_h + R_h where(reset[t], initial_h, h[t-1]) + bR_h)"


def test_layer_norm_takes_every_product() -> None:
    definition = with_layer_norm(GRU(3, 4, bias=False).definition())
    assert list(definition.params) == ["weight_ih", "weight_hh", "gain_ih", "gain_hh"]
    assert definition.params["gain_hh"].slices == dict.fromkeys("rzn", "hidden_size")
    assert definition.params["gain_hh"].starts == dict.fromkeys("rzn", 1.0)
    assert sum(node.op == "sqrt" for node in definition.graph.nodes) == 6


WRAPPED = {
    "dropout": lambda d: with_recurrent_dropout(d, ("h", "c")),
    "zoneout": lambda d: with_zoneout(d, ("c",)),
    "expected zoneout": lambda d: with_expected_zoneout(d, {"h": 0.1}),
    "layer norm": with_layer_norm,
    "initial state": with_initial_state,
    "clip": lambda d: with_state_clip(d, {"h": 1.0}),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_result_is_a_definition(name: str) -> None:
    """It survives JSON, keeps the author's names, and its masks have no gradient to compute."""
    plain = LSTM(3, 4, peephole=True, proj_size=2).definition()
    definition = WRAPPED[name](plain)
    assert Definition.from_json(json.loads(json.dumps(definition.to_json()))) == definition
    assert set(definition.names().values()) == set(plain.names().values()) == {"i", "f", "g", "o"}
    found = Plan(with_reset(definition)).gradient.inputs
    assert found.pop("x") is not None
    assert set(found) == {*definition.masks, "reset"}
    assert not any(found.values())


def test_masks_are_listed_in_order() -> None:
    definition = with_reset(with_zoneout(with_recurrent_dropout(LSTM(3, 4).definition(), ("c", "h")), ("h",)))
    assert definition.masks == ("keep_c", "keep_h", "stay_h", "reset")


def test_names_that_are_taken() -> None:
    class Taken(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return tanh(self.linear("h", x) + self.bias("initial_h") * self.scale("gain_ih", h))

    with pytest.raises(OptionError, match="learn_initial_state for Taken, which has weights named initial_h already"):
        with_initial_state(Taken(3, 4).definition())
    with pytest.raises(OptionError, match="layer_norm for Taken, which has weights named gain_ih already"):
        with_layer_norm(Taken(3, 4).definition())


@pytest.mark.parametrize("initial", [{"h": "weight_hh"}, {"h": "absent"}, {"k": "initial_h"}, [1], {"h": 3}])
def test_a_wrong_initial_state_is_refused(initial: Any) -> None:
    tree = with_initial_state(Elman(2, 3).definition()).to_json()
    Definition.from_json(tree)
    with pytest.raises(CellError):
        Definition.from_json(tree | {"initial": initial})
