import json
import os
from pathlib import Path

import pytest
import torch

from cellwright import RunError
from cellwright.train import files
from cellwright.train.run import Run

DOCUMENTS = {"config.json": {"config": {"hidden": 3}}, "vocabulary.json": ["a", "ä"]}
TENSORS = {"w": torch.arange(3.0)}


def create(path: Path) -> Run:
    return Run.create(path, DOCUMENTS, TENSORS, {"step": 0})


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    create(tmp_path / "deep" / "run")
    run = Run.open(tmp_path / "deep" / "run")
    assert run.documents["vocabulary.json"] == DOCUMENTS["vocabulary.json"]
    assert run.documents["config.json"]["config"] == {"hidden": 3}
    tensors, counters = run.load("last")
    assert tensors["w"].equal(TENSORS["w"])
    assert counters["step"] == 0
    assert os.listdir(tmp_path / "deep") == ["run"]
    run.save("best", {"w": torch.ones(3)}, {"step": 7})
    assert run.load("best")[1] == {"step": 7}
    assert run.load("best")[0]["w"].tolist() == [1, 1, 1]


def test_other_files_in_the_folder_are_nobodys_business(tmp_path: Path) -> None:
    create(tmp_path / "run")
    (tmp_path / "run" / "notes.json").write_text("not JSON")
    run = Run.open(tmp_path / "run")
    assert run.load("last")[1]["step"] == 0
    run.save("last", TENSORS, {"step": 1})
    (tmp_path / "run" / "notes.json").unlink()
    assert Run.open(tmp_path / "run").load("last")[1]["step"] == 1


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    create(tmp_path)
    assert Run.open(tmp_path).load("last")[1]["step"] == 0


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(RunError, match=r"exists and is not empty; name another folder, or go on with --resume"):
        create(tmp_path)
    assert contents(tmp_path) == {"notes": b"mine"}
    with pytest.raises(RunError, match="is a file"):
        create(tmp_path / "notes")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be made"):
        create(tmp_path / "file" / "run")


def test_a_crash_while_it_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path / "run")
    assert os.listdir(tmp_path) == []
    create(tmp_path / "run")


def read_everything(path: Path) -> None:
    run = Run.open(path)
    run.load("last")
    run.load("best")


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "last.safetensors", "best.safetensors"])
@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "extended", "other"])
def test_damage_is_noticed_and_named(tmp_path: Path, name: str, damage: str) -> None:
    run = create(tmp_path / "run")
    run.save("best", TENSORS, {"step": 1})
    path = tmp_path / "run" / name
    data = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": data[:-3], "extended": data + b"\n ", "other": b"[]"}[damage])
    with pytest.raises(RunError) as caught:
        read_everything(tmp_path / "run")
    assert name in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_an_edited_document_is_noticed(tmp_path: Path, name: str) -> None:
    create(tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(path.read_text().replace("3", "4").replace('"a"', '"b"'))
    with pytest.raises(RunError, match=f"{name} is not the one that last.safetensors was written with"):
        Run.open(tmp_path / "run").load("last")


def test_another_format_is_named(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    data = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**data, "format": 2, "cellwright": "9.1"}))
    with pytest.raises(RunError, match=r"config.json has format 2, written by cellwright 9.1"):
        Run.open(run.path)


def test_weights_of_another_format_are_named(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    future = {"cellwright_format": "2", "cellwright": "9.1"}
    files.write(run.path / "last.safetensors", files.pack(TENSORS, future))
    with pytest.raises(RunError, match=r"last.safetensors has format 2, written by cellwright 9.1"):
        run.load("last")
    files.write(run.path / "last.safetensors", files.pack(TENSORS, {}))
    with pytest.raises(RunError, match=r"last.safetensors has format None, written by something else"):
        run.load("last")


def test_weights_of_another_run_are_noticed(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    other = Run.create(tmp_path / "other", {"config.json": {"config": {"hidden": 4}}}, TENSORS, {})
    other.save("best", TENSORS, {})
    os.replace(other.path / "best.safetensors", run.path / "best.safetensors")
    with pytest.raises(RunError, match=r"config.json is not the one that best.safetensors was written with"):
        run.load("best")


def test_the_best_weights_do_not_need_the_last_ones(tmp_path: Path) -> None:
    create(tmp_path / "run").save("best", TENSORS, {"step": 7})
    (tmp_path / "run" / "last.safetensors").write_bytes(b"broken")
    assert Run.open(tmp_path / "run").load("best")[1] == {"step": 7}


def test_without_an_evaluation_there_are_no_best_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"best.safetensors is missing; it is written at the first evaluation"):
        create(tmp_path / "run").load("best")


@pytest.mark.parametrize("path", ["absent", "empty", "file"])
def test_what_is_no_run_folder_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"{path} is not a run folder"):
        Run.open(tmp_path / path)


def test_metrics_go_back_to_a_position(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    log = run.metrics(run.load("last")[1]["metrics"])
    log.append({"step": 1})
    position = log.position()
    log.append({"step": 2})
    log.close()
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "lo')  # a line that a crash has torn
    run.metrics(position).close()
    assert path.read_text() == '{"step": 1}\n'
    log = run.metrics(position)
    log.append({"step": 2, "again": True})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2, "again": True}]


@pytest.mark.parametrize("damage", ["absent", "shorter", "edited"])
def test_metrics_that_are_not_the_same_are_noticed(tmp_path: Path, damage: str) -> None:
    run = create(tmp_path / "run")
    log = run.metrics(run.load("last")[1]["metrics"])
    log.append({"step": 1})
    position = log.position()
    log.close()
    path = run.path / "metrics.jsonl"
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"shorter": b'{"step"', "edited": b'{"step": 2}\n{"step": 3}\n'}[damage])
    before = contents(run.path)
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run.metrics(position)
    assert contents(run.path) == before
