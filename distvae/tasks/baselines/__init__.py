"""Baselines: methods without a trained model, scored on the same data as models.

No baseline uses the clean reference to choose a setting. Baselines for pictures estimate the noise
level; baselines for sounds are given the level.
"""

import numpy as np

from distvae.config import Config
from distvae.data.family import recordings_of
from distvae.data.windows import HasWindows, silenced, windows_of
from distvae.files.refusal import Refusal
from distvae.tasks.baselines import pictures, sounds, speech
from distvae.tasks.fidelity import fidelity, fidelity_gains
from distvae.tasks.scoring import score_recordings

MEANINGLESS = ("live_atoms", "dead_atoms")
"""Metrics that mean nothing for components, which may be weak but are never dead."""


def score_baseline(name: str, config: Config, progress: bool = False) -> dict[str, float]:
    """Return the scores of a baseline on test recordings, or on a corrupted picture or sound."""
    if recordings_of(config.data) is not None:
        code = speech.baseline_coder(name, config.data)
        summary = score_recordings(code, config, "test", progress).summary
        return {name: value for name, value in summary.items() if name not in MEANINGLESS}
    if (windows := windows_of(config.data)) is not None:
        return _restored(name, windows, config.train.sigma)
    raise Refusal(
        f"{name}: nothing to compare with on data.kind '{config.data.kind}'; speech or patches"
        " expected"
    )


def _restored(name: str, windows: HasWindows, level: float | None) -> dict[str, float]:
    """Return the scores against the clean reference, and for a sound also the gains."""
    if not windows.corruption:
        raise Refusal(
            "data.noise, data.snr, data.drop: the data is not damaged, so there is nothing to"
            " restore; one of them expected, such as data.noise=25 for a picture or data.snr=5 for"
            " a sound"
        )
    clean = windows.clean()
    corrupted = windows.corrupt(clean)
    if corrupted.rate is None:
        restored = np.broadcast_to(pictures.restore(name, corrupted, level), clean.values.shape)
        return fidelity(clean, restored)
    after = fidelity(clean, sounds.restore(name, corrupted, windows.noise_level(clean)))
    return after | fidelity_gains(fidelity(clean, silenced(corrupted.values)), after)
