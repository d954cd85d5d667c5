"""One world for all tests of the probe; they only read it."""

from __future__ import annotations

import pytest

from tests.merging.probe.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("probe"))
