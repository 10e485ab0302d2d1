"""The store over which workers meet."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch.distributed as dist
from ray.exceptions import GetTimeoutError

from distvae.machines.workers.rendezvous import ActorStore


def test_torch_is_told_of_a_key_without_a_value_as_by_its_own_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It then looks whether it goes on waiting, which it does after no other error."""

    def nobody_answers(references: object, timeout: float) -> None:
        raise GetTimeoutError(f"{references} {timeout}")

    monkeypatch.setattr(ray, "get", nobody_answers)
    actor: Any = SimpleNamespace(get=SimpleNamespace(remote=lambda key: key))
    store = ActorStore(actor)
    with pytest.raises(dist.DistStoreError):
        store.wait(["key"], timedelta(seconds=1))
    with pytest.raises(dist.DistStoreError):
        store.get("key")
