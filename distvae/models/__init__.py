"""One file per model; each reads like the section of its paper."""

from distvae.models import gumbel, sdm, vae, vsc
from distvae.models.registry import build, register

__all__ = ["build", "gumbel", "register", "sdm", "vae", "vsc"]
