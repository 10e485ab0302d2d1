"""Cases that vary others: the quick suite leaves them to the slow one, or both to the long one."""

import pytest


def slow(*values: object) -> list["pytest.ParameterSet"]:
    """Return values of a parameter with which a test belongs to the slow suite."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def long(*values: object) -> list["pytest.ParameterSet"]:
    """Return values of a parameter with which a test belongs to the long suite."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]
