"""What all tests share: one seed, one thread, reproducible properties."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

with warnings.catch_warnings():
    # The first forward-mode derivative imports this part of torch, which warns of its own use of TorchScript.
    warnings.simplefilter("ignore", FutureWarning)
    import torch._decomp.decompositions_for_jvp

settings.register_profile("deqzoo", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("deqzoo")


def pytest_configure() -> None:
    """One thread from the start: fixtures of modules come before those of tests."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Every test starts from the same seed, on one thread, and leaves it at that."""
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)
