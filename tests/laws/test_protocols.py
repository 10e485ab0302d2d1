"""Every model and every E-step satisfies its protocols, as mypy proves; a class that does not is
refused.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distvae.config.registry import FAMILIES
from distvae.estep.amortised import Amortised
from distvae.estep.registry import ESTEPS
from distvae.estep.store import KeepsPopulations, LocalStore, PopulationStore
from distvae.estep.truncated import Evolution, Exact, RandomSearch
from distvae.interface import (
    Asynchronous,
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
from distvae.models.gumbel import Gumbel
from distvae.models.posteriors import Binary, Encoded, Gaussian, LearnedVariance, SpikeAndSlab
from distvae.models.registry import MODELS
from distvae.models.sdm import SDM
from distvae.models.tvae import TVAE, Truncated
from distvae.models.vae import VAE
from distvae.models.vsc import VSC

ROOT = Path(__file__).parents[2]

if TYPE_CHECKING:  # read by mypy alone, which refuses an assignment that does not conform
    from distvae.estep.store import PopulationFile
    from distvae.machines.shards import ShardedStore

    vae: VAE
    sdm: SDM
    vsc: VSC
    gumbel: Gumbel
    tvae: TVAE
    LATENT_MODELS: list[LatentModel[Encoded]] = [vae, sdm, vsc, gumbel]
    CLOSED_FORM: list[ClosedForm[Encoded]] = [vae, sdm, vsc, gumbel]
    BINARY_MODEL: LatentModel[Truncated] = tvae
    BINARY_CLOSED_FORM: ClosedForm[Truncated] = tvae
    SCHEDULED: list[Scheduled] = [vae, sdm, vsc, gumbel, tvae]
    WITH_OUTPUT: list[HasOutput] = [vae, sdm, vsc, gumbel, tvae]
    MODELS_THAT_REPORT: list[Reports] = [gumbel, tvae]
    PROJECTS: Projects = sdm
    PREPARES: Prepares = tvae

    amortised: Amortised
    evolution: Evolution
    random: RandomSearch
    exact: Exact
    ENCODES: EStep[VAE, Encoded] = amortised
    TRUNCATES: list[EStep[TVAE, Truncated]] = [evolution, random, exact]
    ESTEPS_THAT_PREPARE: list[Prepares] = [amortised, evolution, random]
    SEARCHES: list[Searches[TVAE]] = [evolution, random]
    PERSISTENT: list[Persistent[PopulationFile]] = [evolution, random]
    ASYNCHRONOUS: list[Asynchronous] = [evolution, random]
    ESTEPS_THAT_REPORT: list[Reports] = [evolution, random]
    KEEP_POPULATIONS: list[KeepsPopulations] = [evolution, random]

    gaussian: Gaussian
    learned: LearnedVariance
    spikes: SpikeAndSlab
    binary: Binary
    truncated: Truncated
    POSTERIORS: list[Posterior] = [gaussian, learned, spikes, binary, truncated]
    ENCODED: list[Encoded] = [gaussian, learned, spikes, binary]
    EXPECTS: Expects = truncated

    local: LocalStore
    sharded: ShardedStore
    STORES: list[PopulationStore] = [local, sharded]
    ASYNCHRONOUS_STORE: Asynchronous = sharded


def test_every_implementation_is_assigned_above() -> None:
    implementations = [MODELS[config] for config in FAMILIES["model"].values()]
    assert set(implementations) == {VAE, SDM, VSC, Gumbel, TVAE}
    found = {ESTEPS[config] for config in FAMILIES["estep"].values()}
    assert found == {Amortised, Evolution, RandomSearch, Exact}


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


@pytest.mark.slow
def test_mypy_refuses_classes_that_do_not_conform(tmp_path: Path) -> None:
    """It has the settings of this project, and its cache where there is one."""
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
