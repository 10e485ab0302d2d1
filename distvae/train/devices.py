"""Which device a process trains on."""

import torch

from distvae.refusal import Refusal


def device_of(name: str) -> torch.device:
    """Return the device of a name; `auto` prefers CUDA."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Refusal("train.device: 'cuda', but torch finds no CUDA device here; cpu or auto expected")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
