"""All benchmarks in one run: `python -m benchmarks [--quick] [--json FILE] [--threads N]`.

A new benchmark is a function of `quick` that checks, measures and prints, and a line in `sections`. What it returns
goes into the JSON under its name.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from . import attention, charlm, fresh, generation, layers, rate, variants, zoo
from .peers import Peer, present
from .report import arguments, heading, machine, write
from .timing import use_threads


def sections(peers: Sequence[Peer]) -> dict[str, Callable[[bool], Any]]:
    """Every benchmark by its name, in the order in which they run."""
    return {
        "rate": rate.run,
        "layers float32": partial(layers.run, dtype=torch.float32, peers=peers),
        "layers bfloat16": partial(layers.run, dtype=torch.bfloat16, peers=()),
        "variants": variants.run_variants,
        "padding": variants.run_padding,
        "attention": attention.run,
        "cells": zoo.run_cells,
        "torchrecurrent": zoo.run_peer,
        "first use": fresh.run_first,
        "memory": fresh.run_memory,
        "charlm": charlm.run,
        "generation": generation.run,
    }


def main() -> None:
    """Check, measure, print; the file is written after each section, so that a stopped run leaves its results."""
    chosen = arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    use_threads(chosen.threads)
    peers, absences = present()
    print(heading(machine()), *absences, sep="\n")
    results: dict[str, Any] = {}
    for name, run in sections(peers).items():
        results[name] = run(chosen.quick)
        write(chosen.json, results)


if __name__ == "__main__":
    main()
