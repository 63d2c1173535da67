"""C++ source to a loaded library, kept between processes. Whatever goes wrong, there is simply no library."""

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
# the arithmetic stays as written: no contraction, nothing of -ffast-math that changes values
FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
SECONDS = 60  # a compiler that takes longer has failed


def library(source: str, name: str, cache: str | None) -> ctypes.CDLL | None:
    """The library compiled from `source` for this processor.

    Taken from the folder `cache`/kernels where an earlier process left it, else compiled and left there. With
    null, or a folder that cannot be written or that others could write to, it is compiled for this process
    alone. None where there is no compiler, or where it or the loader fails.
    """
    if os.name != "posix":
        return None
    processor = _processor()
    flags = (*FLAGS, "-march=native") if processor else FLAGS
    key = hashlib.sha256("\0".join([source, *flags, processor, sys.platform]).encode()).hexdigest()[:32]
    folder = _private_folder(cache) if cache else None
    if folder is None:
        return _compiled_once(source, flags)
    path = folder / f"{name}-{key}.so"
    return _load(path) or (_load(path) if _compile(source, flags, path) else _compiled_once(source, flags))


def _compiled_once(source: str, flags: tuple[str, ...]) -> ctypes.CDLL | None:
    try:
        # the folder is ours alone (mode 700), and a loaded file may be deleted
        with tempfile.TemporaryDirectory(prefix="emoexp-") as folder:
            path = Path(folder) / "kernel.so"
            return _load(path) if _compile(source, flags, path) else None
    except OSError as error:
        log.debug("no folder to compile in: %s", error)
        return None


def _processor() -> str:
    """The processor's name and abilities, where the system tells; a library for one would stop another."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    words = ("model name", "flags", "Features", "CPU")
    return platform.machine() + "\n".join(line for line in first if line.startswith(words))


def _private_folder(cache: str) -> Path | None:
    """The folder of compiled libraries, made where missing; None where others could put a file into it."""
    folder = Path(cache).expanduser() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve(strict=True)
        if folder.stat().st_uid == os.getuid() and all(_closed(place) for place in (folder, *folder.parents)):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ without a home
        log.debug("no kernels kept in %s: %s", folder, error)
        return None
    log.debug("no kernels kept in %s: others may write there or above", folder)
    return None


def _closed(place: Path) -> bool:
    """Whether only root and we can replace what lies here; a sticky folder protects what is in it."""
    status = place.stat()
    sticky = place.is_dir() and bool(status.st_mode & 0o1000)
    return status.st_uid in (0, os.getuid()) and (sticky or not status.st_mode & 0o022)


def _load(path: Path) -> ctypes.CDLL | None:
    try:
        if path.lstat().st_uid != os.getuid() or path.is_symlink() or not _closed(path):
            return None
        return ctypes.CDLL(str(path))
    except OSError as error:
        log.debug("%s does not load: %s", path, error)
        return None


def _compile(source: str, flags: tuple[str, ...], target: Path) -> bool:
    """Compile and rename: two processes at once, or one that is killed, leave a whole file or none."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        log.debug("no C++ compiler: none of %s", ", ".join(COMPILERS))
        return False
    try:
        with tempfile.TemporaryDirectory(prefix="compiling-", dir=target.parent) as place:
            out = Path(place) / "kernel.so"
            text = Path(place) / "kernel.cpp"
            text.write_text(source)
            command = [compiler, *flags, "-o", str(out), str(text)]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)  # noqa: S603 (fixed words)
            out.chmod(0o700)
            files.move_into_place(out, target)
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("compiling failed: %s", error)
        return False
    return True
