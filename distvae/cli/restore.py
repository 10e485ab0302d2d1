"""The work of `distvae denoise` and `distvae inpaint` on one file: by groups of windows, or by a
model that is trained on the file. `restore_options.py` has the options.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from distvae.cli.restore_options import (
    FOR_ONE,
    MissingOptions,
    NoiseOptions,
    Place,
    RestoreOptions,
)
from distvae.config import Config
from distvae.data import signals
from distvae.data.pictures import Stored
from distvae.data.signals import (
    Signal,
    Stack,
    as_stored,
    picture_of,
    read_signal,
    read_stack,
    write_stack,
)
from distvae.data.windows import Finder, Missing, keep_observed, silenced
from distvae.files.paths import (
    TIFF,
    check_new_file,
    check_writable_folder,
    delete_partials,
    gigabytes,
)
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain
from distvae.numerics.arrays import Doubles, Floats
from distvae.numerics.metrics import counted
from distvae.system import available_memory
from distvae.tasks.by_groups import Wanted
from distvae.tasks.presets import (
    corrupted_windows,
    preset_config,
    refuse_changed_sound,
    refuse_corruption,
    refuse_negative,
    refuse_unfit,
    restored_windows,
)
from distvae.tasks.scores import fidelity, fidelity_gains
from distvae.train.progress import Progress, format_duration, stop_signals

if TYPE_CHECKING:
    from distvae.data.noise import PictureNoise
    from distvae.tasks.groups import Report
    from distvae.tasks.restoration import Restoration, Stage

FIGURES = (".png", ".pdf", ".svg")
DAMAGE = ("data.noise", "data.drop")
"""Settings that damage a single picture first, to measure the restoration."""
EVERY = 0.2
"""Seconds between two looks at the share of the work that is done."""
T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One file to restore."""

    place: Place
    damage: str
    """Describes the damage that is done to the file first, or ''."""
    observed: Signal
    """The values of the file, NaN where they are missing."""
    reference: Signal | None
    """A clean version to compare with; it does not affect the result."""
    options: RestoreOptions
    overrides: Mapping[str, Plain] = field(default_factory=dict)
    """Settings by dotted key, instead of the recipe's settings."""
    mask: Path | None = None
    """The file that marks the missing values."""
    counts: bool = False
    """Whether values are counts of events, or proportional to them."""
    std: Path | None = None
    """The file for the standard deviations of the errors."""

    @property
    def missing(self) -> Missing:
        """Return the places of the values to fill in."""
        return np.isnan(self.observed.values)

    @property
    def sigma(self) -> float | None:
        """Return the level of the noise if the user told it."""
        return cast(float | None, self.overrides.get("train.sigma"))

    @cached_property
    def target(self) -> Path:
        """Return the file of the result."""
        return self.place.target(signals.suffixes_for(self.observed))

    @property
    def name(self) -> str:
        """Return the name of the file, and the damage that was done to it."""
        return f"{self.place.number}{self.place.source.name}{self.damage}"

    @property
    def sources(self) -> tuple[Path | None, ...]:
        """Return the files that the restoration reads."""
        return self.place.source, self.options.clean, self.mask

    @property
    def folder(self) -> Path:
        """Return the folder of the run. By default the run is beside the result and is deleted
        after the last epoch.
        """
        return self.options.run or self.target.with_name(f"{self.target.name}.run")

    @property
    def config(self) -> Config:
        """Return the configuration of the named recipe, or else of the preset."""
        inpainting, values = bool(self.missing.any()), self.observed.values
        config = restoring_config(values, self.options, self.overrides, inpainting)
        if inpainting and corrupted_windows(config) is None:
            return config  # the model is trained on the file and the mask, not on the file alone
        return config.with_("data", path=str(self.place.source.absolute()))

    def result(self, restored: Floats) -> Floats:
        """Return the values to write. Where values were missing, the observed values are kept,
        unless the user told the level of their noise.
        """
        return restored if self.sigma else keep_observed(self.observed.values, restored)

    def scores(self, restored: Floats) -> dict[str, float]:
        """Return how close the result is to the reference, or nothing without a reference. For a
        sound, also return how much closer the result is than the input.
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


def restoring_config(
    values: Floats, options: RestoreOptions, overrides: Mapping[str, Plain], inpainting: bool
) -> Config:
    """Return the configuration that restores values under the options."""
    chosen = options.model, options.preset, options.recipe
    return preset_config(values, *chosen, overrides, inpainting)


def denoise_file(
    place: Place, assignments: list[str], options: RestoreOptions, noise: NoiseOptions
) -> None:
    """Remove the noise from a file. If noise is to be added first, the file is the reference."""
    overrides = options.overrides(assignments, noise.sigma, noise=noise.add_noise, snr=noise.snr)
    source, stack = place.source, read_stack(place.source)
    signal = picture_of(stack.pages[0]) if stack else read_signal(source)
    for values in stack.pages if stack else [signal.values]:
        if np.isnan(values).any():
            raise Refusal(f"{source}: holds missing values (NaN); 'distvae inpaint' fills them in")
        if noise.counts:
            refuse_negative(values, str(source))
    if stack:
        restore_pages(place, stack, options, overrides, None, noise.counts, noise.std)
        return
    config = restoring_config(signal.values, options, overrides, inpainting=False)
    config = refuse_corruption(config, "drop").with_("data", path=str(source))

    def read(path: Path) -> Signal:
        windows = restored_windows(config.with_("data", path=str(path)))
        return read_signal(path) if windows is None else windows.clean()

    windows, signal, damage = restored_windows(config), read(source), ""
    if windows is not None and windows.corruption:
        reference, observed = find_reference(options, signal, read), windows.corrupt(signal)
        if noise.counts:
            raise Refusal(
                "--counts: noise that is added is not that of counts; one of them expected"
            )
        damage = f" under noise of {windows.noise_level(signal):.4g}, seed {windows.noise_seed}"
    else:
        reference, observed = find_reference(options, None, read, signal), signal
    asked = (None, noise.counts, noise.std)
    restore(Task(place, damage, observed, reference, options, overrides, *asked))


def inpaint_file(
    place: Place, assignments: list[str], options: RestoreOptions, missing_options: MissingOptions
) -> None:
    """Fill in the missing values of a file. With `--drop`, values are dropped first and the file is
    the reference.
    """
    overrides = options.overrides(assignments, missing_options.sigma, drop=missing_options.drop)
    source, stack = place.source, read_stack(place.source)
    signal = picture_of(stack.pages[0]) if stack else read_signal(source)
    config = restoring_config(signal.values, options, overrides, inpainting=True)
    config = refuse_corruption(config, "noise", "snr").with_("data", path=str(source))
    pages = stack.pages if stack else [signal.values]
    find = missing_options.finder(config, any(bool(np.isnan(page).any()) for page in pages))
    if stack:
        missing_ones = [find(picture_of(page)) for page in stack.pages]
        if any(bool(each.all()) for each in missing_ones) or not np.any(missing_ones):
            amount = "all of a picture is" if np.any(missing_ones) else "nothing is"
            raise missing_options.refusal(source, "pixels", f"{amount} missing")
        restore_pages(place, stack, options, overrides, find)
        return
    windows = corrupted_windows(config)
    if windows:
        signal = windows.clean()
    else:
        refuse_changed_sound(config)
    missing = find(signal) | np.isnan(signal.values)
    if missing.all() or not missing.any():
        amount = "everything" if missing.any() else "nothing"
        places = "pixels" if signal.rate is None else "samples"
        raise missing_options.refusal(source, places, f"{amount} is missing")
    holed = signal.with_values(np.where(missing, np.nan, signal.values))
    reference = find_reference(options, signal if windows else None, read_signal)
    damage = f" with {missing.mean():.0%} missing"
    restore(Task(place, damage, holed, reference, options, overrides, missing_options.mask))


def find_reference(
    options: RestoreOptions,
    undamaged: Signal | None,
    read: Callable[[Path], Signal],
    alike: Signal | None = None,
) -> Signal | None:
    """Return the input before it was damaged, or the file of `--clean`. The file is read by `read`
    unless it is already as long as the input `alike` and has its rate.
    """
    if options.clean is None:
        return undamaged
    if undamaged is not None:
        raise Refusal(
            "--clean: with --add-noise or --drop, the input itself is the reference; omit --clean"
        )
    whole = read_signal(options.clean)
    if alike and (whole.values.shape, whole.rate) == (alike.values.shape, alike.rate):
        return whole
    return read(options.clean)


def restore(task: Task) -> None:
    """Restore a file and write the result."""
    options, is_sound = task.options, task.observed.rate is not None
    has_gaps = is_sound and bool(task.missing.any())
    resumes = options.resume and (task.folder / "run.json").is_file()
    is_by_groups = options.are_for_groups(task.overrides, has_gaps)
    is_by_groups = is_by_groups and (options.model == "groups" or not resumes)
    asked = "--counts" if task.counts else "--std" if task.std else ""
    if task.sigma is not None and task.missing.any():
        asked = "--sigma"
    if asked and (is_sound or not is_by_groups):
        raise Refusal(f"{asked}: for a picture and --model groups; omit it")
    claim_outputs(task)
    if is_by_groups:
        restore_by_groups(task)
    else:
        restore_by_training(task)


def restore_by_groups(task: Task) -> None:
    """Restore a picture or a sound by groups of its windows, and write the result."""
    from distvae.tasks.by_groups import restore_array
    from distvae.tasks.groups import Noise

    progress, observed = Progress(task.options.style, "window"), task.observed
    if task.damage:
        progress.say(task.name)
    refuse_unfit(observed.values, task.place.source.name, task.sigma)
    began = time.monotonic()
    wanted = Wanted(task.sigma, task.counts, task.std is not None)
    compute = partial(restore_array, observed.values, wanted, observed.rate)
    found = while_hearing(compute, task.target, progress)
    shared = found.noise.shared if isinstance(found.noise, Noise) else None
    scores = write_restored(task, found.values, shared)
    seconds = time.monotonic() - began
    noise = "" if found.noise is None else f"{found.noise} removed, "
    if task.std is not None and found.deviation is not None:
        noise += write_deviations(task.std, [found.deviation], [observed.peak])
    text = f"{task.target}: written, {noise}{seconds:.0f} s{format_scores(scores)}"
    progress.say(text + described_loss(task, found.values))
    if task.options.json:
        print(json.dumps({"seconds": seconds, **scores}))


def restore_pages(
    place: Place,
    stack: Stack,
    options: RestoreOptions,
    overrides: Mapping[str, Plain],
    find: Finder | None,
    counts: bool = False,
    std: Path | None = None,
) -> None:
    """Remove the noise of a stack and write the result. With `find`, fill in the values that it
    finds missing.
    """
    source, target = place.source, place.target(TIFF)
    if not options.are_for_groups(overrides, has_gaps=False):
        raise Refusal(
            f"{source}: holds {len(stack.pages)} pictures; one expected by a model that is trained"
        )
    given = [f"--{name}" for name in FOR_ONE if getattr(options, name) is not None]
    given += [key for key in DAMAGE if key in overrides]
    if given:
        raise Refusal(f"{given[0]}: for one picture, but {source} is a stack; omit it")
    claim_result([source], target, TIFF, std, options)
    progress, began = Progress(options.style, "window"), time.monotonic()
    sigma = cast(float | None, overrides.get("train.sigma"))
    wanted = Wanted(sigma, counts, std is not None, options.across)
    compute = partial(restored_pages, stack, wanted, find)
    pages, noises, errors = while_hearing(compute, target, progress)
    write_stack(target, pages, stack)
    seconds = time.monotonic() - began
    others = f" from the first of {len(noises)} series" if len(noises) > 1 else ""
    removed = f"{noises[0]} removed{others}, " if noises else ""
    if std is not None:
        peaks = [picture_of(page).peak for page in stack.pages]
        removed += write_deviations(std, errors, peaks)
    progress.say(f"{target}: {len(pages)} pictures written, {removed}{seconds:.0f} s")
    if options.json:
        print(json.dumps({"seconds": seconds}))


def restored_pages(
    stack: Stack, wanted: Wanted, find: Finder | None, report: "Report"
) -> tuple[list[Stored], list[str], list[Doubles]]:
    """Return the restored pictures of a stack, the noise of each series in words, and the
    deviations of the errors of each picture if they are wanted.
    """
    from distvae.tasks.by_groups import restore_series
    from distvae.tasks.groups import part_of

    pages, noises, errors = list(stack.pages), list[str](), dict[int, Doubles]()

    def read(page: int) -> Doubles:
        picture = picture_of(stack.pages[page])
        return np.where(find(picture), np.nan, picture.values) if find else picture.values

    for number, series in enumerate(stack.series):
        part = part_of(report, number / len(stack.series), 1 / len(stack.series))
        restored = restore_series(read, series, wanted, find is not None, part)
        for page, found in zip(series, restored, strict=True):
            result = found.values if wanted.sigma else keep_observed(read(page), found.values)
            pages[page] = as_stored(picture_of(stack.pages[page]).with_values(result))
            if found.deviation is not None:
                errors[page] = found.deviation
            if found.noise is not None and page == series[0]:
                noises.append(str(found.noise))
    return pages, noises, [errors[page] for page in sorted(errors)]


def write_deviations(path: Path, deviations: Sequence[Doubles], peaks: Sequence[float]) -> str:
    """Write the deviations of the errors of pictures; return the PSNR to expect, in words.

    All channels share one deviation, because a file of floats is grey.
    """
    squares = [np.square(each).mean(-1) for each in deviations]
    pages: list[Stored] = [np.sqrt(each).astype(np.float32) for each in squares]
    write_stack(path, pages, Stack(pages, {}, None, []))
    errors = np.mean([each.mean() / peak**2 for each, peak in zip(squares, peaks, strict=True)])
    return f"PSNR of {-10 * np.log10(errors):.1f} dB expected, " if errors else ""


def while_hearing(
    compute: Callable[[Callable[[float], None]], T], target: Path, progress: Progress
) -> T:
    """Return the result of a function, which receives a function to report the share that is done.

    The work runs beside the main thread, which answers Ctrl-C: Python hears Ctrl-C between two
    instructions of the main thread, and a compilation is a single instruction. Nothing is written
    meanwhile, so the process can end at once.
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


def restore_by_training(task: Task) -> None:
    """Train on a file's windows and write the result; if interrupted, write the result so far."""
    from distvae.tasks.restoration import (
        STAGES,
        Cost,
        Restoration,
        RunDestination,
        check_restorable,
    )
    from distvae.train.cost import memory_refused
    from distvae.train.loop import Diverged, Interrupted
    from distvae.train.run_folder import has_begun, remove_run

    config, options, source = task.config, task.options, task.place.source
    windows = check_restorable(config, task.observed.values, str(source))
    cost, free = Cost.of(config, windows, task.observed.values), available_memory()
    if cost.memory > free:
        raise Refusal(
            f"{source}: {cost}, but {gigabytes(free)} are free; a larger --stride, fewer"
            " estep.states or a part of the data expected"
        )
    progress = Progress(options.style, "window")
    delete_partials(task.target)
    if options.resume and not has_begun(Folder(task.folder)):
        progress.say(f"{task.folder}: contains no run to resume; starting a new one")
    kept = RunDestination(task.folder, options.resume, options.force)
    with memory_refused(config, task.name), stop_signals() as stop:
        restoration = Restoration(config, task.observed.values, task.name, kept)
        try:
            progress.say(f"{task.name}: {cost}, {counted(config.train.epochs, 'epoch')}")
            for remark in describe_data(restoration, task.observed):
                progress.say(f"{task.name}: {remark}")
            for stage in restoration.run(stop):
                if task.reference:
                    stage = replace(stage, close=task.scores(restoration.restored()))
                with (task.folder / STAGES).open("a") as file:
                    file.write(json.dumps(stage.metrics()) + "\n")
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


def describe_data(restoration: "Restoration", observed: Signal) -> Iterator[str]:
    """Yield remarks about the data before training begins."""
    if noise := restoration.noise:
        about = "" if restoration.config.train.sigma else "about "
        yield f"white noise of {about}{noise:.4g}; training ends early if sigma falls below it"
    if unreached := restoration.patches.unreached:
        guessed = counted(unreached, "pixel" if observed.rate is None else "sample")
        yield (
            f"the model can only guess {guessed}, too far from any observed one for a window"
            " (data.window) to hold both"
        )


def describe_stage(stage: "Stage", seconds_left: float) -> str:
    """Return one line about the progress of a restoration."""
    found = ""
    if not math.isnan(stage.sigma):
        found = f"  sigma {stage.sigma:.4g}  active {stage.active:.2f}"
    return (
        f"epoch {stage.epoch}/{stage.epochs}  nats/window {stage.bound:.2f}{found}"
        f"{format_scores(stage.close)}  {format_duration(seconds_left)} left"
    )


def format_scores(scores: Mapping[str, float]) -> str:
    """Return scores for the end of a line of text."""
    return "".join(f"  {name.upper()} {value:.3f}" for name, value in scores.items())


def claim_outputs(task: Task) -> None:
    """Refuse outputs that cannot be written, and a reference that does not fit."""
    options, kinds = task.options, signals.suffixes_for(task.observed)
    claim_result(task.sources, task.target, kinds, task.std, options)
    if options.figure is not None:
        refuse_own_input(task.sources, options.figure)
        check_new_file(options.figure, FIGURES, options.replaces)
        if options.figure.resolve() == task.target.resolve():
            raise Refusal(
                f"--figure: {options.figure}: this is the file of the result; another one expected"
            )
    check_writable_folder(task.folder)
    refuse_unlike_reference(task)


def claim_result(
    sources: Sequence[Path | None],
    target: Path,
    kinds: tuple[str, ...],
    std: Path | None,
    options: RestoreOptions,
) -> None:
    """Refuse a result and its deviations if they cannot be written."""
    check_new_file(target, kinds, options.replaces)
    refuse_own_input(sources, target)
    if std is not None:
        refuse_own_input([*sources, target], std)
        check_new_file(std, TIFF, options.replaces)


def refuse_own_input(files: Iterable[Path | None], output: Path) -> None:
    """Refuse to write over a file that the restoration reads, and reads again when it resumes."""
    if output.resolve() in {file.resolve() for file in files if file}:
        raise Refusal(f"{output}: this file is read, and by --resume again; another name expected")


def refuse_unlike_reference(task: Task) -> None:
    """Refuse a reference of other units, rate or shape, with missing values, or without sound."""
    reference, rate = task.reference, task.observed.rate
    if reference is None:
        return
    file = task.options.clean or task.place.source
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


def write_result(task: Task, restoration: "Restoration") -> str:
    """Write the result so far, unless training has not started; return a sentence about it."""
    if not restoration.has_started:
        return f"nothing is restored yet; {task.target} was not written"
    restored = restoration.restored()
    scores = format_scores(write_restored(task, restored))
    text = f"{task.target}: written, restored {restoration.progress}{scores}"
    return text + described_loss(task, restored)


def write_restored(
    task: Task, restored: Floats, noise: "PictureNoise | None" = None
) -> dict[str, float]:
    """Write a result, and a figure if the options ask for one; return the scores."""
    result = task.result(restored)
    signals.write(task.target, task.observed.with_values(result))
    if task.options.figure is not None:
        draw_comparison(task.options.figure, task, result, noise)
    return task.scores(restored)


def described_loss(task: Task, restored: Floats) -> str:
    """Return the losses of a result in its file, for the end of a line of text."""
    if not signals.holds_transparency(task.target, task.observed):
        return f"; without its transparency, which {task.target.suffix} does not hold"
    clipped = signals.clipped(task.target, task.observed.with_values(task.result(restored)))
    if clipped:
        return (
            f"; {clipped:,} samples beyond full scale were clipped; a .wav of floats would keep"
            " them"
        )
    return ""


def draw_comparison(path: Path, task: Task, result: Floats, noise: "PictureNoise | None") -> None:
    """Draw before and after, a reference, and the spectrum of noise that is not white."""
    from distvae.tasks.pictures import compare_pictures, compare_sounds, save

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
