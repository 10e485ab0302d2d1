"""Restore one file: what `distvae denoise` and `distvae inpaint` have in common."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from distvae.commands.options import RestoreOptions
from distvae.commands.restore_lines import describe_data, describe_stage, format_scores
from distvae.config import Config
from distvae.data import signals
from distvae.data.signals import Signal
from distvae.data.windows.missing import Missing, keep_observed, silenced
from distvae.data.windows.patches import distinct_channels
from distvae.files.atomic import delete_partials
from distvae.files.memory import gigabytes
from distvae.files.output import check_new_file, check_writable_folder
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.array_types import Floats
from distvae.numerics.numbers import counted
from distvae.system.memory import available_memory
from distvae.system.processors import available_cores
from distvae.tasks.fidelity import fidelity, fidelity_gains
from distvae.tasks.presets import corrupted_windows, preset_config, refuse_unfit
from distvae.train.progress import Progress, format_duration, stop_signals

if TYPE_CHECKING:
    from distvae.data.picture_noise import PictureNoise
    from distvae.tasks.restoration import Cost, Restoration, Stage

FIGURES = (".png", ".pdf", ".svg")
WITHOUT_TRAINING = (
    *("train.seed", "train.sigma"),
    *("data.noise", "data.noise_seed", "data.drop"),
)
"""Settings that also a restoration without training takes."""


@dataclass(frozen=True)
class Task:
    """One file to restore."""

    source: Path
    target: Path
    damage: str
    """Describes what was done to the source before it is restored, or ''."""
    observed: Signal
    """The values that the model is trained on, NaN where they are missing."""
    reference: Signal | None
    """A clean version to compare with; it does not affect the result."""
    options: RestoreOptions
    overrides: Mapping[str, Plain] = field(default_factory=dict)
    """Settings by dotted key, instead of those of the recipe."""
    mask: Path | None = None
    """The file that says what is missing."""
    counts: bool = False
    """Whether values are counts of events, or proportional to them."""

    @property
    def missing(self) -> Missing:
        """Return which values are to be filled in."""
        return np.isnan(self.observed.values)

    @property
    def is_by_groups(self) -> bool:
        """Return whether groups of windows restore it, and no model is trained."""
        options, is_sound = self.options, self.observed.rate is not None
        named = {"--preset": options.preset, "--recipe": options.recipe, "--run": options.run}
        trained = [name for name, value in named.items() if value is not None]
        trained += [key for key in self.overrides if key not in WITHOUT_TRAINING]
        if options.model == "groups" and (trained or is_sound):
            reason = f"{trained[0]} is for models that are trained" if trained else "a sound"
            raise Refusal(f"--model groups: {reason}; --model tvae expected")
        if self.counts and (trained or is_sound or options.model == "tvae"):
            reason = "a sound" if is_sound else f"not with {(trained or ['--model tvae'])[0]}"
            raise Refusal(f"--counts: {reason}; a picture and --model groups expected")
        resumes = options.resume and (self.folder / "run.json").is_file()
        return options.model == "groups" or not (options.model or trained or is_sound or resumes)

    @property
    def name(self) -> str:
        """Return the name of the file, and what was done to it."""
        return f"{self.source.name}{self.damage}"

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Return the files that it is made from."""
        return self.source, self.options.clean, self.mask

    @property
    def folder(self) -> Path:
        """Return the folder of the run, by default beside the result until that is written."""
        return self.options.run or self.target.with_name(f"{self.target.name}.run")

    @property
    def config(self) -> Config:
        """Return the configuration of the named recipe, or else of the preset."""
        preset, recipe = self.options.preset or "fast", self.options.recipe
        inpainting = bool(self.missing.any())
        config = preset_config(self.observed.values, preset, recipe, self.overrides, inpainting)
        if inpainting and corrupted_windows(config) is None:
            return config  # the file alone is not what the model is trained on
        return config.with_("data", path=str(self.source.absolute()))

    def result(self, restored: Floats) -> Floats:
        """Return the values to write: observed ones are kept where others were missing."""
        return keep_observed(self.observed.values, restored)

    def scores(self, restored: Floats) -> dict[str, float]:
        """Return how close the result is to the reference, if there is one; for a sound also how
        much closer than before.
        """
        if self.reference is None:
            return {}
        after = fidelity(self.reference, self.result(restored))
        return after | fidelity_gains(self.scores_before, after)

    @cached_property
    def scores_before(self) -> dict[str, float]:
        """Return how close a sound was to the reference before it was restored."""
        if self.reference is None or self.reference.rate is None:
            return {}
        return fidelity(self.reference, silenced(self.observed.values))


def find_reference(
    options: RestoreOptions,
    undamaged: Signal | None = None,
    read: Callable[[Path], Signal] = signals.read_signal,
) -> Signal | None:
    """Return the reference: the input itself if it was damaged first, or the file of `--clean`,
    read as the input was.
    """
    if options.clean is None:
        return undamaged
    if undamaged is not None:
        raise Refusal(
            "--clean: with --add-noise or --drop, the input itself is the reference; omit --clean"
        )
    return read(options.clean)


def restore(task: Task) -> None:
    """Restore a file and write the result."""
    if task.is_by_groups:
        restore_by_groups(task)
    else:
        restore_by_training(task)


def restore_by_groups(task: Task) -> None:
    """Restore a picture from groups of its similar windows, and write the result."""
    claim_outputs(task)
    progress = Progress(task.options.style, "window")
    progress.say(f"{task.name}: by groups of similar windows")
    from distvae.tasks.groups import restore as restore_picture

    sigma = cast(float | None, task.overrides.get("train.sigma"))
    refuse_unfit(task.observed.values, task.source.name, sigma)
    values, began = distinct_channels(task.observed.values), time.monotonic()
    with stop_signals() as stop:

        def report(done: float) -> None:
            progress.share(done, time.monotonic() - began)
            if stop():
                progress.end()
                print(f"distvae: stopped; {task.target} was not written", file=sys.stderr)
                raise SystemExit(128 + stop())

        found = restore_picture(values, sigma, available_cores(), report, task.counts)
    progress.end()
    restored = np.broadcast_to(found.values, task.observed.values.shape)
    scores = write_restored(task, restored, found.noise)
    seconds = time.monotonic() - began
    noise = f"{found.said} removed, " if found.said else ""
    progress.say(f"{task.target}: written, {noise}{seconds:.0f} s{format_scores(scores)}")
    if task.options.json:
        print(json.dumps({"seconds": seconds, **scores}))


def write_restored(
    task: Task, restored: Floats, noise: "PictureNoise | None" = None
) -> dict[str, float]:
    """Write a result and the figure that was asked for; return the scores."""
    result = task.result(restored)
    signals.write(task.target, task.observed.with_values(result))
    if task.options.figure is not None:
        draw_comparison(task.options.figure, task, result, noise)
    return task.scores(restored)


def restore_by_training(task: Task) -> None:
    """Train on a file's windows and write the result; if interrupted, write the result so far."""
    from distvae.tasks.restoration import Restoration, RunDestination
    from distvae.train.cost import memory_refused
    from distvae.train.run_folder import has_begun, remove_run
    from distvae.train.stopping import Diverged, Interrupted

    claim_outputs(task)
    config, options = task.config, task.options
    cost = check_fits_in_memory(config, task)
    progress = Progress(options.style, "window")
    delete_partials(task.target)
    if options.resume and not has_begun(Folder(task.folder)):
        progress.say(f"{task.folder}: contains no run to resume; starting a new one")
    kept = RunDestination(task.folder, options.resume, options.force)
    with memory_refused(config, task.name), stop_signals() as stop:
        restoration = Restoration(config, task.observed.values, task.name, kept)
        try:
            epochs = config.train.epochs
            duration = format_duration(epochs * restoration.seconds_per_epoch())
            progress.say(f"{task.name}: {cost}, {counted(epochs, 'epoch')} in about {duration}")
            for remark in describe_data(restoration, task.observed):
                progress.say(f"{task.name}: {remark}")
            for stage in restoration.run(stop):
                if task.reference:
                    stage = replace(stage, close=task.scores(restoration.restored()))
                append_stage(task.folder, stage)
                progress.show(stage, partial(describe_stage, stage))
        except (Interrupted, Diverged) as error:
            progress.end()
            text = str(error)
            if not text:
                written = write_result(task, restoration)
                text = f"stopped; {written}; the same command with --resume continues"
            print(f"distvae: {text}", file=sys.stderr)
            raise SystemExit(128 + stop() if stop() else 1) from error
    progress.end()
    progress.say(write_result(task, restoration))
    if options.run is None:
        remove_run(Folder(task.folder))


def append_stage(run: Path, stage: "Stage") -> None:
    """Append the metrics of a stage to the file in the run's folder."""
    from distvae.tasks.restoration import STAGES

    with (run / STAGES).open("a") as file:
        file.write(json.dumps(stage.metrics()) + "\n")


def claim_outputs(task: Task) -> None:
    """Refuse outputs that cannot be written, and options that contradict each other."""
    options = task.options
    check_new_file(task.target, signals.suffixes_for(task.observed), options.replaces)
    refuse_own_input(task, task.target)
    if options.figure is not None:
        refuse_own_input(task, options.figure)
        check_new_file(options.figure, FIGURES, options.replaces)
        if options.figure.resolve() == task.target.resolve():
            raise Refusal(
                f"--figure: {options.figure}: this is the file of the result; another one expected"
            )
    check_writable_folder(task.folder)
    refuse_unlike_reference(task)


def refuse_own_input(task: Task, output: Path) -> None:
    """Refuse to write over a file that the restoration reads, and reads again when it resumes."""
    if output.resolve() in {file.resolve() for file in task.files if file}:
        raise Refusal(f"{output}: this file is read, and by --resume again; another name expected")


def refuse_unlike_reference(task: Task) -> None:
    """Refuse a reference of other units, rate or shape, with missing values, or a silent one."""
    reference, rate = task.reference, task.observed.rate
    if reference is None:
        return
    file = task.options.clean or task.source
    if reference.rate and rate and reference.rate != rate:
        raise Refusal(
            f"{file}: a sampling rate of {reference.rate:,} Hz; {rate:,} Hz expected, as what is"
            " restored has"
        )
    if reference.values.shape != task.observed.values.shape:
        found, expected = (
            " x ".join(map(str, signal.values.shape)) for signal in (reference, task.observed)
        )
        raise Refusal(f"{file}: {found} values; {expected} expected, as what is restored has")
    if np.isnan(reference.values).any():
        raise Refusal(f"{file}: holds missing values (NaN); a reference without any expected")
    if reference.has_floats != task.observed.has_floats:
        found = "floats" if reference.has_floats else "values from 0 to 255"
        raise Refusal(f"{file}: holds {found}; the units of what is restored expected")
    if reference.rate is not None and not reference.values.any():
        raise Refusal(f"{file}: silent, so that nothing is close to it; one with sound expected")


def check_fits_in_memory(config: Config, task: Task) -> "Cost":
    """Return the estimated cost, or raise `Refusal` if it exceeds the free memory."""
    from distvae.tasks.restoration import Cost, check_restorable

    windows = check_restorable(config, task.observed.values, str(task.source))
    cost = Cost.of(config, windows, task.observed.values)
    free = available_memory()
    if cost.memory > free:
        raise Refusal(
            f"{task.source}: {cost}, but {gigabytes(free)} are free; a larger --stride, fewer"
            " estep.states or a part of the data expected"
        )
    return cost


def write_result(task: Task, restoration: "Restoration") -> str:
    """Write the result so far, if there is one; return a sentence that says so."""
    if not restoration.has_started:
        return f"nothing is restored yet; {task.target} was not written"
    restored = restoration.restored()
    scores = format_scores(write_restored(task, restored))
    text = f"{task.target}: written, restored {restoration.progress}{scores}"
    signal = task.observed.with_values(task.result(restored))
    if clipped := signals.clipped(task.target, signal):
        text += (
            f"; {clipped:,} samples beyond full scale were clipped; a .wav of floats would keep"
            " them"
        )
    return text


def draw_comparison(
    path: Path, task: Task, result: Floats, noise: "PictureNoise | None" = None
) -> None:
    """Draw before and after, the reference if there is one, and noise that is not white."""
    from distvae.tasks.comparison import compare_pictures, compare_sounds
    from distvae.tasks.pictures import save

    observed, reference = task.observed, task.reference
    panels = {"before": observed.values, "after": result}
    if reference is not None:
        panels["reference"] = reference.values
    if observed.rate is None:
        scale = reference or observed  # noise may reach beyond the values of a clean picture
        shown = {name: (values - scale.black) / scale.peak for name, values in panels.items()}
        spectrum = None if noise is None or noise.is_white else noise.spectrum()
        save(compare_pictures(shown, spectrum), path)
    else:
        heard = {name: silenced(values) for name, values in panels.items()}
        save(compare_sounds(heard, observed.rate), path)
