"""Compiles C++ source to a library and loads it; compiled files are kept for later processes.

No error is raised: if a step fails, the result is None.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from emoexp.runs import files

log = logging.getLogger(__name__)

COMPILERS = ("g++", "clang++", "c++")
# No flag changes the arithmetic of the source: no contraction, and of -ffast-math only what changes no value.
FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
TIMEOUT_SECONDS = 60  # after this time the compiler is stopped and counts as failed


def library(source: str, name: str, cache: str | None) -> ctypes.CDLL | None:
    """The library compiled from `source` for this processor.

    It is loaded from the folder `cache`/kernels if an earlier process has compiled it, else it is compiled and kept
    there. It is compiled for this process alone if `cache` is None, or if the folder cannot be written to, or if
    other users can write to it.

    Returns:
        None if there is no compiler, or if compiling or loading fails.
    """
    if os.name != "posix":
        return None
    processor = _processor_description()
    flags = (*FLAGS, "-march=native") if processor else FLAGS
    key = hashlib.sha256("\0".join([source, *flags, processor, sys.platform]).encode()).hexdigest()[:32]
    folder = _private_folder(cache) if cache else None
    if folder is None:
        return _compile_and_load(source, flags)
    path = folder / f"{name}-{key}.so"
    return _load(path) or (_load(path) if _compile(source, flags, path) else _compile_and_load(source, flags))


def _compile_and_load(source: str, flags: tuple[str, ...]) -> ctypes.CDLL | None:
    try:
        # no other user can write to this folder (mode 700); a library may be deleted after it is loaded
        with tempfile.TemporaryDirectory(prefix="emoexp-") as folder:
            path = Path(folder) / "kernel.so"
            return _load(path) if _compile(source, flags, path) else None
    except OSError as error:
        log.debug("no folder to compile in: %s", error)
        return None


def _processor_description() -> str:
    """Name and instruction sets of the processor, "" if not known. A library for one processor may crash on another."""
    try:
        first_block = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    fields = ("model name", "flags", "Features", "CPU")
    return platform.machine() + "\n".join(line for line in first_block if line.startswith(fields))


def _private_folder(cache: str) -> Path | None:
    """The folder of compiled libraries, created if missing; None if another user could put a file into it."""
    folder = Path(cache).expanduser() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve(strict=True)
        if folder.stat().st_uid == os.getuid() and all(_is_protected(path) for path in (folder, *folder.parents)):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ without a home
        log.debug("no kernels kept in %s: %s", folder, error)
        return None
    log.debug("no kernels kept in %s: others may write there or above", folder)
    return None


def _is_protected(path: Path) -> bool:
    """Whether only root and this user can replace what is at this path; a sticky folder protects what is in it."""
    status = path.stat()
    sticky = path.is_dir() and bool(status.st_mode & 0o1000)
    return status.st_uid in (0, os.getuid()) and (sticky or not status.st_mode & 0o022)


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        if path.lstat().st_uid != os.getuid() or path.is_symlink() or not _is_protected(path):
            return None
        return ctypes.CDLL(str(path))
    except OSError as error:
        log.debug("%s does not load: %s", path, error)
        return None


def _compile(source: str, flags: tuple[str, ...], target: Path) -> bool:
    """Compile, then rename: if two processes compile at once or one is killed, there is a complete file or none."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.debug("no C++ compiler: none of %s", ", ".join(COMPILERS))
        return False
    try:
        with tempfile.TemporaryDirectory(prefix="compiling-", dir=target.parent) as folder:
            compiled_file = Path(folder) / "kernel.so"
            source_file = Path(folder) / "kernel.cpp"
            source_file.write_text(source, encoding="utf-8")
            command = [compiler, *flags, "-o", str(compiled_file), str(source_file)]
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)  # noqa: S603 (fixed words)
            compiled_file.chmod(0o700)
            files.move_into_place(compiled_file, target)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("compiling failed: %s", error)
        return False
    return True
