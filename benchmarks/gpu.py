"""Speed on one GPU, unattended in under ten minutes: python benchmarks/gpu.py --data fer2013.zip

Equality first: captured steps against eager ones, runs packed together against runs alone, bit for bit. Then ratios, of
variants that take turns in one process; then 60 epochs of the reference network, and a part of the grid of 160 runs,
alone and packed, as whole commands. What fails is named in the table, and the rest goes on. --rehearse runs all of it
on a CPU, on tiny sizes: to see that it runs, not how fast.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import plain
import torch
from PIL import Image
from side import PASSES, Side, copy_roof, matmul_roof, seconds

GRID = ("activation=mish,relu,swish,leaky_relu", "imbalance=none,sampler,weighted_loss,augment_sampler")
WHOLE = 160  # runs of the whole grid: 4 activations, 8 strategies, 5 seeds


@dataclass(frozen=True)
class Line:
    """One line of the table; met is None where there is no target."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


class Bench:
    """The options, and what every measurement shares."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch, self.rehearse = options, scratch, options.rehearse
        self.device = "cpu" if self.rehearse else "cuda"
        self.data = ["data=fer2013", f"data.root={options.data}"] if options.data else ["data=faces", "data.size=32298"]
        self.common = [f"cache={scratch / 'cache'}", f"device={self.device}", "imbalance=sampler"]
        if self.rehearse:
            self.data = ["data=faces", "data.size=1400", "data.test_per_class=30"]
            self.common += ["architecture.widths=[4,8]", "architecture.dense=16", "image_size=16", "batch_size=32"]
        self.epochs = 2 if self.rehearse else options.epochs
        self.began = time.monotonic()

    def side(self, *words: str) -> Side:
        """emoexp with these words."""
        return Side(*self.data, *self.common, *words)

    def left(self) -> float:
        """Seconds until the script has to end."""
        return self.options.limit - (time.monotonic() - self.began)

    def command(self, folder: str, *words: str) -> float:
        """Seconds of a whole command."""
        asked = [sys.executable, "-m", "emoexp.train", "--multirun", *self.data, *self.common, "tracking=none", *words]
        asked += [f"outputs={self.scratch / folder}", f"hydra.sweep.dir={self.scratch / 'multirun'}"]
        started = time.perf_counter()
        done = subprocess.run(asked, capture_output=True, text=True, timeout=max(1.0, self.left()))
        if done.returncode:
            raise RuntimeError((done.stdout + done.stderr)[-1500:])
        return time.perf_counter() - started


def equality(bench: Bench) -> Iterator[Line]:
    """Captured against eager, and the GPU against the CPU."""
    side = bench.side("deterministic=true", "epochs=2")
    eager = side.trained(None, 2)
    if side.setup.capture is not None:
        same = all(torch.equal(value, eager[name]) for name, value in side.trained(side.setup.capture, 2).items())
        yield Line("weights after 2 epochs, captured and eager steps", "bit-equal" if same else "DIFFER", "equal", same)
    again = all(torch.equal(value, eager[name]) for name, value in side.trained(None, 2).items())
    yield Line("the same run again", "bit-equal" if again else "DIFFERS", "equal", again)


def rates(bench: Bench) -> Iterator[Line]:
    """Images a second of every way to take a step, in turns; the framework's tax; the plain script."""
    device = torch.device(bench.device)
    sides = {"eager": bench.side("executor=eager")}
    if not bench.rehearse:
        sides |= {"captured": bench.side(), "captured, bf16": bench.side("precision=bf16")}
        sides |= {"captured, tf32": bench.side("precision=tf32"), "compiled": bench.side("executor=compiled")}
        sides |= {"captured, deterministic": bench.side("deterministic=true")}
        sides |= {"captured, ReLU": bench.side("activation=relu")}
    main = sides.get("captured", sides["eager"])
    works: dict[str, Callable[[], None]] = {name: side.epoch for name, side in sides.items()}
    works |= {"bare loop": main.bare(), "captured and evaluated": lambda: (main.epoch(), main.validate())[0]}
    laps = in_turns(works, device, bench.options.rounds)
    speed = {name: main.draws / statistics.median(times) for name, times in laps.items()}
    for name, rate in speed.items():
        yield Line(f"images/s, {name}", f"{rate:,.0f}")
    name = "captured" if "captured" in sides else "eager"
    yield at_most("time over the bare loop's, R1", laps[name], laps["bare loop"], 1.10)
    yield at_most("the same with evaluation", laps["captured and evaluated"], laps["bare loop"], 1.25)
    if "captured" in sides:
        yield at_most("Mish over ReLU, R11", laps["captured"], laps["captured, ReLU"], 1.05)
        yield at_most("deterministic over fast, R14", laps["captured, deterministic"], laps["captured"], 1.3)
        yield Line("captured over eager, speed", ratio(laps["eager"], laps["captured"]))
        yield Line("compiled over captured, speed", ratio(laps["captured"], laps["compiled"]))
    yield from roofs(main, speed[name], device, bench.rehearse)
    yield from against_plain(bench, main, speed[name], device)


def roofs(side: Side, rate: float, device: torch.device, rehearse: bool) -> Iterator[Line]:
    """What share of the device a training step uses, R13."""
    copied = copy_roof(device, 1 << (24 if rehearse else 30))
    product = matmul_roof(device, 512 if rehearse else 8192, torch.float32)
    moved, computed = rate * side.traffic(), rate * side.flops()
    yield Line("memory roof: copy, GB/s", f"{copied / 1e9:,.0f}")
    share = moved / copied
    yield Line(f"share of it, {PASSES} passes over the activations", f"{share:.2f}", "≥ 0.4", share >= 0.4)
    yield Line("arithmetic: TFLOP/s, and share of a fp32 product's", f"{computed / 1e12:.2f}, {computed / product:.2f}")


def against_plain(bench: Bench, side: Side, rate: float, device: torch.device) -> Iterator[Line]:
    """A plain script with loader workers on the same images, R2."""
    folder, number = bench.scratch / "images", 256 if bench.rehearse else 8192
    where = side.data.where("train")[:number]
    for place in where:
        name = side.data.class_names[side.data.labels[place]]
        path = folder / str(name) / f"{place:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(side.data.images[place][0])).save(path)
    workers = 0 if bench.rehearse else 8
    batches = plain.loader(folder, batch_size=side.experiment.batch_size, workers=workers)
    model = plain.network(len(list(folder.iterdir())), side.experiment.image_size).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    times = [seconds(lambda: plain.train_epoch(model, batches, optimizer, bench.device), device) for _ in range(3)][1:]
    slow = number / statistics.median(times)
    yield Line(f"images/s, plain script with {workers} loader workers", f"{slow:,.0f}")
    yield Line("emoexp over it, R2", f"{rate / slow:.1f}", "≥ 15", rate / slow >= 15)


def reference(bench: Bench) -> Iterator[Line]:
    """All epochs of the reference network as one command, with its results."""
    wall = bench.command("one", f"epochs={bench.epochs}", "patience=null", "seed=0,1")
    runs = sorted((bench.scratch / "one").iterdir())
    spent = [json.loads((run / "seconds.json").read_text(encoding="utf-8")) for run in runs]
    found = [json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"] for run in runs]
    trained = min(one["train"] for one in spent)
    scores = ", ".join(f"{one['macro_f1']:.3f}" for one in found)
    yield Line(f"training, {bench.epochs} epochs: seconds (second seed)", f"{trained:.2f}", "≤ 5", trained <= 5)
    yield Line("macro-F1 on test of both seeds", scores)
    yield Line("whole command for both, seconds", f"{wall:.1f}")


def grid(bench: Bench) -> Iterator[Line]:
    """Sixteen cells of the grid as one command, alone and packed; and that packing changes no bit."""
    sizes = [(1, 20)] if bench.rehearse else [(1, 20), (bench.options.pack, 10)]
    for pack, minutes in sizes:
        words = [*GRID, f"epochs={bench.epochs}", "patience=null", "seed=0", f"pack={pack}"]
        wall = bench.command(f"grid{pack}", *words)
        cells = len(list((bench.scratch / f"grid{pack}").iterdir()))
        whole = wall / cells * WHOLE / 60
        yield Line(f"{cells} cells, {pack} at a time: seconds a cell", f"{wall / cells:.2f}")
        yield Line(f"so {WHOLE} cells: minutes", f"{whole:.1f}", f"≤ {minutes}", whole <= minutes)
    if not bench.rehearse:
        few = ["activation=mish,relu", "seed=0,1", "epochs=3", "patience=null", "deterministic=true"]
        for pack in (1, bench.options.pack):
            bench.command(f"bits{pack}", *few, f"pack={pack}")
        alone, packed = (results(bench.scratch / f"bits{pack}") for pack in (1, bench.options.pack))
        yield Line("4 runs, packed and alone", "bit-equal" if alone == packed else "DIFFER", "equal", alone == packed)


def results(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """What equal runs share to the last bit."""
    kept = ("history.jsonl", "metrics.json")
    return {run.name: tuple((run / name).read_bytes() for name in kept) for run in sorted(folder.iterdir())}


def in_turns(works: dict[str, Callable[[], None]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, the order reversed every other one; a round before them warms up."""
    laps: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works) if number % 2 else list(reversed(works)):
            took = seconds(works[name], device)
            laps[name] += [took] if number else []
    return laps


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median (smallest to largest) of the rounds' ratios."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def at_most(what: str, over: Sequence[float], under: Sequence[float], most: float) -> Line:
    """A ratio of times with its target."""
    middle = statistics.median(a / b for a, b in zip(over, under, strict=True))
    return Line(what, ratio(over, under), f"≤ {most}", middle <= most)


def measured(bench: Bench) -> list[Line]:
    """All lines, those of what failed among them."""
    lines: list[Line] = []
    for part in (equality, rates, reference, grid):
        if bench.left() < 20:
            lines.append(Line(part.__name__, "left out: no time"))
            continue
        try:
            for line in part(bench):
                print(line, flush=True)
                lines.append(line)
        except Exception as error:  # noqa: BLE001 - unattended: the other parts are worth having
            traceback.print_exc()
            lines.append(Line(part.__name__, f"FAILED: {type(error).__name__}: {str(error)[:300]}", "", False))
    return lines


def report(bench: Bench, lines: Sequence[Line]) -> str:
    """The table as Markdown."""
    name = "CPU (rehearsal: the numbers say nothing)" if bench.rehearse else torch.cuda.get_device_name()
    said = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {x.what} | {' '.join(x.value.split())} | {x.target} | {said[x.met]} |" for x in lines]
    data = Path(bench.options.data).name if bench.options.data else "drawn faces"
    head = [
        "# Speed on a GPU",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {name}, {os.cpu_count()} cores; torch {torch.__version__}, Python "
        f"{platform.python_version()}; {data}, the reference network, batches of 128, fp32 where nothing else is said. "
        f"Ratios: median (smallest to largest) of {bench.options.rounds} rounds.",
        "",
        "| what | measured | target | met |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FER2013 as zip, folder or CSV; without it faces are drawn")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pack", type=int, default=4, help="runs at a time in the packed grid")
    parser.add_argument("--limit", type=float, default=570, help="seconds for all of it")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.md"))
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --rehearse shows on a CPU that the script runs")
    options.data = options.data and options.data.absolute()
    with tempfile.TemporaryDirectory(prefix="emoexp-gpu-") as folder:
        bench = Bench(options, Path(folder))
        lines = measured(bench)
        text = report(bench, lines)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    return int(any(line.met is False and line.target == "equal" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
