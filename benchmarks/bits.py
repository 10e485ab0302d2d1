"""Measure how many bits a frame of a sparse code of speech takes, and how it sounds.

Values that are not zero are rounded to 2^B levels between the smallest and the largest value of
their latent. The places of K of H values take log2 (H over K) bits.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pesq import pesq
from scipy.special import gammaln
from torch import Tensor

from benchmarks.output import parser_of, show
from distvae.data.dataset import Array
from distvae.data.speech import recordings_of
from distvae.tasks.resynthesis import Coded, Coder, recordings_of_split, resynthesise, run_coder
from distvae.train.run import Run

BITS = 2, 3, 4, 5, 6, 8
EVERY = 5
"""One of so many test recordings is scored."""


def place_bits(code: Tensor) -> float:
    """Return the mean number of bits for the places of the values of a frame."""
    active, size = (code != 0).sum(1).numpy(), code.shape[1]
    ways = gammaln(size + 1) - gammaln(active + 1) - gammaln(size - active + 1)
    return float(ways.mean() / np.log(2))


def rounded(run: Run, code: Coder, bits: int, low: Tensor, high: Tensor) -> Coder:
    """Return a coder whose values have 2^bits levels."""
    step = ((high - low) / (2**bits - 1)).clamp_min(torch.finfo(low.dtype).tiny)

    @torch.inference_mode()
    def coder(power: Tensor, first: int) -> Coded:
        exact = code(power, first).code
        assert exact is not None
        near = (low + ((exact - low) / step).round() * step).where(exact != 0, 0.0)
        return Coded(run.model.decode(near[:, None])[:, 0].clamp_min(0), near)

    return coder


def measure(run: Run) -> Iterator[dict[str, float]]:
    """Yield the bits of a value and of a frame, and the wide-band PESQ."""
    data, exact = recordings_of(run.config.data), run_coder(run, "mean")
    assert data is not None
    root, recordings = recordings_of_split(data, "test")
    signals: list[Array] = [data.load(root / each.file) for each in recordings[::EVERY]]
    codes = [resynthesise(exact, signal, data).coded.code for signal in signals]
    code = torch.cat([each for each in codes if each is not None])
    active, places = float((code != 0).sum(1).float().mean()), place_bits(code)
    for bits in BITS:
        coder = rounded(run, exact, bits, code.amin(0), code.amax(0))
        scores = [
            pesq(data.rate, signal, resynthesise(coder, signal, data).signal, "wb")
            for signal in signals
        ]
        yield {"value": bits, "frame": active * bits + places, "pesq_wb": float(np.mean(scores))}


def main() -> None:
    """Run as a program."""
    parser = parser_of("bits", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run on speech")
    parsed = parser.parse_args()
    for found in measure(Run.open(parsed.run)):
        text = "{value} bits a value, {frame:.0f} bits a frame: PESQ {pesq_wb:.3f}"
        show(parsed, found, text.format(**found))


if __name__ == "__main__":
    main()
