"""A step of several workers equals the step of one worker. Local steps end with equal parameters,
and stopped workers end with the parameters of workers that were not stopped.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distvae.config import Config
from distvae.estep.truncated import Search
from distvae.numerics import rows as bands
from distvae.train.checkpoint import weights
from distvae.train.loop import Interrupted
from distvae.train.session import build_trainer
from distvae.train.team import ALONE, Team
from tests import tiny
from tests.train.crew import Crew

pytestmark = pytest.mark.slow
STEPS, BATCH, FEW = 20, 24, 10
KINDS: dict[str, dict[str, Any]] = {
    "vae": {"model": {"kind": "vae"}},
    "sdm": {"model": {"kind": "sdm", "dictionary": "learned", "atoms": 6, "coherence": 0.1}},
    "vsc": {"model": {"kind": "vsc", "prior": "pseudo"}},
    "tvae": {
        "model": {"kind": "tvae"},
        "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 48},
    },
    "ssc": {"model": {"kind": "ssc", "cycles": 1}, "estep": {"kind": "selection"}},
}
MANY = bands.LISTED
POOL = "pool"
"""The states from which new rows start, which the first worker alone keeps."""
Found = dict[str, NDArray[np.float64]]


def config_of(kind: str, **train: Any) -> Config:
    return tiny.config(**KINDS[kind], train={"batch": BATCH, "epochs": 1} | train)


def train(team: Team, config: Config, together: bool, listed: int = MANY) -> Found:
    """Return the parameters after an epoch of some steps, in double precision, and the figures of
    validation. More than `listed` rows are visited as many.
    """
    bands.LISTED = listed
    data = tiny.dataset(2 * STEPS * BATCH - 11 * (listed == FEW))
    data = replace(
        data, splits={name: rows[:].astype(np.float64) for name, rows in data.splits.items()}
    )
    torch.set_default_dtype(torch.float64)
    try:
        trainer = build_trainer(config, data, team if together else ALONE)
        epoch = next(trainer.run())
    finally:
        torch.set_default_dtype(torch.float32)
        bands.LISTED = MANY
    state = trainer.model.state_dict() | trainer.estep.state_dict()
    found = {name: value.numpy().copy() for name, value in state.items()}
    return {**found, "bound": np.array(epoch.val_bound), "rows": np.array(trainer.val_rows)}


@pytest.mark.parametrize(
    ("kind", "listed"), [*((kind, MANY) for kind in KINDS), ("vae", FEW), ("tvae", FEW)]
)
def test_any_number_of_workers_takes_the_steps_of_one(crew: Crew, kind: str, listed: int) -> None:
    size, config = crew.size, config_of(kind, val_rows=50 if listed == FEW else None)
    one = crew.all(train, [config] * size, [False] * size, [listed] * size)[0]
    for rank, found in enumerate(crew.all(train, [config] * size, [True] * size, [listed] * size)):
        for name in one if rank == 0 else one.keys() - {POOL}:
            np.testing.assert_allclose(found[name], one[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["sdm", "tvae"])
def test_workers_that_step_alone_end_with_the_same_parameters_which_are_not_those_of_one(
    crew: Crew, kind: str
) -> None:
    size, config = crew.size, config_of(kind, local_steps=8)
    first, *others = crew.all(train, [config] * size, [True] * size)
    for other in others:
        assert all(np.array_equal(first[name], other[name]) for name in first.keys() - {POOL})
    exact = train(ALONE, config, False)
    assert any(not np.array_equal(first[name], exact[name]) for name in first)


def train_with_a_stop(team: Team, config: Config, stop_at: int) -> tuple[Found, float]:
    """Return the weights after an epoch, and its objective. The epoch is stopped after `stop_at`
    steps and continued by new trainers.
    """
    data = tiny.dataset(2 * STEPS * BATCH)
    trainer = build_trainer(config, data, team)
    try:
        epoch = next(trainer.run(lambda: trainer.position.batch >= stop_at))
    except Interrupted:
        tensors, position = trainer.state()
        stopped, trainer = trainer, build_trainer(config, data, team)
        trainer.restore({name: value.clone() for name, value in tensors.items()}, position)
        if isinstance(stopped.estep, Search):
            assert isinstance(trainer.estep, Search)
            trainer.estep.store = stopped.estep.store
        epoch = next(trainer.run())
    tensors = weights(trainer.model, trainer.estep)
    return {name: value.numpy().copy() for name, value in tensors.items()}, epoch.train_objective


@pytest.mark.parametrize("kind", ["vae", "tvae"])
def test_workers_that_were_stopped_end_with_every_digit_of_those_that_were_not(
    crew: Crew, kind: str
) -> None:
    """Each worker continues with its own sums. The total over all workers, added in another order,
    has other digits.
    """
    config = config_of(kind)
    size, never = crew.size, 10 * STEPS
    whole = crew.all(train_with_a_stop, [config] * size, [never] * size)
    stopped = crew.all(train_with_a_stop, [config] * size, [STEPS // 2] * size)
    for (ours, objective), (theirs, expected) in zip(stopped, whole, strict=True):
        assert objective == expected
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
