"""Settings of each family of models, and of each family of E-steps, which find posteriors."""

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
    Share,
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
        fits_squares = self.linear_fit == "closed_form"
        if fits_squares and self.hidden and not self.linear:
            raise Refusal(
                f"model.linear_fit: 'closed_form' with model.hidden = {list(self.hidden)} and"
                " model.linear = 0, so that the decoder is never linear; no hidden layer, or some"
                " steps with a linear decoder, expected"
            )
        if fits_squares and (self.likelihood, self.output) != ("gaussian", "linear"):
            raise Refusal(
                "model.linear_fit: 'closed_form' with other than Gaussian values or with a sigmoid"
                " output; model.likelihood = 'gaussian' and model.output = 'linear' expected"
            )
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


MAX_EXACT_BITS = 16
"""The largest number of bits whose states can be enumerated."""
MAX_SUPPORTED = 12
"""The largest number of latents whose supports can be enumerated."""


class EStepConfig(Family, Protocol):
    """The settings of one family of E-steps: a dataclass registered with `@family("estep")`."""


@dataclass(frozen=True)
class Truncation:
    """Settings of an E-step that keeps a population of states for each data point.

    The populations of every subclass are kept either in one process, or spread over the workers of
    a run.
    """

    states: Count = 64
    """Distinct states kept for each row."""
    block: Count = 1024
    """Rows searched together, with the parameters at the start of the block."""
    first: Literal["common", "own"] = "common"
    """`common`: all rows start with the same random states, as in the released code. `own`: each
    row starts with its own random states.
    """
    sweeps: Annotated[int, Range(1, 10_000)] = 5
    """Searches for states of new data, which start from states of training data."""
    mapped: str | None = None
    """A folder for a file that holds the states; null keeps them in memory."""

    @property
    def new_states(self) -> int:
        """New states that a search makes for each data point."""
        return 0

    def check_code_size(self, bits: int) -> None:
        """Refuse a model whose bits have fewer than `states` distinct states."""
        if bits < 40 and self.states > 2**bits:
            raise Refusal(
                f"estep.states: {self.states}, but {bits} bits have only {2**bits} states"
            )


@family("estep")
@dataclass(frozen=True)
class Evolution(Truncation):
    """Evolutionary search over the kept states. The children of a generation are the parents of the
    next.
    """

    kind: ClassVar[str] = "evolution"
    parents: Count = 5
    """States of a row chosen as parents in each generation."""
    children: Count = 4
    """Children of each parent. Not used with crossover, where every pair of parents has two
    children.
    """
    generations: Annotated[int, Range(1, 1000)] = 1
    """Generations of each search. Each row is searched once per epoch."""
    selection: Literal["fitness", "fitness_batch", "released", "uniform", "best"] = "fitness_batch"
    """Choice of parents. `fitness`: in proportion to fitness. `fitness_batch`: the best, except one
    time in 32. `released`: as in the released code, which takes the best states of the last search
    and the children created last. `uniform`: at random. `best`: the best.
    """
    mutation: Literal["flip", "sparse_flip"] = "flip"
    """`flip` flips one bit of a child. `sparse_flip` flips each bit at random, with probabilities
    that bring the number of active bits towards the mean number that the model expects.
    """
    crossover: Literal["none", "one_point"] = "none"
    """`one_point` cuts each pair of parents at a random place and swaps the ends."""
    rate: Share = 0.1
    """Share of the bits that sparse_flip flips on average."""

    def __post_init__(self) -> None:
        """Refuse fields that do not fit each other."""
        if self.parents > self.states:
            raise Refusal(
                f"estep.parents: {self.parents}, but estep.states = {self.states}; at most as many"
                " expected"
            )
        if self.crossover == "one_point" and self.parents < 2:
            raise Refusal("estep.parents: 1 with crossover; two or more expected")

    @property
    def new_states(self) -> int:
        """The number of children of all generations."""
        siblings = self.parents - 1 if self.crossover == "one_point" else self.children
        return self.parents * siblings * self.generations

    def check_code_size(self, bits: int) -> None:
        """Refuse a model with too few bits to cut between two bits, or to flip a different bit in
        each sibling.
        """
        super().check_code_size(bits)
        if self.crossover == "one_point" and bits < 2:
            raise Refusal(
                "estep.crossover: 'one_point' with model.latent = 1, which cannot be cut; none"
                " expected"
            )
        if self.crossover == "none" and self.mutation == "flip" and self.children > bits:
            raise Refusal(
                f"estep.children: {self.children}, each with another bit turned over, "
                f"but model.latent = {bits}; at most as many expected"
            )


@family("estep")
@dataclass(frozen=True)
class RandomSearch(Truncation):
    """Search by independent draws from Bernoulli(1 / H)."""

    kind: ClassVar[str] = "random"
    draws: Count = 20
    """States drawn in each search."""

    @property
    def new_states(self) -> int:
        """The number of draws."""
        return self.draws


@family("estep")
@dataclass(frozen=True)
class Exact:
    """The exact posterior over all 2^H states, for small H."""

    kind: ClassVar[str] = "exact"

    def check_code_size(self, bits: int) -> None:
        """Refuse a model with too many states to enumerate."""
        if bits > MAX_EXACT_BITS:
            raise Refusal(
                f"model.latent: {bits} with estep.kind 'exact'; at most {MAX_EXACT_BITS} expected"
            )


@family("estep")
@dataclass(frozen=True)
class Amortised(Net):
    """Posteriors from an encoder."""

    kind: ClassVar[str] = "amortised"
    input: Literal["raw", "standard", "log", "log_standard"] = "log_standard"
    """Input of the encoder: x (`raw`) or log x (`log`), or either standardised per value with the
    mean and the standard deviation of the training set.
    """
    floor: Positive = 1e-10
    """Added to x before its logarithm."""

    @property
    def takes_logarithm(self) -> bool:
        """True if the encoder sees log x, so that x must not be negative."""
        return self.input in ("log", "log_standard")

    @property
    def standardises(self) -> bool:
        """True if inputs are standardised."""
        return self.input in ("standard", "log_standard")


@family("model")
@dataclass(frozen=True)
class SpikeSlabModel:
    """Spike-and-slab sparse coding: codes with few values, on supports that a search finds."""

    kind: ClassVar[str] = "ssc"
    estep: ClassVar[tuple[str, ...]] = ("selection", "all_supports")
    codes: ClassVar[tuple[str, ...]] = ("mean",)
    sparse: ClassVar[bool] = True
    """Files of codes list the values that are not zero."""
    likelihood: Literal["gaussian", "log_normal"] = "gaussian"
    """The density of a value: with one variance for all values, or for all their logarithms."""
    floor: Annotated[float, Range(0, above=True)] = 1e-10
    """log_normal: what is added to a value before its logarithm. Values far below it count little.
    """
    latent: Count = 256
    """Number of latents, and of atoms of the dictionary."""
    active: Annotated[float, Range(0, above=True)] | None = None
    """The mean number of active latents of a row of training. null: as many as the evidence asks
    for.
    """
    limit: Annotated[int, Range(0, 256)] = 32
    """The largest number of active latents of a row."""
    dictionary: Literal["learned", "identity", "dct"] = "learned"
    """The atoms: learned, the identity, or cosines (DCT)."""
    latents: Literal["positive", "signed"] = "positive"
    """`positive`: an active latent has a learned mean, and joins a support only if the row pulls it
    upwards. `signed`: its mean is zero.
    """
    bias: bool = True
    """Whether the mean of the rows is taken from each row."""
    standard: bool = False
    """Whether columns are divided by their standard deviations, for columns in different units."""
    cycles: Whole = 12
    """Cycles in which atoms that are not well formed are replaced. Later epochs are plain EM. A
    dictionary that is not learned has none.
    """
    update_rows: Count = 16
    """In a cycle, an update is due for this many rows per latent, or once an epoch of fewer rows.
    4 forms a dictionary from a quarter of the rows; 2 is too few.
    """

    @property
    def code_size(self) -> int:
        """The number of latents."""
        return self.latent


@family("estep")
@dataclass(frozen=True)
class Selection:
    """Supports found by the gain in evidence of each latent, one latent at a time."""

    kind: ClassVar[str] = "selection"


@family("estep")
@dataclass(frozen=True)
class AllSupports:
    """The exact posterior of spike-and-slab codes over all 2^H supports, for small H."""

    kind: ClassVar[str] = "all_supports"

    def check_code_size(self, bits: int) -> None:
        """Refuse a model with too many supports to enumerate."""
        if bits > MAX_SUPPORTED:
            raise Refusal(
                f"model.latent: {bits} with estep.kind 'all_supports'; at most {MAX_SUPPORTED}"
                " expected"
            )
