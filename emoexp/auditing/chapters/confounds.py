"""Facts about the files that have nothing to do with the expression and still give the class away."""

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import confounds as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Picture, Section


def confounds(audit_data: AuditData) -> Chapter:
    """How well facts of the files, and mean brightness and contrast, predict the class."""
    dataset, title = audit_data.dataset, "Source confounds"
    found = checks.predictability(
        checks.features(dataset.images, audit_data.file_info),
        dataset.labels,
        len(audit_data.class_names),
        group_N=dataset.identity,
    )
    predictive = [row for row in found if row.verdict == checks.PREDICTS]
    sentences = [
        f"{row.feature} predicts the class: macro-F1 {row.macro_f1:.3f} where chance has {row.chance_macro_f1:.3f}; it "
        f"gives away {audit_data.class_names[row.gives_away]} most ({row.informedness[row.gives_away]:.2f} of 1)."
        for row in predictive
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
            "gives_away": audit_data.class_names[row.gives_away],
            "how_far": float(row.informedness[row.gives_away]),
        }
        for row in found
    ]
    finding = Finding(
        "confounds", len(predictive), f"{', '.join(row.feature for row in predictive) or 'nothing'} predicts the class"
    )
    table = table_of("confounds", title, _NOTE, rows)
    pictures = []
    if rows:
        path = figures.confound(
            audit_data.figure("confounds"), rows, title="How well each fact alone predicts", images=len(dataset.labels)
        )
        pictures.append(Picture(path, "Cross-validated macro-F1 of a small tree on each fact alone, beside chance."))
    return Chapter(Section(title, sentences, [table], pictures), [finding], {"confounds": rows})


_NOTE = (
    "Cross-validated over all parts, people kept together where they are known: a small decision tree that sees "
    "nothing else. Chance: the same with permuted labels, mean and 95th percentile. Gives away: the class told best, "
    "and how far: its recall less the false alarms, 1 for all of it."
)
