"""The larger batch that several workers may share, as far as it was measured to hold."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from distvae.config import Config
    from distvae.config.train import Scaling

ENOUGH = 32
"""Rows of a batch that each worker should have."""


class Stretch(NamedTuple):
    """The largest batch at which a model was measured to keep its quality, beside its recipe's."""

    times: int
    """The batch divided by that of the recipe."""
    scaling: "Scaling"
    price: str
    """The quality that is lost."""


MEASURED = {
    "tvae": Stretch(4, "root", "at most 0.3 dB on House"),
    "vae": Stretch(4, "linear", "0.4 nats on MNIST"),
    "vsc": Stretch(4, "linear", "0.7 nats on MNIST"),
}
"""By the kind of model, as measured (docs/scaling.md, "Batches that grow")."""


def suggest_batch(config: "Config", workers: int) -> str:
    """Return a line that suggests a larger batch; '' if workers have enough rows or none holds."""
    train, stretch = config.train, MEASURED.get(config.model.kind)
    each = train.batch // max(workers, 1)
    if workers < 2 or each >= ENOUGH or stretch is None:
        return ""
    base = train.base_batch or train.batch
    batch = min(stretch.times * base, _power_of_two(ENOUGH * workers))
    if batch <= train.batch:
        return ""
    return (
        f"{workers} workers have {each} rows each of a batch of {train.batch};"
        f" train.batch={batch} train.scale_rate={stretch.scaling} give them {batch // workers}"
        f" and cost {stretch.price} in short trainings (docs/scaling.md)"
    )


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()
