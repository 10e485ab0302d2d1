"""A step of several workers equals that of one. Local steps end with equal parameters."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distvae.config import Config
from distvae.train.session import build_trainer
from distvae.train.team import ALONE, LocalTeam, Team
from tests import tiny
from tests.train.crew import Crew, crew_of

STEPS, BATCH = 20, 24
KINDS: dict[str, dict[str, Any]] = {
    "vae": {"model": {"kind": "vae"}},
    "sdm": {"model": {"kind": "sdm", "dictionary": "learned", "atoms": 6, "coherence": 0.1}},
    "vsc": {"model": {"kind": "vsc", "prior": "pseudo"}},
    "tvae": {
        "model": {"kind": "tvae"},
        "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 48},
    },
}
Found = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module", params=[2, 3])
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    with crew_of(request.param, LocalTeam) as crew:
        yield crew


def config_of(kind: str, **train: Any) -> Config:
    return tiny.config(**KINDS[kind], train={"batch": BATCH, "epochs": 1} | train)


def train(team: Team, config: Config, together: bool) -> Found:
    """Return the parameters after an epoch of some steps, in double precision."""
    data = tiny.dataset(2 * STEPS * BATCH)
    data = replace(
        data, splits={name: rows[:].astype(np.float64) for name, rows in data.splits.items()}
    )
    torch.set_default_dtype(torch.float64)
    try:
        trainer = build_trainer(config, data, team if together else ALONE)
        next(trainer.run())
    finally:
        torch.set_default_dtype(torch.float32)
    return {f"{i}": p.detach().numpy().copy() for i, p in enumerate(trainer.parameters)}


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_takes_the_steps_of_one(crew: Crew, kind: str) -> None:
    size, config = crew.size, config_of(kind)
    one = crew.all(train, [config] * size, [False] * size)[0]
    for found in crew.all(train, [config] * size, [True] * size):
        for name in one:
            np.testing.assert_allclose(found[name], one[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["sdm", "tvae"])
def test_workers_that_step_alone_end_with_the_same_parameters_which_are_not_those_of_one(
    crew: Crew, kind: str
) -> None:
    size, config = crew.size, config_of(kind, local_steps=8)
    first, *others = crew.all(train, [config] * size, [True] * size)
    for other in others:
        assert all(np.array_equal(first[name], other[name]) for name in first)
    exact = train(ALONE, config, False)
    assert any(not np.array_equal(first[name], exact[name]) for name in first)
