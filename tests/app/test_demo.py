import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from cellwright.tasks.charlm.config import CharLMConfig


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, text: Path) -> ModuleType:
    """examples/demo.py, with a model and a text that take no time."""
    path = Path(__file__).parents[2] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = CharLMConfig(texts=(str(text),), hidden=4, layers=1, batch=4, chunk=10, steps=4)
    monkeypatch.setattr(module, "CONFIG", small)
    monkeypatch.setattr(module, "PROMPTS", ("def ",))
    return module


def test_it_trains_and_writes_and_says_what_is_next(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tmp_path / "demo"
    assert demo.main(str(wanted)) == 0
    out = capsys.readouterr().out
    assert "def " in out
    assert f"cellwright generate {wanted}" in out
    assert demo.main(str(wanted)) == 0
    assert demo.state(tmp_path / "demo-2") == "taken"
    assert demo.choose(wanted) == tmp_path / "demo-3"


def test_it_goes_on_with_a_run_that_was_interrupted(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cellwright.train.loop.Trainer.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.main(str(tmp_path / "demo"))
    assert demo.state(tmp_path / "demo") == "unfinished"
    assert demo.main(str(tmp_path / "demo")) == 0
    assert demo.state(tmp_path / "demo") == "taken"


def test_a_folder_with_something_else_is_left_alone(demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert demo.choose(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo" / "notes").touch()
    assert demo.choose(tmp_path / "demo") == tmp_path / "demo-2"
