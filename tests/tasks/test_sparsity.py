import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.numerics.metrics import live_atoms
from distvae.tasks.sparsity import CodeStrength, frame_means


@given(st.integers(0, 2**32 - 1), st.integers(1, 49))
def test_strength_does_not_depend_on_where_the_data_is_cut(seed: int, cut: int) -> None:
    code = torch.randn(
        50, 6, generator=torch.Generator().manual_seed(seed)
    ) * 10.0 ** -torch.arange(6)
    strength = CodeStrength()
    strength.add(code[:cut])
    strength.add(code[cut:])
    live = int(live_atoms(code).sum())
    assert strength.count_atoms() == {"live_atoms": live, "dead_atoms": 6 - live}


@pytest.mark.parametrize("loudest", [1e-4, 1.0, 1e4])
def test_quiet_frames_do_not_count_as_active(loudest: float) -> None:
    code = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 1, 1], [0, 0, 0, 0]])
    means = frame_means(code, loudest * torch.tensor([1.0, 0.9e-3, 1.0]))
    assert means == {"hoyer": 0.5, "hoyer_active": 1.0, "effective_atoms": 2.5}


def test_a_code_of_zeros_has_no_sparsity() -> None:
    assert all(
        math.isnan(value) for value in frame_means(torch.zeros(3, 4), torch.ones(3)).values()
    )
