"""One run folder and its MLflow run. Everything here may be repeated, and interrupted anywhere.

Points carry their time and step from the folder, so that one that is sent twice, because a kill or a lost
answer came between, is stored once.
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

    Raises ValueError for settings that cannot work or a folder that is not a run's, and whatever MLflow
    raises when it cannot be reached; the next call then goes on from there.
    """
    store = locate(settings)
    if store is not None:
        Mirror(folder, settings, store).sync()


def behind(folder: Path, settings: Settings, *, ask: bool = True) -> bool:
    """Whether MLflow lacks something of a run folder. A run that a person deleted in MLflow lacks nothing.

    ask: ask MLflow whether it still has the run, instead of believing the folder.
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
    """End the runs below `outputs` that say RUNNING while nobody holds their lock: they become KILLED.

    That is so in status.json and in MLflow. Runs that MLflow believes RUNNING on this machine and whose
    folder is gone, or was begun anew, are ended there too. Returns the names of the folders that were closed.
    Where MLflow cannot be reached the folders are closed all the same, and a later `mirror` tells it.
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
    except (OSError, ValueError) as error:  # one damaged folder must not keep the others open
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
    """One run folder, its MLflow run, and what stands there as far as we know: `mirror`, many times.

    Asked of the server once, on opening, and remembered: in the steady state an epoch costs one request.
    """

    def __init__(self, folder: Path, settings: Settings, store: Store) -> None:
        self._folder, self._settings, self._store = folder.absolute(), settings, store
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._state: dict[str, Any] = {}  # of tracking.json
        self._status: tuple[str, int | None] = ("", None)  # and when it ended, ms since 1970
        self._tags: dict[str, str] = {}
        self._params: dict[str, str] = {}
        self._values: dict[tuple[str, int], float] = {}  # of each (metric, step)
        self._has_data = False

    def sync(self) -> None:
        """Read the folder and add to MLflow what it lacks."""
        with files.lock(self._folder / LOCK):
            signature = recording.signature(self._folder)  # first: what is written meanwhile counts as new
            record = recording.read(self._folder, checkpoint=self._settings.log_checkpoint)
            client = self._client or self._open(record)
            if record.status == "RUNNING" and self._status[0] != "RUNNING":
                client.update_run(self._run_id, status="RUNNING")  # it was resumed
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
        """Keep in tracking.json why MLflow is behind; ask MLflow anew what it has when it is back."""
        self._client = None
        with contextlib.suppress(OSError, ValueError):  # the disk may be what failed
            files.write_json(self._folder / STATE, {**files.read_json(self._folder / STATE), "error": error})

    def _open(self, record: Record) -> "MlflowClient":
        """Find the folder's run in MLflow, or create it, and ask what stands there."""
        identity = _identity(self._settings, self._store)
        self._state = _read_state(self._folder, identity)
        if "id" not in self._state:
            self._state = {"id": uuid.uuid4().hex, **identity}
            # Before the run exists: a kill in between must not leave a run that the folder does not know.
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
        """Params, once: MLflow lets none change, and a tag tells of a change. Tags. The data."""
        from mlflow.entities import Param, RunTag

        known = self._params
        changed = [f"{k}: {known[k]} -> {v}" for k, v in record.params.items() if k in known and known[k] != v]
        wanted = dict(record.tags) | self._parent()
        if changed:
            wanted["emoexp.changed"] = recording.clip("; ".join(changed), recording.TAG_LENGTH)
        params = [Param(key, value) for key, value in record.params.items() if key not in known]
        tags = [RunTag(key, value) for key, value in wanted.items() if self._tags.get(key) != value]
        for part in _chunks(params, 100):
            client.log_batch(self._run_id, params=part)
        for part in _chunks(tags, 100):
            client.log_batch(self._run_id, tags=part)
        for key in self._tags.keys() & {"emoexp.error", "emoexp.infinite"} - wanted.keys():
            client.delete_tag(self._run_id, key)  # a resumed run has no error any more
            del self._tags[key]
        self._params |= {param.key: param.value for param in params}
        self._tags |= wanted
        if record.data and not self._has_data:
            client.log_inputs(self._run_id, datasets=[store_client.dataset(record.data)])
            self._has_data = True

    def _parent(self) -> dict[str, str]:
        """The tag that makes this run a child of the first sweep it was a cell of; given once, it stays."""
        found = self._tags.get(PARENT_TAG) or parent(self._folder, _identity(self._settings, self._store))
        if found is None:
            return {}
        self._state["parent"] = found
        return {PARENT_TAG: found}

    def _measure(self, client: "MlflowClient", points: list[Point]) -> None:
        """Send what is not there. A point whose value changed is sent too: its time makes it the newer."""
        from mlflow.entities import Metric

        for part in _chunks([point for point in points if self._lacks(point)], 1000):
            client.log_batch(self._run_id, metrics=[Metric(p.key, p.value, p.timestamp, p.step) for p in part])
            self._values |= {(point.key, point.step): point.value for point in part}

    def _lacks(self, point: Point) -> bool:
        known = self._values.get((point.key, point.step))
        if known is None:
            return True
        if point.key.startswith("time/") or (math.isnan(known) and math.isnan(point.value)):
            return False  # an epoch that was repeated after a kill took another time: the first is kept
        return not math.isclose(known, point.value, rel_tol=1e-12)

    def _upload(self, client: "MlflowClient", record: Record) -> None:
        done = self._state.setdefault("files", {})
        for path, stamp in record.files.items():
            if done.get(path) != stamp:
                client.log_artifact(self._run_id, str(self._folder / path), path.rpartition("/")[0] or None)
                done[path] = stamp

    def _finish(self, client: "MlflowClient", record: Record) -> None:
        if record.status in recording.ENDED and self._status != (record.status, record.ended):
            client.set_terminated(self._run_id, record.status, record.ended)
            self._status = (record.status, record.ended)

    def _log_model(self, client: "MlflowClient") -> None:
        program = self._folder / model.PROGRAM
        if program.exists() and self._state.get("model", {}).get("digest") != model.digest(program):
            logged = model.log(client, self._run_id, program)
            self._state["model"] = {"digest": model.digest(program), "id": logged}


def parent(folder: Path, identity: dict[str, str]) -> str | None:
    """The id in MLflow of the first sweep that a run is a cell of and that MLflow has; None where there is none."""
    for sweep in recording.sweeps(folder):
        for place in (Path.cwd(), folder.absolute().parents[1]):
            state = _read_state(place / sweep, identity)
            if "run_id" in state:
                return str(state["run_id"])
    return None


def brief(error: Exception) -> str:
    """The first line of an error, without the password that an address in it may carry."""
    lines = redact(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _identity(settings: Settings, store: Store) -> dict[str, str]:
    """What tracking.json says of the store: enough to see that it is another one, without the password."""
    digest = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return {"store": redact(store.uri), "store_digest": digest, "experiment": settings.experiment}


def _read_state(folder: Path, identity: dict[str, str]) -> dict[str, Any]:
    """tracking.json; of that of another store only the folder's own id counts."""
    state = files.read_json(folder / STATE)
    return state if identity.items() <= state.items() else {key: state[key] for key in ("id",) if key in state}


def _chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
