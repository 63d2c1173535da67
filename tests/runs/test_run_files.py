"""Files are old or new and never half; locks end with their process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from emoexp.runs import files


def killed_at(call: int, path) -> bool:
    """Write in a child that is killed before its call-th step on the file system. True where it was killed."""
    child = os.fork()
    if child == 0:
        seen = 0

        def counted(original):
            def wrapper(*arguments, **keys):
                nonlocal seen
                seen += 1
                if seen == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **keys)

            return wrapper

        for name in ("open", "fsync", "close", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        for name in ("write_bytes", "replace", "unlink"):
            setattr(files.Path, name, counted(getattr(files.Path, name)))
        files.write_bytes(path, b"new" * 1000)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_killed_at_every_point_the_file_is_old_or_new(tmp_path):
    path = tmp_path / "a"
    call, seen = 1, set()
    while True:
        files.write_bytes(path, b"old")
        killed = killed_at(call, path)
        seen.add(path.read_bytes())
        files.remove_partial(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
        if not killed:
            break
        call += 1
    assert call > 7 and seen == {b"old", b"new" * 1000}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not save .*a \(No space left on device\)"):
        files.write_text(tmp_path / "a", "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a", "old")]


def test_content_and_name_are_forced_to_the_disk_in_that_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, files.Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(files.Path, "replace", lambda one, other: (done.append("replace"), replace(one, other)))
    files.write_bytes(tmp_path / "a", b"x")
    assert done[0].startswith(f"{tmp_path}/.a.") and done[1:] == ["replace", str(tmp_path)]


def test_only_temporary_files_are_removed(tmp_path):
    for name in (".a.json.123.tmp", ".a.json.1.2.tmp", ".a.tmp", "a.1.tmp", ".hidden"):
        (tmp_path / name).touch()
    files.remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.tmp", ".hidden", "a.1.tmp"]


def test_json_is_sorted_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "x.json", {"b": 1, "a": 2})
    assert (tmp_path / "x.json").read_text() == '{\n "a": 2,\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert files.read_json(tmp_path / "x.json") == {"a": 2, "b": 1}


def test_json_lines(tmp_path):
    path = tmp_path / "h.jsonl"
    assert files.read_json_lines(path) == []
    files.write_json_lines(path, [{"a": 0.1}, {"a": float("inf")}])
    assert path.read_text() == '{"a": 0.1}\n{"a": null}\n'
    path.write_text('{"a": 1}\n{"a": 2')  # being written
    assert files.read_json_lines(path) == [{"a": 1}]
    path.write_text('{"a": 1}\nx\n')
    with pytest.raises(ValueError, match="line 2, is not JSON"):
        files.read_json_lines(path)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[1]", "expected a JSON object, found list")])
def test_what_is_no_json_object_is_refused(tmp_path, text, message):
    assert files.read_json(tmp_path / "x.json") == {}
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        files.read_json(tmp_path / "x.json")


def test_plain_values():
    import numpy as np

    value = {1: np.float32(0.5), "a": (np.int64(3), float("nan"), [np.float64("inf")])}
    assert json.dumps(files.json_values(value)) == '{"1": 0.5, "a": [3, null, [null]]}'


# locks


def test_a_lock_is_held_by_one(tmp_path):
    with files.lock(tmp_path / "lock") as is_held:
        assert is_held
        with files.lock(tmp_path / "lock", wait=False) as is_held_twice:
            assert not is_held_twice
    with files.lock(tmp_path / "lock", wait=False) as is_held:
        assert is_held
    assert (tmp_path / "lock").read_bytes() == b""


def child_holding(path) -> int:
    """A process that holds a lock until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with files.lock(path):
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    return child


def test_a_lock_ends_with_its_process(tmp_path):
    child = child_holding(tmp_path / "lock")
    try:
        with files.lock(tmp_path / "lock", wait=False) as is_held:
            assert not is_held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with files.lock(tmp_path / "lock", wait=False) as is_held:
        assert is_held


def test_a_lock_is_waited_for(tmp_path):
    child = child_holding(tmp_path / "lock")
    started = time.perf_counter()
    killer = os.fork()
    if killer == 0:
        time.sleep(0.3)
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    with files.lock(tmp_path / "lock") as is_held:
        assert is_held and time.perf_counter() - started > 0.25
    os.waitpid(killer, 0)
    os.waitpid(child, 0)


def test_a_shared_lock_keeps_the_other_kind_out(tmp_path):
    path = tmp_path / "lock"
    with files.shared_lock(path), files.shared_lock(path), files.lock(path, wait=False) as is_held:
        assert not is_held
    with files.lock(path, wait=False) as is_held:
        assert is_held


def test_a_locked_open_file_is_locked_for_others_until_it_is_closed(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"content")
    with path.open("rb") as one, path.open("rb") as other:
        assert files.lock_file(one) and not files.lock_file(other)
        one.close()
        assert files.lock_file(other)
    assert path.read_bytes() == b"content"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=r"could not save .*nowhere/x\.json \(No such file or directory\)"):
        files.write_text(tmp_path / "nowhere" / "x.json", "{}")


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    """Killed commands left temporary files in the folders of evaluations, reports and sweeps."""
    path = tmp_path / "metrics.json"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    names = {
        "dead": f".metrics.json.{files._HOST}.{killed.pid}.1.tmp",
        "alive": f".metrics.json.{files._HOST}.{os.getpid()}.1.tmp",
        "another host": f".metrics.json.{files._HOST + 1}.{killed.pid}.1.tmp",
        "another file": f".other.json.{files._HOST}.{killed.pid}.1.tmp",
        "somebody's": ".metrics.json.tmp",
    }
    for name in names.values():
        (tmp_path / name).write_text("half")
    files.write_text(path, "{}")
    left = {entry.name for entry in tmp_path.iterdir()} - {path.name}
    assert left == set(names.values()) - {names["dead"]}
    files.remove_partial(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, names["somebody's"]}
