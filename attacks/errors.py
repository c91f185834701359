"""The one exception that means: the caller's input is wrong, not the program; and how other exceptions are quoted."""

import textwrap

_LONGEST = 300
_IN_TORCHSCRIPT = "The following operation failed in the TorchScript interpreter"
"""How TorchScript begins its messages; what went wrong stands in their last line."""


class InputError(ValueError):
    """A mistake that the user can mend. Its message is one line: expected, got, remedy.

    The command line prints it without a traceback and exits with 2. Every other exception is a defect of ours.
    """


def one_line(error: BaseException) -> str:
    """An exception of the user's code in one line: its class, and its message, cut after `_LONGEST` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith(_IN_TORCHSCRIPT):
        return lines[-1]
    return f"{type(error).__name__}: {textwrap.shorten(' '.join(lines), _LONGEST, placeholder=' ...')}"
