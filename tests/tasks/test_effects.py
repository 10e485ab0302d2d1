"""The number of effective values, against linear decoders with known effects, and decoders that
rescale.
"""

import torch
from torch import nn

from distvae.numerics.metrics import effective_atoms
from distvae.tasks.measures import moved

ROWS, VALUES, DIMS = 5, 7, 11


def codes() -> torch.Tensor:
    return torch.randn(ROWS, VALUES, generator=torch.Generator().manual_seed(0))


def test_of_a_linear_decoder_effects_are_values_times_the_norms_of_their_columns() -> None:
    linear = nn.Linear(VALUES, DIMS)
    expected = codes().abs() * linear.weight.norm(dim=0)
    torch.testing.assert_close(moved(linear, codes()), expected.detach())


def test_a_decoder_that_rescales_values_changes_no_effect() -> None:
    deep = nn.Sequential(nn.Linear(VALUES, 16), nn.Tanh(), nn.Linear(16, DIMS))
    scale = torch.logspace(-2, 2, VALUES)
    torch.testing.assert_close(
        moved(lambda z: deep(z / scale), codes() * scale),
        moved(deep, codes()),
        rtol=1e-4,
        atol=1e-5,
    )
    assert not torch.allclose(effective_atoms(codes() * scale), effective_atoms(codes()), rtol=0.1)
