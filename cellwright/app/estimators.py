"""`Classifier`, `Tagger`, `Forecaster`: these tasks with `fit`, `predict` and `score`, on data in memory."""

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..errors import InputError, OptionError, RunError
from ..tasks.classify.job import ClassifyJob, symbols_of
from ..tasks.data.columns import filled, with_deltas
from ..tasks.forecast.arrays import frames_of, is_many
from ..tasks.forecast.job import ForecastJob
from ..tasks.forecast.windows import Windows
from ..tasks.labels.dataset import Dataset, Example
from ..tasks.labels.job import LabelJob
from ..tasks.labels.kinds import kind_of, spelled, values
from ..tasks.labels.net import Judgement
from ..tasks.settings import in_python
from ..tasks.tag.job import TagJob
from ..train.progress import Lines, display
from .runs import Loaded, load, start

if TYPE_CHECKING:
    from typing_extensions import Self

_LEFT = (("out", None), ("quiet", True))  # what goes without saying


class NotFittedError(RunError, AttributeError):
    """There is no net yet. An AttributeError too, so that `hasattr(model, "classes_")` says so."""


class _Estimator:
    """Settings, and after `fit` or `load` a net.

    `get_params` and `set_params` are those of scikit-learn, whose `clone`, `cross_val_score` and `GridSearchCV` take
    these classes.
    """

    _job: Any
    _kind = ""  # scikit-learn's: "classifier", "regressor" or neither

    def __init__(self, *, out: str | Path | None = None, quiet: bool = True, **settings: Any) -> None:
        self._given: dict[str, Any] = {}
        self._loaded: Loaded | None = None
        self.set_params(out=out, quiet=quiet, **settings)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """`out`, `quiet` and the settings that were given, by name."""
        return dict(self._given)

    @in_python()
    def set_params(self, **params: Any) -> "Self":
        """Change some of them, for the next `fit`. Returns itself. OptionError: a setting that is not possible."""
        given = {**self._given, **params}
        settings = {name: value for name, value in given.items() if name not in ("out", "quiet")}
        if files := sorted(settings.keys() & set(self._job.config.paths)):
            raise OptionError(
                f"got the setting {files[0]}={settings[files[0]]!r}; files are for the command: give data to fit"
            )
        self._wanted: Any = self._job.config.checked(settings)
        if self._loaded is None:
            self._config = self._wanted  # as data are read
        self._given = given
        return self

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._given.items() if (name, value) not in _LEFT)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_is_fitted__(self) -> bool:
        return self._loaded is not None

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, which alone asks for it, has to know."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=self._kind or None, target_tags=TargetTags(required=True))

    @classmethod
    def load(cls, run: str | Path) -> "Self":
        """The net of a run folder, also of one that the command line has made. RunError: not such a folder."""
        loaded = load(Path(run))
        if type(loaded.job) is not type(cls._job):
            raise RunError(f"{run} is a run of {loaded.config.task}, expected one of {cls._job.config.task}")
        given = loaded.config.model_dump(exclude_defaults=True, exclude=set(cls._job.config.paths))
        made = cls(**given)
        made._loaded, made._config = loaded, loaded.config
        return made

    def _begin(self) -> Any:
        """The settings of a new training; what was learned before is forgotten."""
        self._loaded, self._config = None, self._wanted
        return self._config

    def _train(self, config: Any, data: Any) -> "Self":
        shown = Lines(Console(file=io.StringIO())) if self._given["quiet"] else display(Console())
        with tempfile.TemporaryDirectory(prefix="cellwright-") as folder:
            out = Path(folder, "run") if self._given["out"] is None else Path(self._given["out"])
            if not start(config, out, shown, data=data):
                raise KeyboardInterrupt
            self._loaded = load(out)
        self._config = self._loaded.config
        return self

    @property
    def _fitted(self) -> Loaded:
        if self._loaded is None:
            raise NotFittedError(
                f"this {type(self).__name__} has not learned anything yet; call fit first, or load a run"
            )
        return self._loaded


class _Labeller(_Estimator):
    """What gives labels."""

    _job: LabelJob

    @in_python()
    def fit(self, X: Iterable[Any], y: Iterable[Any]) -> "Self":
        """Train on sequences `X` with labels `y`. Returns itself.

        InputError, DataError: X and y do not fit, or are too few. RunError: the folder `out` is in use.
        """
        if y is None:
            raise InputError("got no y, expected labels beside X")
        config = self._begin()
        examples = list(self._examples(X, y))
        kind = kind_of(label for example in examples for label in example.labels)
        features = examples[0].inputs.shape[1] if examples and isinstance(examples[0].inputs, np.ndarray) else 0
        if features and hasattr(config, "series"):
            config = config.changed(series=features)
        layout = {**self._layout(features), "labels": kind}
        return self._train(config, self._job.gather(config, Dataset(), layout, (_spelled(e, kind) for e in examples)))

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels [K], sorted, as the probabilities are: texts, or numbers or truth values if all were such."""
        encoding = self._fitted.net.encoding
        return values(encoding.labels, encoding.layout.get("labels", ""))

    def _scored(self, X: Iterable[Any], y: Iterable[Any] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        net = self._fitted.net
        kind = net.encoding.layout.get("labels", "")
        for _, scores, truth in self._job.answers(net, (_spelled(e, kind) for e in self._examples(X, y))):
            yield scores, truth

    def _probabilities(self, X: Iterable[Any]) -> Iterator[NDArray[np.float64]]:
        """[1 or T, K] per sequence. They add up to 1 in float64, as the net's float32 do not."""
        for scores, _ in self._scored(X):
            p: NDArray[np.float64] = np.exp(scores)
            yield p / p.sum(-1, keepdims=True)

    def score(self, X: Iterable[Any], y: Iterable[Any]) -> float:
        """The share of right labels. DataError: a label that was not in the training data."""
        return self.measure(X, y)["accuracy"]

    def measure(self, X: Iterable[Any], y: Iterable[Any]) -> dict[str, float]:
        """Loss in nats per label, accuracy, macro F1, and for a tagger the F1 of spans, by name."""
        judgement: Judgement = self._fitted.net.judgement()
        for scores, truth in self._scored(X, y):
            judgement.add(scores, truth)
        if not judgement.confusion.counts.any():
            raise InputError("got no sequence as X, expected one or more to measure with")
        return judgement.measured

    def _examples(self, X: Iterable[Any], y: Iterable[Any] | None) -> Iterator[Example]:
        if isinstance(X, str) or isinstance(y, str):
            raise InputError("got one text as X or y, expected a list of sequences and a list of labels")
        if not hasattr(X, "__iter__") or not (y is None or hasattr(y, "__iter__")):
            raise InputError(f"got {X!r:.40} as X and {y!r:.40} as y, expected a list of sequences and one of labels")
        # A table of pandas is iterated over its columns.
        rows = list(X.to_numpy() if hasattr(X, "to_numpy") and getattr(X, "ndim", 1) > 1 else X)
        labels = None if y is None else list(y)
        if labels is not None and len(labels) != len(rows):
            raise InputError(f"got {len(rows)} sequences and {len(labels)} labels, expected as many of both")
        for n, row in enumerate(rows):
            inputs = self._inputs(row, f"X[{n}]")
            if not len(inputs):
                raise InputError(f"got an empty sequence as X[{n}], expected one step or more")
            given = () if labels is None else self._labels(labels[n], len(inputs), n)
            if wrong := [k for k in given if np.ndim(k) or k is None or k != k or k == ""]:  # NaN is not itself
                raise InputError(f"got {wrong[0]!r} as a label in y[{n}], expected a text, a number or a truth value")
            yield Example(f"X[{n}]", inputs, given, row)

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

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[Any]:
        """The labels of one sequence."""
        raise NotImplementedError

    def _layout(self, features: int) -> dict[str, Any]:
        raise NotImplementedError


def _spelled(example: Example, kind: str) -> Example:
    return replace(example, labels=[spelled(label, kind) for label in example.labels])


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
    _kind = "classifier"

    def predict(self, X: Iterable[Any]) -> NDArray[Any]:
        """A class per sequence, [N], out of `classes_`; sequences are texts, or arrays of numbers [T] or [T, F]."""
        found: NDArray[Any] = self.classes_[np.array([scores[0].argmax() for scores, _ in self._scored(X)], int)]
        return found

    def predict_proba(self, X: Iterable[Any]) -> NDArray[np.float64]:
        """Probabilities [N, K], in the order of `classes_`."""
        return np.array([p[0] for p in self._probabilities(X)]).reshape(-1, len(self.classes_))

    def _inputs(self, row: Any, place: str) -> Any:
        return symbols_of(row, self._config) if isinstance(row, str) else super()._inputs(row, place)

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[Any]:
        return [given]

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

    def predict(self, X: Iterable[Any]) -> list[list[Any]]:
        """Labels per sequence: lists of words, or arrays of numbers [T] or [T, F]."""
        classes = self.classes_.tolist()
        return [[classes[k] for k in scores.argmax(-1)] for scores, _ in self._scored(X)]

    def predict_proba(self, X: Iterable[Any]) -> list[NDArray[np.float64]]:
        """Probabilities [T, K] per sequence, in the order of `classes_`."""
        return list(self._probabilities(X))

    def _inputs(self, row: Any, place: str) -> Any:
        if isinstance(row, str):
            raise InputError(f"got the text {row[:40]!r} as {place}, expected a list of words: text.split()")
        words = list(row)
        if words and all(isinstance(word, str) for word in words):
            return words
        values = super()._inputs(row, place)
        return with_deltas(values) if self._config.deltas and len(values) else values

    def _labels(self, given: Any, steps: int, n: int) -> Sequence[Any]:
        if isinstance(given, str) or not hasattr(given, "__len__") or len(given) != steps:
            got = f"{len(given)} labels" if hasattr(given, "__len__") and not isinstance(given, str) else repr(given)
            raise InputError(f"got {got} as y[{n}], expected {steps} labels, one for each step of X[{n}]")
        return list(given)

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

    @in_python()
    def fit(self, y: Any, X: Any = None, known: Any = None, times: Any = None) -> "Self":
        """Train. Returns itself.

        InputError, DataError: the arrays do not fit, are too short, or lack values. RunError: `out` is in use.
        """
        config = self._begin()
        return self._train(config, frames_of(config, y, X, known, times))

    @property
    def quantiles_(self) -> tuple[float, ...]:
        """The quantiles that are forecast."""
        found: tuple[float, ...] = self._fitted.config.quantiles
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
