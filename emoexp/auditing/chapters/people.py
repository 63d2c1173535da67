"""Chapter on people: the parts in which they are, the labels of each person, and whether files are frames of videos."""

from typing import Any

from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import people as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Section


def people(audit_data: AuditData) -> Chapter:
    """People in several parts, how well the person predicts the label, and whether files are frames of videos."""
    dataset = audit_data.dataset
    frames = checks.video_frames(dataset.names.tolist(), dataset.part, dataset.images)
    crossing = frames.crossing if frames.verdict == checks.FRAMES else 0
    sentences = [_frames_text(frames)]
    findings = [Finding("frames", crossing, f"{crossing} pairs of neighbouring frames are in different parts")]
    numbers: dict[str, Any] = {"frames": vars(frames)}
    if dataset.identity is None or not (dataset.identity >= 0).any():
        pattern = checks.suggested_pattern(dataset.names.tolist()) if audit_data.file_info is not None else None
        unknown = "The person in a picture is not known, so that a person cannot be kept in one part."
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
    table = table_of(
        "people", "Test images of people from earlier parts", "split=identity keeps each person in one part.", rows
    )
    single = by_person.single_label
    one_label = Finding("one_label", single, f"{single} people have one label on several pictures")
    numbers |= {
        "people": {"known": across.people, "in_several_parts": across.in_several, "test_share": across.test.share}
    }
    numbers |= {"people_tell": vars(by_person), "people_per_class": rows}
    return Chapter(
        Section("People", [*_people_text(across, by_person), *sentences], [table]), [*findings, one_label], numbers
    )


def _people_text(across: checks.PeopleAcrossParts, by_person: checks.LabelByPerson) -> list[str]:
    return [
        f"{across.people:,} people, {across.in_several:,} of them in several parts. {100 * across.test.share:.1f} % of "
        f"the test images and {100 * across.val.share:.1f} % of val show a person who is in an earlier part.",
        f"{by_person.single_label:,} of the {by_person.several:,} people with several pictures have the same label on "
        "all of them. A guess from the labels of the same person's other pictures is right for "
        f"{100 * by_person.accuracy:.1f} % of the images (macro-F1 {by_person.macro_f1:.3f}), always predicting the "
        f"largest class for {100 * by_person.majority_accuracy:.1f} % ({by_person.majority_macro_f1:.3f}).",
    ]


def _pattern_hint(pattern: str | None) -> str:
    if pattern is None:
        return ""
    return f" But file names seem to contain it: try data.identity='{pattern}' with data=folder."


def _frames_text(frames: checks.VideoFrames) -> str:
    if frames.verdict == checks.NO_NUMBERS:
        return "File names have no consecutive numbers: no frames of videos."
    sentence = (
        f"{frames.neighbours:,} pairs of files have consecutive numbers. Their median correlation is "
        f"{frames.near:.2f}, that of pairs further apart {frames.apart:.2f}: "
    )
    if frames.verdict == checks.FRAMES:
        return sentence + f"they are frames of videos, and {frames.crossing:,} pairs are in different parts."
    return sentence + "they are not frames of videos."
