"""Every block of the documents is run: Python as it stands, commands with fewer steps, the tree against the folder."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellwright import Equations
from cellwright.cells import CELLS
from tests.cells_table import table

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/tasks.md", "docs/from-equations-to-a-loop.md", "docs/cells.md", "docs/conventions.md")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def test_no_block_is_of_a_kind_that_nobody_runs() -> None:
    for page in (*PAGES, "CONTRIBUTING.md"):
        kinds = re.findall(r"^```(\w*)\n.*?^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
        assert set(kinds) <= {"python", "sh", "text"}, page


def test_the_readme_shows_code_early() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 25


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, in a Python of their own: classes need their source."""
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_graph_in_the_essay_is_what_its_block_prints() -> None:
    page = "docs/from-equations-to-a-loop.md"
    names: dict[str, Any] = {}
    printed: list[str] = []
    first, second = blocks(page, "python")[:2]
    exec(first, names)
    exec(second, names | {"print": lambda *a: printed.append(" ".join(map(str, a)))})
    assert "\n".join(line.rstrip() for line in printed) == "\n".join(
        line.rstrip() for line in blocks(page, "text")[0].splitlines()
    )


def test_the_equations_in_the_readme_are_those_of_the_lstm() -> None:
    from cellwright.cells import LSTM
    from cellwright.lang.show import text

    shown = next(b for b in blocks("README.md", "text") if b.startswith("equations"))
    assert shown in text(LSTM(3, 4).definition()) + "\n"


def test_the_table_of_cells_is_made_of_their_definitions() -> None:
    page = (ROOT / "docs/cells.md").read_text(encoding="utf-8")
    assert table() in page, "the table has changed: `python -m tests.cells_table` prints it"


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
def test_a_cell_is_one_short_file(kind: type[Equations]) -> None:
    """Fewer than 80 lines, and nothing of it in any other file of the package but the lists of names."""
    file = Path(inspect.getfile(kind))
    assert len(file.read_text(encoding="utf-8").splitlines()) < 80
    if kind.__name__ in ("Elman", "LSTM", "GRU"):
        return  # torch.nn has layers of these
    lists = {ROOT / "cellwright" / name for name in ("__init__.py", "cells/__init__.py")}
    others = {path for path in (ROOT / "cellwright").rglob("*.py") if path.parent.name != "cells"} - lists
    for path in others:
        code = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {getattr(n, "id", getattr(n, "attr", getattr(n, "name", ""))) for n in code}
        assert names.isdisjoint({kind.__name__, f"{kind.__name__}Cell"}), path


def test_every_file_of_cells_is_known() -> None:
    files = {path for path in (ROOT / "cellwright" / "cells").glob("*.py") if path.stem != "__init__"}
    assert files == {Path(inspect.getfile(kind)) for kind in CELLS}


TUNE = (  # C4 and E4, a quarter each
    b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\x14\0\x90\x3c\x40\x60\x80\x3c\0\0\x90\x40\x40\x60\x80\x40\0\0\xff\x2f\0"
)


def commands(page: str) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def sections(page: str) -> dict[str, list[str]]:
    """The commands of a page under each of its headings, after those that make the run folders they need."""
    found: dict[str, list[str]] = {}
    makers: dict[str, str] = {}
    for part in re.split(r"^## ", (ROOT / page).read_text(encoding="utf-8"), flags=re.M):
        shells = re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S)
        lines = [line.split("  #")[0].strip() for shell in shells for line in shell.splitlines()]
        ours = [line for line in lines if line.startswith("cellwright")]
        needed = [makers[run] for run in dict.fromkeys(re.findall(r"runs/\w+", " ".join(ours))) if run in makers]
        makers |= {made.group(): line for line in ours if (made := re.search(r"(?<=--out )runs/\w+", line))}
        if ours:
            found[part.splitlines()[0]] = needed + ours
    return found


def write_files(folder: Path) -> None:
    """The files that these pages speak of."""
    prose = "It was the best of times, it was the worst of times. The age of wisdom, the age of foolishness.\n" * 80
    (folder / "book.txt").write_text(prose)
    (folder / "other.txt").write_text(prose[:500])
    (folder / "mine.py").write_text(blocks("README.md", "python")[0].split("print(check_grads")[0])
    (folder / "names.csv").write_text("text,label\n" + "Rossi,it\nMüller,de\n" * 30)
    (folder / "other.csv").write_text("text,label\nRosso,it\n")
    header = ",".join(["label", *(f"pixel{k}" for k in range(56))])
    rows = [",".join(str((k + n) % 2) for k in range(57)) for n in range(30)]
    (folder / "digits.csv").write_text("\n".join([header, *rows]) + "\n")
    sentence = "1\tthe\t_\tDET\n2\tdog\t_\tNOUN\n\n"
    (folder / "train.conllu").write_text(sentence * 30)
    (folder / "dev.conllu").write_text(sentence)
    (folder / "new.txt").write_text("The cat.\n")
    frames = [f"{n},{n % 7},{'up' if n % 7 > 3 else 'down'}" for n in range(2000)]
    (folder / "frames.csv").write_text("\n".join(["time,x,phase", *frames]) + "\n")
    hours = [f"2024-01-{d:02} {h:02}:00,{h % 5},{d % 7 == 0:d},{h + d % 3}" for d in range(1, 29) for h in range(24)]
    (folder / "load.csv").write_text("\n".join(["time,wind,holiday,load", *hours]) + "\n")
    for n in range(20):
        for name in (f"talks/{n}.wav", f"spoken/{'yes' if n % 2 else 'no'}_{n}.wav"):
            (folder / name).parent.mkdir(exist_ok=True)
            with wave.open(str(folder / name), "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
                sound.writeframes(bytes((k * (n + 1)) % 256 for k in range(8000)))
    (folder / "talks" / "transcripts.tsv").write_text("".join(f"{n}.wav\tab c\n" for n in range(20)))
    for name in ("tunes/jig/a.mid", *(f"tunes/{kind}/{n}.mid" for n in range(6) for kind in ("jig", "reel"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(TUNE)
    (folder / "pairs.tsv").write_text("the first of May\t05-01\n" * 30)
    (folder / "lines.txt").write_text("the first of May\n")
    np.savez(folder / "images.npz", images=np.zeros((30, 8, 8, 3), np.uint8))
    (folder / "captions.csv").write_text("image,caption\n" + "".join(f"{n},all is black\n" for n in range(30)))


SECTIONS = [(page, *section) for page in ("README.md", "docs/tasks.md") for section in sections(page).items()]


@pytest.mark.parametrize(("page", "heading", "ours"), SECTIONS)
def test_commands_run(page: str, heading: str, ours: list[str], tmp_path: Path) -> None:
    """In order, in an empty folder, with fewer steps."""
    write_files(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in ours:
        words = shlex.split(command)
        if find_spec("mido") is None and "tunes" in command:
            continue  # reading MIDI needs what an extra brings; tests/app/test_music.py says what happens without it
        if words[1] == "train":
            words = [{"2000": "4", "3000": "6", "128": "12"}.get(w, w) for w in words]
            words += ["--chunk", "16"] if words[2] == "charlm" and "--resume" not in words else []
            words += [] if words[2] == "charlm" else ["--steps", "4"]
            words += [] if "--resume" in words else ["--batch", "8", "--eval-every", "2"]
        done = subprocess.run(
            words, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    if "tags.jsonl" in " ".join(ours):
        assert len((tmp_path / "tags.jsonl").read_text().splitlines()) == 3
    for run in re.findall(r"(?<=--out )runs/\w+", " ".join(ours)):
        assert (tmp_path / run / "best.safetensors").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/tasks.md"])
def test_every_command_is_run(page: str) -> None:
    """Also those that stand before the first heading, or where a heading is new."""
    ours = [c for c in commands(page) if c.startswith("cellwright")]
    assert len(ours) > 15
    assert set(ours) == {command for section in sections(page).values() for command in section}


@pytest.mark.parametrize("command", commands("docs/cells.md"))
def test_commands_of_the_table_of_cells_run(command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command), env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {c.split()[1] for c in commands(page) if c.startswith("make ")}
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_tree_is_the_folder() -> None:
    """Every name in the README's tree is there, and every folder and file of the package is in the tree."""
    tree = next(b for b in blocks("README.md", "text") if b.startswith("cellwright/"))
    for line in tree.splitlines():
        name, _, _ = line.strip().partition(" ")
        folder = ROOT / "cellwright" / name if line.startswith("  ") else ROOT / name
        assert folder.exists(), name
    for folder in (ROOT / "cellwright").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            (line,) = [row for row in tree.splitlines() if row.strip().startswith(folder.name + "/")]
            for file in folder.glob("*.py"):
                if file.stem != "__init__":
                    assert re.search(rf"\b{file.stem}\b", line), f"{file} is not in the tree"
            for inner in folder.iterdir():
                if (inner / "__init__.py").is_file():
                    assert f" {inner.name}/" in line, f"{inner} is not in the tree"


def test_files_of_a_floor_are_short() -> None:
    """A file over 400 lines asks for a reason."""
    for file in (ROOT / "cellwright").rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert target.startswith("http") or ((ROOT / page).parent / target).exists(), (page, target)
