"""Requirements of measures: each function returns what a configuration lacks, or ''."""

from distvae.config import Config
from distvae.data.family import HasFactors, HasLabels, family_of, kinds_with


def needs_nothing(config: Config) -> str:
    """Require only a model."""
    return ""


def needs_encoder(config: Config) -> str:
    """Require an encoder whose posterior can be sampled."""
    if config.estep.kind == "amortised":
        return ""
    return (
        f"needs an encoder to draw from, and model.kind '{config.model.kind}' has none: its own"
        " bound sums p(x, z) over every kept state and is the tighter; leave iw_bound out and read"
        " bound"
    )


def needs_classes(config: Config) -> str:
    """Require data of a kind that may have classes."""
    if isinstance(family_of(config.data), HasLabels):
        return ""
    return (
        f"needs the class of every data point, and data.kind '{config.data.kind}' has none; "
        f"{_either(HasLabels)} expected"
    )


def needs_factors(config: Config) -> str:
    """Require data whose factors are known."""
    if isinstance(family_of(config.data), HasFactors):
        return ""
    return (
        "needs the factors that decide every data point, which are not known of data.kind "
        f"'{config.data.kind}'; {_either(HasFactors)} expected"
    )


def _either(capability: type) -> str:
    *kinds, last = kinds_with(capability)
    return f"{', '.join(kinds)} or {last}" if kinds else last
