"""What the processor offers: width of its vectors and number of its registers, asked and not assumed."""

import os
from dataclasses import dataclass, replace

import llvmlite.binding as llvm

_AVX512 = ("avx512", "avx10", "amx")
_AVX2 = (*_AVX512, "avx2", "avxvnni", "avxifma", "avxneconvert", "fma", "f16c", "vaes", "vpclmulqdq")
_FAMILIES = {"avx512f": _AVX512, "avx2": _AVX2, "avx": (*_AVX2, "avx", "xop"), "amx-tile": ("amx",)}


@dataclass(frozen=True)
class Machine:
    """`lanes` float32 numbers per vector register, `registers` of them; LLVM's name and features of the processor."""

    cpu: str
    features: str
    lanes: int
    registers: int
    bfloat16: bool = False  # whether it has products of pairs of bfloat16
    fused: bool = True  # whether it multiplies and adds in one operation
    tiles: str = ""  # how its products of bfloat16 in tiles are written (`amx.SPELLINGS`), if it has such

    def without_tiles(self) -> "Machine":
        """The same with its tile unit left alone."""
        return replace(self, features=self.features.replace("+amx", "-amx"), tiles="")


def this_machine() -> Machine:
    """The processor that this runs on, as it says itself (`trial.settled` has the last word on its tiles).

    For tests, CELLWRIGHT_CPU_FEATURES=-avx512f,... turns features off; +amx-emulated computes tiles in plain code.
    """
    found = dict(llvm.get_host_cpu_features())
    for change in filter(None, os.environ.get("CELLWRIGHT_CPU_FEATURES", "").split(",")):
        name, on = change.strip()[1:], change.strip().startswith("+")
        # What builds on a feature that is off would bring it back.
        for other in [name, *(f for f in found if f.startswith(_FAMILIES.get(name, "none")) and not on)]:
            found[other] = on
    tiles = "amx" if found.get("amx-bf16") and found.get("amx-tile") else ""
    tiles = "emulated" if found.pop("amx-emulated", False) else tiles
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(found.items()))
    if found.get("avx512f"):
        pairs = bool(found.get("avx512bf16"))  # few rows are multiplied so
        return Machine(llvm.get_host_cpu_name(), features, 16, 32, pairs, tiles=tiles if pairs else "")
    if found.get("avx2"):
        return Machine(llvm.get_host_cpu_name(), features, 8, 16, fused=bool(found.get("fma")))
    arm = "neon" in found or "asimd" in found or "arm" in llvm.get_process_triple()
    return Machine(llvm.get_host_cpu_name(), features, 4, 32 if arm else 16, fused=arm or bool(found.get("fma")))
