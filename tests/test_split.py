"""The split: every type in every part, names that survive any order, and no way to mix the parts up."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from selectormlp.data import InputError
from selectormlp.split import PARTS, CellSplit, part_sizes, read_split, split_batches, split_cells


def cells_of_sizes(sizes: dict[str, int]) -> AnnData:
    """Cells without expression worth the name, so many of each type."""
    labels = np.repeat(list(sizes), list(sizes.values()))
    obs = pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))])
    return AnnData(np.ones((len(labels), 2), dtype=np.float32), obs=obs)


@settings(max_examples=200, deadline=None)
@given(st.integers(3, 30_000), st.integers(1, 6000), st.integers(1, 2000), st.integers(1, 2000))
def test_part_sizes_never_take_more_than_there_is(n_cells: int, train: int, validation: int, test: int) -> None:
    sizes = part_sizes(n_cells, max_train=train, max_validation=validation, max_test=test)
    assert min(sizes.values()) >= 1 and sum(sizes.values()) <= n_cells
    assert sizes["train"] <= train and sizes["validation"] <= validation and sizes["test"] <= test


@pytest.mark.parametrize("n_cells", [7, 70, 3500, 6999, 7000, 50_000])
def test_part_sizes_are_the_reports(n_cells: int) -> None:
    caps = {"train": 5000, "validation": 1000, "test": 1000}
    expected = {part: cap if n_cells >= 7000 else int(cap * n_cells / 7000) for part, cap in caps.items()}
    assert part_sizes(n_cells) == expected


def test_every_type_is_in_every_part_and_no_cell_in_two() -> None:
    split = split_cells(cells_of_sizes({"a": 500, "b": 40, "c": 7}), "cell_type")
    assert split.table["cell"].is_unique
    assert (split.counts() > 0).all(axis=None)
    assert not set(split.cells("train")) & set(split.cells("test"))


def test_order_and_names_of_types_do_not_matter_but_the_seed_does() -> None:
    cells = cells_of_sizes({"a": 100, "b": 60})
    mixed = cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    mixed.obs["cell_type"] = mixed.obs["cell_type"].astype(str).map({"a": "z", "b": "y"})
    one, two = split_cells(cells, "cell_type"), split_cells(mixed, "cell_type")
    for part in PARTS:
        assert set(one.cells(part)) == set(two.cells(part))
    assert set(split_cells(cells, "cell_type", seed=1).cells("test")) != set(one.cells("test"))


def test_without_shuffling_cells_come_in_their_order() -> None:
    split = split_cells(cells_of_sizes({"a": 70, "b": 70}), "cell_type", shuffle=False)
    assert split.cells("train")[:50].tolist() == [f"cell{i}" for i in range(50)]


def test_caps_and_min_cells_have_an_effect() -> None:
    cells = cells_of_sizes({"a": 700, "b": 700, "c": 9})
    assert split_cells(cells, "cell_type", max_train=10, max_validation=4, max_test=2).counts().loc["a"].tolist() == [
        10,
        4,
        2,
    ]
    with pytest.warns(UserWarning, match=r"fewer than 10 cells are left out: c \(9\)"):
        assert split_cells(cells, "cell_type", min_cells=10).dropped_types == {"c": 9}


def test_parts_are_asked_for_by_name_so_they_cannot_be_unpacked_in_another_order() -> None:
    split = split_cells(cells_of_sizes({"a": 70, "b": 70}), "cell_type")
    with pytest.raises(InputError, match="there is no part 'valid'"):
        split.cells("valid")
    with pytest.raises(TypeError):
        train, test, validation = split  # the original's fault


def test_round_trip(tmp_path) -> None:
    split = split_cells(cells_of_sizes({"a": 70, "1": 70}), "cell_type")
    split.to_csv(tmp_path / "split.csv")
    pd.testing.assert_frame_equal(read_split(tmp_path / "split.csv").table, split.table)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("other.csv", "absent.csv"):
        with pytest.raises(InputError):
            read_split(tmp_path / name)


@pytest.mark.parametrize(
    ("sizes", "arguments", "words"),
    [
        ({"a": 50, "b": 5}, {"min_cells": 20}, "1 cell types have 20 cells or more"),
        ({"a": 50, "b": 50}, {"min_cells": 2}, "min_cells must be 3 or more"),
        ({"a": 50, "b": 50}, {"max_test": 0}, "must be 1 or more"),
    ],
)
@pytest.mark.filterwarnings("ignore:types with fewer")
def test_refusals(sizes: dict[str, int], arguments: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        split_cells(cells_of_sizes(sizes), "cell_type", **arguments)


def test_split_of_other_cells_is_refused() -> None:
    split = CellSplit(pd.DataFrame({"cell": ["x"], "cell_type": ["a"], "part": ["train"]}))
    with pytest.raises(InputError, match="the first is 'x'"):
        split.subset(cells_of_sizes({"a": 3, "b": 3}), "train")


def cells_of_donors() -> AnnData:
    """Three types and three donors; donor d alone has the third type, and one cell has no donor."""
    cells = cells_of_sizes({"a": 60, "b": 60, "c": 30})
    donors = np.where(cells.obs["cell_type"] == "c", "d", np.array(["d", "e", "f"])[np.arange(150) % 3]).astype(object)
    cells.obs["donor"] = donors
    cells.obs.loc["cell1", "donor"] = None
    return cells


def test_donors_are_in_the_test_or_in_the_training() -> None:
    cells = cells_of_donors()
    split = split_batches(cells, "cell_type", batch_key="donor", test=["e", "f"])
    donors = {part: set(cells.obs.loc[split.cells(part), "donor"].dropna()) for part in PARTS}
    assert donors == {"train": {"d"}, "validation": {"d"}, "test": {"e", "f"}}
    assert split.table["cell"].is_unique and len(split.cells("test")) == 79  # of 80, one has no donor
    other = split_batches(cells, "cell_type", batch_key="donor", test="e", seed=1, max_test=5)
    assert sorted(other.counts()["test"]) == [0, 5, 5]


def test_a_type_that_only_the_test_donors_have_is_left_out_aloud() -> None:
    with pytest.warns(UserWarning, match="left out: c"):
        split = split_batches(cells_of_donors(), "cell_type", batch_key="donor", test="d")
    assert set(split.table["cell_type"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("g", "there is no batch 'g' in obs\\['donor'\\]; it holds d, e, f"),
        ([], "leaves no cells to test on"),
        (["d", "e", "f"], "cell types|leaves no cells"),
    ],
)
def test_donors_that_cannot_test_are_refused(test: str | list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        split_batches(cells_of_donors(), "cell_type", batch_key="donor", test=test)
