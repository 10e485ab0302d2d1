"""What is left out of Ray Train is what Ray Train has, and nothing else."""

import pytest
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, ResizeDecision

from distvae.machines.workers.no_more_machines import NoMoreMachines
from distvae.machines.workers.trainer import CLEANER, DATASETS, LightTrainer, PrivateTrainer


def helpers(kind: type[TorchTrainer]) -> set[str]:
    trainer = kind(lambda: None)
    return {type(each).__name__ for each in trainer._create_default_callbacks()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
def test_the_helpers_of_the_trainer_are_those_of_ray_without_what_is_left_out() -> None:
    everything = helpers(TorchTrainer)
    assert {DATASETS, CLEANER} <= everything
    assert helpers(LightTrainer) == everything - {DATASETS}
    assert helpers(PrivateTrainer) == everything - {DATASETS, CLEANER}


def test_the_policy_wants_the_workers_that_rays_own_wants_and_calls_no_actor() -> None:
    assert {name for name in vars(NoMoreMachines) if not name.startswith("__")} <= {
        *dir(FixedScalingPolicy)
    }, "Ray has no such method any more, so nothing is left out"
    policy = NoMoreMachines(ScalingConfig(num_workers=3, resources_per_worker={"CPU": 2}))
    policy.after_controller_start(object())
    wanted = policy.make_decision_for_non_running_worker_group()
    assert wanted == ResizeDecision(num_workers=3, resources_per_worker={"CPU": 2})
