"""Three workers of a team, shared by all tests of training."""

from collections.abc import Iterator

import pytest

from tests.train.crew import Crew, crew_of


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    with crew_of(3) as crew:
        yield crew
