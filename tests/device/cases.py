"""Small trainings on the device, with every kind of model and E-step."""

from dataclasses import replace
from typing import Any

import numpy as np

from distvae.config import Config
from distvae.data.dataset import Dataset
from tests import tiny

Sections = dict[str, dict[str, Any]]
ROWS, MISSING = 80, 0.2


def encoded(kind: str, **model: Any) -> Sections:
    """A model with an encoder."""
    return {"model": {"kind": kind, **model}}


def searched(estep: dict[str, Any] | None = None, **model: Any) -> Sections:
    """A model with populations."""
    search = {"kind": "evolution", "states": 6, "parents": 3, "children": 2, "block": 32}
    return {"model": {"kind": "tvae", "latent": 7, **model}, "estep": estep or search}


def evolved(**estep: Any) -> Sections:
    """The same, by an evolution of its own."""
    sections = searched()
    return sections | {"estep": sections["estep"] | estep}


CONVOLUTIONS = {"net": "conv", "channels": [3, 2], "kernel": 3}
ENCODED: dict[str, Sections] = {
    "vae": encoded("vae"),
    "vae warm": encoded("vae", beta=2.0, beta_warmup=3),
    "vae of raw data": {**encoded("vae", likelihood="gaussian"), "estep": {"input": "raw"}},
    "convolutions": {**encoded("vae", **CONVOLUTIONS), "estep": CONVOLUTIONS},
    "vsc": encoded("vsc"),
    "vsc pseudo": encoded("vsc", prior="pseudo", slab_warmup=[2, 8]),
    "gumbel": encoded("gumbel", prior="learned", cooling=5),
    "categories": encoded("gumbel", categories=3, prior="learned"),
    "sdm dct": encoded("sdm", dictionary="dct", atoms=6),
    "sdm learned": encoded("sdm", dictionary="learned", atoms=6, coherence=0.1),
}
SEARCHED: dict[str, Sections] = {
    **{
        selection: evolved(selection=selection)
        for selection in ("fitness", "fitness_batch", "uniform", "best")
    },
    "released": evolved(selection="released", generations=2),
    "sparse flips": evolved(mutation="sparse_flip", rate=0.3, generations=2),
    "crossover, sparse flips": evolved(crossover="one_point", mutation="sparse_flip"),
    "own first states": evolved(first="own"),
    "random": searched({"kind": "random", "states": 6, "draws": 5, "block": 32}),
    "exact": searched({"kind": "exact"}),
    "bsc": searched(hidden=[]),
    "bsc, least squares": searched(
        latent=4, hidden=[], linear_fit="closed_form", missing="completed"
    ),
    "two layers, linear first": searched(hidden=[7, 7], linear=3),
    "two words of bits": searched(latent=70),
    "narrow horizon": searched(horizon=0.5),
    "no horizon": searched(horizon=None),
    "bernoulli": searched(likelihood="bernoulli"),
}
SUPPORTED: dict[str, Sections] = {
    "selection": {"model": {"kind": "ssc", "cycles": 1}, "estep": {"kind": "selection"}},
    "supports": {
        "model": {"kind": "ssc", "likelihood": "log_normal", "cycles": 0, "active": 1.5},
        "estep": {"kind": "all_supports"},
    },
}
CASES = ENCODED | SEARCHED | SUPPORTED


def config_of(name: str, device: str = "auto", **sections: dict[str, Any]) -> Config:
    """The configuration of a case, with sections laid over it."""
    case = CASES[name]
    where = {"epochs": 2, "device": device} | sections.get("train", {})
    for section, fields in (sections | {"train": where}).items():
        case = case | {section: case.get(section, {}) | fields}
    return tiny.config(**case)


def dataset(name: str, missing: bool = False) -> Dataset:
    """Small data that suits a case, in double precision so that results agree closely; some of it
    may be missing.
    """
    data = tiny.dataset(ROWS)
    likelihood = CASES[name]["model"].get("likelihood", "")
    return replace(
        data,
        splits={
            split: _values(rows[:], likelihood, missing) for split, rows in data.splits.items()
        },
    )


def _values(powers: np.ndarray, likelihood: str, missing: bool) -> np.ndarray:
    values = powers.astype(np.float64)
    if likelihood == "bernoulli":
        values = values / (1 + values)
    if missing:
        values[np.random.default_rng(1).random(values.shape) < MISSING] = np.nan
    return values
