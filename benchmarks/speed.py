"""Speed on a CPU as ratios measured in one run, beside a plain script, PyTorch Lightning and a bare loop.

    python benchmarks/speed.py --rounds 7 --threads 2
    python benchmarks/speed.py --only R1,R9

Each side lives in a process of its own, one works at a time, in an order that is reversed every other round; ratios are
taken within a round, so that a machine that is slow for a while slows both sides. Lightning is left out where it is not
installed (pip install -e .[peers]).
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import commands
import one_layer
import staging
import sweep
from contestants import Agreement, Contestant, Lap, Setting, framework, lightning_script, plain_script
from table import TOLERANCE, Row, equality_line, has_lightning, report, spread

SMALL = ("architecture.widths=[8,16,32,64]", "architecture.dense=64")
Rounds = list[dict[str, Lap]]


class Bench:
    """The options and what the measurements share."""

    def __init__(self, options: argparse.Namespace, setting: Setting, stack: ExitStack) -> None:
        self.options, self.setting, self._stack = options, setting, stack
        self._sides: dict[str, Contestant] = {}

    def side(self, name: str) -> Contestant:
        """A side by its name, begun when it is first asked for."""
        if name not in self._sides:
            made = {
                "plain": (plain_script, self.setting, 0),
                "plain, 2 workers": (plain_script, self.setting, 2),
                "lightning": (lightning_script, self.setting),
                "emoexp": (framework, self.setting, "activation=mish"),
                "small": (framework, self.setting, "activation=mish", *SMALL),
                "relu": (framework, self.setting, "activation=relu"),
                "deterministic": (framework, self.setting, "activation=mish", "deterministic=true"),
                "one layer": (one_layer.emoexp_side, self.setting),
                "one layer, lightning": (one_layer.lightning_side, self.setting),
            }[name]
            self._sides[name] = self._stack.enter_context(Contestant(name, *made))
        return self._sides[name]

    def raced(self, *pairs: tuple[str, str]) -> dict[tuple[str, str], list[Lap]]:
        """Laps of (side, order) in turns: one round to warm up, then those that count."""
        laps: dict[tuple[str, str], list[Lap]] = {pair: [] for pair in pairs}
        for number in range(self.options.rounds + 1):
            for side, order in pairs if number % 2 else reversed(pairs):
                lap = self.side(side)(order)
                laps[side, order] += [lap] if number else []
        return laps


def training(bench: Bench) -> Iterator[Row]:
    """R1, R2, R3b, R11, R14: epochs."""
    epoch, bare = ("emoexp", "epoch"), ("emoexp", "bare")
    others = [("plain", "epoch"), ("plain, 2 workers", "epoch"), ("relu", "epoch"), ("deterministic", "epoch")]
    others += [("small", "epoch"), ("small", "bare")] + ([("lightning", "epoch")] if has_lightning() else [])
    laps = bench.raced(epoch, bare, *others)
    wall = {pair: [lap.wall for lap in found] for pair, found in laps.items()}
    cpu = {pair: [lap.cpu for lap in found] for pair, found in laps.items()}
    rate = {pair: bench.setting.draws / statistics.median(times) for pair, times in wall.items()}
    yield Row("R1", "epoch over a bare loop, processor time", over(cpu[epoch], cpu[bare]), most=1.03)
    yield Row("", "the same by the clock", over(wall[epoch], wall[bare]))
    small = over(cpu["small", "epoch"], cpu["small", "bare"])
    yield Row("R1", "the same for a quarter of the width", small, most=1.15)
    for name in ("plain", "plain, 2 workers"):
        note = f"{rate[epoch]:,.0f} images/s to {rate[name, 'epoch']:,.0f}"
        yield Row("R2", f"speed to the {name} script", over(wall[name, "epoch"], wall[epoch]), least=2.0, note=note)
    if has_lightning():
        note = f"{rate['lightning', 'epoch']:,.0f} images/s"
        yield Row("R3", "speed to Lightning", over(wall["lightning", "epoch"], wall[epoch]), least=2.0, note=note)
    yield Row("R11", "epoch with Mish over one with ReLU", over(cpu[epoch], cpu["relu", "epoch"]), most=1.15)
    same = same_weights(bench.side("emoexp")("weights"), bench.side("deterministic")("weights"))
    note = "same weights" if same else "OTHER WEIGHTS"
    ratios = over(cpu["deterministic", "epoch"], cpu[epoch])
    yield Row("R14", "deterministic=true over false, processor time", ratios, most=1.05, note=note)


def steps(bench: Bench) -> Iterator[Row]:
    """R3a: what a step costs besides its arithmetic."""
    if not has_lightning():
        return
    laps = bench.raced(("one layer", "epoch"), ("one layer", "bare"), ("one layer, lightning", "epoch"))
    ours, bare, theirs = ([lap.wall * 1000 / one_layer.STEPS for lap in found] for found in laps.values())
    excess = [[a - b for a, b in zip(side, bare, strict=True)] for side in (theirs, ours)]
    note = f"{statistics.median(excess[0]):.2f} ms a step to {statistics.median(excess[1]):.2f}"
    yield Row("R3", "Lightning's overhead a step over emoexp's", over(*excess), least=4, note=note)


def images(bench: Bench) -> Iterator[Row]:
    """R8, R9: the loader alone, and evaluation."""
    pairs = (("emoexp", "look"), ("plain", "look"), ("emoexp", "validate"), ("plain", "evaluate"))
    ours, theirs, judged, plainly = ([lap.wall for lap in found] for found in bench.raced(*pairs).values())
    note = f"{bench.setting.draws / statistics.median(ours):,.0f} images/s"
    yield Row("R8", "loader to ImageFolder's", over(theirs, ours), least=10, note=note)
    apart = bench.side("emoexp")("apart")
    note = f"logits {apart:.0e} apart" + ("" if apart <= TOLERANCE else ", NOT EQUAL")
    yield Row("R9", "evaluation, speed to a plain loop", over(plainly, judged), least=3, note=note)


def starting(bench: Bench) -> Iterator[Row]:
    """R4: time to the first step."""
    found = commands.startup(bench.options.rounds, bench.setting)
    note = f"{statistics.median(found['first step']):.1f} s to {statistics.median(found['torch']):.1f} s"
    yield Row("R4", "first step over `import torch`", over(found["first step"], found["torch"]), most=1.5, note=note)
    yield Row("", "floor: an optimizer made, no more", over(found["optimizer"], found["torch"]))
    yield Row("", "first step over that floor", over(found["first step"], found["optimizer"]))


def cells(bench: Bench) -> Iterator[Row]:
    """R5: what a cell of a sweep costs besides its work, in seconds."""
    spent = sweep.overhead(bench.options.cells)
    note = "seconds; " + ", ".join(f"{part} {value:.2f}" for part, value in spent.items() if part != "overhead")
    yield Row("R5", "overhead of a cell of a sweep", [spent["overhead"]], most=0.35, note=note)


def writing(bench: Bench) -> Iterator[Row]:
    """R10, R12: logging and packing."""
    shares = commands.logging(bench.setting)
    yield Row("R10", "epoch with its logging over one without", shares, most=1.01, note="MLflow, files, checkpoints")
    found = commands.packing(bench.options.rounds, bench.setting)
    yield Row("R12", "first read, packing over decoding alone", over(found["pack"], found["decode"]), most=1.2)
    yield Row("R12", "next read over decoding", over(found["load"], found["decode"]), most=0.2)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "R1,R2,R3b,R11,R14": training,
    "R3a": steps,
    "R8,R9": images,
    "R4": starting,
    "R5": cells,
    "R10,R12": writing,
}


def main() -> int:
    options = parsed(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="emoexp-speed-") as scratch:
        setting, before = staged(options, Path(scratch)), os.getloadavg()[0]
        rows: list[Row] = []
        equality = None
        with ExitStack() as stack:
            bench = Bench(options, setting, stack)
            asked = [part for name, part in PARTS.items() if wanted(name, options.only)]
            if training in asked:
                equality = compared(bench.side("plain"), bench.side("emoexp"), setting.place)
            for part in asked:
                say(f"{part.__name__} ...")
                for row in part(bench):
                    say(f"  {row.number:4} {row.what}: {spread(row.ratios, 2)} {row.target} {row.met} {row.note}")
                    rows.append(row)
        text = report(options, setting, before, equality, rows)
    print("\n" + text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    if equality is not None and not equality.worst <= TOLERANCE:
        print(f"FAILED: the two sides do not compute the same; the ratios say nothing ({equality_line(equality)})")
        return 1
    return 0


def wanted(name: str, only: str | None) -> bool:
    """Whether a part holds one of the numbers that were asked for."""
    return only is None or any(number.startswith(asked) for asked in only.split(",") for number in name.split(","))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--steps", type=positive, default=12, help="batches of 128 in each measured epoch")
    parser.add_argument("--threads", type=positive, default=2, help="of torch, in every process")
    parser.add_argument("--images", type=positive, default=4000, help="training images to draw")
    parser.add_argument("--cells", type=positive, default=12, help="of the sweep")
    parser.add_argument("--data", type=Path, help="class folders of square images of one size, instead of drawn faces")
    parser.add_argument("--only", help="numbers, separated by commas: R1,R9")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.md"))
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1; it is {value}")
    return value


def staged(options: argparse.Namespace, scratch: Path) -> Setting:
    """Write or borrow the images."""
    folder = scratch / "images"
    say("writing images")
    if options.data is None:
        staging.draw(folder, options.images)
    else:
        staging.borrow(options.data, folder)
    return Setting(folder, staging.side(folder), options.steps, options.threads, 128, scratch)


def compared(plain: Contestant, ours: Contestant, place: Path) -> Agreement:
    """How far the two sides' loss and gradients agree on one batch."""
    ours("batch", place / "batch.pt")
    plain("gradients", place / "batch.pt", place / "gradients.pt")
    found: Agreement = ours("compare", place / "gradients.pt")
    say(equality_line(found))
    return found


def same_weights(one: dict, other: dict) -> bool:
    """Whether two trainings ended with the same bits."""
    return all((value == other[name]).all() for name, value in one.items())


def over(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Ratios within each round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def say(message: str) -> None:
    """Progress, beside the report."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
