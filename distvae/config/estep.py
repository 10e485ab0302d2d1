"""Families of E-steps: where posteriors come from."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from distvae.config.net import Net
from distvae.config.registry import family
from distvae.config.schema import Range
from distvae.config.values import Count, Positive, Share
from distvae.files.refusal import Refusal

MAX_EXACT_BITS = 16
"""Bits of a state, at most, whose values are all enumerated."""


@dataclass(frozen=True)
class Truncation:
    """Settings of an E-step that keeps a population of states for each data point.

    Every E-step whose configuration derives from this one keeps its populations where it is told
    to: in its own process, or spread over the workers of a run.
    """

    states: Count = 64
    """Distinct states kept for each data point."""
    block: Count = 1024
    """Data points whose states are improved at once, under the parameters of that moment."""
    first: Literal["common", "own"] = "common"
    """All data points begin with the same random states, as in the released code; or each with its
    own.
    """
    sweeps: Annotated[int, Range(1, 10_000)] = 50
    """Visits to the states of new data, which begin at random; those of training data are kept."""
    mapped: str | None = None
    """A folder for a file that holds the states instead of memory; null keeps them in memory."""

    @property
    def new_states(self) -> int:
        """New states that a search makes for each data point."""
        return 0

    def check_code_size(self, bits: int) -> None:
        """Refuse a model with too few bits to have that many distinct states."""
        if bits < 40 and self.states > 2**bits:
            raise Refusal(
                f"estep.states: {self.states}, but {bits} bits have only {2**bits} states"
            )


@family("estep")
@dataclass(frozen=True)
class Evolution(Truncation):
    """Kept states improved by an evolutionary search; the children of a generation are the parents
    of the next.
    """

    kind: ClassVar[str] = "evolution"
    parents: Count = 5
    children: Count = 4
    """Children of each parent; with crossover every pair of parents has two, and this is not used.
    """
    generations: Annotated[int, Range(1, 1000)] = 1
    selection: Literal["fitness", "fitness_batch", "released", "uniform", "best"] = "fitness_batch"
    """Parents in proportion to fitness; nearly always the best; as the released code finds them,
    the best as of the last visit and of children the last made; any; the best.
    """
    mutation: Literal["flip", "sparse_flip"] = "flip"
    crossover: Literal["none", "one_point"] = "none"
    rate: Share = 0.1
    """Share of the bits that sparse_flip turns over on average."""

    def __post_init__(self) -> None:
        """Refuse what no single field shows."""
        if self.parents > self.states:
            raise Refusal(
                f"estep.parents: {self.parents}, but estep.states = {self.states}; at most as many"
                " expected"
            )
        if self.crossover == "one_point" and self.parents < 2:
            raise Refusal("estep.parents: 1 with crossover; two or more expected")

    @property
    def new_states(self) -> int:
        """Children of all generations."""
        siblings = self.parents - 1 if self.crossover == "one_point" else self.children
        return self.parents * siblings * self.generations

    def check_code_size(self, bits: int) -> None:
        """Refuse a model with too few bits to cut between two, or to flip another one in each
        sibling.
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
    """Kept states improved by independent draws from Bernoulli(1 / H)."""

    kind: ClassVar[str] = "random"
    draws: Count = 20
    """New states at each visit."""

    @property
    def new_states(self) -> int:
        """The draws."""
        return self.draws


@family("estep")
@dataclass(frozen=True)
class Exact:
    """All 2^H states: the exact posterior, for small H."""

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
    """Posteriors by an encoder's forward pass."""

    kind: ClassVar[str] = "amortised"
    input: Literal["raw", "log", "log_standard"] = "log_standard"
    """What the encoder sees: x, log x, or log x standardised per value with the training set's
    statistics.
    """
    floor: Positive = 1e-10
    """Added to x before its logarithm."""
