"""Who is in the pictures, in which parts, and whether files are frames of videos."""

from typing import Any

from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import people as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Section


def people(audit_data: AuditData) -> Chapter:
    """Who is in several parts, how well the person predicts the label, and whether files are frames of videos."""
    dataset = audit_data.dataset
    frames = checks.video_frames(dataset.names.tolist(), dataset.part, dataset.images)
    crossing = frames.crossing if frames.verdict == checks.FRAMES else 0
    sentences = [_frames_text(frames)]
    findings = [Finding("frames", crossing, f"{crossing} pairs of neighbouring frames stand in different parts")]
    numbers: dict[str, Any] = {"frames": vars(frames)}
    if dataset.identity is None or not (dataset.identity >= 0).any():
        pattern = checks.suggested_pattern(dataset.names.tolist()) if audit_data.file_info is not None else None
        unknown = "Nothing says who is in a picture, so that nobody can be kept in one part."
        sentences.insert(0, unknown + _pattern_hint(pattern))
        return Chapter(Section("People", sentences), findings, numbers | {"suggested_pattern": pattern})
    across = checks.across_parts(dataset.identity, dataset.part, dataset.labels, len(audit_data.class_names))
    by_person = checks.label_by_person(dataset.identity, dataset.labels)
    rows = [
        {"class": name, "test images": int(n), "of known people": int(shared), "share": float(share)}
        for name, n, shared, share in zip(
            audit_data.class_names,
            across.test.images_by_class,
            across.test.shared_by_class,
            across.test.share_by_class,
            strict=True,
        )
    ]
    table = table_of("people", "Test images of people from earlier parts", "split=identity keeps people apart.", rows)
    single = by_person.single_label
    one = Finding("one_label", single, f"{single} people have one label on several pictures")
    numbers |= {
        "people": {"known": across.people, "in_several_parts": across.in_several, "test_share": across.test.share}
    }
    numbers |= {"people_tell": vars(by_person), "people_per_class": rows}
    return Chapter(
        Section("People", [*_people_text(across, by_person), *sentences], [table]), [*findings, one], numbers
    )


def _people_text(across: checks.PeopleAcrossParts, by_person: checks.LabelByPerson) -> list[str]:
    return [
        f"{across.people:,} people, {across.in_several:,} of them in several parts. Somebody known from an earlier "
        f"part is in {100 * across.test.share:.1f} % of the test images, and in {100 * across.val.share:.1f} % of val.",
        f"{by_person.single_label:,} of the {by_person.several:,} people with several pictures have one label on all "
        "of them. Guessing a label from the same person's other pictures is right in "
        f"{100 * by_person.accuracy:.1f} % of the cases (macro-F1 {by_person.macro_f1:.3f}), always saying the largest "
        f"class in {100 * by_person.majority_accuracy:.1f} % ({by_person.majority_macro_f1:.3f}).",
    ]


def _pattern_hint(pattern: str | None) -> str:
    if pattern is None:
        return ""
    return f" File names look as if they did: try data.identity='{pattern}' with data=folder."


def _frames_text(found: checks.VideoFrames) -> str:
    if found.verdict == checks.NO_NUMBERS:
        return "File names do not count on: no frames of videos."
    sentence = (
        f"{found.neighbours:,} pairs of files are numbered one after the other: their median correlation is "
        f"{found.near:.2f}, that of pairs further apart {found.apart:.2f}: "
    )
    if found.verdict == checks.FRAMES:
        return sentence + f"frames of videos, {found.crossing:,} pairs of them across parts."
    return sentence + "merely numbered, no frames."
