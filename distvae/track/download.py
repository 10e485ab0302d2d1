"""Download trained runs from MLflow into folders. Files are copied, and nothing is unpickled."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.files.untrusted import check_relative
from distvae.share.card import summaries
from distvae.track.served import HISTORY, NEEDED
from distvae.track.store import Store, error_summary

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def download_run(record: str, store: Store) -> Path:
    """Return a folder with MLflow's copy of a run: best weights, configuration and history."""
    from distvae.data.folders import build_once, cache_folder

    model = _latest_model(store.open_client(), record)
    folder = cache_folder() / "models" / str(model.model_id)
    build_once(folder, lambda part: _download(store, model, part))
    return folder


def _latest_model(client: "MlflowClient", record: str) -> "LoggedModel":
    """Return the latest completely logged model of a run."""
    complete = []
    for output in client.get_run(record).outputs.model_outputs:
        model = client.get_logged_model(output.model_id)
        if model.status.name == "READY":
            complete.append(model)
    if not complete:
        raise Refusal(
            "no model of it is logged; 'distvae runs --send' where it was trained sends one if it"
            " waits there"
        )
    return max(complete, key=lambda model: model.creation_timestamp)


def _download(store: Store, model: "LoggedModel", folder: Path) -> None:
    """Copy the files of a logged model that a run folder needs."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            downloaded = _data_of(store, model, scratch)
        except Exception as error:  # storage libraries raise errors of many types
            raise Refusal(
                f"its model {model.model_id} cannot be fetched from MLflow: {error_summary(error)}"
            ) from error
        names = {path.name for path in downloaded.iterdir() if path.is_file()}
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise Refusal(
                f"its model {model.model_id} in MLflow has no {missing[0]}; one that 'distvae"
                " train' logged expected"
            )
        for name in names:
            if name in (*NEEDED, *HISTORY) or name.endswith(".safetensors"):
                (downloaded / name).replace(folder / name)
        for name in summaries(downloaded):
            (folder / name).parent.mkdir(parents=True)
            (downloaded / name).replace(folder / name)


def _data_of(store: Store, model: "LoggedModel", scratch: str) -> Path:
    """Download the folder of a run that a logged model opens, without the code beside it."""
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    def fetch(name: str) -> str:
        source = f"{model.artifact_location}/{check_relative(name, 'MLmodel')}"
        found = download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=store.uri)
        return str(found)

    described = Model.load(fetch("MLmodel"))
    return Path(fetch(described.flavors["python_function"]["data"]))
