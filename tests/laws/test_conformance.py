"""The laws that every model and every E-step keeps, checked over all families."""

from collections.abc import Callable
from typing import Any

import pytest

from distvae.config import to_dict
from distvae.config.schema import FAMILIES
from distvae.models.posteriors import Gaussian
from distvae.models.registry import ESTEPS, MODELS
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
    *(
        {"kind": "vae", "likelihood": likelihood}
        for likelihood in ("gaussian", "gaussian_learned", "bernoulli")
    ),
    {"kind": "vsc", "likelihood": "gaussian_learned"},
    {"kind": "sdm"},
    {"kind": "sdm", "dictionary": "dct", "atoms": 7},
    {"kind": "sdm", "dictionary": "learned", "atoms": 7, "coherence": 0.1},
    {"kind": "vsc"},
    {"kind": "vsc", "prior": "pseudo"},
    {"kind": "gumbel"},
    {"kind": "gumbel", "prior": "learned", "alpha": 0.2, "cooling": 100},
    {"kind": "gumbel", "categories": 3, "prior": "learned"},
    {"kind": "vae", "hidden": []},
    {"kind": "vae", "hidden": [9, 8, 7], "activation": "relu"},
]
TRUNCATED: list[dict[str, Any]] = [
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
]
CONVOLVED: dict[str, Any] = {"net": "conv", "channels": [3], "activation": "leaky_relu"}
CONVOLUTIONAL = [
    {
        "model": {"kind": kind, "likelihood": "bernoulli"} | CONVOLVED,
        "estep": {"input": "raw"} | CONVOLVED,
    }
    for kind in ("vae", "sdm", "vsc", "gumbel")
]
VARIANTS = [
    *({"model": model, "estep": {"input": "log"}} for model in AMORTISED),
    *CONVOLUTIONAL,
    *TRUNCATED,
]


def settings_of(variant: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a small configuration."""
    return to_dict(tiny.config(**variant))


def test_every_family_has_an_implementation_and_is_among_the_variants() -> None:
    for section, registry in (("model", MODELS), ("estep", ESTEPS)):
        kinds = {getattr(tiny.config(**variant), section).kind for variant in VARIANTS}
        assert kinds == set(FAMILIES[section])
        assert set(FAMILIES[section].values()) == set(registry)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_law_holds(law: Callable[[Case], None], variant: dict[str, Any]) -> None:
    law(Case.of(settings_of(variant), tiny.SHAPE))


def vae() -> Case:
    return Case.of(settings_of({"model": {"kind": "vae"}}), tiny.SHAPE)


def test_a_bound_that_is_too_high_by_a_nat_breaks_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = VAE.bound
    monkeypatch.setattr(VAE, "bound", lambda *arguments: plain(*arguments) + 1)
    with pytest.raises(AssertionError):
        the_bound_is_the_mean_of_its_integrand(vae())


def test_a_code_of_a_wrong_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gaussian, "code", property(lambda q: q.mean.sum(-1)))
    with pytest.raises(
        AssertionError, match=r"code: a tensor of shape \(6,\); \(6, \d+\) expected"
    ):
        shapes_are_those_of_the_interface(vae())


def test_a_divergence_of_a_wrong_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Gaussian.kl
    monkeypatch.setattr(Gaussian, "kl", lambda q: plain(q).sum())
    with pytest.raises(AssertionError, match=r"kl: a tensor of shape \(\); \(6,\) expected"):
        shapes_are_those_of_the_interface(vae())
