"""A report from its words to its pages, top to bottom."""

import logging
from dataclasses import dataclass
from pathlib import Path

from emoexp import tracking
from emoexp.config.schema import Node
from emoexp.metrics.compare import METRICS
from emoexp.pages import markdown
from emoexp.reporting import arms as comparing
from emoexp.reporting import cells, folds, pages, pictures, protocols, tables
from emoexp.reporting.arms import Arm, Compared
from emoexp.reporting.cells import Asked, Gathered, Made
from emoexp.reporting.pages import Report
from emoexp.reporting.tables import TITLES
from emoexp.runs import folder as runs
from emoexp.runs import kept
from emoexp.runs.process import logging_to_stdout
from emoexp.tracking import Settings
from emoexp.tracking.search import search
from emoexp.training import leaky_protocol

log = logging.getLogger("emoexp")


@dataclass(frozen=True)
class Found:
    """The cells of a report: its title, the command that makes missing ones, where the report goes, the runs."""

    title: str
    command: str
    folder: Path
    gathered: Gathered


def report(options: Node, words: list[str]) -> Report:
    """Put finished cells together and write the report.

    Args:
        options: the keys of conf/report.yaml. words: those of the sweep's command line.

    Raises:
        ValueError: nothing is finished, or an option that does not fit.
    """
    logging_to_stdout()
    check(options)
    found = find(options, words)
    if not found.gathered.cells:
        reasons = "\n".join(f"  {what}: {why}" for what, why in found.gathered.left_out[:12])
        how = f"; run\n  {found.command}" if words else " among them:"
        raise ValueError(f"no cell is finished{how}\n{reasons}")
    page = judged(found, options)
    pages.write(found.folder, page)
    show(page, found)
    mirrored(found.folder, settings_of(options))
    return page


def check(options: Node) -> None:
    """Raises ValueError for an option that does not fit."""
    if options["metric"] not in METRICS:
        raise ValueError(f"metric is one of {', '.join(METRICS)}; it is {options['metric']}")
    level, resamples = options["level"], options["resamples"]
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level lies between 0 and 1, such as 0.95; it is {level}")
    if not isinstance(resamples, int) or isinstance(resamples, bool) or resamples < 1:
        raise ValueError(f"resamples is a whole number of at least 1, such as 2000; it is {resamples}")


def find(options: Node, words: list[str]) -> Found:
    """The runs that are asked for: a sweep's, a list's or a filter's."""
    outputs, mixed = Path(options["outputs"]), options["mixed"]
    chosen = [name for name in ("runs", "filter") if options[name]]
    if len(chosen) + bool(words) > 1:
        raise ValueError(f"either {' or '.join([*chosen, 'the words of a sweep'])}: one says which runs are meant")
    out = Path(options["out"]) if options["out"] else None
    if chosen:
        paths = (
            runs.match_folders(options["runs"], "runs")
            if chosen == ["runs"]
            else search(settings_of(options), options["filter"])
        )
        named = f"{chosen[0]}={options[chosen[0]]}"
        gathered = cells.varying(folds.pooled(cells.gather(cells.listed(kept.records_at(paths)), mixed=mixed)))
        return Found(f"Comparison of {named}", f'python -m emoexp.report "{named}"', out or Path("report"), gathered)
    if not words:
        raise ValueError("say which runs: a sweep's words such as ablation=activation, or runs=[...], or filter=...")
    from emoexp.sweep.compose import spanned

    span = spanned(words)
    asked = [Asked(cell.name, cell.axes, cell.seed, cell.chosen) for cell in span.cells]
    gathered = folds.pooled(cells.gather(((cell, kept.find(outputs, cell.name)) for cell in asked), mixed=mixed))
    command = f"python -m emoexp.train --multirun {' '.join(words)}"
    return Found(f"Comparison: {span.folder.name}", command, out or span.folder / "report", gathered)


def settings_of(options: Node) -> Settings:
    """Where MLflow is."""
    settings: Settings = options["tracking"].build()
    return settings


def judged(found: Found, options: Node) -> Report:
    """Tables, figures and sentences of the cells."""
    level, metric = options["level"], options["metric"]
    arms = comparing.group(found.gathered.cells)
    base = comparing.baseline(arms, options["baseline"])
    parts = [part for part in comparing.PARTS if all(_images(arm, part) for arm in arms)]
    if "test_clean" in parts and all(_images(arm, "test") == _images(arm, "test_clean") for arm in arms):
        parts.remove("test_clean")  # nothing stands in training too: the same numbers twice
    compared = {part: comparing.compare_arms(arms, base, part, level, options["resamples"]) for part in parts}
    made = [tables.arms_table(arms, part, level) for part in parts]
    if len(arms) > 1:
        made += [tables.differences_table(compared[part], base, part, level) for part in parts]
    made.append(tables.costs_table(arms))
    leaks, shown = protocols.section(found.folder / "figures", arms, level)
    made[1:1] = leaks
    rarest = rarest_class(arms[0], options["class_name"])
    drawn = shown + pictures.draw(found.folder / "figures", arms, compared["test"], base, metric, rarest, level)
    decided = [one for one in compared["test"] if one.metric == metric]
    told = said(decided, arms, base, level)
    left_out = [*found.gathered.left_out, *without_curves(arms, rarest)]
    return Report(found.title, facts(found, arms, base, options), told, made, drawn, left_out, tables.runs_rows(arms))


def said(decided: list[Compared], arms: list[Arm], base: Arm, level: float) -> list[str]:
    """The comparison in sentences."""
    if len(arms) == 1:
        return ["There is one arm: nothing to compare."]
    return [tables.sentence(one, base, level) for one in decided] + ([tables.floor(decided)] if decided else [])


def without_curves(arms: list[Arm], class_name: str) -> list[tuple[str, str]]:
    """Why the figure of precision and recall of a class is left out; empty where it is not."""
    cells_there = cells_of(arms)
    class_index = cells_there[0].manifest["data"]["classes"].index(class_name)
    known = [cell.predictions for cell in cells_there]
    lacking = sum(one is None or one.probability_of(class_index) is None for one in known)
    why = f"the probabilities of {class_name} were not kept for {lacking} of {len(known)} runs"
    return [("figure of precision and recall", why)] if lacking else []


def _images(arm: Arm, part: str) -> set[int]:
    counts = {(cell.metrics.get(part) or {}).get("n") or 0 for cell in arm.cells.values()}
    return counts if 0 not in counts else set()


def rarest_class(arm: Arm, asked: object) -> str:
    """The class with the fewest training images, or the one that is asked for.

    Raises:
        ValueError: the data have no such class.
    """
    data = next(iter(arm.cells.values())).manifest["data"]
    names, counts = [str(name) for name in data["classes"]], data["counts"]["train"]
    asked = None if asked is None else str(asked)
    if asked is None:
        return names[min(range(len(names)), key=lambda place: counts[place])]
    if asked not in names:
        raise ValueError(f"class_name={asked} is no class of the data; there are {', '.join(names)}")
    return asked


def cells_of(arms: list[Arm]) -> list[Made]:
    """The runs of all arms."""
    return [cell for arm in arms for cell in arm.cells.values()]


def facts(found: Found, arms: list[Arm], base: Arm, options: Node) -> list[tuple[str, str]]:
    """Which runs these are, what made them (all that did, where they are mixed), and how they were judged."""
    manifests = [cell.manifest for cell in cells_of(arms)]
    data = manifests[0]["data"]
    seeds = sorted({seed for arm in arms for seed in arm.cells})
    results = dict.fromkeys(str(made["results_version"]) for made in manifests)
    places = dict.fromkeys(
        f"{made['device']}, {made['threads']} threads, torch {made['versions']['torch']}" for made in manifests
    )
    judged_by = f"{TITLES[options['metric']]} first, {options['resamples']:,} resamples of each bootstrap"
    return [
        ("command", found.command),
        ("runs", f"{len(found.gathered.cells)} finished cells; {len(found.gathered.left_out)} left out"),
        ("arms", f"{len(arms)}: {'; '.join(arm.label for arm in arms)}"),
        ("seeds", ", ".join(map(str, seeds))),
        ("baseline", base.label),
        ("data", f"{data['source']}, {sum(data['counts']['train']):,} training images, content {data['content'][:16]}"),
        ("results version", ", ".join(results)),
        ("made on", "; ".join(places)),
        ("judged by", judged_by),
        *([("protocol", leaky_protocol.MARK)] if any(cell.is_leaky for cell in cells_of(arms)) else []),
    ]


def show(page: Report, found: Found) -> None:
    """The first table and the sentences, and what was left out, on the terminal."""
    log.info("%s\n\n%s\n", page.title, markdown.write_table(page.tables[0]))
    for text in page.sentences:
        log.info("- %s", text)
    for what, why in page.left_out:
        log.warning("left out: %s (%s)", what, why)
    log.info("report %s", found.folder / "report.html")


def mirrored(folder: Path, settings: Settings) -> None:
    """Show the report on the sweep's parent run, where there is one."""
    if not (folder.parent / "status.json").is_file():
        return
    try:
        tracking.mirror(folder.parent, settings)
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises: the report is written
        log.warning("tracking: the report is not shown yet: %s; `make sync` adds it", error)
