"""Where the pictures come from: people, sources, and the original that a copy is compared with."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.checks import people as checking
from emoexp.auditing.checks import sources as confounding
from emoexp.auditing.subject import Chapter, Finding, Subject, table_of
from emoexp.data.readers import facial_expressions, fer2013
from emoexp.pages.page import Picture, Section

ORIGINAL = {  # images of each class in the whole set, in the order of its classes
    "fer2013": fer2013.COUNTS.sum(0),
    "facial_expressions": facial_expressions.COUNTS,
}


def copy(subject: Subject) -> Chapter:
    """How this copy differs from the original, where the set is known."""
    data, title = subject.data, "This copy and the original"
    altered = [note for note in data.notes if note.startswith("ALTERED")]
    whole_C = ORIGINAL.get(data.name)
    if whole_C is None:
        return Chapter(Section(title, [f"data={data.name} is no set whose original is known here."]))
    here_C = np.bincount(data.labels, minlength=len(subject.names))
    rows = [
        {"class": name, "here": int(here), "original": int(there), "missing": int(there - here)}
        for name, here, there in zip(subject.names, here_C, whole_C, strict=True)
    ]
    more_C = here_C > whole_C
    told = altered or ["Nothing tells it apart from the original, as far as it goes."]
    if here_C.sum() < whole_C.sum():
        told = [
            *told,
            f"{int((whole_C - here_C).sum()):,} of the original's {int(whole_C.sum()):,} images are not here.",
        ]
    table = table_of("original", title, "Images of all parts; of the original as published.", rows)
    finding = Finding("altered", len(altered) or int(more_C.any()), " ".join(altered) or told[0])
    return Chapter(Section(title, told, [table]), [finding], {"original": rows})


def people(subject: Subject) -> Chapter:
    """Who is in several parts, how far the person tells the label, and whether files are frames of videos."""
    data = subject.data
    frames = checking.frames(data.names.tolist(), data.part, data.images)
    crossing = frames.crossing if frames.verdict == checking.FRAMES else 0
    told = [_frames_text(frames)]
    findings = [Finding("frames", crossing, f"{crossing} pairs of neighbouring frames stand in different parts")]
    numbers: dict[str, Any] = {"frames": vars(frames)}
    if data.identity is None or not (data.identity >= 0).any():
        pattern = checking.suggested_pattern(data.names.tolist()) if subject.facts is not None else None
        told.insert(0, "Nothing says who is in a picture, so that nobody can be kept in one part." + _hint(pattern))
        return Chapter(Section("People", told), findings, numbers | {"suggested_pattern": pattern})
    across = checking.across_parts(data.identity, data.part, data.labels, len(subject.names))
    tells = checking.predicts_label(data.identity, data.labels)
    rows = [
        {"class": name, "test images": int(n), "of known people": int(shared), "share": float(share)}
        for name, n, shared, share in zip(
            *(subject.names, across.test.images_by_class, across.test.shared_by_class, across.test.share_by_class),
            strict=True,
        )
    ]
    table = table_of("people", "Test images of people from earlier parts", "split=identity keeps people apart.", rows)
    one = Finding("one_label", tells.single_label, f"{tells.single_label} people have one label on several pictures")
    numbers |= {
        "people": {"known": across.people, "in_several_parts": across.in_several, "test_share": across.test.share}
    }
    numbers |= {"people_tell": vars(tells), "people_per_class": rows}
    return Chapter(Section("People", [*_people_text(across, tells), *told], [table]), [*findings, one], numbers)


def _people_text(across: checking.Across, tells: checking.Told) -> list[str]:
    return [
        f"{across.people:,} people, {across.in_several:,} of them in several parts. Somebody known from an earlier "
        f"part is in {100 * across.test.share:.1f} % of the test images, and in {100 * across.val.share:.1f} % of val.",
        f"{tells.single_label:,} of the {tells.several:,} people with several pictures have one label on all of them. "
        f"Guessing a label from the same person's other pictures is right in {100 * tells.accuracy:.1f} % of the cases "
        f"(macro-F1 {tells.macro_f1:.3f}), always saying the largest class in {100 * tells.majority_accuracy:.1f} % "
        f"({tells.majority_macro_f1:.3f}).",
    ]


def _hint(pattern: str | None) -> str:
    if pattern is None:
        return ""
    return f" File names look as if they did: try data.identity='{pattern}' with data=folder."


def _frames_text(found: checking.Frames) -> str:
    if found.verdict == checking.NO_NUMBERS:
        return "File names do not count on: no frames of videos."
    told = (
        f"{found.neighbours:,} pairs of files are numbered one after the other: their median correlation is "
        f"{found.near:.2f}, that of pairs further apart {found.apart:.2f}: "
    )
    if found.verdict == checking.FRAMES:
        return told + f"frames of videos, {found.crossing:,} pairs of them across parts."
    return told + "merely numbered, no frames."


def sources(subject: Subject) -> Chapter:
    """How well facts of the files, and mean brightness and contrast, predict the class."""
    data, title = subject.data, "Source confounds"
    found = confounding.predictability(
        confounding.features(data.images, subject.facts), data.labels, len(subject.names), group_N=data.identity
    )
    guilty = [row for row in found if row.verdict == confounding.PREDICTS]
    told = [
        f"{row.feature} predicts the class: macro-F1 {row.macro_f1:.3f} where chance has {row.chance_macro_f1:.3f}; it "
        f"gives away {subject.names[row.gives_away]} most ({row.informedness[row.gives_away]:.2f} of 1)."
        for row in guilty
    ] or ["Nothing that was looked at predicts the class clearly better than chance."]
    rows = [
        {
            "feature": row.feature,
            "macro_f1": row.macro_f1,
            "chance": row.chance_macro_f1,
            "chance_high": row.chance_macro_f1_95,
            "balanced_accuracy": row.balanced_accuracy,
            "chance_balanced_accuracy": row.chance_balanced_accuracy,
            "verdict": row.verdict,
            "gives_away": subject.names[row.gives_away],
            "how_far": float(row.informedness[row.gives_away]),
        }
        for row in found
    ]
    finding = Finding(
        "confounds", len(guilty), f"{', '.join(row.feature for row in guilty) or 'nothing'} predicts the class"
    )
    table = table_of("confounds", title, _NOTE, rows)
    pictures = []
    if rows:
        path = figures.confound(
            subject.figure("confounds"), rows, title="How well each fact alone predicts", images=len(data.labels)
        )
        pictures.append(Picture(path, "Cross-validated macro-F1 of a small tree on each fact alone, beside chance."))
    return Chapter(Section(title, told, [table], pictures), [finding], {"confounds": rows})


_NOTE = (
    "Cross-validated over all parts, people kept together where they are known: a small decision tree that sees "
    "nothing else. Chance: the same with permuted labels, mean and 95th percentile. Gives away: the class told best, "
    "and how far: its recall less the false alarms, 1 for all of it."
)
