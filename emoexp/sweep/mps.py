"""NVIDIA's Multi-Process Service for the time of a sweep: kernels of several processes at once on one GPU.

Without it processes share a GPU by taking turns, and a small network leaves most of it idle in its turn. The service is
a daemon of the user's own, which its clients find through an environment variable (NVIDIA, Multi-Process Service,
"Architecture" and "Appendix: Tools and Interface Reference"). What it takes in exchange: a fault on the GPU of one
process ends all that share it, and it serves 48 processes a GPU (16 before Volta).
"""

import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

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
    elif control is None:
        _turns(pack, f"there is no {CONTROL}")
        yield
    else:
        folder = mkdtemp(prefix="emoexp-mps-")
        names = {PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        with _kept(control, names):
            if why := _started(control, names):
                _turns(pack, why)
                yield
                return
            log.info("pack   %d processes share a GPU through MPS", pack)
            os.environ.update(names)
            try:
                yield
            finally:
                for name in names:
                    del os.environ[name]


def _turns(pack: int, why: str) -> None:
    log.warning("pack   %d processes take turns on a GPU, one kernel after the other: %s", pack, why)


@contextmanager
def _kept(control: str, names: dict[str, str]) -> Iterator[None]:
    """End the daemon, and remove its folder, when the block ends or this process does.

    A shell does it, at the end of its input, which this process alone holds open: so it is there before the daemon,
    and it is the same whether the block ends, fails, or the process is killed. A daemon told to quit lets its clients
    finish first.
    """
    words = f"cat; echo quit | {shlex.quote(control)}; rm -rf {shlex.quote(names[PIPES])}"
    keeper = subprocess.Popen(  # noqa: S603 - fixed words
        ["/bin/sh", "-c", words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | names,
        start_new_session=True,
    )
    assert keeper.stdin
    try:
        yield
    finally:
        keeper.stdin.close()
        try:
            keeper.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(keeper.pid, signal.SIGKILL)
            keeper.wait()
            log.warning("pack   %s was told to quit and has not ended: %s=%s", CONTROL, PIPES, names[PIPES])


def _started(control: str, names: dict[str, str]) -> str:
    """Start the daemon; empty, or why it could not be."""
    said = Path(names[PIPES]) / "start.txt"  # no pipe: a daemon that keeps one open would keep us waiting for its end
    try:
        with said.open("w") as file:
            code = subprocess.run(  # noqa: S603 - a program of the system's
                [control, "-d"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | names,
                timeout=_TIMEOUT_S,
                check=False,
            ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{CONTROL} did not start: {error}"
    words = said.read_text().strip()
    return f"{CONTROL} ended with {code}{': ' * bool(words)}{words}" if code else ""
