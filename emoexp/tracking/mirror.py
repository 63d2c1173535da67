"""Brings the MLflow run of one folder up to date. Everything here may be repeated, and interrupted at any point.

The time and step of a metric's point come from the folder. So a point that is sent twice, after a kill or a lost
answer, is stored once.
"""

import contextlib
import hashlib
import logging
import math
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoexp.runs import files
from emoexp.runs import folder as runs
from emoexp.tracking import client as store_client
from emoexp.tracking import model
from emoexp.tracking import record as recording
from emoexp.tracking.record import Point, Record
from emoexp.tracking.settings import Settings, Store, locate, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

STATE = "tracking.json"
PARENT_TAG = "mlflow.parentRunId"
LOCK = "tracking.lock"


def mirror(folder: Path, settings: Settings) -> None:
    """Bring MLflow up to date with a run folder. May be repeated, interrupted, and called by many processes.

    Raises ValueError for settings that cannot work or a folder that is not a run's, and MLflow's own errors when it
    cannot be reached; the next call then continues.
    """
    store = locate(settings)
    if store is not None:
        Mirror(folder, settings, store).sync()


def behind(folder: Path, settings: Settings, *, ask: bool = True) -> bool:
    """Whether MLflow lacks something of a run folder. For a run that a person deleted in MLflow the answer is no.

    ask: also ask MLflow whether it still has the run; without, only the folder's tracking.json decides.
    """
    store = locate(settings)
    if store is None:
        return False
    state = _read_state(folder, _identity(settings, store))
    if state.get("mirrored") != recording.signature(folder) or "run_id" not in state:
        return True
    if "parent" not in state and parent(folder, _identity(settings, store)):
        return True
    if not ask:
        return False
    client, _ = store_client.connect(settings, store)
    return store_client.get_run(client, state["run_id"]) is None


def close_dead(outputs: Path, settings: Settings) -> list[str]:
    """Set to KILLED, in status.json and MLflow, the runs below `outputs` that say RUNNING and whose lock nobody holds.

    Runs that are RUNNING in MLflow on this machine, and whose folder is gone or was started anew, are ended in MLflow
    too. Where MLflow cannot be reached, the folders are closed all the same, and a later `mirror` updates MLflow.

    Returns the names of the folders that were closed.
    """
    closed = [folder for folder in runs.all_runs(outputs) if _close(folder)]
    store = locate(settings)
    if store is None:
        return [folder.name for folder in closed]
    try:
        for folder in closed:
            Mirror(folder, settings, store).sync()
        _close_orphans(outputs, *store_client.connect(settings, store))
    except Exception as error:  # noqa: BLE001 - MLflow may raise anything, and the folders are closed
        _log.warning("tracking: closed runs are not yet shown in MLflow: %s", brief(error))
    return [folder.name for folder in closed]


def _close(folder: Path) -> bool:
    try:
        return runs.close_if_dead(folder)
    except (OSError, ValueError) as error:  # after an error of one folder the others are still closed
        _log.warning("tracking: %s cannot be closed: %s", folder.name, brief(error))
        return False


def _close_orphans(outputs: Path, client: "MlflowClient", experiment: str) -> None:
    host = os.uname().nodename
    for run in client.search_runs([experiment], f"attributes.status = 'RUNNING' and tags.`emoexp.host` = '{host}'"):
        folder = Path(run.data.tags.get("emoexp.path", ""))
        if folder.parent != outputs.absolute():
            continue
        if files.read_json(folder / STATE).get("id") != run.data.tags.get(store_client.ID_TAG):
            client.set_terminated(run.info.run_id, "KILLED")


class Mirror:
    """Calls `mirror` many times for one run folder.

    It asks MLflow once what it has of the run, and remembers that: then an epoch needs only one request.
    """

    def __init__(self, folder: Path, settings: Settings, store: Store) -> None:
        self._folder, self._settings, self._store = folder.absolute(), settings, store
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._state: dict[str, Any] = {}  # of tracking.json
        self._status: tuple[str, int | None] = ("", None)  # the status in MLflow, and the end time in ms since 1970
        self._tags: dict[str, str] = {}
        self._params: dict[str, str] = {}
        self._values: dict[tuple[str, int], float] = {}  # of each (metric, step)
        self._has_data = False

    def sync(self) -> None:
        """Read the folder and add to MLflow what it lacks."""
        with files.lock(self._folder / LOCK):
            signature = recording.signature(
                self._folder
            )  # before reading: what is written while we read then counts as new
            record = recording.read(self._folder, checkpoint=self._settings.log_checkpoint)
            client = self._client or self._open(record)
            if record.status == "RUNNING" and self._status[0] != "RUNNING":
                client.update_run(self._run_id, status="RUNNING")  # the run was resumed
                self._status = ("RUNNING", None)
            self._describe(client, record)
            self._measure(client, record.points)
            try:
                self._upload(client, record)
                if record.status == "FINISHED" and self._settings.log_model:
                    self._log_model(client)
                self._finish(client, record)
                self._state["mirrored"] = signature
                self._state.pop("error", None)
            finally:
                files.write_json(self._folder / STATE, self._state)

    def failed(self, error: str) -> None:
        """Write into tracking.json why MLflow is not up to date. The next `sync` asks MLflow again what it has."""
        self._client = None
        with contextlib.suppress(OSError, ValueError):  # the error may be one of the disk
            files.write_json(self._folder / STATE, {**files.read_json(self._folder / STATE), "error": error})

    def _open(self, record: Record) -> "MlflowClient":
        """Find the folder's run in MLflow, or create it, and ask what MLflow has of it."""
        identity = _identity(self._settings, self._store)
        self._state = _read_state(self._folder, identity)
        if "id" not in self._state:
            self._state = {"id": uuid.uuid4().hex, **identity}
            # Before the run is created: after a kill in between, the folder still finds the run by this id.
            files.write_json(self._folder / STATE, self._state)
        client, experiment = store_client.connect(self._settings, self._store)
        run = store_client.find(client, experiment, self._state)
        if run is None:
            self._state = {"id": self._state["id"], **identity}
            tags = {store_client.ID_TAG: self._state["id"], "emoexp.run": record.name}
            run = client.create_run(experiment, start_time=record.started, tags=tags, run_name=record.name)
        self._state = {**self._state, **identity, "run_id": run.info.run_id}
        self._run_id, self._status = run.info.run_id, (run.info.status, run.info.end_time)
        self._tags, self._params = dict(run.data.tags), dict(run.data.params)
        self._has_data = bool(run.inputs and run.inputs.dataset_inputs)
        self._values = store_client.values(client, run, record)
        self._client = client
        return client

    def _describe(self, client: "MlflowClient", record: Record) -> None:
        """Send params, tags and the data. MLflow lets no param change: a changed one is reported in a tag."""
        from mlflow.entities import Param, RunTag

        sent = self._params
        changed = [f"{k}: {sent[k]} -> {v}" for k, v in record.params.items() if k in sent and sent[k] != v]
        current_tags = dict(record.tags) | self._parent()
        if changed:
            current_tags["emoexp.changed"] = recording.clip("; ".join(changed), recording.TAG_LENGTH)
        params = [Param(key, value) for key, value in record.params.items() if key not in sent]
        tags = [RunTag(key, value) for key, value in current_tags.items() if self._tags.get(key) != value]
        for part in _chunks(params, 100):
            client.log_batch(self._run_id, params=part)
        for part in _chunks(tags, 100):
            client.log_batch(self._run_id, tags=part)
        for key in self._tags.keys() & {"emoexp.error", "emoexp.infinite"} - current_tags.keys():
            client.delete_tag(self._run_id, key)  # a resumed run no longer has the error
            del self._tags[key]
        self._params |= {param.key: param.value for param in params}
        self._tags |= current_tags
        if record.data and not self._has_data:
            client.log_inputs(self._run_id, datasets=[store_client.dataset(record.data)])
            self._has_data = True

    def _parent(self) -> dict[str, str]:
        """The tag that makes this run a child of the first sweep that it was a cell of. It does not change later."""
        parent_id = self._tags.get(PARENT_TAG) or parent(self._folder, _identity(self._settings, self._store))
        if parent_id is None:
            return {}
        self._state["parent"] = parent_id
        return {PARENT_TAG: parent_id}

    def _measure(self, client: "MlflowClient", points: list[Point]) -> None:
        """Send the points that MLflow lacks. A point whose value changed is sent again, with a newer time."""
        from mlflow.entities import Metric

        for part in _chunks([point for point in points if self._lacks(point)], 1000):
            client.log_batch(self._run_id, metrics=[Metric(p.key, p.value, p.timestamp, p.step) for p in part])
            self._values |= {(point.key, point.step): point.value for point in part}

    def _lacks(self, point: Point) -> bool:
        sent = self._values.get((point.key, point.step))
        if sent is None:
            return True
        if point.key.startswith("time/") or (math.isnan(sent) and math.isnan(point.value)):
            return False  # an epoch that is repeated after a kill takes another time: the first time stays
        return not math.isclose(sent, point.value, rel_tol=1e-12)

    def _upload(self, client: "MlflowClient", record: Record) -> None:
        uploaded = self._state.setdefault("files", {})
        for path, stamp in record.files.items():
            if uploaded.get(path) != stamp:
                client.log_artifact(self._run_id, str(self._folder / path), path.rpartition("/")[0] or None)
                uploaded[path] = stamp

    def _finish(self, client: "MlflowClient", record: Record) -> None:
        if record.status in recording.ENDED and self._status != (record.status, record.ended):
            client.set_terminated(self._run_id, record.status, record.ended)
            self._status = (record.status, record.ended)

    def _log_model(self, client: "MlflowClient") -> None:
        program = self._folder / model.PROGRAM
        if program.exists() and self._state.get("model", {}).get("digest") != model.digest(program):
            model_id = model.log(client, self._run_id, program)
            self._state["model"] = {"digest": model.digest(program), "id": model_id}


def parent(folder: Path, identity: dict[str, str]) -> str | None:
    """The id in MLflow of the first sweep that a run is a cell of and that MLflow has; None where there is none."""
    for sweep in recording.sweeps(folder):
        for working_folder in (Path.cwd(), folder.absolute().parents[1]):
            state = _read_state(working_folder / sweep, identity)
            if "run_id" in state:
                return str(state["run_id"])
    return None


def brief(error: Exception) -> str:
    """The first line of an error, without the password that an address in it may carry."""
    lines = redact(str(error)).strip().splitlines()
    line = lines[0][:300] if lines else ""
    return line if isinstance(error, ValueError) and line else f"{type(error).__name__}: {line}"  # ours say what to do


def _identity(settings: Settings, store: Store) -> dict[str, str]:
    """What tracking.json records of the store: enough to recognise another store, and no password."""
    digest = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return {"store": redact(store.uri), "store_digest": digest, "experiment": settings.experiment}


def _read_state(folder: Path, identity: dict[str, str]) -> dict[str, Any]:
    """The content of tracking.json. Where it was written for another store, only the folder's id."""
    state = files.read_json(folder / STATE)
    return state if identity.items() <= state.items() else {key: state[key] for key in ("id",) if key in state}


def _chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
