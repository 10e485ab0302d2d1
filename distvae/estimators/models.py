"""An estimator for each model."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from distvae.config import Evolution
from distvae.config.recipes import named_settings, python_value
from distvae.config.schema import Count, check_value, whole_number
from distvae.data.dataset import Rows, dataset_of_rows
from distvae.estimators.base import Estimator, Table
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.train.session import RunOptions


@dataclass(kw_only=True, eq=False, repr=False)
class Encoded(Estimator):
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
class TVAE(Estimator):
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
    sweeps: int = 50
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
