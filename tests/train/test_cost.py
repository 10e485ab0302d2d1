"""The estimated memory of a training agrees with its models and E-steps."""

import subprocess
import sys
from typing import Any

import pytest

from distvae.config import from_dict
from distvae.config.recipes import load
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.train.cost import DataSize, check_fits_in_memory, count_parameters, estimate_cost

IMAGES = DataSize(1000, 784, (1, 28, 28))
VARIANTS: list[dict[str, Any]] = [
    {"model": {"kind": "vsc", "prior": "pseudo", "pseudo_inputs": 7}},
    {"model": {"kind": "sdm", "dictionary": "learned", "atoms": 50}},
    {"model": {"kind": "gumbel", "hidden": []}, "estep": {"hidden": []}},
    {
        "model": {"net": "conv", "channels": [3, 5]},
        "estep": {"net": "conv", "channels": [4], "kernel": 3},
    },
    {
        "data": {"kind": "bars"},
        "model": {"kind": "tvae", "latent": 5, "hidden": []},
        "estep": {"kind": "exact"},
    },
]


def counted(config: Any) -> int:
    """Return how many numbers the model and E-step of a configuration learn."""
    parts = assemble(config, IMAGES.dims, IMAGES.shape)
    return sum(values.numel() for part in parts for values in part.parameters())


@pytest.mark.parametrize("recipe", ["speech-sdm", "mnist-vae", "house-50", "mnist-conv-vsc"])
def test_parameters_are_reckoned_as_many_as_there_are(recipe: str) -> None:
    assert count_parameters(load(recipe), IMAGES) == counted(load(recipe))


@pytest.mark.parametrize("tree", VARIANTS, ids=str)
def test_so_are_those_of_families_that_no_recipe_has(tree: dict[str, Any]) -> None:
    assert count_parameters(from_dict(tree), IMAGES) == counted(from_dict(tree))


@pytest.mark.slow
def test_counting_parameters_imports_no_compiler() -> None:
    """Some operations on torch's meta device import 800 modules, which takes two seconds."""
    program = """
import sys
from distvae.config.recipes import load
from distvae.train.cost import DataSize, count_parameters
for name in ("speech-sdm", "bars", "mnist-conv-vsc"):
    count_parameters(load(name), DataSize(1000, 784, (1, 28, 28)))
    assert "torch._dynamo" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("recipe", ["speech-sdm", "house-50"])
def test_exactly_what_is_needed_is_enough(recipe: str) -> None:
    config = load(recipe).with_("train", device="cpu")
    needed = sum(demand.size for demand in estimate_cost(config, IMAGES))
    check_fits_in_memory(config, IMAGES, free=needed)
    with pytest.raises(Refusal, match="are free; less expected"):
        check_fits_in_memory(config, IMAGES, free=needed - 1)
