"""The base class of all estimators: parameters, fitting, codes, bounds and samples."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from distvae.config.from_python import named_settings
from distvae.config.schema import whole_number
from distvae.config.values import Count
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
from distvae.estimators.precision import warn_of_lost_digits
from distvae.estimators.settings import (
    Sections,
    configuration,
    seed_of,
    validation_share,
    with_short_warmup,
)
from distvae.estimators.trained import Trained, bounds, codes, train
from distvae.files.paths import given_path
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import plain_array
from distvae.train.progress import Progress
from distvae.train.session import RunOptions

Table = ArrayLike | Rows | Tensor
"""An array (which may be memory-mapped), a tensor, a data frame, or the rows of a dataset."""


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
    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers."""
    activation: str = "tanh"
    """Nonlinearity of the hidden layers: tanh, relu, leaky_relu or silu."""
    likelihood: str = "gaussian"
    """Likelihood of a value."""
    epochs: int = 30
    """Passes over the rows."""
    batch: int = 128
    """Rows per training step."""
    rate: float = 3e-3
    """Peak learning rate."""
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
        return seed_of(self.random_state)

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether a training has finished. A failed `fit` leaves only facts about X."""
        return hasattr(self, "trained_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = self.likelihood == "itakura_saito"
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
        """Train on a dataset, with changed settings of some sections."""
        tree: Sections = {
            "data": {"kind": "rows", "path": IN_MEMORY},
            "model": {"kind": self.kind},
            "estep": {"kind": self.estep},
            "train": {"kind": "adam", "seed": self._seed},
        }
        for section, settings in (changes or {}).items():
            tree[section] |= settings
        config = configuration(tree, self._parameters(), self.settings)
        if "train.warmup" not in named_settings(self.settings):
            config = with_short_warmup(config, len(dataset.splits["train"]))
        options = replace(options, recipe=type(self).__name__, force=True)
        progress = Progress("line" if self.verbose else "quiet", dataset.unit)
        self.trained_ = train(config, dataset, self.folder, options, progress)
        return self
