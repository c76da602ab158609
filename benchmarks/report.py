"""What a person reads and what a program reads: the machine, tables, JSON."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import cellwright

PACKAGES = (
    "numpy",
    "llvmlite",
    "onnxruntime",
    "onnx",
    "jax",
    "jaxlib",
    "flax",
    "keras",
    "tensorflow-cpu",
    "torchrecurrent",
)


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="few cases, few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--threads", type=threads, default=torch.get_num_threads(), help="of every library")
    return parser


def threads(text: str) -> int:
    """A number of threads from the command line."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"got {count}, expected at least 1")
    return count


def machine() -> dict[str, Any]:
    """Where and with what the times were measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector unit": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cellwright": cellwright.__version__,
        "target": cellwright.current_target(),
        "torch": torch.__version__,
        "packages": {name: found for name in PACKAGES if (found := version_of(name))},
    }


def version_of(package: str) -> str | None:
    """The installed version of a package; None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def heading(facts: dict[str, Any]) -> str:
    """The machine in two lines."""
    packages = "".join(f", {name} {found}" for name, found in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['vector unit']}, {facts['cores']} cores, {facts['threads']} threads; "
        f"{facts['system']}, Python {facts['python']}\n"
        f"cellwright {facts['cellwright']}, target {facts['target']}; torch {facts['torch']}{packages}"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first to the left and the others to the right; the first row holds the headings."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:{'<' if k == 0 else '>'}{width}}" for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def ms(seconds: float | None) -> str:
    """Milliseconds with three digits that mean something."""
    if seconds is None:
        return "-"
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def times(ratio: float | None) -> str:
    """A ratio: 1.25x."""
    return "-" if ratio is None else f"{ratio:.2f}x"


def summary(ratios: Iterable[float]) -> dict[str, float]:
    """Geometric mean and smallest of some ratios."""
    found = list(ratios)
    return {"geometric mean": statistics.geometric_mean(found), "min": min(found)}


def write(path: Path | None, results: dict[str, Any]) -> None:
    """The results with the machine, as JSON; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n", encoding="utf-8")
