"""What ends a command of ``./sluice ctl`` with exit status 1."""


class CtlError(Exception):
    """The text says what is wrong and how to mend it."""
