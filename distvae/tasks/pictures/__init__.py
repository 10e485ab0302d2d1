"""Pictures of a trained model. Each function returns a matplotlib figure, and `save` writes it.

Pictures use the palette of Okabe and Ito and perceptually uniform colour maps, so that readers who
cannot tell red from green can read them.
"""

from distvae.tasks.pictures.batches import QualityPoint, quality_by_batch
from distvae.tasks.pictures.canvas import Picture, draw_now, save
from distvae.tasks.pictures.codes import (
    active_latents,
    code_histograms,
    dictionary,
    encodings,
    responses,
)
from distvae.tasks.pictures.data import fields, grid, pairs, strips
from distvae.tasks.pictures.spectra import (
    Spectrum,
    decibel,
    levels,
    sampled_frames,
    show_levels,
    spectrograms,
)
from distvae.tasks.pictures.tradeoff import tradeoff
from distvae.tasks.pictures.training import learning_curves, telemetry

__all__ = [
    "Picture",
    "QualityPoint",
    "Spectrum",
    "active_latents",
    "code_histograms",
    "decibel",
    "dictionary",
    "draw_now",
    "encodings",
    "fields",
    "grid",
    "learning_curves",
    "levels",
    "pairs",
    "quality_by_batch",
    "responses",
    "sampled_frames",
    "save",
    "show_levels",
    "spectrograms",
    "strips",
    "telemetry",
    "tradeoff",
]
