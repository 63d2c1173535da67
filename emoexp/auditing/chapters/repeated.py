"""Pictures that stand in a data set several times: across parts, and with different labels."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.checks import repeats
from emoexp.auditing.checks.repeats import Repeats
from emoexp.auditing.subject import Chapter, Finding, Subject, by_class, spread, table_of
from emoexp.data import leaks
from emoexp.data.dataset import PARTS
from emoexp.pages.page import Picture, Section

SHOWN = 30  # conflicts that the page lists


def leaking(subject: Subject) -> Chapter:
    """What val and test hold that an earlier part has shown: the same pictures, nearly the same, the same people."""
    data, names = subject.data, list(subject.names)
    found = leaks.count(data, subject.twins.group_N if subject.twins else None)
    tables, told = [], []
    for part, row in found.items():
        columns = {"images": data.counts(part).tolist(), **row["per_class"]}
        rows = by_class(names, columns)
        for line in rows:
            line["share"] = sum(line.get(kind, 0) for kind in ("exact", "near")) / max(line["images"], 1)
        tables.append(table_of(f"leaks_{part}", f"Leaks into {part}", _LEAKS_NOTE, rows))
        told.append(f"{part}: {leaks.sentence(row) or 'nothing leaks into it'} (n {row['n']:,}).")
    if subject.twins is None:
        told.append("Near duplicates were not searched (audit.near=false).")
    kinds = {"leaks": "exact", "near_leaks": "near", "people": "person"}
    findings = [
        Finding(name, total, f"{total} images of val and test: {text}")
        for name, kind in kinds.items()
        for text, total in [(_TEXTS[kind], sum(row.get(kind, 0) for row in found.values()))]
        if any(kind in row for row in found.values())
    ]
    pictures = _across(subject)
    return Chapter(Section("Leaks between parts", told, tables, pictures), findings, {"leaks": found})


_LEAKS_NOTE = (
    "Images of this part that an earlier part shows. exact: the same pixels; near: shifted, mirrored, re-encoded or "
    "brightened, besides the exact ones; person: somebody who stands there too. Share: exact and near, of the class."
)
_TEXTS = {
    "exact": "the same pixels stand in an earlier part",
    "near": "nearly the same picture stands in an earlier part",
    "person": "the person stands in an earlier part",
}


def _across(subject: Subject) -> list[Picture]:
    """Pictures of pairs across parts."""
    part = subject.data.part
    if subject.twins is None:
        return []
    pairs = subject.twins.pairs
    apart = np.flatnonzero(
        (part[pairs.first] != part[pairs.second]) & (part[pairs.first] >= 0) & (part[pairs.second] >= 0)
    )
    return _pairs_picture(subject, "across", "Near duplicates across parts", apart)


def _pairs_picture(subject: Subject, name: str, title: str, chosen_M: np.ndarray) -> list[Picture]:
    assert subject.twins is not None
    pairs, data = subject.twins.pairs, subject.data
    least = chosen_M[np.argsort(pairs.similarity[chosen_M], kind="stable")]
    shown = least[np.unique(np.linspace(0, max(len(least) - 1, 0), min(len(least), subject.pictures)).astype(int))]
    captions = [
        f"{subject.caption(pairs.first[p])} | {subject.caption(pairs.second[p])}\n"
        f"{pairs.similarity[p]:.3f}{' mirrored' if pairs.mirrored[p] else ''}"
        for p in shown
    ]
    path = figures.pairs(
        subject.figure(name),
        data.images[pairs.first[shown]],
        data.images[pairs.second[shown]],
        captions,
        title=title,
        facts=f"{len(shown)} of {len(chosen_M):,} pairs, from the least alike to the most",
    )
    return [Picture(path, f"{title}, with their correlation once aligned.")]


def duplicates(subject: Subject) -> Chapter:
    """Groups of equal and of nearly equal pictures, and those whose labels contradict each other."""
    data, size = subject.data, len(subject.names)
    exact = repeats.describe(leaks.links(data, None)["exact"], data.labels, data.part, size)
    near = repeats.describe(subject.twins.group_N, data.labels, data.part, size) if subject.twins else None
    found = {"exact": exact} | ({"exact and near": near} if near else {})
    whole = near or exact
    clashing = conflict_rows(subject, whole.conflicts)
    findings = [Finding("duplicates", exact.surplus, f"{exact.surplus} pictures have the pixels of another one")]
    if near:
        spare = near.surplus - exact.surplus
        findings.append(Finding("near_duplicates", spare, f"{spare} more are nearly another one"))
    findings.append(Finding("conflicts", len(clashing), f"{len(clashing)} pictures carry different labels"))
    surplus = by_class(subject.names, {kind: one.surplus_C.tolist() for kind, one in found.items()})
    groups = [_group_row(kind, one) for kind, one in found.items()]
    numbers = {"groups": groups, "surplus": surplus, "conflicts": clashing}
    of_each = "Of each group the first of each class stays."
    tables = [
        table_of("duplicates", "Groups of the same picture", _GROUPS_NOTE, groups),
        table_of("surplus", "Surplus pictures by class", of_each, surplus),
        table_of(
            "conflicts", "The same picture, different labels", f"At most {SHOWN}; all in the JSON.", clashing[:SHOWN]
        ),
    ]
    pictures = _conflict_picture(subject, whole.conflicts) + _within(subject)
    return Chapter(Section("Duplicates", [f"{one.text}." for one in findings], tables, pictures), findings, numbers)


def _group_row(kind: str, found: Repeats) -> dict[str, Any]:
    row = {"kind": kind, "groups": found.groups, "images": found.images, "surplus": found.surplus}
    row["conflicts"] = len(found.conflicts)
    return row | {f"{first} to {second}": count for (first, second), count in found.across.items()}


_GROUPS_NOTE = (
    "A group is two or more images that are one picture. Surplus: images less groups. Conflicts: groups with several "
    "labels. Train to test: images of test with a relative in training, and so on."
)


def conflict_rows(subject: Subject, conflicts: tuple[np.ndarray, ...]) -> list[dict[str, str]]:
    """For each group its images, labels and parts; and files that the source lists with several labels."""
    data = subject.data
    listed = [(name, why) for name, why in data.left_out if why.startswith("has different labels")]
    return [
        {
            "images": ", ".join(str(data.names[i]) for i in group),
            "labels": ", ".join(subject.names[data.labels[i]] for i in group),
            "parts": ", ".join(PARTS[data.part[i]] if data.part[i] >= 0 else "left out" for i in group),
        }
        for group in conflicts
    ] + [{"images": name, "labels": why.partition(": ")[2], "parts": "left out"} for name, why in listed]


def _conflict_picture(subject: Subject, conflicts: tuple[np.ndarray, ...]) -> list[Picture]:
    data, chosen = subject.data, []
    for group in conflicts[: subject.pictures]:
        other = next(i for i in group if data.labels[i] != data.labels[group[0]])
        chosen.append((int(group[0]), int(other)))
    if not chosen:
        return []
    left, right = np.array(chosen).T
    captions = [f"{subject.caption(a)} | {subject.caption(b)}" for a, b in chosen]
    facts = f"{len(chosen)} of {len(conflicts):,} groups"
    path = figures.pairs(
        subject.figure("conflicts"), data.images[left], data.images[right], captions,
        title="One picture, different labels", facts=facts,
    )  # fmt: skip
    return [Picture(path, "The same picture with different labels.")]


def _within(subject: Subject) -> list[Picture]:
    """Pictures of near duplicates within a part."""
    if subject.twins is None:
        return []
    part, pairs = subject.data.part, subject.twins.pairs
    order = np.argsort(subject.data.digest, kind="stable").argsort()
    alike = np.flatnonzero(part[pairs.first] == part[pairs.second])
    some = alike[np.isin(pairs.first[alike], spread(pairs.first[alike], order, 4 * subject.pictures))]
    return _pairs_picture(subject, "within", "Near duplicates within a part", some)
