"""Memory and time of data sets of three sizes, packed and trained: python benchmarks/memory.py --gigabytes 20

Made-up images (a few random tones each, enlarged) are packed at 224x224 in colour and trained for some steps, by the
real command in a process of its own, whose resident set is read twice a second. With --fer2013 also FER2013.
Packed pixels take the disk that --gigabytes says, in a temporary folder (--folder) that is removed afterwards.
"""

import argparse
import io
import os
import platform
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "results" / "memory.md"
SIDE, STEPS, BATCH, HELD = 224, 60, 64, 256
SHAPE = (
    f"image_size={SIDE} channels=3 batch_size={BATCH} imbalance.epoch_size={STEPS * BATCH} epochs=1 patience=null "
    "architecture=shallow_cnn architecture.width=4 architecture.dense=8 activation=relu augmentation=none"
)


@dataclass(frozen=True)
class Sample:
    """Seconds since the start, bytes resident (of no file, of files), and whether the images are packed."""

    second: float
    own: int
    files: int
    packed: bool


def draw(path: Path, images: int) -> None:
    """A tar of pictures of 8x8 random tones: training's, and HELD of two classes each for val and test."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as archive:
        for number in range(images):
            part = ("val", "test")[number % 2] if number < 2 * HELD else "train"
            data = b"P6 8 8 255\n" + rng.bytes(192)
            entry = tarfile.TarInfo(f"{part}/{'ab'[number // 2 % 2]}/{number:07d}.ppm")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def train(folder: Path, words: str) -> tuple[list[Sample], float]:
    """Samples of a training with its cache in a folder, and seconds in all."""
    command = [sys.executable, "-m", "emoexp.train", "tracking=none", f"cache={folder / 'cache'}"]
    command += [f"outputs={folder / 'outputs'}", *shlex.split(words)]
    start, samples = time.perf_counter(), []
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        while process.poll() is None:
            samples += _sample(process.pid, time.perf_counter() - start, folder / "cache")
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit((folder / "log").read_text(encoding="utf-8")[-3000:])
    return samples, time.perf_counter() - start


def _sample(process: int, second: float, cache: Path) -> Iterator[Sample]:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    size = {line.split()[0]: int(line.split()[1]) << 10 for line in status if line.startswith(("RssAnon", "RssFile"))}
    if size:  # nothing of a process that has just ended
        yield Sample(second, size["RssAnon:"], size["RssFile:"], any(cache.glob("*.pack")))


def slope(samples: list[Sample]) -> float:
    """MB of the resident set a minute: a line through the middle half of the samples."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    if len(middle) < 3:
        return float("nan")
    return float(np.polyfit([one.second for one in middle], [one.own + one.files for one in middle], 1)[0]) * 60 / 1e6


def row(name: str, images: int, samples: list[Sample], seconds: float) -> str:
    """A line of the table."""
    packing = next((one.second for one in samples if one.packed), seconds)
    after = [one for one in samples if one.packed]
    peak = [max(one.own + one.files for one in some) / 1e6 for some in (samples, after)]
    own, files = (max(sizes) / 1e6 for sizes in zip(*((one.own, one.files) for one in samples), strict=True))
    return (
        f"| {name} | {images:,} | {packing:.0f} s | {images / packing:,.0f} | {seconds - packing:.0f} s | "
        f"{peak[0]:,.0f} MB | {own:,.0f} MB | {files:,.0f} MB | {peak[1]:,.0f} MB | {slope(after):+,.0f} MB |"
    )


def made_up(images: int, place: str | None) -> str:
    """The line of made-up images; everything they needed is removed."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        draw(folder / "all.tar", images)
        samples, seconds = train(folder, f"data=folder data.root={folder / 'all.tar'} {SHAPE}")
        return row(f"{images * 3 * SIDE**2 / 1e9:.2f} GB at {SIDE}x{SIDE}", images, samples, seconds)


def main() -> None:
    """Measure and write the table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--gigabytes", type=float, default=1.0, help="of packed pixels, the largest of three sizes")
    ask.add_argument("--folder", help="where there is room for them")
    ask.add_argument("--fer2013", type=Path, help="the archive, to train an epoch of it too")
    given = ask.parse_args()
    typed = f"python benchmarks/memory.py --gigabytes {given.gigabytes:g}" + " --fer2013 fer2013.zip" * bool(
        given.fer2013
    )
    lines = [
        "# Memory of packing and training", "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB of memory, {date.today()}; `{typed}`",
        "", "Packing counts from the start of the command on, imports included. Slope: a line through the middle half "
        "of what follows packing, a minute.", "",
        "| images | number | packing | images/s | the rest | peak | no file | files | peak after packing | slope |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for share in (16, 4, 1):
        lines.append(made_up(int(given.gigabytes * 1e9 / share / (3 * SIDE**2)), given.folder))
        print(lines[-1], flush=True)
    if given.fer2013:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            words = f"data=fer2013 data.root={given.fer2013.absolute()} epochs=1 patience=null"
            lines.append(row("FER2013, 1 epoch", 35887, *train(Path(name), words)))
        print(lines[-1], flush=True)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
