"""What a person sees: the tracking page on a real sweep, in a real browser."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from browser import CHROMIUM, browser
from composing import TINY

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install the system's package chromium"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A folder with a finished sweep and its report."""
    folder = tmp_path_factory.mktemp("seen")
    words = [
        *(word for word in TINY if not word.startswith(("tracking", "activation"))),
        "activation=relu,elu",
        "seed=0,1",
    ]
    for module, more in (("train", ["--multirun", "workers=2"]), ("report", [])):
        asked = [sys.executable, "-m", f"emoexp.{module}", *more, *words]
        subprocess.run(asked, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=400)
    return folder


@pytest.fixture(scope="module")
def served(sweep):
    """The page as `make ui` serves it, from the sweep's folder: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", "ui", f"PORT={port}", f"VENV={Path(sys.prefix)}"]
    with (sweep / "ui.log").open("w") as log:
        server = subprocess.Popen(asked, cwd=sweep, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, sweep / "ui.log")
            yield f"http://127.0.0.1:{port}/#"
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            with urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture
def page(tmp_path):
    with browser(tmp_path / "profile") as opened:
        yield opened


def known(sweep: Path) -> tuple[str, dict[str, str], str]:
    """The experiment's number, the ids of the cells by name, and the id of the sweep."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("emoexp").experiment_id
    found = client.search_runs([experiment])
    parent = next(run for run in found if run.data.tags.get("kind") == "sweep")
    cells = {run.info.run_name: run.info.run_id for run in found if run is not parent}
    return experiment, cells, parent.info.run_id


def test_children_are_listed_under_their_parent(sweep, served, page):
    experiment, cells, parent = known(sweep)
    page.open(f"{served}/experiments/{experiment}/runs")
    name = next((sweep / "multirun").iterdir()).name
    page.has(name)
    assert not any(cell in page.text() for cell in cells)  # collapsed below it
    page.until("!!document.querySelector('[class*=expander], .ag-row [aria-label*=xpand], .ag-row svg')")
    expand = (
        "[...document.querySelectorAll('.ag-row [role=button], .ag-row button')].find(e => e.querySelector('svg,span'))"
    )
    page.value(f"({expand}).click()")
    page.has(*cells)
    page.open(f"{served}/experiments/{experiment}/runs/{parent}")
    page.has("Child runs", *list(cells)[:1])


def test_two_runs_are_compared_along_their_axes(sweep, served, page):
    experiment, cells, _ = known(sweep)
    pair = [next(run for name, run in cells.items() if arm in name) for arm in ("-relu-", "-elu-")]
    page.open(f"{served}/compare-runs?runs={quote(json.dumps(pair))}&experiments={quote(json.dumps([experiment]))}")
    page.has("Comparing 2 Runs", "Parallel Coordinates Plot", "activation")
    # the chart draws: one axis with both activations on it, one with the metric
    page.until("document.querySelectorAll('.parcoords .y-axis, .y-axis').length >= 2")
    axes = page.value("[...document.querySelectorAll('.y-axis')].map(e => e.textContent).join(' | ')")
    assert "relu" in axes and "elu" in axes and "activation" in axes


def test_a_figure_and_the_report_open(sweep, served, page):
    experiment, cells, parent = known(sweep)
    run = next(iter(cells.values()))
    page.open(f"{served}/experiments/{experiment}/runs/{run}/artifacts/figures/test_precision_recall.png")
    page.until("[...document.querySelectorAll('img')].some(e => e.naturalWidth > 600)")
    page.open(f"{served}/experiments/{experiment}/runs/{parent}/artifacts/report/report.html")
    page.until("!!document.querySelector('iframe')")
    shown = "document.querySelector('iframe').srcdoc || document.querySelector('iframe').src"
    assert page.until(shown)


def test_the_report_reads_by_itself(sweep, page):
    path = next((sweep / "multirun").glob("*/report/report.html"))
    page.open(path.as_uri())
    page.has("Comparison: activation-faces-", "elu against relu", "What the arms cost")
    assert page.value(
        "[...document.images].every(e => e.complete && e.naturalWidth > 200) && document.images.length >= 5"
    )
