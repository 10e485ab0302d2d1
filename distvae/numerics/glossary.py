"""What figures mean, in a sentence each. docs/measures.md says more about each."""

from typing import NamedTuple


class Entry(NamedTuple):
    """The meaning of a figure."""

    meaning: str
    section: str
    """The section of docs/measures.md that defines it."""


RECORDINGS = "Closeness to a recording"
CODES = "Sparsity of codes"
ROWS = "Bound and error"
FACTORS = "Disentanglement"
GLOSSARY = {
    "pesq_wb": Entry(
        "perceptual quality of the resynthesis beside the original, wide band (P.862.2), 1 to "
        "4.64; larger is better",
        RECORDINGS,
    ),
    "pesq_nb": Entry(
        "the same in narrow band (P.862.1), 1 to 4.55; larger is better",
        RECORDINGS,
    ),
    "pesq_nb_raw": Entry("the P.862 score behind pesq_nb; larger is better", RECORDINGS),
    "stoi": Entry("short-time objective intelligibility, up to 1; larger is better", RECORDINGS),
    "estoi": Entry("extended STOI, up to 1; larger is better", RECORDINGS),
    "si_sdr": Entry(
        "scale-invariant ratio of signal to distortion, in dB; larger is better", RECORDINGS
    ),
    "isd": Entry(
        "Itakura-Saito divergence of the power spectra, from 0; smaller is better", RECORDINGS
    ),
    "hoyer": Entry(
        "Hoyer's sparsity of a code, from 0 (all values equal) to 1 (a single value); larger is "
        "sparser",
        CODES,
    ),
    "hoyer_active": Entry(
        "hoyer of the frames within 30 dB of the loudest of their recording; larger is sparser",
        CODES,
    ),
    "effective_atoms": Entry(
        "number of equal values that would be spread as widely as those of a code; smaller is "
        "sparser",
        CODES,
    ),
    "live_atoms": Entry(
        "values of the code with a root mean square above a tenth of the strongest one's", CODES
    ),
    "dead_atoms": Entry("values of the code that are not live", CODES),
    "effective_effects": Entry(
        "number of values of a code that matter to the decoder's output",
        "Number of values that matter",
    ),
    "bound": Entry("lower bound of log p(x), nats per data point; larger is better", ROWS),
    "squared_error": Entry(
        "mean squared error of the reconstruction, in the units of the data; smaller is better",
        ROWS,
    ),
    "iw_bound": Entry(
        "importance-weighted bound of log p(x), nats per data point; larger is better",
        "Importance-weighted bound",
    ),
    "probe_linear": Entry("accuracy of logistic regression on codes; larger is better", "Probes"),
    "probe_sgd": Entry(
        "accuracy of a linear layer on codes, by gradient descent; larger is better", "Probes"
    ),
    "probe_mlp": Entry("accuracy of a small net on codes; larger is better", "Probes"),
    "mig": Entry("mutual information gap, 0 to 1; larger is better", FACTORS),
    "dci": Entry("disentanglement of values by DCI, 0 to 1; larger is better", FACTORS),
    "dci_completeness": Entry("completeness of factors by DCI; larger is better", FACTORS),
    "dci_informativeness": Entry("accuracy of DCI's forests; larger is better", FACTORS),
    "sap": Entry("separated attribute predictability; larger is better", FACTORS),
}
"""Figures by name."""


def meaning(name: str) -> str:
    """Return what a figure means; '' if it is not known."""
    return GLOSSARY[name].meaning if name in GLOSSARY else ""
