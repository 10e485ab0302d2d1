"""Definitions of figures, a sentence each. docs/measures.md says more, at each name."""

GLOSSARY = {
    "pesq_wb": (
        "perceptual quality of the resynthesis beside the original, wide band (P.862.2), 1 to "
        "4.64; larger is better"
    ),
    "pesq_nb": "perceptual quality in narrow band (P.862.1), 1 to 4.55; larger is better",
    "pesq_nb_raw": "the P.862 score behind pesq_nb; larger is better",
    "stoi": "short-time objective intelligibility, up to 1; larger is better",
    "estoi": "extended STOI, up to 1; larger is better",
    "si_sdr": "scale-invariant ratio of signal to distortion, in dB; larger is better",
    "isd": "Itakura-Saito divergence of the power spectra, from 0; smaller is better",
    "hoyer": (
        "Hoyer's sparsity of a code, from 0 (all values equal) to 1 (a single value); larger is "
        "sparser"
    ),
    "hoyer_active": (
        "hoyer of the frames within 30 dB of the loudest of their recording; larger is sparser"
    ),
    "effective_atoms": (
        "number of equal values that would be spread as widely as those of a code; smaller is "
        "sparser"
    ),
    "live_atoms": (
        "values of the code with a root mean square above a tenth of the strongest one's"
    ),
    "dead_atoms": "values of the code that are not live",
    "effective_effects": "number of values of a code that matter to the decoder's output",
    "bound": "lower bound of log p(x), nats per data point; larger is better",
    "squared_error": (
        "mean squared error of the reconstruction, in the units of the data; smaller is better"
    ),
    "iw_bound": "importance-weighted bound of log p(x), nats per data point; larger is better",
    "seconds": "mean length of a recording, in seconds",
    "probe_linear": "accuracy of logistic regression on codes; larger is better",
    "probe_sgd": "accuracy of a linear layer on codes, by gradient descent; larger is better",
    "probe_mlp": "accuracy of a small net on codes; larger is better",
    "mig": "mutual information gap, 0 to 1; larger is better",
    "dci": "disentanglement of values by DCI, 0 to 1; larger is better",
    "dci_completeness": "completeness of factors by DCI; larger is better",
    "dci_informativeness": "accuracy of DCI's forests; larger is better",
    "sap": "separated attribute predictability; larger is better",
}
"""Figures by name."""


def meaning(name: str) -> str:
    """Return what a figure means; '' if it is not known."""
    return GLOSSARY.get(name, "")
