"""Facts about the data, the program and the machine of a run, in MLflow's form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from distvae.files.untrusted import read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from distvae.train.run_folder import RunInfo


def run_info(folder: Path) -> "RunInfo | None":
    """Return the facts in run.json, or None in a sweep folder."""
    file = folder / "run.json"
    return cast("RunInfo", read_json(file)) if file.exists() else None


def provenance_tags(info: "RunInfo | None") -> dict[str, str]:
    """Return the recorded facts about the program and the machine as tags."""
    if not info:
        return {}
    tags = {}
    for name, version in (info.get("versions") or {}).items():
        tags[f"versions.{name}"] = str(version)
    for name, value in (info.get("machine") or {}).items():
        tags[f"machine.{name}"] = str(value)
    return tags | {"commit": str(info.get("commit"))}


def describe_data(
    client: "MlflowClient", record: str, info: "RunInfo", params: Mapping[str, str]
) -> None:
    """Send the description of a record's data.

    Another process may describe the same data between MLflow's check for existing data and its
    write. MLflow then refuses the description, and finds the data in a second attempt.
    """
    from mlflow.exceptions import MlflowException

    data = [_dataset_input(info, params)]
    try:
        client.log_inputs(record, data)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.log_inputs(record, data)


def _dataset_input(info: "RunInfo", params: Mapping[str, str]) -> "DatasetInput":
    """Return the data of a run, with its digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": str(params.get("data.path", ""))})
    profile = json.dumps({"rows": info["rows"], "unit": info["unit"], "values": info["dims"]})
    name, digest = info["data"][:500], info["data_digest"][:36]  # the lengths that MLflow allows
    data = Dataset(name, digest, "local", source, profile=profile)
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
