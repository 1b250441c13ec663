"""The one exception that reaches the user as a single line."""


class InputError(Exception):
    """Something the user gave, or the machine lacks, makes the work impossible.

    The message is one line: which file or option, what is wrong with it, and what to do.
    Commands print it on standard error and end with exit code 2.
    """
