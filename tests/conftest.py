"""What several tests share, and which files of tests are run when."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

# Files that train networks or compare what processors round differently: `tools/check.py numerics` runs them once more
# as an old processor rounds.
NUMERICS = ("test_classifiers", "test_models", "test_tabnet")
# Files that train for long, run studies, or start processes and environments: `make check` leaves them out, and single
# tests that are marked slow.
SLOW = (
    "test_bad_inputs", "test_benchmark", "test_cli", "test_comparison", "test_determinism", "test_estimators",
    "test_exercises", "test_fuzz", "test_generalisation", "test_interrupt", "test_leakage", "test_package",
    "test_peers", "test_processes", "test_properties", "test_resume", "test_site", "test_stale", "test_streaming",
    "test_study", "test_tabnet", "test_teaching",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks."""
    config.addinivalue_line("markers", "numerics: may rest on rounding; runs with two sets of instructions")
    config.addinivalue_line("markers", "slow: takes more than some seconds; left out by make check")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the files above."""
    for item in items:
        for mark, files in (("numerics", NUMERICS), ("slow", SLOW)):
            if item.path.stem in files:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the checkout."""
    return Path(__file__).resolve().parent.parent
