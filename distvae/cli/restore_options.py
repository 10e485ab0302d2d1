"""The options of `distvae denoise` and `distvae inpaint`, and the place of a result."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.cli.options import AsJson, Force, Quiet, progress_style
from distvae.files.refusal import Refusal
from distvae.tasks.by_groups import Model, is_by_groups
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.config import Config
    from distvae.data.windows import Finder
    from distvae.files.untrusted import Plain

OF_TRAINING = ("preset", "recipe", "run", "stride")
"""Options that require a trained model."""
FOR_ONE = ("clean", "figure", "run")
"""Options that name a file or a folder for one picture."""
DAMAGE = {"noise": "--add-noise", "snr": "--snr", "drop": "--drop"}
"""The options that damage a clean input, by the setting of the data that they stand for."""
DAMAGE_PANEL = "Damage a clean input first, to measure the restoration"


@dataclass(frozen=True)
class RestoreOptions:
    """The options of `distvae denoise` and `distvae inpaint`."""

    model: Model | None = None
    """groups (default) compares windows and takes seconds; tvae (default for gaps of sounds) and
    ssc are trained, as --preset, --recipe or a setting also ask.
    """
    preset: Literal["fast", "balanced", "paper"] | None = None
    """How much time to spend on tvae; default fast. 'paper' uses the published settings."""
    recipe: str | None = None
    """Use this recipe or FILE.yaml instead of a preset."""
    stride: Annotated[int | None, typer.Option(min=1)] = None
    """Step from one window to the next; larger is faster and less accurate."""
    seed: Annotated[int, typer.Option(min=0)] = 0
    """Seed of training, and of the noise or gaps made first."""
    clean: Path | None = None
    """A clean reference to compare with; it does not affect the result."""
    figure: Path | None = None
    """Draw before, after and reference into a .png, .pdf or .svg."""
    across: Annotated[int, typer.Option(min=0, metavar="FRAMES")] = 2
    """Of a stack (a TIFF of several pictures): search for similar windows in so many frames before
    and behind; 0 restores each alone.
    """
    run: Path | None = None
    """Keep the run in this folder; default: OUT.run, deleted after the last epoch."""
    resume: bool = False
    """Continue a run that was stopped or killed."""
    force: Force = False
    quiet: Quiet = False
    json: AsJson = False

    @property
    def replaces(self) -> bool:
        """Return whether existing outputs may be replaced."""
        return self.force or self.resume

    @property
    def style(self) -> Style:
        """Return how progress is reported."""
        return progress_style(self.quiet, self.json)

    def __post_init__(self) -> None:
        """Refuse a preset together with a recipe."""
        if self.preset and self.recipe:
            raise Refusal("--preset, --recipe: both are given; one of them expected")

    def are_for_groups(self, keys: Iterable[str], has_gaps: bool) -> bool:
        """Return whether groups of windows restore a file under these options and settings."""
        return is_by_groups(self, OF_TRAINING, has_gaps, keys, prefix="--")

    def overrides(
        self, assignments: list[str], sigma: float | None = None, **damage: float | None
    ) -> "dict[str, Plain]":
        """Return the assigned settings and the settings of these options, of `--sigma`, and of the
        damage done first, such as `noise`. Damage done by an option has the seed of --seed unless
        data.noise_seed is assigned; damage done by a setting has the seed if --seed is not 0.
        """
        from distvae.config.recipes import parse_assignments, with_options

        options = {DAMAGE[name]: (f"data.{name}", each) for name, each in damage.items()}
        options |= {"--sigma": ("train.sigma", sigma), "--stride": ("data.stride", self.stride)}
        assigned = parse_assignments(assignments)
        given = with_options(assigned, options)
        settings: dict[str, Plain] = {"train.seed": self.seed}
        by_option = any(each is not None for each in damage.values())
        if by_option or (self.seed and any(f"data.{name}" in assigned for name in damage)):
            settings["data.noise_seed"] = self.seed
        return settings | given


@dataclass(frozen=True)
class NoiseOptions:
    """The noise in the input, and the noise that is added first to measure how it is removed."""

    sigma: Annotated[float | None, typer.Option(metavar="LEVEL")] = None
    """Standard deviation of the noise, if you know it: of pixel values up to 255 (of a picture of
    floats, its own) or samples from -1 to 1. By default it is estimated. The same as
    train.sigma.
    """
    counts: bool = False
    """The values are counts, of photons for example, or proportional to them: their noise grows
    with brightness. By default that is estimated too.
    """
    std: Annotated[Path | None, typer.Option(metavar="OUT.tif")] = None
    """Write the standard deviation of the errors that are left, pixel by pixel, and print the PSNR
    to expect. Takes twice the time.
    """
    add_noise: Annotated[
        float | None, typer.Option(min=0, metavar="LEVEL", rich_help_panel=DAMAGE_PANEL)
    ] = None
    """Add white noise of this standard deviation, in the units of --sigma; the same as data.noise.
    """
    snr: Annotated[float | None, typer.Option(metavar="DB", rich_help_panel=DAMAGE_PANEL)] = None
    """Add white noise to a sound, of this signal-to-noise ratio in dB; the same as data.snr."""

    def __post_init__(self) -> None:
        """Refuse a level together with counts, whose noise has no single level."""
        if self.counts and self.sigma is not None:
            raise Refusal(
                "--counts, --sigma: the noise of counts has no single level; one of them expected"
            )


@dataclass(frozen=True)
class MissingOptions:
    """Three ways to mark missing values, besides the NaN of a picture of floats, and the noise of
    the observed values.
    """

    mask: Path | None = None
    """Of a picture, a picture of the same size; pixels that are neither black nor transparent mark
    what is missing, in a JPEG or WebP those brighter than half. Of a sound, a text with the start
    and the end of a gap in seconds in each line, as Audacity exports labels.
    """
    missing_value: float | None = None
    """Pixels or samples with this value in all channels are missing."""
    sigma: Annotated[float | None, typer.Option(metavar="LEVEL")] = None
    """Standard deviation of the noise in a picture, as of 'distvae denoise': remove it too. By
    default what was observed is kept. The same as train.sigma.
    """
    drop: Annotated[float | None, typer.Option(min=0, max=1, rich_help_panel=DAMAGE_PANEL)] = None
    """Drop this share of the pixels or samples; the same as data.drop."""

    def refusal(self, source: Path, places: str, wrong: str) -> Refusal:
        """Return the refusal of options that mark all or none of the pixels or samples."""
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
        """Return a function that finds the missing values. Exactly one of the three ways is
        expected, or none if some values are NaN.
        """
        from distvae.data.windows import marked_by, masked_by
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


@dataclass(frozen=True)
class Place:
    """A file to restore, and where the result goes."""

    source: Path
    word: str
    """`denoised` or `filled`, for the name of the result."""
    named: Path | None = None
    folder: Path | None = None
    number: str = ""
    """The number of the file among several, as messages begin."""

    def target(self, suffixes: tuple[str, ...]) -> Path:
        """Return the file of the result, given the kinds of files that can be written."""
        if self.named is not None:
            return self.named
        is_written = self.source.suffix.lower() in suffixes
        if self.folder is not None:
            return self.folder / (self.source.name + ("" if is_written else suffixes[0]))
        suffix = self.source.suffix if is_written else suffixes[0]
        return self.source.with_name(f"{self.source.stem}-{self.word}{suffix}")
