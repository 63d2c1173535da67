"""Speed of training as ratios measured in one run: emoexp, a plain script, and a bare loop on one fixed batch.

    python benchmarks/speed.py --rounds 5 --steps 12 --threads 2

Each round measures one epoch of --steps batches of every variant, one after the other, in reversed order every other
round; ratios are taken within a round, so that a machine that is slow for a while slows both sides.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import staging
from contestants import Agreement, Contestant, Lap, Setting, framework, plain_script

BATCH_SIZE = 128
SPEEDUP = 2.0  # at least: images per second of emoexp over the plain script's
TAX = 1.05  # at most: time of emoexp over the bare loop's
TOLERANCE = 1e-4  # of loss and gradients, relative
PLAIN, PLAIN_2, OURS, BARE = "plain script", "plain script, 2 loader workers", "emoexp", "bare loop, one fixed batch"
Rounds = list[dict[str, Lap]]


@dataclass(frozen=True)
class Ratio:
    """Median, smallest and largest of the rounds' ratios, of wall and of processor time; and the target of wall."""

    name: str
    wall: Sequence[float]
    cpu: Sequence[float]
    target: str
    met: bool


def main() -> int:
    options = parsed(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="emoexp-speed-") as scratch:
        setting = staged(options, Path(scratch))
        before = os.getloadavg()
        with ExitStack() as stack:
            plain, plain_2 = (
                stack.enter_context(Contestant(name, plain_script, setting, workers))
                for name, workers in ((PLAIN, 0), (PLAIN_2, 2))
            )
            ours = stack.enter_context(Contestant(OURS, framework, setting))
            facts = ours("facts")
            equality = compared(plain, ours, setting.place)
            rounds = raced(
                {PLAIN: (plain, "epoch"), PLAIN_2: (plain_2, "epoch"), OURS: (ours, "epoch"), BARE: (ours, "bare")},
                options.rounds,
            )
        ratios = ratios_of(rounds)
        text = report(options, setting, facts, before, equality, rounds, ratios)
    print("\n" + text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(f"written to {options.out}")
    if not equality.worst <= TOLERANCE:
        print(f"FAILED: the two sides do not compute the same; the ratios say nothing ({equality_line(equality)})")
        return 1
    return 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=12, help="batches of 128 in each measured epoch")
    parser.add_argument("--threads", type=positive, default=2, help="of torch, in every process")
    parser.add_argument("--images", type=positive, default=4000, help="training images to draw")
    parser.add_argument("--data", type=Path, help="class folders of square images of one size, instead of drawn faces")
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
    return Setting(folder, staging.side(folder), options.steps, options.threads, BATCH_SIZE, scratch)


def compared(plain: Contestant, ours: Contestant, place: Path) -> Agreement:
    """How far the two sides' loss and gradients agree on one batch."""
    ours("batch", place / "batch.pt")
    plain("gradients", place / "batch.pt", place / "gradients.pt")
    found: Agreement = ours("compare", place / "gradients.pt")
    say(equality_line(found))
    return found


def raced(variants: dict[str, tuple[Contestant, str]], rounds: int) -> Rounds:
    """One warm-up round, then `rounds` that count, their order reversed every other time."""
    laps: Rounds = []
    for number in range(rounds + 1):
        names = list(variants) if number % 2 else list(reversed(variants))
        lap = {name: variants[name][0](variants[name][1]) for name in names}
        say(f"round {number or 'of warming up'}: " + ", ".join(f"{n} {lap[n].wall:.2f} s" for n in variants))
        laps.append(lap)
    return laps[1:]


def ratios_of(rounds: Rounds) -> list[Ratio]:
    """Speed over both plain variants, and the framework's tax."""
    faster = [
        ratio(f"images/s, emoexp over {name}", rounds, over=name, under=OURS, least=SPEEDUP)
        for name in (PLAIN, PLAIN_2)
    ]
    return [*faster, ratio("time, emoexp over bare loop", rounds, over=OURS, under=BARE, most=TAX)]


def ratio(
    name: str, rounds: Rounds, *, over: str, under: str, least: float | None = None, most: float | None = None
) -> Ratio:
    """Time of `over` by time of `under` in each round."""
    wall = [lap[over].wall / lap[under].wall for lap in rounds]
    cpu = [lap[over].cpu / lap[under].cpu for lap in rounds]
    middle = statistics.median(wall)
    met = (least is None or middle >= least) and (most is None or middle <= most)
    return Ratio(name, wall, cpu, f"≥ {least}" if least is not None else f"≤ {most}", met)


def report(
    options: argparse.Namespace,
    setting: Setting,
    facts: dict[str, str | float],
    load: Sequence[float],
    equality: Agreement,
    rounds: Rounds,
    ratios: Sequence[Ratio],
) -> str:
    """Everything as Markdown."""
    images = staging.number(setting.folder)
    rates = [
        f"| {name} | {spread([setting.draws / lap[name].wall for lap in rounds], 0)} "
        f"| {spread([setting.draws / lap[name].cpu for lap in rounds], 0)} |"
        for name in rounds[0]
    ]
    rows = [
        f"| {r.name} | {spread(r.wall, 2)} | {spread(r.cpu, 2)} | {r.target} | {'yes' if r.met else '**no**'} |"
        for r in ratios
    ]
    lines = [
        "# Speed of training",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{shlex.join(['python', *sys.argv])}`",
        "",
        f"{processor()}, {cores()} cores, {setting.threads} threads; torch {facts['torch']}, Python "
        f"{platform.python_version()}; emoexp's Mish: {facts['mish']}. Load of the machine before: {load[0]:.1f}.",
        "",
        f"emotion_cnn with Mish, batches of {setting.batch_size}, {images} training images of {setting.side}×"
        f"{setting.side} in {'drawn faces' if options.data is None else options.data}; {options.rounds} rounds of "
        f"{setting.steps} steps after one of warming up. Median (smallest to largest) over the rounds.",
        "",
        "| variant | images/s | images/s of processor time |",
        "| --- | --- | --- |",
        *rates,
        "",
        "| ratio within a round | wall | processor time | target (wall) | met |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"{equality_line(equality)} Not in the rates: emoexp reads and packs all images once, here in "
        f"{facts['packing']:.1f} s.",
        "",
    ]
    return "\n".join(lines)


def equality_line(equality: Agreement) -> str:
    """How far the two sides agree."""
    verdict = "equal" if equality.worst <= TOLERANCE else "**NOT equal**"
    return (
        f"Same weights, same batch: the sides are {verdict} to {TOLERANCE:g} relative: loss {equality.loss:.1e}, "
        f"gradients {equality.gradient:.1e} (in {equality.where}) with average pools; {equality.with_maxima:.1e} with "
        "max pools, whose ties rounding decides (benchmarks/equality.py)."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say(message: str) -> None:
    """Progress, beside the report."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
