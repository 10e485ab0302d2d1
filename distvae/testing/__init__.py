"""The laws that families of models, E-steps and data keep, for the tests of other packages.

A law of models and E-steps takes a `Case` and raises an AssertionError where it is broken.
`check_model` checks all laws that apply. With pytest, derive a test class from `ModelLaws`. The
laws of data are in `distvae.testing.data`. None of this imports pytest.
"""

from distvae.testing.case import Case
from distvae.testing.data import DATA_LAWS
from distvae.testing.esteps import ESTEP_LAWS
from distvae.testing.models import MODEL_LAWS
from distvae.testing.suite import ModelLaws, check_model

__all__ = ["DATA_LAWS", "ESTEP_LAWS", "MODEL_LAWS", "Case", "ModelLaws", "check_model"]
