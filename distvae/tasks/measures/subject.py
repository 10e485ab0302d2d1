"""The run and split that measures evaluate, with the codes, classes and factors of the rows."""

from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distvae.config import DataConfig
from distvae.data import factors_of, labels_of, open_dataset
from distvae.data.dataset import Array, Dataset, Rows, stack
from distvae.files.refusal import Refusal
from distvae.interface import Posterior
from distvae.models.posteriors import SpikeAndSlab
from distvae.models.truncated import Truncated
from distvae.numerics.noise import order
from distvae.train.run import Run

if TYPE_CHECKING:
    from distvae.data.dataset import Labels

LABELLED = -5
"""The epoch whose row order selects the labelled training rows. It is the same for every seed."""


class Labelled(NamedTuple):
    """Codes with their classes."""

    codes: Array
    labels: "Labels"


class Factored(NamedTuple):
    """Codes with the levels of the factors that generated their data points."""

    codes: Array
    levels: "Labels"
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
        self, split: str, places: NDArray[np.intp], labels: "dict[str, Labels]"
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
    if isinstance(q, SpikeAndSlab):
        return {"mean": q.mean, "gated": q.code, "binary": (q.gamma > 0.5).float()}[kind]
    if kind == "binary":
        return q.best if isinstance(q, Truncated) else (q.code > 0.5).float()
    return q.code


def require_labels(data: DataConfig) -> "dict[str, Labels]":
    """Return the class of every row by split; refuse data without classes."""
    labels = labels_of(data)
    if labels is None:
        raise Refusal(
            f"eval.metrics: a probe needs the class of every data point, and {data.path} has none;"
            " folders named for classes, idx files of labels, or an .npz with y_train and y_test,"
            " expected"
        )
    return labels
