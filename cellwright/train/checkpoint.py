"""The tensors of a training: weights, optimizer and random state by name, out of a model and back into it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import RunError


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; one that has two names is there once, under the first."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in state.items() if first.setdefault(id(t), name) == name}


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copy tensors into the model. RunError: names, shapes or dtypes are not those of the model; nothing was copied."""
    own = weights(model)
    for name in sorted(own.keys() ^ tensors.keys()):
        problem = "lacks" if name in own else "has an unknown"
        raise RunError(f"{where} {problem} tensor {name!r}: the weights belong to another model; train again")
    for name, t in tensors.items():
        if t.shape != own[name].shape or t.dtype != own[name].dtype:
            raise RunError(
                f"{where}: tensor {name!r} is {t.dtype} {tuple(t.shape)}, and the model has {own[name].dtype} "
                f"{tuple(own[name].shape)} there; the weights belong to another model; train again"
            )
    with torch.no_grad():
        for name, t in tensors.items():
            own[name].copy_(t)


def pack(model: nn.Module, optimizer: Optimizer, carried: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything that the next step depends on, by name: `model.*`, `optimizer.*`, `carried.*`, `random.*`."""
    tensors = {f"model.{name}": t for name, t in weights(model).items()}
    names = [name for name, _ in model.named_parameters()]
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{key}.{names[i]}": t for key, t in state.items()}
    tensors |= {f"carried.{name}": t for name, t in carried.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def unpack(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Put the tensors of `pack` back, and give those that were carried. RunError: they belong to another model."""
    load_weights(model, _below(tensors, "model."), where)
    indices = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for name, t in _below(tensors, "optimizer.").items():
        key, _, parameter = name.partition(".")
        if parameter not in indices:
            raise RunError(f"{where}: the optimizer has a state for an unknown tensor {parameter!r}; train again")
        state.setdefault(indices[parameter], {})[key] = t
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return _below(tensors, "carried.")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
