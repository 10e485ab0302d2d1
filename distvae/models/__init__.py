"""One file per model; each reads like the section of its paper."""

from distvae.models import sdm, vae, vsc
from distvae.models.registry import build, register

__all__ = ["build", "register", "sdm", "vae", "vsc"]
