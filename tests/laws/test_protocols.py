"""Every model and every E-step satisfies its protocols, as mypy proves."""

import ast
from collections.abc import Callable
from pathlib import Path

import distvae
from distvae.estep import ESTEPS
from distvae.estep.amortised import Amortised
from distvae.estep.store import KeepsPopulations, LocalStore, PopulationFile
from distvae.estep.supports import AllSupports, Selection
from distvae.estep.truncated import Evolution, Exact, RandomSearch
from distvae.interface import (
    ClosedForm,
    Diverges,
    EStep,
    Expects,
    HasOutput,
    LatentModel,
    Persistent,
    Posterior,
    Prepares,
    Projects,
    Ranks,
    Reports,
    Scheduled,
    Searches,
    Updates,
)
from distvae.models import MODELS
from distvae.models.gumbel import Binary, Categorical, Gumbel
from distvae.models.posteriors import Encoded, Gaussian, LearnedVariance, SpikeAndSlab
from distvae.models.sdm import SDM
from distvae.models.spike_slab import SpikeSlab, Supports
from distvae.models.truncated import Truncated
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.models.vsc import VSC

# mypy refuses a class here that does not make what its list is of.
ENCODED_MODELS: list[Callable[..., LatentModel[Encoded]]] = [VAE, SDM, VSC, Gumbel]
TRUNCATED_MODELS: list[Callable[..., LatentModel[Truncated]]] = [TVAE]
SUPPORTED_MODELS: list[Callable[..., LatentModel[Supports]]] = [SpikeSlab]
ENCODED_CLOSED_FORM: list[Callable[..., ClosedForm[Encoded]]] = [VAE, SDM, VSC, Gumbel]
TRUNCATED_CLOSED_FORM: list[Callable[..., ClosedForm[Truncated]]] = [TVAE]
SUPPORTED_CLOSED_FORM: list[Callable[..., ClosedForm[Supports]]] = [SpikeSlab]
UPDATES: list[Callable[..., Updates]] = [SpikeSlab]
RANKS: list[Callable[..., Ranks]] = [SpikeSlab, TVAE]
SCHEDULED: list[Callable[..., Scheduled]] = [VAE, SDM, VSC, Gumbel, TVAE]
HAVE_OUTPUT: list[Callable[..., HasOutput]] = [VAE, SDM, VSC, Gumbel, TVAE]
PROJECT: list[Callable[..., Projects]] = [SDM]

ENCODING: list[Callable[..., EStep[VAE, Encoded]]] = [Amortised]
TRUNCATING: list[Callable[..., EStep[TVAE, Truncated]]] = [Evolution, RandomSearch, Exact]
SUPPORTING: list[Callable[..., EStep[SpikeSlab, Supports]]] = [Selection, AllSupports]
SEARCH: list[Callable[..., Searches[TVAE]]] = [Evolution, RandomSearch]
KEEP_POPULATIONS: list[Callable[..., KeepsPopulations]] = [Evolution, RandomSearch]

PREPARE: list[Callable[..., Prepares]] = [
    *(VAE, SDM, VSC, Gumbel, TVAE, SpikeSlab),
    *(Amortised, Evolution, RandomSearch),
]
REPORT: list[Callable[..., Reports]] = [Gumbel, TVAE, SpikeSlab, Evolution, RandomSearch]
PERSISTENT: list[Callable[..., Persistent[PopulationFile]]] = [Evolution, RandomSearch, LocalStore]

ENCODED: list[Callable[..., Encoded]] = [
    *(Gaussian, LearnedVariance, SpikeAndSlab, Binary, Categorical)
]
POSTERIORS: list[Callable[..., Posterior]] = [*ENCODED, Truncated, Supports]
DIVERGE: list[Callable[..., Diverges]] = [*ENCODED]
EXPECT: list[Callable[..., Expects]] = [Truncated]


def test_every_model_and_every_estep_is_in_a_list() -> None:
    assert {*MODELS.values()} == {*ENCODED_MODELS, *TRUNCATED_MODELS, *SUPPORTED_MODELS}
    assert {*ESTEPS.values()} == {*ENCODING, *TRUNCATING, *SUPPORTING}


def test_protocols_checked_by_isinstance_have_only_methods() -> None:
    """From Python 3.12 on, `isinstance` does not find an attribute that is a module or a buffer."""
    for path in Path(distvae.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if "@runtime_checkable" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef) and "runtime_checkable" in map(
                    ast.unparse, node.decorator_list
                ):
                    assert not any(isinstance(item, ast.AnnAssign) for item in node.body), node.name
