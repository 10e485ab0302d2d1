"""Tensors that are added up together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def group_by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the tensors by type and device."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def split_flat(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return views of a flat tensor in some shapes."""
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def copy_tensors(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy tensors, each into its target."""
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
