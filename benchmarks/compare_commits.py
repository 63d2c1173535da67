"""Whether two commits compute the same numbers: the same small trainings, each with its commit's own code, bit for bit.

    python benchmarks/compare_commits.py BEFORE AFTER --work FOLDER
    python benchmarks/compare_commits.py HEAD . --only ldam,lws

A commit is anything that git knows; `.` is the working tree as it stands (tracked files, and new ones that git does not
ignore). Each is checked out by `git worktree` and gets a virtual environment that borrows the packages of the
interpreter that runs this script (pip and setuptools among them) and in which that checkout is installed. Then each
configuration is run by `python -m emoexp.train` in a process of its own, on the CPU with one thread.

Compared are the names of the run folders, history.jsonl, metrics.json, ledger.json, the arrays in predictions/, and the
tensors of best.pt and last.pt. Then AFTER's evaluate, predict and report are asked about what BEFORE has trained, and
have to answer as BEFORE's do; and a run that BEFORE began is ended by AFTER. A table says what came out; the exit code
is 1 where anything differs or fails.

--work keeps what is finished, by the commit's full hash: a second call runs only what is missing. Delete the folder and
call `git worktree prune` to be rid of it. About six minutes a commit on one core.
"""

import argparse
import csv
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 900  # of one command

COMMON = ("batch_size=32", "tracking=none", "threads=1", "device=cpu")
FACES = ("data.size=420", "data.test_per_class=12")
RUN = (*COMMON, *FACES, "image_size=24", "epochs=2")
SMALL = (*RUN, "architecture.widths=[8,16]", "architecture.dense=32")
RELU = (*SMALL, "activation=relu")
THREE = (*RELU, "epochs=3")
FEW = "imbalance.epoch_size=64"  # two steps an epoch, for large networks

TRAININGS: dict[str, tuple[str, ...]] = {
    "none": (*SMALL, "activation=mish"),
    # the columns of a strategy
    "copies": (*RELU, "imbalance=augment"),
    "copies_redrawn": (*RELU, "imbalance/copies=equalise", "imbalance.copies.redraw=epoch", "augmentation=strong"),
    "sampling": (*RELU, "imbalance=sampler"),
    "sampling_progressive": (*RELU, "imbalance=progressive"),
    "weights": (*RELU, "imbalance=class_balanced"),
    "loss": (*RELU, "imbalance=balanced_softmax"),
    "loss_vs": (*RELU, "imbalance=vs"),
    "schedule": (*THREE, "imbalance=drw"),
    "mix": (*RELU, "imbalance=remix"),
    "mix_cmo": (*RELU, "imbalance=cmo"),
    "mix_balanced": (*RELU, "imbalance=balanced_mixup"),
    "posthoc": (*RELU, "imbalance=tau_norm"),
    "posthoc_offsets": (*RELU, "imbalance=focal", "imbalance/posthoc=offsets"),
    "nearest_class_mean": (*RELU, "imbalance=nearest_class_mean"),
    # several columns, other heads, two stages
    "all_columns": (*RELU, "imbalance=augment_sampler_weighted_loss", "imbalance/posthoc=temperature"),
    "influence_balanced": (*THREE, "imbalance=influence_balanced"),
    "ldam": (*THREE, "imbalance=ldam_drw"),
    "crt": (*THREE, "imbalance=crt"),
    "lws": (*THREE, "imbalance=lws"),
    "mislas": (*THREE, "imbalance=mislas"),
    # architectures other than emotion_cnn, with what is usual beside them
    "shallow_cnn": (*RUN, "architecture=shallow_cnn", "activation=leaky_relu", "optimizer=adam", "scheduler=constant"),
    "vgg_a": (*RUN, "architecture=vgg_a", "activation=relu", "image_size=32", "architecture.dense=64", FEW),
    "resnet18": (*RUN, "architecture=resnet18", "activation=relu", "image_size=16", FEW),
    "resnet32": (
        *RUN,
        FEW,
        "architecture=resnet32",
        "activation=relu",
        "optimizer=sgd",
        "scheduler=steps",
        "augmentation=cifar",
        "channels=3",
        "monitor=epoch",
        "patience=null",
    ),
    "mobilenet_v3_small": (*RUN, FEW, "architecture=mobilenet_v3_small", "activation=swish", "scheduler=cosine"),
    # optimizers, and the rest of the scalars
    "sam": (*RELU, "optimizer=sam"),
    "sam_tail": (*RELU, "optimizer=sam_tail"),
    "clipped": (*THREE, "clip_norm=0.5", "scheduler=plateau", "monitor=val/loss", "patience=1", "activation=gelu"),
    "bf16": (*RELU, "precision=bf16", "augmentation=none"),
    "kfold": (*RELU, "split=kfold", "data.long_tail.profile=exponential", "data.long_tail.factor=20"),
}
LEAKY = (
    *COMMON,
    "experiment=pared_down_vgg",
    "protocol=leaky",
    "image_size=24",
    "epochs=2",
    "architecture.width=4",
    "architecture.dense=16",
)
RESUMED = (
    *COMMON,
    "data.size=900",
    "data.test_per_class=12",
    "image_size=32",
    "epochs=5",
    "architecture.widths=[16,32,64]",
    "architecture.dense=64",
    "activation=relu",
    "imbalance=crt",
    "imbalance.schedule.start=0.6",
)
SWEEP = (*RELU, "imbalance=none,sampler", "seed=0,1")
JUDGED = ("none", "ldam", "lws", "posthoc", "nearest_class_mean", "mobilenet_v3_small", "leaky")


class Failed(Exception):
    """A command that did not end well, or did not do what it was to do."""


def leaky(drawn: Path, photographs: Path | None) -> dict[str, tuple[str, ...]]:
    """The trainings whose copies are made before the split.

    Args:
        drawn: the folder of `draw`.
        photographs: a folder or archive of facial_expressions; None: only drawn images are used.
    """
    found = {"leaky": (*LEAKY, "data=folder", f"data.root={drawn}", "imbalance.copies.least=30")}
    if photographs:
        found["leaky_photographs"] = (*LEAKY, f"data.root={photographs}", FEW)
    return found


def draw(folder: Path) -> Path:
    """Two common classes and a rare one, as folders of images; the place of a bright bar says the class."""
    drawing = np.random.default_rng(0)
    for name, number, top in (("happy", 60, 2), ("neutral", 60, 8), ("contempt", 6, 14)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(number):
            pixels = drawing.integers(60, 120, (20, 20)).astype(np.uint8)
            pixels[top : top + 4, 4:16] = 220
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


# One commit: its checkout, and what was run with it.


def git(*words: str, **environment: str) -> str:
    """What a git command answers."""
    done = subprocess.run(
        ["git", *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_of(name: str) -> str:
    """The full hash of a commit; of the working tree, for `.`, that of a commit that no branch points to."""
    if name != ".":
        return git("rev-parse", "--verify", f"{name}^{{commit}}")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"  # a copy: what is staged stays as it is
        shutil.copy(ROOT / git("rev-parse", "--git-path", "index"), index)
        git("add", "--all", GIT_INDEX_FILE=str(index))
        tree = git("write-tree", GIT_INDEX_FILE=str(index))
    if tree == git("rev-parse", "HEAD^{tree}"):
        return git("rev-parse", "HEAD")
    when = "2000-01-01T00:00:00Z"  # the same tree gives the same hash
    fixed = {}
    for role in ("AUTHOR", "COMMITTER"):
        fixed[f"GIT_{role}_NAME"] = fixed[f"GIT_{role}_EMAIL"] = "compare_commits"
        fixed[f"GIT_{role}_DATE"] = when
    return git("commit-tree", tree, "-p", "HEAD", "-m", "The working tree", **fixed)


def machine() -> dict[str, str]:
    """What equal bits depend on besides the code."""
    info = Path("/proc/cpuinfo")
    models = (
        [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


class Checkout:
    """A commit's code, installed in an environment of its own, and the folder of what was run with it."""

    def __init__(self, commit: str, folder: Path) -> None:
        self.commit, self.folder = commit, folder
        self.tree, self._python = folder / "tree", folder / "venv" / "bin" / "python"
        if not (folder / "installed").is_file():
            self._install()
        self._verify()

    def _install(self) -> None:
        """Check the commit out and install it, so that `emoexp` and its conf/ are those of the checkout."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.tree.is_dir():
            git("worktree", "add", "--quiet", "--force", "--detach", str(self.tree), self.commit)
        venv = self.folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", venv], check=True)
        packages = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
        (own,) = (venv / "lib").glob("python*/site-packages")
        (own / "borrowed.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")
        words = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-e", self.tree)
        subprocess.run([self._python, *words], env=environment(), check=True)
        (self.folder / "installed").touch()

    def _verify(self) -> None:
        """Refuse an environment that imports another checkout's code or conf/."""
        asked = "import emoexp, emoexp.conf; print(*emoexp.__path__, *emoexp.conf.__path__, sep='\\n')"
        done = subprocess.run(
            [self._python, "-c", asked], cwd=self.folder, env=environment(), check=True, capture_output=True, text=True
        )
        expected = [str(self.tree / "emoexp"), str(self.tree / "conf")]
        if done.stdout.split("\n")[:-1] != expected:
            raise SystemExit(f"{self.folder} imports {done.stdout.split()}, not {expected}")

    def begin(self, folder: Path, module: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in a folder, with this commit's cache; what it prints goes to <folder>/<module>.log."""
        folder.mkdir(parents=True, exist_ok=True)
        cache = [] if module == "report" else [f"cache={self.folder / 'cache'}"]
        with (folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [self._python, "-m", f"emoexp.{module}", *words, *cache],
                cwd=folder,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, folder: Path, module: str, *words: str) -> None:
        """A command to its end.

        Raises:
            Failed: it ended with an error, which is the last line that it printed.
        """
        process = self.begin(folder, module, *words)
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"emoexp.{module} ran longer than {PATIENCE_S} s") from None
        if code:
            printed = (folder / f"{module}.log").read_text(encoding="utf-8").splitlines()
            errors = [line for line in printed if line.startswith("error:")]
            raise Failed(f"emoexp.{module}, exit code {code}: {(errors or printed or ['nothing printed'])[-1]}")

    def runs(self, folder: Path) -> list[Path]:
        """The run folders in <folder>/outputs, each of which has to say that this commit made it."""
        found = sorted((folder / "outputs").iterdir())
        for path in found:
            made = json.loads((path / "manifest.json").read_text(encoding="utf-8")).get("git", {})
            if made.get("commit") != self.commit or made.get("dirty"):
                raise Failed(f"the manifest of {path} says that {made} made it, not {self.commit}")
        return found


def environment() -> dict[str, str]:
    """This process's environment, without what could bring in other code, another device or more threads."""
    found = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    found["OMP_NUM_THREADS"] = found["MKL_NUM_THREADS"] = found["OPENBLAS_NUM_THREADS"] = "1"
    found["PYTHONNOUSERSITE"] = "1"
    found["CUDA_VISIBLE_DEVICES"] = ""
    return found


@contextmanager
def kept(folder: Path, made_by: object) -> Iterator[bool]:
    """Whether a folder still has to be filled; once it is, it says by what, and on what machine.

    A folder that was filled by something else, elsewhere or not to the end is emptied first.
    """
    note, says = folder / "done.json", json.loads(json.dumps({"made_by": made_by, "machine": machine()}))
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == says:
        yield False
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    yield True
    note.write_text(json.dumps(says, indent=1), encoding="utf-8")
    print(f"  {folder.name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


# The runs of one commit.


def trained(checkout: Checkout, name: str, words: Sequence[str]) -> list[Path]:
    """The run of a configuration."""
    folder = checkout.folder / "runs" / name
    with kept(folder, words) as missing:
        if missing:
            checkout.run(folder, "train", *words)
    return checkout.runs(folder)


def swept(checkout: Checkout) -> list[Path]:
    """The cells of a sweep."""
    folder = checkout.folder / "runs" / "sweep"
    with kept(folder, SWEEP) as missing:
        if missing:
            checkout.run(folder, "train", "--multirun", *SWEEP)
    return checkout.runs(folder)


def resumed(checkout: Checkout) -> list[Path]:
    """A run that was killed, continued, told to stop between two steps, and continued to its end."""
    folder = checkout.folder / "runs" / "resumed"
    with kept(folder, RESUMED) as missing:
        if missing:
            for how in (signal.SIGKILL, signal.SIGTERM):
                interrupt(checkout, folder, how)
            continued = time.time()
            checkout.run(folder, "train", *RESUMED)
            (run,) = checkout.runs(folder)
            first = json.loads((run / "times.jsonl").read_text(encoding="utf-8").splitlines()[0])
            if first["ended"] >= continued:
                raise Failed("the run that was interrupted began anew in place of going on")
    return checkout.runs(folder)


def taken_over(before: Checkout, after: Checkout) -> list[Path]:
    """A run that was killed by one commit and is continued to its end by another."""
    folder = after.folder / f"of_{before.commit[:12]}" / "taken_over"
    with kept(folder, RESUMED) as missing:
        if missing:
            interrupt(before, folder, signal.SIGKILL)
            continued = time.time()
            after.run(folder, "train", *RESUMED)
            runs = sorted((folder / "outputs").iterdir())
            first = json.loads((runs[0] / "times.jsonl").read_text(encoding="utf-8").splitlines()[0])
            if len(runs) > 1 or first["ended"] >= continued:
                raise Failed("the run began anew in place of going on")
    return sorted((folder / "outputs").iterdir())


def interrupt(checkout: Checkout, folder: Path, how: signal.Signals) -> None:
    """Start or continue a training, and end its process after the first checkpoint that it writes."""

    def saved() -> list[int]:
        return [path.stat().st_mtime_ns for path in folder.glob("outputs/*/last.pt")]

    before, process = saved(), checkout.begin(folder, "train", *RESUMED)
    while saved() == before and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(how)
    process.wait(PATIENCE_S)
    if list(folder.glob("outputs/*/metrics.json")) or saved() == before:
        raise Failed(f"{how.name} did not come in the middle of the training; see {folder / 'train.log'}")


def judged(checkout: Checkout, maker: Checkout, name: str, run: Path, drawn: Path) -> Path:
    """A folder with what evaluate and predict say of a run that `maker` trained; drawn: the folder of `draw`."""
    folder = checkout.folder / f"of_{maker.commit[:12]}" / name
    place = ("run=run", "device=cpu", "threads=1")
    faces = ("data=faces", "part=test", "data.seed=1", *FACES)
    data = ("data=folder", f"data.root={drawn}", "part=all") if name == "leaky" else faces
    with kept(folder, [run.name, *place, *data]) as missing:
        if missing:
            shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("figures"))
            checkout.run(folder, "evaluate", *place, *data)
            checkout.run(folder, "predict", *place, f"images={drawn / 'happy'}", "out=predictions.csv")
    return folder


def reported(checkout: Checkout, maker: Checkout, runs: Sequence[Path]) -> Path:
    """A folder with what report says of a sweep that `maker` trained."""
    folder = checkout.folder / f"of_{maker.commit[:12]}" / "report"
    words = ("runs=[outputs/*]", "out=report", "tracking=none", "resamples=200")
    with kept(folder, [*(run.name for run in runs), *words]) as missing:
        if missing:
            for run in runs:
                shutil.copytree(run, folder / "outputs" / run.name)
            checkout.run(folder, "report", *words)
    return folder


# What is compared.


def numbers(run: Path, rename: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """All that a run must share with another commit's, by file.

    Args:
        rename: beginnings of the names of weights that another commit calls otherwise, old and new.
    """
    best, last = (torch.load(run / name, map_location="cpu", weights_only=True) for name in ("best.pt", "last.pt"))
    return {
        "folder": run.name,
        "history.jsonl": [
            json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        ],
        "metrics.json": json.loads((run / "metrics.json").read_text(encoding="utf-8")),
        "ledger.json": json.loads((run / "ledger.json").read_text(encoding="utf-8")),
        "predictions": {part: arrays(run / "predictions" / f"{part}.npz") for part in ("val", "test")},
        "best.pt": {"model": renamed(best["model"], rename), "posthoc": best.get("posthoc"), "epoch": best["epoch"]},
        "last.pt": {"model": renamed(last["model"], rename)},
    }


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file."""
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def renamed(state: dict[str, Any], rename: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Weights by their new names."""
    found = {}
    for name, value in state.items():
        old, new = next(((old, new) for old, new in rename if name.startswith(old)), ("", ""))
        found[new + name.removeprefix(old)] = value
    return found


def answers(folder: Path) -> dict[str, Any]:
    """What evaluate and predict have said of a run."""
    (made,) = (folder / "run" / "evaluations").iterdir()
    (predictions,) = (made / "predictions").glob("*.npz")
    return {
        "folder": made.name,
        "metrics.json": json.loads((made / "metrics.json").read_text(encoding="utf-8")),
        "predictions": arrays(predictions),
        "predictions.csv": table(folder / "predictions.csv"),
    }


def report(folder: Path) -> dict[str, Any]:
    """What a report says: its tables and its summary."""
    found: dict[str, Any] = {path.name: table(path) for path in sorted((folder / "report" / "tables").glob("*.csv"))}
    return found | {"summary.json": json.loads((folder / "report" / "summary.json").read_text(encoding="utf-8"))}


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, numbers as numbers."""

    def cell(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{key: cell(value) for key, value in row.items()} for row in csv.DictReader(file)]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text, array and tensor in nested dictionaries and lists, with the way to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path} {key}".strip())
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{position}]")
    else:
        yield path, value


def equal(one: Any, other: Any) -> bool:
    """Whether two leaves are the same, of one type too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and (torch.equal(one, other) or raw(one) == raw(other))  # NaN is not equal to itself
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other) or (one != one and other != other)  # NaN in both


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's values."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def gap(one: Any, other: Any) -> float | None:
    """The largest difference of two numbers or arrays, relative to the largest number; None of what is no number, of
    another shape, or not finite."""
    left, right = (np.asarray(value.double() if isinstance(value, torch.Tensor) else value) for value in (one, other))
    if left.shape != right.shape or not left.size or left.dtype.kind not in "iuf" or right.dtype.kind not in "iuf":
        return None
    left, right = left.astype(np.float64), right.astype(np.float64)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    return float(np.abs(left - right).max() / max(np.abs(left).max(), np.abs(right).max(), 1e-300))


def shown(value: Any) -> str:
    """A leaf in a few characters."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}{list(value.shape)}"
    return repr(value)


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first of the leaves in which two sides differ, and how many more there are; empty where all are equal."""
    one, other = dict(leaves(before)), dict(leaves(after))
    gone, new = [path for path in one if path not in other], [path for path in other if path not in one]
    told = [f"only {side} has {listed(only)}" for side, only in (("BEFORE", gone), ("AFTER", new)) if only]
    if gone and len(gone) == len(new) and all(equal(one[a], other[b]) for a, b in zip(gone, new, strict=True)):
        told.append("by these names the values are equal in this order (--rename maps names of weights)")
    both = [path for path in one if path in other]
    apart = [path for path in both if not equal(one[path], other[path])]
    if apart:
        first, gaps = apart[0], [gap(one[path], other[path]) for path in apart]
        told.append(f"{first}: {shown(one[first])} → {shown(other[first])}")
        told.append(f"{len(apart)} of {len(both)} values differ")
        if relative := [value for value in gaps if value is not None]:
            told[-1] += f", by {max(relative):.1e} relative at most"
    return "; ".join(told)


def listed(paths: Sequence[str]) -> str:
    """The first three of some paths, and how many more there are."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def counted(found: dict[str, Any]) -> str:
    """What was compared, in numbers."""
    values = [value for _, value in leaves(found)]
    tensors = sum(isinstance(value, torch.Tensor) for value in values)
    made = sum(isinstance(value, np.ndarray) for value in values)
    return f"{len(values) - tensors - made} values, {made} arrays, {tensors} tensors"


# The comparison of two commits.


class Comparison:
    """The rows of the table: a name, what was compared, and what differs (nothing where all is equal)."""

    def __init__(self, before: Checkout, after: Checkout, rename: Sequence[tuple[str, str]], drawn: Path) -> None:
        self.before, self.after, self.rename, self.drawn = before, after, rename, drawn
        self.rows: list[tuple[str, str, str]] = []

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """A command that fails, or leaves something else than expected, becomes a row of its own."""
        print(name, file=sys.stderr, flush=True)
        try:
            yield
        except (Failed, OSError, ValueError, KeyError) as error:
            self.rows.append((name, "-", f"FAILED: {type(error).__name__} {error}"))

    def note(self, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Compare two sides."""
        self.rows.append((name, counted(before), difference(before, after)))

    def of_runs(self, name: str, before: Sequence[Path], after: Sequence[Path]) -> None:
        """Compare runs; several are matched by their names without the hash at the end."""
        if len(before) == len(after) == 1:
            self.note(name, numbers(before[0], self.rename), numbers(after[0]))
            return
        found = {run.name.rpartition("-")[0]: numbers(run, self.rename) for run in before}
        self.note(name, found, {run.name.rpartition("-")[0]: numbers(run) for run in after})

    def training(self, name: str, words: Sequence[str]) -> None:
        """A configuration, by both."""
        with self.guarded(name):
            self.of_runs(name, trained(self.before, name, words), trained(self.after, name, words))

    def resumption(self) -> None:
        """A run that was interrupted twice: the same by both, and the same as one that was not."""
        with self.guarded("resumed"):
            before, after = resumed(self.before), resumed(self.after)
            self.of_runs("resumed", before, after)
            self.of_runs("resumed, not interrupted", before, trained(self.after, "not_interrupted", RESUMED))
        with self.guarded("not interrupted"):
            before = trained(self.before, "not_interrupted", RESUMED)
            self.of_runs("not interrupted", before, trained(self.after, "not_interrupted", RESUMED))
        with self.guarded("begun by BEFORE, ended by AFTER"):
            self.of_runs("begun by BEFORE, ended by AFTER", before, taken_over(self.before, self.after))

    def sweep(self) -> None:
        """The cells of a sweep, and what AFTER's report says of BEFORE's."""
        with self.guarded("sweep"):
            runs = swept(self.before)
            self.of_runs("sweep", runs, swept(self.after))
        with self.guarded("report of BEFORE's sweep"):
            runs = swept(self.before)
            sides = (report(reported(side, self.before, runs)) for side in (self.before, self.after))
            self.note("report of BEFORE's sweep", *sides)

    def answers(self, name: str, words: Sequence[str]) -> None:
        """What AFTER's evaluate and predict say of BEFORE's run."""
        row = f"evaluate, predict of BEFORE's {name}"
        with self.guarded(row):
            (run,) = trained(self.before, name, words)
            sides = (answers(judged(side, self.before, name, run, self.drawn)) for side in (self.before, self.after))
            self.note(row, *sides)


def chosen(only: str | None, known: Sequence[str]) -> list[str]:
    """The configurations that --only names; all without it."""
    if only is None:
        return list(known)
    asked = only.split(",")
    if unknown := sorted(set(asked) - set(known)):
        raise SystemExit(f"--only {','.join(unknown)}: the configurations are {', '.join(known)}")
    return asked


def compare(comparison: Comparison, trainings: dict[str, tuple[str, ...]], names: Sequence[str]) -> None:
    """Fill the table."""
    for name in names:
        if name == "resumed":
            comparison.resumption()
        elif name == "sweep":
            comparison.sweep()
        else:
            comparison.training(name, trainings[name])
    for name in (name for name in JUDGED if name in names):
        comparison.answers(name, trainings[name])


def printed(rows: Sequence[tuple[str, str, str]]) -> None:
    """The table, and how many rows differ."""
    header = ("configuration", "compared", "result")
    lines = [header, *((name, what, found or "equal") for name, what, found in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(2)]
    for name, what, found in lines:
        print(f"{name:{widths[0]}}  {what:{widths[1]}}  {found}")
    wrong = sum(bool(found) for _, _, found in rows)
    print(f"\n{len(rows) - wrong} of {len(rows)} rows are equal, {wrong} differ or failed")


@contextmanager
def working_folder(asked: Path | None) -> Iterator[Path]:
    """The folder of checkouts and runs, held by this process; without --work it goes at the end."""
    if asked is not None:
        folder = asked.resolve()
        if folder.is_relative_to(ROOT):
            raise SystemExit(f"--work {asked} lies in the repository; choose a folder outside")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for another call to end
            yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        try:
            yield Path(made).resolve()
        finally:
            for tree in Path(made).glob("*/tree"):
                git("worktree", "remove", "--force", str(tree))


def pair(text: str) -> tuple[str, str]:
    """OLD=NEW."""
    old, sign, new = text.partition("=")
    if not old or not sign:
        raise argparse.ArgumentTypeError(f"{text} is not OLD=NEW")
    return old, new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit, or . for the working tree")
    parser.add_argument("after", help="a commit, or . for the working tree")
    parser.add_argument("--work", type=Path, help="folder that keeps checkouts and finished runs")
    parser.add_argument("--only", help="names of configurations, with commas between")
    parser.add_argument(
        "--rename",
        type=pair,
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="beginning of names of weights, in BEFORE and in AFTER; may be given several times",
    )
    parser.add_argument(
        "--facial-expressions",
        type=Path,
        metavar="PATH",
        help="folder or archive of facial_expressions, for the leaky protocol on photographs",
    )
    options = parser.parse_args()
    commits = [commit_of(options.before), commit_of(options.after)]
    photographs = options.facial_expressions.resolve() if options.facial_expressions else None
    names = chosen(options.only, [*TRAININGS, *leaky(Path(), photographs), "resumed", "sweep"])
    with working_folder(options.work) as folder:
        again = "-again" if commits[0] == commits[1] else ""  # run twice: are equal runs equal on this machine?
        before, after = Checkout(commits[0], folder / commits[0]), Checkout(commits[1], folder / (commits[1] + again))
        drawn = draw(folder / "pictures")
        comparison = Comparison(before, after, options.rename, drawn)
        compare(comparison, TRAININGS | leaky(drawn, photographs), names)
    print(f"BEFORE {before.commit}\nAFTER  {after.commit}\n{machine()}\n")
    printed(comparison.rows)
    return int(any(found for _, _, found in comparison.rows))


if __name__ == "__main__":
    sys.exit(main())
