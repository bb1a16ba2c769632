"""A few hundred damaged files: every reader reads them or says one sentence (the long run: tests/stress/fuzz.py)."""

from collections import Counter

import pytest
from stress import fuzz

CHEAP = ("h5ad", "h5ad.gz", "zarr", "10x h5", "10x folder", "csv", "tsv.gz", "labels", "split", "panel csv",
         "panel txt", "h5ad on disk", "several on disk", "study config", "train config",
         "model, svm", "model, network")  # fmt: skip


@pytest.mark.parametrize("kind", CHEAP)
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    found = fuzz.try_kind(kind, 15)
    assert {outcome for _, outcome, _ in found} <= {"read", "refused"}, [case for case in found if case[1] == "faults"]


def test_faults_crashes_and_hangs_would_be_seen() -> None:
    """A reader that fails in three ways: each is counted, and none ends the fuzz."""
    found = fuzz.try_kind(fuzz.ITSELF, 4, seconds=2)
    assert Counter(outcome for _, outcome, _ in found) == {"read": 1, "faults": 1, "crashes": 1, "hangs": 1}
