"""Golden losses: the first objectives of every recipe, on computed data, equal the stored values.

After an intended change: `python -m tests.laws.test_golden` writes new values.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distvae.config.recipes import load, recipe_names
from distvae.estep import assemble
from distvae.interface import prepare
from distvae.numerics.rows import Lanes
from distvae.train.loop import Trainer

GOLDEN = Path(__file__).parents[1] / "golden" / "objectives.json"
STEPS = 5


def objectives(recipe: str) -> list[float]:
    """The validation objective before training and after some steps, on few rows; after one epoch
    if all updates have a closed form.
    """
    settings: dict[str, object] = {"train.batch": 16, "train.warmup": 0, "train.device": "cpu"}
    if recipe == "images":  # which finds them in the data
        settings |= {"data.size": [16, 16], "data.colour": "rgb"}
    config = load(recipe, settings)
    dims = 8 if config.data.kind == "rows" else config.data.dims
    place = np.arange(64 * dims, dtype=np.float64).reshape(64, dims)
    x = (0.5 + 0.5 * np.sin(place * 0.618) * np.cos(place * 0.0137)).astype(np.float32)
    model, estep = assemble(config, dims, getattr(config.data, "shape", ()))
    prepare(estep, [torch.from_numpy(x)], Lanes(len(x), 1).held(), 0)
    trainer = Trainer(
        config.train, model, estep, x[:48], x[48:] if config.estep.kind == "amortised" else x[:48]
    )
    if not trainer.parameters:
        prepare(model, [torch.from_numpy(x[:48])], Lanes(48, 1).held(), 0)
        return [next(trainer.run()).val_objective]
    found = [trainer.validate()["objective"]]
    for step in range(STEPS):
        trainer.step(np.arange(16) + 16 * (step % 3))
        found.append(trainer.validate()["objective"])
    return found


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_first_objectives_of_a_recipe_are_golden(recipe: str) -> None:
    assert objectives(recipe) == pytest.approx(json.loads(GOLDEN.read_text())[recipe], rel=1e-4)


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps({recipe: objectives(recipe) for recipe in recipe_names()}, indent=1) + "\n"
    )
