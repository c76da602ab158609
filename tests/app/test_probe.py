"""`train probe` and `inspect gradients` from the command line."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellwright.app.runs import load
from cellwright.nn import gradient_norms
from cellwright.train.run import Run

from .conftest import Result, metrics

Cli = Callable[..., Result]
SMALL = ("--hidden", 8, "--batch", 8, "--steps", 30, "--eval-every", 10)


def columns(out: str) -> dict[str, dict[int, float]]:
    """The table that `inspect gradients` prints: norms by k, by the name of the column."""
    lines = out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.split()[:1] == ["k"])
    names = re.split(r"\s{2,}", lines[at].strip())[1:]
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for line in lines[at + 1 :]:
        cells = line.split()
        if cells[0] == "per":
            break
        for name, cell in zip(names, cells[1:], strict=False):
            if cell != "-":
                found[name][int(cells[0])] = float(cell)
    return found


def test_memory_is_learned(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--length", 12, "--hidden", 16, "--chrono", 12, "--steps", 500, "--eval-every", 250, "--lr", 0.02]
    done = cli("train", "probe", "adding", "--out", run, *options, "--seed", 3)
    assert done.code == 0, done
    assert "adding of length 12" in done.out and "always 1: 0.1667" in done.out
    test = metrics(run)[-1]
    assert test["kind"] == "test" and test["loss"] < 0.02, test
    found = cli("eval", run, 12, 24)
    assert f"length 12: loss {test['loss']:.4f}, right {test['right']:.4f}" in found.out
    assert "length 24: loss" in found.out


@pytest.mark.parametrize("problem", ["adding", "copy", "parity", "reber"])
def test_an_interrupted_run_goes_on_exactly(
    cli: Cli, tmp_path: Path, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SMALL, *([] if problem == "reber" else ["--length", 5]), "--dropout", 0.2, "--layers", 2]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert cli("train", "probe", problem, "--out", whole, *options).code == 0
    from cellwright.tasks.probe import job

    inner, calls = job.ProbeTask.loss, []

    def loss(self: Any, step: int) -> Any:
        calls.append(step)
        if step == 13 and len(calls) == 14:
            signal.raise_signal(signal.SIGINT)
        return inner(self, step)

    monkeypatch.setattr(job.ProbeTask, "loss", loss)
    stopped = cli("train", "probe", problem, "--out", run, *options)
    assert stopped.code == 130 and "stopped after step 14" in stopped.out, stopped
    assert cli("train", "probe", "--resume", run).code == 0
    assert metrics(run) == metrics(whole)
    for which in ("best", "last"):
        left, right = (Run.open(path).load(which)[0] for path in (run, whole))  # type: ignore[arg-type]
        assert all(t.equal(right[name]) for name, t in left.items())


def test_a_changed_generator_is_noticed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert cli("train", "probe", "parity", "--out", run, *SMALL).code == 0
    from cellwright.tasks.probe import job

    monkeypatch.setattr(job, "_FIXED", 2**62)
    found = cli("train", "probe", "--resume", run, "--steps", 40)
    assert found.code == 2 and "not the ones" in found.err and "(probe)" in found.err


def test_gradients_of_a_probe_are_those_of_its_function(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("train", "probe", "copy", "--length", 4, "--out", run, *SMALL).code == 0
    found = cli("inspect", "gradients", run, "--sequences", 5, "--last")
    assert found.code == 0, found
    table = columns(found.out)
    assert list(table) == ["run h_l0", "run c_l0"] and max(table["run h_l0"]) == 23
    loaded = load(run, "last")
    task = loaded.job.task(loaded.config, loaded.net, loaded.job.read(loaded.config))
    task.model.eval()
    norms = gradient_norms(*loaded.job.last_losses(task, 5, None))
    for name, column in table.items():
        for k, value in column.items():
            assert value == pytest.approx(norms[name.split()[1]][k].median().item(), rel=0.01)
    relative = columns(cli("inspect", "gradients", run, "--sequences", 5, "--last", "--relative").out)
    assert relative["run h_l0"][0] == 1
    assert relative["run c_l0"][20] == pytest.approx(table["run c_l0"][20] / table["run h_l0"][0], rel=0.02)
    assert max(columns(cli("inspect", "gradients", run, "--steps", 7).out)["run h_l0"]) == 7


def test_gradients_of_other_runs_and_of_cells(cli: Cli, tmp_path: Path, char_run: Path) -> None:
    names, words = tmp_path / "names.csv", tmp_path / "words.conllu"
    names.write_text("text,label\n" + "Rossi,it\nMüller,de\n" * 30)
    words.write_text("1\tthe\t_\tDET\n2\told\t_\tADJ\n3\tdog\t_\tNOUN\n\n" * 30)
    for task, data in (("classify", names), ("tag", words)):
        run = tmp_path / task
        options = ("--hidden", 6, "--steps", 4, "--eval-every", 2)
        assert cli("train", task, data, "--out", run, *options).code == 0
    found = cli("inspect", "gradients", tmp_path / "classify", tmp_path / "tag", char_run, "--cell", "gru")
    assert found.code == 0, found
    table = columns(found.out)
    longest = {name.split()[0]: max(column) for name, column in table.items()}
    assert longest["tag"] == 2 and longest["classify"] in (4, 5) and longest["gru"] == 100
    assert longest["char_run"] == 9, "a chunk"
    assert {"char_run h_l1", "char_run c_l0"} <= table.keys()
    assert table["gru h_l0"][0] == 1
    assert max(columns(cli("inspect", "gradients", char_run, "--steps", 20).out)["char_run h_l0"]) == 20


def test_a_picture_needs_matplotlib_or_is_there(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "gradients.png"
    done = cli("inspect", "gradients", "--cell", "lstm", "--cell", "rnn", "--steps", 20, "--hidden", 8, "--plot", file)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert done.code == 2 and "--plot needs matplotlib" in done.err and "cellwright[plot]" in done.err
        return
    assert done.code == 0 and f"picture {file}" in done.out
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "probe", "sums"), "PROBLEM sums: input should be 'adding', 'copy', 'parity' or 'reber'"),
        (("train", "probe", "reber", "--length", "9"), "--length 9: the grammar of reber decides"),
        (("train", "probe", "adding", "--length", "1"), "adding needs two numbers"),
        (("train", "probe", "adding", "--length", str(10**12)), "there is not enough memory"),
        (("train", "probe", "copy", "--cell", "rnn", "--chrono", "9"), "no gate of memory with a bias"),
        (("train", "probe", "copy", "--chrono", "2"), "expected a number of steps from 3 on"),
        (("inspect", "gradients"), "nothing to look at"),
        (("inspect", "gradients", "--cell", "lstn"), "got the cell 'lstn'"),
        (("inspect", "gradients", "--cell", "rnn", "--steps", "0"), "--steps 0: expected a number from 1 on"),
        (("inspect", "gradients", "nowhere"), "nowhere is not a run folder"),
    ],
)
def test_bad_input(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    out = ("--out", tmp_path / "run") if arguments[0] == "train" else ()
    found = cli(*arguments, *out)
    assert found.code == 2 and message in found.err, found
    assert not (tmp_path / "run").exists()


def test_bad_input_to_a_run(cli: Cli, tmp_path: Path) -> None:
    run, reber = tmp_path / "run", tmp_path / "reber"
    assert cli("train", "probe", "parity", "--out", run, *SMALL).code == 0
    assert cli("train", "probe", "reber", "--out", reber, *SMALL).code == 0
    for arguments, message in (
        (("eval", run, "words.txt"), "got 'words.txt', expected a length of parity"),
        (("eval", run, "0"), "got '0', expected a length of parity"),
        (("eval", reber, "9"), "its strings have no length to choose"),
        (("predict", run, "9"), "predicts nothing for a file"),
        (("train", "probe", "copy", "--resume", run), "PROBLEM: a resumed run keeps its settings"),
    ):
        found = cli(*arguments)
        assert found.code == 2 and message in found.err, found
