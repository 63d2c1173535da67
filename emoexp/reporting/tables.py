"""A comparison as tables and sentences."""

from collections.abc import Sequence
from typing import Any

from emoexp.metrics import compare
from emoexp.metrics.compare import METRICS
from emoexp.pages.page import Table
from emoexp.reporting.arms import LEAKY, PARTS, Arm, Compared

TITLES = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "worst_recall": "worst class's recall",
    "macro_ap": "macro AP",
}


def arms_table(arms: Sequence[Arm], part: str, level: float) -> Table:
    """Each arm: seeds, and for every metric mean, standard deviation and interval over them."""
    rows, shown = [], []
    for arm in arms:
        row: dict[str, Any] = {**arm.axes, "n": len(arm.cells)}
        text = {"arm": arm.label, "n": str(len(arm.cells))}
        for metric in METRICS:
            found = arm.spread(metric, part, level)
            row |= {metric: found and found.mean, f"{metric}_sd": found and found.sd}
            row |= {f"{metric}_low": found and found.low, f"{metric}_high": found and found.high}
            text[TITLES[metric]] = "–" if found is None else _spread(found.mean, found.sd, found.low, found.high)
        row["worst_class"] = text["worst class"] = arm.worst_class(part)
        rows.append(row)
        shown.append(text)
    images = {(cell.metrics.get(part) or {}).get("n") for arm in arms for cell in arm.cells.values()}
    count = ", ".join(f"{n:,}" for n in sorted(n for n in images if n))
    note = f"{count} images; mean ± standard deviation over seeds, and the {_percent(level)} t interval of the mean."
    return Table(f"arms_{part}", f"Arms, {PARTS[part]}", note, rows, shown)


def _spread(mean: float, sd: float | None, low: float | None, high: float | None) -> str:
    if sd is None or low is None or high is None:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {sd:.3f} [{low:.3f}, {high:.3f}]"


def differences_table(found: Sequence[Compared], base: Arm, part: str, level: float) -> Table:
    """Each arm against the baseline in every metric, in points."""
    rows, shown = [], []
    for one in found:
        seeds = one.over_seeds
        row: dict[str, Any] = {**one.arm.axes, "metric": one.metric, "seeds": seeds.n, "points": 100 * seeds.difference}
        numbers = {"low": seeds.low, "high": seeds.high, "sd": seeds.sd, "detectable": seeds.detectable}
        row |= {f"seeds_{key}": _times100(value) for key, value in numbers.items()}
        row |= {"seeds_detectable_holm": _times100(one.detectable)}
        row |= {"p": seeds.p, "p_holm": one.holm, "verdict": one.verdict}
        for which, ends in (("images", one.images), ("both", one.both)):
            row |= {f"{which}_low": _times100(ends and ends[0]), f"{which}_high": _times100(ends and ends[1])}
        rows.append(row)
        shown.append(
            {
                "arm": one.arm.label,
                "metric": TITLES[one.metric],
                "verdict": one.verdict,
                "points": f"{100 * seeds.difference:+.1f}",
                "over seeds": _ends(seeds.low, seeds.high),
                "p": _p(seeds.p),
                "Holm's p": _p(one.holm),
                "over images": _ends(*(one.images or (None, None))),
                "over both": _ends(*((one.both if seeds.n > 1 else None) or (None, None))),
                "would have seen": "–" if one.detectable is None else f"{100 * one.detectable:.1f}",
                "seeds": str(seeds.n),
            }
        )
    note = (
        f"Arm minus {base.label}, in points (hundredths), paired by seed; {_percent(level)} intervals. Over seeds: t "
        "interval, other seeds on these images. Over images: paired bootstrap, other images for these models. Over "
        "both: hierarchical bootstrap of seeds and images. p: paired t test over seeds; Holm's p is adjusted for the "
        "arms compared in one metric, and the verdict follows it. Would have seen: the smallest true difference that "
        "this many seeds would have shown 4 times in 5, at the strictest step of that adjustment. Over images and "
        "over both: of arms whose predictions were kept, in metrics that the predicted classes decide."
    )
    return Table(f"differences_{part}", f"Differences from {base.label}, {PARTS[part]}", note, rows, shown)


def runs_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row a run: its arm, its seed, its folder, and every metric, on all and on clean test images."""
    rows = []
    for arm in arms:
        for seed, cell in arm.cells.items():
            row: dict[str, Any] = {**arm.axes, "seed": seed, "folder": cell.record.label}
            for part in PARTS:
                found = cell.metrics.get(part) or {}
                row |= {f"{part}_{name}": found.get(name) for name in ("n", *METRICS, "worst_class")}
            rows.append(row)
    return rows


def costs_table(arms: Sequence[Arm]) -> Table:
    """What each arm cost: time, images drawn, different originals seen; and what a search chose for it."""
    rows, shown = [], []
    searched = dict.fromkeys(key for arm in arms for cell in arm.cells.values() for key in cell.chosen)
    for arm in arms:
        costs = {"seconds": "seconds", "images_drawn": "images", "originals_seen": "originals", "epochs": "epochs"}
        found = {name: arm.mean_cost(key) for name, key in costs.items() if name != "epochs"}
        found["epochs"] = sum(cell.metrics["epochs"] for cell in arm.cells.values()) / len(arm.cells)
        chosen = {key: value for cell in arm.cells.values() for key, value in cell.chosen.items()}
        rows.append({**arm.axes, **found, **{key: chosen.get(key) for key in searched}})
        text = {
            "arm": arm.label,
            "seconds of training": _number(found["seconds"]),
            "epochs": _number(found["epochs"]),
            "images drawn": _number(found["images_drawn"]),
            "different originals seen": _number(found["originals_seen"]),
        }
        shown.append(text | {f"chosen {key}": f"{value:g}" for key, value in chosen.items()})
    note = "Means over seeds. Seconds of training and validation, on the machine and beside the load that there was."
    return Table("costs", "What the arms cost", note, rows, shown)


def sentence(one: Compared, base: Arm, level: float) -> str:
    """A comparison in plain words: the difference, how sure, the verdict, and what could have been missed."""
    seeds = one.over_seeds
    told = f"{one.arm.label} against {base.label}: {TITLES[one.metric]} {100 * seeds.difference:+.1f} points"
    if seeds.low is None or seeds.high is None or one.detectable is None:
        return f"{told} at one seed: cannot tell. One seed says nothing about other seeds; run more."
    told += (
        f" ({_percent(level)} over seeds {_ends(seeds.low, seeds.high)}, {seeds.n} seeds, Holm's p {_p(one.holm)}): "
        f"{one.verdict}."
    )
    if one.verdict == LEAKY:
        told += (
            " One of both was tested on relatives of what it was trained on: a difference of protocols, not of methods."
        )
    if one.verdict == "cannot tell":
        told += f" A true difference of {100 * one.detectable:.1f} points would have been found 4 times in 5, a smaller"
        told += " one less often."
    return told


def floor(found: Sequence[Compared]) -> str:
    """What the number of seeds allows at all."""
    fewest = min((one.over_seeds.n for one in found), default=0)
    arms = len({one.arm.label for one in found})
    return (
        f"{arms} comparisons in each metric, with at least {fewest} seeds. A test that assumes only symmetry (sign "
        f"changes of the {fewest} differences) could not reach a p below {compare.smallest_p(fewest):.3g}; the t "
        "test used here assumes that differences over seeds are about normal."
    )


def _times100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _ends(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "not kept" if value is None else f"{value:,.0f}"


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
