import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright import RunError
from cellwright.train import files

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64), "c.d": torch.zeros(0, 4)}
METADATA = {"format": "pt", "note": 'ä "quoted"'}


def test_pack_and_unpack_are_inverse(tmp_path: Path) -> None:
    tensors, metadata = files.unpack(tmp_path, files.pack(TENSORS, METADATA), "mend")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(t.equal(TENSORS[name]) and t.dtype == TENSORS[name].dtype for name, t in tensors.items())


def test_views_of_one_piece_of_memory_are_kept(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"turned": whole.T, "row": whole[1], "again": whole[1], "columns": whole[:, 1:3]}
    tensors, _ = files.unpack(tmp_path, files.pack(views, {}), "mend")
    assert all(t.equal(views[name]) for name, t in tensors.items())


@given(st.data())
@settings(max_examples=300)
def test_any_change_of_a_byte_is_noticed(data: st.DataObject) -> None:
    packed = bytearray(files.pack(TENSORS, METADATA))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        tensors, metadata = files.unpack(Path("w"), bytes(packed), "mend")
    except RunError:
        return
    # A change that means nothing: in the blanks around the header.
    assert metadata == METADATA
    assert all(t.equal(TENSORS[name]) for name, t in tensors.items())


@given(st.integers(0, 10_000))
def test_a_truncated_file_is_noticed(size: int) -> None:
    packed = files.pack(TENSORS, METADATA)
    with pytest.raises(RunError, match="w is damaged"):
        files.unpack(Path("w"), packed[: size % len(packed)], "mend")


@given(st.binary(max_size=200))
def test_what_is_no_safetensors_file_is_noticed(data: bytes) -> None:
    with pytest.raises(RunError, match="w is damaged"):
        files.unpack(Path("w"), data, "mend")


def test_a_value_in_the_metadata_is_part_of_the_digest() -> None:
    packed = files.pack(TENSORS, {"counters": "step 100"}).replace(b"step 100", b"step 900")
    with pytest.raises(RunError, match="changed after it was written"):
        files.unpack(Path("w"), packed, "mend")


def test_the_shape_is_part_of_the_digest() -> None:
    packed = files.pack(TENSORS, {}).replace(b'"shape":[2,3]', b'"shape":[3,2]')
    with pytest.raises(RunError, match="changed after it was written"):
        files.unpack(Path("w"), packed, "mend")


class CrashError(BaseException):
    """The end of the process, as seen from inside."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def crash(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, crash)
        with pytest.raises(CrashError):
            files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    files.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_behind_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".file.part").write_bytes(b"half of some")
    files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        files.write(tmp_path / "file", b"new")


def test_a_missing_file_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing is missing; train again"):
        files.read(tmp_path / "nothing", "train again")
    with pytest.raises(RunError, match=r"cannot be read: .*; train again"):
        files.read(tmp_path, "train again")
