"""A whole report, from the words of the command line to its pages, in the order of the code."""

import logging
from dataclasses import dataclass
from pathlib import Path

from emoexp import tracking
from emoexp.config.schema import Node
from emoexp.metrics.compare import METRICS
from emoexp.pages import markdown
from emoexp.reporting import arms as comparing
from emoexp.reporting import collect, folds, pages, pictures, protocols, tables
from emoexp.reporting.arms import Arm, Comparison
from emoexp.reporting.collect import FinishedRun, RunSet
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
class Subject:
    """What a report is about. command: makes the missing runs. folder: where the report is written."""

    title: str
    command: str
    folder: Path
    run_set: RunSet


def report(options: Node, words: list[str]) -> Report:
    """Compare the finished runs and write the report.

    Args:
        options: the keys of conf/report.yaml. words: those of the sweep's command line.

    Raises:
        ValueError: nothing is finished, or an option that does not fit.
    """
    logging_to_stdout()
    check_options(options)
    subject = find_runs(options, words)
    if not subject.run_set.runs:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in subject.run_set.left_out[:12])
        advice = f"; run\n  {subject.command}" if words else " among them:"
        raise ValueError(f"no cell is finished{advice}\n{reasons}")
    result = compare_runs(subject, options)
    pages.write(subject.folder, result)
    print_summary(result, subject)
    show_in_mlflow(subject.folder, settings_of(options))
    return result


def check_options(options: Node) -> None:
    """Raises ValueError for an option that does not fit."""
    if options["metric"] not in METRICS:
        raise ValueError(f"metric is one of {', '.join(METRICS)}; it is {options['metric']}")
    level, resamples = options["level"], options["resamples"]
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level lies between 0 and 1, such as 0.95; it is {level}")
    if not isinstance(resamples, int) or isinstance(resamples, bool) or resamples < 1:
        raise ValueError(f"resamples is a whole number of at least 1, such as 2000; it is {resamples}")


def find_runs(options: Node, words: list[str]) -> Subject:
    """The runs that are asked for: a sweep's, a list's or a filter's."""
    mixed = options["mixed"]
    selectors = [name for name in ("runs", "filter") if options[name]]
    if len(selectors) + bool(words) > 1:
        raise ValueError(f"either {' or '.join([*selectors, 'the words of a sweep'])}: one says which runs are meant")
    if not selectors and not words:
        raise ValueError("say which runs: a sweep's words such as ablation=activation, or runs=[...], or filter=...")
    out = Path(options["out"]) if options["out"] else None
    if selectors:
        paths = (
            runs.match_folders(options["runs"], "runs")
            if selectors == ["runs"]
            else search(settings_of(options), options["filter"])
        )
        run_set = folds.pool_folds(collect.collect(collect.requests_of(kept.records_at(paths)), mixed=mixed))
        text = f"{selectors[0]}={options[selectors[0]]}"
        command = f'python -m emoexp.report "{text}"'
        return Subject(f"Comparison of {text}", command, out or Path("report"), collect.without_constant_axes(run_set))
    from emoexp.sweep.compose import sweep_request

    request, outputs = sweep_request(words), Path(options["outputs"])
    run_set = folds.pool_folds(
        collect.collect(((cell, kept.find(outputs, cell.name)) for cell in request.cells), mixed=mixed)
    )
    command = f"python -m emoexp.train --multirun {' '.join(words)}"
    return Subject(f"Comparison: {request.folder.name}", command, out or request.folder / "report", run_set)


def settings_of(options: Node) -> Settings:
    """Where MLflow is."""
    settings: Settings = options["tracking"].build()
    return settings


def compare_runs(subject: Subject, options: Node) -> Report:
    """Tables, figures and sentences of the runs."""
    level, metric = options["level"], options["metric"]
    arms = comparing.group_by_arm(subject.run_set.runs)
    base = comparing.baseline_arm(arms, options["baseline"])
    parts = [part for part in comparing.PARTS if all(_num_images(arm, part) for arm in arms)]
    if "test_clean" in parts and all(_num_images(arm, "test") == _num_images(arm, "test_clean") for arm in arms):
        parts.remove("test_clean")  # all test images are clean: it would repeat the numbers of test
    comparisons = {part: comparing.compare_arms(arms, base, part, level, options["resamples"]) for part in parts}
    leak_tables, leak_pictures = protocols.section(subject.folder / "figures", arms, level)
    arm_tables = [tables.arms_table(arms, part, level) for part in parts]
    all_tables = [arm_tables[0], *leak_tables, *arm_tables[1:]]
    if len(arms) > 1:
        all_tables += [tables.differences_table(comparisons[part], base, part, level) for part in parts]
    all_tables.append(tables.costs_table(arms))
    class_name = class_of_interest(arms[0], options["class_name"])
    arm_pictures = pictures.draw(subject.folder / "figures", arms, comparisons["test"], base, metric, class_name, level)
    return Report(
        title=subject.title,
        facts=facts(subject, arms, base, options),
        sentences=sentences([c for c in comparisons["test"] if c.metric == metric], arms, base, level),
        tables=all_tables,
        pictures=leak_pictures + arm_pictures,
        left_out=[*subject.run_set.left_out, *why_without_curves(arms, class_name)],
        runs=tables.runs_rows(arms),
    )


def sentences(comparisons: list[Comparison], arms: list[Arm], base: Arm, level: float) -> list[str]:
    """A sentence for each comparison in one metric."""
    if len(arms) == 1:
        return ["There is one arm: nothing to compare."]
    texts = [tables.sentence(comparison, base, level) for comparison in comparisons]
    return [*texts, tables.smallest_p_sentence(comparisons)] if comparisons else texts


def why_without_curves(arms: list[Arm], class_name: str) -> list[tuple[str, str]]:
    """Why the figure of precision and recall of a class is left out; empty where it is not."""
    all_runs = runs_of(arms)
    class_index = all_runs[0].manifest["data"]["classes"].index(class_name)
    predictions = [run.predictions for run in all_runs]
    lacking = sum(p is None or p.probability_of(class_index) is None for p in predictions)
    reason = f"the probabilities of {class_name} were not kept for {lacking} of {len(all_runs)} runs"
    return [("figure of precision and recall", reason)] if lacking else []


def _num_images(arm: Arm, part: str) -> set[int]:
    """How many images the runs of an arm have in a part of test; empty where one has none."""
    counts = {(run.metrics.get(part) or {}).get("n") or 0 for run in arm.runs.values()}
    return counts if 0 not in counts else set()


def class_of_interest(arm: Arm, class_name: object) -> str:
    """The class that is asked for, or for None the one with the fewest training images.

    Raises:
        ValueError: the data have no such class.
    """
    data = next(iter(arm.runs.values())).manifest["data"]
    names, counts = [str(name) for name in data["classes"]], data["counts"]["train"]
    if class_name is None:
        return names[min(range(len(names)), key=lambda index: counts[index])]
    if str(class_name) not in names:
        raise ValueError(f"class_name={class_name} is no class of the data; there are {', '.join(names)}")
    return str(class_name)


def runs_of(arms: list[Arm]) -> list[FinishedRun]:
    """The runs of all arms."""
    return [run for arm in arms for run in arm.runs.values()]


def facts(subject: Subject, arms: list[Arm], base: Arm, options: Node) -> list[tuple[str, str]]:
    """The heading's facts: which runs, what they were made with (every version and machine), how they were compared."""
    all_runs = runs_of(arms)
    manifests = [run.manifest for run in all_runs]
    data = manifests[0]["data"]
    seeds = sorted({seed for arm in arms for seed in arm.runs})
    versions = dict.fromkeys(str(manifest["results_version"]) for manifest in manifests)
    machines = dict.fromkeys(
        f"{manifest['device']}, {manifest['threads']} threads, torch {manifest['versions']['torch']}"
        for manifest in manifests
    )
    method = f"{TITLES[options['metric']]} first, {options['resamples']:,} resamples of each bootstrap"
    return [
        ("command", subject.command),
        ("runs", f"{len(subject.run_set.runs)} finished cells; {len(subject.run_set.left_out)} left out"),
        ("arms", f"{len(arms)}: {'; '.join(arm.label for arm in arms)}"),
        ("seeds", ", ".join(map(str, seeds))),
        ("baseline", base.label),
        ("data", f"{data['source']}, {sum(data['counts']['train']):,} training images, content {data['content'][:16]}"),
        ("results version", ", ".join(versions)),
        ("made on", "; ".join(machines)),
        ("compared by", method),
        *([("protocol", leaky_protocol.MARK)] if any(run.is_leaky for run in all_runs) else []),
    ]


def print_summary(result: Report, subject: Subject) -> None:
    """The first table and the sentences, and what was left out, on the terminal."""
    log.info("%s\n\n%s\n", result.title, markdown.write_table(result.tables[0]))
    for text in result.sentences:
        log.info("- %s", text)
    for name, reason in result.left_out:
        log.warning("left out: %s (%s)", name, reason)
    log.info("report %s", subject.folder / "report.html")


def show_in_mlflow(folder: Path, settings: Settings) -> None:
    """Add the report to the sweep's parent run in MLflow, where there is one."""
    if not (folder.parent / "status.json").is_file():
        return
    try:
        tracking.mirror(folder.parent, settings)
    except Exception as error:  # noqa: BLE001 - MLflow may raise anything, and the report is written
        log.warning("tracking: the report is not shown yet: %s; `make sync` adds it", error)
