"""The pretended device, present for a test."""

from collections.abc import Iterator

import pytest
import torch

from distvae.train import loop, session, step, team
from tests.device.pretended import Machine, present


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose `train.device=auto` is the pretended device."""
    with present() as device:
        found = Machine(device)
        for module in (team, loop, session):
            monkeypatch.setattr(module, "select_device", found.of)
        monkeypatch.setattr(step, "PRECISION", torch.float64)  # as that of the CPU's rates
        yield found


@pytest.fixture
def double() -> Iterator[None]:
    """Use double precision, so that the order of summation does not affect later results."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
