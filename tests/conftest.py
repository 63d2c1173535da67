"""Every test: one thread for torch, no network but this machine's, no telemetry."""

import gc
import logging
import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import pytest
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

_connect = socket.socket.connect


def _local_only(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        pytest.fail(f"a test went to the network: {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing in here may depend on, or talk to, another machine."""
    monkeypatch.setattr(socket.socket, "connect", _local_only)


@pytest.fixture(autouse=True)
def one_thread():
    """Two workers on two cores; and the number of threads decides bits."""
    import sys

    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def frozen_until_the_end():
    """What was frozen is freed at the end, or libraries report leaks."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def frozen(frozen_until_the_end):
    """The garbage collector does not walk what libraries made when they were imported: a tenth of the tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def blank_figures():
    """Figures of whole runs are made and stay blank: drawing takes ten times as long as so small a training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "draw", lambda canvas: canvas.get_renderer().clear())
        patch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)
        yield


@pytest.fixture(autouse=True)
def quiet_log():
    """A test leaves no handlers of its runs behind."""
    yield
    log = logging.getLogger("emoexp")
    log.handlers.clear()
    log.propagate = True
