"""The names of metrics in MLflow, which shows those with one prefix together.

A figure `pesq_wb` of the group `quality` is the metric `quality/pesq_wb`. Records that were made
before there were groups have the plain names. Everywhere else figures have their plain names.
"""

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from distvae.numerics.figures import Group

GROUPS = get_args(Group)
REFUSED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in the names of parameters."""
METRIC = re.compile(r"""metrics?\.(?:`([^`]+)`|"([^"]+)"|([\w.]+))""")
"""A metric in a filter of MLflow."""


def metric_name(figure: str, groups: Mapping[str, str]) -> str:
    """Return the name of a figure in MLflow, where `groups` has the groups of figures."""
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
    """Return a filter that names figures plainly as one that names metrics of MLflow."""
    names = {figure_name(metric): metric for metric in sorted(metrics)}

    def rename(found: re.Match[str]) -> str:
        figure = next(text for text in found.groups() if text)
        return f"metrics.`{names.get(figure, figure)}`"

    return METRIC.sub(rename, where)
