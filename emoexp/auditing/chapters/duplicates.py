"""Pictures that a data set holds several times: across parts, and with different labels."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import duplicate_groups
from emoexp.auditing.checks.duplicate_groups import DuplicateGroups
from emoexp.auditing.findings import Chapter, Finding, by_class, table_of
from emoexp.data import leaks
from emoexp.data.dataset import PARTS
from emoexp.pages.page import Picture, Section

LISTED = 30  # conflicts that the page lists


def leaks_between_parts(audit_data: AuditData) -> Chapter:
    """What val and test hold that an earlier part has shown: the same pictures, nearly the same, the same people."""
    dataset, names = audit_data.dataset, list(audit_data.class_names)
    found = leaks.count(dataset, audit_data.near.group_N if audit_data.near else None)
    tables, sentences = [], []
    for part, row in found.items():
        columns = {"images": dataset.counts(part).tolist(), **row["per_class"]}
        rows = by_class(names, columns)
        for line in rows:
            line["share"] = sum(line.get(kind, 0) for kind in ("exact", "near")) / max(line["images"], 1)
        tables.append(table_of(f"leaks_{part}", f"Leaks into {part}", _LEAKS_NOTE, rows))
        sentences.append(f"{part}: {leaks.sentence(row) or 'nothing leaks into it'} (n {row['n']:,}).")
    if audit_data.near is None:
        sentences.append("Near duplicates were not searched (audit.near=false).")
    kinds = {"leaks": "exact", "near_leaks": "near", "people": "person"}
    findings = []
    for name, kind in kinds.items():
        if any(kind in row for row in found.values()):
            total = sum(row.get(kind, 0) for row in found.values())
            findings.append(Finding(name, total, f"{total} images of val and test: {_DESCRIPTIONS[kind]}"))
    pictures = _pairs_across_parts(audit_data)
    return Chapter(Section("Leaks between parts", sentences, tables, pictures), findings, {"leaks": found})


_LEAKS_NOTE = (
    "Images of this part that an earlier part shows. exact: the same pixels; near: shifted, mirrored, re-encoded or "
    "brightened, besides the exact ones; person: somebody who stands there too. Share: exact and near, of the class."
)
_DESCRIPTIONS = {
    "exact": "the same pixels stand in an earlier part",
    "near": "nearly the same picture stands in an earlier part",
    "person": "the person stands in an earlier part",
}


def _pairs_across_parts(audit_data: AuditData) -> list[Picture]:
    """Pictures of pairs across parts."""
    part = audit_data.dataset.part
    if audit_data.near is None:
        return []
    pairs = audit_data.near.pairs
    apart = np.flatnonzero(
        (part[pairs.first] != part[pairs.second]) & (part[pairs.first] >= 0) & (part[pairs.second] >= 0)
    )
    return _pairs_figure(audit_data, "across", "Near duplicates across parts", apart)


def _pairs_figure(audit_data: AuditData, name: str, title: str, chosen_M: np.ndarray) -> list[Picture]:
    assert audit_data.near is not None
    pairs, dataset = audit_data.near.pairs, audit_data.dataset
    least = chosen_M[np.argsort(pairs.similarity[chosen_M], kind="stable")]
    shown = least[np.unique(np.linspace(0, max(len(least) - 1, 0), min(len(least), audit_data.pictures)).astype(int))]
    captions = [
        f"{audit_data.caption(pairs.first[p])} | {audit_data.caption(pairs.second[p])}\n"
        f"{pairs.similarity[p]:.3f}{' mirrored' if pairs.mirrored[p] else ''}"
        for p in shown
    ]
    path = figures.image_pairs(
        audit_data.figure(name),
        dataset.images[pairs.first[shown]],
        dataset.images[pairs.second[shown]],
        captions,
        title=title,
        facts=f"{len(shown)} of {len(chosen_M):,} pairs, from the least alike to the most",
    )
    return [Picture(path, f"{title}, with their correlation once aligned.")]


def duplicates(audit_data: AuditData) -> Chapter:
    """Groups of equal and of nearly equal pictures, and those whose labels contradict each other."""
    dataset, size = audit_data.dataset, len(audit_data.class_names)
    exact_N = leaks.links(dataset, None)["exact"]
    exact = duplicate_groups.count_duplicates(exact_N, dataset.labels, dataset.part, size)
    near = None
    if audit_data.near is not None:
        near = duplicate_groups.count_duplicates(audit_data.near.group_N, dataset.labels, dataset.part, size)
    found = {"exact": exact}
    if near is not None:
        found["exact and near"] = near
    whole = near or exact
    conflicts = conflict_rows(audit_data, whole.conflicts)
    findings = [Finding("duplicates", exact.surplus, f"{exact.surplus} pictures have the pixels of another one")]
    if near:
        spare = near.surplus - exact.surplus
        findings.append(Finding("near_duplicates", spare, f"{spare} more are nearly another one"))
    findings.append(Finding("conflicts", len(conflicts), f"{len(conflicts)} pictures carry different labels"))
    surplus = by_class(audit_data.class_names, {kind: one.surplus_C.tolist() for kind, one in found.items()})
    groups = [_group_row(kind, one) for kind, one in found.items()]
    numbers = {"groups": groups, "surplus": surplus, "conflicts": conflicts}
    of_each = "Of each group the first of each class stays."
    tables = [
        table_of("duplicates", "Groups of the same picture", _GROUPS_NOTE, groups),
        table_of("surplus", "Surplus pictures by class", of_each, surplus),
        table_of(
            "conflicts", "The same picture, different labels", f"At most {LISTED}; all in the JSON.", conflicts[:LISTED]
        ),
    ]
    pictures = _conflicts_figure(audit_data, whole.conflicts) + _pairs_within_a_part(audit_data)
    return Chapter(Section("Duplicates", [f"{one.text}." for one in findings], tables, pictures), findings, numbers)


def _group_row(kind: str, found: DuplicateGroups) -> dict[str, Any]:
    row = {"kind": kind, "groups": found.groups, "images": found.images, "surplus": found.surplus}
    row["conflicts"] = len(found.conflicts)
    return row | {f"{first} to {second}": count for (first, second), count in found.across.items()}


_GROUPS_NOTE = (
    "A group is two or more images that are one picture. Surplus: images less groups. Conflicts: groups with several "
    "labels. Train to test: images of test with a relative in training, and so on."
)


def conflict_rows(audit_data: AuditData, conflicts: tuple[np.ndarray, ...]) -> list[dict[str, str]]:
    """For each group its images, labels and parts; and files that the source lists with several labels."""
    dataset = audit_data.dataset
    listed = [(name, why) for name, why in dataset.left_out if why.startswith("has different labels")]
    return [
        {
            "images": ", ".join(str(dataset.names[i]) for i in group),
            "labels": ", ".join(audit_data.class_names[dataset.labels[i]] for i in group),
            "parts": ", ".join(PARTS[dataset.part[i]] if dataset.part[i] >= 0 else "left out" for i in group),
        }
        for group in conflicts
    ] + [{"images": name, "labels": why.partition(": ")[2], "parts": "left out"} for name, why in listed]


def _conflicts_figure(audit_data: AuditData, conflicts: tuple[np.ndarray, ...]) -> list[Picture]:
    dataset, chosen = audit_data.dataset, []
    for group in conflicts[: audit_data.pictures]:
        other = next(i for i in group if dataset.labels[i] != dataset.labels[group[0]])
        chosen.append((int(group[0]), int(other)))
    if not chosen:
        return []
    left, right = np.array(chosen).T
    captions = [f"{audit_data.caption(a)} | {audit_data.caption(b)}" for a, b in chosen]
    facts = f"{len(chosen)} of {len(conflicts):,} groups"
    path = figures.image_pairs(
        audit_data.figure("conflicts"),
        dataset.images[left],
        dataset.images[right],
        captions,
        title="One picture, different labels",
        facts=facts,
    )
    return [Picture(path, "The same picture with different labels.")]


def _pairs_within_a_part(audit_data: AuditData) -> list[Picture]:
    """Pictures of near duplicates within a part."""
    if audit_data.near is None:
        return []
    part, pairs = audit_data.dataset.part, audit_data.near.pairs
    alike = np.flatnonzero(part[pairs.first] == part[pairs.second])
    some = alike[np.isin(pairs.first[alike], audit_data.sample(pairs.first[alike], 4 * audit_data.pictures))]
    return _pairs_figure(audit_data, "within", "Near duplicates within a part", some)
