"""Each isolation tier of this machine that shuts anything in."""

from __future__ import annotations

import pytest
from sandboxes import needs

from tools.python.isolation import Tier


@pytest.fixture(params=["full", "landlock"])
def tier(request: pytest.FixtureRequest) -> Tier:
    """`full`, then `landlock`."""
    wanted: Tier = request.param
    needs(wanted)
    return wanted
