"""The estimated memory of a training agrees with its models and E-steps."""

from typing import Any

import pytest

from distvae.config import from_dict
from distvae.config.recipes import load
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.train.cost import DataSize, check_fits_in_memory, count_parameters, estimate_costs

IMAGES = DataSize(1000, 784, (1, 28, 28))
GUMBEL: dict[str, Any] = {"model": {"kind": "gumbel", "hidden": []}, "estep": {"hidden": []}}


@pytest.mark.parametrize("recipe", ["speech-sdm", "house-50", "mnist-conv-vsc", "gumbel"])
def test_exactly_what_is_needed_is_enough(recipe: str) -> None:
    config = from_dict(GUMBEL) if recipe == "gumbel" else load(recipe)
    config = config.with_("train", device="cpu")
    parts = assemble(config, IMAGES.dims, IMAGES.shape)
    learned = sum(values.numel() for part in parts for values in part.parameters())
    assert count_parameters(config, IMAGES) == learned
    needed = sum(estimate_costs(config, IMAGES).values())
    assert needed > 16 * learned
    check_fits_in_memory(config, IMAGES, free=needed)
    with pytest.raises(Refusal, match=r"^(model|estep|train)\.\w+: .* are free; less expected"):
        check_fits_in_memory(config, IMAGES, free=needed - 1)
