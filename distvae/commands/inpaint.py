"""`distvae inpaint`: fill in what is missing of pictures or a sound."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import DAMAGE_PANEL, RestoreOptions
from distvae.commands.restored_files import Place
from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.config import Config
    from distvae.data.windows.missing import Finder


@dataclass(frozen=True)
class MissingOptions:
    """The three ways to say what is missing, besides the NaN of a picture of floats, and the noise
    of what is not.
    """

    mask: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Of a picture, a picture of the same size; pixels that are neither black nor"
                " transparent mark what is missing, in a JPEG or WebP those brighter than half. Of"
                " a sound, a text with the start and the end of a gap in seconds in each line, as"
                " Audacity exports labels."
            )
        ),
    ] = None
    missing_value: Annotated[
        float | None,
        typer.Option(help="Pixels or samples with this value in all channels are missing."),
    ] = None
    sigma: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help="Standard deviation of the noise in a picture, as of 'distvae denoise': remove it"
            " too. By default what was observed is kept. The same as train.sigma.",
        ),
    ] = None
    drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Drop this share of the pixels or samples; the same as data.drop.",
            rich_help_panel=DAMAGE_PANEL,
        ),
    ] = None

    def refusal(self, source: Path, places: str, wrong: str) -> Refusal:
        """Return the refusal of options by which all or none of the pixels or samples are
        missing.
        """
        if self.mask is not None and places == "samples":
            return Refusal(f"{self.mask}: {wrong}; gaps with some of the samples expected")
        if self.mask is not None:
            return Refusal(
                f"{self.mask}: {wrong}; some of the pixels expected, which a mask marks by any"
                " value but black or transparent, a JPEG or WebP by one brighter than half"
            )
        if self.missing_value is not None:
            return Refusal(
                f"--missing-value: {self.missing_value:g}, and {wrong} in {source}; a value that"
                f" some of the {places} have in all channels expected"
            )
        share = "" if self.drop is None else f" {self.drop:g}, and"
        return Refusal(f"--drop:{share} {wrong} in {source}; a share of some {places} expected")

    def finder(self, config: "Config", has_nan: bool) -> "Finder":
        """Return a function that finds the missing values; refuse more or less than one way, unless
        some of the values are NaN.
        """
        from distvae.data.windows.missing import marked_by, masked_by
        from distvae.tasks.presets import corrupted_windows

        windows = corrupted_windows(config)
        ways = (self.mask, self.missing_value, self.drop if windows is None else windows)
        chosen = sum(way is not None for way in ways)
        if has_nan and not chosen:
            return marked_by(math.nan)
        if chosen != 1:
            raise Refusal(
                "--mask, --missing-value, --drop: exactly one of them expected, to know what is"
                " missing"
            )
        if self.mask is not None:
            return masked_by(self.mask)
        if self.missing_value is not None:
            return marked_by(self.missing_value)
        if windows is None:
            raise Refusal("--drop: 0 drops nothing; a share above 0 expected")
        return windows.find_dropped


def inpaint_file(
    place: Place,
    assignments: list[str],
    options: RestoreOptions,
    missing_options: MissingOptions,
) -> None:
    """Fill in what is missing of a picture or sound, and keep what was observed.

    With `--drop`, some values are dropped first, to measure how well they are filled in.
    """
    place.announce(options, assignments)
    import numpy as np

    from distvae.commands.restore import Task, find_reference, restore
    from distvae.commands.restore_stack import restore_pages
    from distvae.data import signals
    from distvae.data.signals import read_stack
    from distvae.tasks.presets import (
        corrupted_windows,
        preset_config,
        refuse_changed_sound,
        refuse_corruption,
    )

    overrides = options.overrides(assignments, missing_options.sigma, drop=missing_options.drop)
    source, stack = place.source, read_stack(place.source)
    signal = signals.picture_of(stack.pages[0]) if stack else signals.read_signal(source)
    config = preset_config(signal.values, "fast", options.recipe, overrides, inpainting=True)
    config = refuse_corruption(config, "noise", "snr").with_("data", path=str(source))
    pages = stack.pages if stack else [signal.values]
    find = missing_options.finder(config, any(bool(np.isnan(page).any()) for page in pages))
    if stack:
        missing_ones = [find(signals.picture_of(page)) for page in stack.pages]
        if any(bool(each.all()) for each in missing_ones) or not np.any(missing_ones):
            amount = "all of a picture is" if np.any(missing_ones) else "nothing is"
            raise missing_options.refusal(source, "pixels", f"{amount} missing")
        restore_pages(place, stack, options, overrides, find)
        return
    if windows := corrupted_windows(config):
        signal = windows.clean()
    else:
        refuse_changed_sound(config)
    missing = find(signal) | np.isnan(signal.values)
    if missing.all() or not missing.any():
        amount = "everything" if missing.any() else "nothing"
        places = "pixels" if signal.rate is None else "samples"
        raise missing_options.refusal(source, places, f"{amount} is missing")
    holed = signal.with_values(np.where(missing, np.nan, signal.values))
    reference = find_reference(options, signal if windows else None)
    damage = f" with {missing.mean():.0%} missing"
    mask = missing_options.mask
    restore(Task(place, damage, holed, reference, options, overrides, mask))
