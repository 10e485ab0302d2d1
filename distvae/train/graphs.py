"""Steps that are recorded once and then replayed, each with one launch.

A small step on a GPU takes as long as the processor needs to launch its operations. A CUDA graph
launches them together. It reads and writes the same memory at each replay, so rows, draws, kept
states and the learning rate are copied to where the recorded step reads them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distvae.config import Train
from distvae.interface import AnyEStep, Batch, Sums
from distvae.models.engines import Refreshes
from distvae.models.truncated import KeepsStates, KeptStates, ShowsStates
from distvae.numerics.given import Draw, Given, Watched, draw
from distvae.numerics.noise import Noise
from distvae.train.step import Ascent, Steps

EAGER = 2
"""Steps of one kind that are taken as usual before one is recorded: they find memory and fill
caches, which must not lie in the memory of a graph.
"""
KINDS = 4
"""Kinds of steps for which recordings are kept."""


class Replay(Protocol):
    """A recorded step."""

    def replay(self) -> None:
        """Do the same on what lies in the same memory now."""


Recorder = Callable[[Callable[[], Sums]], tuple[Replay, Sums]]
"""Records what a function does; returns that, and where the function's results will lie."""


def record_on_cuda(work: Callable[[], Sums]) -> tuple[Replay, Sums]:
    """Record a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        sums = work()
    return graph, sums


def recorder_of(device: torch.device) -> Recorder | None:
    """Return what records steps on a device, or None if nothing does."""
    return record_on_cuda if device.type == "cuda" else None


class Inputs(NamedTuple):
    """Inputs that change from step to step."""

    batch: Batch
    draws: dict[Draw, Tensor]
    rate: Tensor
    """The learning rate."""
    kept: KeptStates | None
    """The states of the rows, if the E-step keeps some."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield those on the device, in the same order for the same kind of step."""
        yield self.batch.x
        yield self.rate
        yield from self.draws.values()
        for tensor in (self.batch.mask, self.batch.seen, *(self.kept or ())):
            if tensor is not None:
                yield tensor

    def cloned(self) -> "Inputs":
        """Return the same values in memory of their own."""
        x, row, *others = self.batch
        batch = Batch(x.clone(), row, *(None if t is None else t.clone() for t in others))
        draws = {wanted: values.clone() for wanted, values in self.draws.items()}
        kept = None if self.kept is None else self.kept.cloned()
        return Inputs(batch, draws, self.rate.clone(), kept)


@dataclass
class Recorded:
    """A recorded step, and the memory that it reads and writes."""

    inputs: Inputs
    replay: Replay
    sums: Sums

    def take(self, inputs: Inputs) -> Sums:
        """Take the step with other inputs."""
        for memory, values in zip(self.inputs.tensors(), inputs.tensors(), strict=True):
            memory.copy_(values, non_blocking=True)
        self.replay.replay()
        return self.sums


@dataclass
class Kind:
    """Steps that differ in nothing but their inputs."""

    settings: tuple[object, ...]
    """What the model's schedules have set."""
    taken: int = 0
    """How many of these were taken."""
    asked: dict[Draw, None] = field(default_factory=dict)
    """The draws that a step asks for."""
    recorded: Recorded | None = None


class RecordedSteps:
    """The steps of a training on a device, recorded by their kind."""

    def __init__(self, ascent: Ascent, estep: AnyEStep, recorder: Recorder) -> None:
        self.ascent, self.estep, self.recorder = ascent, estep, recorder
        self.shows = estep if isinstance(estep, ShowsStates) else None
        engine: object = ascent.engine
        self.refreshes = engine if isinstance(engine, Refreshes) else None
        self.kinds: dict[tuple[int, int, bool], Kind] = {}

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take a step as usual the first few times, and replay the recorded one after that."""
        kind = self._kind(batch, rows)
        kind.taken += 1
        if kind.taken <= EAGER or not len(batch.row):
            watched = Watched(noise.seed, noise.epoch, noise.row, noise, kind.asked)
            return self.ascent.step_with_sums(batch, watched, rows)
        if self.refreshes:
            self.refreshes.refresh()
        inputs = self._inputs(batch, noise, kind)
        if kind.recorded is None:
            kind.recorded = self._record(inputs.cloned(), noise, rows)
        return kind.recorded.take(inputs)

    def _kind(self, batch: Batch, rows: int) -> Kind:
        """Return the kind of a step, which begins anew when a schedule has moved on."""
        key, settings = (len(batch.row), rows, batch.mask is None), self._settings()
        kind = self.kinds.get(key)
        if kind is None or kind.settings != settings:
            if kind is None and len(self.kinds) == KINDS:
                self.kinds.pop(next(iter(self.kinds)))
            kind = self.kinds[key] = Kind(settings)
        return kind

    def _settings(self) -> tuple[object, ...]:
        """Return the numbers among the model's attributes, and which parameters learn."""
        model = self.ascent.model
        numbers = [value for value in vars(model).values() if isinstance(value, int | float)]
        return (*numbers, *(parameter.requires_grad for parameter in model.parameters()))

    def _inputs(self, batch: Batch, noise: Noise, kind: Kind) -> Inputs:
        draws = {wanted: draw(noise, wanted) for wanted in kind.asked}
        kept = self.shows.kept_states(batch) if self.shows else None
        rate = self.ascent.adam.rate
        assert isinstance(rate, Tensor)
        return Inputs(batch, draws, rate, kept)

    def _record(self, inputs: Inputs, noise: Noise, rows: int) -> Recorded:
        """Record the step that reads these inputs."""
        given = Given(noise.seed, noise.epoch, noise.row, inputs.draws)
        rate, self.ascent.adam.rate = self.ascent.adam.rate, inputs.rate
        try:
            with self._showing(inputs.kept):
                replay, sums = self.recorder(
                    lambda: self.ascent.step_with_sums(inputs.batch, given, rows)
                )
        finally:
            self.ascent.adam.rate = rate
        return Recorded(inputs, replay, sums)

    @contextmanager
    def _showing(self, kept: KeptStates | None) -> Iterator[None]:
        """Have the E-step show these states."""
        if self.shows:
            self.shows.show(kept)
        try:
            yield
        finally:
            if self.shows:
                self.shows.show(None)


def choose_steps(config: Train, ascent: Ascent, estep: AnyEStep) -> Steps:
    """Return what records steps, if it is wanted, the device can, and a step waits for nothing."""
    recorder = recorder_of(next(ascent.model.parameters()).device) if config.graphs else None
    waits = isinstance(estep, KeepsStates) and ascent.engine is None
    if recorder is None or waits or ascent.adam.team.size > 1:
        return ascent
    return RecordedSteps(ascent, estep, recorder)
