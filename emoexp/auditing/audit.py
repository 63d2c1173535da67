"""An audit from its configuration to its pages: the work of `python -m emoexp.audit`."""

import difflib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from emoexp import tracking
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.chapters.class_balance import class_balance
from emoexp.auditing.chapters.class_pictures import class_pictures
from emoexp.auditing.chapters.confounds import confounds
from emoexp.auditing.chapters.duplicates import duplicates, leaks_between_parts
from emoexp.auditing.chapters.image_quality import image_quality
from emoexp.auditing.chapters.original import comparison_with_original
from emoexp.auditing.chapters.people import people
from emoexp.auditing.chapters.suspicious_labels import suspicious_labels
from emoexp.auditing.findings import KINDS, Chapter, Finding, table_of
from emoexp.config import build_data, naming, option, sources
from emoexp.config.data import DataSource
from emoexp.config.schema import Node
from emoexp.data import files as data_files
from emoexp.data import near_duplicates
from emoexp.data.dataset import Dataset
from emoexp.pages import html, markdown
from emoexp.pages.page import Page, Section
from emoexp.runs import files, tables
from emoexp.runs.folder import Run
from emoexp.runs.process import logging_to_stdout, record_status, sigterm_interrupts

log = logging.getLogger("emoexp")


def audit(plain: Node) -> list[str]:
    """Examine a data set and write <outputs>/audit-<data>-<split>-<hash>/report/audit.{html,md,json}.

    Args:
        plain: the keys of conf/audit.yaml.

    Returns:
        The findings of audit.fail_on that the data set has.

    Raises:
        ValueError: an option with a wrong value, or data that cannot be read at all.
    """
    logging_to_stdout()
    options = check_options(plain["audit"])
    if plain["threads"]:
        torch.set_num_threads(plain["threads"])
    data, label = load(plain), plain["data"].label
    folder = Path(plain["outputs"]) / f"audit-{naming.safe(label)}-{data.split}-{str(data.fingerprint['content'])[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    with sigterm_interrupts(), files.lock(folder / "lock"):
        run = Run(folder)
        write_manifest(run, plain, data)
        with record_status(run):
            chapters = build_chapters(load_audit_data(plain, data, folder), options)
            write_pages(run, data, label, chapters)
    show_in_mlflow(folder, plain)
    log.info("page   %s", folder / "report" / "audit.html")
    kinds_found = {finding.kind for chapter in chapters for finding in chapter.findings if finding.count}
    failures = [kind for kind in options["fail_on"] if kind in kinds_found]
    if failures:
        log.warning("audit.fail_on: %s", ", ".join(failures))
    return failures


def check_options(options: Node) -> Node:
    """The node `audit`, after a check of its values.

    Raises:
        ValueError: a value that is not allowed.
    """
    kinds = options["fail_on"]
    if not isinstance(kinds, list):
        raise ValueError(f"audit.fail_on is a list such as [leaks,conflicts]; it is {kinds}")
    for kind in kinds:
        if kind not in KINDS:
            similar = difflib.get_close_matches(str(kind), KINDS, n=1)
            hint = f"did you mean {similar[0]}? " if similar else ""
            raise ValueError(f"audit.fail_on names {kind}; {hint}It may name {', '.join(KINDS)}")
    if not isinstance(options["pictures"], int) or options["pictures"] < 1:
        raise ValueError(f"audit.pictures is a whole number of at least 1; it is {options['pictures']}")
    return options


def load(plain: Node) -> Dataset:
    """The data after split and long tail. Unreadable images do not raise an error here: a chapter lists them."""
    source_option: DataSource = plain["data"].lenient()
    cache = sources.folder_of(plain["cache"])
    source = sources.read_source(source_option, plain["image_size"], plain["channels"], cache)
    return build_data.with_long_tail(plain["split"].build(source), source_option.long_tail)


def load_audit_data(plain: Node, data: Dataset, folder: Path) -> AuditData:
    """The data with near duplicates and file headers, which several chapters need."""
    near, cache = None, sources.folder_of(plain["cache"])
    if plain["audit"]["near"]:
        if near_duplicates.load(data, cache) is None:
            log.info(
                "search near duplicates among %d images; they are saved for runs and later audits", len(data.labels)
            )
        near = near_duplicates.find(data, cache)
    root = plain["data"].plain().get("root")
    file_info = data_files.file_info(Path(str(root)).expanduser(), data.names.tolist()) if root else None
    return AuditData(data, near, file_info, folder, plain["audit"]["pictures"])


def build_chapters(audit_data: AuditData, options: Node) -> list[Chapter]:
    """All chapters, in the order of the page."""
    builders = {
        "classes": lambda: class_balance(audit_data),
        "this copy": lambda: comparison_with_original(audit_data),
        "leaks": lambda: leaks_between_parts(audit_data),
        "duplicates": lambda: duplicates(audit_data),
        "people": lambda: people(audit_data),
        "sources": lambda: confounds(audit_data),
        "pictures": lambda: image_quality(audit_data),
        "labels": lambda: suspicious_labels(audit_data, options["runs"]),
        "faces": lambda: class_pictures(audit_data),
    }
    chapters = []
    for name, build in builders.items():
        chapter = build()
        chapters.append(chapter)
        for finding in chapter.findings:
            log.info("%-9s %s", name, finding.text)
    return chapters


def write_manifest(run: Run, plain: Node, data: Dataset) -> None:
    """Write configuration and manifest of the audit in the format of a run, so that MLflow can show it."""
    files.write_yaml(run.folder / "config.yaml", {key: option.plain(value) for key, value in plain.items()})
    params = {
        "data": plain["data"].label,
        "split": data.split,
        "image_size": plain["image_size"],
        "channels": plain["channels"],
    }
    tags = {"kind": "audit", "data_notes": " ".join(data.notes)}
    run.write("manifest.json", {"run": run.folder.name, "params": params, "data": data.fingerprint, "tags": tags})


def write_pages(run: Run, data: Dataset, label: str, chapters: list[Chapter]) -> None:
    """Write the pages, a CSV file for each table, and the counts of all findings as metrics."""
    findings = [finding for chapter in chapters for finding in chapter.findings]
    sections = [summary(findings), *[chapter.section for chapter in chapters]]
    fingerprint = data.fingerprint
    facts = [
        ("data", f"{label}, split={data.split}, {len(data.labels):,} images of {len(data.class_names)} classes"),
        ("content", str(fingerprint["content"])[:16]),
        *[("note", note) for note in data.notes],
    ]
    page = Page(f"Audit of {label}", facts, sections)
    folder = run.folder / "report"
    for subfolder in (folder, run.folder / "tables"):
        subfolder.mkdir(exist_ok=True)
    files.write_text(folder / "audit.md", markdown.write(page, figures="../figures"))
    files.write_text(folder / "audit.html", html.write(page))
    numbers = {key: value for chapter in chapters for key, value in chapter.numbers.items()}
    result = {
        "findings": {finding.kind: {"count": finding.count, "text": finding.text} for finding in findings},
        "numbers": numbers,
    }
    text = json.dumps(files.json_values(result | {"data": fingerprint}), indent=1, ensure_ascii=False, allow_nan=False)
    files.write_text(folder / "audit.json", text + "\n")
    for section in sections:
        for table in section.tables:
            tables.write_table(run.folder / "tables" / f"{table.name}.csv", table.rows)
    run.write("metrics.json", {"audit": {finding.kind: finding.count for finding in findings}})


def summary(findings: list[Finding]) -> Section:
    """All findings in one table, also those with a count of 0."""
    rows: list[dict[str, Any]] = [
        {"finding": finding.kind, "count": finding.count, "what": finding.text} for finding in findings
    ]
    return Section("Findings", [], [table_of("findings", "Findings", "audit.fail_on takes these names.", rows)])


def show_in_mlflow(folder: Path, plain: Node) -> None:
    """Show the audit in MLflow. An error here is logged alone: `make sync` can add the audit later."""
    settings: tracking.Settings = plain["tracking"].build()
    try:
        tracking.mirror(folder, settings)
    except Exception as error:  # noqa: BLE001 - MLflow may raise anything; the pages are already written
        log.warning("tracking: the audit is not shown yet: %s; `make sync` adds it", error)
