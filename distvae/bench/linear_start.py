"""Time how long a decoder takes to score states while it is linear, beside all of its layers.

A decoder that begins linear decodes bits by its last layer alone. A decoder with the same weights
that did not begin linear computes all layers. Both take turns. Times are processor time of the
calling thread.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from distvae.bench.output import Output
from distvae.bench.timing import spread, time_call
from distvae.config import TVAEModel
from distvae.config.recipes import load, recipe_name
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.population import pack
from distvae.models.tvae import TVAE

WARM_UP = 3
"""Turns that are not timed."""


class StatesExtent(NamedTuple):
    """The states that are scored."""

    rows: int
    states: int
    """States of each row."""
    active: int
    """Expected number of active bits of a state."""
    turns: int


def bench_linear_start(recipe: str, extent: StatesExtent, output: Output) -> None:
    """Time the scores of random states by a recipe's decoder, in both ways."""
    torch.set_num_threads(1)
    figures = measure_linear_start(recipe, extent)
    settings = extent._asdict()
    text = (
        f"{recipe}, {extent.rows} x {extent.states} states, {extent.active} bits active:"
        f" {figures['last_layer_ms']:.2f} ms by the last layer, {figures['all_layers_ms']:.2f} ms"
        f" by all layers; {figures['times']:.2f} times as fast; scores of up to"
        f" {figures['largest']:.3g} differ by {figures['difference']:.2g} at most"
    )
    output.show({"recipe": recipe, **settings, **figures}, text)
    output.keep(f"linear-start-{recipe_name(recipe)}", figures, settings)


def measure_linear_start(recipe: str, extent: StatesExtent) -> dict[str, float]:
    """Return milliseconds of both ways, and by how much the scores differ at most."""
    linear, full = _decoders(recipe)
    batch, words = _random_states(linear, extent)
    # Copies, because a model uses the memory of its scores again.
    scores = [model.score(batch, words).clone() for model in (linear, full)]
    seconds: dict[str, list[float]] = {"last_layer_ms": [], "all_layers_ms": []}
    for turn in range(WARM_UP + extent.turns):
        for name, model in zip(seconds, (linear, full), strict=True):
            taken = time_call(model.score, batch, words, clock=time.thread_time)
            if turn >= WARM_UP:
                seconds[name].append(1e3 * taken)
    figures = dict(spread(seconds))
    return {
        **figures,
        "times": figures["all_layers_ms"] / figures["last_layer_ms"],
        "difference": float((scores[0] - scores[1]).abs().max()),
        "largest": float(scores[0].abs().max()),
    }


def _decoders(recipe: str) -> tuple[TVAE, TVAE]:
    """Return a model that begins linear, and one with the same weights that does not."""
    config = load(recipe)
    if not (isinstance(config.model, TVAEModel) and config.model.linear and config.model.hidden):
        raise Refusal(f"{recipe}: its decoder does not begin linear; model.linear above 0 expected")
    linear = TVAE(config.model, config.data.dims)
    full = TVAE(replace(config.model, linear=0, linear_fit="gradient"), config.data.dims)
    full.load_state_dict(linear.state_dict())
    return linear, full


def _random_states(model: TVAE, extent: StatesExtent) -> tuple[Batch, Tensor]:
    """Return random rows, and random states for each."""
    chance = torch.Generator().manual_seed(0)
    rows = torch.randn(extent.rows, model.dims, generator=chance)
    shape = (extent.rows, extent.states, model.code_size)
    bits = torch.rand(shape, generator=chance) < extent.active / model.code_size
    return Batch.of(rows, torch.arange(extent.rows)), pack(bits)
