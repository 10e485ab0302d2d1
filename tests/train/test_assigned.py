"""Workers under a Ray with two GPUs: what each owns, and what Ray counts as free.

Each test starts its workers from a new process, so that warnings of Ray's own do not count.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from distvae.config import Train
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines import driver
from distvae.machines.cluster import WorkerGroup, wait_for_workers
from distvae.machines.driver import scaling_config
from distvae.machines.session import ray_session
from distvae.train.loop import Epoch, Interrupted
from distvae.train.run_folder import open_folder
from tests.ray_cluster import cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a Ray whose one machine claims to have two GPUs."""
    with cluster() as machines:
        machines.add_node(num_cpus=4, num_gpus=2)
        yield machines.address


def anew(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(function, *arguments).result()


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
        }
        chosen |= {
            "ours": str(choose_device("auto", 2, assigned_gpus())),
            "rays": str(get_device()),
        }
        return join_team().gather(chosen)

    from ray.train import RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with ray_session(address, 0) as ray:
        (group,) = last(wait_for_workers(ray, WorkerGroup.parse("2", gpus), Train(), lambda: False))
        trainer = TorchTrainer(
            look,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=scaling_config(group, 1),
            run_config=RunConfig(name="look", storage_path=str(storage)),
        )
        found: list[dict[str, Any]] = trainer.fit().return_value
        return found


def last(news: Iterator[object]) -> list[Any]:
    """Return the value that a generator returns."""
    while True:
        try:
            next(news)
        except StopIteration as end:
            return [end.value]


@pytest.mark.parametrize(
    ("gpus", "ids", "shown"),
    [
        (None, [["0"], ["1"]], "0,1"),
        pytest.param(0, [[], []], "", marks=pytest.mark.long),
        pytest.param(0.5, [["0"], ["0"]], "0", marks=pytest.mark.long),
    ],
    ids=["one each", "hidden", "shared"],
)
def test_a_worker_owns_what_ray_assigned_it(
    address: str, gpus: float | None, ids: list[list[str]], shown: str, tmp_path: Path
) -> None:
    devices = anew(owned, address, gpus, tmp_path)
    assert sorted(each["ids"] for each in devices) == ids
    for each in devices:
        assert each["shown"] == shown
        assert each["ours"] == each["rays"] == (f"cuda:{each['ids'][0]}" if each["ids"] else "cpu")


def begun(place: Path, **train: Any) -> tuple[Any, Folder]:
    """Create a run that workers can train."""
    fixed = {"data.rows": 200} | {f"train.{name}": value for name, value in train.items()}
    config, folder = load("bars", fixed), Folder(place)
    open_folder(config, open_dataset(config.data), folder, "bars", resume=False, force=False)
    return config, folder


def free_gpus(ray: Any) -> float:
    """Return the GPUs that Ray has left."""
    return float(ray.available_resources().get("GPU", 0.0))


def books(address: str, place: Path) -> tuple[float, float]:
    """Return the GPUs that are free while two workers train, and afterwards."""
    import ray

    config, folder = begun(place, device="auto", epochs=1_000_000)
    asked: list[bool] = []
    reports = driver.train_with_workers(
        config,
        "bars",
        folder,
        WorkerGroup.parse("2", address=address),
        lambda: bool(asked),
        lambda: None,
    )
    next(news for news in reports if isinstance(news, Epoch))
    during = free_gpus(ray)
    asked.append(True)
    with pytest.raises(Interrupted):
        last(reports)
    deadline = time.monotonic() + 120
    with ray_session(address, 0):
        while free_gpus(ray) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        return during, free_gpus(ray)


@pytest.mark.long
def test_the_books_of_ray_are_right_while_workers_train_and_after(
    address: str, tmp_path: Path
) -> None:
    assert anew(books, address, tmp_path / "run") == (0, 2)


def refusal(address: str, place: Path) -> str:
    """Return why workers without an assigned GPU do not train on one."""
    config, folder = begun(place, device="cuda", epochs=1)
    with pytest.raises(Refusal) as error:
        last(
            driver.train_with_workers(
                config, "bars", folder, WorkerGroup(2, 2, 0.0, address), lambda: False, lambda: None
            )
        )
    return str(error.value)


@pytest.mark.long
def test_a_worker_that_was_assigned_no_gpu_is_refused_one(address: str, tmp_path: Path) -> None:
    assert "train.device: 'cuda', but Ray assigned this process no GPU" in anew(
        refusal, address, tmp_path / "run"
    )
