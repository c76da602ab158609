"""What the processor offers: width of its vectors and number of its registers, asked and not assumed."""

import os
from dataclasses import dataclass

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Machine:
    """`lanes` float32 numbers per vector register, `registers` of them; LLVM's name and features of the processor."""

    cpu: str
    features: str
    lanes: int
    registers: int
    bfloat16: bool = False  # whether it has products of pairs of bfloat16


def this_machine() -> Machine:
    """The processor that this runs on. CELLWRIGHT_CPU_FEATURES=-avx512f,... turns features off, for tests."""
    found = dict(llvm.get_host_cpu_features())
    for change in filter(None, os.environ.get("CELLWRIGHT_CPU_FEATURES", "").split(",")):
        name, on = change.strip()[1:], change.strip().startswith("+")
        found[name] = on
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(found.items()))
    if found.get("avx512f"):
        return Machine(llvm.get_host_cpu_name(), features, 16, 32, bool(found.get("avx512bf16")))
    if found.get("avx2"):
        return Machine(llvm.get_host_cpu_name(), features, 8, 16)
    arm = "neon" in found or "asimd" in found or "arm" in llvm.get_process_triple()
    return Machine(llvm.get_host_cpu_name(), features, 4, 32 if arm else 16)
