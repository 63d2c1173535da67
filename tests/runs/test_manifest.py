"""What a manifest holds, and in what two of them differ."""

import json

import pytest
from composing import checked

from emoexp.runs import manifest

BEFORE = {
    "experiment": {"seed": 0, "optimizer": {"lr": 0.1, "_target_": "torch.optim.SGD"}},
    "results_version": 1,
    "packages": {},
    "data": {"content": "x"},
    "device": "cpu",
    "threads": 2,
    "git": {"commit": "a", "dirty": False},
}
OLDER = {key: value for key, value in BEFORE.items() if key not in ("results_version", "packages")} | {"code": "0123"}


def test_differences_are_named():
    now = BEFORE | {"experiment": {"seed": 0, "optimizer": {"lr": 0.2}}, "results_version": 2}
    assert manifest.differences(BEFORE, BEFORE) == []
    assert manifest.differences(BEFORE, now) == ["experiment.optimizer.lr (0.1, now 0.2)", "results_version (1, now 2)"]


@pytest.mark.parametrize(
    "change",
    [
        {"git": {"commit": "b", "dirty": True}},
        {"experiment": {"seed": 0, "optimizer": {"lr": 0.1, "_target_": "emoexp.moved.SGD"}}},
        {"experiment": {"seed": 0, "optimizer": {"lr": 0.1}}},
        {"experiment": {"seed": 0, "optimizer": {"lr": 0.1, "a_new_key": 3}}},
        {"tags": {"anything": "else"}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_what_decides_nothing_is_no_difference(change):
    assert manifest.differences(BEFORE, BEFORE | change) == []
    assert manifest.differences(OLDER, BEFORE | change) == []


def test_of_data_with_the_same_content_an_older_manifest_may_lack_what_was_recorded_later():
    older = {"data": {"content": "c" * 64, "source": "faces"}}
    now = {"data": older["data"] | {"images": "i" * 64}}
    assert manifest.differences(older, now) == []
    assert manifest.differences(now, {"data": now["data"] | {"images": "j" * 64}}) != []
    assert manifest.differences(older, {"data": now["data"] | {"content": "d" * 64}}) != []
    assert manifest.differences({"data": {"source": "faces"}}, now) != []  # what its data were is not known


def test_many_differences_are_counted():
    old, new = ({"data": {str(k): k * factor for k in range(1, 10)}} for factor in (1, 2))
    assert manifest.differences(old, new)[-1] == "6 more of data"


def test_a_manifest_of_before_results_had_a_version_counts_as_version_1():
    assert manifest.differences(OLDER, BEFORE) == []
    assert manifest.differences(OLDER, BEFORE | {"results_version": 2}) == ["results_version (1, now 2)"]
    assert manifest.differences(OLDER, BEFORE | {"threads": 1}) == ["threads (2, now 1)"]
    own = {"packages": {"own": "abc"}}  # what an older run had of it stood in its digest of the code
    assert manifest.differences(OLDER, BEFORE | own) == []
    assert manifest.differences(BEFORE, BEFORE | own) == ["packages.own (None, now abc)"]


def test_a_manifest_without_any_version_is_of_another():
    assert manifest.differences({"threads": 2}, {"threads": 2, "results_version": 1, "packages": {}}) == [
        "results_version (None, now 1)"
    ]


def test_the_experiment_is_kept_without_how_it_is_built():
    experiment = checked("optimizer.lr=0.25", "imbalance=sampler")[0].plain()
    experiment["activation"] = {"name": "mine", "_target_": "mine.Wave", "_partial_": True}
    facts = manifest.facts(experiment, [])
    text = json.dumps(facts["experiment"])
    assert "_target_" not in text and "_partial_" not in text
    kept = facts["experiment"]
    assert kept["optimizer"]["lr"] == 0.25 and kept["imbalance"]["sampling"]["name"] == "inverse"
    assert facts["results_version"] == manifest.RESULTS_VERSION and facts["packages"] == {}


def read_again(package: str) -> str:
    """The digest of a package as a new process would have it."""
    manifest.source_digest.cache_clear()
    return manifest.source_digest(package)


def test_the_users_own_packages_decide_and_their_comments_do_not(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_package.py").write_text("x = 1\n")
    first = read_again("own_package")
    (tmp_path / "own_package.py").write_text("# a comment\n\nx = (1)\n")
    assert read_again("own_package") == first
    (tmp_path / "own_package.py").write_text("x = 2\n")
    assert manifest.source_digest("own_package") == first  # read once a process, which imported it once too
    assert read_again("own_package") != first
    assert manifest.facts({}, ["own_package"])["packages"] == {"own_package": read_again("own_package")}


def test_a_package_of_several_files_is_read_whole(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_folder" / "deep").mkdir(parents=True)
    (tmp_path / "own_folder" / "__init__.py").write_text("")
    (tmp_path / "own_folder" / "deep" / "part.py").write_text("x = 1\n")
    first = read_again("own_folder")
    (tmp_path / "own_folder" / "deep" / "part.py").write_text("x = 2\n")
    assert read_again("own_folder") != first


def test_git_knows_this_checkout_or_nothing():
    found = manifest.git()
    assert found == {} or (len(found["commit"]) == 40 and isinstance(found["dirty"], bool))
