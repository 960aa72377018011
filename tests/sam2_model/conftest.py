"""What every test of the package begins with."""

from __future__ import annotations

import pytest

from tests.sam2_model import threads


@pytest.fixture(autouse=True)
def threads_at_start() -> None:
    threads.mark_start()
