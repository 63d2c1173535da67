"""Random damage to everything that a person or a stranger hands to emoexp.

    python benchmarks/fuzz.py --cases 20000 --runs 500

Each case changes something that works and gives it to the code that reads it. It is taken, or refused in an error that
is meant for people. A traceback (any other exception), a hang (more than LIMIT_S seconds) or a wrong result fails, and
is printed with the kind and the number that make it again: --kind archives --only 1234.
"""

import argparse
import copy
import io
import json
import math
import random
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from composing import TINY, checked, composed  # noqa: E402 - the path of the tests comes first
from hydra.errors import HydraException  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402

from emoexp import cli  # noqa: E402
from emoexp.config import best_model, build_model, build_training, checks, options, words  # noqa: E402
from emoexp.data import images  # noqa: E402
from emoexp.data.readers import fer2013, fer2013_csv, folder  # noqa: E402
from emoexp.inference import evaluate  # noqa: E402
from emoexp.reporting.soundness import damage  # noqa: E402
from emoexp.runs import checkpoint, files, kept, system_errors  # noqa: E402
from emoexp.runs.records import RunFolder, read_predictions  # noqa: E402
from emoexp.tracking import record as tracking_record  # noqa: E402
from emoexp.training import checkpointer  # noqa: E402
from emoexp.training import run as training  # noqa: E402

LIMIT_S = 20
TAKEN, REFUSED, TRACEBACK, HANG, WRONG = "taken", "refused", "traceback", "hang", "wrong result"
FAILURES = (TRACEBACK, HANG, WRONG)
FOR_PEOPLE = (ValueError, FloatingPointError, HydraException, OmegaConfBaseException)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**6, 10**30, 5.5, -0.0, math.nan, math.inf, 1e-300, "", "x", "0", "null", "a\nb", "${seed}",
    [], [[]], {}, {"_target_": "os.system", "_args_": ["true"]}, ["x"] * 3, "../..", "é", "\udcff", "=1+1",
)  # fmt: skip
CHARACTERS = "abz019=,.:;/\\\"'[]{}()<>$#&*~+-_ \t\né\0"


class Wrong(Exception):
    """Something was taken that gives a wrong result."""


class Hang(Exception):
    """A case took longer than LIMIT_S."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise Hang where the block takes too long."""

    def end(*_: object) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


# ---- damage


def bytes_damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes that were flipped, cut, doubled, or replaced."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place, size = rng.randrange(len(data) or 1), rng.choice([1, 1, 4, 64, 1000])
        match rng.randrange(6):
            case 0:
                del data[place:]
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = data[place : place + size]
            case 3:
                data[place : place + size] = rng.randbytes(size)
            case 4:
                data[place:place] = rng.choice([b"\0", b"\xff\xfe", b"\n", b",", b'"', b"%" * size])
            case _:
                if data:
                    data[place % len(data)] ^= 1 << rng.randrange(8)
        if not data:
            break
    return bytes(data)


def text_damaged(text: str, rng: random.Random) -> str:
    """A text with some characters inserted, left out or replaced."""
    letters = list(text)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(letters) + 1)
        letters[place : place + rng.randrange(3)] = rng.choices(CHARACTERS, k=rng.randrange(3))
    return "".join(letters)


def tree_damaged(content: Any, rng: random.Random) -> Any:
    """Nested values with one of them changed, removed, added or renamed."""
    tree = copy.deepcopy(content)
    node, path = tree, []
    while isinstance(node, dict | list) and node and rng.random() < 0.8:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        path.append((node, key))
        node = node[key]
    if not path:
        return rng.choice(ODD)
    parent, key = path[-1]
    match rng.randrange(5):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(["x", "_target_", "_args_", "name", "epoch", 7])] = rng.choice(ODD)
        case 2 if isinstance(node, int | float) and not isinstance(node, bool):
            parent[key] = rng.choice([-node, node + 1, node * 1e6, float(node), str(node), node - 1])
        case 3 if isinstance(node, torch.Tensor):
            parent[key] = rng.choice([node * math.nan, node[None], node.double(), node.flatten(), node + math.inf])
        case _:
            parent[key] = rng.choice(ODD)
    return tree


# ---- what is damaged, and what reads it


class Material:
    """What works: a finished run, its checkpoints, pictures, archives and tables."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.words = [*TINY, "epochs=2", "threads=1", f"outputs={base}/outputs", f"cache={base}/cache"]
        self.experiment, self.machine = checked(*self.words)
        training.train(self.experiment, self.machine)
        self.run = next((base / "outputs").iterdir())
        self.texts = {name: (self.run / name).read_bytes() for name in JSON_FILES}
        self.best, self.last = (checkpoint.load(self.run / name) for name in ("best.pt", "last.pt"))
        self.setup, self.state = self._training()
        self.folder = base / "pictures"
        rng = np.random.default_rng(0)
        for name in ("happy", "sad", "contempt"):
            (self.folder / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(self.folder / name / f"{number}.png")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(self.folder.rglob("*.png")):
                archive.write(path, path.relative_to(self.folder))
        self.archive = packed.getvalue()
        picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        self.pictures = {}
        for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
            file = io.BytesIO()
            picture.save(file, kind)
            self.pictures[kind] = file.getvalue()
        pixels = " ".join(["7"] * 48 * 48)
        rows = [f"{emotion},{pixels},{usage}" for usage in ("Training", "PublicTest") for emotion in range(7)]
        self.table = "\n".join(["emotion,pixels,Usage", *rows]).encode()
        kept.write(base / "kept", "some", [RunFolder(self.run)], {self.run.name: [0, 1]})
        self.kept = {path.name: path.read_bytes() for path in (base / "kept").iterdir()}

    def _training(self) -> tuple[Any, Any]:
        from emoexp.config import build_data, build_strategy
        from emoexp.data.resident import resident

        device = torch.device("cpu")
        data = build_data.load_data(self.experiment, self.machine)
        strategy = build_strategy.build_strategy(self.experiment, data)
        setup = build_training.train_setup(
            self.experiment, self.machine, data, strategy, resident(data.images, device), device
        )
        return setup, build_training.initial_state(self.experiment, data, device)


JSON_FILES = (
    "status.json",
    "manifest.json",
    "metrics.json",
    "history.jsonl",
    "times.jsonl",
    "seconds.json",
    "config.yaml",
)
COMMANDS = {
    "train": ["imbalance=sampler", "activation=mish", "optimizer.lr=0.01", "seed=3", "data=folder", "data.root=a b",
              "architecture.widths=[4,8]", "epochs=3", "split=kfold", "split.fold=1", "imbalance/loss=focal",
              "imbalance.loss.gamma=1.5", "scheduler=cosine", "data.long_tail.profile=step", "precision=fp32"],
    "evaluate": ["run=outputs/a", "data=fer2013", "data.root=x.zip", "part=test", "classes={a: b}", "threads=2"],
    "predict": ["run=outputs/a", "images=[a.png,b.png]", "out=x.csv", "on_corrupt=drop"],
    "report": ["runs=[outputs/a,outputs/b]", "metric=macro_f1", "baseline=relu", "level=0.9", "resamples=100"],
    "audit": ["data=folder", "data.root=pictures", "audit.fail_on=[leaks]", "audit.pictures=4"],
}  # fmt: skip


def command_lines(material: Material, rng: random.Random) -> None:
    """Words of a command line, composed and checked."""
    name = rng.choice(list(COMMANDS))
    chosen = rng.sample(COMMANDS[name], rng.randint(1, 4))
    place = rng.randrange(len(chosen))
    key, _, value = chosen[place].partition("=")
    chosen[place] = rng.choice([
        text_damaged(chosen[place], rng), f"{key}={text_damaged(value, rng)}", f"{key}={rng.choice(ODD)}",
        f"{rng.choice(cli.known_keys(name))}={value}", f"{rng.choice(cli.known_keys(name))}={rng.choice(ODD)}",
    ])  # fmt: skip
    usual = [] if name in ("train", "report", "audit") else COMMANDS[name][:2]
    given = list(dict.fromkeys([*usual, *chosen]))
    prepared = words.prepare([word for word in given if "\0" not in word])
    config = composed(*(word for word in prepared if not word.startswith("-")), name=name)
    checks.checked(config) if name == "train" else checks.plain(config)


def descriptions(material: Material, rng: random.Random) -> None:
    """best.pt with another value and a right checksum; the network predicts with it."""
    path = material.base / "best.pt"
    changed = tree_damaged(material.best, rng)
    checkpoint.save(path, changed)
    best = best_model.read(path)
    model = build_model.trained_model(best, ())
    size, channels = best.spec["image_size"], best.spec["channels"]
    if size <= 64:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(2, channels, size, size)).logits_BC
        if not torch.isfinite(logits).all() or logits.shape[1] != len(best.spec["class_names"]):
            raise Wrong(f"{logits}")


def states(material: Material, rng: random.Random) -> None:
    """last.pt with another value and a right checksum, from which a training would go on."""
    path = material.base / "last.pt"
    changed = tree_damaged(material.last, rng)
    checkpoint.save(path, changed)
    state = copy.deepcopy(material.state)
    checkpointer.restore(path, material.setup, state)
    if not all(torch.isfinite(value).all() for value in state.model.state_dict().values()):
        raise Wrong("weights that are not finite")
    ours, theirs = (optimizer.state_dict() for optimizer in (material.state.optimizer, state.optimizer))
    for group, given in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        if different := [key for key in group if key != "lr" and given[key] != group[key]]:
            raise Wrong(f"an optimizer with another {different}")
    tensors = [value for values in theirs["state"].values() for value in values.values()]
    if not all(torch.isfinite(value).all() for value in tensors if isinstance(value, torch.Tensor)):
        raise Wrong("an optimizer's state that is not finite")
    if state.epoch > material.setup.epochs or len(state.history) != state.epoch:
        raise Wrong(f"epoch {state.epoch} with {len(state.history)} rows")


def run_files(material: Material, rng: random.Random) -> None:
    """A file of a run's folder, by value or by bytes; what reports and tracking read of it is what it was."""
    name = rng.choice(JSON_FILES)
    content = material.texts[name]
    if name.endswith(".json") and rng.random() < 0.7:
        with suppress(ValueError, TypeError):
            content = json.dumps(tree_damaged(json.loads(content), rng)).encode("utf-8", "surrogatepass")
    else:
        content = bytes_damaged(content, rng)
    before = RunFolder(material.run).metrics["test"]
    path = material.run / name
    path.write_bytes(content)
    try:
        record = RunFolder(material.run)
        tracking_record.read(material.run)
        if record.is_finished and (why := damage(record)):
            raise ValueError(why)
        if name == "config.yaml":
            config = files.read_yaml(path)
            if not isinstance(config, dict):
                raise ValueError("no configuration")
        if name == "metrics.json" and record.is_finished:
            shown = [
                key for key in ("n", "accuracy", "macro_f1", "balanced_accuracy") if record.metrics["test"].get(key)
            ]
            if different := [key for key in shown if record.metrics["test"][key] != before[key]]:
                raise Wrong(f"{different} taken")
    finally:
        path.write_bytes(material.texts[name])


def predictions(material: Material, rng: random.Random) -> None:
    """predictions/test.npz by bytes."""
    path = material.base / "test.npz"
    path.write_bytes(bytes_damaged((material.run / "predictions" / "test.npz").read_bytes(), rng))
    found = read_predictions(path)
    if not np.isfinite(found.probability_NK).all():
        raise Wrong("probabilities that are not finite")


def archives(material: Material, rng: random.Random) -> None:
    """A zip archive by bytes, or with odd names."""
    path = material.base / "pictures.zip"
    if rng.random() < 0.5:
        path.write_bytes(bytes_damaged(material.archive, rng))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for file in sorted(material.folder.rglob("*.png")):
                    name = str(file.relative_to(material.folder))
                    name = text_damaged(name, rng) if rng.random() < 0.3 else name
                    archive.writestr(name.replace("\0", "") or "x", file.read_bytes())
        path.write_bytes(packed.getvalue())
    keys = {
        "image_size": 8,
        "channels": 1,
        "cache": None,
        "identity": None,
        "on_corrupt": rng.choice(["drop", "refuse"]),
    }
    source = folder.load(root=str(path), **keys)
    if not (source.labels >= 0).all() or source.labels.max() >= len(source.class_names):
        raise Wrong("labels without classes")


def tables(material: Material, rng: random.Random) -> None:
    """FER2013 as a table, and a table of pixels alone."""
    path = material.base / "fer2013.csv"
    path.write_bytes(bytes_damaged(material.table, rng))
    if rng.random() < 0.3:
        fer2013_csv.read_pixels(path.read_bytes(), "fer2013.csv", "drop")
        return
    keys = {
        "image_size": 48,
        "channels": 1,
        "cache": None,
        "strict": False,
        "on_corrupt": rng.choice(["drop", "refuse"]),
    }
    source = fer2013.load(root=str(path), **keys)
    if source.labels.max() >= 7 or source.labels.min() < 0:
        raise Wrong("labels without classes")


def kept_results(material: Material, rng: random.Random) -> None:
    """Kept results by bytes."""
    place = material.base / "altered"
    place.mkdir(exist_ok=True)
    chosen = rng.choice(list(material.kept))
    for name, content in material.kept.items():
        (place / name).write_bytes(bytes_damaged(content, rng) if name == chosen else content)
    for record in kept.read(next(place.glob("*.csv.gz"))):
        assert record.metrics["test"]["n"] >= 0
        record.predictions  # noqa: B018 - it reads the file


def pictures(material: Material, rng: random.Random) -> None:
    """An image file by bytes."""
    kind = rng.choice(list(material.pictures))
    pixels, _ = images.decode(bytes_damaged(material.pictures[kind], rng), 12, rng.choice([1, 3]), Counter())
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (12, 12):
        raise Wrong(f"{pixels.dtype} {pixels.shape}")


SHARES = {  # of all cases
    command_lines: 0.2, descriptions: 0.1, states: 0.1, run_files: 0.2, predictions: 0.05, archives: 0.1, tables: 0.05,
    kept_results: 0.05, pictures: 0.15,
}  # fmt: skip
KINDS: dict[str, Callable[[Material, random.Random], None]] = {kind.__name__: kind for kind in SHARES}


def whole_runs(material: Material, rng: random.Random) -> None:
    """A run of random options, trained to its end; what it leaves is sound, and holds no temporary file."""
    usual = [word for word in TINY if not word.startswith(("architecture", "activation", "epochs"))]
    chosen = ["architecture.widths=[4,8]", "architecture.dense=8"]
    for group in ("imbalance", "activation", "optimizer", "scheduler", "augmentation"):
        if rng.random() < 0.7:
            chosen.append(f"{group}={rng.choice(list(options.listed(group)))}")
    for column in ("copies", "sampling", "weights", "loss", "mix", "posthoc"):
        if rng.random() < 0.12:
            chosen.append(f"imbalance/{column}={rng.choice(list(options.listed(f'imbalance/{column}')))}")
    values = ["batch_size=7", "clip_norm=0.1", "monitor=val/loss", "patience=1", "data.long_tail.profile=step",
              "split=kfold", "data.seed=4", "optimizer.lr=0.3", "deterministic=true"]  # fmt: skip
    chosen += [value for value in values if rng.random() < 0.12] + [
        f"epochs={rng.randint(1, 3)}",
        f"seed={rng.randrange(9)}",
    ]
    with tempfile.TemporaryDirectory() as place:
        words_of_run = [*usual, *chosen, f"outputs={place}/outputs", f"cache={material.base}/cache", "threads=1"]
        experiment, machine = checked(*words_of_run)
        metrics = training.train(experiment, machine)
        (run,) = Path(place, "outputs").iterdir()
        if why := damage(RunFolder(run)):
            raise Wrong(why)
        if left := [path.name for path in run.rglob("*") if path.suffix in (".tmp", ".part")]:
            raise Wrong(f"left {left}")
        again = training.train(experiment, machine)
        if again != json.loads(json.dumps(metrics)):
            raise Wrong("the finished run returns other metrics")
        asked = [word for word in words_of_run if word.startswith(("data", "cache"))]
        judged = evaluate.evaluate(checks.plain(composed(f"run={run}", "data=faces", *asked, name="evaluate")))
        if judged["test"]["accuracy"] != metrics["test"]["accuracy"]:
            raise Wrong("evaluate finds another accuracy than training")


def outcome(case: Callable[[Material, random.Random], None], material: Material, seed: str) -> tuple[str, str]:
    """The outcome of a case, and what was said."""
    try:
        with limited():
            case(material, random.Random(seed))
    except Hang:
        return HANG, ""
    except Wrong as error:
        return WRONG, str(error)
    except FOR_PEOPLE as error:
        return REFUSED, str(error)
    except BaseException as error:  # noqa: BLE001 - any other one is the failure that is looked for
        if said := system_errors.explained(error):
            return REFUSED, said
        return TRACEBACK, f"{type(error).__name__}: {error}"
    return TAKEN, ""


def fuzzed(
    kind: str, case: Callable[[Material, random.Random], None], numbers: range, material: Material, seed: int
) -> Counter[str]:
    """The outcomes of cases, counted; failures are printed."""
    counts: Counter[str] = Counter()
    for number in numbers:
        what, said = outcome(case, material, f"{seed} {kind} {number}")
        counts[what] += 1
        if what in FAILURES:
            print(f"{what}: --kind {kind} --only {number} --seed {seed}: {said[:300]}", flush=True)
    return counts


def report(counts: dict[str, Counter[str]]) -> str:
    """A table of the outcomes."""
    lines = ["| kind | cases | taken | refused | traceback | hang | wrong result |", "|---|---|---|---|---|---|---|"]
    for kind, of_kind in counts.items():
        numbers = [of_kind[what] for what in (TAKEN, REFUSED, *FAILURES)]
        lines.append(
            f"| {kind.replace('_', ' ')} | {of_kind.total():,} | " + " | ".join(f"{n:,}" for n in numbers) + " |"
        )
    return "\n".join(lines)


@contextmanager
def prepared() -> Iterator[Material]:
    """Material in a folder of its own, with figures that stay blank: drawing takes longer than so small a training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    original = FigureCanvasAgg.draw, ConstrainedLayoutEngine.execute
    FigureCanvasAgg.draw = lambda canvas: canvas.get_renderer().clear()  # type: ignore[method-assign]
    ConstrainedLayoutEngine.execute = lambda engine, figure: {}  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as place:
            yield Material(Path(place))
    finally:
        FigureCanvasAgg.draw, ConstrainedLayoutEngine.execute = original  # type: ignore[method-assign]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS, "whole_runs"])
    parser.add_argument("--only", type=int, help="one case, whose error is raised")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    import logging

    logging.disable(logging.CRITICAL)
    cli.register_sweeper()
    started = time.perf_counter()
    every = KINDS | {"whole_runs": whole_runs}
    with prepared() as material, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if asked.only is not None:
            every[asked.kind](material, random.Random(f"{asked.seed} {asked.kind} {asked.only}"))
            return
        counts = {}
        for kind, case in every.items():
            size = asked.runs if case is whole_runs else math.ceil(asked.cases * SHARES[case])
            if asked.kind in (None, kind):
                counts[kind] = fuzzed(kind, case, range(size), material, asked.seed)
                print(report({kind: counts[kind]}).splitlines()[-1], file=sys.stderr, flush=True)
    print(report(counts))
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(any(of_kind[what] for of_kind in counts.values() for what in FAILURES))


if __name__ == "__main__":
    main()
