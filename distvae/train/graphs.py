"""Record training steps as CUDA graphs, and replay them.

A small step on a GPU takes as long as the CPU needs to launch its kernels. A CUDA graph launches
all kernels of several steps at once. Each replay reads and writes the same memory. Rows, draws,
kept states and learning rates are therefore copied to that memory before a replay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distvae.config import Train
from distvae.engines.device import Refreshes
from distvae.files.refusal import Refusal
from distvae.interface import AnyEStep, AnyModel, Batch, Sums
from distvae.models.truncated import KeepsStates, KeptStates, ShowsStates
from distvae.numerics.noise import Draw, FoundNoise, Noise, draw
from distvae.train.step import EagerSteps, SettingsAfter, Steps, add_step

EAGER = 2
"""Eager steps of one kind before a step is recorded. They allocate memory and fill caches, which
must not lie in the memory of a graph.
"""
KINDS = 4
"""The number of kinds of steps whose recordings are kept."""
TOGETHER = 64
"""The most steps that are recorded together; a power of two."""


class Replay(Protocol):
    """Recorded steps."""

    def replay(self) -> None:
        """Take the recorded steps again, on the current content of their memory."""


Recorder = Callable[[Callable[[], Sums]], tuple[Replay, Sums]]
"""Records the operations of a function; returns the recording and the memory of its results."""


class CudaRecorder:
    """Records CUDA graphs on a device, which need not be the current device.

    The graphs share their memory: they are replayed one at a time, and the results of a graph are
    read before the next replay. The stream is created here for this device. Torch's default stream
    would be on the device that was current when the process first recorded a graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Sums]) -> tuple[Replay, Sums]:
        """Record the operations of a function."""
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        )
        with torch.cuda.device(self.device), recording:
            sums = work()
        return graph, sums


def recorder_of(device: torch.device) -> Recorder | None:
    """Return the recorder for a device, or None for devices without CUDA."""
    return CudaRecorder(device) if device.type == "cuda" else None


def steps_of(rates: Tensor, rows: int) -> Iterator[tuple[Tensor, slice]]:
    """Yield the rate and the slice of rows of each step; each step has `rows` rows."""
    for place, rate in enumerate(rates):
        yield rate, slice(place * rows, (place + 1) * rows)


def noting(noise: Noise, asked: dict[Draw, None]) -> FoundNoise:
    """Return the same draws, and note each requested draw in `asked`."""

    def find(wanted: Draw) -> Tensor:
        asked[wanted] = None
        return draw(noise, wanted)

    return FoundNoise(noise.seed, noise.epoch, noise.row, find)


class Inputs(NamedTuple):
    """The inputs of several steps with equally many rows."""

    batch: Batch
    draws: dict[Draw, Tensor]
    rates: Tensor
    """(steps,) the learning rates."""
    kept: KeptStates | None
    """The kept states of the rows, if the E-step keeps states."""

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors on the device, in a fixed order for each kind of step."""
        yield self.batch.x
        yield self.rates
        yield from self.draws.values()
        for tensor in (self.batch.mask, self.batch.seen, *(self.kept or ())):
            if tensor is not None:
                yield tensor

    def cloned(self) -> "Inputs":
        """Return a copy with its own memory."""
        x, row, *others = self.batch
        batch = Batch(x.clone(), row, *(None if t is None else t.clone() for t in others))
        draws = {wanted: values.clone() for wanted, values in self.draws.items()}
        kept = None if self.kept is None else self.kept.cloned()
        return Inputs(batch, draws, self.rates.clone(), kept)

    def of_steps(self) -> Iterator["Inputs"]:
        """Yield the inputs of each step as views, with its rate as a scalar."""
        for rate, rows in steps_of(self.rates, len(self.batch.row) // len(self.rates)):
            draws = {wanted: values[rows] for wanted, values in self.draws.items()}
            kept = None if self.kept is None else self.kept.of_rows(rows)
            yield Inputs(self.batch.part(rows), draws, rate, kept)


@dataclass
class Recorded:
    """Recorded steps, and the memory that they read and write."""

    inputs: Inputs
    replay: Replay
    sums: Sums

    def take(self, inputs: Inputs) -> Sums:
        """Take the steps with new inputs, and return their sums."""
        for memory, values in zip(self.inputs.tensors(), inputs.tensors(), strict=True):
            memory.copy_(values, non_blocking=True)
        self.replay.replay()
        return self.sums


@dataclass
class Kind:
    """A kind of step: all its steps differ only in their inputs."""

    settings: tuple[object, ...]
    """The values that the model's schedules have set."""
    taken: int = 0
    """The number of eager steps of this kind so far."""
    asked: dict[Draw, None] = field(default_factory=dict)
    """The draws that a step requests."""
    recorded: dict[int, Recorded] = field(default_factory=dict)
    """Recordings by the number of steps."""


class RecordedSteps:
    """Takes the steps of a training on a GPU, recorded by kind."""

    def __init__(self, eager: EagerSteps, estep: AnyEStep, recorder: Recorder) -> None:
        self.eager, self.estep, self.recorder = eager, estep, recorder
        self.shows = estep if isinstance(estep, ShowsStates) else None
        engine: object = eager.engine
        self.refreshes = engine if isinstance(engine, Refreshes) else None
        self.kinds: dict[tuple[int, bool], Kind] = {}

    def at_once(self, limit: int, settings_after: SettingsAfter) -> int:
        """Return the number of steps to take at once, at most `limit`: a power of two, so that
        there are few recordings, or 1 while a schedule changes the model.
        """
        steps = min(TOGETHER, 1 << limit.bit_length() - 1)
        return steps if steps == 1 or settings_after(steps - 1) == settings_after(0) else 1

    def step(self, batch: Batch, noise: Noise, rows: int) -> Sums:
        """Take steps of `rows` rows each. The first few steps of a kind are eager; later steps are
        replayed.
        """
        kind = self._kind(batch, rows)
        rates = self.eager.adam.rate
        assert isinstance(rates, Tensor)
        if kind.taken < EAGER or not len(batch.row):
            return self._take(batch, noise, rows, rates.view(-1), kind)
        if self.refreshes:
            self.refreshes.refresh()
        draws = {wanted: draw(noise, wanted) for wanted in kind.asked}
        kept = self.shows.kept_states(batch) if self.shows else None
        inputs = Inputs(batch, draws, rates.view(-1), kept)
        steps = len(inputs.rates)
        if steps not in kind.recorded:
            kind.recorded[steps] = self._record(inputs.cloned(), noise, rows)
        return kind.recorded[steps].take(inputs)

    def _kind(self, batch: Batch, rows: int) -> Kind:
        """Return the kind of a step. A change of a schedule starts a new kind."""
        key, settings = (rows, batch.mask is None), settings_of(self.eager.model)
        kind = self.kinds.get(key)
        if kind is None or kind.settings != settings:
            if kind is None and len(self.kinds) == KINDS:
                self.kinds.pop(next(iter(self.kinds)))
            kind = self.kinds[key] = Kind(settings)
        return kind

    def _take(self, batch: Batch, noise: Noise, rows: int, rates: Tensor, kind: Kind) -> Sums:
        """Take eager steps, and note the draws that they request."""
        total: Sums = {}
        for rate, part in steps_of(rates, rows):
            kind.taken += 1
            self.eager.adam.rate = rate
            noted = noting(noise.part(part), kind.asked)
            add_step(total, self.eager.step(batch.part(part), noted, rows))
        add_step(total, self.eager.later_sums())
        return total

    def _record(self, inputs: Inputs, noise: Noise, rows: int) -> Recorded:
        """Record the steps that read these inputs."""

        def work() -> Sums:
            total: Sums = {}
            for one in inputs.of_steps():
                given = FoundNoise(noise.seed, noise.epoch, noise.row, one.draws.__getitem__)
                self.eager.adam.rate = one.rates
                with self._showing(one.kept):
                    add_step(total, self.eager.step(one.batch, given, rows))
            add_step(total, self.eager.later_sums())
            return total

        rates = self.eager.adam.rate
        try:
            replay, sums = self.recorder(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise Refusal(
                f"train.graphs: a step of this model cannot be recorded ({error});"
                " train.graphs=false expected"
            ) from error
        finally:
            self.eager.adam.rate = rates
        return Recorded(inputs, replay, sums)

    @contextmanager
    def _showing(self, kept: KeptStates | None) -> Iterator[None]:
        """Override the kept states of the E-step within the `with` block."""
        if self.shows:
            self.shows.show(kept)
        try:
            yield
        finally:
            if self.shows:
                self.shows.show(None)


@dataclass(frozen=True, eq=False)
class Same:
    """A tensor compared by identity, because recorded steps read its memory."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.tensor is other.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


def settings_of(model: AnyModel) -> tuple[object, ...]:
    """Return the values of a model that schedules may change: which parameters learn, and the
    numbers, strings and tensors among the attributes of its modules.
    """
    found: list[object] = [parameter.requires_grad for parameter in model.parameters()]
    for module in model.modules():
        for value in (*vars(module).values(), *module.buffers(recurse=False)):
            if isinstance(value, int | float | str):
                found.append(value)
            elif isinstance(value, Tensor):
                found.append(Same(value))
    return tuple(found)


def choose_steps(config: Train, eager: EagerSteps, estep: AnyEStep) -> Steps:
    """Return recorded steps if the setting, the device, the model and the team allow them; else
    return eager steps.
    """
    recorder = recorder_of(next(eager.model.parameters()).device) if config.graphs else None
    waits = isinstance(estep, KeepsStates) and eager.engine is None
    if recorder is None or waits or eager.adam.team.size > 1:
        return eager
    return RecordedSteps(eager, estep, recorder)
