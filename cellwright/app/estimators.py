"""`Classifier`, `Tagger`, `Forecaster`: these tasks with `fit`, `predict` and `score`, on data in memory."""

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..errors import InputError, RunError
from ..tasks.classify.job import ClassifyJob, symbols_of
from ..tasks.data.columns import filled, with_deltas
from ..tasks.forecast.arrays import frames_of, is_many
from ..tasks.forecast.job import ForecastJob
from ..tasks.forecast.windows import Windows
from ..tasks.labels.dataset import Dataset, Example
from ..tasks.labels.job import LabelJob
from ..tasks.labels.net import Judgement
from ..tasks.tag.job import TagJob
from ..train.progress import Lines, display
from .runs import Loaded, load, start

if TYPE_CHECKING:
    from typing_extensions import Self


class _Estimator:
    """Settings, and after `fit` or `load` a net."""

    _job: Any

    def __init__(self, *, out: str | Path | None = None, quiet: bool = True, **settings: Any) -> None:
        self._config: Any = self._job.config.checked(settings)
        self._out, self._quiet = out, quiet
        self._loaded: Loaded | None = None

    @classmethod
    def load(cls, run: str | Path) -> "Self":
        """The net of a run folder, also of one that the command line has made. RunError: not such a folder."""
        loaded = load(Path(run))
        if type(loaded.job) is not type(cls._job):
            raise RunError(f"{run} is a run of {loaded.config.task}, expected one of {cls._job.config.task}")
        made = cls()
        made._loaded, made._config = loaded, loaded.config
        return made

    def _train(self, config: Any, data: Any) -> "Self":
        shown = Lines(Console(file=io.StringIO())) if self._quiet else display(Console())
        with tempfile.TemporaryDirectory(prefix="cellwright-") as folder:
            out = Path(folder, "run") if self._out is None else Path(self._out)
            if not start(config, out, shown, data=data):
                raise KeyboardInterrupt
            self._loaded = load(out)
        return self

    @property
    def _fitted(self) -> Loaded:
        if self._loaded is None:
            raise RunError(f"this {type(self).__name__} has not learned anything yet; call fit first, or load a run")
        return self._loaded


class _Labeller(_Estimator):
    """What gives labels."""

    _job: LabelJob

    def fit(self, X: Iterable[Any], y: Iterable[Any]) -> "Self":
        """Train on sequences `X` with labels `y`. Returns itself.

        InputError, DataError: X and y do not fit, or are too few. RunError: the folder `out` is in use.
        """
        examples = list(self._examples(X, y))
        config = self._config
        features = examples[0].inputs.shape[1] if examples and isinstance(examples[0].inputs, np.ndarray) else 0
        if features and hasattr(config, "series"):
            config = config.changed(series=features)
        data = self._job.gather(config, Dataset(), self._layout(features), examples)
        return self._train(config, data)

    @property
    def classes_(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        classes: tuple[str, ...] = self._fitted.net.encoding.labels
        return classes

    def _scored(self, X: Iterable[Any], y: Iterable[Any] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for _, scores, truth in self._job.answers(self._fitted.net, self._examples(X, y)):
            yield scores, truth

    def score(self, X: Iterable[Any], y: Iterable[Any]) -> float:
        """The share of right labels. DataError: a label that was not in the training data."""
        return self.measure(X, y)["accuracy"]

    def measure(self, X: Iterable[Any], y: Iterable[Any]) -> dict[str, float]:
        """Loss in nats per label, accuracy, macro F1, and for a tagger the F1 of spans, by name."""
        judgement: Judgement = self._fitted.net.judgement()
        for scores, truth in self._scored(X, y):
            judgement.add(scores, truth)
        return judgement.measured

    def _examples(self, X: Iterable[Any], y: Iterable[Any] | None) -> Iterator[Example]:
        if isinstance(X, str) or isinstance(y, str):
            raise InputError("got one text as X or y, expected a list of sequences and a list of labels")
        rows, labels = list(X), None if y is None else list(y)
        if labels is not None and len(labels) != len(rows):
            raise InputError(f"got {len(rows)} sequences and {len(labels)} labels, expected as many of both")
        for n, row in enumerate(rows):
            inputs = self._inputs(row, f"X[{n}]")
            if not len(inputs):
                raise InputError(f"got an empty sequence as X[{n}], expected one step or more")
            yield Example(f"X[{n}]", inputs, [] if labels is None else self._labels(labels[n], len(inputs), n), row)

    def _inputs(self, row: Any, place: str) -> Any:
        """Numbers [T, F], or symbols."""
        try:
            values = np.asarray(row, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"got {place} that is neither text nor an array of numbers [T] or [T, F]") from None
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2:
            raise InputError(f"got {place} of shape {values.shape}, expected [T] or [T, F]")
        if not np.isfinite(values).all() and not (self._config.fill and not np.isinf(values).any()):
            t, f = (int(k[0]) for k in np.nonzero(~np.isfinite(values)))
            raise InputError(
                f"got {values[t, f]} in {place}, step {t}, feature {f}; expected finite numbers, or fill='mean', "
                f"'previous' or 'zero' for missing ones"
            )
        return filled(values, self._config.fill)

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[str]:
        raise NotImplementedError

    def _layout(self, features: int) -> dict[str, Any]:
        raise NotImplementedError


class Classifier(_Labeller):
    """The class of a text or of a series: N to 1.

        model = Classifier(hidden=64, epochs=10).fit(["Schmidt", "Rossi", ...], ["German", "Italian", ...])
        model.predict(["Weber"])

    Args:
        out: a new folder for the run; None: one that is removed after the training.
        quiet: False shows the progress.
        settings: the options of `cellwright train classify`, such as hidden, epochs, level="word", pool="attention".

    OptionError: a setting that is not possible.
    """

    _job = ClassifyJob()

    def predict(self, X: Iterable[Any]) -> list[str]:
        """A class per sequence: texts, or arrays of numbers [T] or [T, F]."""
        return [self.classes_[int(scores[0].argmax())] for scores, _ in self._scored(X)]

    def predict_proba(self, X: Iterable[Any]) -> NDArray[np.float64]:
        """Probabilities [N, K], in the order of `classes_`."""
        found = [np.exp(scores[0]) for scores, _ in self._scored(X)]
        return np.stack(found) if found else np.empty((0, len(self.classes_)))

    def _inputs(self, row: Any, place: str) -> Any:
        return symbols_of(row, self._config) if isinstance(row, str) else super()._inputs(row, place)

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[str]:
        return [str(given)]

    def _layout(self, features: int) -> dict[str, Any]:
        columns = {"columns": [], "named": False} if features else {"text": "text"}
        return {"label": "label", **columns}


class Tagger(_Labeller):
    """A label for every word of a sentence, or for every frame of a recording: N to N.

        model = Tagger(epochs=10).fit([["the", "dog", "barks"], ...], [["DET", "NOUN", "VERB"], ...])
        model.predict([["a", "cat", "sleeps"]])

    Args:
        out: a new folder for the run; None: one that is removed after the training.
        quiet: False shows the progress.
        settings: the options of `cellwright train tag`, such as hidden, epochs, characters.

    OptionError: a setting that is not possible.
    """

    _job = TagJob()

    def predict(self, X: Iterable[Any]) -> list[list[str]]:
        """Labels per sequence: lists of words, or arrays of numbers [T] or [T, F]."""
        return [[self.classes_[k] for k in scores.argmax(-1)] for scores, _ in self._scored(X)]

    def predict_proba(self, X: Iterable[Any]) -> list[NDArray[np.float64]]:
        """Probabilities [T, K] per sequence, in the order of `classes_`."""
        return [np.exp(scores) for scores, _ in self._scored(X)]

    def _inputs(self, row: Any, place: str) -> Any:
        if isinstance(row, str):
            raise InputError(f"got the text {row[:40]!r} as {place}, expected a list of words: text.split()")
        words = list(row)
        if words and all(isinstance(word, str) for word in words):
            return words
        values = super()._inputs(row, place)
        return with_deltas(values) if self._config.deltas and len(values) else values

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[str]:
        if isinstance(given, str) or len(given) != steps:
            got = "one text" if isinstance(given, str) else f"{len(given)} labels"
            raise InputError(f"got {got} as y[{n}], expected {steps} labels, one for each step of X[{n}]")
        return [str(label) for label in given]

    def _layout(self, features: int) -> dict[str, Any]:
        if not features:
            return {"kind": "words"}
        given = features // 2 if self._config.deltas else features
        return {"kind": "frames", "label": "label", "columns": [str(k + 1) for k in range(given)]}


class Forecaster(_Estimator):
    """The next values of series, with intervals: N to M.

        model = Forecaster(horizon=12, season=12, hidden=64).fit(passengers)
        model.predict(passengers)

    `y` is a series: [T], or [T, K] for several targets; or a list of series. Beside it, of the same form: `X`, numbers
    known up to now, [T] or [T, C]; `known`, numbers known for the horizon too: T rows, and for `predict` H more;
    `times` [T]: dates (numpy's datetime64, datetime, or text such as "2024-01-31") or numbers, in regular steps.

    Args:
        out: a new folder for the run; None: one that is removed after the training.
        quiet: False shows the progress.
        settings: the options of `cellwright train forecast`, such as horizon, window, season, quantile=(0.05, 0.95).

    OptionError: a setting that is not possible.
    """

    _job = ForecastJob()

    def fit(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> "Self":
        """Train. Returns itself.

        InputError, DataError: the arrays do not fit, are too short, or lack values. RunError: `out` is in use.
        """
        self._train(self._config, frames_of(self._config, y, X, known, times))
        self._config = self._fitted.config
        return self

    @property
    def quantiles_(self) -> tuple[float, ...]:
        """The quantiles that are forecast."""
        found: tuple[float, ...] = self._config.quantiles
        return found

    def predict_quantiles(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> Any:
        """Quantiles of the next H values of each series: [H, Q] or [H, K, Q], or a list of such arrays."""
        windows = self._windows(y, X, known, times)
        found = [values for _, _, values in self._job.told(self._fitted.net, windows)]
        many = is_many(y)
        narrow = np.ndim(y[0] if many else y) == 1
        found = [values[:, 0] if narrow else values for values in found]
        return found if many else found[0]

    def predict(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> Any:
        """Medians of the next H values of each series: [H] or [H, K], or a list of such arrays."""
        found = self.predict_quantiles(y, X, known, times)
        middle = self.quantiles_.index(0.5)
        return [values[..., middle] for values in found] if isinstance(found, list) else found[..., middle]

    def score(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> float:
        """1 - MASE / MASE of the seasonal naive forecast, from every origin: 1 is perfect, 0 as good as naive."""
        measured = self.measure(y, X, known, times)
        return 1 - measured["MASE"] / max(measured["naive MASE"], 1e-30)

    def measure(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> dict[str, float]:
        """MAE, RMSE, MASE, that of the seasonal naive forecast, quantile loss and coverage, by name.

        With `times`, what the net has learned from is left out.
        """
        windows = self._windows(y, X, known, times)
        return dict(self._job.judged(self._fitted.net, windows, windows.config.stride, "y").numbers)

    def _windows(self, y: Any, X: Any, known: Any, times: Any) -> Windows:
        config, knows = self._fitted.config, self._fitted.net.knows
        return Windows(config, frames_of(config, y, X, known, times, knows), knows)
