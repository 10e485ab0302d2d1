"""The charts of a sweep on MLflow's page: parallel coordinates of what varied and of what ranks.

MLflow keeps such a view as a tag of the experiment, and the key of the tag is in its address.
"""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from distvae.track.store import Record, Store, figure_name, sweep_metrics

TAG = "mlflow.sharedViewState."
"""The beginning of the tags with views."""
TRAINING = "workflowType=machine_learning"
"""The part of MLflow's page for training. Another part is for language models."""
SECTION = "ranked"
MAX_RUNS = 100
"""The most trials in a chart."""


def put_view(store: Store, sweep: Record, trials: Sequence[Record]) -> str:
    """Store the view of a sweep with trials, and return its address below that of MLflow."""
    client = store.open_client()
    known = {figure_name(name): name for name in client.get_run(trials[0].id).data.metrics}
    ranked = {known[name]: mode for name, mode in sweep_metrics(sweep).items() if name in known}
    state = json.dumps(_state(sweep.id, _varied(sweep, trials), ranked))
    client.set_experiment_tag(sweep.experiment_id, f"{TAG}{sweep.id}", state)
    key = f"compareRunsMode=CHART&viewStateShareKey={quote(sweep.id)}"
    return f"#/experiments/{sweep.experiment_id}/runs?{TRAINING}&{key}"


def _varied(sweep: Record, trials: Sequence[Record]) -> list[str]:
    """Return the axes that all trials have, with several values. MLflow draws no line for a trial
    that lacks an axis.
    """
    spans: dict[str, list[str]] = {}
    for name, span in sweep.params.items():
        if name.startswith("axis."):
            spans.setdefault(name.removeprefix("axis.").partition(":")[0], []).append(span)
    several = [key for key, texts in spans.items() if " " in " ".join(texts)]
    values = {key: {trial.params.get(key) for trial in trials} for key in several}
    return [key for key in several if None not in values[key] and len(values[key]) > 1]


def _state(sweep: str, varied: Sequence[str], ranked: Mapping[str, str]) -> dict[str, object]:
    first, direction = next(iter(ranked.items()))
    columns = [f"metrics.`{name}`" for name in ranked] + [f"params.`{name}`" for name in varied]
    section: dict[str, object] = {"uuid": SECTION, "name": "Trials", "display": True}
    section |= {"isReordered": True, "columns": 1, "cardHeight": 400}
    return {
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


def _charts(varied: Sequence[str], ranked: Sequence[str]) -> list[dict[str, object]]:
    """Return parallel coordinates, the front if two figures rank, and bars of each figure."""
    coordinates = {"selectedParams": varied, "selectedMetrics": ranked}
    charts = [_chart("PARALLEL", "coordinates", coordinates)]
    if len(ranked) > 1:
        x, y = ({"key": name, "type": "METRIC"} for name in (ranked[1], ranked[0]))
        charts.append(_chart("SCATTER", "front", {"xaxis": x, "yaxis": y}))
    return charts + [_chart("BAR", name, {"metricKey": name}) for name in ranked]


def _chart(kind: str, name: str, settings: Mapping[str, object]) -> dict[str, object]:
    common = {"type": kind, "uuid": f"{SECTION}-{name}", "metricSectionId": SECTION}
    fixed = {"deleted": False, "isGenerated": False, "runsCountToCompare": MAX_RUNS}
    return {**common, **fixed, **settings}
