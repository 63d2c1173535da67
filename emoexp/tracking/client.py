"""Creates MLflow's store, opens it, and asks what it has of a run. MLflow's global state is left alone.

MLflow reads its retries, time limits and telemetry only from environment variables. This module sets those that the
user has not set, in this process, before it imports MLflow.
"""

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from emoexp.runs import files
from emoexp.tracking import record as recording
from emoexp.tracking.record import Record
from emoexp.tracking.settings import Settings, Store, create_once

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

ID_TAG = "emoexp.folder"
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default, 7 with growing pauses, blocks for four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # s
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # MLflow logs, with a traceback, every error that it also raises
}


def prepare() -> None:
    """Set short waits, no telemetry and little logging for MLflow in this process, before MLflow is imported."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("urllib3.connectionpool", "alembic"):  # they log repeated requests and steps of the schema
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(settings: Settings, store: Store) -> tuple["MlflowClient", str]:
    """A client and the experiment's id. One process creates the store and the experiment, on first use."""
    prepare()
    from mlflow import MlflowClient

    if store.database is None:
        client = MlflowClient(store.uri)
        return client, _experiment(client, settings, store)
    store.database.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(store.database.with_name(f"{store.database.name}.lock")):
        create_once(store.database, _create_schema)
        client = MlflowClient(store.uri)
        return client, _experiment(client, settings, store)


def _create_schema(uri: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, "mlartifacts").engine.dispose()


def _experiment(client: "MlflowClient", settings: Settings, store: Store) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        location = None if store.artifacts is None else f"{store.artifacts}/{recording.slug(settings.experiment)}"
        try:
            return str(client.create_experiment(settings.experiment, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(settings.experiment)  # another client has just created it
    assert experiment is not None
    if experiment.lifecycle_stage == "deleted":
        raise ValueError(
            f"tracking.experiment={settings.experiment} was deleted in MLflow: choose another name, or"
            f" bring it back with `mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)


def get_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """The run; None where MLflow has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def find(client: "MlflowClient", experiment: str, state: dict[str, Any]) -> "Run | None":
    """The MLflow run of a folder: by the run id in its state, else by its tag (where a kill came before the id)."""
    run = get_run(client, state["run_id"]) if "run_id" in state else None
    if run is not None and run.info.lifecycle_stage == "active":
        return run
    matches = client.search_runs([experiment], f"tags.`{ID_TAG}` = '{state['id']}'", max_results=1)
    return client.get_run(matches[0].info.run_id) if matches else None


def values(client: "MlflowClient", run: "Run", record: Record) -> dict[tuple[str, int], float]:
    """The value that MLflow has for each (metric, step). A metric with a single step needs no request of its own."""
    stepwise = {point.key for point in record.points if point.step != recording.FINAL_STEP}
    values = {(key, recording.FINAL_STEP): value for key, value in run.data.metrics.items() if key not in stepwise}
    for key in stepwise & run.data.metrics.keys():
        history = sorted(client.get_metric_history(run.info.run_id, key), key=lambda metric: metric.timestamp)
        values |= {(key, metric.step): metric.value for metric in history}
    return values


def dataset(data: dict[str, Any]) -> "DatasetInput":
    """The data's fingerprint as an input of the run; no pixel is logged."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = str(data.get("content") or recording.digest(data))[:36]
    profile = json.dumps(data, ensure_ascii=False)
    name = str(data.get("source", "images"))
    source = json.dumps({"tags": {"mlflow.source.name": "emoexp", "mlflow.source.type": "LOCAL"}})
    entity = Dataset(name, digest, "code", source, profile=profile)
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
