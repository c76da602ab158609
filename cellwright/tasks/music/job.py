"""Music for the commands: from files of tunes to a net, and from a net to tunes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cells import find
from ...errors import DataError, OptionError
from ...lang import Definition
from ...nn import Recurrent
from ..data.parts import Draw
from ..data.tables import named
from ..job import SHARE, Found, Job, layer_line
from ..pictures import figure_of, save
from .config import MusicConfig
from .files import Tune, tunes
from .keys import KEYS, LOWEST, Roll, name_of
from .net import WITHOUT_FIRST, MusicNet, MusicTask, Net, judge
from .rolls import TEST, TRAINING, VALIDATION, Rolls
from .write import LENGTH, check, compose, lines

_SHOWN = 64  # steps of a picture
_PARTS = {"train": TRAINING, "validation": VALIDATION, "test": TEST}


class MusicJob(Job):
    """The next step of a tune."""

    config = MusicConfig
    scales = ((SHARE, "accuracy"),)
    writes = ("prompt", "prompt_steps", "length", "temperature", "class_", "tempo", "out")

    def read(self, config: MusicConfig) -> Rolls:
        """All files, once."""
        if not config.data:
            raise DataError("there are no data: name files or folders, as in `cellwright train music DATA --out RUN`")
        data = Rolls()
        parts = [config.data, config.validation_data, config.test_data]
        found = [(tune for path in paths for tune in tunes(path, config, data.hash)) for paths in parts]
        shares = {
            TEST: 0.0 if config.test_data else config.test,
            VALIDATION: 0.0 if config.validation_data else config.validation,
        }
        draw = Draw(shares, config.seed)
        for tune in found[0]:
            data.add(tune, _PARTS[tune.part] if tune.part else draw())
        for part in (VALIDATION, TEST):
            for tune in found[part]:
                data.add(tune, part)
        data.close()
        self._enough(config, data)
        return data

    def _enough(self, config: MusicConfig, data: Rolls) -> None:
        names = ", ".join(config.data)
        counts = [len(data.part(part)) for part in (TRAINING, VALIDATION)]
        if not all(counts):
            raise DataError(
                f"{names}: {len(data)} tune(s), of which {counts[0]} to train on and {counts[1]} for validation; at "
                f"least one each is needed: give more tunes, a larger --validation, or --validation-data"
            )
        known = data.counts()
        if config.classes and len(known) < 2:
            raise DataError(f"{names}: all tunes have the class {next(iter(known))!r}; --classes needs two at least")
        if unknown := sorted(set(data.labels) - set(known)):
            raise DataError(
                f"{names}: no training tune has the class {unknown[0]!r}, and others have; add some, or leave it"
            )

    def settle(self, config: MusicConfig, data: Rolls) -> MusicConfig:
        """Steps and evaluations from epochs."""
        pieces = len(data.windows(data.part(TRAINING), config.window)[0])
        return config.scheduled(-(-pieces // config.batch))

    def learn(self, config: MusicConfig, data: Rolls) -> dict[str, Any]:
        """The classes, how often each key is down, and the cells."""
        indices = data.part(TRAINING)
        down = np.sum([data.keys[i].sum(0) for i in indices], axis=0)  # [88]
        share = (down + 1) / (data.keys.lengths[indices].sum() + 2)
        classes = sorted(data.counts()) if config.classes else []
        options: dict[str, Any] = config.options
        size, layers = KEYS + len(classes), []
        for _ in range(config.layers):
            layers.append(find(config.cell)(size, config.hidden, **options).definition())
            size = layers[-1].output_size
        music = {"classes": classes, "share": share.tolist()}
        return {"music.json": music, "cells.json": {"layers": [layer.to_json() for layer in layers]}}

    def build(self, config: MusicConfig, documents: Mapping[str, Any]) -> Net:
        """The net."""
        music = documents["music.json"]
        classes = tuple(map(str, music["classes"]))
        recurrent = Recurrent(
            [Definition.from_json(layer) for layer in documents["cells.json"]["layers"]],
            dropout=config.dropout if config.layers > 1 else 0.0,
            recurrent_dropout=config.recurrent_dropout,
        )
        share = torch.tensor(music["share"]).float()
        return Net(MusicNet(recurrent, len(classes), share, config.dropout, config.input_dropout), classes)

    def task(self, config: MusicConfig, net: Net, data: Rolls) -> MusicTask:
        """The tunes in batches."""
        return MusicTask(config, net, data)

    def facts(self, config: MusicConfig, net: Net, data: Rolls, task: MusicTask) -> dict[str, list[str]]:
        """Model, data and plan."""
        used = np.flatnonzero(np.any([data.keys[i].any(0) for i in range(len(data))], axis=0))
        counts = data.counts().most_common()
        sounding = sum(int(data.keys[i].sum()) for i in range(len(data))) / data.keys.lengths.sum()
        keys = [name_of(int(k) + LOWEST) for k in used]
        shown = ", ".join(f"{name} {n:,}" for name, n in counts[:6])
        return {
            "model": layer_line(
                config,
                net.model,
                f"input dropout {config.input_dropout:g}" if config.input_dropout else "",
                f"recurrent dropout {config.recurrent_dropout:g}" if config.recurrent_dropout else "",
            ),
            "data": [
                f"{len(data):,} tunes of {data.keys.lengths.mean():.1f} steps",
                f"{sounding:.2f} keys at once from {keys[0]} to {keys[-1]}" if keys else "no key is ever down",
                f"{len(counts)} classes ({shown})" if net.classes else "",
            ],
            "split": [
                f"{len(data.part(part)):,} {name}"
                for part, name in ((TRAINING, "to train on"), (VALIDATION, "for validation"), (TEST, "for the test"))
            ],
            "plan": [
                f"{config.steps} steps of {config.batch} sequences",
                f"{(config.steps or 0) / task.order.batches:.1f} epochs",
                f"moved by up to {config.transpose} semitones" if config.transpose else "",
            ],
        }

    def after(self, run: str) -> str:
        """How to let it play."""
        return f"the run is in {run}; let it play with:\n  cellwright generate {run} --out tune.mid --out tune.wav"

    def pictures(self, config: MusicConfig, net: Net, task: MusicTask, folder: Path) -> list[Path]:
        """A tune of the validation data, and one that goes on from its first steps."""
        chosen = int(task.data.part(VALIDATION)[0])
        real = task.data.keys[chosen][:_SHOWN]
        label = net.classes.index(task.data.labels[chosen]) if net.classes else None
        begin = real[: _SHOWN // 4]
        made = np.stack([*begin, *compose(net, _SHOWN - len(begin), seed=config.seed, label=label, prompt=begin)])
        what = f"by the net, from the first {len(begin)} steps on"
        return [_picture([("of the validation data", real), (what, made)], folder / "pianoroll.png")]

    def last_losses(self, task: MusicTask, count: int, steps: int | None) -> tuple[Recurrent, Callable[[], Tensor]]:
        """Those of the last steps of the first tunes for validation, or of so many of their steps."""
        recurrent: Recurrent = task.model.topology.recurrent
        return recurrent, partial(task.last_losses, count, steps)

    def evaluate(self, config: MusicConfig, net: Net, paths: Sequence[str], **options: Any) -> Found:
        """NLL per step of files, by the parts that they name."""
        data = Rolls()
        for tune in self._checked(net, (tune for path in paths for tune in tunes(str(path), config))):
            data.add(tune, _PARTS[tune.part] if tune.part else len(_PARTS))
        data.close()
        rows = [(name, data.part(k)) for k, name in enumerate([*_PARTS, "others"])]
        rows = [row for row in rows if len(row[1])]
        rows = [*rows, ("all", np.arange(len(data)))] if len(rows) > 1 else [("", rows[0][1])]
        text = []
        for name, indices in rows:
            found = judge(net, data, indices)
            numbers = found.measured
            text.append(
                f"{name + ': ' if name else ''}{found.tunes:,} tunes, {found.steps:,} steps, "
                f"{numbers['loss']:.4f} nats per step, accuracy {numbers['accuracy']:.4f}, "
                f"{WITHOUT_FIRST} {numbers[WITHOUT_FIRST]:.4f}"
            )
        return Found("\n".join(text), numbers, partial(_beside, net, data))

    def _checked(self, net: Net, found: Iterable[Tune]) -> Iterator[Tune]:
        """The same tunes. DataError: a class that the net does not know."""
        for tune in found:
            if net.classes and tune.label not in net.classes:
                raise DataError(
                    f"{tune.place} has the class {tune.label!r}, which was not in the training data; they had "
                    f"{named(net.classes)}; leave it out, or train with it"
                )
            yield tune

    def generate(self, config: MusicConfig, net: Net, seed: int, **options: Any) -> Iterator[str]:
        """A tune: a line per step, and files."""
        return _played(config, net, seed, **options)


def _played(
    config: MusicConfig,
    net: Net,
    seed: int,
    *,
    prompt: str = "",
    prompt_steps: int | None = None,
    length: int = LENGTH,
    temperature: float = 1.0,
    class_: str = "",
    tempo: float = 100.0,
    out: Sequence[Path] = (),
) -> Iterator[str]:
    """What follows the first steps of the file `prompt`, or a beginning."""
    check(length, temperature, tempo, out, prompt_steps)
    label = None
    if net.classes:
        if class_ not in net.classes:
            got = f"--class {class_}: there is no such class" if class_ else "--class is missing"
            raise OptionError(f"{got}; this net knows {named(net.classes)}")
        label = net.classes.index(class_)
    elif class_:
        raise OptionError(f"--class {class_}: this net was trained without classes; leave it away")
    begin = np.zeros((0, KEYS), np.uint8)
    if prompt:
        plain = config.changed(classes=False)
        begin = next(islice(tunes(prompt, plain), 1)).roll[:prompt_steps]
    elif prompt_steps is not None:
        raise OptionError(f"--prompt-steps {prompt_steps}: of what? name a file with --prompt")
    steps = compose(net, length, temperature=temperature, seed=seed, label=label, prompt=begin)
    return lines(steps, begin, out, config.step, tempo)


def _beside(net: Net, data: Rolls, file: Path) -> Path:
    """A tune, and how probable the net takes each key to be at each step."""
    one = np.array([0])
    size = np.minimum(data.keys.lengths[one], _SHOWN)
    x, keys, lengths, label = data.batch(one, np.zeros_like(one), size, net.classes)
    p = net.model.eval()(x, label, lengths=lengths)[0].sigmoid().detach()[:, 0].numpy()
    return _picture([("the tune", keys[:, 0].numpy()), ("probability of each key, from the steps before", p)], file)


def _picture(rolls: Sequence[tuple[str, Roll]], file: Path) -> Path:
    """Rolls one above the other, over the keys that are used."""
    used = np.flatnonzero(np.any([(roll > 0.05).any(0) for _, roll in rolls], axis=0))
    low, high = (int(used[0]), int(used[-1])) if len(used) else (0, KEYS - 1)
    figure, axes = figure_of(9, 2.6 * len(rolls), rows=len(rolls))
    ticks = [key for key in range(low, high + 1) if (key + LOWEST) % 12 == 0]  # every C
    longest = max(len(roll) for _, roll in rolls)
    for ax, (title, roll) in zip(axes, rolls, strict=True):
        black = np.zeros(roll.T.shape)
        ax.imshow(black, alpha=roll.T.astype(float), aspect="auto", origin="lower", cmap="gray", vmin=0, vmax=1,
                  interpolation="nearest", zorder=2)  # above the grid  # fmt: skip
        ax.set_ylim(low - 1.5, high + 1.5)
        ax.set_xlim(-0.5, longest - 0.5)
        ax.set_yticks(ticks, [name_of(key + LOWEST) for key in ticks])
        ax.grid(axis="y", alpha=0.3)
        ax.set_title(title, fontsize=9)
        ax.set_ylabel("key")
    axes[-1].set_xlabel("step")
    return save(figure, file)


JOB = MusicJob()
