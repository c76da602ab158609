"""Whole jobs on real data: from files to a number that was set as a goal, within a limit of training time.

    python -m benchmarks.jobs --data FOLDER [--only names tags ...] [--json FILE] [--threads N]

FOLDER has the public data sets under these names; a job whose data are not there is left out, and said so. The probes
of memory (adding, copy) make their own data.

    names/*.txt           a file per language, a name per line        spro/practical-pytorch, MIT
    ud_ewt/*.conllu       Universal Dependencies English Web Treebank  UD_English-EWT, CC BY-SA 4.0
    gesture_phase/*.csv   a1_raw, b1_raw, a2_raw                       UCI Gesture Phase Segmentation, CC BY 4.0
    mnist10k/             mnist10k_train.npz, the official test files  MNIST
    timeseries/           ETTh1.csv                                    zhouhaoyi/ETDataset, CC BY-ND 4.0
    fsdd/recordings/*.wav DIGIT_SPEAKER_INDEX.wav                      Jakobovski/free-spoken-digit-dataset, BY-SA
    music/                JSB_Chorales.mat, 88 keys                    Boulanger-Lewandowski et al. 2012
    nlvr_caption/         nlvr_50x200.npz                              lil-lab/nlvr, CC BY 4.0

The pairs of `dates` are made here.

Each job is a command of the command line, which is printed. The result is that of the test data, with the weights of
the best validation loss; the seconds are those of the training with its evaluations.
"""

import argparse
import csv
import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from cellwright.tasks.scores import Confusion

from . import captions, dates
from .report import arguments, heading, machine, write


@dataclass(frozen=True)
class Job:
    """A goal, and the command that is to reach it. `{data}` and `{work}` in the arguments are folders."""

    title: str
    needs: str
    measure: str
    goal: float | None  # None: better than the baselines
    minutes: float
    command: tuple[str, ...]
    prepare: Callable[[Path, Path], None] = field(default=lambda data, work: None)
    baselines: Callable[[Path], dict[str, float]] = field(default=lambda data: {})
    sign: int = 1  # -1: less is better


def images(data: Path, work: Path) -> None:
    """The digits as tables: the label, and 28 rows of 28 grey values."""
    with np.load(data / "mnist10k" / "mnist10k_train.npz") as held:
        _digits(work / "train.csv", held["x"], held["y"])
    raw = {kind: gzip.decompress(next((data / "mnist10k").glob(f"t10k-{kind}*")).read_bytes()) for kind in ("im", "la")}
    pixels = np.frombuffer(raw["im"], np.uint8, offset=16).reshape(-1, 784)
    _digits(work / "test.csv", pixels, np.frombuffer(raw["la"], np.uint8, offset=8))


def _digits(path: Path, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", *(f"pixel{k}" for k in range(784))])
        for row, label in zip(pixels.reshape(len(labels), -1).tolist(), labels.tolist(), strict=True):
            rows.writerow([label, *row])


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spoken(data: Path, work: Path) -> None:
    """The official test, index 0 to 4 of each digit and speaker; the others to train on."""
    parts: dict[str, list[str]] = {"test": [], "train": []}
    for file in sorted((data / "fsdd" / "recordings").glob("*.wav")):
        digit, _, index = file.stem.split("_")
        parts["test" if int(index) < 5 else "train"].append(f"{file}\t{DIGITS[int(digit)]}\n")
    for part, rows in parts.items():
        (work / f"{part}.tsv").write_text("".join(rows))


def gestures(data: Path) -> dict[str, float]:
    """Macro F1 of the most frequent phase, and of a logistic regression on each frame by itself."""
    parts = [_frames(data / "gesture_phase" / f"{name}_raw.csv") for name in ("a1", "b1", "a2")]
    x = np.concatenate([parts[0][0], parts[1][0]])
    return frame_baselines(x, parts[0][1] + parts[1][1], *parts[2])


def _frames(path: Path) -> tuple[NDArray[Any], list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name not in ("timestamp", "phase")]
    return np.array([[float(row[name]) for name in columns] for row in rows]), [row["phase"] for row in rows]


def frame_baselines(
    x: NDArray[Any], labels: Sequence[str], test: NDArray[Any], truth: Sequence[str]
) -> dict[str, float]:
    """Macro F1 on `test` [N, F] of the majority and of softmax(W x + b) fitted to `x` [M, F] (weight decay 1e-4)."""
    names = sorted({*labels, *truth})
    y, want = (np.array([names.index(label) for label in part]) for part in (labels, truth))
    mean, deviation = x.mean(0), x.std(0)
    rows, new = ((torch.from_numpy((part - mean) / deviation)) for part in (x, test))
    weight = torch.zeros(x.shape[1], len(names), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")
    target = torch.from_numpy(y)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(rows @ weight + bias, target) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    guesses = {
        "majority": np.full(len(want), np.bincount(y).argmax()),
        "logistic regression": (new @ weight + bias).argmax(1).numpy(),
    }
    found = {}
    for name, guess in guesses.items():
        confusion = Confusion(len(names))
        confusion.add(want, guess)
        found[name] = confusion.macro_f1
    return found


ETT = (8640, 2880, 2880)  # hours of training, validation and test: 12, 4 and 4 months of 30 days (Zhou et al. 2021)


def transformer(data: Path) -> dict[str, float]:
    """MASE of the oil temperature as it was at the same hour of the last day, on the test part."""
    with (data / "timeseries" / "ETTh1.csv").open(newline="") as file:
        y = np.array([float(row["OT"]) for row in csv.DictReader(file)])
    return {"seasonal naive": naive_mase(y, ETT[0], ETT[0] + ETT[1], sum(ETT), 24, 24)}


def naive_mase(y: NDArray[Any], training: int, first: int, end: int, season: int, horizon: int) -> float:
    """MASE of y_{t-season} with a horizon of at most a season, from every origin of a test between two steps."""
    errors = np.abs(y[season:] - y[:-season])  # [T - season], of the steps from `season` on
    test = np.lib.stride_tricks.sliding_window_view(errors[first - season : end - season], horizon)
    return float(test.mean() / errors[: training - season].mean())


SPOKEN = ("speech", "{work}/train.tsv", "--test-data", "{work}/test.tsv")
UD = "{data}/ud_ewt/en_ewt-ud"
GESTURE = "{data}/gesture_phase"
JOBS = {
    "names": Job(
        "language of a name, 18 classes, a tenth kept for the test", "names", "accuracy", 0.82, 3,
        ("classify", "{data}/names", "--test", "0.1"),
    ),
    "tags": Job(
        "part of speech, UD English-EWT, no outside vectors", "ud_ewt", "accuracy", 0.93, 15,
        ("tag", f"{UD}-train.conllu", "--validation-data", f"{UD}-dev.conllu", "--test-data", f"{UD}-test.conllu",
         "--epochs", "10"),
    ),
    "gestures": Job(
        "phase of a gesture per frame, a1 and b1 to a2", "gesture_phase", "macro F1", None, 5,
        ("tag", f"{GESTURE}/a1_raw.csv", f"{GESTURE}/b1_raw.csv", "--test-data", f"{GESTURE}/a2_raw.csv",
         "--drop", "timestamp", "--deltas", "--window", "64", "--batch", "8", "--hidden", "64", "--balance", "0.5"),
        baselines=gestures,
    ),
    "digits": Job(
        "sequential MNIST by rows, 10,000 digits", "mnist10k", "accuracy", 0.97, 5,
        ("classify", "{work}/train.csv", "--series", "28", "--test-data", "{work}/test.csv", "--epochs", "30"),
        prepare=images,
    ),
    "etth1": Job(
        "ETTh1, the oil temperature of the next 24 hours from 96, MSE in the paper's scaling beside it", "timeseries",
        "MASE", None, 5,
        ("forecast", "{data}/timeseries/ETTh1.csv", "--target", "OT", "--window", "96", "--horizon", "24",
         "--rows", str(sum(ETT)), "--validation", str(ETT[1]), "--test", str(ETT[2]), "--hidden", "64",
         "--epochs", "4"),
        baselines=transformer, sign=-1,
    ),
    "spoken": Job(
        "spoken digits as words, the official test", "fsdd", "accuracy", 0.97, 5, (*SPOKEN, "--level", "label"),
        prepare=spoken,
    ),
    "spelled": Job(
        "spoken digits, letter by letter (CTC), the official test", "fsdd", "CER", 0.03, 5, SPOKEN,
        sign=-1, prepare=spoken,
    ),
    "chorales": Job(
        "next step of JSB chorales; GRU and LSTM in papers: 8.43 to 8.67 nats", "music", "loss", 8.6, 10,
        ("music", "{data}/music/JSB_Chorales.mat"), sign=-1,
    ),
    "dates": Job(
        "dates as they are said to ISO 8601, of days that are not in the training data", "", "exact", 0.98, 15,
        ("translate", "{work}/train.tsv", "--test-data", "{work}/test.tsv", "--level", "char", "--lr", "0.004",
         "--steps", "800", "--eval-every", "200"),
        prepare=lambda data, work: dates.write(work / "train.tsv", work / "test.tsv"),
    ),
    "captions": Job(
        "true captions of NLVR's images, split by sentence", "nlvr_caption", "BLEU", None, 10,
        ("caption", "{work}/train.csv", "{work}/images.npz", "--validation-data", "{work}/validation.csv",
         "--test-data", "{work}/test.csv", "--steps", "500", "--eval-every", "100", "--dropout", "0.3"),
        prepare=captions.prepare, baselines=captions.baselines,
    ),
    "pixels": Job(
        "sequential MNIST pixel by pixel, 784 steps, 10,000 digits", "mnist10k", "accuracy", 0.90, 30,
        ("classify", "{work}/train.csv", "--series", "1", "--test-data", "{work}/test.csv", "--no-bidirectional",
         "--cell", "gru", "--hidden", "96", "--chrono", "784", "--dropout", "0", "--batch", "32", "--lr", "4e-3",
         "--clip", "1", "--epochs", "20"),
        prepare=images,
    ),
    "adding": Job(
        "adding problem, 200 steps; always 1: 0.1667", "", "loss", 0.01, 8,
        ("probe", "adding", "--length", "200", "--hidden", "64", "--chrono", "200", "--batch", "32", "--lr", "5e-3",
         "--steps", "2000"),
        sign=-1,
    ),
    "copy": Job(
        "copy problem, 100 steps of delay", "", "copied", 0.99, 15,
        ("probe", "copy", "--length", "100", "--cell", "janet", "--hidden", "128", "--chrono", "120", "--lr", "5e-3",
         "--steps", "15000", "--eval-every", "500"),
    ),
}  # fmt: skip


def run_job(name: str, data: Path, work: Path, threads: int, quick: bool = False) -> dict[str, Any]:
    """Train and test; print goal and result."""
    job = JOBS[name]
    job.prepare(data, work)
    places = {"data": str(data), "work": str(work)}
    words = ["train", *(word.format(**places) for word in job.command), "--out", str(work / "run"), "--profile"]
    words += ["--steps", "4", "--eval-every", "2"] if quick else []
    print(f"\n{name}: {job.title}\n  cellwright {shlex.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-c", "from cellwright.app.cli import main; main()", *words],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr or done.stdout}")
    records = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    test = records[-1]
    seconds = next(record["seconds"] for record in reversed(records) if record["kind"] == "eval")
    baselines = job.baselines(data)
    best = max(baselines.values(), key=lambda value: job.sign * value, default=0.0)
    goal = best if job.goal is None else job.goal
    ahead = job.sign * (test[job.measure] - goal)
    met = ahead > 0 if job.goal is None else ahead >= 0
    met = met and seconds <= 60 * job.minutes
    words = ("better than ",) * 2 if job.goal is None else ("at least ", "at most ")
    side = words[job.sign < 0]
    others = "".join(f", {other} {value:.4f}" for other, value in baselines.items())
    outside = next(line.split(":")[1].strip() for line in done.stdout.splitlines() if "outside the net" in line)
    print(
        f"  goal    {job.measure} {side}{goal:.4f} in {job.minutes:g} minutes{others}\n"
        f"  result  {job.measure} {test[job.measure]:.4f} in {seconds:.0f} s: {'reached' if met else 'NOT reached'}\n"
        f"  all     {', '.join(f'{k} {v:.4f}' for k, v in test.items() if k not in ('kind', 'step'))}\n"
        f"  outside the net {outside}"
    )
    return {"test": test, "seconds": seconds, "goal": goal, "reached": met, "baselines": baselines, "outside": outside}


def main() -> None:
    """All jobs whose data are there."""
    parser = arguments(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), help="some of the jobs")
    chosen = parser.parse_args()
    print(heading(machine()))
    results: dict[str, Any] = {}
    for name in chosen.only:
        if not (chosen.data / JOBS[name].needs).is_dir():
            print(f"\n{name}: left out, there is no {chosen.data / JOBS[name].needs}")
            continue
        with tempfile.TemporaryDirectory() as work:
            results[name] = run_job(name, chosen.data.absolute(), Path(work), chosen.threads, chosen.quick)
        write(chosen.json, results)


if __name__ == "__main__":
    main()
