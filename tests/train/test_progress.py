import io

import pytest
from rich.console import Console

from cellwright.train import progress
from cellwright.train.progress import Bar, Display, Lines, display


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100), file


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    target, file = console(False)
    shown = display(target)
    assert isinstance(shown, Lines)
    shown.start(10, 100)
    asked = []
    for done in range(11, 31):
        clock.now += 1.0
        shown.update(done, lambda done=done: asked.append(done) or f"loss {done}")  # type: ignore[misc]
    shown.stop()
    assert file.getvalue().splitlines() == [
        "step 15/100  loss 15  ETA 1:25",
        "step 20/100  loss 20  ETA 1:20",
        "step 25/100  loss 25  ETA 1:15",
        "step 30/100  loss 30  ETA 1:10",
    ]
    assert asked == [15, 20, 25, 30]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    target, file = console(True)
    shown = display(target)
    assert isinstance(shown, Bar)
    shown.start(0, 100)
    shown.update(50, lambda: "loss 1.234")
    shown.stop()
    shown.stop()
    assert "50/100" in file.getvalue()
    assert "loss 1.234" in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_message_is_shown_as_it_is(terminal: bool) -> None:
    target, file = console(terminal)
    shown: Display = display(target)
    text = "[bold]x[/bold] :smile: " + "long " * 50 + "\t\n\x1b[31mred\x07"
    shown.say(text)
    assert "[bold]x[/bold] :smile: " + "long " * 50 in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()
    assert "·[31mred·" in file.getvalue()
