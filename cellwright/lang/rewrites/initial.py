"""The state before the first step as weights of the cell."""

from dataclasses import replace

from ...errors import OptionError
from ..definition import Definition
from ..graph import Param


def with_initial_state(definition: Definition) -> Definition:
    """Add weights `initial_{state}`, zero at first: the state that a sequence begins with, also after a reset."""
    initial = {name: f"initial_{name}" for name in definition.states}
    if taken := set(initial.values()) & set(definition.params):
        raise OptionError(
            f"got learn_initial_state for {definition.name}, which has weights named {min(taken)} already"
        )
    weights = {
        name: Param(name, {name: definition.states[state]}, None, random=False) for state, name in initial.items()
    }
    return replace(definition, params=definition.params | weights, initial=initial)
