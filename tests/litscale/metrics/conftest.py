"""Lets the tests of this folder import its helpers; random weights of Inception are written once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    from inception_weights import write_random_weights

    return write_random_weights(tmp_path_factory.mktemp("inception") / "weights.pth")
