"""What a run logs and keeps before it trains, and its line for each epoch."""

import logging
from collections.abc import Sequence
from typing import Any

from emoexp.data import leaks
from emoexp.data.dataset import Dataset
from emoexp.data.near_duplicates import NearDuplicates
from emoexp.imbalance import ledger
from emoexp.imbalance.strategy import Strategy
from emoexp.runs.folder import Run
from emoexp.runs.tables import table, write_table
from emoexp.training.loop import EpochResult

log = logging.getLogger("emoexp")


def record_leaks(run: Run, data: Dataset, near: NearDuplicates | None) -> None:
    """Say what was loaded, what was repaired, dropped or missing, and what leaks from part to part; keep the leaks.

    near: near duplicates, None where nobody has searched.
    """
    for note in data.notes:
        log.info("data   %s", note)
    found = leaks.count(data, near.group_N if near else None)
    for part in ("train", "val", "test"):
        counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, data.counts(part), strict=True))
        told = leaks.sentence(found.get(part, {}))
        log.info("%-6s %d images: %s%s", part, len(data.where(part)), counts, f"; {told}" if told else "")
    if near is None:
        log.info("leaks  near duplicates were not searched: python -m emoexp.audit with the same data does it once")
    run.write("leaks.json", {"near_searched": near is not None, "classes": list(data.class_names), "parts": found})


def record_ledger(run: Run, strategy: Strategy, data: Dataset, heuristics: list[str]) -> None:
    """Print and keep the ledger; name a double correction, and what is no prior."""
    rows, timeline = ledger.rows(strategy, data.class_names), ledger.timeline(strategy)
    warning = ledger.warning(strategy, data.class_names)
    log.info("ledger of the prior that training aims at:\n%s", table(rows))
    if len(timeline) > 1:
        log.info("by epochs:\n%s", table(by_epochs(timeline, data.class_names)))
    for text in heuristics:
        log.info("ledger heuristic, which is no prior: %s", text)
    if warning:
        log.warning(warning)
    factor = ledger.over_correction(strategy)
    run.write(
        "ledger.json",
        {
            "classes": rows,
            "over_correction": factor,
            "warning": warning,
            "draws": strategy.epoch_size,
            "timeline": timeline,
            "heuristics": heuristics,
        },
    )
    write_table(run.folder / "ledger.csv", rows)


def by_epochs(timeline: list[dict[str, Any]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The effective prior of each class in the first, middle and last of what a run does."""
    shown = [timeline[k] for k in sorted({0, len(timeline) // 2, len(timeline) - 1})]
    return [
        {"epochs": "{}-{}".format(*period["epochs"])}
        | {name: round(prior, 4) for name, prior in zip(class_names, period["effective_prior"], strict=True)}
        for period in shown
    ]


def epoch_line(epoch: EpochResult, epochs: int) -> str:
    """An epoch in one line of the log."""
    row = epoch.row
    rate = epoch.images / epoch.train_seconds
    return (
        f"epoch  {row['epoch']:3.0f}/{epochs}  train loss {row['train/loss']:.4f}  "
        f"val loss {row['val/loss']:.4f}  macro-F1 {row['val/macro_f1']:.4f}  accuracy {row['val/accuracy']:.4f}  "
        f"worst recall {row['val/worst_recall']:.3f}  {rate:.0f} images/s{'  best' if epoch.best else ''}"
    )
