"""The estimators: parameters, fitting, codes, bounds and samples; a class for each model."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, vstack
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from distvae.config import Evolution, Train, from_dict
from distvae.config.recipes import named_settings, override, python_value
from distvae.config.schema import (
    FAMILIES,
    Count,
    Range,
    Whole,
    check_value,
    field_types,
    whole_number,
)
from distvae.data.dataset import (
    IN_MEMORY,
    Array,
    ChosenRows,
    Dataset,
    LazyRows,
    Rows,
    dataset_of_rows,
    split_rows,
)
from distvae.estimators.trained import Trained, bounds, codes, train
from distvae.files.paths import given_path
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import plain_array
from distvae.train.progress import Progress
from distvae.train.session import RunOptions

Table = ArrayLike | Rows | Tensor
"""An array (which may be memory-mapped), a tensor, a data frame, or the rows of a dataset."""
Sections = dict[str, dict[str, Plain]]
"""The settings of each section."""
WARMUP = 0.1
"""The longest default warm-up of the learning rate, as a share of all steps."""
SHARE = Range(0.0, 0.99)
"""The allowed range of `validation_fraction`."""
OF_TRAINING = {"rate"}
"""Parameters that set only a field of `train`: the E-step's field of the same name has another
meaning.
"""
BLOCK = 2**18
"""Values that are read at a time."""
STEP = float(np.finfo(np.float32).eps)
"""The distance from 1 to the next number of float32."""
LOST = 0.01
"""The largest step of float32 that is accepted, relative to a column's standard deviation."""
ROUNDED = 16 * float(np.finfo(np.float64).eps)
"""The relative range below which a column of float64 counts as constant up to rounding."""
SPARSE_ROWS = 2**13
"""Rows whose codes are dense at a time when codes are sparse."""
STEPS = 3000
"""The fewest steps of a training whose number of epochs is not given, if `EPOCHS` allow it."""
EPOCHS = 30, 300
"""The fewest and the most epochs of such a training."""
CALLER = 4
"""The stack level of the caller of `fit`."""


@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A latent variable model of rows of numbers.

    `transform` returns codes and `inverse_transform` decodes them. `score` is a lower bound of
    log p(x) in nats per row. NaN stands for a missing value.
    """

    kind: ClassVar[str]
    """The kind of the model in a configuration."""
    estep: ClassVar[str]
    """The kind of the E-step in a configuration."""
    least_rows: ClassVar[int] = 1
    """The fewest rows that `fit` accepts."""

    latent: int = 32
    """Number of latents."""
    likelihood: str = "gaussian"
    """Likelihood of a value."""
    epochs: int | None = None
    """Passes over the rows. None: 30, and up to 300 where rows are few, so that training takes 3000
    steps.
    """
    batch: int = 128
    """Rows per training step."""
    patience: int | None = None
    """Stop after this many epochs without a better validation objective; None never does."""
    validation_fraction: float = 0.1
    """Share of the rows that are held out to select the best epoch."""
    warm_start: bool = False
    """Let `fit` start from the weights of the previous `fit`."""
    random_state: int | RandomState | None = 0
    """Seed of the weights, the order of rows and the noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; `auto` takes a GPU if a GPU is available."""
    settings: Mapping[str, Plain] | None = None
    """Further settings by dotted key, such as {"train.clip": 1.0}. They override parameters."""
    folder: str | Path | None = None
    """Folder of the run, which replaces an earlier run there; None for a temporary folder."""
    verbose: bool = False
    """Report every epoch."""

    def fit(self, X: Table, y: object = None) -> Self:
        """Train on rows; y is ignored."""
        before = getattr(self, "trained_", None) if self.warm_start else None
        share = validation_share(self.validation_fraction)
        rows = self._rows(X, reset=True)
        split = split_rows(rows, share, self._seed)
        dataset = dataset_of_rows(*split, shape=self._shape(rows))
        options = RunOptions(begun=before.give_weights) if before else RunOptions()
        return self._train(dataset, options)

    def fit_dataset(self, dataset: Dataset, data: Mapping[str, Plain]) -> Self:
        """Train on a dataset; `data` has its settings for the configuration."""
        self.n_features_in_ = dataset.dims
        return self._train(dataset, RunOptions(), {"data": {**data}})

    def transform(self, X: Table) -> Array:
        """Return the codes of rows, (N, codes)."""
        return codes(self._fitted.run, self._rows(X))

    def inverse_transform(self, X: ArrayLike | Tensor) -> Array:
        """Decode codes to rows, (N, values)."""
        return self._fitted.run.decode(X)

    def score_samples(self, X: Table) -> Array:
        """Return a lower bound of log p(x) of each row, (N,) nats."""
        return bounds(self._fitted.run, self._rows(X))

    def score(self, X: Table, y: object = None) -> float:
        """Return the mean lower bound of log p(x), in nats per row; y is ignored."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def sample(self, n_samples: int = 1, seed: int = 0) -> Array:
        """Decode draws from the prior to rows, (n_samples, values)."""
        count = whole_number("n_samples", Count, n_samples)
        return self._fitted.run.sample(count, seed)

    def save(self, folder: str | Path) -> None:
        """Write the run to a new folder, which the commands and `distvae.load` can open."""
        self._fitted.save(given_path(folder, "folder"))

    @property
    def history_(self) -> list[dict[str, float]]:
        """The metrics of each epoch of training."""
        return [{**record} for record in self._fitted.epochs]

    @property
    def n_iter_(self) -> int:
        """The number of epochs trained."""
        return len(self._fitted.epochs)

    @property
    def _fitted(self) -> Trained:
        """The trained run, or scikit-learn's `NotFittedError` if the estimator is not fitted."""
        check_is_fitted(self)
        return self.trained_

    @property
    def _n_features_out(self) -> int:
        """The number of output columns, for scikit-learn."""
        return self._fitted.run.model.code_size

    def _shape(self, rows: Rows) -> tuple[int, ...]:
        """Return (channels, height, width) if rows are images, and () otherwise."""
        return ()

    @property
    def _seed(self) -> int:
        """The seed that a random state of scikit-learn stands for."""
        if isinstance(self.random_state, int | np.integer):
            return whole_number("random_state", Whole, self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether a training has finished. A failed `fit` leaves only facts about X."""
        return hasattr(self, "trained_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = self.likelihood in ("itakura_saito", "log_normal")
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _rows(self, X: Table, reset: bool = False) -> Rows:
        """Check rows. They are converted to float32 when they are read."""
        if isinstance(X, LazyRows):
            if reset:
                self.n_features_in_ = X.shape[1]
            return X
        if hasattr(X, "collect") and not hasattr(X, "__array__"):
            raise Refusal(f"X: {type(X).__name__}, which has no rows yet; X.collect() expected")
        if isinstance(X, Tensor) and X.is_meta:
            raise Refusal("X: a meta tensor, which has no values; a tensor with values expected")
        array = plain_array(X)
        is_plain = isinstance(array, np.ndarray) or not hasattr(array, "__array_function__")
        if is_plain and np.iscomplexobj(array):
            raise Refusal("X: complex values; real numbers expected (Complex data not supported)")
        least = self.least_rows if reset else 1
        checked = validate_data(
            self, array, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=least
        )
        if checked.dtype.kind not in "fiub":
            raise Refusal(f"X: holds {checked.dtype}; real numbers expected")
        if reset:
            warn_of_lost_digits(checked, getattr(self, "feature_names_in_", None))
        return ChosenRows(checked, np.arange(len(checked)))

    def _parameters(self) -> dict[str, object]:
        """Return the values of all parameters, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _train(
        self, dataset: Dataset, options: RunOptions, changes: Sections | None = None
    ) -> Self:
        """Train on a dataset. Each parameter sets all fields of its name in the configuration.
        `changes` override parameters, and settings by dotted key override both.
        """
        kinds: Sections = {
            "data": {"kind": "rows", "path": IN_MEMORY},
            "model": {"kind": self.kind},
            "estep": {"kind": self.estep},
            "train": {"kind": "adam", "seed": self._seed},
        }
        tree: dict[str, dict[str, object]] = {}
        for section, kind in kinds.items():
            named: dict[str, object] = {}
            if section != "data":
                known = set(field_types(FAMILIES[section][str(kind["kind"])]))
                known -= OF_TRAINING if section == "estep" else set()
                parameters = self._parameters().items()
                named = {key: python_value(value) for key, value in parameters if key in known}
            tree[section] = named | kind | (changes or {}).get(section, {})
        is_open = tree["train"].get("epochs", "") is None
        if is_open:
            del tree["train"]["epochs"]
        given = named_settings(self.settings)
        config = from_dict(override(tree, given))
        batches = math.ceil(len(dataset.splits["train"]) / config.train.batch)
        if "train.epochs" not in given and is_open:
            fewest, most = EPOCHS
            epochs = min(max(fewest, math.ceil(STEPS / batches)), most)
            config = config.with_("train", epochs=epochs)
        if "train.warmup" not in given and config.train.warmup == Train.warmup:
            steps = config.train.epochs * batches
            config = config.with_("train", warmup=min(Train.warmup, round(WARMUP * steps)))
        options = replace(options, recipe=type(self).__name__, force=True)
        progress = Progress("line" if self.verbose else "quiet", dataset.unit)
        self.trained_ = train(config, dataset, self.folder, options, progress)
        return self


def validation_share(fraction: object) -> float:
    """Return the share of rows for validation; refuse a share outside its range."""
    found: float = check_value(
        "validation_fraction", Annotated[float, SHARE], python_value(fraction)
    )
    return found


def warn_of_lost_digits(table: NDArray[np.generic], names: Sequence[str] | None) -> None:
    """Warn if float32 cannot resolve the values of a column of 64-bit numbers.

    Missing values (NaN) are left out. A column that varies by rounding alone counts as constant.
    """
    if table.dtype.itemsize < 8:
        return
    step = max(1, BLOCK // table.shape[1])
    low, high = np.full((2, table.shape[1]), np.nan)
    scaler = StandardScaler()
    for start in range(0, len(table), step):
        block = table[start : start + step].astype(np.float64)
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
        with np.errstate(invalid="ignore"):  # columns without observed values
            scaler.partial_fit(block)
    size = np.fmax(np.abs(low), np.abs(high))
    deviation = np.where(high - low > ROUNDED * size, np.sqrt(scaler.var_), 0.0)
    lost = np.divide(STEP * size, deviation, out=np.zeros_like(size), where=deviation > 0)
    if count := int((lost > LOST).sum()):
        worst = int(np.argmax(lost))
        name = f"column {worst}" if names is None else f"column '{names[worst]}'"
        among = f", the worst of {count}," if count > 1 else ""
        warnings.warn(
            f"X: {name}{among} has values of up to {size[worst]:.6g} and a standard deviation of"
            f" {deviation[worst]:.2g}, but float32, in which models compute, has steps of"
            f" about {STEP * size[worst]:.1g} there; subtract its mean",
            stacklevel=CALLER,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class Layered(Estimator):
    """A model with hidden layers, which is trained by gradients."""

    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers."""
    activation: str = "tanh"
    """Nonlinearity of the hidden layers: tanh, relu, leaky_relu or silu."""
    rate: float = 3e-3
    """Peak learning rate."""


@dataclass(kw_only=True, eq=False, repr=False)
class Encoded(Layered):
    """A model whose codes come from an encoder."""

    estep: ClassVar[str] = "amortised"

    beta: float = 1.0
    """Weight of the KL divergence in the objective."""
    input: str = "raw"
    """Transform of the encoder's input: raw, standard, log or log_standard."""
    net: str = "flat"
    """flat, or conv for convolutions before the hidden layers (needs `shape`)."""
    shape: tuple[int, int, int] | None = None
    """(channels, height, width) if rows are images."""
    active_codes: bool = False
    """Let `transform` set values to zero that tell less than half a nat about a row (VSC: whose
    gate is probably closed).
    """

    def transform(self, X: Table) -> Array:
        """Return the codes of rows, (N, codes)."""
        return codes(self._fitted.run, self._rows(X), self.active_codes)

    def partial_fit(self, X: Table, y: object = None) -> Self:
        """Train one epoch on rows. The next call continues from its result."""
        before = getattr(self, "trained_", None)
        done = int(before.epochs[-1]["epoch"]) if before else 0
        once: dict[str, Plain] = {"epochs": done + 1, "schedule": "constant", "warmup": 0}
        named = named_settings(self.settings)
        for name, value in once.items():
            key = f"train.{name}"
            if key in named and (name == "epochs" or named[key] != value):
                raise Refusal(
                    f"settings: {key} with partial_fit, which trains one epoch at a constant rate;"
                    f" settings without {key} expected"
                )
        rows = self._rows(X, reset=before is None)
        options = RunOptions(begun=before.give_state) if before else RunOptions()
        dataset = dataset_of_rows(rows, rows, shape=self._shape(rows))
        self._train(dataset, options, {"train": once})
        if before:
            self.trained_.follow(before)
        return self

    def _shape(self, rows: Rows) -> tuple[int, ...]:
        """Return (channels, height, width) if rows are images, and () otherwise."""
        if self.shape is None or python_value(self.shape) in ((), []):
            return ()
        found: tuple[int, ...] = check_value(
            "shape", tuple[Count, Count, Count], python_value(self.shape)
        )
        if math.prod(found) != rows.shape[1]:
            raise Refusal(
                f"shape: {found} of {math.prod(found)} values; {rows.shape[1]} expected, as in X"
            )
        return found


@dataclass(kw_only=True, eq=False, repr=False)
class VAE(Encoded):
    """Variational autoencoder with a diagonal Gaussian posterior (Kingma and Welling, 2014)."""

    kind: ClassVar[str] = "vae"


@dataclass(kw_only=True, eq=False, repr=False)
class SDMVAE(Encoded):
    """Sparse dictionary model (Sadeghi and Magron, 2022): codes are coefficients of atoms."""

    kind: ClassVar[str] = "sdm"

    dictionary: str = "identity"
    """identity, dct or learned."""
    atoms: int | None = None
    """Atoms of the dictionary, which is the size of a code; None takes `latent`."""
    coherence: float = 0.0
    """Weight of the penalty on the coherence of a learned dictionary."""


@dataclass(kw_only=True, eq=False, repr=False)
class VSC(Encoded):
    """Variational sparse coding (Tonolini, Jensen and Murray-Smith, 2020): spike and slab."""

    kind: ClassVar[str] = "vsc"

    alpha: float = 0.5
    """Prior probability that a latent is active."""
    sharpness: float = 50.0
    """Slope of the relaxed gates."""
    prior: str = "fixed"
    """fixed, or pseudo for a mixture of posteriors at learned pseudo-inputs."""
    pseudo_inputs: int = 10
    """Number of pseudo-inputs."""


@dataclass(kw_only=True, eq=False, repr=False)
class GumbelVAE(Encoded):
    """Binary latents with an encoder, relaxed in training (Jang, Gu and Poole, 2017)."""

    kind: ClassVar[str] = "gumbel"

    alpha: float = 0.5
    """Prior probability that a latent is active."""
    prior: str = "fixed"
    """fixed, or learned for a separate probability of each latent."""
    temperature: float = 0.5
    """Temperature of the relaxed latents."""


@dataclass(kw_only=True, eq=False, repr=False)
class TVAE(Layered):
    """Binary latents without an encoder, found by evolutionary search (Drefs et al., 2022)."""

    kind: ClassVar[str] = "tvae"
    estep: ClassVar[str] = "evolution"
    least_rows: ClassVar[int] = 2

    latent: int = 64
    """Number of binary latents."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers: tanh, relu or leaky_relu."""
    validation_fraction: float = 0.0
    """Share of the rows that are held out. The best epoch is selected on the training rows."""
    variance: float | None = None
    """sigma^2 at the start of training; None takes the variance of the data."""
    states: int = 64
    """States kept for each row, at most 2^latent."""
    sweeps: int = 5
    """Sweeps of the search for the states of new rows."""

    def _parameters(self) -> dict[str, object]:
        latent = whole_number("latent", Count, self.latent)
        states = min(whole_number("states", Count, self.states), 2**latent)
        parents, children = min(Evolution.parents, states), min(Evolution.children, latent)
        kept = {"states": states, "parents": parents, "children": children}
        return super()._parameters() | kept


@dataclass(kw_only=True, eq=False, repr=False)
class BinarySparseCoding(TVAE):
    """Binary sparse coding: a TVAE whose decoder is linear."""

    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers."""


@dataclass(kw_only=True, eq=False, repr=False)
class SpikeSlab(Estimator):
    """Sparse coding by search (Drefs et al., 2022): codes have few values that are not zero."""

    kind: ClassVar[str] = "ssc"
    estep: ClassVar[str] = "selection"

    latent: int = 64
    """Number of latents, and of atoms of the dictionary."""
    likelihood: str = "gaussian"
    """gaussian, or log_normal for powers, whose logarithms are coded."""
    floor: float = 1e-10
    """Added to a value before its logarithm, with `likelihood="log_normal"`."""
    active: float | None = None
    """Mean number of values of a code that are not zero; None takes as many as the data support."""
    limit: int = 32
    """Largest number of values of a code that are not zero."""
    dictionary: str = "learned"
    """learned, identity or dct."""
    latents: str = "positive"
    """positive or signed values of codes."""
    cycles: int = 3
    """Cycles in which atoms that are not well formed are replaced."""
    epochs: int = 100
    """Passes over the rows, of which the cycles take the first."""
    batch: int = 4096
    """Rows that are searched together."""
    validation_fraction: float = 0.0
    """Share of the rows that are held out to select the best epoch."""
    sparse_output: bool = False
    """Let `transform` return a `csr_array` of SciPy, which holds only values that are not zero."""

    def transform(self, X: Table) -> Array | csr_array:
        """Return the codes of rows, (N, codes)."""
        if not self.sparse_output:
            return super().transform(X)
        run, rows = self._fitted.run, self._rows(X)
        starts = range(0, len(rows), SPARSE_ROWS)
        return vstack([csr_array(codes(run, rows[i : i + SPARSE_ROWS])) for i in starts], "csr")

    def inverse_transform(self, X: ArrayLike | Tensor | csr_array) -> Array:
        """Decode codes to rows, (N, values)."""
        return super().inverse_transform(X.toarray() if isinstance(X, csr_array) else X)
