"""The run folder: which one fits, what is written, what is said of differences."""

import json

import pytest

from emoexp.inference import results
from emoexp.runs import folder

MADE = {
    "experiment": {"seed": 0, "optimizer": {"lr": 0.1}},
    "code": "a",
    "data": {"content": "x"},
    "device": "cpu",
    "threads": 2,
}


def open_and_close(tmp_path, manifest, resume="auto") -> str:
    with folder.opened(tmp_path, "run-1", manifest, {"seed": 0}, resume) as run:
        return run.folder.name


def test_the_same_manifest_finds_the_same_folder(tmp_path):
    assert open_and_close(tmp_path, MADE) == open_and_close(tmp_path, MADE) == "run-1"
    assert json.loads((tmp_path / "run-1" / "manifest.json").read_text()) == MADE


@pytest.mark.parametrize("change", [{"code": "b"}, {"data": {"content": "y"}}, {"device": "cuda"}, {"threads": 1}])
def test_another_manifest_gets_a_folder_beside_and_finds_it_again(tmp_path, change):
    open_and_close(tmp_path, MADE)
    assert open_and_close(tmp_path, MADE | change) == "run-1.2"
    assert open_and_close(tmp_path, MADE | change) == "run-1.2"
    assert open_and_close(tmp_path, MADE) == "run-1"
    assert open_and_close(tmp_path, MADE, "never") == "run-1.3"
    assert open_and_close(tmp_path, MADE | {"code": "z"}, "force") == "run-1.3"


def test_folders_with_longer_names_are_others(tmp_path):
    open_and_close(tmp_path, MADE)
    (tmp_path / "run-12").mkdir()
    (tmp_path / "run-1.old").mkdir()
    assert open_and_close(tmp_path, MADE | {"code": "b"}) == "run-1.2"


def test_a_folder_whose_manifest_was_never_written_is_taken(tmp_path):
    (tmp_path / "run-1").mkdir()
    assert open_and_close(tmp_path, MADE) == "run-1"


def test_differences_are_named():
    other = MADE | {"experiment": {"seed": 0, "optimizer": {"lr": 0.2}}, "code": "b"}
    assert folder.differences(MADE, MADE) == []
    assert folder.differences(MADE, other) == ["experiment.optimizer.lr (0.1, now 0.2)", "code (a, now b)"]


def test_many_differences_are_counted():
    old, new = ({"data": {str(k): k * factor for k in range(1, 10)}} for factor in (1, 2))
    assert folder.differences(old, new)[-1] == "6 more of data"


def test_json_is_sorted_and_refuses_nan(tmp_path):
    with folder.opened(tmp_path, "run-1", MADE, {}, "auto") as run:
        run.write("x.json", {"b": 1, "a": 2})
        assert (run.folder / "x.json").read_text() == '{\n "a": 2,\n "b": 1\n}\n'
        with pytest.raises(ValueError, match="JSON"):
            run.write("x.json", {"a": float("nan")})
        run.write_lines("h.jsonl", [{"a": 0.1}, {"a": float("inf")}])
        assert (run.folder / "h.jsonl").read_text() == '{"a": 0.1}\n{"a": null}\n'


def test_status_keeps_its_beginning(tmp_path):
    with folder.opened(tmp_path, "run-1", MADE, {}, "auto") as run:
        run.status("RUNNING")
        began = run.read("status.json")["started"]
        run.status("FAILED", "why")
        assert run.read("status.json")["started"] == began and run.read("status.json")["error"] == "why"
        assert not run.finished


def test_git_knows_this_checkout_or_nothing():
    told = folder.git()
    assert told == {} or (len(told["commit"]) == 40 and isinstance(told["dirty"], bool))


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_spreadsheets_run_nothing(tmp_path, text):
    results.write_table(tmp_path / "t.csv", [{"class": text, "n": -1}])
    assert f"'{text}" in (tmp_path / "t.csv").read_text() and ",-1" in (tmp_path / "t.csv").read_text()


def test_tables_are_aligned():
    lines = results.table([{"class": "a", "n": 1}, {"class": "long", "n": 0.123456}]).splitlines()
    assert len({len(line) for line in lines}) == 1 and "0.1235" in lines[2]
