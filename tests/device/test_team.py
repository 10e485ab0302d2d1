"""Two workers with a device each, over gloo: their sums equal the sums of two CPU workers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distvae.train import graphs
from distvae.train.session import RunOptions, build_trainer, train_in_folder
from distvae.train.team import Team
from tests.device.cases import config_of, dataset
from tests.device.pretended import counted, present
from tests.device.tape import recorder_of
from tests.train.crew import Crew, crew_of

pytestmark = pytest.mark.slow
Found = dict[str, NDArray[np.float64]]
ALL, BLOCK = 80, 32
"""All rows, and those of a block of the search."""


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with crew_of(2) as crew:
        yield crew


def train(team: Team, name: str, there: bool, local_steps: int, rows: int, folder: Path) -> Found:
    """Train on some rows into a folder in double precision; the parameters at the end."""
    config = config_of(name, train={"local_steps": local_steps, "batch": 4, "graphs": there})
    whole = dataset(name, missing=True)
    data = replace(whole, splits={split: each[:rows] for split, each in whole.splits.items()})
    torch.set_default_dtype(torch.float64)
    try:
        with (
            present() as device,
            counted() as counts,
            pytest.MonkeyPatch.context() as patched,
        ):
            patched.setattr(graphs, "recorder_of", recorder_of)
            trainer = build_trainer(
                config, data, team, device=device if there else torch.device("cpu")
            )
            for _ in train_in_folder(trainer, config, data, folder, RunOptions()):
                pass
            found = {f"{i}": p.detach().cpu().numpy() for i, p in enumerate(trainer.parameters)}
    finally:
        torch.set_default_dtype(torch.float32)
    assert (counts.kernels["_fused_adam_"] > 0) == there
    assert (counts.kernels["replay"] > 0) == (there and local_steps > 0)  # sums are not recorded
    return found


@pytest.mark.parametrize(
    ("name", "local_steps", "rows"),
    [
        ("vae", 0, ALL),
        ("sdm learned", 2, ALL),
        ("released", 0, BLOCK + 1),  # one worker has no row in the last block
        ("released", 2, ALL),
    ],
)
def test_two_workers_on_a_device_end_where_two_on_the_cpu_do(
    crew: Crew, tmp_path: Path, name: str, local_steps: int, rows: int
) -> None:
    here, there = (
        crew.all(
            train, *([each] * 2 for each in (name, where, local_steps, rows, tmp_path / f"{where}"))
        )
        for where in (False, True)
    )
    for found in there:
        for parameter, value in here[0].items():
            np.testing.assert_allclose(found[parameter], value, rtol=1e-6, atol=1e-8)
