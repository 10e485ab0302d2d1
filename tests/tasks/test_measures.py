"""Measures in `eval.metrics` besides the measures of recordings, and refused measures."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from distvae.config import from_dict
from distvae.config.train import ModelMeasure, RecordingMeasure
from distvae.data import open_dataset
from distvae.estep import assemble
from distvae.estep.amortised import Amortised
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.gumbel import Binary
from distvae.models.likelihoods import Gaussian
from distvae.models.posteriors import LearnedVariance
from distvae.models.vae import VAE
from distvae.numerics.metrics import effective_atoms
from distvae.numerics.noise import Noise
from distvae.numerics.rows import Lanes
from distvae.tasks.evaluate import score_run
from distvae.tasks.measures import (
    MEASURES,
    Labelled,
    Subject,
    importances,
    information_gap,
    moved,
    predictability_gap,
    refuse_impossible_measures,
    weighted,
)
from distvae.tasks.scores import recording_metrics
from distvae.train.run import Run
from distvae.train.session import fit
from tests import tiny
from tests.called import Called

CLASSES, SIDE = 3, 6
ROWS, VARIANCE = 4, 0.5


def asking(run: Run, **settings: Any) -> Run:
    """The same run, judged otherwise."""
    other = Run.open(run.path)
    other.config = run.config.with_("eval", **settings)
    return other


def test_the_summary_has_what_was_asked_for_and_nothing_else(image_run: Run) -> None:
    assert set(get_args(ModelMeasure)) == set(MEASURES)
    assert recording_metrics(get_args(RecordingMeasure)) == get_args(RecordingMeasure)
    plain = score_run(image_run).summary
    asked = score_run(asking(image_run, metrics=["iw_bound", "probe_linear"], labels=50)).summary
    assert set(asked) - set(plain) == {"iw_bound", "iw_bound_row_std", "probe_linear"}
    assert {name: asked[name] for name in plain} == plain
    assert asked["iw_bound"] > plain["bound"] - 1


def test_an_effect_is_the_distance_that_a_value_moves_the_output_however_it_is_scaled() -> None:
    codes = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(7, 11)
    expected = codes.abs() * linear.weight.norm(dim=0)
    torch.testing.assert_close(moved(linear, codes), expected.detach())
    deep = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 11))
    scale = torch.logspace(-2, 2, 7)
    rescaled = moved(lambda z: deep(z / scale), codes * scale)
    torch.testing.assert_close(rescaled, moved(deep, codes), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(effective_atoms(codes * scale), effective_atoms(codes), rtol=0.1)


def subject_of_clusters(run: Run) -> Subject:
    """Return a subject whose codes are far apart if their classes differ."""
    random, subject = np.random.default_rng(0), Subject(run, "test")
    labels = random.integers(0, CLASSES, 1500)
    clusters = 3 * np.eye(CLASSES)[labels] + random.normal(size=(1500, CLASSES)) / 2
    codes = clusters.astype(np.float32)
    known, held = Labelled(codes[:1000], labels[:1000]), Labelled(codes[1000:], labels[1000:])
    vars(subject)["probed"] = known, held
    return subject


@pytest.mark.parametrize("name", ["probe_linear", "probe_sgd", "probe_mlp"])
def test_a_probe_tells_clusters_apart(image_run: Run, name: str) -> None:
    assert MEASURES[name].measure(subject_of_clusters(image_run))[name] > 0.99


def test_a_relu_before_the_cross_entropy_loses_classes(image_run: Run) -> None:
    lost = MEASURES["probe_relu"].measure(subject_of_clusters(image_run))
    assert 1 / CLASSES < lost["probe_relu"] < 0.99
    assert lost["probe_relu_std"] > 0


@pytest.mark.parametrize(("split", "judged"), [("train", 900), ("test", 50), ("all", 950)])
def test_no_labelled_data_point_is_judged(
    image_run: Run, tmp_path: Path, split: str, judged: int
) -> None:
    random, arrays = np.random.default_rng(0), dict[str, Any]()
    for name, count in {"train": 1000, "test": 50}.items():
        arrays[f"x_{name}"] = random.integers(0, 256, (count, SIDE, SIDE), np.uint8)
        arrays[f"y_{name}"] = random.integers(0, CLASSES, count)
    np.savez(tmp_path / "rows.npz", **arrays)
    run = asking(image_run, labels=100)
    data = from_dict({"data": {"kind": "images", "path": str(tmp_path / "rows.npz")}}).data
    run.config = replace(run.config, data=data)
    known, held = Subject(run, split).probed
    assert (len(known.codes), len(held.codes)) == (100, judged)
    assert not {code.tobytes() for code in known.codes} & {code.tobytes() for code in held.codes}


def test_codes_are_what_was_asked_for(image_run: Run, bars_run: Run) -> None:
    for run, kinds in ((image_run, ("mean", "gated", "binary")), (bars_run, ("mean", "binary"))):
        rows = Subject(run, "test").rows[:20]
        found = {kind: Subject(asking(run, codes=kind), "test").encoded(rows) for kind in kinds}
        assert set(np.unique(found["binary"])) <= {0.0, 1.0}
        np.testing.assert_array_equal(found[kinds[-2]], run.encode(rows))
        if "gated" in kinds:
            gamma = run.posterior(torch.tensor(rows)).gamma  # type: ignore[attr-defined]
            expected = found["mean"] * gamma.detach().numpy()
            np.testing.assert_allclose(found["gated"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("tree", "name", "reason"),
    [
        (
            {"data": {"kind": "bars"}, "model": {"kind": "tvae"}},
            "iw_bound",
            "an encoder .* tighter",
        ),
        ({}, "probe_mlp", "needs the class .* data.kind 'speech' has none"),
        ({"data": {"kind": "bars"}}, "mig", "needs the factors .* 'bars'; sprites expected"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    tree: dict[str, Any], name: str, reason: str
) -> None:
    with pytest.raises(Refusal, match=f"eval.metrics: {name} .*{reason}"):
        refuse_impossible_measures(from_dict(tree | {"eval": {"metrics": [name]}}))


def test_missing_and_few_labels_are_refused(image_run: Run, tmp_path: Path, call: Called) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 4, 4), np.uint8))
    settings = ["data.kind=images", "eval.metrics=[probe_linear]", "train.epochs=1", "--no-track"]
    out = tmp_path / "run"
    words = ["train", "mnist-vae", "--data", str(tmp_path / "x.npz"), "--out", str(out), *settings]
    code, _, error = call(*words)
    assert (code, "the class of every data point" in error, out.exists()) == (2, True, False)
    with pytest.raises(Refusal, match=r"eval\.labels: 5000, and split 'train' has 96"):
        score_run(asking(image_run, metrics=["probe_linear"]), "train")
    subject = Subject(image_run, "test")
    known = Labelled(np.ones((6, 2), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    vars(subject)["probed"] = known, known
    message = "eval.labels: 6 of 3 classes, 2 of the rarest, .*; more than 20, two"
    with pytest.raises(Refusal, match=message):
        MEASURES["probe_mlp"].measure(subject)


class Linear:
    """A model whose decoder is linear and whose noise is Gaussian, so that x given spikes or bits
    is Gaussian too.
    """

    @torch.no_grad()
    def __init__(self, model: dict[str, Any]) -> None:
        likelihood = {"hidden": [], "likelihood": "gaussian"}
        config = tiny.config(model=model | likelihood, estep={"input": "raw"})
        made, estep = assemble(config, tiny.DIMS)
        assert isinstance(made, VAE)
        assert isinstance(estep, Amortised)
        assert isinstance(made.likelihood, Gaussian)
        self.model, self.estep = made, estep
        made.likelihood.variance.fill_(VARIANCE)
        self.x = torch.rand(ROWS, tiny.DIMS, generator=torch.Generator().manual_seed(0))
        if model["kind"] == "vsc":
            bias = estep.get_parameter("head.linear.bias")
            bias[-self.model.code_size :] = -0.7  # gates at a half, where an untrained one is open
        self.estep.prepare([self.x], Lanes(ROWS, 1).held(), 0)

    def repeated(self, times: int) -> tuple[Batch, Any, Noise]:
        """Return every row `times` times, each time with its own draws."""
        row = torch.arange(ROWS * times)
        batch = Batch(self.x.repeat(times, 1), row)
        return batch, self.estep(self.model, batch), Noise(0, 0, row)

    def bounds(self, draws: int, times: int) -> Tensor:
        """Return the bounds (times, ROWS) with this number of draws."""
        batch, q, noise = self.repeated(times)
        return weighted(self.model, batch, q, draws, noise).view(times, ROWS)

    def log_evidence(self) -> Tensor:
        """(ROWS,) log p(x), by the Gaussians that the states of spikes or bits leave."""
        batch, q, _ = self.repeated(1)
        zero = self.model.output(torch.zeros(1, self.model.code_size))
        weights = (self.model.output(torch.eye(self.model.code_size)) - zero).T
        size, is_binary = len(weights.T), isinstance(q, Binary)
        variance = torch.ones(ROWS, size)
        if isinstance(q, LearnedVariance):
            variance = q.prior_log_variance.exp()
        alpha = getattr(self.model.config, "alpha", None)
        found = []
        for bits in itertools.product([0.0, 1.0] if alpha else [1.0], repeat=size):
            active = torch.tensor(bits)
            mean = zero + weights @ active if is_binary else zero
            slabs = variance * active * (not is_binary)
            covariance = torch.einsum("dh,bh,eh->bde", weights, slabs, weights)
            gaussian = MultivariateNormal(mean, covariance + VARIANCE * torch.eye(tiny.DIMS))
            chance = active * alpha + (1 - active) * (1 - alpha) if alpha else active
            found.append(gaussian.log_prob(batch.x) + chance.log().sum())
        return torch.stack(found).logsumexp(0).double()


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "vae"},
        {"kind": "sdm", "dictionary": "dct", "atoms": 5},
        {"kind": "vsc", "alpha": 0.3},
        {"kind": "gumbel", "alpha": 0.3},
    ],
    ids=str,
)
@torch.no_grad()
def test_the_importance_weighted_bound_grows_from_the_bound_to_the_likelihood(
    model: dict[str, Any],
) -> None:
    linear, times = Linear(model), 1000
    exact = linear.log_evidence()
    torch.testing.assert_close(linear.bounds(50_000, 1)[0], exact, atol=0.03, rtol=0)
    by_draws = [linear.bounds(draws, times) for draws in (1, 5, 100)]
    error = 5 * (2 * max(bounds.var(0).max() for bounds in by_draws) / times).sqrt()
    for fewer, more in itertools.pairwise([*(bounds.mean(0) for bounds in by_draws), exact]):
        assert (fewer < more + error).all()
    assert (by_draws[0].mean(0) < by_draws[-1].mean(0)).all()
    batch, q, noise = linear.repeated(times)
    plain = linear.model.bound(batch, q, noise).view(times, ROWS).double()
    error = 5 * ((plain.var(0) + by_draws[0].var(0)) / times).sqrt()
    assert ((plain.mean(0) - by_draws[0].mean(0)).abs() < error).all()


SPRITES, COUNTS = 1000, (3, 6, 10)
ORDERED = (False, True, True)
SHAPE_IS_CONSTANT = 3
"""A seed of sprites whose two test images have only the shape in common."""
Codes = NDArray[np.float32]


def levels() -> np.ndarray:
    """Independent factors, each level as likely as any other."""
    random = np.random.default_rng(0)
    return np.stack([random.integers(0, count, SPRITES) for count in COUNTS], -1)


def standard(values: np.ndarray) -> Codes:
    """Codes that are factors, to scale."""
    return np.asarray((values - values.mean(0)) / values.std(0), np.float32)


def chance(count: int) -> Codes:
    return np.random.default_rng(1).normal(size=(SPRITES, count)).astype(np.float32)


def measured(codes: Codes, values: np.ndarray) -> tuple[float, ...]:
    """Return MIG, SAP, disentanglement and completeness."""
    sap = predictability_gap(codes, values, ORDERED[: values.shape[1]])
    return information_gap(codes, values), sap, *importances(codes, values)[:2]


@pytest.mark.slow
def test_codes_are_as_disentangled_as_they_were_made() -> None:
    values = levels()
    shuffled = np.concatenate([chance(2), standard(values)[:, [2, 0, 1]]], 1)
    assert min(measured(shuffled, values)) > 0.95
    assert max(measured(chance(3), values)) < 0.05
    values = values[:, :2]
    twice = standard(values)[:, [0, 0, 1, 1]] + np.float32(0.01) * chance(4)
    mig, sap, disentangled, complete = measured(twice, values)
    assert max(mig, sap) < 0.05
    assert disentangled > 0.95
    assert complete < 0.75


def test_gaps_of_small_examples_are_those_worked_out_by_hand() -> None:
    """One fair bit. The first value of the code is the bit; the second agrees with it in three of
    four. Of an ordered factor, the gap is of squared correlations.
    """
    bit = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    codes = np.stack([bit, [0, 0, 0, 1, 1, 1, 1, 0]], -1).astype(np.float32)
    second = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    expected = (math.log(2) - second) / math.log(2)
    assert information_gap(codes, bit[:, None]) == pytest.approx(expected)
    level = np.arange(8)
    codes = np.stack([level, level % 4, np.ones(8)], -1).astype(np.float32)
    second = float(pearsonr(level % 4, level).statistic)
    assert predictability_gap(codes, level[:, None], (True,)) == pytest.approx(1 - second**2)


@pytest.mark.slow
def test_a_run_on_sprites_is_measured_by_the_factors_that_vary(tmp_path: Path) -> None:
    factors = ["mig", "dci", "sap"]
    names = ["iw_bound", "probe_linear", *factors]
    tree = {
        "data": {"kind": "sprites", "rows": 300, "size": 16},
        "model": {"latent": 4, "hidden": [16], "likelihood": "bernoulli"},
        "estep": {"hidden": [16], "input": "raw"},
        "train": {"epochs": 1, "device": "cpu"},
        "eval": {"metrics": names, "importance": 5},
    }
    config = from_dict(tree)
    list(fit(config, open_dataset(config.data), tmp_path / "run", recipe="tiny"))
    run = Run.open(tmp_path / "run")
    summary = score_run(run, "all").summary
    assert {*names, "dci_completeness", "dci_informativeness", "iw_bound_row_std"} <= set(summary)
    assert summary["images"] == 300
    run.config = run.config.with_("eval", metrics=factors)
    run.config = run.config.with_("data", rows=20, seed=SHAPE_IS_CONSTANT)
    judgement = score_run(run, "test")
    assert all(math.isfinite(judgement.summary[name]) for name in factors)
    note = "shape: without variation in split 'test', left out of mig, dci and sap"
    assert judgement.notes == [note]
    run.config = run.config.with_("data", rows=10)
    constant = r"eval\.metrics: shape, scale, rotation, x, y never vary in split 'test'"
    with pytest.raises(Refusal, match=constant):
        score_run(run, "test")
