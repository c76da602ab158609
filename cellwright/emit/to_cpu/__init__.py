"""The CPU target: a plan as one fused loop, compiled by LLVM for the processor that it runs on.

flows     the plan, with every state made to pass through the loop
passes    stages of the plan -> passes over memory
vectors   the operations on vectors of float32
builder, product, lookup, kernel  passes -> the text of a module
amx, tiles, trial         products of bfloat16 in AMX tiles, and whether they can be used
machine, build, threads   what the processor has; text -> function, through a cache; several threads
layout, memory, frame, lengths    the arguments of kernels; where values lie, also without the padding of sequences
program, run, after, outer        plans compiled; forward, back, and the gradients after the loop
function, library                 the two doors: torch's autograd, and operators for graphs of torch.compile
sample, stepper                   generation: all layers and the drawing of a symbol in one call
"""

import torch
from torch import Tensor

from .build import cache_report
from .function import scan, scan_with_memory
from .library import refusal_of, scan_traced
from .program import Program
from .stepper import Stepper, why_not
from .trial import bfloat16_report

__all__ = [
    "Program",
    "Stepper",
    "bfloat16_report",
    "cache_report",
    "refusal",
    "refusal_of",
    "refusal_of_tensors",
    "scan",
    "scan_traced",
    "scan_with_memory",
    "why_not",
]


def refusal(program: Program, tensors: list[Tensor]) -> str | None:
    """Why this call cannot run here, if so: plan, dtypes, devices, or one of torch's function transforms."""
    for t in tensors:
        if type(t) not in (Tensor, torch.nn.Parameter):
            return f"it takes plain tensors, not {type(t).__name__}"
    if torch._C._get_tracing_state() is not None:
        return "it is not traced by torch.jit"
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return "it has no rules for the transforms of torch.func"
    return refusal_of_tensors(tensors) or program.refusal


def refusal_of_tensors(tensors: list[Tensor]) -> str | None:
    """Why a call on these tensors cannot run here, if so: dtypes and devices."""
    dtypes = {t.dtype for t in tensors if t.is_floating_point()}
    if not dtypes <= {torch.float32, torch.bfloat16} or (len(dtypes) > 1 and not torch.is_autocast_enabled("cpu")):
        return f"it takes float32 or bfloat16, not {' with '.join(sorted(map(str, dtypes)))}"
    for t in tensors:
        if t.device.type != "cpu":
            return f"it takes tensors on the CPU, not on {t.device}"
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return f"it takes part in autocast to bfloat16, not to {torch.get_autocast_dtype('cpu')}"
    return None
