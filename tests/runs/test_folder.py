"""The run folder: which one fits, what is written into it, its status."""

import json

import pytest

from emoexp.runs import files, folder

MANIFEST = {
    "experiment": {"seed": 0, "optimizer": {"lr": 0.1}},
    "results_version": 1,
    "packages": {},
    "data": {"content": "x"},
    "device": "cpu",
    "threads": 2,
}


def open_and_close(tmp_path, manifest, resume="auto") -> str:
    with folder.open_run(tmp_path, "run-1", manifest, {"seed": 0}, resume) as run:
        return run.folder.name


def test_the_same_manifest_finds_the_same_folder(tmp_path):
    assert open_and_close(tmp_path, MANIFEST) == open_and_close(tmp_path, MANIFEST) == "run-1"
    assert json.loads((tmp_path / "run-1" / "manifest.json").read_text()) == MANIFEST
    assert (tmp_path / "run-1" / "config.yaml").read_text() == "seed: 0\n"


@pytest.mark.parametrize(
    "change",
    [
        {"results_version": 2},
        {"packages": {"own": "a"}},
        {"data": {"content": "y"}},
        {"device": "cuda"},
        {"threads": 1},
    ],
    ids=str,
)
def test_another_manifest_gets_a_folder_beside_and_finds_it_again(tmp_path, change):
    open_and_close(tmp_path, MANIFEST)
    assert open_and_close(tmp_path, MANIFEST | change) == "run-1.2"
    assert open_and_close(tmp_path, MANIFEST | change) == "run-1.2"
    assert open_and_close(tmp_path, MANIFEST) == "run-1"
    assert open_and_close(tmp_path, MANIFEST, "never") == "run-1.3"
    assert open_and_close(tmp_path, MANIFEST | {"results_version": 9}, "force") == "run-1.3"


def test_folders_with_longer_names_are_others(tmp_path):
    open_and_close(tmp_path, MANIFEST)
    (tmp_path / "run-12").mkdir()
    (tmp_path / "run-1.old").mkdir()
    assert open_and_close(tmp_path, MANIFEST | {"threads": 3}) == "run-1.2"


def test_a_folder_whose_manifest_was_never_written_is_taken(tmp_path):
    (tmp_path / "run-1").mkdir()
    assert open_and_close(tmp_path, MANIFEST) == "run-1"


def test_a_folder_of_before_results_had_a_version_is_taken_as_it_is(tmp_path, caplog):
    older = {key: value for key, value in MANIFEST.items() if key not in ("results_version", "packages")}
    older |= {"code": "0123456789abcdef"}
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "manifest.json").write_text(json.dumps(older))
    assert open_and_close(tmp_path, MANIFEST) == "run-1" and not caplog.records
    assert json.loads((tmp_path / "run-1" / "manifest.json").read_text()) == older
    assert open_and_close(tmp_path, MANIFEST | {"results_version": 2}) == "run-1.2"


def test_a_run_in_use_is_refused_and_what_a_killed_write_left_is_removed(tmp_path):
    with folder.open_run(tmp_path, "run-1", MANIFEST, {}, "auto") as run:
        assert folder.is_alive(run.folder)
        with pytest.raises(folder.RunInUse, match="another process is training"):
            open_and_close(tmp_path, MANIFEST)
        (run.folder / ".last.pt.123.tmp").touch()
    open_and_close(tmp_path, MANIFEST)
    assert not folder.is_alive(tmp_path / "run-1") and not (tmp_path / "run-1" / ".last.pt.123.tmp").exists()


def test_json_files_of_a_run(tmp_path):
    with folder.open_run(tmp_path, "run-1", MANIFEST, {}, "auto") as run:
        assert run.read("x.json") is None
        run.write("x.json", {"b": 1, "a": 2})
        assert run.read("x.json") == {"a": 2, "b": 1}
        run.write_lines("h.jsonl", [{"a": 0.1}, {"a": float("inf")}])
        assert files.read_json_lines(run.folder / "h.jsonl") == [{"a": 0.1}, {"a": None}]


def test_status_keeps_its_beginning(tmp_path):
    with folder.open_run(tmp_path, "run-1", MANIFEST, {}, "auto") as run:
        run.set_status("RUNNING")
        began = run.read("status.json")["started"]
        run.set_status("FAILED", "why")
        assert run.read("status.json")["started"] == began and run.read("status.json")["error"] == "why"
        assert not run.finished


def test_a_run_without_its_process_is_closed(tmp_path):
    with folder.open_run(tmp_path, "run-1", MANIFEST, {}, "auto") as run:
        run.set_status("RUNNING")
        assert not folder.close_if_dead(run.folder)
    assert folder.all_runs(tmp_path) == [tmp_path / "run-1"]
    assert folder.close_if_dead(tmp_path / "run-1") and not folder.close_if_dead(tmp_path / "run-1")
    status = files.read_json(tmp_path / "run-1" / "status.json")
    assert (
        status["status"] == "KILLED"
        and status["ended"] >= status["started"]
        and "without recording a status" in status["error"]
    )
