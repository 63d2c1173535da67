"""Recall, precision, time and memory of the near-duplicate search: python benchmarks/near.py fer2013.zip

Transformed copies of random FER2013 pictures are planted among all different ones, and searched at the default
threshold. A pair with a planted copy is right if the other one is its original, or nearly that by itself (a pair that
the search also finds without the planted ones); every other pair with a planted copy is wrong. What it finds among the
originals alone has to be looked at: python -m emoexp.audit shows it.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from emoexp.data import near_search
from emoexp.data.readers import fer2013

OUT = Path(__file__).parent / "results" / "near.md"
SIDE = 48
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def moved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By up to 4 pixels down, up, left and right, the border repeated."""
    dy, dx = rng.integers(-4, 5, 2)
    wide = np.pad(pixels, 8, mode="edge")
    return wide[8 - dy : 8 - dy + SIDE, 8 - dx : 8 - dx + SIDE]


def encoded(pixels: np.ndarray, kind: str) -> np.ndarray:
    """At quality 30."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=30)
    return np.asarray(Image.open(buffer).convert("L"))


def toned(pixels: np.ndarray, gain: float, bias: float) -> np.ndarray:
    """Contrast about mid grey, and brightness, clipped."""
    return np.clip((pixels - 127.5) * gain + 127.5 + bias, 0, 255).astype(np.uint8)


def turned(pixels: np.ndarray, zoom: float, degrees: float) -> np.ndarray:
    """Zoomed and rotated about the middle."""
    cos, sin, middle = np.cos(np.deg2rad(degrees)) / zoom, np.sin(np.deg2rad(degrees)) / zoom, (SIDE - 1) / 2
    matrix = (cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - sin - cos))
    made = Image.fromarray(pixels).transform(
        (SIDE, SIDE), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=int(pixels.mean())
    )
    return np.asarray(made)


def resized(pixels: np.ndarray) -> np.ndarray:
    """To half the side and back."""
    small = Image.fromarray(pixels).resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


KINDS: dict[str, Change] = {
    "shifted by up to 4 of 48 pixels": moved,
    "mirrored": lambda pixels, rng: pixels[:, ::-1],
    "JPEG, quality 30": lambda pixels, rng: encoded(pixels, "JPEG"),
    "WebP, quality 30": lambda pixels, rng: encoded(pixels, "WEBP"),
    "brightness ±30 %, clipped": lambda pixels, rng: toned(pixels, 1.0, rng.uniform(-76, 76)),
    "contrast ±30 %, clipped": lambda pixels, rng: toned(pixels, rng.uniform(0.7, 1.3), 0.0),
    "halved and enlarged": lambda pixels, rng: resized(pixels),
    "blurred (Gaussian, 1 pixel)": lambda pixels, rng: np.asarray(
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))
    ),
    "noise (deviation 10)": lambda pixels, rng: np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(
        np.uint8
    ),
}
PLAIN = list(KINDS.values())
KINDS["two of these"] = lambda pixels, rng: two(pixels, rng)
ASKED = len(KINDS)
KINDS["zoom ±5 %"] = lambda pixels, rng: turned(pixels, rng.uniform(0.95, 1.05), 0.0)
KINDS["rotation ±5°"] = lambda pixels, rng: turned(pixels, 1.0, rng.uniform(-5, 5))


def two(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two different changes, one after the other."""
    first, second = rng.choice(len(PLAIN), 2, replace=False)
    return PLAIN[second](np.ascontiguousarray(PLAIN[first](pixels, rng)), rng)


def planted(image_NHW: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies of random pictures, their originals, and the number of their kind."""
    rng = np.random.default_rng(0)
    made, parent, kind = [], [], []
    for number, change in enumerate(KINDS.values()):
        for index in rng.choice(np.flatnonzero(image_NHW.std((1, 2)) > 20), each, replace=False):
            made.append(np.ascontiguousarray(change(image_NHW[index], rng)))
            parent.append(index)
            kind.append(number)
    return np.stack(made), np.array(parent), np.array(kind)


def judged(found: near_search.Pairs, size: int, parent_M: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Which planted copies were found with their original, and how many pairs with a planted copy are right, wrong."""
    hit_M, right, wrong = np.zeros(len(parent_M), bool), 0, 0
    alike = {pair for pair in zip(found.first.tolist(), found.second.tolist(), strict=True) if pair[1] < size}
    for one, other in zip(found.first.tolist(), found.second.tolist(), strict=True):
        if other < size:
            continue
        origins = sorted(parent_M[index - size] if index >= size else index for index in (one, other))
        good = origins[0] == origins[1] or tuple(origins) in alike
        right, wrong = right + good, wrong + (not good)
        hit_M[other - size] |= one == parent_M[other - size]
    return hit_M, right, wrong


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="FER2013")
    parser.add_argument("--each", type=int, default=300, help="planted copies of each kind")
    asked = parser.parse_args()
    source = fer2013.load(image_size=SIDE, channels=1, cache=None, root=asked.root, strict=False, on_corrupt="refuse")
    images = source.images[np.unique(source.digest, return_index=True)[1], 0]
    copies, parent, kind = planted(images, asked.each)
    everything = np.concatenate([images, copies])[:, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = near_search.search(everything)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hit, right, wrong = judged(found, len(images), parent)
    lines = [
        "# Near duplicates, planted",
        "",
        f"`python benchmarks/near.py fer2013.zip`: {len(copies):,} transformed copies among {len(images):,} different",
        f"pictures, threshold {near_search.THRESHOLD}, {torch.get_num_threads()} threads.",
        "",
        "| kind | recall |",
        "|---|---|",
        *[f"| {name} | {hit[kind == number].mean():.3f} |" for number, name in enumerate(KINDS)],
        f"| all but zoom and rotation | {hit[kind < ASKED].mean():.3f} |",
        "",
        f"Precision of pairs with a planted copy: {right / (right + wrong):.4f} ({wrong} of {right + wrong:,} wrong).",
        f"Pairs among the originals themselves: {(found.second < len(images)).sum():,}.",
        f"{seconds:.0f} s, at most {peak / 1e6:.2f} GB resident ({before / 1e6:.2f} GB before the search).",
    ]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
