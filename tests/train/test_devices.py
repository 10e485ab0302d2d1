"""A process trains on the GPU that it was assigned, or says why it cannot. No test needs a GPU."""

from types import SimpleNamespace

import pytest

from distvae.config import from_dict
from distvae.files.refusal import Refusal
from distvae.machines.cluster import WorkerGroup, wait_for_workers
from distvae.machines.worker import gpu_positions
from distvae.train.team import choose_device, have_distinct_gpus
from tests.called import Called


@pytest.mark.parametrize(
    ("name", "visible", "assigned", "rank", "device"),
    [
        ("cpu", 2, (1,), 0, "cpu"),
        ("auto", 0, None, 0, "cpu"),
        ("auto", 2, None, 3, "cuda:1"),
        ("auto", 2, (), 0, "cpu"),
        ("cuda", 2, (1,), 0, "cuda:1"),
        ("auto", 4, (2, 3), 0, "cuda:2"),
        ("auto", 0, (0,), 0, "cpu"),
    ],
)
def test_one_function_decides_the_device(
    name: str, visible: int, assigned: tuple[int, ...] | None, rank: int, device: str
) -> None:
    assert str(choose_device(name, visible, assigned, rank)) == device


@pytest.mark.parametrize(
    ("name", "visible", "assigned", "message"),
    [
        ("cuda", 0, None, "torch finds no CUDA device here"),
        ("cuda", 2, (), "Ray assigned this process no GPU"),
        ("auto", 1, (1,), "Ray assigned this process GPU 1, but torch finds 1 here"),
    ],
)
def test_a_device_that_nobody_gave_is_refused(
    name: str, visible: int, assigned: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(Refusal, match=f"train.device: .*{message}"):
        choose_device(name, visible, assigned)


@pytest.mark.parametrize(
    ("ids", "shown", "found"),
    [
        ([], None, ()),
        ([1], None, (1,)),
        ([3], "2,3", (1,)),
        (["2", "3"], "3,2", (1, 0)),
        (["GPU-b"], "GPU-a,GPU-b", (1,)),
    ],
)
def test_assigned_gpus_are_found_among_those_that_cuda_shows(
    ids: list[int | str], shown: str | None, found: tuple[int, ...]
) -> None:
    assert gpu_positions(ids, shown) == found


def test_an_assigned_gpu_that_is_hidden_is_refused() -> None:
    with pytest.raises(Refusal, match=r"CUDA_VISIBLE_DEVICES: .*hides GPU 2"):
        gpu_positions(["2"], "0,1")


@pytest.mark.parametrize(
    ("identities", "fast"),
    [
        ([["a", "here 0"], ["b", "here 1"]], True),
        ([["a", "here 0"], ["b", "there 0"]], True),
        ([["a", "here 0"], ["a", "here 0"]], False),
        ([["a", "here 0"], ["a", "there 0"]], False),  # two containers that share a GPU
        ([["a", "here 0"], ["b", "here 0"]], False),  # two parts of a divided GPU
        ([["a", "here 0"], []], False),
        ([[], []], False),
    ],
)
def test_nccl_is_for_workers_with_a_gpu_of_their_own(
    identities: list[list[str]], fast: bool
) -> None:
    assert have_distinct_gpus(identities) is fast


def settled(workers: str, gpus: float | None, device: str, **there: float) -> WorkerGroup:
    """Return the group that may start with some resources of Ray."""
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": there}])
    waiting = wait_for_workers(
        ray,
        WorkerGroup.parse(workers, gpus),
        from_dict({"train": {"device": device}}).train,
        lambda: False,
    )
    with pytest.raises(StopIteration) as end:
        next(waiting)
    found: WorkerGroup = end.value.value
    return found


@pytest.mark.parametrize(
    ("workers", "gpus", "device", "there", "each"),
    [
        ("2", None, "auto", 2, 1),
        ("4", None, "auto", 0, 0),
        ("4", 0, "auto", 2, 0),
        ("4", 0.5, "auto", 2, 0.5),
        ("1:4", None, "auto", 1, 1),
        ("4", None, "cpu", 2, 0),
    ],
)
def test_workers_start_where_there_is_room(
    workers: str, gpus: float | None, device: str, there: float, each: float
) -> None:
    assert settled(workers, gpus, device, CPU=4, GPU=there).gpus == each


@pytest.mark.parametrize(
    ("workers", "gpus", "device", "there", "message"),
    [
        (
            "4",
            None,
            "auto",
            2,
            "need 4 GPUs, and Ray has 2; --gpus-per-worker 0.5 to share.*--gpus-per-worker 0 to",
        ),
        ("3", None, "cuda", 1, "--gpus-per-worker 0.33 to share them, train.device=cpu to"),
        (
            "2",
            None,
            "cuda",
            0,
            "2 workers need 2 GPUs, and Ray has 0; train.device=cpu to train on the CPU",
        ),
        ("4", 1, "auto", 2, "4 workers need 4 GPUs, and Ray has 2; fewer workers"),
        ("8", None, "auto", 2, "8 workers need 8 CPUs, and Ray has 4; fewer workers"),
    ],
)
def test_too_few_gpus_are_refused_with_the_ways_out(
    workers: str, gpus: float | None, device: str, there: float, message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        settled(workers, gpus, device, CPU=4, GPU=there)


def test_workers_that_no_machine_can_hold_are_refused() -> None:
    ray = SimpleNamespace(nodes=lambda: 4 * [{"Alive": True, "Resources": {"CPU": 2, "GPU": 1}}])
    for group, threads, message in (
        (
            WorkerGroup.parse("2", 2),
            1,
            "2 workers with 1 CPU and 2 GPUs each, .* machines for 0",
        ),
        (WorkerGroup.parse("1", 0), 4, "1 worker with 4 CPUs each, .* machines for 0"),
    ):
        config = from_dict({"train": {"threads": threads}}).train
        with pytest.raises(Refusal, match=message):
            next(wait_for_workers(ray, group, config, lambda: False))


@pytest.mark.parametrize("gpus", [1.5, 1e-5, float("nan")])
def test_what_ray_cannot_give_of_a_gpu_is_refused(gpus: float) -> None:
    with pytest.raises(Refusal, match=r"--gpus-per-worker: .*(a part of one|not finite)"):
        WorkerGroup.parse("2", gpus)


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
