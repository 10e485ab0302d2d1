"""What is left out of Ray Train is what Ray Train has, and nothing else."""

import pytest
from ray.train.torch import TorchTrainer

from distvae.machines.trainer import CLEANER, DATASETS, LightTrainer, PrivateTrainer


def helpers(kind: type[TorchTrainer]) -> set[str]:
    trainer = kind(lambda: None)
    return {type(each).__name__ for each in trainer._create_default_callbacks()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
def test_the_helpers_of_the_trainer_are_those_of_ray_without_what_is_left_out() -> None:
    everything = helpers(TorchTrainer)
    assert {DATASETS, CLEANER} <= everything
    assert helpers(LightTrainer) == everything - {DATASETS}
    assert helpers(PrivateTrainer) == everything - {DATASETS, CLEANER}
