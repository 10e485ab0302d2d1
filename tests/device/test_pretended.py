"""The pretended device refuses the operations that a GPU refuses, counts its operations."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.device.pretended import Machine, Pretended

HOST = torch.arange(6.0)
MIXED: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda x: x + HOST,
    "cat": lambda x: torch.cat([x, HOST]),
    "values of the host": lambda x: x.index_put_((x.long(),), HOST),
    "written on the host": lambda x: torch.zeros(()).add_(x.sum()),
    "module of the host": lambda x: nn.Linear(6, 2)(x),
}


@pytest.mark.parametrize("act", MIXED.values(), ids=MIXED)
def test_it_refuses_to_meet_tensors_of_the_host_and_to_become_an_array(
    machine: Machine, act: Callable[[Tensor], object]
) -> None:
    x = HOST.to(machine.device)
    with pytest.raises(RuntimeError, match=r"same device"):
        act(x)
    ways: list[Callable[[], object]] = [x.numpy, lambda: np.asarray(x)]
    for become in ways:
        with pytest.raises((TypeError, RuntimeError), match="numpy"):
            become()


def test_single_numbers_and_indices_of_the_host_are_taken(machine: Machine) -> None:
    x = HOST.to(machine.device)
    assert (x * torch.tensor(2.0)).cpu().tolist() == (2 * HOST).tolist()
    assert x[torch.tensor([3, 1])].cpu().tolist() == [3, 1]
    for made in (
        torch.zeros(2, device=machine.device),
        x.new_tensor(3.0),
        torch.arange(4, device=machine.device),
    ):
        assert isinstance(made, Pretended)
        assert made.size() == made.held.size()


def test_it_counts_kernels_copies_and_waits(machine: Machine) -> None:
    with machine.counted() as counts:
        x = HOST.to(machine.device, non_blocking=True)
        y = (2 * x.view(2, 3)).t()
        found = float(y.sum()), y.cpu(), x[x > 2], x[torch.tensor([0])]
    assert found[0] == 30
    assert counts.kernels == {"mul": 1, "sum": 1, "gt": 1, "index": 2}
    assert counts.to_device == {"copy_": 1, "index": 1}
    assert counts.to_host == {"_to_copy": 1, "_local_scalar_dense": 1}
    assert counts.waits == {"_local_scalar_dense": 1, "_to_copy": 1, "index": 2}
    assert counts.bytes == {"to_device": 4 * 6 + 8, "to_host": 4 * 6 + 4}
    with machine.counted() as later:
        HOST.to(machine.device)
    assert later.waits == later.to_device == {"copy_": 1}


def test_gradients_are_those_of_the_host(machine: Machine) -> None:
    host = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    there = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(machine.device)
    there.load_state_dict(host.state_dict())
    x = torch.arange(6.0).view(2, 3)
    host(x).sum().backward()
    there(x.to(machine.device)).sum().backward()
    for one, other in zip(host.parameters(), there.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad.cpu())
