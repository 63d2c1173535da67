"""Chapters on leaks between parts, and on pictures that a data set holds several times."""

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

MAX_LISTED = 30  # conflicts that the page lists


def leaks_between_parts(audit_data: AuditData) -> Chapter:
    """Images of val and test that leak: an earlier part has the same picture, a near duplicate, or the same person."""
    dataset, names = audit_data.dataset, list(audit_data.class_names)
    leak_table = leaks.count(dataset, audit_data.near.group_N if audit_data.near else None)
    tables, sentences = [], []
    for part, row in leak_table.items():
        columns = {"images": dataset.counts(part).tolist(), **row["per_class"]}
        rows = by_class(names, columns)
        for line in rows:
            line["share"] = sum(line.get(kind, 0) for kind in ("exact", "near")) / max(line["images"], 1)
        tables.append(table_of(f"leaks_{part}", f"Leaks into {part}", _LEAKS_NOTE, rows))
        sentences.append(f"{part}: {leaks.sentence(row) or 'no leaks'} (n {row['n']:,}).")
    if audit_data.near is None:
        sentences.append("Near duplicates were not searched (audit.near=false).")
    kinds = {"leaks": "exact", "near_leaks": "near", "people": "person"}
    findings = []
    for name, kind in kinds.items():
        if any(kind in row for row in leak_table.values()):
            total = sum(row.get(kind, 0) for row in leak_table.values())
            findings.append(Finding(name, total, f"{total} images of val and test: {_DESCRIPTIONS[kind]}"))
    pictures = _pairs_across_parts(audit_data)
    return Chapter(Section("Leaks between parts", sentences, tables, pictures), findings, {"leaks": leak_table})


_LEAKS_NOTE = (
    "Images of this part that leak. exact: an image of an earlier part has the same pixels; near: an image of an "
    "earlier part is nearly the same (shifted, mirrored, re-encoded or brightened), without the exact ones; person: an "
    "earlier part shows the same person. Share: exact and near, of the class."
)
_DESCRIPTIONS = {
    "exact": "the same pixels are in an earlier part",
    "near": "a near duplicate is in an earlier part",
    "person": "the person is in an earlier part",
}


def _pairs_across_parts(audit_data: AuditData) -> list[Picture]:
    """A figure of near duplicates across parts."""
    part = audit_data.dataset.part
    if audit_data.near is None:
        return []
    pairs = audit_data.near.pairs
    pair_M = np.flatnonzero(
        (part[pairs.first] != part[pairs.second]) & (part[pairs.first] >= 0) & (part[pairs.second] >= 0)
    )
    return _pairs_figure(audit_data, "across", "Near duplicates across parts", pair_M)


def _pairs_figure(audit_data: AuditData, name: str, title: str, pair_M: np.ndarray) -> list[Picture]:
    assert audit_data.near is not None
    pairs, dataset = audit_data.near.pairs, audit_data.dataset
    by_similarity_M = pair_M[np.argsort(pairs.similarity[pair_M], kind="stable")]
    shown_M = by_similarity_M[
        np.unique(
            np.linspace(0, max(len(by_similarity_M) - 1, 0), min(len(by_similarity_M), audit_data.pictures)).astype(int)
        )
    ]
    captions = [
        f"{audit_data.caption(pairs.first[p])} | {audit_data.caption(pairs.second[p])}\n"
        f"{pairs.similarity[p]:.3f}{' mirrored' if pairs.mirrored[p] else ''}"
        for p in shown_M
    ]
    path = figures.image_pairs(
        audit_data.figure(name),
        dataset.images[pairs.first[shown_M]],
        dataset.images[pairs.second[shown_M]],
        captions,
        title=title,
        facts=f"{len(shown_M)} of {len(pair_M):,} pairs, from the least alike to the most",
    )
    return [Picture(path, f"{title}, with their correlation once aligned.")]


def duplicates(audit_data: AuditData) -> Chapter:
    """Groups of equal and of nearly equal pictures, and groups whose images have different labels."""
    dataset, size = audit_data.dataset, len(audit_data.class_names)
    exact_N = leaks.links(dataset, None)["exact"]
    exact = duplicate_groups.count_duplicates(exact_N, dataset.labels, dataset.part, size)
    near = None
    if audit_data.near is not None:
        near = duplicate_groups.count_duplicates(audit_data.near.group_N, dataset.labels, dataset.part, size)
    groups_by_kind = {"exact": exact}
    if near is not None:
        groups_by_kind["exact and near"] = near
    largest = near or exact
    conflicts = conflict_rows(audit_data, largest.conflicts)
    findings = [Finding("duplicates", exact.surplus, f"{exact.surplus} pictures have the pixels of another one")]
    if near:
        surplus_near = near.surplus - exact.surplus
        findings.append(
            Finding("near_duplicates", surplus_near, f"{surplus_near} more are near duplicates of another one")
        )
    findings.append(Finding("conflicts", len(conflicts), f"{len(conflicts)} pictures have different labels"))
    surplus_of = {kind: groups.surplus_C.tolist() for kind, groups in groups_by_kind.items()}
    surplus_rows = by_class(audit_data.class_names, surplus_of)
    group_rows = [_group_row(kind, groups) for kind, groups in groups_by_kind.items()]
    numbers = {"groups": group_rows, "surplus": surplus_rows, "conflicts": conflicts}
    surplus_note = "The first image of each class in a group is not counted."
    tables = [
        table_of("duplicates", "Groups of the same picture", _GROUPS_NOTE, group_rows),
        table_of("surplus", "Surplus pictures by class", surplus_note, surplus_rows),
        table_of(
            "conflicts",
            "The same picture, different labels",
            f"At most {MAX_LISTED}; all in the JSON.",
            conflicts[:MAX_LISTED],
        ),
    ]
    pictures = _conflicts_figure(audit_data, largest.conflicts) + _pairs_within_a_part(audit_data)
    sentences = [f"{finding.text}." for finding in findings]
    return Chapter(Section("Duplicates", sentences, tables, pictures), findings, numbers)


def _group_row(kind: str, groups: DuplicateGroups) -> dict[str, Any]:
    row = {"kind": kind, "groups": groups.groups, "images": groups.images, "surplus": groups.surplus}
    row["conflicts"] = len(groups.conflicts)
    return row | {f"{first} to {second}": count for (first, second), count in groups.across.items()}


_GROUPS_NOTE = (
    "A group is two or more images of the same picture. surplus: number of images minus number of groups. conflicts: "
    "groups with several labels. train to test: images of test in a group with an image of training, and so on."
)


def conflict_rows(audit_data: AuditData, conflicts: tuple[np.ndarray, ...]) -> list[dict[str, str]]:
    """A row for each group with its images, labels and parts, and a row for each file to which the source gives several
    labels."""
    dataset = audit_data.dataset
    label_conflicts = [(name, why) for name, why in dataset.left_out if why.startswith("has different labels")]
    return [
        {
            "images": ", ".join(str(dataset.names[i]) for i in group),
            "labels": ", ".join(audit_data.class_names[dataset.labels[i]] for i in group),
            "parts": ", ".join(PARTS[dataset.part[i]] if dataset.part[i] >= 0 else "left out" for i in group),
        }
        for group in conflicts
    ] + [{"images": name, "labels": why.partition(": ")[2], "parts": "left out"} for name, why in label_conflicts]


def _conflicts_figure(audit_data: AuditData, conflicts: tuple[np.ndarray, ...]) -> list[Picture]:
    dataset, pairs = audit_data.dataset, []
    for group in conflicts[: audit_data.pictures]:
        other = next(i for i in group if dataset.labels[i] != dataset.labels[group[0]])
        pairs.append((int(group[0]), int(other)))
    if not pairs:
        return []
    left, right = np.array(pairs).T
    captions = [f"{audit_data.caption(a)} | {audit_data.caption(b)}" for a, b in pairs]
    facts = f"{len(pairs)} of {len(conflicts):,} groups"
    path = figures.image_pairs(
        audit_data.figure("conflicts"),
        dataset.images[left],
        dataset.images[right],
        captions,
        title="The same picture, different labels",
        facts=facts,
    )
    return [Picture(path, "The same picture with different labels.")]


def _pairs_within_a_part(audit_data: AuditData) -> list[Picture]:
    """A figure of near duplicates within a part."""
    if audit_data.near is None:
        return []
    part, pairs = audit_data.dataset.part, audit_data.near.pairs
    pair_M = np.flatnonzero(part[pairs.first] == part[pairs.second])
    sample_M = pair_M[np.isin(pairs.first[pair_M], audit_data.sample(pairs.first[pair_M], 4 * audit_data.pictures))]
    return _pairs_figure(audit_data, "within", "Near duplicates within a part", sample_M)
