"""Metrics of a trained model on a split. `eval.metrics` may name them beside metrics of recordings.

The table `MEASURES` has the requirements and the outputs of each measure; docs/measures.md names
the papers.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from itertools import compress
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from distvae.config import Config, DataConfig
from distvae.data import factors_of, labels_of, open_dataset
from distvae.data.dataset import Array, Dataset, Labels, Rows, stack
from distvae.data.family import kinds_with
from distvae.data.speech import recordings_of
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.interface import Batch, HasOutput, LatentModel, Posterior
from distvae.models.posteriors import SpikeAndSlab, active_code
from distvae.numerics.arrays import Doubles
from distvae.numerics.metrics import Group, declare, effective_atoms
from distvae.numerics.noise import EVALUATION, Noise, order
from distvae.train.run import VALUES, Run

ROWS = 4096
"""The largest number of rows that the effects of codes are measured on."""
BINS = 20
"""Bins of equal width for each value of the codes, of which mutual information is computed."""
BATCH = 32
"""Batch size of the probe trained by gradient descent."""
Q = TypeVar("Q", bound=Posterior)
Figures = dict[str, float]
LABELLED = -5
"""The epoch whose row order selects the labelled training rows. It is the same for every seed."""


class Labelled(NamedTuple):
    """Codes with their classes."""

    codes: Array
    labels: Labels


class Factored(NamedTuple):
    """Codes with the levels of the factors that generated their data points."""

    codes: Array
    levels: Labels
    ordered: tuple[bool, ...]


class Subject:
    """A run and the split that it is evaluated on. Values that several measures need are computed
    once.
    """

    def __init__(self, run: Run, split: str) -> None:
        self.run, self.split = run, split
        self.notes: list[str] = []

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset of the run."""
        return open_dataset(self.run.config.data, quiet=True)

    @property
    def named(self) -> list[str]:
        """The splits that are evaluated."""
        return self.dataset.split_names(self.split)

    @property
    def rows(self) -> Rows:
        """The rows that are evaluated."""
        return stack([self.dataset.splits[name] for name in self.named])

    @cached_property
    def probed(self) -> tuple[Labelled, Labelled]:
        """The labelled training rows, and the evaluated rows without them."""
        labels, count = require_labels(self.run.config.data), self.run.config.eval.labels
        drawn = order(0, LABELLED, len(self.dataset.splits["train"]))
        places = {name: np.arange(len(self.dataset.splits[name])) for name in self.named}
        places["train"] = drawn[count:]
        parts = [
            self._labelled(name, places[name], labels) for name in self.named if len(places[name])
        ]
        if not parts:
            raise Refusal(
                f"eval.labels: {count}, and split 'train' has {len(drawn)}: none is left to test"
                " on; fewer expected"
            )
        held = Labelled(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        known = self._labelled("train", np.sort(drawn[:count]), labels)
        if len(np.unique(known.labels)) < 2:
            raise Refusal(
                f"eval.labels: all {len(known.labels)} are of class {known.labels[0]}; two classes"
                " expected"
            )
        return known, held

    def _labelled(
        self, split: str, places: NDArray[np.intp], labels: dict[str, Labels]
    ) -> Labelled:
        return Labelled(self.encoded(self.dataset.splits[split][places]), labels[split][places])

    @cached_property
    def factored(self) -> Factored:
        """The codes of the evaluated rows, and the factors that vary between these rows."""
        known = factors_of(self.run.config.data)
        if known is None:
            raise Refusal(
                f"eval.metrics: data.kind '{self.run.config.data.kind}' has no known factors;"
                " sprites expected"
            )
        levels = np.concatenate([known.levels[name] for name in self.named])
        varies = np.ptp(levels, axis=0) > 0
        constant = ", ".join(compress(known.names, ~varies))
        if not varies.any():
            raise Refusal(
                f"eval.metrics: {constant} never vary in split '{self.split}'; more data points"
                " expected"
            )
        if constant:
            self.notes.append(
                f"{constant}: without variation in split '{self.split}', left out of mig, dci"
                " and sap"
            )
        return Factored(
            self.encoded(self.rows), levels[:, varies], tuple(compress(known.ordered, varies))
        )

    @torch.no_grad()
    def encoded(self, rows: Rows) -> Array:
        """Return the codes (N, H) of rows (N, D), of the kind that `eval.codes` names."""
        kind = self.run.config.eval.codes
        return self.run.in_blocks(rows, lambda block: code(self.run.posterior(block), kind))


def code(q: Posterior, kind: str) -> Tensor:
    """Return the code (B, H) of a posterior, of a kind named by `eval.codes`.

    "mean" is the posterior mean, "gated" the mean times the probability of the gate, and "binary"
    marks the active values.
    """
    if kind == "binary":
        return (active_code(q) != 0).float()
    return q.mean if kind == "mean" and isinstance(q, SpikeAndSlab) else q.code


def require_labels(data: DataConfig) -> dict[str, Labels]:
    """Return the class of every row by split; refuse data without classes."""
    labels = labels_of(data)
    if labels is None:
        raise Refusal(
            f"eval.metrics: a probe needs the class of every data point, and {data.path} has none;"
            " folders named for classes, idx files of labels, or an .npz with y_train and y_test,"
            " expected"
        )
    return labels


def needs_nothing(config: Config) -> str:
    """Require only a model."""
    return ""


def needs_encoder(config: Config) -> str:
    """Require an encoder whose posterior can be sampled."""
    if config.estep.kind == "amortised":
        return ""
    return (
        f"needs an encoder to draw from, and model.kind '{config.model.kind}' has none: its own"
        " bound sums p(x, z) over every kept state and is the tighter; leave iw_bound out and read"
        " bound"
    )


def needs_classes(config: Config) -> str:
    """Require data of a kind that may have classes."""
    if config.data.kind in kinds_with("labels"):
        return ""
    return (
        f"needs the class of every data point, and data.kind '{config.data.kind}' has none; "
        f"{_either('labels')} expected"
    )


def needs_factors(config: Config) -> str:
    """Require data whose factors are known."""
    if config.data.kind in kinds_with("factors"):
        return ""
    return (
        "needs the factors that decide every data point, which are not known of data.kind "
        f"'{config.data.kind}'; {_either('factors')} expected"
    )


def _either(ability: str) -> str:
    *kinds, last = kinds_with(ability)
    return f"{', '.join(kinds)} or {last}" if kinds else last


def effects(subject: Subject) -> Figures:
    """Return the mean effective number of values of a row's code that change the output.

    The effect of a value is the distance by which the decoder's output (log power, logits, means)
    moves when this value alone is set to zero: the mean of a Gaussian prior, a spike, or an
    inactive bit. A decoder can rescale a value without changing SDM-VAE's objective. Rescaling
    changes the size of the value, but not its effect.
    """
    run, rows = subject.run, subject.rows
    codes = torch.from_numpy(run.encode(rows[order(0, 0, len(rows))[:ROWS]]))
    together = max(1, VALUES // (codes.shape[1] * run.dims))
    output = run.model.output if isinstance(run.model, HasOutput) else run.model.decode
    found = [moved(output, block) for block in codes.split(together)]
    return {"effective_effects": float(effective_atoms(torch.cat(found)).nanmean())}


@torch.no_grad()
def moved(output: Callable[[Tensor], Tensor], codes: Tensor) -> Tensor:
    """Return (B, H) the distance by which the output moves when each value of a code is zeroed."""
    without = codes[:, None] * (1 - torch.eye(codes.shape[1]))
    distance: Tensor = torch.linalg.vector_norm(output(without) - output(codes[:, None]), dim=-1)
    return distance


def iw_bound(subject: Subject) -> Figures:
    """Return the importance-weighted bound (Burda, Grosse and Salakhutdinov, ICLR 2016), and its
    standard deviation over the rows of a split.

        L_k = E log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x),    z_1 .. z_k ~ q(z | x)

    L_1 is the reported bound. L_k never decreases with k, and approaches log p(x). Spike-and-slab
    posteriors are sampled with hard gates and weighted by their mixture of an atom at zero and a
    density elsewhere. SDM-VAE's prior variances and the prior of pseudo-inputs depend on the row,
    so L_k then bounds log p(x) given the prior of the row.
    """
    found = by_row(subject.run, subject.rows, subject.run.config.eval.importance)
    return {"iw_bound": float(found.mean()), "iw_bound_row_std": float(found.std())}


@torch.inference_mode()
def by_row(run: Run, rows: Rows, draws: int) -> Tensor:
    """Return the bound (N,) of each row in nats, computed in blocks that fit in memory."""
    together, found = max(1, VALUES // (draws * run.dims)), []
    for start in range(0, len(rows), together):
        x = torch.tensor(rows[start : start + together])
        row = torch.arange(start, start + len(x))
        noise = Noise(run.config.train.seed, EVALUATION, row)
        found.append(weighted(run.model, Batch.of(x, row), run.posterior(x, row), draws, noise))
    return torch.cat(found)


def weighted(model: LatentModel[Q], batch: Batch, q: Q, draws: int, noise: Noise) -> Tensor:
    """Return (B,) the logarithm of the mean of p(x, z) / q(z | x) over `draws` draws."""
    z, _ = q.points(draws, noise)
    log_weight = model.log_likelihood(batch, z) + q.log_ratio(z)
    return log_weight.double().logsumexp(1) - math.log(draws)


class Classifier(Protocol):
    """The part of scikit-learn's classifiers that is used here."""

    def fit(self, codes: Array, labels: Labels, /) -> object:
        """Train."""

    def score(self, codes: Array, labels: Labels, /) -> float:
        """Return the accuracy."""


def probe_linear(subject: Subject) -> Figures:
    """Return the accuracy, on the evaluated rows, of logistic regression on standardised codes.

    Logistic regression is trained to convergence.
    """
    from sklearn.linear_model import LogisticRegression

    return {"probe_linear": _accuracy(subject, _standardised(LogisticRegression(max_iter=2000)))}


def probe_sgd(subject: Subject) -> Figures:
    """Return the accuracy of a net on raw codes after 20 epochs of gradient descent.

    Without hidden layers this is `probe_relu` without its ReLU. The report of [Re] Variational
    Sparse Coding describes two layers.
    """
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        subject.run.config.eval.probe_hidden,
        solver="sgd",
        alpha=0.0,
        batch_size=BATCH,
        learning_rate_init=1e-3,
        momentum=0.9,
        nesterovs_momentum=False,
        max_iter=20,
        tol=0.0,
        n_iter_no_change=20,
        random_state=0,
    )
    return {"probe_sgd": _accuracy(subject, net)}


def probe_relu(subject: Subject) -> Figures:
    """Return the accuracy of the probe in the notebook of [Re] Variational Sparse Coding, and its
    standard deviation over ten initialisations: a linear layer on raw codes and a ReLU before the
    cross-entropy, after 20 epochs of gradient descent.

    The ReLU ends the gradients of a class whose scores are negative for all codes.
    """
    known, held = subject.probed
    classes, label = np.unique(known.labels, return_inverse=True)
    codes, target = torch.tensor(known.codes), torch.tensor(label)
    found = []
    for seed in range(10):
        draws = torch.Generator().manual_seed(seed)
        layer = torch.nn.Linear(codes.shape[1], len(classes))
        bound = codes.shape[1] ** -0.5
        for parameter in layer.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound, generator=draws)
        optimiser = torch.optim.SGD(layer.parameters(), 1e-3, momentum=0.9)
        for _ in range(20):
            for batch in torch.randperm(len(codes), generator=draws).split(BATCH):
                optimiser.zero_grad()
                functional.cross_entropy(layer(codes[batch]).relu(), target[batch]).backward()
                optimiser.step()
        with torch.inference_mode():
            answers = classes[layer(torch.tensor(held.codes)).relu().argmax(1).numpy()]
        found.append(float(np.mean(answers == held.labels)))
    return {"probe_relu": float(np.mean(found)), "probe_relu_std": float(np.std(found))}


def probe_mlp(subject: Subject) -> Figures:
    """Return the accuracy of a net with one hidden layer of 128 units on standardised codes.

    Training stops early, based on a tenth of the labelled rows.
    """
    from sklearn.neural_network import MLPClassifier

    labels = subject.probed[0].labels
    _, counts = np.unique(labels, return_counts=True)
    # each class must occur in the held-out tenth and in the rest
    if counts.min() < 2 or math.ceil(len(labels) / 10) < len(counts):
        raise Refusal(
            f"eval.labels: {len(labels)} of {len(counts)} classes, {counts.min()} of the rarest,"
            " and probe_mlp is stopped early on a tenth of them; more than"
            f" {10 * (len(counts) - 1)}, two or more of each class, expected"
        )
    net = MLPClassifier((128,), max_iter=200, early_stopping=True, random_state=0)
    return {"probe_mlp": _accuracy(subject, _standardised(net))}


def _standardised(classifier: Classifier) -> Classifier:
    """Return a classifier of standardised codes."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline: Classifier = make_pipeline(StandardScaler(), classifier)
    return pipeline


def _accuracy(subject: Subject, classifier: Classifier) -> float:
    """Train a classifier, and return its accuracy on the evaluated rows."""
    from sklearn.exceptions import ConvergenceWarning

    known, held = subject.probed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
        classifier.fit(known.codes, known.labels)
    return float(classifier.score(held.codes, held.labels))


def mig(subject: Subject) -> Figures:
    """Return the mutual information gap."""
    return {"mig": information_gap(subject.factored.codes, subject.factored.levels)}


def dci(subject: Subject) -> Figures:
    """Return disentanglement, completeness and informativeness."""
    names = ("dci", "dci_completeness", "dci_informativeness")
    figures = importances(subject.factored.codes, subject.factored.levels)
    return dict(zip(names, figures, strict=True))


def sap(subject: Subject) -> Figures:
    """Return the separated attribute predictability."""
    return {"sap": predictability_gap(*subject.factored)}


def information_gap(codes: Array, levels: Labels) -> float:
    """Return MIG (Chen et al., NeurIPS 2018) of binned codes.

    For each factor, take the largest mutual information with a value of the codes, subtract the
    second largest, and divide by the factor's entropy. MIG is the mean over factors.
    """
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    binned = [np.digitize(value, np.histogram_bin_edges(value, BINS)[1:-1]) for value in codes.T]
    gaps = []
    for level in levels.T:
        information = [mutual_info_score(level, value) for value in binned]
        counts = np.unique(level, return_counts=True)[1]
        gaps.append(_gap(information) / entropy(counts))
    return float(np.mean(gaps))


def importances(codes: Array, levels: Labels) -> tuple[float, float, float]:
    """Return DCI (Eastwood and Williams, ICLR 2018), by forests that predict factors from codes.

    Disentanglement is the degree to which each value of the codes, weighted by its importance,
    serves one factor. Completeness is the degree to which one value predicts each factor.
    Informativeness is the accuracy on the half of the data that was not used for training.
    """
    from sklearn.ensemble import RandomForestClassifier

    half = len(codes) // 2
    importance, accuracy = [], []
    for level in levels.T:
        forest = RandomForestClassifier(20, max_features=None, min_samples_leaf=5, random_state=0)
        forest.fit(codes[:half], level[:half])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[half:], level[half:]))
    table: Doubles = np.stack(importance, -1)
    weight = table.sum(1)
    disentanglement = (_concentration(table) @ weight) / max(weight.sum(), np.finfo(float).tiny)
    completeness = _concentration(table.T).mean()
    return float(disentanglement), float(completeness), float(np.mean(accuracy))


def predictability_gap(codes: Array, levels: Labels, ordered: tuple[bool, ...]) -> float:
    """Return SAP (Kumar, Sattigeri and Balakrishnan, ICLR 2018).

    For each factor, rank the values of the codes by how well they predict the factor, and subtract
    the second best score from the best. SAP is the mean over factors. An ordered factor is
    predicted by a line and scored by R^2. Another factor is predicted by thresholds and scored by
    balanced accuracy above chance.
    """
    gaps = []
    for level, is_ordered in zip(levels.T, ordered, strict=True):
        if is_ordered:
            varying = [value for value in codes.T if value.std()]
            scores = [float(np.corrcoef(value, level)[0, 1] ** 2) for value in varying]
        else:
            scores = [_score_thresholds(value, level) for value in codes.T]
        gaps.append(_gap(scores))
    return float(np.mean(gaps))


def _gap(scores: list[float]) -> float:
    """Return the best score minus the second best score, or the only score, or 0 without scores."""
    second, best = sorted([0.0, 0.0, *scores])[-2:]
    return best - second


def _concentration(shares: Doubles) -> Doubles:
    """Return one minus the normalised entropy of each row of (N, K).

    The result is 1 if one entry has the whole mass of a row, and 0 if the mass is uniform.
    """
    from scipy.stats import entropy

    places = shares.shape[1]
    if places == 1:
        return np.ones(len(shares))
    flat = np.where(shares.sum(1, keepdims=True) > 0, shares, 1.0)
    return np.asarray(1 - entropy(flat, axis=1) / np.log(places))


def _score_thresholds(value: Array, level: Labels) -> float:
    """Return the balanced accuracy above chance of a decision tree."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_leaf_nodes=len(np.unique(level)), class_weight="balanced", random_state=0
    )
    predicted = tree.fit(value[:, None], level).predict(value[:, None])
    return max(0.0, float(balanced_accuracy_score(level, predicted, adjusted=True)))


class Measure(NamedTuple):
    """One entry of `eval.metrics`."""

    missing: Callable[[Config], str]
    """A function that returns what the configuration lacks for the measure, or ''."""
    measure: Callable[[Subject], Figures]
    figures: tuple[str, ...]
    """The names of the metrics that the measure returns."""
    group: Group = "quality"
    """The group of the metrics."""


MEASURES: dict[str, Measure] = {
    "effects": Measure(needs_nothing, effects, ("effective_effects",), "sparsity"),
    "iw_bound": Measure(needs_encoder, iw_bound, ("iw_bound", "iw_bound_row_std"), "bound"),
    "probe_linear": Measure(needs_classes, probe_linear, ("probe_linear",)),
    "probe_sgd": Measure(needs_classes, probe_sgd, ("probe_sgd",)),
    "probe_relu": Measure(needs_classes, probe_relu, ("probe_relu", "probe_relu_std")),
    "probe_mlp": Measure(needs_classes, probe_mlp, ("probe_mlp",)),
    "mig": Measure(needs_factors, mig, ("mig",)),
    "dci": Measure(needs_factors, dci, ("dci", "dci_completeness", "dci_informativeness")),
    "sap": Measure(needs_factors, sap, ("sap",)),
}
for measure in MEASURES.values():
    declare(measure.group, *measure.figures)


def figure_names(names: Iterable[str]) -> list[str]:
    """Return the names of the metrics of some measures. A measure without an entry here has one
    metric.
    """
    figures: list[str] = []
    for name in names:
        figures += MEASURES[name].figures if name in MEASURES else [name]
    return figures


def measures_for(figures: Collection[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the measures that compute one or more of some metrics."""
    return tuple(name for name in names if set(figures) & set(figure_names([name])))


def refuse_impossible_measures(config: Config) -> None:
    """Refuse the first measure that a configuration cannot compute, or whose package is missing."""
    if recordings_of(config.data) is not None:
        refuse_missing("evaluating recordings", "librosa", "pystoi", "pandas")
    for name in config.eval.metrics:
        if name in MEASURES and (missing := MEASURES[name].missing(config)):
            raise Refusal(f"eval.metrics: {name} {missing}")
        if name in MEASURES and MEASURES[name].missing in (needs_classes, needs_factors):
            refuse_missing(f"eval.metrics: {name}", "sklearn")


def refuse_missing_labels(config: Config) -> None:
    """Refuse measures that need classes which the data lacks."""
    for name in config.eval.metrics:
        if name in MEASURES and MEASURES[name].missing is needs_classes:
            require_labels(config.data)
