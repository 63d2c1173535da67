"""The laws of the house, each from a file to what breaks it: kept by the real tree, broken by a made-up one."""

import ast
import dataclasses
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoexp.config import options, schema

ROOT = Path(__file__).parents[2]
SCIENCE = {"data", "imbalance", "models", "metrics", "rng"}  # what else must not import what: .importlinter
FOLDERS = {"auditing", "config", "data", "figures", "imbalance", "inference", "metrics", "models", "pages", "reporting"}
FOLDERS |= {"runs", "sweep", "tracking", "training"}
ENTRIES = {"train", "evaluate", "predict", "sync", "report", "audit"}
CONFIGURED = {"config", "cli", *ENTRIES}  # see omegaconf
COMPOSING = {
    "emoexp/sweep/compose.py",
    "emoexp/sweep/plugin/__init__.py",
}  # so does what stands between Hydra and a sweep

# Who may hold a random generator, and which; every draw besides these comes from rng.py's hash. Exact: a name that is
# no longer used has to leave this list. Layers of torch.nn draw from the state that rng.reseed has set.
RANDOM = {
    "emoexp/rng.py": {  # reseed, the one door to torch's state (weights, dropout)
        "torch.cuda.manual_seed_all",
        "torch.default_generator",
        "torch.default_generator.manual_seed",
        "torch.mps.manual_seed",
    },
    "emoexp/data/readers/faces.py": {
        "numpy.random.Generator",
        "numpy.random.Philox",
    },  # the drawn set's one stream, by its seed
    "emoexp/data/readers/facial_actions.py": {"numpy.random.Generator"},  # a type: draws from the stream of faces.py
    "emoexp/data/readers/traits.py": {"numpy.random.Generator"},  # a type: the same
    "emoexp/metrics/bootstrap.py": {
        "numpy.random.Generator",
        "numpy.random.default_rng",
    },  # bootstrap, by the caller's seed
}


@dataclass(frozen=True)
class Source:
    """A Python file of the package: its path from the repository's root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The module or subpackage of emoexp that it belongs to."""
        return self.path.removeprefix("emoexp/").partition("/")[0].removesuffix(".py")

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """(line, dotted name) of everything that is imported, wherever in the file, for type checking too."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, f"{self.base(node)}.{alias.name}") for alias in node.names]
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                if ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
                    found.append((node.lineno, str(node.args[0].value)))
        return found

    def base(self, node: ast.ImportFrom) -> str:
        """The package that an import starts from."""
        above = self.path.split("/")[: -node.level] if node.level else []
        return ".".join([*above, *([node.module] if node.module else [])])

    @cached_property
    def uses(self) -> list[tuple[int, str]]:
        """(line, full dotted name) of everything imported that is used or named in an import."""
        known = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                known |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else "" for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                known |= {alias.asname or alias.name: f"{self.base(node)}.{alias.name}" for alias in node.names}
        found = list(self.imports)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                first, dot, rest = ast.unparse(node).partition(".")
                if first in known:
                    found.append((node.lineno, (known[first] or first) + dot + rest))
        return found

    def at(self, line: int, what: str) -> str:
        """A violation as the tests show it."""
        return f"{self.path}:{line}: {what}"


Law = Callable[[Source], Iterator[str]]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def only_commands_on_top(source: Source) -> Iterator[str]:
    """On top of emoexp/ stand folders, the commands, and what all of them share."""
    if source.room not in FOLDERS | ENTRIES | {"__init__", "cli", "rng"} and not source.path.startswith("conf/"):
        yield source.at(1, f"{source.room} belongs into one of the folders of docs/architecture.md")


def the_science_reads_no_environment(source: Source) -> Iterator[str]:
    """Nothing outside the configuration changes a number."""
    for line, name in source.uses if source.room in SCIENCE else ():
        if re.fullmatch(r"os\.(environb?|getenvb?|putenv)(\..*)?", name):
            yield source.at(line, f"reads the environment: {name}")


def one_owner(source: Source) -> Iterator[str]:
    """mlflow, matplotlib, hydra and omegaconf are each imported in one place."""
    owners = {"mlflow": {"tracking"}, "matplotlib": {"figures"}, "hydra": CONFIGURED, "omegaconf": CONFIGURED}
    for line, name in source.imports:
        package = name.partition(".")[0]
        if package in ("hydra", "omegaconf") and source.path in COMPOSING:
            continue
        if source.room not in owners.get(package, {source.room}):
            yield source.at(line, f"{source.room} imports {name}")


def one_saver(source: Source) -> Iterator[str]:
    """runs/checkpoint alone saves and loads; inference/export writes programs, tracking/served opens them, and
    models/imagenet opens published weights."""
    for line, name in source.uses:
        kept = re.fullmatch(r"torch\.(export\.|jit\.|serialization\.)?(save|load)", name)
        served = source.path == "emoexp/tracking/served.py" and name == "torch.export.load"
        served |= source.path == "emoexp/inference/export.py" and name == "torch.export.save"
        served |= source.path == "emoexp/models/imagenet.py" and name == "torch.load"
        if kept and source.path != "emoexp/runs/checkpoint.py" and not served:
            yield source.at(line, name)


def entries_are_entries(source: Source) -> Iterator[str]:
    """hydra.main stands in entry modules, Hydra instantiates nothing, and nobody imports an entry module."""
    for line, name in source.uses:
        if within(name, "hydra.main") and source.room not in ENTRIES:
            yield source.at(line, "hydra.main outside an entry module")
        if within(name, "hydra.utils.instantiate", "hydra.utils.call"):
            yield source.at(line, f"{name}: config/build.py builds what a name stands for")
    for line, name in source.imports:
        if within(name, *(f"emoexp.{entry}" for entry in ENTRIES)):
            yield source.at(line, f"imports the entry module {name}")


_RANDOM = re.compile(
    r"torch\.(\w+\.)*(manual_seed(_all)?|seed(_all)?|initial_seed|Generator|default_generator|[gs]et_rng_state(_all)?"
    r"|rand\w*|multinomial|bernoulli|normal|poisson|fork_rng)"
    r"|numpy\.random\.\w+|random\.\w+|secrets\.\w+|os\.urandom"
)
_IN_PLACE = re.compile(r"(random|normal|uniform|bernoulli|exponential|cauchy|geometric|log_normal)_")


def draws(source: Source) -> dict[str, int]:
    """Every random function or generator that a file names, with the first line of it."""
    found: dict[str, int] = {}
    for line, name in source.uses:
        if match := _RANDOM.match(name):
            found.setdefault(match.group(), line)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _IN_PLACE.fullmatch(node.attr):
            found.setdefault(node.attr, node.lineno)
    return found


def randomness_is_a_function(source: Source) -> Iterator[str]:
    """Only the listed files hold a generator, and they hold just the listed ones."""
    allowed, found = RANDOM.get(source.path, set()), draws(source)
    for name, line in found.items():
        if name not in allowed:
            yield source.at(line, f"{name}: draw with emoexp.rng, or list it in RANDOM here with its reason")
    for name in sorted(allowed - set(found)):
        yield source.at(1, f"{name} is listed in RANDOM and no longer used")


_DANGER = re.compile(
    r"(pickle|cPickle|dill|joblib|marshal|shelve|_pickle|cloudpickle)\.(loads?|open|Unpickler)"
    r"|yaml\.(load(_all)?|unsafe_load(_all)?|full_load(_all)?)|os\.(system|popen)"
)


def nothing_dangerous(source: Source) -> Iterator[str]:
    """Nothing runs text as code, unpickles, or hands a string to a shell."""
    for line, name in source.uses:
        if _DANGER.fullmatch(name):
            yield source.at(line, name)
    safe = {"weights_only": True, "shell": False, "allow_pickle": False}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id in ("eval", "exec"):
            yield source.at(node.lineno, node.id)
        if isinstance(node, ast.keyword) and node.arg in safe:
            if not isinstance(node.value, ast.Constant) or node.value.value is not safe[node.arg]:
                yield source.at(node.lineno, f"{node.arg}={ast.unparse(node.value)}")


def everything_public_says_what_it_is(source: Source) -> Iterator[str]:
    """Modules, and public classes, functions and methods, have a docstring."""
    yield from _undocumented(source, source.tree, source.path)


def _undocumented(source: Source, node: Any, name: str) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield source.at(getattr(node, "lineno", 1), f"{name} has no docstring")
    for child in node.body if isinstance(node, ast.Module | ast.ClassDef) else []:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name[0] != "_":
            yield from _undocumented(source, child, child.name)


LAWS: list[Law] = [
    only_commands_on_top,
    the_science_reads_no_environment,
    one_owner,
    one_saver,
    entries_are_entries,
    randomness_is_a_function,
    nothing_dangerous,
    everything_public_says_what_it_is,
]
PYTHON = [
    Source(path.relative_to(ROOT).as_posix(), path.read_text())
    for folder in ("emoexp", "conf")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_there_is_something_to_walk():
    rooms = {source.room for source in PYTHON}
    assert rooms >= FOLDERS and len(PYTHON) > 40
    assert set(RANDOM) <= {source.path for source in PYTHON}
    commands = {source.room for source in PYTHON if "__main__" in source.text and source.path.count("/") == 1}
    assert {"train", "evaluate", "predict", "sync"} <= commands - {"config"} <= ENTRIES


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_tree_keeps(law):
    assert [line for source in PYTHON for line in law(source)] == []


RATES, LOOP, TRAIN = "emoexp/metrics/classification.py", "emoexp/training/loop.py", "emoexp/train.py"
BROKEN: list[tuple[Law, str, str]] = [
    (only_commands_on_top, "emoexp/misc.py", ""),
    (only_commands_on_top, "emoexp/misc/part.py", ""),
    (the_science_reads_no_environment, RATES, "import os\nx = os.environ['HOME']"),
    (the_science_reads_no_environment, RATES, "import os as o\nx = o.environ.get('HOME')"),
    (the_science_reads_no_environment, RATES, "from os import getenv"),
    (one_owner, "emoexp/runs/process.py", "import mlflow"),
    (one_owner, "emoexp/figures/bars.py", "from mlflow import MlflowClient"),
    (one_owner, "emoexp/inference/results.py", "import matplotlib.pyplot as plt"),
    (one_owner, LOOP, "from omegaconf import DictConfig"),
    (one_owner, "emoexp/tracking/settings.py", "import hydra"),
    (one_saver, LOOP, "import torch\ntorch.save({}, 'x')"),
    (one_saver, LOOP, "from torch import load as l\nl('x')"),
    (one_saver, "emoexp/tracking/model.py", "import torch\ntorch.export.load('x')"),
    (one_saver, "emoexp/tracking/served.py", "import torch\ntorch.load('x')"),
    (one_saver, "emoexp/inference/results.py", "import torch\ntorch.export.save(p, 'x')"),
    (entries_are_entries, "emoexp/config/schema.py", "import hydra\n@hydra.main()\ndef f(c): pass"),
    (entries_are_entries, LOOP, "from hydra import main"),
    (entries_are_entries, TRAIN, "from hydra.utils import instantiate"),
    (entries_are_entries, "emoexp/evaluate.py", "from emoexp import train"),
    (entries_are_entries, LOOP, "from emoexp.predict import job"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.manual_seed(0)"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.cuda.manual_seed_all(0)"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.rand(3)"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.randn_like(x)"),
    (randomness_is_a_function, LOOP, "from torch import randperm"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.multinomial(p, 3)"),
    (randomness_is_a_function, LOOP, "import torch\ng = torch.Generator()"),
    (randomness_is_a_function, LOOP, "import torch\ntorch.empty(3).uniform_()"),
    (randomness_is_a_function, LOOP, "import numpy as np\nnp.random.default_rng(0).normal()"),
    (randomness_is_a_function, LOOP, "from numpy import random as r\nr.shuffle(x)"),
    (randomness_is_a_function, LOOP, "import random\nrandom.shuffle(x)"),
    (randomness_is_a_function, LOOP, "from random import shuffle"),
    (randomness_is_a_function, "emoexp/rng.py", "import torch\ntorch.manual_seed(0)\ntorch.rand(3)"),
    (randomness_is_a_function, "emoexp/rng.py", "'''Nothing that is listed.'''"),
    (nothing_dangerous, LOOP, "eval('1')"),
    (nothing_dangerous, LOOP, "run = exec"),
    (nothing_dangerous, LOOP, "import pickle\npickle.loads(b'')"),
    (nothing_dangerous, LOOP, "from pickle import load"),
    (nothing_dangerous, LOOP, "import yaml\nyaml.load(text, yaml.Loader)"),
    (nothing_dangerous, LOOP, "torch.load(x, weights_only=False)"),
    (nothing_dangerous, LOOP, "torch.load(x, weights_only=some)"),
    (nothing_dangerous, LOOP, "subprocess.run('ls', shell=True)"),
    (nothing_dangerous, LOOP, "np.load(x, allow_pickle=True)"),
    (nothing_dangerous, LOOP, "import os\nos.system('ls')"),
    (everything_public_says_what_it_is, LOOP, "x = 1"),
    (everything_public_says_what_it_is, LOOP, "'''A.'''\ndef f(): pass"),
    (everything_public_says_what_it_is, LOOP, "'''A.'''\nclass A: pass"),
    (everything_public_says_what_it_is, LOOP, "'''A.'''\nclass A:\n    '''B.'''\n    def f(self): pass"),
]


@pytest.mark.parametrize(("law", "path", "text"), BROKEN)
def test_a_breach_is_caught(law, path, text):
    assert list(law(Source(path, text)))


KEPT: list[tuple[Law, str, str]] = [
    (the_science_reads_no_environment, RATES, "import os\nfrom emoexp.metrics.slugs import slugs\nos.getpid()"),
    (the_science_reads_no_environment, LOOP, "from emoexp import config\nimport os\nos.environ['A']"),
    (one_saver, "emoexp/tracking/served.py", "import torch\ntorch.export.load('x')"),
    (randomness_is_a_function, LOOP, "from emoexp import rng\nrng.reseed(0, 'a')\nrandom.random(3)"),
    (nothing_dangerous, LOOP, "import pickle, yaml\nmodel.eval()\nyaml.safe_load(x)\nx = pickle.UnpicklingError"),
    (everything_public_says_what_it_is, LOOP, "'''A.'''\ndef _f(): pass\nclass _A:\n    def f(self): pass"),
]


@pytest.mark.parametrize(("law", "path", "text"), KEPT)
def test_what_is_allowed_passes(law, path, text):
    assert list(law(Source(path, text))) == []


GROUPS = sorted(set(options.GROUPS.values()))


def opens_with_a_comment(path: str, text: str) -> Iterator[str]:
    """A YAML file says what it is before anything else."""
    first = text.removeprefix("# @package _global_\n").partition("\n")[0]
    if not re.match(r"# \w", first) or first.startswith("# @package"):
        yield f"{path}:1: opens without a comment"


def named_as_its_file(path: str, text: str) -> Iterator[str]:
    """An option is called like its file, by a word that YAML reads as one."""
    folder, _, stem = path.removeprefix("conf/").removesuffix(".yaml").rpartition("/")
    if not isinstance(yaml.safe_load(stem), str):
        yield f"{path}: YAML reads the option's name as {yaml.safe_load(stem)!r}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem):
        yield f"{path}: small letters, digits and _ make a name"
    if folder in GROUPS and yaml.safe_load(text).get("name") != stem:
        yield f"{path}: its name is {yaml.safe_load(text).get('name')!r}"


def keys_are_fields(path: str, text: str) -> Iterator[str]:
    """Every key of an option is a field of its class, and every field is a key: files say all defaults."""
    group, _, file = path.removeprefix("conf/").rpartition("/")
    if group not in schema.BASES:
        return
    node = yaml.safe_load(text)
    known = schema.BASES[group].known.get(file.removesuffix(".yaml"))
    if known is None:
        yield f"{path}: {schema.BASES[group].__name__} knows no such option"
        return
    chosen = [entry for entry in node.pop("defaults", []) if isinstance(entry, dict)]
    keys = set(node) | {str(key).rpartition("@")[2] for entry in chosen for key in entry}
    fields = {field.name for field in dataclasses.fields(known)}
    yield from (f"{path}: {key} is no field of {known.__name__}" for key in sorted(keys - fields))
    yield from (f"{path}: {known.__name__} has a field {key}" for key in sorted(fields - keys))


def builds_no_target(path: str, text: str) -> Iterator[str]:
    """Our own options are built by their classes, so that no file of ours names code."""
    if re.search(r"^[^#]*\b_(target|partial)_:", text, re.MULTILINE):
        yield f"{path}: _target_"


YAML_LAWS = [opens_with_a_comment, named_as_its_file, keys_are_fields, builds_no_target]
CONF = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "conf").rglob("*.yaml"))}


def test_every_option_group_has_files():
    assert {path.removeprefix("conf/").rpartition("/")[0] for path in CONF} >= set(GROUPS)
    assert set(schema.BASES) == set(GROUPS) - {"imbalance"}
    for group, base in schema.BASES.items():
        assert set(base.known) == {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


@pytest.mark.parametrize("law", YAML_LAWS, ids=lambda law: law.__name__)
def test_the_configuration_keeps(law):
    assert [line for path, text in CONF.items() for line in law(path, text)] == []


LOSS = "name: focal\n"
CNN = "name: shallow_cnn\n"


@pytest.mark.parametrize(
    ("law", "path", "text"),
    [
        (opens_with_a_comment, "conf/activation/a.yaml", "name: a\n# A.\n"),
        (opens_with_a_comment, "conf/experiment/a.yaml", "# @package _global_\nepochs: 3\n"),
        (opens_with_a_comment, "conf/activation/a.yaml", "#\nname: a\n"),
        (named_as_its_file, "conf/activation/relu.yaml", "name: mish"),
        (named_as_its_file, "conf/imbalance/copies/cap.yaml", "factor: 1"),
        (named_as_its_file, "conf/activation/no.yaml", "name: no"),
        (named_as_its_file, "conf/experiment/12.yaml", "epochs: 3"),
        (named_as_its_file, "conf/experiment/two-words.yaml", "epochs: 3"),
        (keys_are_fields, "conf/imbalance/loss/focal.yaml", f"{LOSS}gamma: 1.0"),
        (keys_are_fields, "conf/imbalance/loss/focal.yaml", f"{LOSS}gamma: 1.0\nsmoothing: 0.0\nalpha: 1.0"),
        (keys_are_fields, "conf/imbalance/loss/focul.yaml", f"{LOSS}gamma: 1.0\nsmoothing: 0.0"),
        (keys_are_fields, "conf/architecture/shallow_cnn.yaml", f"{CNN}width: 16\ndense: 8\nchannels: 1"),
        (keys_are_fields, "conf/imbalance/copies/equalise.yaml", "name: equalise\nredraw: never"),
        (builds_no_target, "conf/activation/a.yaml", "name: a\n_target_: torch.nn.ReLU"),
        (builds_no_target, "conf/activation/a.yaml", "deep: [{er: {_target_: torch.load}}]"),
        (builds_no_target, "conf/activation/a.yaml", "name: a\n_partial_: true"),
    ],
)
def test_a_breach_of_the_configuration_is_caught(law, path, text):
    assert list(law(path, text))


# Registries of packages, their mirrors and how pip is pointed to one; the escapes keep this file out of its own net.
_REGISTRY = re.compile(
    r"p[y]pi\.(org|io)|p[y]thonhosted\.|download\.p[y]torch\.|a[n]aconda\.(org|com)|c[o]nda-forge\.|n[p]mjs\."
    r"|g[h]cr\.io|d[o]cker\.io|q[u]ay\.io|n[v]cr\.io|\b(extra-)?index[-]url|--find[-]links|trusted[-]host",
    re.I,
)
_MACHINE = re.compile(r"(?<![\w.~$})-])/(work|root|tmp|home|mnt|Users)/")


def names_no_registry(path: str, text: str) -> Iterator[str]:
    """Packages come from wherever the person's pip gets them."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _REGISTRY.search(line):
            yield f"{path}:{number}: {match.group()}"


def names_no_folder_of_this_machine(path: str, text: str) -> Iterator[str]:
    """Nothing but tests names an absolute folder."""
    if path.startswith("tests/"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if match := _MACHINE.search(line):
            yield f"{path}:{number}: {match.group()}"


def tracked() -> Iterator[tuple[str, str]]:
    """The text files of the repository: those that git knows, or all where it knows none."""
    try:
        told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout
    except FileNotFoundError:
        told = ""
    paths = [ROOT / name for name in told.split("\0") if name]
    folders = ("emoexp", "conf", "tests", "benchmarks", ".ci")
    paths = paths or [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts):
        raw = path.read_bytes()
        if b"\0" not in raw:
            yield path.relative_to(ROOT).as_posix(), raw.decode(errors="replace")


@pytest.mark.parametrize("law", [names_no_registry, names_no_folder_of_this_machine], ids=lambda law: law.__name__)
def test_every_text_file_keeps(law):
    files = dict(tracked())
    assert {"README.md", "Makefile", "pyproject.toml", "constraints.txt", "conf/train.yaml"} <= set(files)
    assert [line for path, text in files.items() for line in law(path, text)] == []


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (names_no_registry, "https://" + "pypi" + ".org/simple"),
        (names_no_registry, "pip install --extra-index" + "-url x"),
        (names_no_registry, "see download" + ".pytorch.org/whl/cpu"),
        (names_no_folder_of_this_machine, "root: /home/ann/data"),
        (names_no_folder_of_this_machine, 'open("/tmp/x")'),
        (names_no_folder_of_this_machine, "sqlite:////Users/ann/mlflow.db"),
    ],
)
def test_a_breach_of_the_text_is_caught(law, text):
    assert list(law("README.md", f"fine\n{text}\n"))


def test_relative_folders_are_fine():
    assert list(names_no_folder_of_this_machine("README.md", "data/home/x ./tmp/ ~/home/ https://a.b/home.html")) == []
