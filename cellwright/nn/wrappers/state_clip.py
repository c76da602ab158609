"""Limits on the values of states (Sak, Senior & Beaufays 2014)."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ...errors import OptionError
from ...lang import Definition, with_state_clip
from .rates import check_names


def clipped(definition: Definition, limit: Any) -> Definition:
    """The equations with every next state limited to [-limit, limit], but auxiliary ones; {"c": 3.0} limits these.

    OptionError: a limit that is not greater than 0; a state that the cell does not have.
    """
    limits = limit if isinstance(limit, Mapping) else dict.fromkeys(definition.plain, limit)
    check_names("state_clip", limits, definition.states, definition)
    for value in limits.values():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise OptionError(f"got state_clip={limit!r}, expected a number greater than 0, or such by state")
    return with_state_clip(definition, {name: float(value) for name, value in limits.items()})
