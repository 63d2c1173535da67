"""What a sweep prints: its plan, a line for each cell, the table of all cells, and what the time was spent on."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from emoexp.runs import files, tables
from emoexp.sweep.cells import DONE, SKIPPED, Cell, Outcome, Plan
from emoexp.sweep.worker import Preflight

_FIXED_S = 6.0  # seconds of a cell besides its epochs (figures, bootstrap, export); used only for the estimate
_TRAINING = ("train", "predict")  # parts of seconds.json
_OUTPUT = ("figures", "bootstrap", "export")  # further parts; what is in neither counts as overhead


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_table(plan: Plan, preflights: Sequence[Preflight]) -> str:
    """The dry run: every cell, whether it is finished, and how long the others will take."""
    rows, seconds_left, keys = [], 0.0, _chosen_keys(plan.cells)
    for cell, preflight in zip(plan.cells, preflights, strict=True):
        seconds = 0.0
        if preflight.finished:
            state = "done"
        else:
            epochs_left = preflight.epochs - preflight.epochs_done
            seconds = _FIXED_S + epochs_left * preflight.images_per_epoch * (preflight.seconds_per_image or math.nan)
            state = f"{preflight.epochs_done} of {preflight.epochs} epochs" if preflight.epochs_done else "to do"
        seconds_left += seconds
        rows.append({**_cell_values(cell, keys), "state": state, "about": duration(seconds)})
    num_done, workers = sum(preflight.finished for preflight in preflights), plan.settings.processes
    estimate = f"about {duration(seconds_left / workers)} with {workers} worker{'s' * (workers > 1)}"
    if plan.settings.tune.lr:
        estimate += f"; besides {len(plan.settings.tune.lr)} runs for each that search its learning rate"
    return f"{tables.table(rows)}\n{num_done} of {len(rows)} cells are done; the others take {estimate}"


def _cell_values(cell: Cell, keys: Iterable[str] = ()) -> dict[str, str]:
    """The axes and the seed of a cell, and the values that searches chose for it under some keys."""
    chosen = {key: f"{cell.chosen[key]:g}" if key in cell.chosen else "-" for key in keys}
    return {**cell.axes, "seed": str(cell.experiment.seed), **chosen}


def _chosen_keys(cells: Iterable[Cell]) -> list[str]:
    """The keys of the values that searches chose."""
    return list(dict.fromkeys(key for cell in cells for key in cell.chosen))


def cell_line(cell: Cell, outcome: Outcome, number: int, total: int, seconds_left: float) -> str:
    """A cell that has ended, in one line."""
    parts = [f"{outcome.state:6} {cell.label}", f"{number}/{total}"]
    if outcome.macro_f1 is not None:
        parts.append(f"test macro-F1 {outcome.macro_f1:.3f}")
    if outcome.error:
        parts.append(outcome.error)
    if outcome.seconds is not None:
        parts.append(duration(outcome.seconds))
    return ", ".join(parts) + (f"; {duration(seconds_left)} left" if number < total else "")


def outcome_table(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> str:
    """Every cell with its state, as a table; then how many there are of each state."""
    rows, keys = [], _chosen_keys(cells)
    for cell in cells:
        outcome = outcomes.get(cell.name, Outcome(SKIPPED))
        row: dict[str, object] = {**_cell_values(cell, keys), "state": outcome.state}
        row["macro-F1"] = None if outcome.macro_f1 is None else f"{outcome.macro_f1:.3f}"
        row["seconds"] = None if outcome.seconds is None else round(outcome.seconds)
        row[""] = outcome.error or ""
        rows.append(row)
    counts = Counter(str(row["state"]) for row in rows)
    return f"{tables.table(rows)}\n" + ", ".join(f"{number} {state}" for state, number in counts.items())


def time_spent(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], elapsed: float) -> str:
    """What the time of the cells that this command trained was spent on. Overhead is neither training nor output.

    elapsed: seconds of the whole sweep.
    """
    spent: Counter[str] = Counter()
    trained = [outcomes[cell.name] for cell in cells if cell.name in outcomes and outcomes[cell.name].state == DONE]
    for outcome in trained:
        spent.update(files.read_json(Path(outcome.folder or "") / "seconds.json"))
    if not trained:
        return f"time   {duration(elapsed)}"
    parts = [*_TRAINING, *_OUTPUT]
    text = ", ".join(f"{part} {spent[part] / len(trained):.2f} s" for part in parts)
    total = sum(outcome.seconds or 0.0 for outcome in trained)
    overhead = (total - sum(spent[part] for part in parts)) / len(trained)
    return f"time   {duration(elapsed)}; a cell: {text}, overhead {overhead:.2f} s"
