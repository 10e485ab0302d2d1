"""What `distvae denoise` and `distvae inpaint` do with files."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distvae.config import Config
from distvae.config.recipes import parse_assignments
from distvae.data import signals
from distvae.data.signals import Signal
from distvae.data.windows.missing import Finder, Missing, filled, marked_by, masked_by
from distvae.files.memory import available_memory, gigabytes
from distvae.files.output import check_new_file, check_writable_folder
from distvae.files.refusal import Refusal
from distvae.tasks.closeness import closeness, gained
from distvae.tasks.presets import Preset, configured, corrupted_windows, without
from distvae.train.progress import Progress, Style, format_duration, stop_signals

if TYPE_CHECKING:
    from distvae.tasks.restoration import Cost, Restoration, Stage

Floats = NDArray[np.floating]
FIGURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Options:
    """What both commands can be asked."""

    preset: Preset = "fast"
    recipe: str | None = None
    """Instead of what the preset stands for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys of the recipe, set anew."""
    clean: Path | None = None
    figure: Path | None = None
    run: Path | None = None
    """Folder that keeps the run for good; without one it is kept beside the result until that is
    written.
    """
    resume: bool = False
    force: bool = False
    style: Style = "line"


def settings(
    assignments: list[str],
    stride: int | None,
    seed: int,
    noise: float | None = None,
    drop: float | None = None,
) -> dict[str, Any]:
    """The dotted keys that a command line sets."""
    given: dict[str, Any] = {"train.seed": seed} | (
        {} if stride is None else {"data.stride": stride}
    )
    given |= {} if noise is None else {"data.noise": noise, "data.noise_seed": seed}
    given |= {} if drop is None else {"data.drop": drop, "data.noise_seed": seed}
    return given | parse_assignments(assignments)


def finder(mask: Path | None, value: float | None, config: Config) -> Finder:
    """What marks the missing pixels: exactly one of the three."""
    windows = corrupted_windows(config)
    if (mask is not None) + (value is not None) + (windows is not None) != 1:
        raise Refusal(
            "--mask, --missing-value, --drop: exactly one of them expected, to know which pixels"
            " are missing"
        )
    if mask is not None:
        return masked_by(mask)
    if value is not None:
        return marked_by(value)
    assert windows is not None, "one of the three is there"
    return windows.find_dropped


@dataclass(frozen=True)
class Task:
    """One file to restore."""

    source: Path
    target: Path
    made: str
    """What was done to the source before it is restored; empty where nothing was."""
    given: Signal
    """What the model sees, NaN where values are missing."""
    reference: Signal | None
    """What to compare with, for the eye only."""
    options: Options

    @property
    def missing(self) -> Missing:
        """Which values are to be filled in."""
        return np.isnan(self.given.values)

    @property
    def name(self) -> str:
        """What is restored."""
        return f"{self.source.name}{self.made}"

    @property
    def folder(self) -> Path:
        """Where the run is kept while it lasts."""
        return self.options.run or self.target.with_name(f"{self.target.name}.run")

    @property
    def config(self) -> Config:
        """Of the recipe named, or else of the preset."""
        options, values = self.options, self.given.values
        config = configured(
            values, options.preset, options.recipe, options.settings, bool(self.missing.any())
        )
        if corrupted_windows(config) is None:
            return config
        return config.with_("data", path=str(self.source.absolute()))

    def result(self, restored: Floats) -> Floats:
        """What is written."""
        return filled(self.given.values, restored)

    def close(self, restored: Floats) -> dict[str, float]:
        """How close to the reference, where there is one; of a sound also how much closer than
        before.
        """
        if self.reference is None:
            return {}
        after = closeness(self.reference, self.result(restored))
        return after | gained(self.before, after)

    @cached_property
    def before(self) -> dict[str, float]:
        """How close a sound was before it was restored."""
        reference = self.reference
        return (
            {}
            if reference is None or reference.rate is None
            else closeness(reference, self.given.values)
        )


def denoise(source: Path, target: Path, options: Options) -> None:
    """Remove the noise from a picture or a sound; or first add what data.noise says, to see how
    well that goes.
    """
    signal = signals.read(source)
    config = without(
        configured(signal.values, "fast", options.recipe, options.settings, False), "drop"
    )
    windows = corrupted_windows(config)
    if windows is not None:
        clean, given = signal.levelled(), windows.corrupt(signal)
        made = f" under noise of {windows.noise:g}, seed {windows.noise_seed}"
        restore(Task(source, target, made, given, reference(options, clean), options))
    else:
        restore(Task(source, target, "", signal, reference(options), options))


def inpaint(
    source: Path, target: Path, mask: Path | None, value: float | None, options: Options
) -> None:
    """Fill in the missing values of a picture, or first drop what data.drop says; the observed ones
    are kept.
    """
    signal = signals.read(source)
    if signal.rate is not None:
        raise Refusal(f"{source}: a sound; a picture expected")
    config = without(
        configured(signal.values, "fast", options.recipe, options.settings, True), "noise"
    )
    missing = finder(mask, value, config)(signal)
    if missing.all() or not missing.any():
        state = "everything" if missing.any() else "nothing"
        raise Refusal(
            f"{source}: {state} is missing; a mask or a value that marks some of the pixels"
            " expected"
        )
    given = signal.with_values(np.where(missing, np.nan, signal.values))
    made = f" with {missing.mean():.0%} missing"
    restore(
        Task(
            source,
            target,
            made,
            given,
            reference(options, signal if corrupted_windows(config) else None),
            options,
        )
    )


def reference(options: Options, made_worse: Signal | None = None) -> Signal | None:
    """The file named, or what was clean before it was made worse here."""
    if made_worse is not None and options.clean is not None:
        raise Refusal(
            "--clean: the input itself is the reference when it is made worse first; leave"
            " --clean out"
        )
    return made_worse if options.clean is None else signals.read(options.clean)


def restore(task: Task) -> None:
    """Train on a file's windows and write what comes of it; when asked to stop, what has come of it
    so far.
    """
    from distvae.tasks.restoration import Kept, Restoration
    from distvae.train.loop import Diverged, Interrupted

    claim_outputs(task)
    config, options = task.config, task.options
    cost = admitted(config, task)
    progress = Progress(options.style, "window")
    restoration = Restoration(
        config, task.given.values, task.name, Kept(task.folder, options.resume, options.force)
    )
    with stop_signals() as stop:
        try:
            epochs = config.train.epochs
            progress.say(
                f"{task.name}: {cost}, {epochs} epochs in about"
                f" {format_duration(epochs * restoration.pace())}"
            )
            for stage in restoration.run(stop):
                seen = (
                    replace(stage, close=task.close(restoration.restored()))
                    if task.reference
                    else stage
                )
                note(task.folder, seen)
                progress.show(seen, partial(describe, seen))
        except (Interrupted, Diverged) as error:
            progress.end()
            text = (
                str(error)
                or f"stopped; {finish(task, restoration)}; the same command and --resume go on"
            )
            print(f"distvae: {text}", file=sys.stderr)
            raise SystemExit(128 + stop() if stop() else 1) from error
    progress.end()
    progress.say(finish(task, restoration))
    if options.run is None:
        shutil.rmtree(task.folder)


def note(run: Path, stage: "Stage") -> None:
    """Write a stage down where the run is kept."""
    from distvae.tasks.restoration import STAGES

    with (run / STAGES).open("a") as file:
        file.write(json.dumps(stage.metrics()) + "\n")


def claim_outputs(task: Task) -> None:
    """Refuse outputs that cannot be written, and what does not belong together."""
    options = task.options
    check_new_file(task.target, signals.suffixes_for(task.given), options.force or options.resume)
    if options.figure is not None:
        check_new_file(options.figure, FIGURES, options.force or options.resume)
        if options.figure.resolve() == task.target.resolve():
            raise Refusal(
                f"--figure: {options.figure}: the result goes there; another file expected"
            )
    check_writable_folder(task.folder)
    if options.resume and not (task.folder / "run.json").is_file():
        raise Refusal(
            f"--resume: no run in {task.folder} to go on with; without --resume one begins"
        )
    if task.reference is not None and task.reference.values.shape != task.given.values.shape:
        shapes = [" x ".join(map(str, s.values.shape)) for s in (task.reference, task.given)]
        raise Refusal(
            f"{options.clean}: {shapes[0]} values; {shapes[1]} expected, as {task.source} has"
        )
    if (
        task.reference is not None
        and task.reference.rate is not None
        and not task.reference.values.any()
    ):
        raise Refusal(
            f"{options.clean or task.source}: silent, so that nothing is close to it; a reference"
            " with sound expected"
        )


def admitted(config: Config, task: Task) -> "Cost":
    """What it takes, if it can be done here; else a refusal."""
    from distvae.tasks.restoration import Cost, check

    windows = check(config, task.given.values, str(task.source))
    cost = Cost.of(config, windows, task.given.values)
    if cost.memory > (free := available_memory()):
        raise Refusal(
            f"{task.source}: {cost}, but {gigabytes(free)} are free; a larger --stride, fewer"
            " estep.states or a part of the data expected"
        )
    return cost


def finish(task: Task, restoration: "Restoration") -> str:
    """Write what there is, and say so."""
    if not restoration.begun:
        return f"nothing is restored yet, {task.target} is not written"
    restored = restoration.restored()
    result = task.result(restored)
    signal = task.given.with_values(result)
    signals.write(task.target, signal)
    if task.options.figure is not None:
        draw(task.options.figure, task, result)
    beyond = signals.clipped(task.target, signal)
    cut = (
        f"; {beyond:,} samples beyond full scale were clipped, a .wav of floats would hold them"
        if beyond
        else ""
    )
    return (
        f"{task.target}: written as it was"
        f" {restoration.reached}{_figures(task.close(restored))}{cut}"
    )


def draw(path: Path, task: Task, result: Floats) -> None:
    """Before, after, and the reference where there is one."""
    from distvae.tasks.comparison import compare_pictures, compare_sounds
    from distvae.tasks.pictures import save

    panels = {"before": task.given.values, "after": result}
    if task.reference is not None:
        panels["reference"] = task.reference.values
    rate = task.given.rate
    save(compare_pictures(panels) if rate is None else compare_sounds(panels, rate), path)


def describe(stage: "Stage", left: float) -> str:
    """One line: where a restoration stands."""
    return (
        f"epoch {stage.epoch}/{stage.epochs}  nats/window {stage.bound:.2f}  sigma"
        f" {stage.sigma:.4g}  active {stage.active:.2f}{_figures(stage.close)}"
        f"  {format_duration(left)} left"
    )


def _figures(close: Mapping[str, float]) -> str:
    return "".join(f"  {name.upper()} {value:.3f}" for name, value in close.items())
