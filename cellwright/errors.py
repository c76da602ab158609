"""Every error that this package raises on purpose.

    CellwrightError
    ├── CellError       the equations of a cell are not legal: unknown operation, wrong states, a branch on a value
    ├── OptionError     an unknown cell, option or setting, or a value that it cannot take
    ├── InputError      a tensor of the wrong shape, dtype or device; lengths or states that do not fit
    ├── GradientError   a gradient that does not agree with finite differences
    ├── TargetError     a target that does not exist or cannot run on this machine
    ├── DataError       text, data or a model file that is missing, damaged, too short or not supported
    └── RunError        a run folder that is absent, damaged, edited or of another version

Each message says what was got, what was expected, and what to do about it. The command line prints it after
`error:` and ends with exit code 2.
"""


class CellwrightError(Exception):
    """The root: `except CellwrightError` catches everything below."""


class CellError(CellwrightError):
    """The equations of a cell are not legal."""


class OptionError(CellwrightError, ValueError):
    """An unknown cell, option or setting, or a value that it cannot take."""


class InputError(CellwrightError, ValueError):
    """A tensor of the wrong shape, dtype or device, or lengths and states that do not fit."""


class GradientError(CellwrightError):
    """A gradient that does not agree with finite differences."""


class TargetError(CellwrightError):
    """A target that does not exist or cannot run on this machine."""


class DataError(CellwrightError):
    """Text, data or a model file that is missing, empty, damaged, badly encoded, too short or not supported."""


class RunError(CellwrightError):
    """A run folder that is absent, damaged, edited or of another version."""
