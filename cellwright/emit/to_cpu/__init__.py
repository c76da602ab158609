"""The CPU target: a plan as one fused loop, compiled by LLVM for the processor that it runs on.

passes    stages of a plan -> passes over memory
layout    which places in memory a kernel reads and writes, in the order of its arguments
builder, vectors, product, kernel   the words of a kernel, vectors of float32, dense products; the text of a module
machine, build, threads   what the processor has; text -> function, through a cache; several threads
program   a plan with its kernels
memory, frame, lengths   values in memory; where they lie in a run of one shape; sequences without their padding
run, after, function   forward and back; what follows the loop back; torch's autograd
"""

import torch
from torch import Tensor

from .build import cache_report
from .function import scan
from .program import Program

__all__ = ["Program", "cache_report", "refusal", "scan"]


def refusal(program: Program, tensors: list[Tensor]) -> str | None:
    """Why this call cannot run here, if so: plan, dtypes, devices, or one of torch's function transforms."""
    dtypes = {t.dtype for t in tensors if t.is_floating_point()}
    if not dtypes <= {torch.float32, torch.bfloat16} or (len(dtypes) > 1 and not torch.is_autocast_enabled("cpu")):
        return f"it takes float32 or bfloat16, not {' with '.join(sorted(map(str, dtypes)))}"
    for t in tensors:
        if type(t) not in (Tensor, torch.nn.Parameter):
            return f"it takes plain tensors, not {type(t).__name__}"
        if t.device.type != "cpu":
            return f"it takes tensors on the CPU, not on {t.device}"
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return f"it takes part in autocast to bfloat16, not to {torch.get_autocast_dtype('cpu')}"
    if torch._C._get_tracing_state() is not None:
        return "it is not traced by torch.jit"
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return "it has no rules for the transforms of torch.func"
    return program.refusal
