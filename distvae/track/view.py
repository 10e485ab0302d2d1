"""The charts of a sweep on MLflow's page: parallel coordinates, and a scatter plot of two metrics.

MLflow keeps this view as a tag of the experiment, and the address of the view contains the key of
the tag.
"""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from distvae.track.store import Store

TAG = "mlflow.sharedViewState."
"""The beginning of the tags with views."""
TRAINING = "workflowType=machine_learning"
"""The part of MLflow's page for training. Another part is for language models."""
SECTION = "ranked"
MAX_RUNS = 100
"""Trials in a chart."""


def view_path(experiment: str, sweep: str) -> str:
    """Return the address of the view of a sweep, relative to MLflow's address."""
    state = f"compareRunsMode=CHART&viewStateShareKey={quote(sweep)}"
    return f"#/experiments/{experiment}/runs?{TRAINING}&{state}"


def has_view(store: Store, experiment: str, sweep: str) -> bool:
    """Return whether an experiment has a view of a sweep."""
    return f"{TAG}{sweep}" in store.client().get_experiment(experiment).tags


def view_state(sweep: str, varied: Sequence[str], ranked: Mapping[str, str]) -> str:
    """Return the value of the tag with the view of a sweep's trials.

    `varied` are the parameters that vary, and `ranked` the metrics with their directions.
    """
    first, direction = next(iter(ranked.items()))
    columns = [f"metrics.`{name}`" for name in ranked] + [f"params.`{name}`" for name in varied]
    section = {"uuid": SECTION, "name": "Ranked figures", "columns": 2, "display": True}
    state = {
        "searchFilter": f"tags.mlflow.parentRunId = '{sweep}'",
        "orderByKey": f"metrics.`{first}`",
        "orderByAsc": direction == "min",
        "lifecycleFilter": "Active",
        "startTime": "ALL",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": columns,
        "compareRunCharts": _charts(varied, list(ranked)),
        "compareRunSections": [section],
        "isAccordionReordered": True,
    }
    return json.dumps(state, separators=(",", ":"))


def _charts(varied: Sequence[str], ranked: Sequence[str]) -> list[dict[str, object]]:
    """Return parallel coordinates, a scatter plot of the first two metrics, and bars of each
    metric.
    """
    coordinates = {"selectedParams": varied, "selectedMetrics": ranked}
    charts = [_chart("PARALLEL", "coordinates", coordinates)]
    if len(ranked) > 1:
        x, y = ({"key": name, "type": "METRIC"} for name in (ranked[1], ranked[0]))
        charts.append(_chart("SCATTER", "scatter", {"xaxis": x, "yaxis": y}))
    charts += [_chart("BAR", name, {"metricKey": name}) for name in ranked]
    return charts


def _chart(kind: str, name: str, settings: Mapping[str, object]) -> dict[str, object]:
    common = {"type": kind, "uuid": f"{SECTION}-{name}", "metricSectionId": SECTION}
    return {
        **common,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": MAX_RUNS,
    } | dict(settings)
