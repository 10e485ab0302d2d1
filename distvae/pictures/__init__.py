"""Pictures of what a model learned. Each function returns a matplotlib figure; `save` writes it whole or not at all.

Colours are Okabe and Ito's and perceptually even maps, so that nothing rests on telling red from green.
"""

from distvae.pictures.canvas import save
from distvae.pictures.codes import active_latents, code_histograms, dictionary, responses
from distvae.pictures.data import fields, grid, pairs
from distvae.pictures.spectra import RANGE_DB, decibel, sampled_frames, spectrograms
from distvae.pictures.tradeoff import tradeoff
from distvae.pictures.training import learning_curves, telemetry

__all__ = [
    "RANGE_DB",
    "active_latents",
    "code_histograms",
    "decibel",
    "dictionary",
    "fields",
    "grid",
    "learning_curves",
    "pairs",
    "responses",
    "sampled_frames",
    "save",
    "spectrograms",
    "telemetry",
    "tradeoff",
]
