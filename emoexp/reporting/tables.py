"""A comparison as tables and sentences."""

from collections.abc import Sequence
from typing import Any

from emoexp.metrics import compare
from emoexp.metrics.compare import METRICS
from emoexp.pages.page import Table
from emoexp.reporting.arms import LEAKY, PARTS, Arm, Comparison

TITLES = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "worst_recall": "worst class's recall",
    "macro_ap": "macro AP",
}


def arms_table(arms: Sequence[Arm], part: str, level: float) -> Table:
    """Each arm: seeds, and for every metric mean, standard deviation and interval over them."""
    rows, text_rows = [], []
    for arm in arms:
        row: dict[str, Any] = {**arm.axes, "n": len(arm.runs)}
        text = {"arm": arm.label, "n": str(len(arm.runs))}
        for metric in METRICS:
            spread = arm.spread(metric, part, level)
            row[metric] = spread and spread.mean
            row[f"{metric}_sd"] = spread and spread.sd
            row[f"{metric}_low"] = spread and spread.low
            row[f"{metric}_high"] = spread and spread.high
            text[TITLES[metric]] = "–" if spread is None else _spread(spread.mean, spread.sd, spread.low, spread.high)
        row["worst_class"] = text["worst class"] = arm.worst_class(part)
        rows.append(row)
        text_rows.append(text)
    images = {(run.metrics.get(part) or {}).get("n") for arm in arms for run in arm.runs.values()}
    count = ", ".join(f"{n:,}" for n in sorted(n for n in images if n))
    note = f"{count} images; mean ± standard deviation over seeds, and the {_percent(level)} t interval of the mean."
    return Table(f"arms_{part}", f"Arms, {PARTS[part]}", note, rows, text_rows)


def _spread(mean: float, sd: float | None, low: float | None, high: float | None) -> str:
    if sd is None or low is None or high is None:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {sd:.3f} [{low:.3f}, {high:.3f}]"


def differences_table(comparisons: Sequence[Comparison], base: Arm, part: str, level: float) -> Table:
    """Each arm against the baseline in every metric, in points."""
    rows, text_rows = [], []
    for comparison in comparisons:
        seeds = comparison.over_seeds
        row: dict[str, Any] = {
            **comparison.arm.axes,
            "metric": comparison.metric,
            "seeds": seeds.n,
            "points": 100 * seeds.difference,
            "seeds_low": _points(seeds.low),
            "seeds_high": _points(seeds.high),
            "seeds_sd": _points(seeds.sd),
            "seeds_detectable": _points(seeds.detectable),
            "seeds_detectable_holm": _points(comparison.detectable),
            "p": seeds.p,
            "p_holm": comparison.holm,
            "verdict": comparison.verdict,
        }
        for name, interval in (("images", comparison.images), ("both", comparison.both)):
            row[f"{name}_low"] = _points(interval and interval[0])
            row[f"{name}_high"] = _points(interval and interval[1])
        rows.append(row)
        text_rows.append(
            {
                "arm": comparison.arm.label,
                "metric": TITLES[comparison.metric],
                "verdict": comparison.verdict,
                "points": f"{100 * seeds.difference:+.1f}",
                "over seeds": _interval(seeds.low, seeds.high),
                "p": _p(seeds.p),
                "Holm's p": _p(comparison.holm),
                "over images": _interval(*(comparison.images or (None, None))),
                "over both": _interval(*((comparison.both if seeds.n > 1 else None) or (None, None))),
                "would have seen": "–" if comparison.detectable is None else f"{100 * comparison.detectable:.1f}",
                "seeds": str(seeds.n),
            }
        )
    note = (
        f"Arm minus {base.label}, in points (hundredths), paired by seed; {_percent(level)} intervals. Over seeds: t "
        "interval, other seeds on these images. Over images: paired bootstrap, other images for these models. Over "
        "both: hierarchical bootstrap of seeds and images. p: paired t test over seeds; Holm's p is adjusted for the "
        "arms compared in one metric, and the verdict follows it. Would have seen: the smallest true difference that "
        "this many seeds would have text_rows 4 times in 5, at the strictest step of that adjustment. Over images and "
        "over both: of arms whose predictions were kept, in metrics that the predicted classes decide."
    )
    return Table(f"differences_{part}", f"Differences from {base.label}, {PARTS[part]}", note, rows, text_rows)


def runs_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row for each run: its arm, its seed, its folder, and every metric, on all and on clean test images."""
    rows = []
    for arm in arms:
        for seed, run in arm.runs.items():
            row: dict[str, Any] = {**arm.axes, "seed": seed, "folder": run.record.label}
            for part in PARTS:
                metrics = run.metrics.get(part) or {}
                row.update({f"{part}_{name}": metrics.get(name) for name in ("n", *METRICS, "worst_class")})
            rows.append(row)
    return rows


def costs_table(arms: Sequence[Arm]) -> Table:
    """The costs of each arm: time, images drawn, different originals seen; and values that a search chose for it."""
    rows, text_rows = [], []
    searched_keys = dict.fromkeys(key for arm in arms for run in arm.runs.values() for key in run.chosen)
    for arm in arms:
        costs = {
            "seconds": arm.mean_cost("seconds"),
            "images_drawn": arm.mean_cost("images"),
            "originals_seen": arm.mean_cost("originals"),
            "epochs": sum(run.metrics["epochs"] for run in arm.runs.values()) / len(arm.runs),
        }
        chosen = {key: value for run in arm.runs.values() for key, value in run.chosen.items()}
        row: dict[str, Any] = {**arm.axes, **costs}
        row.update({key: chosen.get(key) for key in searched_keys})
        rows.append(row)
        text = {
            "arm": arm.label,
            "seconds of training": _number(costs["seconds"]),
            "epochs": _number(costs["epochs"]),
            "images drawn": _number(costs["images_drawn"]),
            "different originals seen": _number(costs["originals_seen"]),
        }
        text.update({f"chosen {key}": f"{value:g}" for key, value in chosen.items()})
        text_rows.append(text)
    note = "Means over seeds. Seconds of training and validation, on the machine and beside the load that there was."
    return Table("costs", "What the arms cost", note, rows, text_rows)


def sentence(comparison: Comparison, base: Arm, level: float) -> str:
    """A comparison as a sentence: the difference, its interval and p, the verdict, what may have been missed."""
    seeds = comparison.over_seeds
    text = (
        f"{comparison.arm.label} against {base.label}: {TITLES[comparison.metric]} {100 * seeds.difference:+.1f} points"
    )
    if seeds.low is None or seeds.high is None or comparison.detectable is None:
        return f"{text} at one seed: cannot tell. One seed says nothing about other seeds; run more."
    interval = _interval(seeds.low, seeds.high)
    text += f" ({_percent(level)} over seeds {interval}, {seeds.n} seeds, Holm's p {_p(comparison.holm)}): "
    text += f"{comparison.verdict}."
    if comparison.verdict == LEAKY:
        text += (
            " One of both was tested on relatives of what it was trained on: a difference of protocols, not of methods."
        )
    if comparison.verdict == "cannot tell":
        text += f" A true difference of {100 * comparison.detectable:.1f} points would have been found 4 times in 5, "
        text += "a smaller one less often."
    return text


def smallest_p_sentence(comparisons: Sequence[Comparison]) -> str:
    """A sentence on the smallest p that this number of seeds can reach."""
    fewest = min((comparison.over_seeds.n for comparison in comparisons), default=0)
    arms = len({comparison.arm.label for comparison in comparisons})
    return (
        f"{arms} comparisons in each metric, with at least {fewest} seeds. A test that assumes only symmetry (sign "
        f"changes of the {fewest} differences) could not reach a p below {compare.smallest_p(fewest):.3g}; the t "
        "test used here assumes that differences over seeds are about normal."
    )


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "not kept" if value is None else f"{value:,.0f}"


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
