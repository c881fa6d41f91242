"""What the tests of faults share."""

import pytest

from tests.faults.chaos import Chaos

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def chaos():
    """A mail server that gets into whatever trouble it is told."""
    with Chaos() as running:
        yield running
