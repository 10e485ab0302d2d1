"""On a real GPU alone: what of workers and of the benchmark no other device can show."""

import pytest
import torch

from distvae.bench import gpu
from distvae.train.devices import gpu_id
from distvae.train.team import LocalTeam, Team
from tests.train.crew import crew_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("case", gpu.CASES)
def test_the_benchmark_counts_what_a_step_asks_of_the_gpu(case: str) -> None:
    figures = gpu.measure_case(case, torch.device("cuda", 0), gpu.GpuSettings("cuda", 4096, 1))
    assert figures["launches"] > 0
    assert figures["peak_gb"] > 0
    assert figures["epoch_s"] > figures["products_s"] > 0


def summed(team: Team, value: float) -> list[float]:
    """A tensor on the first GPU after all workers have added theirs."""
    tensor = torch.full((1000,), value, device="cuda:0")
    team.sum([tensor])
    return sorted({*tensor.tolist()})


def test_workers_that_share_a_gpu_add_up_without_nccl() -> None:
    with crew_of(2, LocalTeam) as crew:
        assert crew.all(summed, [1.0, 2.0]) == [[3.0], [3.0]]


def test_a_gpu_has_a_name_of_its_own() -> None:
    names = {gpu_id(torch.device("cuda", place)) for place in range(torch.cuda.device_count())}
    assert len(names - {""}) == torch.cuda.device_count()
