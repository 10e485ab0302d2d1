"""`distvae denoise`: remove noise from pictures or a sound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.options import DAMAGE_PANEL, RestoreOptions
from distvae.commands.restored_files import Place
from distvae.files.refusal import Refusal


@dataclass(frozen=True)
class NoiseOptions:
    """The noise that is there, and the noise that is added first to measure how it is removed."""

    sigma: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help=(
                "Standard deviation of the noise, if you know it: of pixel values up to 255 (of a"
                " picture of floats, its own) or samples from -1 to 1. By default presets estimate"
                " it. The same as train.sigma."
            ),
        ),
    ] = None
    counts: Annotated[
        bool,
        typer.Option(
            "--counts",
            help="The values are counts, of photons for example, or proportional to them: their"
            " noise grows with brightness. By default that is estimated too.",
        ),
    ] = False
    std: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.tif",
            help="Write the standard deviation of the errors that are left, pixel by pixel, and"
            " print the PSNR to expect. Takes twice the time.",
        ),
    ] = None
    add_noise: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="LEVEL",
            help="Add white noise of this standard deviation, in the units of --sigma; the same as"
            " data.noise.",
            rich_help_panel=DAMAGE_PANEL,
        ),
    ] = None
    snr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help=(
                "Add white noise to a sound, of this signal-to-noise ratio in dB; the same as"
                " data.snr."
            ),
            rich_help_panel=DAMAGE_PANEL,
        ),
    ] = None
    noise: Annotated[str | None, typer.Option(hidden=True)] = None
    """The earlier name of `--add-noise`, which did not say that noise is added."""

    def __post_init__(self) -> None:
        """Refuse the earlier name, by which many would mean the noise that is there."""
        if self.noise is not None:
            raise Refusal(
                "--noise: did you mean --sigma (the level of noise that is there) or --add-noise"
                " (add noise to a clean input first)?"
            )
        if self.counts and self.sigma is not None:
            raise Refusal(
                "--counts, --sigma: the noise of counts has no single level; one of them expected"
            )


def denoise_file(
    place: Place, assignments: list[str], options: RestoreOptions, noise: NoiseOptions
) -> None:
    """Remove the noise from a picture or a sound, or first add noise to measure how well it is
    removed.
    """
    place.announce(options, assignments)
    import numpy as np

    from distvae.commands.restore import Task, find_reference, restore
    from distvae.commands.restore_stack import restore_pages
    from distvae.data import signals
    from distvae.data.signals import read_stack
    from distvae.tasks.presets import (
        preset_config,
        refuse_corruption,
        refuse_negative,
        restored_windows,
    )

    overrides = options.overrides(assignments, noise.sigma, noise=noise.add_noise, snr=noise.snr)
    source, stack = place.source, read_stack(place.source)
    signal = signals.picture_of(stack.pages[0]) if stack else signals.read_signal(source)
    for values in stack.pages if stack else [signal.values]:
        if np.isnan(values).any():
            raise Refusal(f"{source}: holds missing values (NaN); 'distvae inpaint' fills them in")
        if noise.counts:
            refuse_negative(values, str(source))
    if stack:
        restore_pages(place, stack, options, overrides, None, noise.counts, noise.std)
        return
    config = preset_config(signal.values, "fast", options.recipe, overrides, inpainting=False)
    config = refuse_corruption(config, "drop").with_("data", path=str(source))

    def read(path: Path) -> signals.Signal:
        windows = restored_windows(config.with_("data", path=str(path)))
        return signals.read_signal(path) if windows is None else windows.clean()

    def read_reference(path: Path) -> signals.Signal:
        """Return a reference, which may be as long as the source, or have been cut already."""
        whole = signals.read_signal(path)
        is_cut = (whole.values.shape, whole.rate) == (signal.values.shape, signal.rate)
        return whole if is_cut else read(path)

    windows, signal = restored_windows(config), read(source)
    if windows is None or not windows.corruption:
        reference = find_reference(options, read=read_reference)
        restore(
            Task(place, "", signal, reference, options, overrides, None, noise.counts, noise.std)
        )
    else:
        reference, noisy = find_reference(options, signal), windows.corrupt(signal)
        if noise.counts:
            raise Refusal(
                "--counts: noise that is added is not that of counts; one of them expected"
            )
        level, seed = windows.noise_level(signal), windows.noise_seed
        damage = f" under noise of {level:.4g}, seed {seed}"
        restore(
            Task(place, damage, noisy, reference, options, overrides, None, noise.counts, noise.std)
        )
