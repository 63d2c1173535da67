"""Checkpoints: written atomically, with a checksum, and read without running pickled code. No other module saves them.

A file is what torch.save writes, followed by its SHA-256. So a flipped bit is an error, where torch alone would load it
in silence. torch.load can still read the file.
"""

import hashlib
import io
import pickle  # for the name of the exception alone
from pathlib import Path
from typing import Any

import torch

from emoexp.runs import files

_MARK = b"emoexp sha256 "


class CorruptCheckpoint(ValueError):
    """A checkpoint that is truncated, altered or no checkpoint."""


def save(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dictionaries. The file is always the old one or the whole new one.

    Raises:
        OSError: it could not be written (a full disk); the old file stands.
    """
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    raw = buffer.getvalue()
    files.write_bytes(path, raw + _MARK + hashlib.sha256(raw).hexdigest().encode())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CorruptCheckpoint: the checksum does not fit, or it holds anything but plain values and tensors.
    """
    content = path.read_bytes()
    raw, mark, digest = content[: -64 - len(_MARK)], content[-64 - len(_MARK) : -64], content[-64:]
    if mark != _MARK or hashlib.sha256(raw).hexdigest().encode() != digest:
        raise CorruptCheckpoint(f"{path} is damaged or no checkpoint of ours: its checksum does not fit")
    try:
        payload = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CorruptCheckpoint(f"{path} cannot be read safely: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(payload, dict) or not all(isinstance(key, str) for key in payload):
        raise CorruptCheckpoint(f"{path}: a checkpoint holds named values; this holds a {type(payload).__name__}")
    return payload
