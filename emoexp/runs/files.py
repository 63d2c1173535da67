"""How files are written, read and locked. All of emoexp writes and reads a run's folder by these functions.

A file is written under a temporary name in the same folder, forced onto the disk, and only then renamed. So a reader
sees the old file or the whole new one, also where the writer was killed. A lock belongs to the process that holds it:
the operating system releases it when the process ends, whatever the reason.
"""

import fcntl
import io
import json
import os
import re
import socket
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
import yaml

from emoexp.runs import run_schema

MAX_TEXT = 2**28  # bytes of a JSON file
_HOST = zlib.crc32(socket.gethostname().encode())  # in names of temporary files: another host has other processes
MAX_UNPACKED = 2**31  # bytes of arrays

# ---- writing


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by new bytes.

    Raises:
        OSError: it could not be written (a full disk); the old file stays, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        _remove_leftovers(path)
        temporary.write_bytes(content)
        move_into_place(temporary, path)
    except OSError as error:
        raise OSError(
            f"could not save {path} ({error.strerror or error}); the old file, if there was one, is unchanged"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file by new text, in UTF-8. Raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file. Keys are sorted: equal content gives equal bytes.

    Raises:
        ValueError: the content holds NaN or an infinity, which JSON does not know; `json_values` makes them null.
        OSError: as `write_bytes`.
    """
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace a .jsonl file by rows, one a line. NaN and infinities become null. Raises as `write_bytes`."""
    lines = [json.dumps({key: finite_or_none(value) for key, value in row.items()}) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_yaml(path: Path, content: Any) -> None:
    """Replace a YAML file; keys stay in their order. Raises as `write_bytes`."""
    write_text(path, yaml.dump(content, Dumper=_DumperWithoutAliases, sort_keys=False, allow_unicode=True))


class _DumperWithoutAliases(yaml.SafeDumper):
    """Writes a value that occurs twice twice, as `read_yaml` wants it."""

    def ignore_aliases(self, data: Any) -> bool:
        """Called by yaml for each value."""
        return True


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace an .npy file. Raises as `write_bytes`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a finished temporary file of the same file system, after its content is on the disk."""
    _force_to_disk(temporary)
    temporary.replace(path)
    _force_to_disk(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files of a file whose processes, on this machine, were killed while they wrote it."""
    prefix = f".{path.name}.{_HOST}."
    with os.scandir(path.parent) as entries:
        leftovers = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(".tmp")]
    for name in leftovers:
        process = name.removeprefix(prefix).partition(".")[0]
        if process.isdigit() and not _is_running(int(process)):
            path.with_name(name).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _force_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Delete the temporary files that a process left in a folder, or below it, when it was killed while it wrote."""
    for path in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Refuse a folder with anything but plain files and folders in it or below it, since it may be a stranger's: a
    link leads to files elsewhere, and a pipe or a device is read without an end.

    Raises:
        ValueError: names the first such path.
    """
    for root, folder_names, file_names in os.walk(folder):
        for name in sorted([*folder_names, *file_names]):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
                raise ValueError(f"{path} is {kind}; a run's folder holds plain files and folders. Remove it")


# ---- reading


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's dictionary, of the kinds that `run_schema` says for its name; empty where there is no file.

    Raises:
        ValueError: the file is no such JSON; names the file, the key, what is expected and what is there.
    """
    content = _content(path)
    if content is None:
        return {}
    found = _parsed(content, str(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(found).__name__}")
    _raise_first(path, run_schema.faults(path.name, found))
    return found


def read_list(path: Path) -> list[str]:
    """A JSON file's list of texts; empty where there is no file. Raises ValueError for anything else."""
    content = _content(path)
    found = [] if content is None else _parsed(content, str(path))
    if not run_schema.TEXTS.holds(found):
        raise ValueError(f"{path}: expected {run_schema.TEXTS.words}, found {run_schema.shown(found)}")
    return list(found)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none where there is no file. A last line without a line end is left out.

    Raises:
        ValueError: a line is not JSON, or no row of the kind that `run_schema` says for the file's name.
    """
    content = _content(path)
    lines = [] if content is None else content.split(b"\n")[:-1]
    rows = [_parsed(line, f"{path}, line {number},") for number, line in enumerate(lines, start=1)]
    _raise_first(path, run_schema.row_faults(path.name, rows))
    return rows


def read_arrays(path: Path, limit: int = MAX_UNPACKED) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, without pickled objects.

    Raises:
        ValueError: the file holds anything else, or unpacks to more than `limit` bytes.
    """
    _refuse_special(path)
    try:
        with zipfile.ZipFile(path) as members:
            if sum(member.file_size for member in members.infolist()) > limit:
                raise ValueError(f"more than {limit} bytes when it is unpacked")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: no file of plain arrays: {str(error).partition(chr(10))[0]}") from error


_DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_digests(path: Path) -> np.ndarray | None:
    """The hashes of pixels (bytes of 32 digits) in an .npy file; None where there is no file.

    Raises:
        ValueError: the file holds anything else.
    """
    if not path.exists() and not path.is_symlink():
        return None
    _refuse_special(path)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError, MemoryError) as error:
        raise ValueError(f"{path}: no array of hashes: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.dtype("S32") or found.ndim != 1:
        raise ValueError(f"{path}: expected an array of hashes, found {getattr(found, 'dtype', type(found).__name__)}")
    return found


def _content(path: Path) -> bytes | None:
    """A file's bytes; None where there is no file. Raises ValueError for a link, a pipe or too large a file."""
    try:
        _refuse_special(path)
        if path.stat().st_size > MAX_TEXT:
            raise ValueError(f"{path}: more than {MAX_TEXT} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse_special(path: Path) -> None:
    """A link, pipe or device would be read without an end, or lead elsewhere."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path} is no plain file; a run's folder holds plain files. Remove it")


def _parsed(content: bytes, name: str) -> Any:
    """JSON of finite numbers. Raises ValueError with the name."""

    def refuse(text: str) -> float:
        raise ValueError(f"{text[:20]} is no finite number")

    def number(text: str) -> float:
        value = float(text)
        return value if abs(value) < float("inf") else refuse(text)

    try:
        return json.loads(content, parse_constant=refuse, parse_float=number)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{name} is not JSON: {why}") from error


def _raise_first(path: Path, faults: Iterator[str]) -> None:
    if fault := next(faults, None):
        raise ValueError(f"{path}: {fault}")


class _WithoutAliases(yaml.SafeLoader):
    """Refuses aliases: a file of a few lines can stand for more values than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Called by yaml for each node."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read", mark)
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file of plain values, in UTF-8.

    Raises:
        ValueError: the file is not such YAML.
    """
    try:
        return _WithoutAliases(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def finite_or_none(value: Any) -> Any:
    """NaN and infinities as None, which JSON can hold."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def json_values(value: Any) -> Any:
    """A value for JSON: numpy's numbers as Python's, tuples as lists, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): json_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(inner) for inner in value]
    return finite_or_none(value.item() if isinstance(value, np.generic) else value)


# ---- locks


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file's lock while the block runs. The file is made where there is none, and stays.

    wait: true: wait while another process or thread holds it. False: run the block at once; the yielded value says
    whether this process holds the lock.
    """
    # fallback_to_soft=False: a file system without flock is an error. The library's substitute, a file that exists
    # while the lock is held, would stay after its process was killed.
    file_lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        file_lock.acquire(blocking=wait)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        file_lock.release()


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, which other callers of this function may hold too; `lock` waits until none holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # the library's locks are exclusive; both are the system's flock
        yield
    finally:
        os.close(descriptor)


def lock_file(file: BinaryIO) -> bool:
    """Try to lock an open file until it is closed; false where another process has locked it."""
    return filelock.lock_descriptor(file.fileno(), blocking=False)
