"""Restore one file: what `distvae denoise` and `distvae inpaint` have in common."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from distvae.commands.options import RestoreOptions
from distvae.commands.restore_lines import describe_data, describe_stage, format_scores
from distvae.commands.restored_files import Place
from distvae.config import Config
from distvae.data import signals
from distvae.data.pictures import Stored
from distvae.data.signals import Signal, Stack, write_stack
from distvae.data.windows.missing import Missing, keep_observed, silenced
from distvae.data.windows.patches import distinct_channels
from distvae.files.atomic import delete_partials
from distvae.files.kinds import TIFF
from distvae.files.memory import gigabytes
from distvae.files.output import check_new_file, check_writable_folder
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.array_types import Doubles, Floats
from distvae.numerics.numbers import counted
from distvae.system.memory import available_memory
from distvae.system.processors import available_cores
from distvae.tasks.fidelity import fidelity, fidelity_gains
from distvae.tasks.presets import corrupted_windows, preset_config, refuse_unfit
from distvae.train.progress import Progress, format_duration, stop_signals

if TYPE_CHECKING:
    from distvae.data.picture_noise import PictureNoise
    from distvae.tasks.groups import Report, Restored
    from distvae.tasks.restoration import Cost, Restoration, Stage
    from distvae.tasks.sound_groups import RestoredSound

FIGURES = (".png", ".pdf", ".svg")
EVERY = 0.2
"""Seconds from one look at what was computed to the next."""
T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One file to restore."""

    place: Place
    damage: str
    """Describes what was done to the file before it is restored, or ''."""
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
    std: Path | None = None
    """The file of the standard deviations of errors."""

    @property
    def missing(self) -> Missing:
        """Return which values are to be filled in."""
        return np.isnan(self.observed.values)

    @property
    def sigma(self) -> float | None:
        """Return the level of the noise if it was told."""
        return cast(float | None, self.overrides.get("train.sigma"))

    @property
    def is_by_groups(self) -> bool:
        """Return whether groups of windows restore it, and no model is trained."""
        options = self.options
        has_gaps = self.observed.rate is not None and bool(self.missing.any())
        resumes = options.resume and (self.folder / "run.json").is_file()
        for_groups = options.are_for_groups(self.overrides, has_gaps)
        is_by_groups = for_groups and (options.model == "groups" or not resumes)
        asked = "--counts" if self.counts else "--std" if self.std else ""
        if self.sigma is not None and self.missing.any():
            asked = "--sigma"
        if asked and (self.observed.rate is not None or not is_by_groups):
            raise Refusal(f"{asked}: for a picture and --model groups; omit it")
        return is_by_groups

    @property
    def source(self) -> Path:
        """Return the file that is restored."""
        return self.place.source

    @cached_property
    def target(self) -> Path:
        """Return the file of the result."""
        return self.place.target(signals.suffixes_for(self.observed))

    @property
    def name(self) -> str:
        """Return the name of the file, and what was done to it."""
        return f"{self.place.number}{self.source.name}{self.damage}"

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
        """Return the values to write: observed ones are kept where others were missing, unless
        they have noise of a level that was told.
        """
        return restored if self.sigma else keep_observed(self.observed.values, restored)

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
    """Restore a picture or a sound from groups of its windows, and write the result."""
    claim_outputs(task)
    from distvae.tasks import groups, sound_groups

    progress = Progress(task.options.style, "window")
    if task.damage:
        progress.say(task.name)
    sigma = task.sigma
    refuse_unfit(task.observed.values, task.source.name, sigma)
    values, began = distinct_channels(task.observed.values), time.monotonic()
    rate = task.observed.rate

    def compute(report: "Report") -> "Restored | RestoredSound":
        if rate is not None:
            return sound_groups.restore(values, sigma, available_cores(), report, rate)
        noise = groups.noise_of(lambda: [values], counts=True) if task.counts else sigma
        is_asked = task.std is not None
        return groups.restore(values, noise, available_cores(), report, deviation=is_asked)

    found = while_hearing(compute, task.target, progress)
    restored = np.broadcast_to(found.values, task.observed.values.shape)
    shared = found.noise.shared if isinstance(found.noise, groups.Noise) else None
    scores = write_restored(task, restored, shared)
    seconds = time.monotonic() - began
    noise = "" if found.noise is None else f"{found.noise} removed, "
    if task.std is not None and isinstance(found, groups.Restored) and found.deviation is not None:
        noise += write_deviations(task.std, [found.deviation], [task.observed.peak])
    text = f"{task.target}: written, {noise}{seconds:.0f} s{format_scores(scores)}"
    progress.say(text + described_loss(task, restored))
    if task.options.json:
        print(json.dumps({"seconds": seconds, **scores}))


def write_deviations(path: Path, deviations: Sequence[Doubles], peaks: Sequence[float]) -> str:
    """Write the deviations of the errors of pictures; return what they say of the PSNR.

    They are the same for all channels, because a file of floats is grey.
    """
    squares = [np.square(each).mean(-1) for each in deviations]
    pages: list[Stored] = [np.sqrt(each).astype(np.float32) for each in squares]
    write_stack(path, pages, Stack(pages, {}, None, []))
    errors = np.mean([each.mean() / peak**2 for each, peak in zip(squares, peaks, strict=True)])
    return f"PSNR of {-10 * np.log10(errors):.1f} dB expected, " if errors else ""


def while_hearing(
    compute: Callable[[Callable[[float], None]], T], target: Path, progress: Progress
) -> T:
    """Return what a function computes, which is given a function to report the share that is done.

    It runs beside the main thread, which answers Ctrl-C: Python hears it between two instructions
    of that thread, and a compilation is a single one. Nothing is being written meanwhile, so that
    the process can end at once.
    """
    began, shares = time.monotonic(), [0.0]
    pool = ThreadPoolExecutor(1)
    with stop_signals() as stop:
        found = pool.submit(compute, shares.append)
        while not wait([found], EVERY).done:
            progress.share(shares[-1], time.monotonic() - began)
            if stop():
                progress.end()
                print(f"distvae: stopped; {target} was not written", file=sys.stderr, flush=True)
                os._exit(128 + stop())
    progress.end()
    return found.result()


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
    refuse_own_input(task.files, task.target)
    if task.std is not None:
        claim_deviations(task.std, [*task.files, task.target], options)
    if options.figure is not None:
        refuse_own_input(task.files, options.figure)
        check_new_file(options.figure, FIGURES, options.replaces)
        if options.figure.resolve() == task.target.resolve():
            raise Refusal(
                f"--figure: {options.figure}: this is the file of the result; another one expected"
            )
    check_writable_folder(task.folder)
    refuse_unlike_reference(task)


def claim_deviations(std: Path, files: Iterable[Path | None], options: RestoreOptions) -> None:
    """Refuse a file of deviations that cannot be written, or is another file of the command."""
    refuse_own_input(files, std)
    check_new_file(std, TIFF, options.replaces)


def refuse_own_input(files: Iterable[Path | None], output: Path) -> None:
    """Refuse to write over a file that the restoration reads, and reads again when it resumes."""
    if output.resolve() in {file.resolve() for file in files if file}:
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
    return text + described_loss(task, restored)


def described_loss(task: Task, restored: Floats) -> str:
    """Return what the file of a result does not hold, as it follows in a line of text."""
    if not signals.holds_transparency(task.target, task.observed):
        return f"; without its transparency, which {task.target.suffix} does not hold"
    clipped = signals.clipped(task.target, task.observed.with_values(task.result(restored)))
    if clipped:
        return (
            f"; {clipped:,} samples beyond full scale were clipped; a .wav of floats would keep"
            " them"
        )
    return ""


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
