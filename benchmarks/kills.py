"""Kills at write events: python benchmarks/kills.py --kills 200

Every command that writes is killed (SIGKILL) at a random one of its writes: before it, in the middle of the temporary
file, before the renaming, or after it; then once more, or not; and then runs undisturbed. What it leaves has to be what
an undisturbed command leaves: the same files, and in them the same results.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emoexp import audit, evaluate, predict, report, train
from emoexp.runs import checkpoint, files

TINY = [
    "data.size=420", "data.test_per_class=12", "image_size=16", "batch_size=32", "epochs=3", "architecture.dense=16",
    "architecture.widths=[4,8]", "activation=relu", "threads=1", "cache=cache",
]  # fmt: skip
SMALL = [*TINY, "tracking=none"]
MAINS: dict[str, Callable[[], None]] = {
    "train": train.main, "evaluate": evaluate.main, "predict": predict.main, "report": report.main, "audit": audit.main,
}  # fmt: skip
COMMANDS: dict[str, tuple[str, list[str], float]] = {  # name: the command, its words, and its share of the kills
    "train": ("train", SMALL, 0.35),
    "train in two stages": ("train", [*SMALL, "imbalance=crt"], 0.15),
    "evaluate": ("evaluate", ["run=RUN", "data=faces", *TINY[:2], "cache=cache", "threads=1"], 0.1),
    "predict": ("predict", ["run=RUN", "images=pictures", "out=tables/predictions.csv", "threads=1"], 0.05),
    "audit": ("audit", ["data=folder", "data.root=pictures", "cache=cache", "tracking=none", "image_size=16"], 0.1),
    "report": ("report", ["runs=[RUN]", "resamples=20", "out=report", "tracking=none"], 0.15),
    "sweep": ("train", ["--multirun", "seed=0,1", *SMALL], 0.1),
}
TIMES = {"started", "ended", "pid", "host", "seconds", "time", "train_seconds", "eval_seconds", "images_per_second"}
NOT_COMPARED = re.compile(r"(^|/)(run\.log|workers\.log|sweep\.log|times\.jsonl|seconds\.json|lock|cells\.lock)$")


def wrapped(kill_at: int, moment: int) -> Callable[[], int]:
    """Let this process kill itself at a write: 0 before it, 1 in the middle, 2 before the renaming, 3 after it. What
    comes back tells how many writes there were."""
    count = 0
    original, move = files.write_bytes, files.move_into_place

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_bytes(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == kill_at and moment == 0:
            die()
        if count == kill_at and moment == 1:
            temporary = path.with_name(f".{path.name}.{files._HOST}.{os.getpid()}.1.tmp")
            temporary.write_bytes(content[: len(content) // 2])
            die()
        original(path, content)
        if count == kill_at and moment == 3:
            die()

    def move_into_place(temporary: Path, path: Path) -> None:
        if count == kill_at and moment == 2:
            die()
        move(temporary, path)

    files.write_bytes, files.move_into_place = write_bytes, move_into_place  # type: ignore[assignment]
    return lambda: count


def run(command: str, words: list[str], place: Path, kill_at: int = 0, moment: int = 0) -> tuple[int, int]:
    """The exit status of a command in a process of its own (negative: the signal), and how many writes it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(place)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            written = wrapped(kill_at, moment)
            sys.argv = [command, *words]
            try:
                MAINS[command]()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else bool(stop.code)
            os.write(writing, str(written()).encode())
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    said = os.read(reading, 100)
    os.close(reading)
    return os.waitstatus_to_exitcode(status), int(said or 0)


def results(place: Path) -> dict[str, Any]:
    """Every file of a folder, with what has to be equal in it; of logs and times only that they are there."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not name.startswith(("cache/", "pictures/")):
            found[name] = None if NOT_COMPARED.search(name) else content(path)
    return found


def content(path: Path) -> Any:
    """What has to be equal in a file."""
    if path.name == "cells.json":  # a cell is done, or found finished where an earlier command was killed after it
        return without_times(json.loads(path.read_bytes().replace(b'"found"', b'"done"')))
    if path.suffix == ".json":
        return without_times(json.loads(path.read_bytes()))
    if path.suffix == ".npz":
        return {key: array.tobytes() for key, array in np.load(path).items()}
    if path.suffix == ".pt":
        return digest_of(checkpoint.load(path))
    if path.suffix in (".md", ".html", ".tex"):
        return re.sub(r"\d{4}-\d\d-\d\d[ T\d:.]*|\d+(\.\d+)? s\b", "", path.read_text(encoding="utf-8"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value: Any) -> Any:
    """Nested values without those that tell when and where."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def digest_of(value: Any) -> Any:
    """Nested values with tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: digest_of(inner) for key, inner in value.items()}
    return [digest_of(inner) for inner in value] if isinstance(value, list) else value


def prepared(base: Path) -> Path:
    """A folder with pictures, packed data and a finished run, in which every command can begin."""
    place = base / "template"
    rng = np.random.default_rng(0)
    for name in ("happy", "sad"):
        (place / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(place / "pictures" / name / f"{number}.png")
    code, _ = run("train", [*SMALL, "seed=9", "outputs=finished"], place)
    assert code == 0, "the run that the other commands use did not finish"
    return place


def words_of(name: str, place: Path) -> tuple[str, list[str]]:
    """The command of a name, and its words."""
    command, words, _ = COMMANDS[name]
    finished = next((place / "finished").iterdir()).relative_to(place).as_posix()
    return command, [word.replace("RUN", finished) for word in words]


def killed(name: str, template: Path, base: Path, writes: int, rng: random.Random) -> tuple[int, dict[str, Any]]:
    """How often a command was killed, and the results of the undisturbed one that followed."""
    place = base / "place"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    command, words = words_of(name, place)
    kills = 0
    for _ in range(rng.choice([1, 1, 2])):
        code, _ = run(command, words, place, rng.randint(1, writes), rng.randrange(4))
        kills += code == -signal.SIGKILL
    code, _ = run(command, words, place)
    return kills, results(place) if code == 0 else {"exit code": code}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*COMMANDS], help="one of the commands, with its share of the kills")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng, started = random.Random(asked.seed), time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        template = prepared(base)
        for name, (_, _, share) in COMMANDS.items():
            if asked.only not in (None, name):
                continue
            undisturbed = base / name.replace(" ", "_")
            shutil.copytree(template, undisturbed)
            command, words = words_of(name, undisturbed)
            code, writes = run(command, words, undisturbed)
            assert code == 0 and writes, f"{name} ends with {code} after {writes} writes"
            expected, of_name = results(undisturbed), Counter(writes=writes)
            while of_name["kills"] < asked.kills * share:
                kills, found = killed(name, template, base, writes, rng)
                of_name["kills"] += kills
                of_name["sequences"] += 1
                left = [path for path in found if path not in expected]
                missing = [path for path in expected if path not in found]
                different = [path for path in expected if path in found and found[path] != expected[path]]
                of_name["different"] += bool(different or missing)
                of_name["left over"] += bool(left)
                if left or missing or different:
                    print(f"{name}: left {left[:5]}, missing {missing[:5]}, different {different[:5]}", flush=True)
            counts[name] = of_name
            print(name, dict(of_name), file=sys.stderr, flush=True)
    columns = ("writes", "sequences", "kills", "different", "left over")
    print("| command | writes | sequences | kills | other results | files left over |\n|---|---|---|---|---|---|")
    for name, of_name in counts.items():
        print(f"| {name} | " + " | ".join(str(of_name[column]) for column in columns) + " |")
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(any(of_name["different"] or of_name["left over"] for of_name in counts.values()))


if __name__ == "__main__":
    main()
