"""The names of metrics in MLflow, which shows metrics with the same prefix together.

A metric `pesq_wb` of the group `quality` is `quality/pesq_wb` in MLflow. Records from before groups
existed have plain names. Outside this package, metrics have plain names.
"""

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from distvae.numerics.metrics import Group

GROUPS = get_args(Group)
REFUSED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in the names of parameters."""
METRIC = re.compile(r"""metrics?\.(?:`([^`]+)`|"([^"]+)"|([\w.]+))""")
"""A metric in a filter of MLflow."""


def metric_name(figure: str, groups: Mapping[str, str]) -> str:
    """Return the name of a metric in MLflow, where `groups` maps metrics to their groups."""
    return f"{groups[figure]}/{figure}" if figure in groups else figure


def figure_name(metric: str) -> str:
    """Return the plain name of a metric of MLflow."""
    group, _, figure = metric.partition("/")
    return figure if group in GROUPS else metric


def parameter_name(setting: str) -> str:
    """Return the name of a setting in MLflow, which refuses `axis.model.latent#2` for example."""
    return REFUSED.sub(":", setting)


def model_name(sweep: str) -> str:
    """Return the name of a registered model, for which MLflow refuses '/' and ':'."""
    return re.sub("[/:]", "-", sweep)


def grouped_filter(where: str, metrics: Iterable[str]) -> str:
    """Translate the plain names in a filter to the names of MLflow's metrics."""
    names = {figure_name(metric): metric for metric in sorted(metrics)}

    def rename(found: re.Match[str]) -> str:
        figure = next(text for text in found.groups() if text)
        return f"metrics.`{names.get(figure, figure)}`"

    return METRIC.sub(rename, where)
