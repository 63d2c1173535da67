"""Packaging and set-up: what `make` does, what is pinned, what is installed."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from socket import socket

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emoexp

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("", "#")]
NAME = canonicalize_name
BASE = getattr(sys, "_base_executable", sys.executable)  # the interpreter below a virtual environment


def make(*arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- what is pinned


def test_constraints_pin_exact_versions_and_nothing_else() -> None:
    assert len({NAME(pin.name) for pin in PINS}) == len(PINS)
    for pin in PINS:
        assert pin.url is None and not pin.extras, pin
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), f"{pin} is not one exact public version"


def test_constraints_fit_the_declared_dependencies() -> None:
    pinned = {NAME(pin.name): str(pin.specifier).removeprefix("==") for pin in PINS}
    told = PROJECT["project"]
    extras = told["optional-dependencies"]
    for line in [*told["dependencies"], *extras["dev"], *extras["docs"], *PROJECT["build-system"]["requires"]]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[NAME(wanted.name)]), line


def needed(root: str, extras: frozenset[str]) -> Iterator[str]:
    """Every installed distribution that one needs here, and those that it needs in turn."""
    todo, seen = [(root, extras)], set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        yield name
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                todo.append((NAME(need.name), frozenset(need.extras)))


def test_constraints_pin_whatever_is_needed_in_turn() -> None:
    pinned = {NAME(pin.name) for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    assert set(needed("emoexp", frozenset({"dev", "docs"}))) - {"emoexp"} <= pinned


def test_what_is_imported_is_declared() -> None:
    modules = metadata.packages_distributions()
    declared = {NAME(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    for file in sorted((ROOT / "emoexp").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            ours = {*sys.stdlib_module_names, "emoexp", "hydra_plugins"}  # the last as hydra_plugins.emoexp
            for name in {name.partition(".")[0] for name in names} - ours:
                assert {NAME(found) for found in modules.get(name, [name])} & declared, f"{file.name}: {name}"


# ---- what is packaged


def test_every_package_is_listed() -> None:
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "emoexp").rglob("*/__init__.py")}
    folders = {"hydra_plugins.emoexp" if name == "emoexp.sweep.plugin" else name for name in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {"emoexp", "emoexp.conf", *folders}


def test_version_is_one() -> None:
    assert emoexp.__version__ == PROJECT["project"]["version"] == metadata.version("emoexp")
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(("script", "target"), PROJECT["project"]["scripts"].items())
def test_console_scripts_are_there(script: str, target: str) -> None:
    module, _, function = target.partition(":")
    assert script == module.replace(".", "-")
    assert callable(getattr(importlib.import_module(module), function))


def run(folder: Path, *command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built without the network from a copy of the tree: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("emoexp", "conf"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / "tree")
    shutil.copytree(ROOT / "tests", folder / "tree" / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(folder, *pip, "--wheel-dir", folder, folder / "tree")
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_carries_the_configuration_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"emoexp/conf/{file.relative_to(ROOT / 'conf').as_posix()}" in names
    assert "emoexp/py.typed" in names
    for file in (*(ROOT / "emoexp").rglob("*.py"), *(ROOT / "emoexp/pages/templates").iterdir()):
        path = file.relative_to(ROOT).as_posix()
        assert path.replace("emoexp/sweep/plugin/", "hydra_plugins/emoexp/") in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"emoexp", "hydra_plugins", f"emoexp-{emoexp.__version__}.dist-info"}
    assert "hydra_plugins/__init__.py" not in names  # it is shared with other plugins
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_composes_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "else where"
    elsewhere.mkdir()
    pip = (sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index")
    run(tmp_path, *pip, "--target", target, wheel)
    here = {"PYTHONPATH": str(target)}
    home = run(elsewhere, sys.executable, "-c", "import emoexp; print(emoexp.__file__)", **here)
    assert Path(home.strip()) == target / "emoexp" / "__init__.py"
    for command in ([sys.executable, "-m", "emoexp.train"], [target / "bin" / "emoexp-train"]):
        shown = run(elsewhere, *command, "activation=relu", "--cfg", "job", **here)
        assert "activation:\n  name: relu" in shown and "image_size: 48" in shown
        assert "imbalance=" in run(elsewhere, *command, "--help", **here)
        small = (
            "data.size=420",
            "data.test_per_class=12",
            "image_size=16",
            "epochs=1",
            f"cache={tmp_path}",
            "dry_run=true",
        )
        swept = run(elsewhere, *command, "--multirun", "activation=relu,elu", *small, **here)
        assert "0 of 2 cells are done" in swept
    assert not list(elsewhere.iterdir())


# ---- what make does


def targets() -> list[str]:
    return re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()


def test_help_lists_every_target() -> None:
    rules = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    assert sorted(rules) == sorted(targets())
    listed = re.findall(r"^  make (\w+) +\S", make().stdout, re.MULTILINE)
    assert listed == rules
    assert {"train", "test", "slow", "lint", "format", "ui", "sync", "bench", "clean"} <= set(listed)


def test_train_passes_overrides() -> None:
    assert "-m emoexp.train imbalance=sampler activation=mish\n" in make("-n", "train").stdout
    assert "-m emoexp.train 'seed=range(3)' epochs=1\n" in make("-n", "train", "ARGS='seed=range(3)' epochs=1").stdout


def test_ci_runs_tests_and_lint() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[0].endswith("bash") and "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make test", "make lint"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with this one's Makefile, and an interpreter whose pip notes what it is told and does nothing."""
    folder = tmp_path / "a check out"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").write_text(
        "[build-system]\n[project]\nname='emoexp'\n[tool.setuptools]\n[tool.ruff]\nline-length=1\n"
    )
    (folder / "constraints.txt").write_text("torch==1.0\n")
    (folder / "emoexp").mkdir()
    (folder / "emoexp" / "__init__.py").touch()
    (folder / "emoexp" / "train.py").write_text("import sys; print(sys.argv[1:])")
    pip = folder / "pip.py"
    pip.write_text(f"""import os, sys, sysconfig, pathlib, time
here = pathlib.Path({str(folder)!r})
(here / "installs").open("a").write(" ".join(sys.argv[1:]) + "\\n")
time.sleep(float(os.environ.get("SLOW", 0)))
if "FAIL" in os.environ:
    sys.exit("no network")
(pathlib.Path(sysconfig.get_path("purelib")) / "emoexp.pth").write_text(str(here))
""")
    wrapper = folder / "python"
    wrapper.write_text(f"""#!/bin/bash
if [ "${{1:-}} ${{2:-}}" = "-m venv" ]; then
  {BASE!r} -m venv --without-pip "$3" || exit 1
  for site in "$3"/lib/python*/site-packages; do cp {str(pip)!r} "$site/pip.py"; done
else
  exec {BASE!r} "$@"
fi
""")
    wrapper.chmod(0o755)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(wrapper)
    return folder


def set_up(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return make("train", *arguments, folder=folder, **{"PATH": path, **variables})


def installs(folder: Path) -> int:
    return len((folder / "installs").read_text().splitlines())


def test_a_good_environment_is_made_once(checkout: Path) -> None:
    first = set_up(checkout, **dict.fromkeys(("PIP_TARGET", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"), "/nowhere"))
    assert first.returncode == 0, first.stderr
    assert "making .venv" in first.stdout and "['imbalance=sampler', 'activation=mish']" in first.stdout
    asked = "install --quiet --constraint constraints.txt --editable .[dev,docs]\n"
    assert (checkout / "installs").read_text() == asked
    started = time.monotonic()
    again = set_up(checkout)
    assert time.monotonic() - started < 20  # 0.3 s on a quiet machine
    assert again.returncode == 0 and "making" not in again.stdout and installs(checkout) == 1


def test_a_stale_environment_is_made_anew(checkout: Path) -> None:
    set_up(checkout)
    (inside,) = (checkout / ".venv").glob("lib/python*/site-packages/emoexp.pth")
    changes = [
        (checkout / "pyproject.toml", "line-length=1", "line-length=2", 0),
        (checkout / "pyproject.toml", "name=", "version='2'\nname=", 1),
        (checkout / "constraints.txt", "torch==1.0", "torch==1.1", 1),
        (checkout / ".venv" / "stamp", "", "x", 1),
        (inside, str(checkout), "", 1),
    ]
    for file, old, new, times in changes:
        before = installs(checkout)
        file.write_text(file.read_text().replace(old, new, 1))
        assert set_up(checkout).returncode == 0
        assert installs(checkout) == before + times, file


def test_an_environment_whose_interpreter_is_gone_is_made_anew(checkout: Path) -> None:
    set_up(checkout)
    for link in (checkout / ".venv" / "bin").glob("python*"):
        link.unlink()
        link.symlink_to("/nowhere/python3")
    done = set_up(checkout)
    assert done.returncode == 0 and installs(checkout) == 2, done.stderr


def test_a_moved_folder_is_made_anew(checkout: Path) -> None:
    set_up(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    (moved / "bin" / "python3").unlink()
    (moved / "bin" / "python3").symlink_to(moved / "python")
    wrapper = moved / "python"
    wrapper.write_text(wrapper.read_text().replace(str(checkout), str(moved)))
    (moved / "pip.py").write_text((moved / "pip.py").read_text().replace(str(checkout), str(moved)))
    done = set_up(moved)
    assert done.returncode == 0 and installs(moved) == 2, done.stderr


def test_an_unfinished_environment_is_made_anew(checkout: Path) -> None:
    failed = set_up(checkout, FAIL="1")
    assert failed.returncode != 0 and "no network" in failed.stderr and "was not finished" in failed.stderr
    assert "['imbalance=sampler'" not in failed.stdout
    assert set_up(checkout).returncode == 0 and installs(checkout) == 2


def test_two_makes_at_once_install_once(checkout: Path) -> None:
    path = f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLOW": "2"}
    first, second = (
        subprocess.Popen(["make", "train"], cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    told = first.communicate(timeout=60)[1] + second.communicate(timeout=60)[1]
    assert first.returncode == second.returncode == 0, told
    assert installs(checkout) == 1 and told.count("another make is at work") == 1


def test_an_unsuitable_python_is_refused_by_name(checkout: Path) -> None:
    old = checkout / "bin" / "python3.9"
    old.write_text('#!/bin/bash\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    old.chmod(0o755)
    done = set_up(checkout, f"PYTHON={old.name}")
    assert done.returncode != 0 and "needs Python 3.11 to 3.13; PYTHON=python3.9 is Python 3.9.1" in done.stderr
    assert "PYTHON=nothing is missing" in set_up(checkout, "PYTHON=nothing").stderr
    assert not (checkout / ".venv").exists()


# ---- the browser page


def static_rules_broken(text: str) -> list[str]:
    return re.findall(r"--host[ =]0\.0\.0\.0|--allowed-hosts[ =]\S*\*|DISABLE_SECURITY_MIDDLEWARE", text)


def test_the_page_is_never_offered_to_the_network() -> None:
    readme = ROOT / "README.md"
    assert static_rules_broken(MAKEFILE + (readme.read_text() if readme.exists() else "")) == []
    assert len(static_rules_broken("--host 0.0.0.0 --allowed-hosts '*'")) == 2


@contextmanager
def page(folder: Path) -> Iterator[tuple[int, int]]:
    """`make ui` in a folder, as a person runs it but for the virtual environment; its port and its session."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".ci").mkdir()
    (folder / ".ci" / "venv").touch()
    (folder / ".venv").symlink_to(sys.prefix)
    with (folder / "log").open("w") as log:
        command = ["make", "ui", f"PORT={port}"]
        made = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while ask(port, "/health")[0] != 200:
            assert made.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield port, made.pid
    finally:
        os.killpg(made.pid, 15)
        made.wait(30)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    body = b"{}" if method == "POST" else None
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return answer.status, {key.lower(): value for key, value in answer.headers.items()}
    except urllib.error.HTTPError as refused:
        return refused.code, {}
    except OSError:
        return 0, {}


def listening(port: int) -> set[str]:
    """Addresses, as the kernel writes them, on which something of this machine listens at a port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def running(session: int) -> Iterator[str]:
    """The command lines of the processes of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == session:
                yield (folder / "cmdline").read_text().replace("\0", " ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")
def test_the_page_answers_this_machine_alone(tmp_path: Path) -> None:
    with page(tmp_path) as (port, session):
        assert listening(port) == {"0100007F"}
        status, headers = ask(port, "/", Host=f"localhost:{port}")
        assert status == 200 and headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        for host in ("evil.example", "10.evil.example", f"192.168.evil.example:{port}", "10.0.0.5"):
            assert ask(port, "/", Host=host)[0] == 403, host
        path = "/api/2.0/mlflow/experiments/search"
        assert ask(port, path, "POST", Origin="http://evil.example")[0] == 403
        assert (tmp_path / "mlflow.db").exists()
        commands = list(running(session))
        assert any("uvicorn" in line for line in commands) and not any("huey" in line for line in commands)
    until = time.monotonic() + 20
    while (listening(port) or any(running(session))) and time.monotonic() < until:
        time.sleep(0.2)
    assert not listening(port) and not any(running(session))
