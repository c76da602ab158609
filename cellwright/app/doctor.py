"""What is installed, what the machine offers, and which targets can run here: the report of `cellwright doctor`."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import __version__
from ..nn import available_targets, bfloat16_report, cache_report

_PACKAGES = ("numpy", "llvmlite", "safetensors", "pydantic", "typer", "rich")


def report() -> str:
    """One fact per line, in columns."""
    rows = [
        ("cellwright", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("torch", torch.__version__),
        *((name, _version(name)) for name in _PACKAGES),
        ("processors", str(os.cpu_count())),
        ("threads", f"{torch.get_num_threads()} (set OMP_NUM_THREADS for another number)"),
        ("vector unit", torch.backends.cpu.get_cpu_capability()),
        ("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"),
    ]
    rows.append(("bfloat16", bfloat16_report()))
    rows.append(("kernel cache", cache_report()))
    for name, reason in available_targets().items():
        rows.append((f"target {name}", "available" if reason is None else f"absent: {reason}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
