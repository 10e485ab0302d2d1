"""Train a case into a folder, and compare what two trainings came to."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distvae.train import checkpoint
from distvae.train.session import fit
from tests.device.cases import config_of, dataset

CLOSE: Any = {"rtol": 1e-6, "atol": 1e-8}


def trained(
    name: str, device: str, folder: Path, missing: bool = False, **sections: Any
) -> dict[str, Tensor]:
    """Train into a folder; the last state and the figures of all epochs."""
    data = dataset(name, missing)
    records = list(fit(config_of(name, device, **sections), data, folder, resume=True))
    bounds = {
        f"epoch {record.epoch} {figure}": torch.tensor(value)
        for record in records
        for figure, value in record.metrics().items()
        if "second" not in figure
    }
    return bounds | checkpoint.load(folder, "last")[0]


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], close: Any = CLOSE) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **close, msg=partial("{}: {}".format, name))
