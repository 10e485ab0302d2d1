"""Restore a stack: a TIFF that holds several pictures."""

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from distvae.commands.options import RestoreOptions
from distvae.commands.restore import (
    claim_deviations,
    refuse_own_input,
    while_hearing,
    write_deviations,
)
from distvae.commands.restored_files import FOR_ONE, Place
from distvae.data.pictures import Stored
from distvae.data.signals import Stack, as_stored, picture_of, write_stack
from distvae.data.windows.missing import Finder, keep_observed
from distvae.files.kinds import TIFF
from distvae.files.output import check_new_file
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import Doubles
from distvae.system.processors import available_cores
from distvae.tasks.groups import Noise, Report, noise_of, part_of
from distvae.tasks.stacks import restore_stack
from distvae.train.progress import Progress

DAMAGE = ("data.noise", "data.drop")
"""Settings that damage one picture first, to measure how it is restored."""


def restore_pages(
    place: Place,
    stack: Stack,
    options: RestoreOptions,
    overrides: Mapping[str, Plain],
    find: Finder | None = None,
    counts: bool = False,
    std: Path | None = None,
) -> None:
    """Remove the noise of a stack, or fill in what a function finds missing; write the result."""
    source, target = place.source, place.target(TIFF)
    if not options.are_for_groups(overrides, False):
        raise Refusal(
            f"{source}: holds {len(stack.pages)} pictures; one expected by a model that is trained"
        )
    given = [f"--{name}" for name in FOR_ONE if getattr(options, name) is not None]
    given += [key for key in DAMAGE if key in overrides]
    if given:
        raise Refusal(f"{given[0]}: for one picture, but {source} is a stack; omit it")
    check_new_file(target, TIFF, options.replaces)
    refuse_own_input([source], target)
    if std is not None:
        claim_deviations(std, [source, target], options)
    progress, began = Progress(options.style, "window"), time.monotonic()
    sigma = cast(float | None, overrides.get("train.sigma"))
    compute = partial(restored_pages, stack, options.across, sigma, find, counts, std is not None)
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
    stack: Stack,
    across: int,
    sigma: float | None,
    find: Finder | None,
    counts: bool,
    deviation: bool,
    report: Report,
) -> tuple[list[Stored], list[str], list[Doubles]]:
    """Return the pictures of a stack restored, in words the noise of each series of them, and the
    deviations of the errors of each picture if they are asked for.
    """
    pages, noises, errors = list(stack.pages), list[str](), dict[int, Doubles]()

    def read(page: int) -> Doubles:
        picture = picture_of(stack.pages[page])
        return np.where(find(picture), np.nan, picture.values) if find else picture.values

    for number, series in enumerate(stack.series):
        noise: Noise | None = None
        if sigma is not None:
            noise = Noise.white(sigma, read(series[0]).shape[-1])
        elif find is None:
            noise = noise_of(partial(map, read, series), counts)
        noises += [] if noise is None else [str(noise)]
        part = part_of(report, number / len(stack.series), 1 / len(stack.series))
        work = (read, series, noise, across, available_cores(), part)
        for page, found in zip(series, restore_stack(*work, deviation), strict=True):
            result = found.values if sigma else keep_observed(read(page), found.values)
            pages[page] = as_stored(picture_of(stack.pages[page]).with_values(result))
            if found.deviation is not None:
                errors[page] = found.deviation
    return pages, noises, [errors[page] for page in sorted(errors)]
