"""Long tails: the published counts, only in training, the same images every time; and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
from composing import TINY, checked, composed, planned
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from test_splits import made, parts_of, shuffled

from emoexp.auditing import audit
from emoexp.config import build_data, checks, naming
from emoexp.data import long_tail
from emoexp.data.dataset import Dataset
from emoexp.inference import evaluate
from emoexp.inference.trained import load
from emoexp.training import run

pytestmark = pytest.mark.usefixtures("blank_figures")

SIZES = (40, 30, 20)


def training_set(sizes: tuple[int, ...] = SIZES) -> Dataset:
    """Training images of these numbers, and five of each class in val and test."""
    labels = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.tile(np.arange(len(sizes)), 10)])
    part = np.repeat([0, 1, 2], [sum(sizes), 5 * len(sizes), 5 * len(sizes)])
    return parts_of(made(labels, part=part))


def cut(data: Dataset, profile: str = "exponential", factor: float = 10.0, seed: int = 0) -> Dataset:
    return long_tail.cut(data, profile=profile, factor=factor, seed=seed)


# Cui et al. (CVPR 2019) and Cao et al. (NeurIPS 2019), as their code and everybody's tables have them
@pytest.mark.parametrize(
    ("images", "classes", "factor", "total"),
    [
        (5000, 10, 10, 20_431),
        (5000, 10, 50, 13_996),
        (5000, 10, 100, 12_406),
        (5000, 10, 200, 11_203),
        (500, 100, 10, 19_573),
        (500, 100, 50, 12_608),
        (500, 100, 100, 10_847),
        (500, 100, 200, 9_502),
    ],
)
def test_totals_are_the_published_ones(images, classes, factor, total):
    assert long_tail.counts(np.full(classes, images), "exponential", factor).sum() == total


def test_counts_of_cifar_10_lt():
    counts = long_tail.counts(np.full(10, 5000), "exponential", 100.0)
    assert counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50] and counts.dtype == np.int64
    groups = long_tail.counts(np.full(100, 500), "exponential", 100.0)
    assert [(groups > 100).sum(), ((groups >= 20) & (groups <= 100)).sum(), (groups < 20).sum()] == [35, 35, 30]


@pytest.mark.parametrize(
    ("sizes", "factor", "expected"),
    [
        ([5000] * 10, 100.0, [5000] * 5 + [50] * 5),
        ([500] * 4, 10.0, [500, 500, 50, 50]),
        ([70] * 5, 10.0, [70, 70, 7, 7, 7]),
        ([9] * 3, 2.0, [9, 4, 4]),
    ],
)
def test_steps(sizes, factor, expected):
    assert long_tail.counts(np.array(sizes), "step", factor).tolist() == expected


def exact(most: int, factor: int, rank: int, last: int) -> int:
    """The largest whole number that is at most `most` * factor^(-rank/last), in whole numbers alone."""
    return max(k for k in range(most + 1) if k**last * factor**rank <= most**last)


@given(st.integers(1, 400), st.integers(2, 8), st.integers(1, 300))
def test_exponential_counts_are_rounded_down_exactly(most, classes, factor):
    counts = long_tail.counts(np.full(classes, most), "exponential", float(factor))
    assert counts.tolist() == [exact(most, factor, rank, classes - 1) for rank in range(classes)]


def test_a_whole_number_that_floats_miss_is_met():
    assert math.floor(5000 * 32.0 ** (-2 / 5)) == 1249
    assert long_tail.counts(np.full(6, 5000), "exponential", 32.0)[2] == 1250


COUNTS = st.lists(st.integers(1, 500), min_size=2, max_size=12).map(np.array)
PROFILE = st.sampled_from(["exponential", "step"])


@given(COUNTS, PROFILE, st.floats(1, 500), st.randoms(use_true_random=False))
def test_permuting_classes_permutes_counts(counts, profile, factor, random):
    assume(len(set(counts.tolist())) == len(counts))  # equal ones are ranked in class order
    order = np.array(random.sample(range(len(counts)), len(counts)))
    assert np.array_equal(
        long_tail.counts(counts[order], profile, factor), long_tail.counts(counts, profile, factor)[order]
    )


@given(COUNTS, PROFILE, st.floats(1, 500))
def test_counts_stay_within_what_there_is_and_in_its_order(counts, profile, factor):
    kept = long_tail.counts(counts, profile, factor)
    assert (kept <= counts).all() and kept.max() == counts.max()
    order = np.argsort(-counts, kind="stable")
    assert (np.diff(kept[order]) <= 0).all()
    assert np.array_equal(long_tail.counts(counts, profile, 1.0), counts)
    assert np.array_equal(long_tail.counts(counts, "none", factor), counts)


@given(COUNTS, PROFILE, st.floats(1, 200), st.floats(1, 200))
def test_a_larger_factor_never_keeps_more(counts, profile, one, other):
    low, high = sorted((one, other))
    assert (long_tail.counts(counts, profile, high) <= long_tail.counts(counts, profile, low)).all()


def test_uneven_sets_become_more_so_and_keep_what_they_lack():
    assert long_tail.counts(np.array([30, 1000, 400]), "exponential", 100.0).tolist() == [10, 1000, 100]
    assert long_tail.counts(np.array([5, 1000, 400]), "exponential", 100.0).tolist() == [5, 1000, 100]


def test_only_training_is_cut_and_says_so():
    data = training_set()
    tailed = cut(data)
    assert tailed.counts("train").tolist() == [40, 12, 4]
    for part in ("val", "test"):
        assert np.array_equal(tailed.where(part), data.where(part))
    assert set(np.flatnonzero(tailed.part == -1)) == set(data.where("train")) - set(tailed.where("train"))
    assert "exponential, factor 10: training keeps 56 of 90 images, class by class 40, 12, 4" in tailed.notes[-1]
    assert tailed.fingerprint["counts"]["train"] == [40, 12, 4]
    assert tailed.fingerprint["images"] == data.fingerprint["images"]
    assert tailed.fingerprint["content"] != data.fingerprint["content"]
    assert data.counts("train").tolist() == list(SIZES)  # the data that came stay as they are


def test_none_changes_nothing():
    data = training_set()
    assert cut(data, "none") is data


def kept(data: Dataset) -> set[bytes]:
    return set(data.digest[data.where("train")].tolist())


def test_which_images_stay_is_a_function_of_seed_and_class_alone():
    data = training_set()
    assert kept(cut(data)) == kept(cut(data)) != kept(cut(data, seed=1))
    order = np.random.default_rng(0).permutation(len(data.labels))
    assert kept(cut(parts_of(shuffled(data, order)))) == kept(cut(data))  # neither names nor order of files
    for larger in (14.0, 20.0, 39.0):
        assert kept(cut(data, factor=larger)) < kept(cut(data))  # the rarer set is part of the fuller one


def test_neither_other_classes_nor_their_order_decide_which_images_stay():
    data = training_set()
    fewer = dataclasses.replace(data, part=np.where(np.arange(len(data.part)) == 45, -1, data.part))  # one of b's
    rare = data.digest[data.labels == 2]
    assert kept(cut(fewer)) & set(rare.tolist()) == kept(cut(data)) & set(rare.tolist())
    turned = dataclasses.replace(data, labels=2 - data.labels, class_names=data.class_names[::-1])
    assert kept(cut(turned)) == kept(cut(data))


def test_any_image_may_stay():
    data = training_set((40, 40))
    share = np.mean([np.isin(data.where("train"), cut(data, factor=4.0, seed=s).where("train")) for s in range(300)], 0)
    assert (share[:40] == 1).all() and abs(share[40:].mean() - 0.25) < 1e-9 and share[40:].min() > 0.14
    assert share[40:].max() < 0.36


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"factor": 41.0}, r"factor=41 leaves no training image of c: the largest class has 40, .* at most 40"),
        ({"profile": "step", "factor": 50.0}, "leaves no training image of b, c"),
    ],
)
def test_what_cannot_be_cut_is_named(keys, told):
    with pytest.raises(ValueError, match=told):
        cut(training_set(), **keys)


# in configurations ----------------------------------------------------------------------------------------------------

TAILED = ["data.long_tail.profile=exponential", "data.long_tail.factor=20.0"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of 40 training and 20 test pictures."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, number in (("train", 40), ("test", 20)):
        for name in "abc":
            (root / part / name).mkdir(parents=True)
            for k in range(number):
                Image.fromarray(random.integers(0, 256, (16, 16)).astype(np.uint8)).save(
                    root / part / name / f"{k}.png"
                )
    return root


def words(pictures, base, *others: str) -> list[str]:
    tiny = [word for word in TINY if not word.startswith("data.")]
    places = [f"data.root={pictures}", f"outputs={base / 'outputs'}", f"cache={base / 'cache'}"]
    return ["data=folder", "split.val_from=test", *tiny, *places, *others]


@pytest.mark.parametrize("name", ["faces", "folder", "fer2013", "facial_expressions"])
def test_names_of_old_runs_stand(name):
    node = checked(f"data={name}")[0]
    assert node.data.long_tail.plain() == {"profile": "none", "factor": 100.0, "seed": 0}
    known = {"name": name} if name != "faces" else None
    assert naming.choices(node).get("data") == known
    if name == "faces":
        assert naming.name(node) == "faces-emotion_cnn-mish-none-s0-44136fa3"  # as before there were long tails


def test_every_value_names_another_run_and_is_a_param():
    lines = [[], TAILED[:1], TAILED, [*TAILED, "data.long_tail.seed=1"], ["data.long_tail.profile=step"]]
    names = [naming.name(checked(*line)[0]) for line in lines]
    assert len(set(names)) == len(lines)
    experiment = checked(*TAILED)[0]
    assert naming.choices(experiment)["data"] == {
        "name": "faces",
        "long_tail": {"profile": "exponential", "factor": 20.0},
    }
    flat = naming.params(experiment)
    assert flat["data.long_tail.profile"] == "exponential" and flat["data.long_tail.factor"] == 20.0


def test_a_sweep_goes_along_the_factor():
    plan = planned("data.long_tail.profile=exponential", "data.long_tail.factor=10.0,50.0", "tracking=none")
    assert plan.axes == ("data.long_tail.factor",) and len({cell.name for cell in plan.cells}) == 2
    assert [cell.axes for cell in plan.cells] == [{"data.long_tail.factor": "10.0"}, {"data.long_tail.factor": "50.0"}]


def test_data_are_loaded_with_their_tail(pictures, tmp_path):
    data = build_data.load_data(*checked(*words(pictures, tmp_path, *TAILED)))
    assert data.counts("train").tolist() == [40, 8, 2] and (data.counts("test") == 18).all()
    again = build_data.load_data(*checked(*words(pictures, tmp_path, *TAILED, "seed=7")))
    assert np.array_equal(data.part, again.part)  # whatever the run's seed is
    plain = build_data.load_data(*checked(*words(pictures, tmp_path)))
    assert (plain.counts("train") == 40).all() and not any("long_tail" in note for note in plain.notes)


def test_leaks_are_dropped_before_the_tail_is_cut(tmp_path):
    """The tail is what training has, and a rare class is not robbed of the few images that it keeps."""
    random = np.random.default_rng(0)
    for name, leaked in zip("abc", (20, 0, 5), strict=True):
        pixels = random.integers(0, 256, (60, 16, 16)).astype(np.uint8)
        tested = [*pixels[:leaked], *random.integers(0, 256, (6, 16, 16)).astype(np.uint8)]
        for part, images in (("train", pixels), ("test", tested)):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for k, image in enumerate(images):
                Image.fromarray(image).save(tmp_path / "pictures" / part / name / f"{k}.png")
    tail = ["data.long_tail.profile=exponential", "data.long_tail.factor=10", "data.leaks=drop", "split.val=0.5"]
    data = build_data.load_data(*checked(*words(tmp_path / "pictures", tmp_path, *tail)))
    assert data.counts("train").tolist() == long_tail.counts(np.array([40, 60, 55]), "exponential", 10.0).tolist()
    assert f"class by class {', '.join(map(str, data.counts('train')))}" in data.notes[-1]


def test_a_run_trains_on_its_tail_and_is_judged_on_the_parts_it_had(pictures, tmp_path):
    run.train(*checked(*words(pictures, tmp_path, *TAILED)))
    (folder,) = (tmp_path / "outputs").iterdir()
    ledger = json.loads((folder / "ledger.json").read_text())
    assert [row["images"] for row in ledger["classes"]] == [40, 8, 2]
    made_of = json.loads((folder / "manifest.json").read_text())
    assert (
        made_of["data"]["counts"]["train"] == [40, 8, 2] and "training keeps 50 of 120" in made_of["tags"]["data_notes"]
    )
    assert len(np.load(folder / "seen.npy")) == 50 + 6
    assert json.loads((folder / "metrics.json").read_text())["test"]["n"] == 54
    data = build_data.load_data(*checked(*words(pictures, tmp_path, *TAILED)))
    asked = {"cache": None, "allow": [], "split": None, "data": checked(*words(pictures, tmp_path, *TAILED))[0].data}
    trained = load(str(folder), "cpu", 1, None, [])
    for part in ("train", "val", "test"):  # evaluate, on the same images, finds the parts of the training
        assert np.array_equal(evaluate.part_of(asked | {"part": part}, trained)[2], data.where(part))
    assert len(evaluate.part_of(asked | {"part": "all"}, trained)[2]) == 180


def test_an_audit_shows_the_tail(pictures, tmp_path):
    asked = ["data=folder", f"data.root={pictures}", *TAILED, "image_size=16", "cache=null", "audit.near=false"]
    data = audit.load(checks.plain(composed(*asked, "tracking=none", name="audit")))
    assert data.counts("train").tolist() == [36, 8, 1] and "training keeps 45 of 108" in data.notes[-1]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "experiment=pared_down_vgg protocol=leaky data.long_tail.profile=step",
            r"data\.long_tail\.profile=step .* protocol=leaky",
        ),
        ("data.long_tail.factor=10.0", r"long_tail\.factor=10\.0 does nothing where data\.long_tail\.profile is none"),
        ("data.long_tail.seed=3", r"long_tail\.seed=3 does nothing"),
        ("data.long_tail=exponential", r"data\.long_tail is a node of profile, factor, seed; it is exponential"),
        ("data.long_tail.factor=many", r"data\.long_tail\.factor is a number from 1 on; it is many"),
        ("data.long_tail.seed=0.5", r"data\.long_tail\.seed is a whole number"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(line, told):
    with pytest.raises(ValueError, match=told):
        checked(*line.split())
