"""Checkpoints of a training: damaged, shared, forgotten, and told apart by what they were made of."""

import os
import shutil
import time
from pathlib import Path

import torch

from intents.checkpoints import Checkpoints, Snapshot, run_key, surroundings


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, "key", 0.0)
    for step in (1, 2, 3):
        checkpoints.write(Snapshot(step, {"a/b": torch.full((9,), step)}, {"step": step}))
    checkpoints.wait()
    older, newest = sorted(checkpoints.folder.glob("*.safetensors"))  # two are kept
    assert checkpoints.latest().values == {"step": 3}
    content = newest.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"\x07", b""):
        newest.write_bytes(damaged)
        assert checkpoints.latest().part("a")["b"].tolist() == [2] * 9
        assert f"{newest} is damaged" in capsys.readouterr().out
    older.unlink()
    assert checkpoints.latest() is None


def test_a_second_run_of_the_same_training_leaves_the_checkpoints_of_the_first_alone(tmp_path, capsys):
    first = Checkpoints(tmp_path, "key", 0.0)
    first.write(Snapshot(1, {"a": torch.ones(1)}, {}))
    first.wait()
    second = Checkpoints(tmp_path, "key", 0.0)
    assert "the same training runs already" in capsys.readouterr().out
    assert (second.latest(), second.due()) == (None, False)
    second.remove()
    assert first.latest().step == 1
    assert Checkpoints(tmp_path, "other", 0.0).due()
    first.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_checkpoints_that_nobody_went_on_with_are_removed_after_two_weeks(tmp_path):
    for name, days in (("old", 15), ("recent", 13)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 24 * 3600,) * 2)
    Checkpoints(tmp_path, "key", 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "recent"]


def test_the_key_changes_with_a_setting_the_data_or_the_code(tmp_path):
    (tmp_path / "code.py").write_text("a = 1\n")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    paths = [tmp_path / "code.py", tmp_path / "encoder"]
    keys = [run_key({"seed": 0}, paths), run_key({"seed": 1}, paths)]
    for path, content in (("code.py", "a = 2\n"), ("encoder/config.json", "[]"), ("encoder/more.json", "")):
        (tmp_path / path).write_text(content)
        keys.append(run_key({"seed": 0}, paths))
    assert len(set(keys)) == len(keys)
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert run_key({"seed": 0}, [tmp_path / "copy/code.py", tmp_path / "copy/encoder"]) == keys[-1]


def test_a_processor_that_multiplies_in_another_way_resumes_nothing(monkeypatch):
    keys = []
    for supported in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported)
        keys.append(run_key(surroundings(["torch"]), []))
    assert keys[0] != keys[1]


def test_a_checkpoint_is_due_when_so_many_seconds_have_passed(tmp_path):
    checkpoints = Checkpoints(tmp_path, "key", 3600.0)
    assert not checkpoints.due()
    checkpoints._written_at -= 3600
    assert checkpoints.due()
    checkpoints.write(Snapshot(1, {"a": torch.ones(1)}, {}))
    checkpoints.wait()
    assert not checkpoints.due()


def test_a_checkpoint_lies_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(Path(os.readlink(f"/proc/self/fd/{fd}")).suffix), sync(fd))
    )
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to))[1])
    checkpoints = Checkpoints(tmp_path, "key", 0.0)
    checkpoints.write(Snapshot(1, {"a": torch.ones(1)}, {}))
    checkpoints.wait()
    assert done == [".part", "rename", ""]
