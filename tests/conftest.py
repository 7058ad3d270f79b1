"""What all tests share."""

import gc
import os
import sys

import pytest

# What takes seconds to import is imported where it is used: the process that hands out tests runs none.


def pytest_collection_finish():
    """Have the garbage collector leave out what is imported by now: looking at it takes a share of each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread():
    """Small models run many times faster on one core than on cores that others use too."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_seed():
    """A run leaves its seed in a variable of the process, which modules read: no test has another's."""
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(autouse=True)
def own_wandb():
    """W&B reads its variables once a process, and ``litscale`` names the commit by one: no test sees another's."""
    yield
    os.environ.pop("WANDB_GIT_COMMIT", None)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder of one run for each module; copy a run before changing it."""
    from module_runs import train

    return train(tmp_path_factory.mktemp("runs"))
