"""How files are written, read and locked. All of emoexp writes by these functions; they import nothing of emoexp.

A file is written under a temporary name in the same folder, forced onto the disk, and only then renamed. So a reader
sees the old file or the whole new one, also where the writer was killed. A lock belongs to the process that holds it:
the operating system releases it when the process ends, whatever the reason.
"""

import fcntl
import io
import json
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
import yaml

# ---- writing


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by new bytes.

    Raises:
        OSError: it could not be written (a full disk); the old file stays, and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
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
    """A JSON file's dictionary; empty where there is no file.

    Raises:
        ValueError: the file is not JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")


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


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none where there is no file. A last line without a line end is left out.

    Raises:
        ValueError: a line is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
    return rows


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
