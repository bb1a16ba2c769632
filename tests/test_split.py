"""The split: every type in every part, names that survive any order, and no way to mix the parts up."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from selectormlp.data import InputError
from selectormlp.split import (
    _PARTS,
    CellSplit,
    _draw_lots,
    _part_sizes,
    _usable_cells,
    map_cells,
    plot_cell_map,
    read_split,
    split_batches,
    split_cells,
)


def cells_of_sizes(sizes: dict[str, int]) -> AnnData:
    """Cells without expression worth the name, so many of each type."""
    labels = np.repeat(list(sizes), list(sizes.values()))
    obs = pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))])
    return AnnData(np.ones((len(labels), 2), dtype=np.float32), obs=obs)


@settings(max_examples=200, deadline=None)
@given(st.integers(3, 30_000), st.integers(1, 6000), st.integers(1, 2000), st.integers(1, 2000))
def test_part_sizes_never_take_more_than_there_is(n_cells: int, train: int, validation: int, test: int) -> None:
    sizes = _part_sizes(n_cells, max_train=train, max_validation=validation, max_test=test)
    assert min(sizes.values()) >= 1 and sum(sizes.values()) <= n_cells
    assert sizes["train"] <= train and sizes["validation"] <= validation and sizes["test"] <= test


@pytest.mark.parametrize("n_cells", [7, 70, 3500, 6999, 7000, 50_000])
def test_part_sizes_are_the_reports(n_cells: int) -> None:
    caps = {"train": 5000, "validation": 1000, "test": 1000}
    expected = {part: cap if n_cells >= 7000 else int(cap * n_cells / 7000) for part, cap in caps.items()}
    assert _part_sizes(n_cells) == expected


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
    for part in _PARTS:
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
    donors = {part: set(cells.obs.loc[split.cells(part), "donor"].dropna()) for part in _PARTS}
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


def refusal(function, *arguments, **settings) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


def obs_of_sizes(sizes: dict[str, int]) -> pd.DataFrame:
    """The table of cells alone, which is enough for a split of many."""
    labels = np.repeat(list(sizes), list(sizes.values()))
    return pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(len(labels))])


def test_part_sizes_at_the_edges() -> None:
    assert _part_sizes(3) == _part_sizes(3, max_train=1, max_validation=1, max_test=1) == dict.fromkeys(_PARTS, 1)
    assert _part_sizes(4) == {"train": 2, "validation": 1, "test": 1}
    assert _part_sizes(10**6) == {"train": 5000, "validation": 1000, "test": 1000}
    assert _part_sizes(3, max_train=1, max_validation=9, max_test=1) == dict.fromkeys(_PARTS, 1)
    assert _part_sizes(13, max_train=1, max_validation=1, max_test=100)["test"] == 11  # the largest makes room
    refused = "a type of 2 cells cannot be split into train, validation and test: it needs 3"
    assert refusal(_part_sizes, 2) == refused
    for name, caps in {"max_train": (0, 1000, 1000), "max_test": (5000, 1000, 0)}.items():
        sentence = f"max_train, max_validation and max_test must be 1 or more, whole numbers, not {caps}"
        assert refusal(_part_sizes, 50, **{name: 0}) == sentence


def test_the_lots_are_the_same_in_every_version() -> None:
    lots = _draw_lots(np.array(["cell0", "β", "cell1"]), seed=7)
    assert lots.tolist() == [5436694253692583778, 10970832950945064890, 5363802601680693628]
    assert _draw_lots(pd.Index(["cell1", "cell0"]), seed=7).tolist() == lots[[2, 0]].tolist()
    assert not set(lots) & set(_draw_lots(np.array(["cell0", "β", "cell1"]), seed=8))
    assert _draw_lots(np.array(["cell0"]), seed=2**60).shape == (1,)  # a seed of 19 digits: the last 16 count


def test_defaults_are_the_reports() -> None:
    obs = obs_of_sizes({"a": 7100, "b": 7})
    assert split_cells(obs, "cell_type").counts().loc["a"].tolist() == [5000, 1000, 1000]
    assert split_cells(obs, "cell_type").counts().loc["b"].tolist() == [5, 1, 1]
    explicit = split_cells(obs, "cell_type", shuffle=True, seed=0)
    pd.testing.assert_frame_equal(split_cells(obs, "cell_type").table, explicit.table)
    with pytest.warns(UserWarning) as said:
        split = split_cells(obs_of_sizes({"a": 20, "d": 9, "b": 6, "c": 4}), "cell_type")
    assert [str(one.message) for one in said] == ["types with fewer than 7 cells are left out: b (6), c (4)"]
    assert split.dropped_types == {"b": 6, "c": 4} and set(split.table["cell_type"]) == {"a", "d"}


def test_few_cells_are_kept_where_they_may_be() -> None:
    split = split_cells(obs_of_sizes({"b": 3, "a": 3}), "cell_type", min_cells=3)
    assert split.counts().to_numpy().tolist() == [[1, 1, 1], [1, 1, 1]] and split.dropped_types == {}
    assert split.table.index.tolist() == list(range(6)) and list(split.table) == ["cell", "cell_type", "part"]
    assert split.table["cell_type"].tolist() == ["a"] * 3 + ["b"] * 3
    assert split.table["part"].tolist() == [*_PARTS, *_PARTS]


def test_cells_without_a_label_are_left_out() -> None:
    obs = obs_of_sizes({"a": 20, "b": 20})
    obs.loc["cell3", "cell_type"] = None
    assert "cell3" not in set(split_cells(obs, "cell_type").table["cell"])


@pytest.mark.filterwarnings("ignore:types with fewer")
def test_a_split_says_what_it_cannot_do() -> None:
    obs = obs_of_sizes({"a": 50, "b": 5})
    assert refusal(split_cells, obs, "cell_type", min_cells=20) == (
        "1 cell types have 20 cells or more, and 2 are needed: lower min_cells"
    )
    assert refusal(split_cells, obs, "cell_type", min_cells=2) == (
        "min_cells must be 3 or more, not 2: each part needs a cell of every type"
    )
    assert refusal(_draw_lots, obs.index, seed=-1) == "seed is -1; pass a whole number of 0 or more"
    assert refusal(split_cells, obs.set_axis(["one"] * 55), "cell_type") == (
        "cell names occur more than once, and a split goes by name; call adata.obs_names_make_unique()"
    )
    split = split_cells(cells_of_sizes({"a": 50, "b": 50}), "cell_type")
    assert refusal(split.cells, "valid") == "there is no part 'valid'; the parts are train, validation, test"
    others = cells_of_sizes({"a": 3, "b": 3})
    table = pd.DataFrame({"cell": ["cell0", "y", "x"], "cell_type": "a", "part": "train"})
    assert refusal(CellSplit(table).subset, others, "train") == (
        "2 train cells of the split are not in the data, the first is 'y'; use the data that the split was made from"
    )
    others.obs_names = ["y", "x", "x", "y", "z", "u"]
    assert refusal(CellSplit(table).subset, others, "train").startswith("the cell name 'x' occurs 2 times")


def test_parts_hold_their_cells_in_the_order_of_the_split() -> None:
    cells = cells_of_sizes({"a": 40, "b": 30})
    cells.X = np.arange(140, dtype=np.float32).reshape(70, 2)
    cells.var_names = ["INS", "GCG"]
    split = split_cells(cells, "cell_type", seed=3)
    names = split.table.loc[split.table["part"] == "test", "cell"].tolist()
    assert split.cells("test").tolist() == names == split.subset(cells, "test").obs_names.tolist()
    rows = cells.obs_names.get_indexer(names)
    values, types = split.labelled(cells, "test", "cell_type")
    np.testing.assert_array_equal(values, cells.X[rows])
    assert types.tolist() == cells.obs["cell_type"].iloc[rows].tolist() and types.dtype.kind == "U"
    values, _ = split.labelled(cells, "test", "cell_type", ["GCG"])
    np.testing.assert_array_equal(values, cells.X[rows][:, [1]])


def test_counts_come_with_the_largest_type_first() -> None:
    counts = split_cells(obs_of_sizes({"a": 14, "c": 70, "b": 14}), "cell_type").counts()
    assert counts.index.tolist() == ["c", "a", "b"] and list(counts) == ["train", "validation", "test"]
    assert counts.to_numpy().tolist() == [[50, 10, 10], [10, 2, 2], [10, 2, 2]]
    alike = split_cells(obs_of_sizes({f"type {i:02d}": 7 + 7 * (i % 2) for i in range(40)}), "cell_type").counts()
    assert alike.index.tolist() == [f"type {i:02d}" for i in [*range(1, 40, 2), *range(0, 40, 2)]]
    two = CellSplit(pd.DataFrame({"cell": ["x", "y"], "cell_type": "a", "part": "train"}))
    assert two.counts().loc["a"].tolist() == [2, 0, 0]


def test_a_split_is_read_as_it_was_written(tmp_path) -> None:
    obs = obs_of_sizes({"7": 9, "007": 9}).set_axis(["NA", *(f"{i:03d}" for i in range(17))])
    split = split_cells(obs, "cell_type")
    split.to_csv(tmp_path / "split.csv")
    pd.testing.assert_frame_equal(read_split(str(tmp_path / "split.csv")).table, split.table)
    columns = "cell,cell_type,part\n"
    needs = "it needs the columns cell, cell_type, part and cells of the parts train, validation, test"
    path = tmp_path / "other.csv"
    for text in ("a,b,c\nx,a,train\n", columns + "x,a,train\n", columns + "x,a,train\ny,a,test\nz,a,trial\n"):
        path.write_text(text)
        assert refusal(read_split, path) == (
            f"'{path}' is not a whole split: {needs}; pass a file that CellSplit.to_csv wrote"
        )
    path.write_text(columns + "x,a,train\nz,a,test\ny,a,test\ny,a,validation\n")
    assert refusal(read_split, path) == f"'{path}' names the cell 'y' more than once; split the cells again"
    path.write_text("")
    assert refusal(read_split, path).startswith(f"cannot read '{path}': it is empty; get it again")
    assert refusal(read_split, tmp_path / "splits.csv").startswith(f"'{tmp_path / 'splits.csv'}' does not exist")


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"seed": 3}])
def test_a_split_of_the_usable_cells_is_the_split_of_all(settings: dict) -> None:
    obs = obs_of_sizes({"a": 7100, "b": 50})
    usable = _usable_cells(obs["cell_type"], **settings)
    assert len(usable) == 7050 and usable.equals(obs.index[obs.index.isin(usable)])
    few = split_cells(obs.loc[usable], "cell_type", **settings)
    pd.testing.assert_frame_equal(few.table, split_cells(obs, "cell_type", **settings).table)
    assert len(_usable_cells(obs["cell_type"], most=9, **settings)) == 18


# ------------------------------------------------------------------------------------------------------------ donors


def test_test_donors_give_their_cells_by_lot() -> None:
    obs = obs_of_sizes({"a": 3000, "b": 300})
    obs["donor"] = np.array(["d", "e", "f"])[np.arange(3300) % 3]
    one = split_batches(obs, "cell_type", batch_key="donor", test=["e", "f"])
    assert one.counts()["test"].to_dict() == {"a": 1000, "b": 200}
    assert list(one.table) == ["cell", "cell_type", "part"] and one.table.index.tolist() == list(range(len(one.table)))
    labels = one.table.set_index("cell")["cell_type"]
    assert (labels == obs["cell_type"].loc[labels.index]).all()
    few = {seed: split_batches(obs, "cell_type", batch_key="donor", test="e", max_test=5, seed=seed) for seed in (0, 1)}
    held = obs.index[(obs["donor"] == "e") & (obs["cell_type"] == "b")].to_numpy()
    for seed, split in few.items():
        lowest = held[np.argsort(_draw_lots(held, seed=seed))[:5]]
        chosen = split.table[(split.table["part"] == "test") & (split.table["cell_type"] == "b")]
        assert set(chosen["cell"]) == set(lowest)
    default = split_batches(obs, "cell_type", batch_key="donor", test="e", max_test=5)
    pd.testing.assert_frame_equal(default.table, few[0].table)
    for seed, split in few.items():
        train = split_cells(obs[obs["donor"] != "e"], "cell_type", seed=seed).table
        assert set(split.cells("train")) == set(train.loc[train["part"] != "validation", "cell"])


def test_donors_may_be_numbers_and_cells_may_lack_a_type() -> None:
    obs = obs_of_sizes({"a": 60, "b": 60})
    obs["donor"] = np.arange(120) % 12
    obs.loc["cell0", "cell_type"] = None
    split = split_batches(obs, "cell_type", batch_key="donor", test=[0, 11])
    assert set(obs.loc[split.cells("test"), "donor"]) == {0, 11} and "cell0" not in set(split.table["cell"])
    one = split_batches(obs, "cell_type", batch_key="donor", test="11")
    assert set(obs.loc[one.cells("test"), "donor"]) == {11}


def test_types_without_training_cells_are_named() -> None:
    obs = obs_of_sizes({"a": 40, "b": 40, "c": 8, "d": 8})
    obs["donor"] = np.where(obs["cell_type"].isin(["c", "d"]), "y", np.array(["x", "y"])[np.arange(96) % 2])
    with pytest.warns(UserWarning) as said:
        split = split_batches(obs, "cell_type", batch_key="donor", test="y")
    sentence = "test cells of types that the other batches lack are left out: c, d"
    assert [str(one.message) for one in said] == [sentence]
    assert split.counts()["test"].to_dict() == {"a": 20, "b": 20}


def test_donors_that_there_are_not_are_named() -> None:
    obs = obs_of_sizes({"a": 60, "b": 60})
    obs["donor"] = [f"d{i % 12:02d}" for i in range(120)]
    listed = ["d00", "d01", "d02", "d03", "d04", "d05", "d06", "d07", "d08", "d09"]
    assert refusal(split_batches, obs, "cell_type", batch_key="donor", test="g") == (
        f"there is no batch 'g' in obs['donor']; it holds {', '.join(listed)}"
    )
    for test in ([], sorted(set(obs["donor"]))):
        assert refusal(split_batches, obs, "cell_type", batch_key="donor", test=test) == (
            f"test={test} leaves no cells to test on, or none to train on; name some of {listed}"
        )
    assert refusal(split_batches, obs, "cell_type", batch_key="doner", test="d01") == (
        "batch_key 'doner' is not in adata.obs; did you mean 'donor'?"
    )


# --------------------------------------------------------------------------------------------------------------- map


class StubUMAP:
    """Stands in for umap: takes the first two principal components, and does what umap does to its surroundings."""

    settings: dict

    def __init__(self, n_neighbors: int, *, precomputed_knn: tuple, **settings) -> None:
        StubUMAP.settings = {"n_neighbors": n_neighbors, **settings}
        self.nearest, self.distances = precomputed_knn

    def fit_transform(self, values: np.ndarray) -> np.ndarray:
        import torch

        torch.set_num_threads(torch.get_num_threads() + 1)
        warnings.warn("n_jobs value 1 overridden to 1 by setting random_state", stacklevel=1)
        warnings.warn("precomputed_knn: transforms will be unavailable", stacklevel=1)
        assert StubUMAP.settings.pop("force_approximation_algorithm")  # or umap searches for neighbours itself
        some = values[:50]
        apart = np.sort(np.linalg.norm(some[:, None] - values[None], axis=2), axis=1)
        np.testing.assert_allclose(self.distances[:50], apart[:, : StubUMAP.settings["n_neighbors"]], atol=1e-2)
        np.testing.assert_allclose(
            np.linalg.norm(some[:, None] - values[self.nearest[:50]], axis=2), self.distances[:50], atol=1e-2
        )
        if len(values) > 10_000:
            warnings.warn("many cells", stacklevel=1)
        StubUMAP.settings["components"] = values.shape[1]
        return values[:, :2]


@pytest.fixture
def stub_umap(monkeypatch: pytest.MonkeyPatch) -> type[StubUMAP]:
    pytest.importorskip("scanpy")  # loaded before umap is replaced

    def no_folder() -> None:
        raise RuntimeError("cannot cache function: no locator available")

    slow = SimpleNamespace(enable_caching=no_folder)
    parts = SimpleNamespace(smooth_knn_dist=slow, compute_membership_strengths=slow)
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=StubUMAP, umap_=parts))
    return StubUMAP


def cells_to_map(n_cells: int, n_genes: int) -> AnnData:
    """Cells with names that are not in order."""
    values = np.random.default_rng(0).normal(size=(n_cells, n_genes)).astype(np.float32)
    return AnnData(values, obs=pd.DataFrame(index=[f"cell{(n_cells - i) * 37 % 101}" for i in range(n_cells)]))


@pytest.mark.filterwarnings("error")
def test_the_map_is_of_cells_drawn_by_lot_in_the_order_of_the_data(stub_umap) -> None:
    import torch

    threads, cells = torch.get_num_threads(), cells_to_map(100, 60)
    places = map_cells(cells, n_cells=40, seed=3)
    names = cells.obs_names.to_numpy()
    chosen = np.sort(np.argsort(_draw_lots(names, seed=3))[:40])
    assert places["cell"].tolist() == names[chosen].tolist() and list(places) == ["cell", "umap_1", "umap_2"]
    assert stub_umap.settings == {"n_neighbors": 15, "min_dist": 0.5, "random_state": 3, "components": 39}
    values = cells.X[chosen] - cells.X[chosen].mean(axis=0)
    first, second = np.linalg.svd(values)[1][:2]
    np.testing.assert_allclose(np.linalg.norm(places[["umap_1", "umap_2"]], axis=0), [first, second], rtol=1e-3)
    assert torch.get_num_threads() == threads
    assert "X_pca" not in cells.obsm


@pytest.mark.filterwarnings("error")
def test_a_map_of_few_cells_or_genes_is_drawn_too(stub_umap) -> None:
    assert len(map_cells(cells_to_map(12, 30))) == 12
    assert stub_umap.settings == {"n_neighbors": 11, "min_dist": 0.5, "random_state": 0, "components": 11}
    map_cells(cells_to_map(70, 6))
    assert stub_umap.settings["components"] == 5
    map_cells(cells_to_map(70, 65), n_cells=69)
    assert stub_umap.settings["components"] == 50


def test_a_map_of_very_many_cells_is_one_of_ten_thousand(stub_umap) -> None:
    cells = AnnData(np.eye(10_002, 4, dtype=np.float32))
    assert len(map_cells(cells)) == 10_000
    with pytest.warns(UserWarning, match="many cells"):  # what umap has to say is not swallowed
        map_cells(cells, n_cells=10_001)


def test_the_map_shows_every_type_in_a_colour_of_its_own() -> None:
    import matplotlib.pyplot as plt

    for n_types in (3, 21):
        names = [f"type {i:02d}" for i in range(n_types)]
        types = pd.Series(np.repeat(names[::-1], 2), index=[f"cell{i}" for i in range(2 * n_types)])
        places = pd.DataFrame({"cell": types.index[::-1], "umap_1": np.arange(len(types)), "umap_2": 7.0})
        ax = plot_cell_map(places, types)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == names
        points = [dots.get_offsets().tolist() for dots in ax.collections]
        assert points == [[[2.0 * i, 7.0], [2.0 * i + 1, 7.0]] for i in range(n_types)]
        assert len({tuple(dots.get_facecolor()[0]) for dots in ax.collections}) == n_types
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")
        assert list(ax.get_xticks()) == list(ax.get_yticks()) == []
        plt.close(ax.figure)
    figure, own = plt.subplots()
    before = plt.get_fignums()
    assert plot_cell_map(places, types, own) is own and plt.get_fignums() == before
    plt.close(figure)
