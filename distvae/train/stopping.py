"""The exceptions that end a training early."""


class Interrupted(Exception):
    """Training was asked to stop, and stopped between two batches."""


class Diverged(ArithmeticError):
    """The objective is no longer finite."""


def diverged(where: str) -> Diverged:
    """Return the error that says which objective is no longer finite, and what may help."""
    return Diverged(f"the objective {where}; a smaller train.rate may help, or train.clip")
