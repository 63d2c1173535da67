"""Checkpoints: atomic, checksummed, read without running pickled code. The only module that saves and loads them.

A file is what torch.save writes, followed by the SHA-256 of it: one flipped bit is found, which torch alone would load
in silence, and torch.load still reads the file.
"""

import hashlib
import io
import os
import pickle  # for the name of the exception alone
import re
from pathlib import Path
from typing import Any

import torch

_MARK = b"emoexp sha256 "


class CorruptCheckpoint(ValueError):
    """A checkpoint that is truncated, altered or no checkpoint."""


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists, dictionaries; the file is the old one or the whole new one, never less.

    Raises:
        OSError: it could not be written (a full disk); the old file stands.
    """
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    raw = buffer.getvalue()
    write_atomically(path, raw + _MARK + hashlib.sha256(raw).hexdigest().encode())


def write_atomically(path: Path, raw: bytes) -> None:
    """Replace a file by new bytes that are on the disk before the name points to them."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"could not save {path} ({error.strerror or error}); what stood there is untouched") from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CorruptCheckpoint: the checksum does not fit, or it holds anything but plain values and tensors.
    """
    whole = path.read_bytes()
    raw, mark, digest = whole[: -64 - len(_MARK)], whole[-64 - len(_MARK) : -64], whole[-64:]
    if mark != _MARK or hashlib.sha256(raw).hexdigest().encode() != digest:
        raise CorruptCheckpoint(f"{path} is damaged or no checkpoint of ours: its checksum does not fit")
    try:
        payload = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CorruptCheckpoint(f"{path} cannot be read safely: {str(error).partition(chr(10))[0]}") from error
    assert isinstance(payload, dict)
    return payload


def remove_partial(folder: Path) -> None:
    """Delete what a process that died while saving has left."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)
