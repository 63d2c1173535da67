"""Source confounds: planted ones are found and named, harmless features raise no alarm."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from emoexp.auditing.checks import confounds
from emoexp.auditing.checks.confounds import ALL, DOES_NOT, PREDICTS, features, predictability
from emoexp.data.files import FileInfo

COUNTS = [700, 300, 100, 40]


@pytest.fixture
def few_permutations(monkeypatch):
    """For tests of something else than the verdict on chance."""
    monkeypatch.setattr(confounds, "_PERMUTATIONS", 4)


def labelled(seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS)), rng


def verdicts(rows):
    return {row.feature: row.verdict for row in rows}


def test_a_class_from_another_source_is_found_and_named():
    label_N, rng = labelled()
    colour_N = np.where((label_N == 2) | (rng.random(len(label_N)) < 0.03), "RGB", "L")
    width_N = np.where(colour_N == "RGB", 30.0, 250.0) + rng.integers(0, 20, len(label_N))
    rows = predictability({"mode": colour_N, "width": width_N, "noise": rng.random(len(label_N))}, label_N, 4)
    assert [row.feature for row in rows] == ["mode", "width", "noise", ALL]
    assert verdicts(rows) == {"mode": PREDICTS, "width": PREDICTS, "noise": DOES_NOT, ALL: PREDICTS}
    for row in (rows[0], rows[1], rows[3]):
        assert row.gives_away == 2 and row.rise > 0.8 and row.balanced_accuracy > row.chance_balanced_accuracy_95
    assert rows[0].informedness[2] == pytest.approx(1 - (colour_N[label_N != 2] == "RGB").mean())
    assert abs(rows[2].balanced_accuracy - 0.25) < 0.1 and rows[0].left_out == ()


def test_two_classes_of_one_source_are_both_seen(few_permutations):
    """A tree can say but one of them; the informedness of each tells that it is given away."""
    label_N, _ = labelled()
    row = predictability({"mode": np.where(label_N >= 2, "RGB", "L")}, label_N, 4)[0]
    other = (label_N < 2).sum()
    assert row.informedness[2] == pytest.approx(1 - 40 / (other + 40))
    assert row.informedness[3] == pytest.approx(1 - 100 / (other + 100))


@pytest.mark.parametrize("seed", range(2))
def test_features_of_chance_raise_no_alarm(seed):
    label_N, rng = labelled(seed)
    n = len(label_N)
    harmless = {"a": rng.random(n), "b": rng.integers(0, 3, n), "c": rng.choice(["x", "y"], n)}
    rows = predictability(harmless, label_N, 4)
    assert set(verdicts(rows).values()) == {DOES_NOT}
    assert all(abs(row.chance_balanced_accuracy - 0.25) < 0.03 for row in rows)
    assert all(row.chance_macro_f1 <= row.chance_macro_f1_95 for row in rows)


def test_a_weak_hint_is_no_verdict():
    """Better than chance, but by less than matters."""
    label_N, rng = labelled()
    row = predictability({"hint": label_N + rng.normal(0, 8, len(label_N))}, label_N, 4)[0]
    assert row.verdict == DOES_NOT


def test_numbers_are_those_of_sklearn_for_a_feature_that_is_the_label(few_permutations):
    label_N, rng = labelled()
    said_N = np.where(rng.random(len(label_N)) < 0.2, 0, label_N)
    row = predictability({"said": said_N}, label_N, 4)[0]
    assert row.macro_f1 == pytest.approx(f1_score(label_N, said_N, average="macro"))
    assert row.balanced_accuracy == pytest.approx(balanced_accuracy_score(label_N, said_N))


def test_the_same_data_give_the_same_rows(few_permutations):
    label_N, rng = labelled()
    label_N = label_N[:200]
    found = {"a": rng.random(200)}
    first, second = predictability(found, label_N, 4), predictability(found, label_N, 4)
    assert str(first) == str(second)


def test_renaming_classes_renames_what_is_given_away(few_permutations):
    label_N, rng = labelled()
    found = {"mode": np.where(label_N == 2, 1, 0) + rng.integers(0, 2, len(label_N))}
    new_of = np.array([3, 0, 1, 2])
    row, renamed = predictability(found, label_N, 4)[0], predictability(found, new_of[label_N], 4)[0]
    assert row.gives_away == 2 and renamed.gives_away == 1 and renamed.verdict == row.verdict
    assert renamed.informedness[new_of] == pytest.approx(row.informedness, abs=0.05)


def test_a_person_with_a_camera_gives_nothing_away_across_people():
    """Each person has one number and one label: known among images, unknown among people."""
    rng = np.random.default_rng(1)
    label_G, value_G = rng.integers(0, 3, 60), rng.permutation(60) / 60
    person_N = np.repeat(np.arange(60), 12)
    data = {"camera": value_G[person_N]}
    assert predictability(data, label_G[person_N], 3)[0].verdict == PREDICTS
    assert predictability(data, label_G[person_N], 3, group_N=person_N)[0].verdict == DOES_NOT
    alone = np.full(len(person_N), -1)
    assert str(predictability(data, label_G[person_N], 3, group_N=alone)) == str(
        predictability(data, label_G[person_N], 3)
    )


def test_groups_stay_in_one_fold_and_move_as_a_whole():
    rng = np.random.default_rng(0)
    group_N = rng.permutation(np.repeat(np.arange(50), 8))
    label_N = rng.integers(0, 3, 50)[group_N]
    folds = [*confounds._folds(label_N, group_N, 5)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(400))
    assert sum(len(np.unique(group_N[fold])) for fold in folds) == 50
    permuted_N = confounds._permuted(label_N, group_N, 1)
    assert np.bincount(permuted_N).tolist() == np.bincount(label_N).tolist() and (permuted_N != label_N).any()
    assert all(len(np.unique(permuted_N[group_N == group])) == 1 for group in range(50))


def test_small_classes_lower_the_folds_or_are_left_out(few_permutations):
    label_N = np.repeat([0, 1, 2, 4, 5], [60, 60, 3, 2, 1])
    value_N = np.where(label_N == 1, 5.0, 1.0)
    row = predictability({"size": value_N}, label_N, 6)[0]
    assert row.left_out == (3, 4, 5) and np.isnan(row.informedness).tolist() == [False] * 3 + [True] * 3
    assert len([*confounds._folds(label_N[:123], np.arange(123), 5)]) == 3
    assert row.verdict == PREDICTS and row.gives_away == 1
    one_person = predictability({"size": value_N}, label_N, 6, group_N=np.where(label_N == 1, 7, -1))
    assert one_person[0].left_out == (1, 3, 4, 5)


def test_nothing_to_judge_is_no_row():
    assert predictability({}, np.array([0, 1] * 10), 2) == []
    assert predictability({"a": np.arange(20.0)}, np.zeros(20, np.int64), 2) == []
    assert predictability({"a": np.array([])}, np.zeros(0, np.int64), 2) == []


def test_unknown_values_are_values(few_permutations):
    label_N, rng = labelled()
    quality_N = np.where(label_N == 1, np.nan, rng.random(len(label_N)))
    row = predictability({"quality": quality_N, "rest": np.where(label_N == 1, np.inf, 1.0)}, label_N, 4)[0]
    assert row.gives_away == 1 and row.verdict == PREDICTS


@pytest.mark.parametrize(
    ("feature", "label", "folds", "message"),
    [
        ({"a": np.zeros(3)}, [0, 1], 5, "'a' needs one value per image"),
        ({"a": np.zeros(2)}, [0, 2], 5, "from 0 to 1"),
        ({"a": np.zeros(2)}, [0, 1], 1, "at least 2 folds"),
    ],
)
def test_nonsense_is_refused(feature, label, folds, message):
    with pytest.raises(ValueError, match=message):
        predictability(feature, np.array(label), 2, folds=folds)


def made_up_facts(**changed) -> FileInfo:
    values = {
        "mode": np.array(["L", "RGB", "RGB", ""]),
        "format": np.array(["JPEG", "JPEG", "PNG", ""]),
        "width": np.array([10, 20, 20, 0]),
        "height": np.array([10, 10, 40, 0]),
        "bytes": np.array([100, 100, 400, 3]),
        "quality": np.array([90.0, 75, np.nan, np.nan]),
    }
    return FileInfo(**(values | changed))


def test_features_of_pixels_and_files():
    image_NCHW = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    image_NCHW[1] = image_NCHW[1, :1]
    found = features(image_NCHW, made_up_facts())
    grey_NP = image_NCHW.mean(axis=1).reshape(4, -1)
    assert found["brightness"] == pytest.approx(grey_NP.mean(axis=1), rel=1e-5)
    assert found["contrast"] == pytest.approx(grey_NP.std(axis=1), rel=1e-5)
    assert found["grey"].tolist() == [0, 1, 0, 0]
    assert np.array_equal(found["aspect"], [1, 2, 0.5, np.nan], equal_nan=True)
    assert np.array_equal(found["bits per pixel"], [8, 4, 4, np.nan], equal_nan=True)
    assert [*found] == [
        "brightness", "contrast", "grey", "colour mode", "format", "width", "height", "aspect", "file bytes",
        "bits per pixel", "jpeg quality",
    ]  # fmt: skip


def test_what_is_constant_is_left_out(monkeypatch):
    monkeypatch.setattr(confounds, "_BLOCK_BYTES", 200)
    image_NCHW = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    four = np.full(4, 48)
    same = {"mode": np.array(["L"] * 4), "format": np.array(["PNG"] * 4), "width": four, "height": four}
    found = features(image_NCHW, made_up_facts(**same, quality=np.full(4, np.nan)))
    assert [*found] == ["brightness", "contrast", "file bytes"]
    assert found["brightness"] == pytest.approx(image_NCHW.reshape(4, -1).mean(axis=1))
    assert [*features(np.zeros((4, 3, 8, 8), np.uint8), None)] == []
