"""NVIDIA's Multi-Process Service for the time of a sweep: kernels of several processes at once on one GPU.

Without it processes share a GPU by taking turns, and a small network leaves most of it idle in its turn. The service is
a daemon of the user's own, which its clients find through an environment variable (NVIDIA, Multi-Process Service,
"Architecture" and "Appendix: Tools and Interface Reference").
"""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

log = logging.getLogger("emoexp")
CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_TIMEOUT_S = 20


@contextmanager
def served(pack: int) -> Iterator[None]:
    """The service while the block runs, for processes that begin in it; pack: how many share a GPU.

    Nothing happens for one process, or where a service of somebody's is named in the environment. Where it cannot be
    started the processes take turns, and the log says so. It does not outlive this process, however that ends.
    """
    control = shutil.which(CONTROL)
    if pack == 1 or PIPES in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="emoexp-mps-") as folder:
        names = {PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        why = f"there is no {CONTROL}" if control is None else _started(control, names)
        if control is None or why:
            log.warning("pack   %d processes take turns on a GPU, one kernel after the other: %s", pack, why)
            yield
            return
        log.info("pack   %d processes share a GPU through MPS", pack)
        watch = subprocess.Popen(["/bin/sh", "-c", _watch(control)], env=os.environ | names, start_new_session=True)  # noqa: S603 - fixed words
        os.environ.update(names)
        try:
            yield
        finally:
            for name in names:
                del os.environ[name]
            watch.kill()
            watch.wait()
            _quit(control, names)


def _started(control: str, names: dict[str, str]) -> str:
    """Start the daemon; empty, or why it could not be."""
    try:
        subprocess.run(  # noqa: S603 - a program of the system's
            [control, "-d"], env=os.environ | names, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip()
        return f"{CONTROL} ended with {error.returncode}{': ' * bool(said)}{said}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{CONTROL} did not start: {error}"
    return ""


def _quit(control: str, names: dict[str, str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - a program of the system's
            [control], input="quit\n", env=os.environ | names, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("pack   %s did not end: %s", CONTROL, error)


def _watch(control: str) -> str:
    """A shell's words that end the daemon once this process is gone."""
    return f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 1; done; echo quit | {shlex.quote(control)}"
