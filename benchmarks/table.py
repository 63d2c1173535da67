"""The table of speed.py: its lines, and all of it as Markdown."""

import argparse
import importlib.util
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import staging
from contestants import Agreement, Setting

TOLERANCE = 1e-4  # of loss and gradients, relative; of logits, absolute


@dataclass(frozen=True)
class Row:
    """A line of the table. ratios: one a round. most, least: the target of their median."""

    number: str
    what: str
    ratios: Sequence[float]
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def target(self) -> str:
        """The target in words."""
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}" if self.most is not None else ""

    @property
    def met(self) -> str:
        """Whether the median meets it."""
        middle = statistics.median(self.ratios)
        if self.least is None and self.most is None:
            return ""
        return "yes" if (self.least or 0.0) <= middle <= (self.most or float("inf")) else "**no**"


def has_lightning() -> bool:
    """Whether the peer is installed."""
    return all(importlib.util.find_spec(name) for name in ("lightning", "torchmetrics"))


def report(
    options: argparse.Namespace, setting: Setting, load: float, equality: Agreement | None, rows: Sequence[Row]
) -> str:
    """Everything as Markdown."""
    packages = ("torch", "lightning") if has_lightning() else ("torch",)
    data = "drawn faces" if options.data is None else options.data
    lines = [
        "# Speed on a CPU",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{shlex.join(['python', *sys.argv])}`",
        "",
        f"{processor()}, {cores()} cores, {setting.threads} threads; "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f", Python {platform.python_version()}. Load of the machine before: {load:.1f}.",
        "",
        f"emotion_cnn with Mish, batches of 128, {staging.number(setting.folder)} training images of {setting.side}×"
        f"{setting.side} in {data}; epochs of {setting.steps} steps. Median (smallest to largest) of "
        f"{options.rounds} rounds.",
        "",
        "| | ratio | measured | target | met | |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {r.number} | {r.what} | {spread(r.ratios, 2)} | {r.target} | {r.met} | {r.note} |" for r in rows),
        "",
    ]
    lines += [equality_line(equality), ""] if equality else []
    lines += (
        [] if has_lightning() else ["Lightning is not installed here: R3 is left out (pip install -e .[peers]).", ""]
    )
    return "\n".join(lines)


def equality_line(equality: Agreement) -> str:
    """How far the two sides agree."""
    verdict = "equal" if equality.worst <= TOLERANCE else "**NOT equal**"
    return (
        f"Same weights, same batch: emoexp and the plain script are {verdict} to {TOLERANCE:g} relative: loss "
        f"{equality.loss:.1e}, gradients {equality.gradient:.1e} (in {equality.where}) with average pools; "
        f"{equality.with_maxima:.1e} with max pools, whose ties rounding decides (benchmarks/equality.py)."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Median (smallest to largest)."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
