"""The plan: what is hoisted, the stages, what is saved; and that it says the truth is tested in emit/."""

from typing import Any

import pytest

from cellwright import ACTIVATIONS, Equations, exp, sigmoid, tanh
from cellwright.cells import GRU, LSTM, Elman
from cellwright.lang import Plan, with_reset, with_valid


def products(stages: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(s.product.matrix, s.product.parts) for s in stages if s.product]


def test_lstm_has_one_stage_and_saves_its_gates() -> None:
    plan = Plan(LSTM(3, 5).definition())
    gates = ("i", "f", "g", "o")
    assert products(plan.forward.hoisted) == [("weight_ih", gates)]
    assert products(plan.forward.loop) == [("weight_hh", gates)]
    labels = plan.definition.graph.labels
    assert [labels[i] for i in plan.backward.saved] == list(gates)
    assert products(plan.backward.loop) == [("weight_hh", gates)]
    assert products(plan.backward.after) == [("weight_ih", gates)]


def test_gru_before_has_two_stages() -> None:
    plan = Plan(GRU(3, 5, reset_after=False).definition())
    assert products(plan.forward.loop) == [("weight_hh", ("r", "z")), ("weight_hh", ("n",))]
    assert products(plan.backward.loop) == [("weight_hh", ("n",)), ("weight_hh", ("r", "z"))]
    assert len(products(Plan(GRU(3, 5).definition()).forward.loop)) == 1


def test_projection_is_a_second_stage() -> None:
    plan = Plan(LSTM(3, 5, proj_size=2).definition())
    assert [name for name, _ in products(plan.forward.loop)] == ["weight_hh", "weight_hr"]


def test_each_stage_has_at_most_one_product_and_all_it_needs() -> None:
    for cell in (Elman(3, 5), LSTM(3, 5, peephole=True, coupled=True, proj_size=2), GRU(3, 5, reset_after=False)):
        definition = with_valid(with_reset(cell.definition()))
        plan = Plan(definition)
        for graph, ordered in (
            (definition.graph, [*plan.forward.hoisted, *plan.forward.loop]),
            (
                plan.gradient.graph,
                [*plan.forward.hoisted, *plan.forward.loop, *plan.backward.loop, *plan.backward.after],
            ),
        ):
            known = {i for i, n in enumerate(graph.nodes) if not n.args}
            for stage in ordered:
                if stage.product:
                    assert set(stage.product.sources) <= known
                    known |= set(stage.product.results)
                for i in stage.nodes:
                    assert set(graph.nodes[i].args) <= known
                    known.add(i)


def test_work_on_the_input_alone_is_hoisted() -> None:
    class Minimal(Equations):
        """minGRU: gates see the input only."""

        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            z = sigmoid(self.linear("z", x))
            return (1 - z) * h + z * self.linear("n", x)

    plan = Plan(Minimal(3, 5).definition())
    assert products(plan.forward.loop) == []
    assert [plan.definition.graph.nodes[i].op for s in plan.forward.hoisted for i in s.nodes] == [
        "sigmoid",
        "sub",
        "mul",
    ]
    assert products(plan.backward.loop) == []


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_saves_one_vector_at_most(name: str) -> None:
    """Whatever the activation is made of, its argument (or the state itself) is enough to go back."""
    plan = Plan(Elman(3, 5, activation=name).definition())
    assert len(plan.backward.saved) <= 1


def test_saved_is_the_smallest_cut() -> None:
    class Branches(Equations):
        """Three wanted values that all come from one."""

        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            a = self.linear("a", x) + self.linear("a", h)
            return tanh(a) * sigmoid(a) * exp(a)

    plan = Plan(Branches(3, 5).definition())
    assert [plan.definition.graph.labels[i] for i in plan.backward.saved] == ["a"]


def test_masks_reach_every_state() -> None:
    definition = with_valid(with_reset(LSTM(3, 5).definition()))
    assert set(definition.graph.find("input")) == {"x", "reset", "valid"}
    for i in definition.results.values():
        assert definition.graph.nodes[i].op == "where"
