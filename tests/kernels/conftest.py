import pytest

from tests.processor import set_threads


@pytest.fixture(autouse=True, scope="module")
def threads():
    """All of them, though tests that run side by side have one each."""
    before = set_threads()
    yield
    set_threads(before)
