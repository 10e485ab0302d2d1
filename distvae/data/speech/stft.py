"""Short-time Fourier transform with an exact inverse, used for both training and scoring."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distvae.config.values import POWER_FLOOR


@dataclass(frozen=True)
class Stft:
    """Frames under a symmetric sine window, un-normalised, centred on multiples of the hop
    (reflected at the ends).

    The inverse is exact to float32's last digits; at a hop of half the window, where only the
    window's edge sees a signal's last samples, to 3e-5.
    """

    window: int
    hop: int

    def frames(self, samples: int) -> int:
        """Return the number of frames of a signal of so many samples."""
        return (samples + 2 * (self.window // 2) - self.window) // self.hop + 1

    def spectrum(self, signal: Tensor) -> Tensor:
        """Return the complex spectrum (..., frames, bins) of a signal (..., samples) longer than
        half a window.
        """
        spectrum = torch.stft(
            signal,
            self.window,
            self.hop,
            window=self._sine(signal),
            pad_mode="reflect",
            return_complex=True,
        )
        return spectrum.mT

    def signal(self, spectrum: Tensor, length: int) -> Tensor:
        """Return the signal (..., length) of a spectrum (..., frames, bins) by overlap and add."""
        return torch.istft(
            spectrum.mT, self.window, self.hop, window=self._sine(spectrum.real), length=length
        )

    def _sine(self, like: Tensor) -> Tensor:
        phase = (torch.arange(self.window, dtype=torch.float64) + 0.5) * (torch.pi / self.window)
        return phase.sin().to(like)


def power(spectrum: Tensor) -> Tensor:
    """Return |X|^2 with a floor, because recordings hold digital silence."""
    return torch.view_as_real(spectrum).square().sum(-1).clamp_min(POWER_FLOOR)
