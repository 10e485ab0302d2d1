"""One-sentence definitions of metrics. docs/measures.md explains each metric in full."""

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
    "objective": (
        "what training maximises, nats per data point: the bound, or a looser or weighted form of "
        "it; larger is better"
    ),
    "psnr": "peak signal-to-noise ratio of the restored picture, in dB; larger is better",
    "ssim": "structural similarity of the restored picture, up to 1; larger is better",
    "snr": "signal-to-noise ratio of the restored sound, in dB; larger is better",
    "snr_gain": "dB by which the restored sound has a better snr than the noisy one",
    "pesq_wb_gain": "by how much the restored sound has a better pesq_wb than the noisy one",
    "active": "mean number of active latents of a data point under the prior",
    "recovered": (
        "share of the true causes that are each the effect of a latent of its own; larger is better"
    ),
    "reliability": (
        "difference of the bound and the true log-likelihood, divided by the size of the latter; "
        "larger is better"
    ),
    "true_log_likelihood": (
        "log p(x) under the parameters that made the data, nats per data point"
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
"""The definition of each metric, by name."""


def meaning(name: str) -> str:
    """Return the definition of a metric, or '' if the metric is not known."""
    return GLOSSARY.get(name, "")
