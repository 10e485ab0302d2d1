"""Settings of each family of E-steps, which find posteriors."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

from distvae.config.model import Net
from distvae.config.schema import Count, Family, Positive, Range, Share, family
from distvae.files.refusal import Refusal

MAX_EXACT_BITS = 16
"""The largest number of bits whose states can be enumerated."""


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
    sweeps: Annotated[int, Range(1, 10_000)] = 50
    """Searches for states of new data, which start at random. States of training data are kept."""
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
