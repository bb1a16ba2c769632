"""Every bad input that we could think of ends in the one sentence that the book's table shows for it."""

from pathlib import Path

import pytest
from bad_inputs import CASES, BadInput, sentence_of

from selectormlp.data import reference_table


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], str]:
    """The stored sentence of each case."""
    stored = reference_table("faults/bad_inputs")
    return {(row.kind, row.what): row.sentence for row in stored.itertuples()}


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.what)
def test_the_sentence_is_the_one_in_the_table(bad: BadInput, table: dict[tuple[str, str], str], tmp_path: Path) -> None:
    sentence = sentence_of(bad, tmp_path.resolve())
    assert "\n" not in sentence and len(sentence) < 400
    assert sentence == table.get((bad.kind, bad.what)), "after a change: python tests/bad_inputs.py --write"


def test_the_table_has_a_row_for_each_case(table: dict[tuple[str, str], str]) -> None:
    assert len(CASES) == len({bad.what for bad in CASES}) >= 120
    assert {(bad.kind, bad.what) for bad in CASES} == set(table)
