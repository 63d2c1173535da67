"""A sweep in words: what there is to do, how it goes, what became of every cell, what the time went into."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from emoexp.runs import tables
from emoexp.sweep.cells import DONE, SKIPPED, Cell, Outcome, Plan
from emoexp.sweep.worker import Judged

_FIXED_S = 6.0  # of a cell besides its epochs: figures, bootstrap, export; for the estimate alone
_BESIDE = ("figures", "bootstrap", "export")  # what a run leaves besides its training


def duration(seconds: float) -> str:
    """A time as people say it."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_plan(plan: Plan, judged: Sequence[Judged]) -> str:
    """The dry run: every cell, what there is of it, and how long the others will take."""
    rows, left, chosen = [], 0.0, _chosen(plan.cells)
    for cell, facts in zip(plan.cells, judged, strict=True):
        state = "done" if facts.finished else f"{facts.done} of {facts.epochs} epochs" if facts.done else "to do"
        seconds = 0.0
        if not facts.finished:
            seconds = _FIXED_S + (facts.epochs - facts.done) * facts.images * (facts.seconds_per_image or math.nan)
        left += seconds
        rows.append({**_words(cell, chosen), "state": state, "about": duration(seconds)})
    done, workers = sum(facts.finished for facts in judged), plan.settings.processes
    search = (
        f"; besides {len(plan.settings.tune.lr)} runs for each that search its learning rate"
        if plan.settings.tune.lr
        else ""
    )
    about = f"about {duration(left / workers)} with {workers} worker{'s' * (workers > 1)}"
    return f"{tables.table(rows)}\n{done} of {len(rows)} cells are done; the others take {about}{search}"


def _words(cell: Cell, chosen: Iterable[str] = ()) -> dict[str, str]:
    """Axes, seed, and of the values that searches choose those of this cell."""
    found = {key: f"{cell.chosen[key]:g}" if key in cell.chosen else "-" for key in chosen}
    return {**cell.axes, "seed": str(cell.experiment.seed), **found}


def _chosen(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(key for cell in cells for key in cell.chosen))


def line(cell: Cell, outcome: Outcome, number: int, total: int, left: float) -> str:
    """A cell that has come to its end, in one line."""
    parts = [f"{outcome.state:6} {cell.label}", f"{number}/{total}"]
    parts += [f"test macro-F1 {outcome.macro_f1:.3f}"] if outcome.macro_f1 is not None else []
    parts += [outcome.error] if outcome.error else []
    parts += [duration(outcome.seconds)] if outcome.seconds is not None else []
    return ", ".join(parts) + (f"; {duration(left)} left" if number < total else "")


def states(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> str:
    """Every cell with its state, as a table; then how many there are of each state."""
    rows, chosen = [], _chosen(cells)
    for cell in cells:
        outcome = outcomes.get(cell.name, Outcome(SKIPPED))
        value = None if outcome.macro_f1 is None else f"{outcome.macro_f1:.3f}"
        seconds = None if outcome.seconds is None else round(outcome.seconds)
        told = {"state": outcome.state, "macro-F1": value, "seconds": seconds, "": outcome.error or ""}
        rows.append({**_words(cell, chosen), **told})
    counts = Counter(str(row["state"]) for row in rows)
    return f"{tables.table(rows)}\n" + ", ".join(f"{number} {state}" for state, number in counts.items())


def time_spent(cells: Sequence[Cell], outcomes: Mapping[str, Outcome], elapsed: float) -> str:
    """What the time of the cells that were trained now went into; overhead is what is neither training nor output."""
    spent: Counter[str] = Counter()
    trained = [outcomes[cell.name] for cell in cells if cell.name in outcomes and outcomes[cell.name].state == DONE]
    for outcome in trained:
        path = Path(outcome.folder or "") / "seconds.json"
        spent.update(json.loads(path.read_text()) if path.is_file() else {})
    if not trained:
        return f"time   {duration(elapsed)}"
    told = [f"{part} {spent[part] / len(trained):.2f} s" for part in ("train", "predict", *_BESIDE)]
    whole = sum(outcome.seconds or 0.0 for outcome in trained)
    known = sum(spent[part] for part in ("train", "predict", *_BESIDE))
    overhead = (whole - known) / len(trained)
    return f"time   {duration(elapsed)}; a cell: {', '.join(told)}, overhead {overhead:.2f} s"
