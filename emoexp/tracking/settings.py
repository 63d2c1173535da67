"""MLflow's address and options, checked before anything is loaded or trained. Imports no MLflow."""

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from emoexp.runs.files import move_into_place

KINDS = ("mlflow", "server", "none")
SQLITE = "sqlite:///"
SPECIAL = re.compile(r"[%?#]")  # in the path of an address
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs")  # file systems


@dataclass(frozen=True)
class Settings:
    """How a run is shown in MLflow; one option of the `tracking` group.

    kind: "mlflow" (an SQLite file here), "server" (somebody's MLflow server or its database) or "none".
    uri: null means `mlflow.db` in the working folder for "mlflow", and MLFLOW_TRACKING_URI for "server".
    artifacts: folder or address of the files of a new experiment; null means `mlartifacts` beside the SQLite
    file, or whatever the server decides. timeout_s: how long the end of a run waits for MLflow, in seconds.

    Raises ValueError for a kind, an address, a name or a time that cannot work.
    """

    kind: str
    uri: str | None = None
    experiment: str = "emoexp"
    artifacts: str | None = None
    log_model: bool = True
    log_checkpoint: bool = False
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"tracking.kind={self.kind!r}: choose one of {', '.join(KINDS)}")
        if not self.experiment or len(self.experiment) > 250:
            raise ValueError("tracking.experiment: a name of 1 to 250 characters is needed")
        if not 0.0 < self.timeout_s < 3600.0:
            raise ValueError(f"tracking.timeout_s={self.timeout_s}: seconds, more than 0 and less than 3600")
        if self.kind != "none" and self.uri is not None:
            _check(self.kind, self.uri)


def _check(kind: str, uri: str) -> None:
    """Refuse an address that MLflow would refuse later, during a run and with a less clear message."""
    scheme = uri.split(":", 1)[0].lower() if ":" in uri else ""
    if scheme in ("", "file"):
        raise ValueError(
            f"tracking.uri={uri!r} is a folder, and MLflow no longer keeps runs in folders: use a file,"
            f" tracking.uri=sqlite:///{uri.split('://')[-1].rstrip('/') or 'mlflow'}.db,"
            " or leave tracking.uri=null for mlflow.db in the working folder"
        )
    if kind == "mlflow" and (not uri.startswith(SQLITE) or uri in (SQLITE, f"{SQLITE}:memory:")):
        raise ValueError(
            f"tracking.uri={redact(uri)!r}: tracking=mlflow keeps runs in an SQLite file, sqlite:///<path>;"
            " for anything else say tracking=server"
        )


def redact(text: str) -> str:
    """The text without the user and password that an address may carry."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


@dataclass(frozen=True)
class Store:
    """An MLflow store. database: its SQLite file; None for a server. artifacts: None where the server decides."""

    uri: str
    database: Path | None
    artifacts: str | None
    notes: tuple[str, ...]  # sentences for the log, such as on a variable that is ignored


def locate(settings: Settings, folder: Path | None = None) -> Store | None:
    """The store of some settings; None for "none". folder: the working folder, by default the current one.

    Raises ValueError when tracking=server has no address.
    """
    if settings.kind == "none":
        return None
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    uri = settings.uri
    if settings.kind == "server":
        uri = uri or variable
        if not uri:
            raise ValueError("tracking=server needs an address: tracking.uri=http://host:5000 (or MLFLOW_TRACKING_URI)")
        _check("server", uri)
        if not uri.startswith(SQLITE):
            return Store(uri, None, settings.artifacts, ())
    return _local(settings, uri, (folder or Path.cwd()).absolute(), variable)


def _local(settings: Settings, uri: str | None, folder: Path, variable: str | None) -> Store:
    database = folder / (unquote(uri.removeprefix(SQLITE).split("?", 1)[0]) if uri else "mlflow.db")
    artifacts = settings.artifacts
    if artifacts is None or "://" not in artifacts:
        artifacts = (folder / (artifacts or database.parent / "mlartifacts")).as_uri()
    address = address_of(database)
    return Store(address, database, artifacts, _notes(settings, database, address, variable))


def _notes(settings: Settings, database: Path, address: str, variable: str | None) -> tuple[str, ...]:
    notes = []
    if settings.kind == "mlflow" and variable and variable != address:
        notes.append(
            f"MLFLOW_TRACKING_URI={redact(variable)} is not used: this run goes to {address};"
            " tracking=server follows the variable"
        )
    if any((database.parent / "mlruns").glob("[0-9]*/meta.yaml")):
        # Where there is such a folder, `mlflow ui` without arguments opens it, and not mlflow.db.
        notes.append(
            f"an old MLflow folder, {database.parent / 'mlruns'}, makes a bare `mlflow ui` overlook the"
            f" database: use `mlflow ui --backend-store-uri {address}`, or move that folder away"
        )
    return tuple(notes)


def address_of(database: Path) -> str:
    """The address of an SQLite file.

    Where its path has characters that mean something in an address, they are escaped, or better avoided by the path
    from the working folder: MLflow makes the folder that stands in an address without reading the escapes.
    """
    path = str(database)
    if SPECIAL.search(path) and not SPECIAL.search(relative := os.path.relpath(path)):
        path = relative
    return SQLITE + SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", path)


def create_once(database: Path, create_schema: Callable[[str], None]) -> None:
    """Create the SQLite file if there is none; the caller holds its lock.

    The schema is built in a file of another name, which is then renamed. MLflow's migrations take two seconds and are
    not atomic: after a kill in between, the file could never be opened again.
    """
    if database.exists() and database.stat().st_size > 0:
        return
    draft = database.with_name(f"{database.name}.new")
    draft.unlink(missing_ok=True)
    create_schema(address_of(draft))
    move_into_place(draft, database)
    if not _on_network(database):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(
                "PRAGMA journal_mode=WAL"
            )  # readers, such as the UI, and the writer do not wait for each other


def is_locked(database: Path | None) -> bool:
    """Whether another connection holds the lock on an SQLite file that a writer needs. Waits for nobody."""
    if database is None or not database.is_file():
        return False
    try:
        with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    return False


def _on_network(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a path lies on a network file system, where SQLite's write-ahead log is not safe."""
    if not mounts.exists():
        return False
    table = [line.split()[1:3] for line in mounts.read_text(encoding="utf-8").splitlines()]
    matches = [(len(mount), kind) for mount, kind in table if path.resolve().is_relative_to(mount)]
    return max(matches, default=(0, ""))[1].startswith(_NETWORK)
