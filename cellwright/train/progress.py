"""How a training shows where it is: a bar on a terminal, a line every few seconds elsewhere."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 5.0
_BAR_SECONDS = 0.25


class Display(ABC):
    """What the training loop reports to. `status` is asked for only when it is shown."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @abstractmethod
    def start(self, done: int, total: int) -> None:
        """The training begins after `done` of `total` steps."""

    @abstractmethod
    def update(self, done: int, status: Callable[[], str]) -> None:
        """Another step is done."""

    @abstractmethod
    def stop(self) -> None:
        """The training ends or fails; more than once is harmless."""

    def say(self, text: str) -> None:
        """One message, as it is: neither wrapped nor coloured, without control characters."""
        clean = "".join(c if c.isprintable() or c in "\n\t" else "\N{MIDDLE DOT}" for c in text)
        self._console.print(clean, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Bar(Display):
    """A bar with the status and the time that is left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar: Progress | None = None
        self._next = 0.0

    def start(self, done: int, total: int) -> None:
        """Show the bar."""
        self._total = total
        columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, auto_refresh=False)
        self._task = self._bar.add_task("", total=total, completed=done, status="")
        self._bar.start()

    def update(self, done: int, status: Callable[[], str]) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        if self._bar is not None and (now >= self._next or done >= self._total):
            self._next = now + _BAR_SECONDS
            self._bar.update(self._task, completed=done, status=status(), refresh=True)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines(Display):
    """A line now and then, for a file or a pipe."""

    def start(self, done: int, total: int) -> None:
        """Begin to measure the time."""
        self._begin, self._total = done, total
        self._since = self._last = time.monotonic()

    def update(self, done: int, status: Callable[[], str]) -> None:
        """One line every LINE_SECONDS."""
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            left = round((now - self._since) / (done - self._begin) * (self._total - done))
            self.say(f"step {done}/{self._total}  {status()}  ETA {left // 60}:{left % 60:02d}")

    def stop(self) -> None:
        """Nothing is open."""


def display(console: Console) -> Display:
    """The display that suits a console."""
    return Bar(console) if console.is_terminal else Lines(console)
