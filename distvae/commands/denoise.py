"""`distvae denoise`: remove noise from one picture or sound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.commands.options import RestoreOptions
from distvae.config.recipes import parse_assignments


@dataclass(frozen=True)
class NoiseOptions:
    """The noise that is added first, to measure how well it is removed."""

    noise: Annotated[
        float | None,
        typer.Option(
            min=0,
            help=(
                "First add white noise of this standard deviation, for pixel values up to 255 or as"
                " a share of a sound's largest sample; the same as data.noise."
            ),
        ),
    ] = None


def denoise_file(
    source: Path, target: Path, assignments: list[str], options: RestoreOptions, noise: NoiseOptions
) -> None:
    """Remove the noise from a picture or a sound, or first add noise to measure how well it is
    removed.
    """
    from distvae.commands.restore import Task, find_reference, restore
    from distvae.data import signals
    from distvae.tasks.presets import corrupted_windows, preset_config, refuse_corruption

    overrides = options.overrides("data.noise", noise.noise) | parse_assignments(assignments)
    signal = signals.read_signal(source)
    config = preset_config(signal.values, "fast", options.recipe, overrides, inpainting=False)
    config = refuse_corruption(config, "drop")
    windows = corrupted_windows(config)
    if windows is None:
        restore(Task(source, target, "", signal, find_reference(options), options, overrides))
    else:
        reference = find_reference(options, signal.levelled())
        noisy = windows.corrupt(signal)
        damage = f" under noise of {windows.noise:g}, seed {windows.noise_seed}"
        restore(Task(source, target, damage, noisy, reference, options, overrides))
