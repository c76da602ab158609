import os
import subprocess
import sys

import pytest

from cellwright import OptionError
from cellwright.tasks.job import JOBS, find, settings_of


@pytest.mark.parametrize("name", JOBS)
def test_a_task_is_complete(name: str) -> None:
    """Every abstract part is there, and every option says what it does."""
    job, settings = find(name), settings_of(name)
    assert job.config is settings
    assert settings.task == name
    assert settings.about and settings.explained and settings.shown
    assert set(settings.paths) <= set(settings.model_fields)
    assert [f for f, field in settings.model_fields.items() if not field.description] == [settings.argument_field()]
    assert settings().changed(hidden=7).hidden == 7


def test_an_unknown_task() -> None:
    for ask in (find, settings_of):
        with pytest.raises(OptionError, match=f"'sing', expected {', '.join(JOBS)}"):
            ask("sing")


def test_the_help_of_a_task_shows_its_options_and_needs_no_torch() -> None:
    code = (
        "import sys; from cellwright.app.cli import app; print('torch' in sys.modules); app(['train', 'tag', '--help'])"
    )
    wide = os.environ | {"COLUMNS": "200"}
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=wide)
    assert got.stdout.startswith("False")
    assert [
        o for o in ("--hidden", "--validation-data", "--drop", "--no-bidirectional", "--plot") if o not in got.stdout
    ] == []
