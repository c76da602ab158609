"""What `make demo` runs: train a character model on the source of Python's own library, and let it write.

    python examples/demo.py [RUN]       RUN: a folder, runs/demo if it is left away

A finished run is left as it is and the next one goes to RUN-2, RUN-3, ...; one that was interrupted goes on.
"""

import sys
from itertools import count
from pathlib import Path

from rich.console import Console

from cellwright import CellwrightError
from cellwright.app.runs import load, resume, start
from cellwright.tasks.charlm.config import CharLMConfig
from cellwright.tasks.charlm.generate import generate
from cellwright.train.progress import display
from cellwright.train.run import Run

# What a small machine can learn best in 90 seconds.
CONFIG = CharLMConfig(cell="gru", hidden=256, layers=1, steps=3000, lr=8e-3, final=0.02, eval_every=750)
PROMPTS = ("\nclass ", "\n    def ")  # a newline first: the beginning of a line


def state(folder: Path) -> str:
    """`free`, `unfinished`, or `taken`."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return "free"
    try:
        return "taken" if Run.open(folder).load("last")[1]["finished"] else "unfinished"
    except CellwrightError:
        return "taken"


def choose(wanted: Path) -> Path:
    """`wanted`, or the first of wanted-2, wanted-3, ... that is not taken."""
    others = (wanted.with_name(f"{wanted.name}-{n}") for n in count(2))
    return wanted if state(wanted) != "taken" else next(other for other in others if state(other) != "taken")


def main(wanted: str = "runs/demo") -> int:
    """Train, write, and say what to try next; 130 after Ctrl-C."""
    folder = choose(Path(wanted))
    shown = display(Console())
    complete = start(CONFIG, folder, shown) if state(folder) == "free" else resume(folder, None, shown)
    if not complete:
        return 130
    loaded = load(folder)
    for prompt in PROMPTS:
        print(f"\n--- {prompt.strip()} ...\n{prompt}", end="")
        for piece in generate(loaded.net.model, loaded.net.vocabulary, prompt, length=500, seed=1):
            print(piece, end="", flush=True)
        print()
    print(f"""
Next:  .venv/bin/cellwright generate {folder} --prompt "class " --length 1000
       .venv/bin/cellwright train charlm my_texts/ --out runs/mine --hidden 256
       .venv/bin/cellwright show lstm""")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:2]))
    except CellwrightError as error:
        sys.exit(f"error: {error}")
