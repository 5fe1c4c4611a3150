"""The tiny world, made once."""

import pytest
import torch

from tests.referee.tiny import World, world


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return world(tmp_path_factory.mktemp("tiny"))
