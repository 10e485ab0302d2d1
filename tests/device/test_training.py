"""What is trained on a device is what the CPU trains: objectives, weights, checkpoints, whoever goes on with them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distvae.train import checkpoint
from distvae.train.loop import Trainer
from distvae.train.session import fit, prepare
from tests.device.cases import CASES, ENCODED, SEARCHED, config_of, dataset
from tests.device.pretended import Machine, Pretended

CLOSE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Double precision, in which a sum in another order is the same for all that follows."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(name: str, device: str, folder: Path, missing: bool = False, **sections: Any) -> dict[str, Tensor]:
    """Train into a folder; the last state and the figures of all epochs."""
    data = dataset(name, missing)
    records = list(fit(config_of(name, device, **sections), data, folder, resume=True))
    told = {
        f"epoch {record.epoch} {figure}": torch.tensor(value)
        for record in records
        for figure, value in record.metrics().items()
        if "second" not in figure
    }
    return told | checkpoint.load(folder, "last")[0]


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", CASES)
def test_training_is_that_of_the_cpu(machine: Machine, tmp_path: Path, name: str) -> None:
    with machine.counted() as counts:
        found = trained(name, "auto", tmp_path / "there")
    assert counts.kernels["_fused_adam_"] == 2 * 3, "all steps were taken on the device"
    agree(found, trained(name, "cpu", tmp_path / "here"))
