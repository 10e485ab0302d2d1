"""A process trains on the GPU that it was assigned, or says why it cannot. No test needs a GPU."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distvae.config import Train, from_dict
from distvae.files.refusal import Refusal
from distvae.machines.cluster import WorkerGroup, wait_for_workers
from distvae.machines.driver import scaling_config
from distvae.machines.session import ray_session
from distvae.machines.worker import gpu_positions
from distvae.train.team import choose_device, have_distinct_gpus
from tests.called import Called
from tests.ray_cluster import cluster
from tests.slowly import long


@pytest.mark.parametrize(
    ("name", "visible", "assigned", "rank", "expected"),
    [
        ("cpu", 2, (1,), 0, "cpu"),
        ("auto", 0, None, 0, "cpu"),
        ("auto", 2, None, 3, "cuda:1"),
        ("auto", 2, (), 0, "cpu"),
        ("cuda", 2, (1,), 0, "cuda:1"),
        ("auto", 4, (2, 3), 0, "cuda:2"),
        ("auto", 0, (0,), 0, "cpu"),
        ("cuda", 0, None, 0, "torch finds no CUDA device here"),
        ("cuda", 2, (), 0, "Ray assigned this process no GPU"),
        ("auto", 1, (1,), 0, "Ray assigned this process GPU 1, but torch finds 1 here"),
    ],
)
def test_one_function_decides_the_device_or_refuses_one_that_nobody_gave(
    name: str, visible: int, assigned: tuple[int, ...] | None, rank: int, expected: str
) -> None:
    is_refused = " " in expected
    refused = pytest.raises(Refusal, match=f"train.device: .*{expected}")
    with refused if is_refused else nullcontext():
        assert str(choose_device(name, visible, assigned, rank)) == expected


@pytest.mark.parametrize(
    ("ids", "shown", "found"),
    [
        ([1], None, (1,)),
        ([3], "2,3", (1,)),
        (["2", "3"], "3,2", (1, 0)),
        (["GPU-b"], "GPU-a,GPU-b", (1,)),
        (["2"], "0,1", None),
    ],
)
def test_assigned_gpus_are_found_among_those_that_cuda_shows_or_refused(
    ids: list[int | str], shown: str | None, found: tuple[int, ...] | None
) -> None:
    hidden = pytest.raises(Refusal, match=r"CUDA_VISIBLE_DEVICES: .*hides GPU 2")
    with nullcontext() if found else hidden:
        assert gpu_positions(ids, shown) == found


@pytest.mark.parametrize(
    ("identities", "fast"),
    [
        ([["a", "here 0"], ["b", "here 1"]], True),
        ([["a", "here 0"], ["b", "there 0"]], True),
        ([["a", "here 0"], ["a", "here 0"]], False),
        ([["a", "here 0"], ["a", "there 0"]], False),  # two containers that share a GPU
        ([["a", "here 0"], ["b", "here 0"]], False),  # two parts of a divided GPU
        ([["a", "here 0"], []], False),
    ],
)
def test_nccl_is_for_workers_with_a_gpu_of_their_own(
    identities: list[list[str]], fast: bool
) -> None:
    assert have_distinct_gpus(identities) is fast


HERE = [{"CPU": 4, "GPU": 2}]
FOUR = 4 * [{"CPU": 2, "GPU": 1}]


@pytest.mark.parametrize(
    ("workers", "gpus", "train", "machines", "expected"),
    [
        ("2", None, {"device": "auto"}, HERE, 1),
        ("4", None, {"device": "auto"}, [{"CPU": 4}], 0),
        ("4", 0, {"device": "auto"}, HERE, 0),
        ("4", 0.5, {"device": "auto"}, HERE, 0.5),
        ("1:4", None, {"device": "auto"}, HERE, 1),
        ("4", None, {"device": "cpu"}, HERE, 0),
        (
            "4",
            None,
            {"device": "auto"},
            HERE,
            "need 4 GPUs, and Ray has 2; --gpus-per-worker 0.5 to share.*--gpus-per-worker 0 to",
        ),
        ("3", None, {"device": "cuda"}, HERE, "--gpus-per-worker 0.5 .* train.device=cpu to"),
        ("2", None, {"device": "cuda"}, [{"CPU": 4}], "2 GPUs, and Ray has 0; train.device=cpu to"),
        ("4", 1, {"device": "auto"}, HERE, "4 workers need 4 GPUs, and Ray has 2; fewer workers"),
        ("8", None, {"device": "auto"}, HERE, "8 workers need 8 CPUs, and Ray has 4; fewer work"),
        ("2", 2, {}, FOUR, "2 workers with 1 CPU and 2 GPUs each, .* machines for 0"),
        ("1", 0, {"threads": 4}, FOUR, "1 worker with 4 CPUs each, .* machines for 0"),
        ("2", 1.5, {}, HERE, "--gpus-per-worker: .*a part of one"),
        ("2", 1e-5, {}, HERE, "--gpus-per-worker: .*a part of one"),
        ("two", None, {}, HERE, "--workers"),
        ("0:2", None, {}, HERE, "--workers"),
        ("3:1", None, {}, HERE, "--workers"),
    ],
)
def test_workers_start_where_there_is_room_or_are_refused_with_the_ways_out(
    workers: str,
    gpus: float | None,
    train: dict[str, Any],
    machines: list[dict[str, float]],
    expected: float | str,
) -> None:
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    ray = SimpleNamespace(nodes=lambda: nodes)
    config = from_dict({"train": train}).train
    is_refused = isinstance(expected, str)
    with pytest.raises(Refusal, match=str(expected)) if is_refused else nullcontext():
        group = WorkerGroup.parse(workers, gpus)
        with pytest.raises(StopIteration) as end:
            next(wait_for_workers(ray, group, config, lambda: False))
        assert end.value.value.gpus == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus-per-worker", "1"], "--gpus-per-worker: there are no workers"),
        (
            ["--workers", "2", "--gpus-per-worker", "0", "train.device=cuda"],
            "--gpus-per-worker: 0 hides the GPUs",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    call: Called, words: list[str], message: str
) -> None:
    code, _, err = call("train", "bars", "--quiet", *words)
    assert code == 2
    assert message in err


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a Ray whose one machine claims to have two GPUs."""
    with cluster() as machines:
        machines.add_node(num_cpus=4, num_gpus=2)
        yield machines.address


def owned(address: str, gpus: float | None, storage: Path) -> list[dict[str, Any]]:
    """Return what each of two workers says it owns, in order of rank."""

    def look() -> list[dict[str, Any]]:
        import os

        import ray
        from ray.train.torch import get_device

        from distvae.machines.worker import assigned_gpus
        from distvae.train.team import choose_device, join_team

        chosen = {
            "ids": [str(name) for name in ray.get_gpu_ids()],
            "shown": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "ours": str(choose_device("auto", 2, assigned_gpus())),
            "rays": str(get_device()),
        }
        return join_team().gather(chosen)

    from ray.train import RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with ray_session(address, 0) as ray:
        group = WorkerGroup.parse("2", gpus)
        with pytest.raises(StopIteration) as end:
            next(wait_for_workers(ray, group, Train(), lambda: False))
        trainer = TorchTrainer(
            look,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=scaling_config(end.value.value, 1),
            run_config=RunConfig(name="look", storage_path=str(storage)),
        )
        found: list[dict[str, Any]] = trainer.fit().return_value
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [(None, [["0"], ["1"]], "0,1"), *long((0, [[], []], ""), (0.5, [["0"], ["0"]], "0"))],
    ids=["one each", "hidden", "shared"],
)
def test_a_worker_owns_what_ray_assigned_it(
    address: str, case: tuple[float | None, list[list[str]], str], tmp_path: Path
) -> None:
    gpus, ids, shown = case
    # A new process, so that warnings of Ray's own do not count.
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        devices = fresh.submit(owned, address, gpus, tmp_path).result()
    assert sorted(each["ids"] for each in devices) == ids
    for each in devices:
        assert each["shown"] == shown
        assert each["ours"] == each["rays"] == (f"cuda:{each['ids'][0]}" if each["ids"] else "cpu")
