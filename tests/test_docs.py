"""README and docs: every command in them works, every link leads somewhere, and the pages build."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from composing import checked, composed, planned
from PIL import Image

from emoexp import cli, report
from emoexp.config import options

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LANGUAGES = {"sh", "text", "yaml", "python"}  # of fenced blocks; commands stand in sh alone
README_BYTES = 12 * 1024


def fences(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: what stands behind the opening fence, and the lines inside."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """The commands of a page, a line each."""
    lines = [line for about, block in fences(text) if about == "sh" for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def page(name: str) -> str:
    return (ROOT / name).read_text()


COMMANDS = list(dict.fromkeys(command for name in PAGES for command in commands(page(name))))


def test_every_row_and_option_of_a_strategy_stands_in_the_docs():
    rows, methods = options.listed("imbalance"), page("docs/methods.md")
    own = {"none", "augment", "sampler", "weighted_loss"}  # and every combination of them
    named = {word for line in methods.splitlines() if line.startswith("| `") for word in re.findall(r"`(\w+)`", line)}
    assert {row for row in rows if row not in named and not re.fullmatch(f"({'|'.join(own)}|_)+", row)} == set()
    assert f"{len(rows)} named" in page("README.md")
    columns = methods.partition("```text")[2].partition("```")[0]
    for column in ("copies", "sampling", "weights", "loss", "schedule", "mix", "posthoc"):
        listed = columns.partition(f"imbalance/{column}=")[2].partition("imbalance/")[0]
        assert set(options.listed(f"imbalance/{column}")) <= set(re.findall(r"\w+", listed)), column


def test_commands_stand_in_fences_of_known_languages():
    for name in PAGES:
        text = page(name)
        assert {about.split()[0] for about, _ in fences(text)} <= LANGUAGES, name
        rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        assert not re.search(r"^    (python|make|pip|git|emoexp-)", rest, re.M), f"{name} has an indented command"
        for about, block in fences(text):
            if about != "sh":
                assert not re.search(r"^\s*\$? ?(python -m|make|pip install) ", block, re.M), f"{name}: {block}"
    assert len(COMMANDS) > 50


# Each kind of command, by what it begins with, and what is asked of it. A command of another kind fails.


def check_train(words: list[str]) -> None:
    """A single run is composed and checked, a sweep planned."""
    if words == ["--help"]:
        assert "imbalance=" in cli.help_text("train")
    elif words[0] == "--config-dir":
        assert any(words == shlex.split(command)[3:] for command in WHOLE), "options of one's own: run it whole"
    elif "--multirun" in words:
        check_sweep([word for word in words if word != "--multirun"])
    else:
        checked(*(words[2:] if words[:2] == ["--cfg", "job"] else words))


def check_sweep(words: list[str]) -> None:
    """Planned as dry_run=true does it, but with two options alone of each axis that a file names, and with two seeds.
    Words that change no cell are composed by themselves, so that commands which differ in them share a plan."""
    for extra, launcher in (("slurm", "submitit_slurm"), ("ray", "ray")):
        if f"hydra/launcher={launcher}" in words:
            assert any(need.startswith(f"hydra-{launcher.partition('_')[0]}-launcher") for need in EXTRAS[extra])
            words = [word for word in words if not word.startswith("hydra")]  # the extra may not be installed
    alike = [word for word in words if word.partition("=")[0] in SAME_CELLS]
    for word in alike:
        check_run((word,))
    check_plan(tuple(FEW_SEEDS.sub("seed=0,1", word) for word in words if word not in alike))


FEW_SEEDS = re.compile(r"^seed=(range\(\d+\)|\d+(,\d+)+)$")
SAME_CELLS = ("workers", "pack", "threads", "device", "outputs", "dry_run", "time_limit", "on_error")


@cache
def check_run(words: tuple[str, ...]) -> None:
    """Composed and checked."""
    checked(*words)


@cache
def check_plan(words: tuple[str, ...]) -> None:
    """Every cell is composed and checked."""
    assert len(planned(*words, *narrowed(words)).cells) > 1


def narrowed(words: tuple[str, ...]) -> list[str]:
    """Words that leave the first and the last option of each axis that an ablation's file lists."""
    keys = {word.partition("=")[0] for word in words}
    found = []
    for name in [word.partition("=")[2] for word in words if word.startswith("ablation=")]:
        axes = yaml.safe_load(page(f"conf/ablation/{name}.yaml"))["hydra"]["sweeper"]["params"]
        for axis in [axis for axis in axes if axis not in keys]:
            options = axes[axis].split(",")
            found.append(f"{axis}=range(2)" if "range(" in axes[axis] else f"{axis}={options[0]},{options[-1]}")
    return found


def check_report(words: list[str]) -> None:
    """The report's own words are composed, those of the sweep planned."""
    own, sweep = report.split_words(words)
    options = composed(*own, name="report")
    assert bool(sweep) + bool(options.runs) + bool(options.filter) == 1
    if sweep:
        check_sweep(sweep)


def check_composes(name: str) -> Callable[[list[str]], None]:
    """The words of another command are composed."""
    return lambda words: composed(*words, name=name) and None


def check_benchmark(words: list[str]) -> None:
    """The script is there and its parser takes the arguments."""
    assert words in understood_by_benchmarks()


@cache
def understood_by_benchmarks() -> list[list[str]]:
    """The words of the benchmark commands that the scripts' own parsers take, found in one process for all of them.
    A script without a parser runs whole."""
    driver = """if True:
        import argparse, json, pathlib, runpy, sys

        class Parsed(BaseException): pass

        def parse_and_stop(parser, args=None, namespace=None, parse=argparse.ArgumentParser.parse_args):
            parse(parser, args, namespace)
            raise Parsed

        argparse.ArgumentParser.parse_args = parse_and_stop
        folder, commands = sys.argv[1], json.loads(sys.argv[2])
        sys.path.insert(0, folder)
        for words in commands:
            sys.argv = [str(pathlib.Path(folder).parent / words[0]), *words[1:]]
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except Parsed:
                pass
    """
    asked = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("python benchmarks/")]
    arguments = [str(ROOT / "benchmarks"), json.dumps(asked)]
    done = subprocess.run([sys.executable, "-c", driver, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return asked


def check_make(words: list[str]) -> None:
    """make knows the target, and the words for the training compose."""
    subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
    for word in words:
        if word.startswith("ARGS="):
            checked(*shlex.split(word.removeprefix("ARGS=")))


def check_pytest(words: list[str]) -> None:
    """The folder is there, and an option of some group has the name that is asked for."""
    folder, *rest = words
    assert (ROOT / folder).is_dir()
    assert rest[0] == "-k" and list((ROOT / "conf").rglob(f"{rest[1]}.yaml")) and len(rest) == 2


def check_install(words: list[str]) -> None:
    """An editable installation with extras that the project has, or one of the tools named here."""
    if words[0] == "-e":
        assert re.fullmatch(r"\.(\[\w+\])?", words[1]) and set(re.findall(r"\w+", words[1])) <= set(EXTRAS)
    else:
        assert words == ["pre-commit"]


def check_completion(words: list[str]) -> None:
    """Hydra prints the completion of a command of ours."""
    script, *options = words[0].removeprefix("$(").removesuffix(")").split()
    module = PROJECT["scripts"][script].partition(":")[0]
    done = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "complete" in done.stdout, done.stderr


def check_literally(known: str) -> Callable[[list[str]], None]:
    """A command of which there is one form."""

    def check(words: list[str]) -> None:
        assert shlex.join(words) == known

    return check


KINDS: dict[str, Callable[[list[str]], None]] = {
    "python -m emoexp.train": check_train,
    "python -m emoexp.report": check_report,
    "python -m emoexp.audit": check_composes("audit"),
    "python -m emoexp.evaluate": check_composes("evaluate"),
    "python -m emoexp.predict": check_composes("predict"),
    "python -m pytest": check_pytest,
    "python": check_benchmark,
    "make": check_make,
    "pip install": check_install,
    "eval": check_completion,
    "source": check_literally(".venv/bin/activate"),
    "pre-commit": check_literally("install"),
}


def checks_of(command: str) -> tuple[Callable[[list[str]], None], list[str]]:
    """What checks a command, and the words behind what it begins with."""
    words = shlex.split(command, comments=True)
    for kind, check in KINDS.items():
        start = kind.split()
        if words[: len(start)] == start:
            return check, words[len(start) :]
    raise AssertionError(f"no test knows this kind of command: {command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_works(command):
    check, words = checks_of(command)
    check(words)


@pytest.mark.parametrize(
    "command",
    [
        "python -m emoexp.train imbalance=samplr",
        "python -m emoexp.train epoch=3",
        "python -m emoexp.train --multirun ablation=imbalance imbalance=none,smpler",
        "python -m emoexp.report ablation=imbalanc",
        "python -m emoexp.audit data=fer2031",
        "python -m emoexp.audit data=fer2013 audit.fail_with=[leaks]",
        "make trian",
        "make train ARGS=epoch=3",
        "pip install -e '.[slrm]'",
        "source venv/bin/activate",
        "python -m emoexp.trian",
        "mlflow ui",
    ],
)
def test_a_command_that_does_not_work_is_caught(command):
    with pytest.raises(Exception, match=r".") as caught:
        check, words = checks_of(command)
        check(words)
    assert not isinstance(caught.value, KeyError | NameError | TypeError)


# Commands that take seconds are run whole, in a folder with small data of one's own, with words that make them small.

SMALL = [
    *("image_size=16", "batch_size=32", "epochs=2", "architecture.widths=[4,8]", "architecture.dense=16"),
    *("threads=1", "tracking=none", "cache=cache"),
]
ALLOWED = ["threads=1", "cache=cache", "allow=[my_package]"]
WHOLE = {  # in this order: the command, further words, and what it leaves
    "python -m emoexp.train --config-dir my_conf activation=sine 'allow=[my_package]'": (
        [*SMALL, "data.size=420", "data.test_per_class=12"],
        "outputs/faces-*/metrics.json",
    ),
    "python -m emoexp.train data=folder data.root=images imbalance=sqrt_sampler": (
        [*SMALL, "activation=relu"],
        "outputs/images-*/metrics.json",
    ),
    "python -m emoexp.evaluate run=outputs/RUN data=folder data.root=images part=all 'classes={happiness: happy}'": (
        ALLOWED,
        "outputs/faces-*/evaluations/*/metrics.json",
    ),
    "python -m emoexp.predict run=outputs/RUN images=photos/": (ALLOWED, "predictions.csv"),
    "python -m emoexp.report 'runs=[outputs/faces-*]'": (["tracking=none", "resamples=50"], "report/report.html"),
    "python -m emoexp.audit data=folder data.root=images": (
        ["tracking=none", "image_size=16", "threads=1", "cache=cache"],
        "outputs/audit-*/report/audit.html",
    ),
}


def small_data(folder: Path) -> None:
    """What the commands name: images/ with a folder for each class, photos/, and the files that a page shows."""
    noise = np.random.default_rng(0)
    for place, number in (("images/angry", 40), ("images/happiness", 30), ("photos", 3)):
        (folder / place).mkdir(parents=True)
        for index in range(number):
            pixels = noise.integers(0, 256, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{index}.png")
    for about, block in fences(page("docs/extending.md")):
        if title := re.search(r'title="(.+)"', about):
            (folder / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / title[1]).write_text(block)


def test_commands_run_whole(tmp_path, monkeypatch, blank_figures):
    small_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for command, (further, left) in WHOLE.items():
        assert command in COMMANDS, f"no page has it any more: {command}"
        name, *words = shlex.split(command)[2:]
        if "run=outputs/RUN" in words:
            (run,) = Path("outputs").glob("faces-*")
            words[words.index("run=outputs/RUN")] = f"run={run}"
        monkeypatch.setattr(sys, "argv", [name, *words, *further])
        importlib.import_module(name).main()
        assert list(tmp_path.glob(left)), f"{command} left no {left}"


# The pages themselves.


def test_the_readme_is_one_page():
    assert len(page("README.md").encode()) <= README_BYTES


def test_every_page_begins_with_what_it_answers():
    for name in PAGES[2:]:
        title, empty, first = page(name).splitlines()[:3]
        assert title.startswith("# ") and not empty and first.startswith("This page "), name


def test_links_of_readme_and_contributing_lead_somewhere():
    for name in PAGES[:2]:
        links = re.findall(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)", page(name))
        assert links
        for path, anchor in links:
            assert (ROOT / path).exists(), f"{name}: {path}"
            assert not anchor or anchor in anchors(path), f"{name}: {path}#{anchor}"


def anchors(name: str) -> set[str]:
    """The headings of a page as its links name them."""
    headings = re.findall(r"^#+ (.+)$", page(name), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_that_is_named_exists():
    for name in PAGES:
        for path in re.findall(r"`((?:emoexp|conf|tests|benchmarks|docs|\.ci|\.github)/[\w./-]*)`", page(name)):
            assert list(ROOT.glob(path.replace("NAME", "*").rstrip("/"))), f"{name} names {path}"


def test_every_page_is_in_the_navigation_and_the_pages_build(tmp_path):
    """Strictly: a link, an anchor or a page of the navigation that is not there ends it."""
    named = {str(file) for entry in yaml.safe_load(page("mkdocs.yml"))["nav"] for file in entry.values()}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    fetched = (
        r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+https?://"
    )
    assert len(pages) > len(named) and not any(re.search(fetched, text) for text in pages)


def test_numbers_of_the_decision_table_stand_in_the_results():
    table = page("README.md").partition("## Which strategy should I take?")[2].partition("\n## ")[0]
    numbers = set(re.findall(r"[+-]?\d+\.\d+", table))
    assert len(numbers) > 20 and [number for number in numbers if number not in page("docs/results.md")] == []
