"""What a run is: five frozen dataclasses, one per family, validated at the door.

A section (`data`, `model`, `estep`, `train`, `eval`) has one dataclass per family, chosen by its `kind`. Every mistake
is refused with its dotted path and the nearest right name.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from distvae.refusal import Refusal, nearest
from distvae.schema import SECTIONS, Range, check, family, read_section

Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]
Probability = Annotated[float, Range(1e-6, 1 - 1e-6)]
Widths = tuple[Count, ...]
Activation = Literal["tanh", "relu", "leaky_relu"]


@family("data")
@dataclass(frozen=True)
class SpeechData:
    """Power spectra of recordings, one frame a data point."""

    kind: ClassVar[str] = "speech"
    path: str = ""
    """A folder of wav, flac, ogg or mp3, or `built-in speech`; empty: $DISTVAE_DATA, else the built-in speech."""
    rate: Annotated[int, Range(4000, 192000)] = 16000
    """Sampling rate in Hz everything is resampled to."""
    window: Annotated[int, Range(16, 65536)] = 1024
    """Samples in the sine window."""
    hop: Count = 256
    """Samples from one frame to the next; it must divide the window."""
    trim_db: Positive | None = 30.0
    """Cut leading and trailing parts this many dB below the loudest; null keeps them."""
    level: Literal["peak", "keep"] = "peak"
    """Divide each recording by its largest sample, or keep it."""
    speakers: str = "auto"
    """folder | pattern:REGEX with one group | csv:FILE; auto: speakers.csv in the path, else the name of the folder."""
    split: Literal["auto", "given", "seeded", "loose"] = "auto"
    """Where the split comes from: the table or the top folders (train, val, test), or speakers drawn with a seed.

    `loose` asks for none: what was given a split keeps it, everything else is test. It serves judging and encoding."""
    split_seed: Whole = 0
    val: Share = 0.15
    """Share of the speakers to validate on, when the split is drawn."""
    test: Share = 0.15
    """Share of the speakers to test on, when the split is drawn."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.window % self.hop or self.hop * 2 > self.window:
            raise Refusal(f"data.hop: {self.hop} does not divide data.window = {self.window} at least twice")
        if self.val + self.test >= 1:
            raise Refusal(f"data.val + data.test: {self.val + self.test:g}; less than 1 expected")

    @property
    def bins(self) -> int:
        """Frequencies of a frame."""
        return self.window // 2 + 1

    @property
    def dims(self) -> int:
        """Values of a data point."""
        return self.bins


@family("data")
@dataclass(frozen=True)
class IdxData:
    """Images in the idx files of MNIST and its kin, one image a data point, scaled to [0, 1]."""

    kind: ClassVar[str] = "idx"
    path: str = ""
    """The folder with train-images-idx3-ubyte and t10k-images-idx3-ubyte, gzipped or not; empty: $DISTVAE_DATA."""
    holdout: Whole = 0
    """Training images kept for validation; 0 validates on the test images, as the papers' curves do."""

    @property
    def dims(self) -> int:
        """Values of a data point, where it is one of MNIST."""
        return 784


@family("data")
@dataclass(frozen=True)
class BarsData:
    """Bars on a square: every bar appears independently, horizontal and vertical ones superimpose."""

    kind: ClassVar[str] = "bars"
    path: str = ""
    """Nothing: the images are made."""
    size: Annotated[int, Range(2, 64)] = 4
    """Pixels of a side; there are twice as many bars."""
    rows: Count = 500
    active: Positive = 2.0
    """Bars of an image on average."""
    variance: NonNegative = 0.01
    """Of the noise."""
    seed: Whole = 0

    @property
    def dims(self) -> int:
        """Values of a data point."""
        return self.size**2


@family("data")
@dataclass(frozen=True)
class PatchData:
    """Overlapping windows of one picture or sound, which is restored from itself alone."""

    kind: ClassVar[str] = "patches"
    path: str = ""
    """The picture or the sound."""
    window: Widths = (8, 8)
    """Height and width of a patch, or samples of a chunk of sound."""
    stride: Count = 1
    """From one window to the next; the last always ends where the data does."""
    scale: Literal["standard", "keep"] = "standard"
    """Subtract the mean and divide by the standard deviation, one number each; or keep the values, 0 to 255."""
    level: Literal["remove", "keep"] = "remove"
    """Whether each window's mean is taken out before training and put back after."""
    merge: Literal["mean", "gaussian"] = "mean"
    """How windows weigh where they overlap: all alike, or less towards their edges."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if len(self.window) not in (1, 2):
            raise Refusal(f"data.window: {list(self.window)}; [height, width] or [samples] expected")

    @property
    def dims(self) -> int:
        """Values of a data point, where there is one channel."""
        return math.prod(self.window)


DataFamily = SpeechData | IdxData | BarsData | PatchData


@dataclass(frozen=True)
class Decoder:
    """What every model with an encoder has beside it."""

    estep: ClassVar[tuple[str, ...]] = ("amortised",)
    latent: Count = 32
    """Values of the latent state."""
    hidden: Widths = (128,)
    """Widths of the decoder's hidden layers."""
    activation: Activation = "tanh"
    likelihood: Literal["itakura_saito", "gaussian", "bernoulli"] = "itakura_saito"
    beta: NonNegative = 1.0
    """Weight of the KL divergence in the objective; the bound reported always has weight one."""
    beta_warmup: Whole = 0
    """Steps over which that weight rises from zero."""


@family("model")
@dataclass(frozen=True)
class VAEModel(Decoder):
    """Variational autoencoder with a diagonal Gaussian posterior."""

    kind: ClassVar[str] = "vae"


@family("model")
@dataclass(frozen=True)
class SDMModel(Decoder):
    """Sparse dictionary model: z = D a, one learnable variance per value of a."""

    kind: ClassVar[str] = "sdm"
    dictionary: Literal["identity", "dct", "learned"] = "identity"
    atoms: Count | None = None
    """Columns of the dictionary; null: as many as model.latent."""
    coherence: NonNegative = 0.0
    """Weight of the penalty on the learned dictionary's coherence, nats per data point."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.dictionary == "identity" and self.atoms not in (None, self.latent):
            raise Refusal(f"model.atoms: {self.atoms} with the identity; model.latent = {self.latent} or null expected")
        if self.coherence and self.dictionary != "learned":
            raise Refusal("model.coherence: only a learned dictionary has a coherence to lower; 0 expected")

    @property
    def columns(self) -> int:
        """Atoms of the dictionary."""
        return self.atoms or self.latent


@family("model")
@dataclass(frozen=True)
class VSCModel(Decoder):
    """Variational sparse coding: spike-and-slab latents."""

    kind: ClassVar[str] = "vsc"
    alpha: Probability = 0.5
    """Prior probability that a latent is active."""
    sharpness: Positive = 200.0
    """Slope of the relaxed gate."""
    prior: Literal["fixed", "pseudo"] = "fixed"
    """A spike-and-slab with alpha, or a selected one of the posteriors at learned pseudo-inputs."""
    pseudo_inputs: Count = 10
    slab_warmup: tuple[Whole, Whole] = (0, 0)
    """With the pseudo prior: steps between which the slabs come to carry information."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.slab_warmup[0] > self.slab_warmup[1]:
            raise Refusal(f"model.slab_warmup: {list(self.slab_warmup)} falls; two rising steps expected")


@family("model")
@dataclass(frozen=True)
class TVAEModel:
    """Truncated variational autoencoder: binary latents, no encoder; with no hidden layer, binary sparse coding."""

    kind: ClassVar[str] = "tvae"
    estep: ClassVar[tuple[str, ...]] = ("evolution", "random", "exact")
    latent: Count = 64
    """Bits of the latent state."""
    hidden: Widths = (64,)
    """Widths of the decoder's hidden layers; none makes it linear."""
    activation: Activation = "relu"
    output: Literal["linear", "sigmoid"] = "linear"
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    variance: Positive | None = 0.01
    """sigma^2 at the start; null: the variance of the data."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.likelihood == "bernoulli" and self.output == "sigmoid":
            raise Refusal("model.output: 'sigmoid' with the Bernoulli likelihood, which has one of its own; use linear")


@dataclass(frozen=True)
class Truncation:
    """What every E-step that keeps states for each data point has."""

    states: Count = 64
    """Distinct states kept for each data point."""
    block: Count = 1024
    """Data points whose states are improved at once, under the parameters of that moment."""


@family("estep")
@dataclass(frozen=True)
class Evolution(Truncation):
    """Kept states improved by an evolutionary search; the children of a generation are the parents of the next."""

    kind: ClassVar[str] = "evolution"
    parents: Count = 5
    children: Count = 4
    """Children of each parent; with crossover every pair of parents has two, and this is not used."""
    generations: Count = 1
    selection: Literal["fitness", "fitness_batch", "uniform", "best"] = "fitness_batch"
    mutation: Literal["flip", "sparse_flip"] = "flip"
    crossover: Literal["none", "one_point"] = "none"
    rate: Share = 0.1
    """Share of the bits that sparse_flip turns over on average."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.parents > self.states:
            raise Refusal(f"estep.parents: {self.parents}, but estep.states = {self.states}; at most as many expected")
        if self.crossover == "one_point" and self.parents < 2:
            raise Refusal("estep.parents: 1 with crossover; two or more expected")


@family("estep")
@dataclass(frozen=True)
class RandomSearch(Truncation):
    """Kept states improved by independent draws from Bernoulli(1 / H)."""

    kind: ClassVar[str] = "random"
    draws: Count = 20
    """New states at each visit."""


@family("estep")
@dataclass(frozen=True)
class Exact:
    """All 2^H states: the exact posterior, for small H."""

    kind: ClassVar[str] = "exact"


@family("estep")
@dataclass(frozen=True)
class Amortised:
    """Posteriors by an encoder's forward pass."""

    kind: ClassVar[str] = "amortised"
    hidden: Widths = (128,)
    """Widths of the encoder's hidden layers."""
    activation: Activation = "tanh"
    input: Literal["raw", "log", "log_standard"] = "log_standard"
    """What the encoder sees: x, log x, or log x standardised per value with the training set's statistics."""
    floor: Positive = 1e-10
    """Added to x before its logarithm."""


@family("train")
@dataclass(frozen=True)
class Train:
    """Adam, its schedule, and when to stop."""

    kind: ClassVar[str] = "adam"
    epochs: Count = 30
    batch: Count = 128
    rate: Positive = 3e-3
    """Largest learning rate."""
    schedule: Literal["constant", "cosine", "cyclical"] = "cosine"
    warmup: Whole = 500
    """Steps over which the rate rises from zero."""
    cycle: Count = 20
    """Epochs of one cycle of the cyclical schedule, a triangle between rate_low and rate."""
    rate_low: NonNegative = 0.0
    """Smallest rate of the cosine and the cyclical schedule."""
    patience: Count | None = None
    """Stop after so many epochs without a better validation objective; null never does."""
    seed: Whole = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = 1
    """Threads of one process: small layers gain little from more, and lose much on a busy machine; null: torch's."""


@family("eval")
@dataclass(frozen=True)
class Eval:
    """How a trained model is judged."""

    kind: ClassVar[str] = "standard"
    latent: Literal["mean", "sample"] = "mean"
    """Resynthesise from the posterior mean (VSC: gamma * mu) or from a sample of the posterior."""
    metrics: tuple[Literal["pesq_wb", "pesq_nb", "pesq_nb_raw", "stoi", "estoi", "si_sdr", "isd"], ...] = (
        "pesq_wb",
        "pesq_nb",
        "pesq_nb_raw",
        "stoi",
        "estoi",
        "si_sdr",
        "isd",
    )
    processes: Count | None = None
    """Processes that judge files side by side; null: one per core."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run does."""

    data: Any = field(default_factory=SpeechData)
    model: Any = field(default_factory=VAEModel)
    estep: Any = field(default_factory=Amortised)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    follows: Literal["ours", "paper", "release"] = "ours"
    """Which text decides where paper and released code differ."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        if self.estep.kind not in self.model.estep:
            wanted = " or ".join(self.model.estep)
            raise Refusal(f"estep.kind: '{self.estep.kind}' with model.kind '{self.model.kind}'; {wanted} expected")
        kept, latent = getattr(self.estep, "states", 1), self.model.latent
        if latent < 40 and kept > 2**latent:
            raise Refusal(f"estep.states: {kept}, but {latent} bits have only {2**latent} states")
        if self.estep.kind == "exact" and latent > 16:
            raise Refusal(f"model.latent: {latent} with estep.kind 'exact'; at most 16 expected")

    def with_(self, section: str, **changes: Any) -> "Config":
        """A copy with some fields of one section changed, validated as if read anew."""
        tree = to_dict(self)
        tree[section] |= changes
        return from_dict(tree)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, nested as in a YAML file, kinds included."""
    sections = {s: {"kind": getattr(config, s).kind} | _plain(getattr(config, s)) for s in SECTIONS}
    return sections | {"follows": config.follows}


def _plain(part: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(part).items()}


def flatten(config: Config) -> dict[str, Any]:
    """Dotted keys, as on the command line."""
    tree = to_dict(config)
    return {f"{s}.{name}": value for s in SECTIONS for name, value in tree[s].items()} | {"follows": config.follows}


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The validated configuration of a nested mapping."""
    known = (*SECTIONS, "follows")
    for name in tree:
        if name not in known:
            raise Refusal(f"{name}: no such section; {nearest(str(name), known)}")
    sections = {name: read_section(name, tree.get(name) or {}) for name in SECTIONS if name != "estep"}
    estep = {"kind": sections["model"].estep[0]} | dict(tree.get("estep") or {})
    sections["estep"] = read_section("estep", estep)
    follows = check("follows", Literal["ours", "paper", "release"], tree.get("follows", "ours"))
    return Config(**sections, follows=follows)
