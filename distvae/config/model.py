"""Settings of each family of models."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

from distvae.config.schema import (
    Activation,
    Count,
    Family,
    NonNegative,
    Positive,
    Probability,
    Range,
    Restoring,
    TVAEActivation,
    Whole,
    Widths,
    family,
)
from distvae.files.refusal import Refusal


@dataclass(frozen=True)
class Net:
    """Hidden layers, with convolutions for images if requested."""

    hidden: Widths = (128,)
    """Widths of the hidden layers."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers. `silu` is slower on a CPU."""
    net: Literal["flat", "conv"] = "flat"
    """`conv` puts convolutions of stride 2 between an image and the hidden layers, and transposed
    convolutions where a decoder produces the image.
    """
    channels: Widths = (32, 32, 64, 64)
    """Channels of the convolutions, from the image inwards."""
    kernel: Annotated[int, Range(2, 15)] = 4
    """Height and width of the kernel of each convolution."""


class ModelConfig(Family, Protocol):
    """The settings of one family of models: a dataclass registered with `@family("model")`."""

    estep: ClassVar[tuple[str, ...]]
    """The kinds of E-step that can train the model, the default kind first."""
    codes: ClassVar[tuple[str, ...]]
    """The kinds of code that the model offers to probes."""

    @property
    def latent(self) -> int:
        """Values of the latent state."""

    @property
    def likelihood(self) -> str:
        """The name of the likelihood of an observation."""


@dataclass(frozen=True)
class Decoder(Net):
    """Settings of a decoder whose latents come from an encoder."""

    estep: ClassVar[tuple[str, ...]] = ("amortised",)
    codes: ClassVar[tuple[str, ...]] = ("mean",)
    latent: Count = 32
    """Number of latents."""
    likelihood: Literal["itakura_saito", "gaussian", "gaussian_learned", "bernoulli"] = (
        "itakura_saito"
    )
    """The density of a value. `gaussian` has one variance for all values. With `gaussian_learned`
    the decoder outputs a mean and a variance for each value.
    """
    variance: Positive | None = None
    """sigma^2 of the `gaussian` likelihood at the start of training; null takes the variance of the
    data, or 1 if they do not vary.
    """
    beta: NonNegative = 1.0
    """Weight of the KL divergence in the objective. The reported bound always has weight one."""
    beta_warmup: Whole = 0
    """Steps over which beta rises from zero."""
    draws: Count = 1
    """Draws of z for each data point in a step. The objective is the mean over the draws. More
    draws make its gradient less noisy and a step slower.
    """
    restored: Restoring = "mean"
    """The decoded states of `denoise` and `inpaint`: the mean of a posterior, or draws from it.
    With `draws` each value is the mean of about 256 decoded states, over all windows that cover it.
    """

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if self.likelihood == "gaussian_learned" and self.net == "conv":
            raise Refusal(
                "model.likelihood: 'gaussian_learned' with model.net = 'conv', which puts out one"
                " number for each value; flat expected"
            )
        if self.variance is not None and self.likelihood != "gaussian":
            raise Refusal(
                f"model.variance: {self.variance:g} with model.likelihood = '{self.likelihood}',"
                " which has none; gaussian expected, or omit it"
            )

    @property
    def code_size(self) -> int:
        """The number of values of a code, which the encoder computes."""
        return self.latent

    @property
    def inputs(self) -> int:
        """The number of input values of the decoder."""
        return self.latent


@family("model")
@dataclass(frozen=True)
class VAEModel(Decoder):
    """Variational autoencoder with a diagonal Gaussian posterior."""

    kind: ClassVar[str] = "vae"


@family("model")
@dataclass(frozen=True)
class SDMModel(Decoder):
    """Sparse dictionary model: z = D a, with one learnable variance per value of a."""

    kind: ClassVar[str] = "sdm"
    restored: Restoring = "draws"
    dictionary: Literal["identity", "dct", "learned"] = "identity"
    """The dictionary D of z = D a: the identity, cosines (DCT), or columns that are trained."""
    atoms: Count | None = None
    """Number of columns of the dictionary, and of values of a code; null takes model.latent."""
    coherence: NonNegative = 0.0
    """Weight of the penalty on the coherence of a learned dictionary, in nats per row."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        super().__post_init__()
        if self.dictionary == "identity" and self.atoms not in (None, self.latent):
            raise Refusal(
                f"model.atoms: {self.atoms} with the identity; model.latent = {self.latent} or null"
                " expected"
            )
        if self.coherence and self.dictionary != "learned":
            raise Refusal(
                "model.coherence: only a learned dictionary has a coherence to lower; 0 expected"
            )

    @property
    def code_size(self) -> int:
        """Number of atoms of the dictionary."""
        return self.atoms or self.latent


@family("model")
@dataclass(frozen=True)
class VSCModel(Decoder):
    """Variational sparse coding: spike-and-slab latents."""

    kind: ClassVar[str] = "vsc"
    codes: ClassVar[tuple[str, ...]] = ("mean", "gated", "binary")
    restored: Restoring = "draws"
    alpha: Probability = 0.5
    """Prior probability that a latent is active."""
    sharpness: Positive = 200.0
    """Slope of the relaxed gate."""
    prior: Literal["fixed", "pseudo"] = "fixed"
    """`fixed` is a spike-and-slab with alpha. `pseudo` selects one of the posteriors at learned
    pseudo-inputs.
    """
    pseudo_inputs: Count = 10
    """Number of learned pseudo-inputs."""
    slab_warmup: tuple[Whole, Whole] = (0, 0)
    """First and last step of a warmup. Before it, only the spikes carry information."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        super().__post_init__()
        if self.slab_warmup[0] > self.slab_warmup[1]:
            raise Refusal(
                f"model.slab_warmup: {list(self.slab_warmup)} falls; two rising steps expected"
            )


@family("model")
@dataclass(frozen=True)
class GumbelModel(Decoder):
    """Binary or categorical latents with an encoder, relaxed during training (Gumbel-softmax)."""

    kind: ClassVar[str] = "gumbel"
    codes: ClassVar[tuple[str, ...]] = ("mean", "binary")
    restored: Restoring = "draws"
    categories: Annotated[int, Range(2)] | None = None
    """Number of categories of each latent. A code then has a value for each category. null makes
    each latent a bit.
    """
    alpha: Probability = 0.5
    """Prior probability that a bit is active."""
    prior: Literal["fixed", "learned"] = "fixed"
    """`fixed`: every bit is active with probability alpha, or all categories are equally probable.
    `learned` starts there and learns a probability for each.
    """
    temperature: Positive = 0.5
    """Temperature of the relaxed latents. Towards zero they become binary and gradients noisy."""
    hot: Positive = 1.0
    """Temperature at the first step, if `cooling` is above 0."""
    cooling: Whole = 0
    """Steps over which the temperature falls from `hot` to `temperature`, by a constant factor per
    step. 0 keeps it constant.
    """

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        super().__post_init__()
        if self.categories and self.alpha != 0.5:
            raise Refusal(
                f"model.alpha: {self.alpha:g} with model.categories = {self.categories}, which are"
                " equally probable; alpha is for bits, omit it"
            )

    @property
    def code_size(self) -> int:
        """The number of bits, or of categories of all latents."""
        return self.latent * (self.categories or 1)

    @property
    def inputs(self) -> int:
        """The number of input values of the decoder, equal to the length of a code."""
        return self.code_size


@family("model")
@dataclass(frozen=True)
class TVAEModel:
    """Truncated variational autoencoder: binary latents and no encoder. Without hidden layers it is
    binary sparse coding.
    """

    kind: ClassVar[str] = "tvae"
    estep: ClassVar[tuple[str, ...]] = ("evolution", "random", "exact")
    codes: ClassVar[tuple[str, ...]] = ("mean", "binary")
    latent: Count = 64
    """Number of binary latents."""
    hidden: Widths = (64,)
    """Widths of the decoder's hidden layers; an empty list makes it linear."""
    activation: TVAEActivation = "relu"
    """Nonlinearity of the hidden layers."""
    output: Literal["linear", "sigmoid"] = "linear"
    """Function of the last layer."""
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """The density of a value. `gaussian` has one variance for all values."""
    variance: Positive | None = 0.01
    """sigma^2 at the start of training; null takes the variance of the data."""
    horizon: Positive | None = 24.0
    """A step takes the kept states of a row whose log p(x, z) was within this many nats of the best
    state when the row was searched; null takes all states. The omitted posterior weight is measured
    on sampled rows. If it exceeds 1e-5 the horizon widens; later it may narrow again.
    """
    missing: Literal["masked", "completed"] = "masked"
    """Treatment of missing values in a step. `masked` leaves them out. `completed` fills them with
    their posterior mean, as the paper and the released code do. The bound then does not rank
    epochs, and the last weights count as the best.
    """
    linear: Whole = 0
    """Steps in which the hidden layers pass states on unchanged, so that the decoder is linear.
    After these steps, the hidden layers are trained too.
    """
    linear_fit: Literal["gradient", "closed_form"] = "gradient"
    """Fit of the decoder's weights while it is linear: `gradient` follows their gradient in each
    step, `closed_form` solves least squares once an epoch, given the posteriors. The released code
    uses least squares for binary sparse coding.
    """

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        self._refuse_closed_form()
        unfit = self.activation == "tanh" or {*self.hidden} - {self.latent}
        if self.linear and self.hidden and unfit:
            layers = f"{self.activation} and model.hidden = {list(self.hidden)}"
            wanted = f"relu or leaky_relu, and layers as wide as model.latent = {self.latent}"
            raise Refusal(
                f"model.linear: {self.linear} with {layers} cannot pass states on;"
                f" {wanted}, expected"
            )
        if self.likelihood == "bernoulli" and self.output == "sigmoid":
            raise Refusal(
                "model.output: 'sigmoid' with the Bernoulli likelihood, which has one of its own;"
                " use linear"
            )

    def _refuse_closed_form(self) -> None:
        """Refuse least squares for a decoder that is never linear, or for values that are not
        Gaussian.
        """
        if self.linear_fit == "gradient":
            return
        if self.hidden and not self.linear:
            raise Refusal(
                f"model.linear_fit: 'closed_form' with model.hidden = {list(self.hidden)} and"
                " model.linear = 0, so that the decoder is never linear; no hidden layer, or some"
                " steps with a linear decoder, expected"
            )
        if self.likelihood != "gaussian" or self.output != "linear":
            raise Refusal(
                "model.linear_fit: 'closed_form' with other than Gaussian values or with a sigmoid"
                " output; model.likelihood = 'gaussian' and model.output = 'linear' expected"
            )
