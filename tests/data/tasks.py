"""A task for processes, in a module that they import quickly."""

import os
import signal

from distvae.files.refusal import Refusal


def end_at_zero(number: int) -> int:
    """Be killed as by the system at zero, and refuse what is below."""
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 0:
        raise Refusal("a negative number")
    return number
