"""The one exception that means: the caller's input is wrong, not the program."""


class InputError(ValueError):
    """A mistake that the user can mend. Its message is one line: expected, got, remedy.

    The command line prints it without a traceback and exits with 2. Every other exception is a defect of ours.
    """
