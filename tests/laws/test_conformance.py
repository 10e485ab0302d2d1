"""The laws that every model and every E-step keeps, checked over all families."""

from collections.abc import Callable
from typing import Any

import pytest

from distvae.config import to_dict
from distvae.config.schema import FAMILIES
from distvae.estep import ESTEPS
from distvae.models import MODELS
from distvae.models.posteriors import Gaussian
from distvae.models.vae import VAE
from tests import tiny
from tests.laws.model_laws import (
    LAWS,
    Case,
    shapes_are_those_of_the_interface,
    the_bound_is_the_mean_of_its_integrand,
)

AMORTISED: list[dict[str, Any]] = [
    {"kind": "vae"},
    {"kind": "vae", "likelihood": "gaussian", "hidden": []},
    {"kind": "vae", "likelihood": "gaussian_learned"},
    {"kind": "vae", "likelihood": "bernoulli", "hidden": [9, 8, 7], "activation": "relu"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 7},
    {"kind": "sdm", "dictionary": "learned", "atoms": 7, "coherence": 0.1},
    {"kind": "vsc", "prior": "pseudo", "likelihood": "gaussian_learned"},
    {"kind": "gumbel", "prior": "learned", "alpha": 0.2, "cooling": 100},
    {"kind": "gumbel", "categories": 3, "prior": "learned"},
]
CONV: dict[str, Any] = {"net": "conv", "channels": [3], "activation": "leaky_relu"}
VARIANTS: list[dict[str, dict[str, Any]]] = [
    *({"model": model, "estep": {"input": "log"}} for model in AMORTISED),
    *(
        {"model": {"kind": kind, "likelihood": "bernoulli"} | CONV, "estep": CONV}
        for kind in ("sdm", "vsc", "gumbel")
    ),
    {
        "model": {"kind": "tvae"},
        "estep": {"kind": "evolution", "states": 9, "parents": 3, "children": 2},
    },
    {"model": {"kind": "tvae", "hidden": []}, "estep": {"kind": "random", "states": 5}},
    {
        "model": {"kind": "tvae", "likelihood": "bernoulli", "hidden": [5, 6]},
        "estep": {"kind": "exact"},
    },
    {"model": {"kind": "tvae", "output": "sigmoid", "variance": None}, "estep": {"kind": "exact"}},
    {"model": {"kind": "ssc", "cycles": 2}, "estep": {"kind": "selection"}},
    {"model": {"kind": "ssc", "likelihood": "log_normal"}, "estep": {"kind": "all_supports"}},
]


def case(variant: dict[str, Any]) -> Case:
    return Case.of(to_dict(tiny.config(**variant)), tiny.SHAPE)


def test_every_family_has_an_implementation_and_is_among_the_variants() -> None:
    for section, registry in (("model", MODELS), ("estep", ESTEPS)):
        kinds = {getattr(tiny.config(**variant), section).kind for variant in VARIANTS}
        assert kinds == set(FAMILIES[section])
        assert set(FAMILIES[section].values()) == set(registry)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_law_holds(law: Callable[[Case], None], variant: dict[str, Any]) -> None:
    law(case(variant))


def test_broken_laws_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that is too high by a nat; a divergence and a code of a wrong shape are named."""
    vae, bound, kl = {"model": {"kind": "vae"}}, VAE.bound, Gaussian.kl
    monkeypatch.setattr(VAE, "bound", lambda *arguments: bound(*arguments) + 1)
    with pytest.raises(AssertionError):
        the_bound_is_the_mean_of_its_integrand(case(vae))
    monkeypatch.setattr(Gaussian, "kl", lambda q: kl(q).sum())
    with pytest.raises(AssertionError, match=r"kl: a tensor of shape \(\); \(6,\) expected"):
        shapes_are_those_of_the_interface(case(vae))
    monkeypatch.setattr(Gaussian, "code", property(lambda q: q.mean.sum(-1)))
    with pytest.raises(AssertionError, match=r"code: .* shape \(6,\); \(6, \d+\) expected"):
        shapes_are_those_of_the_interface(case(vae))
