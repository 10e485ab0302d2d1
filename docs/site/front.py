"""Draw the quality of speech against the values kept for a frame: `python -m docs.site.front`."""

import re

import matplotlib.pyplot as plt

from distvae.reproduce.rows import group_seeds, read_rows
from docs.site.results import DOCS

LINES = {
    "spike-and-slab by search, 1 024 atoms": r"ssc-1024-\d+",
    "the same, 256 atoms": r"ssc-256-\d+",
    "largest scores of 128 principal components": r"pca-\d+-of-128",
    "top-k autoencoder, 1 024 atoms": r"topk-\d+-of-1024",
    "largest values of 64 of an SDM-VAE": r"sdm-m64-\d+",
    "largest values of 64 of a VSC": r"vsc-m64-\d+",
}


def main() -> None:
    """Write docs/images/speech-front.png."""
    groups = group_seeds(read_rows(DOCS / "results", "speech-codes"))
    figure, axis = plt.subplots(figsize=(6, 4.2), dpi=144, layout="constrained")
    for label, pattern in LINES.items():
        found = [group for name, group in groups.items() if re.fullmatch(pattern, name)]
        points = sorted((each.values("active")[0], each.values("pesq_wb")[0]) for each in found)
        axis.plot(*zip(*points, strict=True), marker="o", label=label)
    axis.set(xlabel="values kept for a frame, in the mean", ylabel="wide-band PESQ", xscale="log")
    axis.set_xticks([4, 8, 16, 32], ["4", "8", "16", "32"], minor=False)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    figure.savefig(DOCS / "images" / "speech-front.png")


if __name__ == "__main__":
    main()
