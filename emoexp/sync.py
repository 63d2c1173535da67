"""python -m emoexp.sync: bring MLflow up to date with the run folders, and close runs whose process died."""

import sys
from collections import Counter
from pathlib import Path

import hydra
from omegaconf import DictConfig

from emoexp import tracking
from emoexp.config import checks
from emoexp.runs import folder as runs
from emoexp.tracking import Settings, locate
from emoexp.tracking.mirror import brief


def sync(outputs: Path, settings: Settings, sweeps: Path | None = None) -> Counter[str]:
    """Mirror every run folder below `outputs` of which MLflow lacks something. Prints a line for each run, and a total.

    sweeps: the folder of the sweeps, if there is one; they come first, since they are the parents of their runs.

    Returns how many runs were "closed", "mirrored", "current", "live" (still running, so left alone) and "failed".
    Raises ValueError when there is no such folder, or with tracking=none.
    """
    store = locate(settings)
    if store is None:
        raise ValueError("tracking=none leaves nothing to bring up to date: choose tracking=mlflow or server")
    if not outputs.is_dir():
        raise ValueError(f"outputs={outputs} is no folder; there are no runs")
    for note in store.notes:
        print(f"note      {note}")
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for root in [path for path in (sweeps, outputs) if path is not None and path.is_dir()]:
        closed = tracking.close_dead(root, settings)
        for folder in runs.all_runs(root):
            result, note = _sync_run(folder, settings)
            result = "closed" if folder.name in closed and result != "failed" else result
            counts[result] += 1
            reasons.update([note.removeprefix(": ")] * (result == "failed"))
            print(f"{result:9} {folder.relative_to(root)}{note}", flush=True)
    print(f"{counts.total()} runs: " + (", ".join(f"{n} {result}" for result, n in sorted(counts.items())) or "none"))
    for reason, n in reasons.most_common():
        print(f"{n} failed: {reason}")
    return counts


def _sync_run(folder: Path, settings: Settings) -> tuple[str, str]:
    try:
        if runs.is_alive(folder):
            return "live", " (it mirrors itself)"
        if not tracking.behind(folder, settings):
            return "current", ""
        tracking.mirror(folder, settings)
    except Exception as error:  # noqa: BLE001 - after an error of one run the others go on
        return "failed", f": {brief(error)}"
    return "mirrored", ""


@hydra.main(version_base="1.3", config_path="pkg://emoexp.conf", config_name="sync")
def main(config: DictConfig) -> None:
    """The command."""
    try:
        options = checks.plain(config)
        counts = sync(Path(options["outputs"]), options["tracking"].build(), Path(options["sweeps"]))
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
