"""Where MLflow keeps its records."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a server that is down must not hold up training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password in it
    # of language models; four processes that wait for them
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""The tag by which MLflow's pages know that an experiment is about training."""


def without_secrets(text: str) -> str:
    """A URI, or a message that holds some, without user names, passwords and tokens."""
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)=)[^&\s]+", r"\1...", text)


def error_summary(error: Exception) -> str:
    """What went wrong, in a line that may be shown."""
    text = without_secrets(" ".join(str(error).split()))
    return (
        "nothing answers there"
        if "Max retries exceeded" in text
        else text[:300] or type(error).__name__
    )


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps its records."""

    uri: str

    @classmethod
    def find(cls, root: Path) -> "Store":
        """The store of MLFLOW_TRACKING_URI, or the one embedded in a folder of runs. Paths become
        absolute.
        """
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        scheme, slashes, path = uri.partition(":///")
        return cls(f"sqlite:///{Path(path).absolute()}" if slashes and scheme == "sqlite" else uri)

    @property
    def file(self) -> Path | None:
        """The database of an embedded store."""
        path = self.uri.removeprefix("sqlite:///")
        return Path(path) if path != self.uri else None

    @property
    def viewer(self) -> str:
        """How to look at it."""
        return without_secrets(self.uri) if self.uri.startswith("http") else "distvae ui"

    def client(self) -> Any:
        """A client of a store that is there."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.ERROR)
        return MlflowClient(tracking_uri=self.uri)

    def connect(self, experiment: str) -> tuple[Any, str]:
        """A client, and the id of an experiment that exists from now on."""
        with self._first():
            client = self.client()
            if found := client.get_experiment_by_name(experiment):
                return client, str(found.experiment_id)
            artifacts = (self.file.parent / "mlartifacts").as_uri() if self.file else None
            return client, str(client.create_experiment(experiment, artifacts, TRAINING))

    @contextmanager
    def _first(self) -> Iterator[None]:
        """Alone with an embedded store: first users that create its tables side by side fail."""
        if self.file is None:
            yield
            return
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):
            with closing(
                sqlite3.connect(self.file)
            ) as database:  # says at once what takes MLflow 100 s
                database.execute("pragma journal_mode=wal")
            yield

    def open_client(self) -> Any:
        """A client to read with; a store that does not exist, does not answer or is of a newer
        MLflow is refused.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if self.file is not None and not self.file.is_file():
            raise Refusal(
                f"{self.file}: no records; 'distvae train' and 'distvae tune' make them, or set"
                " MLFLOW_TRACKING_URI"
            )
        try:
            client = self.client()
            client.search_experiments(max_results=1)
        except (
            MlflowException,
            SQLAlchemyError,
            ImportError,
            OSError,
        ) as error:  # a driver may be missing
            why = error_summary(getattr(error, "orig", None) or error)
            raise Refusal(
                f"{without_secrets(self.uri)}: {why}; a store that this MLflow can read expected"
            ) from error
        return client
