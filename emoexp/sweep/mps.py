"""NVIDIA's Multi-Process Service for the time of a sweep: kernels of several processes at once on one GPU.

Without it processes share a GPU by taking turns, and a small network leaves most of the GPU idle in its turn. The
service is a daemon of the user's own, which its clients find through an environment variable (NVIDIA, Multi-Process
Service, "Architecture" and "Appendix: Tools and Interface Reference"). Its costs: a fault of one process on the GPU
ends all processes that share it, and at most 48 processes can share a GPU (16 before Volta).
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
def daemon(pack: int) -> Iterator[None]:
    """Run the service while the block runs, for processes that start in the block. pack: how many share a GPU.

    Nothing is started for one process, or where the environment names a service that already runs. Where the service
    cannot be started, the processes take turns, and the log says so. It ends with this process, whatever ends that.
    """
    control = shutil.which(CONTROL)
    if pack == 1 or PIPES in os.environ:
        yield
    elif control is None:
        _warn_of_turns(pack, f"there is no {CONTROL}")
        yield
    else:
        folder = mkdtemp(prefix="emoexp-mps-")
        names = {PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        with _stopped_at_exit(control, names):
            if error := _start(control, names):
                _warn_of_turns(pack, error)
                yield
                return
            log.info("pack   %d processes share a GPU through MPS", pack)
            os.environ.update(names)
            try:
                yield
            finally:
                for name in names:
                    del os.environ[name]


def _warn_of_turns(pack: int, reason: str) -> None:
    log.warning("pack   %d processes take turns on a GPU, one kernel after the other: %s", pack, reason)


@contextmanager
def _stopped_at_exit(control: str, names: dict[str, str]) -> Iterator[None]:
    """End the daemon, and remove its folder, when the block ends or this process does.

    A shell does both when its input ends. Only this process holds that input open: the input ends when the block ends
    or fails, and when this process is killed. The shell is started before the daemon. A daemon that gets "quit" lets
    its clients finish first.
    """
    words = f"cat; echo quit | {shlex.quote(control)}; rm -rf {shlex.quote(names[PIPES])}"
    shell = subprocess.Popen(  # noqa: S603 - fixed words
        ["/bin/sh", "-c", words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | names,
        start_new_session=True,
    )
    assert shell.stdin
    try:
        yield
    finally:
        shell.stdin.close()
        try:
            shell.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            log.warning("pack   %s was told to quit and has not ended: %s=%s", CONTROL, PIPES, names[PIPES])


def _start(control: str, names: dict[str, str]) -> str:
    """Start the daemon. Returns why that failed; an empty text where it did not."""
    output = Path(names[PIPES]) / "start.txt"  # no pipe: the daemon would hold it open, and we would wait for its end
    try:
        with output.open("w", encoding="utf-8") as file:
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
    text = output.read_text(encoding="utf-8").strip()
    return f"{CONTROL} ended with {code}{': ' * bool(text)}{text}" if code else ""
