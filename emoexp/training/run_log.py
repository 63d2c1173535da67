"""What a run logs and writes before it trains (leaks and ledger), and its line in the log for each epoch."""

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
    """Log the data: notes of its reader, images of each class and part, leaks between parts. Write leaks.json.

    near: near duplicates; None where they were not searched.
    """
    for note in data.notes:
        log.info("data   %s", note)
    leak_counts = leaks.count(data, near.group_N if near else None)
    for part in ("train", "val", "test"):
        counts = ", ".join(f"{name} {count}" for name, count in zip(data.class_names, data.counts(part), strict=True))
        leak_sentence = leaks.sentence(leak_counts.get(part, {}))
        log.info(
            "%-6s %d images: %s%s", part, len(data.where(part)), counts, f"; {leak_sentence}" if leak_sentence else ""
        )
    if near is None:
        log.info("leaks  near duplicates were not searched: python -m emoexp.audit with the same data does it once")
    run.write(
        "leaks.json", {"near_searched": near is not None, "classes": list(data.class_names), "parts": leak_counts}
    )


def record_ledger(run: Run, strategy: Strategy, data: Dataset, heuristics: list[str]) -> None:
    """Log and write the ledger. Warn of a double correction; log the effects that are no prior."""
    rows, timeline = ledger.rows(strategy, data.class_names), ledger.timeline(strategy)
    warning = ledger.warning(strategy, data.class_names)
    log.info("ledger of the prior that training aims at:\n%s", table(rows))
    if len(timeline) > 1:
        log.info("by epochs:\n%s", table(by_epochs(timeline, data.class_names)))
    scale, last = strategy.columns.weight_scale, strategy.per_epoch[-1]
    if scale != "mean1":
        mean = float((last.exposure_C * last.weight_C).sum())
        of_batch = ", and a batch's loss is divided by their sum" if last.divided_batch else ""
        log.info("weights are on the scale %s: their mean over samples is %.3g%s", scale, mean, of_batch)
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
            **({"weight_scale": scale} if scale != "mean1" else {}),
        },
    )
    write_table(run.folder / "ledger.csv", rows)


def by_epochs(timeline: list[dict[str, Any]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The effective prior of each class in the first, the middle and the last period of a timeline."""
    periods = [timeline[k] for k in sorted({0, len(timeline) // 2, len(timeline) - 1})]
    return [
        {"epochs": "{}-{}".format(*period["epochs"])}
        | {name: round(prior, 4) for name, prior in zip(class_names, period["effective_prior"], strict=True)}
        for period in periods
    ]


def epoch_line(result: EpochResult, epochs: int) -> str:
    """The line of the log for an epoch."""
    row = result.row
    images_per_second = result.images / result.train_seconds
    return (
        f"epoch  {row['epoch']:3.0f}/{epochs}  train loss {row['train/loss']:.4f}  "
        f"val loss {row['val/loss']:.4f}  macro-F1 {row['val/macro_f1']:.4f}  accuracy {row['val/accuracy']:.4f}  "
        f"worst recall {row['val/worst_recall']:.3f}  {images_per_second:.0f} images/s"
        f"{'  best' if result.best else ''}"
    )
