"""Series out of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .clock import ROW, Clock, Style, style_of
from .config import ForecastConfig
from .frames import Frames, Layout
from .windows import Knowledge

_MENDS = {
    "fill": "choose fill='mean', 'previous' or 'zero'",
    "time": "leave times away",
    "log": "leave log away",
}


def is_many(y: Any) -> bool:
    """Whether it is a list of series, and not one series."""
    return isinstance(y, (list, tuple)) and len(y) > 0 and np.ndim(y[0]) > 0


def frames_of(config: ForecastConfig, y: Any, X: Any, known: Any, times: Any, knows: Knowledge | None = None) -> Frames:
    """One series or a list of them, for training, or as those that a net `knows`. InputError: they do not fit."""
    given = {"y": y, "X": X, "known": known, "times": times}
    many = is_many(y)
    if many:
        for name, part in given.items():
            if part is not None and len(part) != len(y):
                raise InputError(f"got {len(part)} series as {name}, expected {len(y)} as in y")
    series = []
    for k in range(len(y) if many else 1):
        at = f"[{k}]" if many else ""
        series.append(
            _series({name: part if part is None or not many else part[k] for name, part in given.items()}, at)
        )
    _, widths, style = series[0]
    for k, (_, *other) in enumerate(series):
        if other != [widths, style]:
            raise InputError(f"got y[{k}] with other columns or another kind of times than y[0], expected the same")
    names = [tuple(f"{name}{i}" for i in range(width)) for name, width in zip(("y", "X", "known"), widths, strict=True)]
    layout = Layout(style, "" if style.kind == ROW else "times", "", *names)
    if knows is not None and (layout.columns, style.kind) != (knows.layout.columns, knows.layout.style.kind):
        raise InputError(
            f"got numbers {', '.join(layout.columns)} with times of the kind {style.kind!r}, and the model was fitted "
            f"to {', '.join(knows.layout.columns)} with the kind {knows.layout.style.kind!r}"
        )
    mends = {"fill": _MENDS["fill"].replace("choose", "fit with")} if knows else _MENDS
    frames = Frames(layout, config.fill, config.log, 0 if knows else config.rows, knows.clock if knows else None, mends)
    for k, (rows, *_) in enumerate(series):
        file = f"y[{k}]" if many else "y"
        frames.hash.update(rows.tobytes())
        frames.add(rows, [frames.key(file, file if many else "")] * len(rows))
    return frames.close()


def _series(given: dict[str, Any], at: str) -> tuple[NDArray[np.float64], tuple[int, ...], Style]:
    """Rows [T or more, 2 + columns], how many columns of each kind, and how times are written."""
    parts = {name: _columns(given[name], name + at) for name in ("y", "X", "known")}
    T, steps = len(parts["y"]), max(len(parts["y"]), len(parts["known"]))
    if not T:
        raise InputError(f"got no steps as y{at}, expected an array [T] or [T, K]")
    for name in ("X", "known"):
        if parts[name].shape[1] and (len(parts[name]) < T or (name == "X" and len(parts[name]) > T)):
            more = ", or more for the future" if name == "known" else ""
            raise InputError(f"got {len(parts[name])} rows as {name}{at}, expected {T} as in y{at}{more}")
    style, clock = _times(given["times"], T, steps, at)
    rows = np.full((steps, 2 + sum(part.shape[1] for part in parts.values())), np.nan)
    rows[:, 0], rows[:, 1] = np.arange(steps), clock
    column = 2
    for part in parts.values():
        rows[: len(part), column : column + part.shape[1]] = part
        column += part.shape[1]
    return rows, tuple(part.shape[1] for part in parts.values()), style


def _columns(given: Any, name: str) -> NDArray[np.float64]:
    if given is None:
        return np.empty((0, 0))
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"got {name} that is no array of numbers, expected [T] or [T, K]") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise InputError(f"got {name} of shape {np.shape(given)}, expected [T] or [T, K]")
    return values


def _times(given: Any, T: int, steps: int, at: str) -> tuple[Style, NDArray[np.float64]]:
    """How times are written, and the times of all steps; those of the future follow."""
    if given is None:
        return Style(ROW), np.arange(steps, dtype=np.float64)
    cells = [str(time) for time in np.asarray(given).tolist()] if np.ndim(given) == 1 else []
    if np.asarray(given).dtype.kind == "M":
        cells = [str(time) for time in np.asarray(given, "datetime64[s]")]
    if len(cells) not in (T, steps):
        raise InputError(f"got times{at} of shape {np.shape(given)}, expected {T} times, one for each step of y{at}")
    try:
        style = style_of(cells[0])
        found = np.array([style.read(cell) for cell in cells])
    except (ValueError, OverflowError) as error:
        raise InputError(f"got {str(error)!r} in times{at}, expected dates such as 2024-01-31, or numbers") from None
    if len(found) < steps:
        try:
            clock = Clock.learn(found, style.dates)
        except ValueError:
            raise InputError(f"got times{at} that never grow, expected one step after the other") from None
        found = np.concatenate([found, clock.at(found[-1], 1 + np.arange(steps - len(found)))])
    return style, found
