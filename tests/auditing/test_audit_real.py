"""The audit of the two real sets, against what is known of them. Skipped where they are not at hand."""

from pathlib import Path

import numpy as np
import pytest
from composing import composed

from emoexp.auditing import audit
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.chapters.confounds import confounds
from emoexp.auditing.chapters.duplicates import duplicates, leaks_between_parts
from emoexp.auditing.chapters.image_quality import image_quality
from emoexp.auditing.chapters.original import comparison_with_original
from emoexp.auditing.chapters.people import people
from emoexp.auditing.checks import duplicate_groups
from emoexp.auditing.findings import Chapter
from emoexp.config import checks
from emoexp.data import leaks
from emoexp.data.readers import fer2013

pytestmark = pytest.mark.slow
REAL = Path(__file__).parents[3] / "shared" / "data"


def audit_data(data: str, base: Path, *more: str) -> AuditData:
    root = REAL / f"{data}.zip"
    if not root.exists():
        pytest.skip(f"{root.name} is not here")
    words = [f"data={data}", f"data.root={root}", f"cache={base}", "tracking=none", "audit.near=false", *more]
    plain = checks.plain(composed(*words, name="audit"))
    return audit.load_audit_data(plain, audit.load(plain), base)


@pytest.fixture(scope="module")
def faces2013(tmp_path_factory) -> AuditData:
    return audit_data("fer2013", tmp_path_factory.mktemp("fer2013"))


@pytest.fixture(scope="module")
def public_people(tmp_path_factory) -> AuditData:
    return audit_data("facial_expressions", tmp_path_factory.mktemp("expressions"), "split=stratified")


def count(chapter: Chapter, kind: str) -> int:
    return next(one.count for one in chapter.findings if one.kind == kind)


def test_fer2013_holds_the_duplicates_that_were_counted_elsewhere(faces2013):
    data = faces2013.dataset
    usage = np.array([name.rpartition("/")[2].partition("_")[0] for name in data.names])
    surplus = {
        part: duplicate_groups.count_duplicates(
            np.unique(data.digest[usage == part], return_inverse=True)[1],
            data.labels[usage == part],
            data.part[usage == part],
            7,
        ).surplus
        for part in ("Training", "PublicTest")
    }
    assert surplus == {"Training": 1236, "PublicTest": 26}
    shown = np.isin(data.digest[usage == "PublicTest"], data.digest[usage == "Training"])
    assert shown.sum() == 280 and count(leaks_between_parts(faces2013), "leaks") == 280
    by_class = np.bincount(data.labels[usage == "PublicTest"][shown], minlength=7)
    share = by_class / fer2013.COUNTS[1]
    assert np.argsort(-share)[:2].tolist() == [5, 1] and (share[[5, 1]] > 0.25).all()  # surprise and disgust


def test_fer2013s_blank_pictures_and_counts(faces2013):
    found = image_quality(faces2013)
    assert count(found, "blank") == 13 and count(found, "unreadable") == count(found, "sizes") == 0
    rows = found.numbers["standouts"]
    training = [row for row in rows if row["image"].startswith("train") and "blank" in row["what"]]
    assert len(training) == 15  # a deviation below 15
    labels = [row["label and part"].partition(" ")[0] for row in training if row["what"] == "blank"]
    assert sorted(labels) == ["angry"] * 7 + ["happy"] + ["neutral"] * 2 + ["sad", "surprise"]
    copy = comparison_with_original(faces2013)
    assert count(copy, "altered") == 0
    assert [row["missing"] for row in copy.numbers["original"]] == fer2013.COUNTS[2].tolist()


def test_a_random_split_of_facial_expressions_shares_its_people(public_people):
    chapter = people(public_people)
    share = chapter.numbers["people"]["test_share"]
    assert 0.6 < share < 0.75 and count(chapter, "one_label") == 600
    assert chapter.numbers["frames"]["verdict"] == "numbered"
    found = leaks.count(public_people.dataset, None)["test"]
    assert found["person"] / found["n"] == pytest.approx(share) and found["exact"] == 0


def test_the_source_confound_and_the_conflicting_label_are_found(public_people):
    found = confounds(public_people)
    rows = {row["feature"]: row for row in found.numbers["confounds"]}
    assert rows["colour mode"]["verdict"] == "predicts" and rows["colour mode"]["gives_away"] == "disgust"
    assert rows["brightness"]["verdict"] == "does not"
    conflicts = duplicates(public_people).numbers["conflicts"]
    assert [(Path(row["images"]).name, row["labels"]) for row in conflicts] == [("Avinash_30.jpg", "surprise, sadness")]


def test_an_altered_copy_is_told_from_the_original(tmp_path):
    import zipfile

    root = REAL / "fer2013.zip"
    if not root.exists():
        pytest.skip("fer2013.zip is not here")
    with zipfile.ZipFile(root) as whole, zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
        for name in whole.namelist()[::30]:
            some.writestr(name, whole.read(name))
    plain = checks.plain(composed("data=fer2013", f"data.root={tmp_path}/some.zip", f"cache={tmp_path}", name="audit"))
    data = audit.load(plain)
    found = comparison_with_original(AuditData(data, None, None, tmp_path, 8))
    assert count(found, "altered") == 1 and "instead of" in found.findings[0].text
