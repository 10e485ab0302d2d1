"""Convolutional nets: images of any size come back whole, laid out as data lays them out, with the
published counts.
"""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from distvae.config import Config, ImageData, Net, from_dict
from distvae.config.recipes import load
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.models.nets import decoder, encoder
from distvae.train.session import fit
from tests import tiny

Shape = tuple[int, int, int]


@given(
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 30), st.integers(1, 30)),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    kernel=st.integers(2, 7),
    hidden=st.lists(st.integers(1, 5), max_size=2).map(tuple),
)
def test_what_comes_out_has_the_size_of_what_went_in(
    shape: Shape, channels: tuple[int, ...], kernel: int, hidden: tuple[int, ...]
) -> None:
    config = Net(hidden=hidden, net="conv", channels=channels, kernel=kernel)
    dims = math.prod(shape)
    try:
        features, width = encoder(config, dims, shape)
    except Refusal:
        # Only images too small for so many layers may be refused.
        assume(min(shape[1:]) >= 2 ** len(channels))
        raise
    made = decoder(config, 6, dims, shape)
    assert features(torch.zeros(2, 5, dims)).shape == (2, 5, width)
    assert made(torch.zeros(2, 5, 6)).shape == (2, 5, dims)
    assert features(torch.zeros(0, dims)).shape == (0, width)


def test_an_image_that_moves_has_features_that_move() -> None:
    """Rows are channels, height, width, flat: two pixels down and four to the right are one and two
    of stride 2.
    """
    config, shape = Net(hidden=(), net="conv", channels=(5,), activation="relu"), (3, 16, 20)
    features, _ = encoder(config, math.prod(shape), shape)
    image = torch.zeros(2, *shape)
    patch = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    image[0, :, 4:8, 4:8], image[1, :, 6:10, 8:12] = patch, patch
    first, moved = features(image.flatten(1)).reshape(2, 5, 8, 10)
    torch.testing.assert_close(first[:, :6, :7], moved[:, 1:7, 2:9])
    assert not torch.allclose(first, moved)


def test_the_nets_are_as_large_as_the_released_ones() -> None:
    """The ConvVSC of the reproduction's code for 64 x 64: 32-32-64-64, 4 x 4, hidden 256."""
    widths, flat, latent = [3, 32, 32, 64, 64], 64 * 4 * 4, 200
    kernels = sum(16 * a * b for a, b in pairwise(widths))
    encoding = kernels + sum(widths[1:]) + (flat + 1) * 256 + 3 * 257 * latent
    decoding = (latent + 1) * 256 + 257 * flat + kernels + sum(widths[:-1])
    config = load("celeba-vsc", {})
    assert isinstance(config.data, ImageData)
    parts = assemble(config, config.data.dims, config.data.shape)
    learned = [p.numel() for part in parts for p in part.parameters() if p.requires_grad]
    assert sum(learned) == encoding + decoding


def conv(**model: Any) -> Config:
    both = {"net": "conv", "channels": [2]}
    return from_dict({"model": both | model, "estep": both})


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (conv(), (2, 40), r"model\.net: 'conv', and a data point is no image"),
        (conv(channels=[2] * 5), (1, 28, 28), r"model\.channels: 5 layers on 28 x 28; at most 4"),
        (conv(channels=[]), (1, 28, 28), r"model\.channels: \[\] with net 'conv'; one or more"),
        (conv(net="flat"), (), r"estep\.net: 'conv', and a data point is no image"),
    ],
)
def test_what_has_no_place_for_convolutions_is_refused(
    config: Config, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        assemble(config, math.prod(shape) or 513, shape)


def test_a_model_without_an_encoder_refuses_them_by_name() -> None:
    with pytest.raises(Refusal, match=r"model\.net: no such field of model\.kind 'tvae'"):
        from_dict({"model": {"kind": "tvae", "net": "conv"}})
    with pytest.raises(Refusal, match=r"estep\.net: no such field of estep\.kind 'evolution'"):
        from_dict({"model": {"kind": "tvae"}, "estep": {"net": "conv"}})


@pytest.mark.parametrize("side", ["model", "estep"])
def test_a_small_conv_net_learns_on_either_side(side: str, tmp_path: Any) -> None:
    net = {"net": "conv", "channels": [6], "kernel": 3}
    config = tiny.config(**{side: net}, train={"epochs": 10, "rate": 1e-2})
    epochs = list(fit(config, tiny.dataset(), tmp_path / "run"))
    assert epochs[-1].metrics()["val_objective"] > epochs[0].metrics()["val_objective"] + 1
