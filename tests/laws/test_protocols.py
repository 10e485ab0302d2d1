"""Every model and every E-step satisfies its protocols, as mypy proves; a class that does not is
refused.
"""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import distvae
from distvae.config.schema import FAMILIES
from distvae.estep.amortised import Amortised
from distvae.estep.store import KeepsPopulations, LocalStore, PopulationFile
from distvae.estep.truncated import Evolution, Exact, RandomSearch
from distvae.interface import (
    ClosedForm,
    EStep,
    Expects,
    HasOutput,
    LatentModel,
    Persistent,
    Posterior,
    Prepares,
    Projects,
    Reports,
    Scheduled,
    Searches,
)
from distvae.models.gumbel import Binary, Categorical, Gumbel
from distvae.models.posteriors import Encoded, Gaussian, LearnedVariance, SpikeAndSlab
from distvae.models.registry import ESTEPS, MODELS
from distvae.models.sdm import SDM
from distvae.models.truncated import Truncated
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.models.vsc import VSC

ROOT = Path(__file__).parents[2]

# mypy refuses a class here that does not make what its list is of.
ENCODED_MODELS: list[Callable[..., LatentModel[Encoded]]] = [VAE, SDM, VSC, Gumbel]
TRUNCATED_MODELS: list[Callable[..., LatentModel[Truncated]]] = [TVAE]
ENCODED_CLOSED_FORM: list[Callable[..., ClosedForm[Encoded]]] = [VAE, SDM, VSC, Gumbel]
TRUNCATED_CLOSED_FORM: list[Callable[..., ClosedForm[Truncated]]] = [TVAE]
SCHEDULED: list[Callable[..., Scheduled]] = [VAE, SDM, VSC, Gumbel, TVAE]
HAVE_OUTPUT: list[Callable[..., HasOutput]] = [VAE, SDM, VSC, Gumbel, TVAE]
PROJECT: list[Callable[..., Projects]] = [SDM]

ENCODING: list[Callable[..., EStep[VAE, Encoded]]] = [Amortised]
TRUNCATING: list[Callable[..., EStep[TVAE, Truncated]]] = [Evolution, RandomSearch, Exact]
SEARCH: list[Callable[..., Searches[TVAE]]] = [Evolution, RandomSearch]
KEEP_POPULATIONS: list[Callable[..., KeepsPopulations]] = [Evolution, RandomSearch]

PREPARE: list[Callable[..., Prepares]] = [
    *(VAE, SDM, VSC, Gumbel, TVAE),
    *(Amortised, Evolution, RandomSearch),
]
REPORT: list[Callable[..., Reports]] = [Gumbel, TVAE, Evolution, RandomSearch]
PERSISTENT: list[Callable[..., Persistent[PopulationFile]]] = [Evolution, RandomSearch, LocalStore]

ENCODED: list[Callable[..., Encoded]] = [
    Gaussian,
    LearnedVariance,
    SpikeAndSlab,
    Binary,
    Categorical,
]
POSTERIORS: list[Callable[..., Posterior]] = [
    Gaussian,
    LearnedVariance,
    SpikeAndSlab,
    Binary,
    Categorical,
    Truncated,
]
EXPECT: list[Callable[..., Expects]] = [Truncated]


def test_every_model_and_every_estep_is_in_a_list() -> None:
    models = {MODELS[config] for config in FAMILIES["model"].values()}
    assert models == {*ENCODED_MODELS, *TRUNCATED_MODELS}
    esteps = {ESTEPS[config] for config in FAMILIES["estep"].values()}
    assert esteps == {*ENCODING, *TRUNCATING}


FOREIGN = """
import torch
from torch import Tensor, nn

from distvae.config import Amortised, VAEModel
from distvae.estep import register as register_estep
from distvae.interface import AnyEStep, AnyModel, Batch, EStep, LatentModel, Posterior
from distvae.models import register
from distvae.models.posteriors import Encoded
from distvae.models.vae import VAE
from distvae.numerics.noise import Noise


class Conforms(VAE):
    pass


class NoDecoder(nn.Module):
    code_size = 3

    def prior(self, noise: Noise, estep: AnyEStep) -> Tensor:
        return torch.zeros(1)

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        return z

    def bound(self, batch: Batch, q: Posterior, noise: Noise) -> Tensor:
        return q.code

    def objective(self, batch: Batch, q: Posterior, noise: Noise) -> Tensor:
        return q.code


class InfersTensors(nn.Module):
    def __call__(self, model: VAE, batch: Batch) -> Tensor:
        return batch.x

    def infer(self, model: VAE, batch: Batch, sweeps: int | None = None) -> Tensor:
        return batch.x


def use(good: Conforms, model: NoDecoder, estep: InfersTensors) -> None:
    fine: LatentModel[Encoded] = good
    also_fine: AnyModel = good
    bad_model: LatentModel[Posterior] = model  # refused
    bad_any_model: AnyModel = model  # refused
    bad_estep: EStep[VAE, Encoded] = estep  # refused
    bad_any_estep: AnyEStep = estep  # refused


register(VAEModel)(Conforms)
register(VAEModel)(NoDecoder)  # refused
register_estep(Amortised)(InfersTensors)  # refused
"""


@pytest.mark.long
def test_mypy_refuses_classes_that_do_not_conform(tmp_path: Path) -> None:
    """mypy uses the settings of this project, and its cache if there is a cache."""
    from mypy import api

    file = tmp_path / "foreign.py"
    file.write_text(FOREIGN)
    cache = ROOT / ".mypy_cache"
    if not cache.exists():
        cache = tmp_path / "cache"
    settings = shutil.copy(ROOT / "pyproject.toml", tmp_path)
    output, _, _ = api.run(["--config-file", str(settings), "--cache-dir", str(cache), str(file)])
    errors = {int(line.split(":")[1]) for line in output.splitlines() if ": error:" in line}
    wanted = {
        number for number, line in enumerate(FOREIGN.splitlines(), 1) if line.endswith("# refused")
    }
    assert errors == wanted, output


def test_protocols_checked_by_isinstance_have_only_methods() -> None:
    """From Python 3.12 on, `isinstance` does not find an attribute that is a module or a buffer."""
    sources = [path.read_text() for path in Path(distvae.__file__).parent.rglob("*.py")]
    classes = [
        node
        for source in sources
        if "@runtime_checkable" in source
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(decorator) == "runtime_checkable" for decorator in node.decorator_list)
    ]
    assert classes
    for node in classes:
        assert not any(isinstance(item, ast.AnnAssign) for item in node.body), node.name
