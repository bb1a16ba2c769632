"""Cells on disk: the same split, panel and batches as in memory, and one sentence for files that cannot be used."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix, random_array

from selectormlp import sources
from selectormlp.classifiers import SelectorMLPClassifier
from selectormlp.data import InputError, normalise, prepare_cells
from selectormlp.readers import read_cells
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.sources import (
    OpenCells,
    _available_memory,
    _is_large,
    _processes_that_fit,
    _read_open,
    _summarise_genes,
    _summarise_open,
    _take_cells,
    open_cells,
    read_blocks,
    read_usable,
)
from selectormlp.split import _usable_cells, split_cells
from selectormlp.streaming import DiskMatrix, write_matrix
from selectormlp.training import _WINDOW, _BatchLoader, _CodedCells

KEY = "cell_type"
BY_GENE = ["by gene", "by gene, zarr", "by gene, in raw"]


@pytest.fixture(scope="module")
def cells() -> AnnData:
    adata = simulate_cells(n_cells=3000, n_genes=150, n_types=5, seed=1)
    adata.obs["donor"] = np.where(np.arange(3000) % 3 == 0, "one", "two")
    adata.obs.loc[adata.obs_names[5], KEY] = None
    return adata


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CELLS_PER_READ", 257)
    monkeypatch.setattr(sources, "_VALUES_TOGETHER", 20_000)


@pytest.fixture(scope="module", params=["h5ad", "packed", "zarr", "dense", "raw", "counts", "logged", *BY_GENE])
def stored(request: pytest.FixtureRequest, cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, adata, kind = tmp_path_factory.mktemp("atlas") / "cells.h5ad", cells.copy(), request.param
    scaled = adata.X.toarray() - 1.0
    if kind == "dense":
        adata.X = adata.X.toarray()
    if kind == "raw":
        adata.raw, adata.X = adata.copy(), scaled
    if kind == "counts":
        adata.layers["counts"], adata.X = adata.X.copy(), scaled
    if kind == "logged":
        adata = normalise(adata)
    if kind in BY_GENE:
        adata.X = csc_matrix(adata.X, dtype=np.float64)
    if kind.endswith("in raw"):
        adata.raw, adata.X = adata.copy(), scaled
    if kind.endswith("zarr"):
        path = path.with_suffix(".zarr")
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, compression="gzip" if kind == "packed" else None)
    return path


def test_blocks_are_the_values_of_the_file(stored: Path, cells: AnnData) -> None:
    opened, expected = open_cells(stored, label_key=KEY), normalise(cells)
    seen = []
    for places, block in read_blocks(opened):
        assert block.shape[0] <= 257
        np.testing.assert_allclose(block.toarray(), expected.X[places].toarray(), rtol=1e-6)
        seen.append(places)
    assert np.concatenate(seen).tolist() == list(range(3000))
    rows, genes = np.array([2999, 3, 256, 257]), [str(opened.genes[i]) for i in (7, 0)]
    found = list(read_blocks(opened, rows, genes=genes))
    assert np.concatenate([places for places, _ in found]).tolist() == sorted(rows)
    values = np.vstack([block.toarray() for _, block in found])
    np.testing.assert_allclose(values, expected[sorted(rows), genes].X.toarray(), rtol=1e-6)


@pytest.mark.parametrize("memory", [0, 10**12])
def test_the_panel_from_disk_is_the_panel_from_memory(stored: Path, cells: AnnData, memory: int) -> None:
    rules = {
        "n_variable": 60,
        "must_include": ["gene_003"],
        "exclude": ["^gene_01"],
        "batch_key": "donor",
        "min_markers": 1,
    }
    with pytest.warns(UserWarning, match="no label"):
        expected = select_genes(cells, KEY, 15, **rules)
    with pytest.warns(UserWarning, match="no label"):
        found = select_genes(open_cells(stored), KEY, 15, memory=memory, **rules)
    assert found.genes == expected.genes
    pd.testing.assert_frame_equal(found.split.table, expected.split.table)
    if stored.parent.name != "logged":
        pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-4, check_categorical=False)


@pytest.mark.filterwarnings("ignore:.*no label")
def test_a_window_of_expression_and_candidates_are_kept_on_disk(cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "a.h5ad")
    for rules in (
        {"min_detected": 0.3, "max_expression": 3.0, "n_variable": 40},
        {"candidates": [f"gene_{i:03d}" for i in range(90)]},
    ):
        opened = open_cells(tmp_path / "a.h5ad", label_key=KEY)
        found, expected = select_genes(opened, KEY, 10, memory=0, **rules), select_genes(cells, KEY, 10, **rules)
        assert found.genes == expected.genes
        assert found.settings["left_out"] == expected.settings["left_out"]
        assert found.settings["values"] == expected.settings["values"]


@pytest.mark.filterwarnings("ignore:.*no label")
def test_a_model_ranks_the_genes_that_were_read(cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "a.h5ad")
    rules = {"method": "svm_l1", "n_variable": 30}
    found = select_genes(open_cells(tmp_path / "a.h5ad"), KEY, 10, memory=0, **rules)
    assert set(found.table["reason"]) == {"ranked"} and found.genes == select_genes(cells, KEY, 10, **rules).genes


def test_sums_over_blocks_are_those_of_memory(cells: AnnData, tmp_path: Path) -> None:
    prepared = prepare_cells(cells[cells.obs[KEY].notna()], KEY)
    cells.write_h5ad(tmp_path / "a.h5ad")
    expected = _summarise_genes(prepared, KEY)
    found = _summarise_open(open_cells(tmp_path / "a.h5ad"), prepared.obs[KEY])
    for name in ("mean", "variance", "varying", "highest_mean", "most_detected"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.mean, prepared.X.toarray().mean(axis=0, dtype=np.float64), rtol=1e-5)


def test_usable_cells_are_split_as_all_cells_are(cells: AnnData, tmp_path: Path) -> None:
    labels, caps = cells.obs[KEY].dropna(), {"max_train": 100, "max_validation": 20, "max_test": 20}
    usable = _usable_cells(labels, most=140, seed=3)
    assert len(usable) == labels.value_counts().clip(upper=140).sum()
    for shuffle in (True, False):
        usable = _usable_cells(labels, most=140, shuffle=shuffle, seed=3)
        some, every = (
            split_cells(obs, KEY, shuffle=shuffle, seed=3, **caps).table for obs in (cells.obs.loc[usable], cells.obs)
        )
        pd.testing.assert_frame_equal(some, every)
    cells.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="no label"):
        read = read_usable(open_cells(tmp_path / "a.h5ad"), KEY, most=140, seed=3)
    assert set(read.obs_names) == set(_usable_cells(labels, most=140, seed=3)) and read.n_vars == cells.n_vars


def test_several_files_are_joined_as_in_memory(cells: AnnData, tmp_path: Path) -> None:
    first, second = cells[:1000, :140].copy(), cells[1000:, ::-1][:, :120].copy()
    first.write_h5ad(tmp_path / "one.h5ad")
    second.write_zarr(tmp_path / "two.zarr")
    paths = [tmp_path / "one.h5ad", tmp_path / "two.zarr"]
    opened, joined = open_cells(paths, label_key=KEY), read_cells(paths, label_key=KEY)
    assert opened.genes.tolist() == joined.var_names.tolist() and opened.obs.index.tolist() == joined.obs_names.tolist()
    assert opened.obs["file"].astype(str).tolist() == joined.obs["file"].astype(str).tolist()
    assert opened.n_values == first.X.nnz + second.X.nnz
    some = joined.obs_names[[5, 999, 1000, 2999]]
    assert (_read_open(opened, some).X != joined[some].X).nnz == 0
    with pytest.warns(UserWarning, match="no label"):
        assert select_genes(opened, KEY, 8).genes == select_genes(joined, KEY, 8).genes


def test_cells_of_one_name_in_two_files_are_told_apart(cells: AnnData, tmp_path: Path) -> None:
    for name in ("one", "two"):
        cells[:50].write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.warns(UserWarning, match="share names"):
        opened = open_cells([tmp_path / "one.h5ad", tmp_path / "two.h5ad"])
    assert opened.obs.index[50].endswith("-2") and opened.obs.index.is_unique


def test_labels_and_columns_are_read_as_asked(cells: AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "a.h5ad")
    assert open_cells(tmp_path / "a.h5ad", label_key=KEY, columns=[]).obs.columns.tolist() == [KEY]
    table = pd.DataFrame({"cell": cells.obs_names, "kind": np.where(np.arange(3000) < 9, "x", "y")})
    table.to_csv(tmp_path / "labels.csv", index=False)
    opened = open_cells(tmp_path / "a.h5ad", label_key="kind", labels=tmp_path / "labels.csv", columns=[])
    assert opened.obs["kind"].value_counts().to_dict() == {"x": 9, "y": 2991}


def _written(adata: AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda adata: setattr(adata, "X", adata.X.toarray() - 1.0), "only scaled values"),
        (lambda adata: setattr(adata, "var_names", ["g"] * adata.n_vars), "the gene name 'g' occurs 150 times"),
        (lambda adata: setattr(adata, "obs_names", ["c"] * adata.n_obs), "the cell name 'c' occurs 3000 times"),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(cells: AnnData, tmp_path: Path, spoil, sentence: str) -> None:
    adata = cells.copy()
    spoil(adata)
    with pytest.raises(InputError, match=sentence):
        open_cells(_written(adata, tmp_path / "a.h5ad"))


@pytest.mark.parametrize(
    ("value", "sentence"), [(np.nan, "has the value nan"), (-1.0, "scaled"), (0.5, "but the first cells hold raw")]
)
def test_values_that_differ_later_in_the_file_are_refused(
    cells: AnnData, tmp_path: Path, value: float, sentence: str
) -> None:
    adata = cells.copy()
    adata.X = csr_matrix(adata.X)
    adata.X[2500, 3] = value
    opened = open_cells(_written(adata, tmp_path / "a.h5ad"), label_key=KEY)
    with pytest.raises(InputError, match=sentence):
        list(read_blocks(opened))


def test_other_refusals(cells: AnnData, tmp_path: Path) -> None:
    path = _written(cells, tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="label_key 'kind' is not in"):
        open_cells(path, label_key="kind")
    assert len(open_cells(_as_csv(tmp_path / "a.csv")).obs) == 1  # read whole
    with pytest.raises(InputError, match="does not exist"):
        open_cells(tmp_path / "b.h5ad")
    other = cells.copy()
    other.var_names = [f"other_{i}" for i in range(other.n_vars)]
    with pytest.raises(InputError, match="share no gene"):
        open_cells([path, _written(other, tmp_path / "c.h5ad")])
    with pytest.raises(InputError, match="different kinds"):
        open_cells([path, _written(normalise(cells), tmp_path / "d.h5ad")])
    (tmp_path / "e.h5ad").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot read"):
        open_cells(tmp_path / "e.h5ad")


def _as_csv(path: Path) -> Path:
    path.write_text("cell,a\nx,1\n")
    return path


def test_large_files_are_read_from_disk(cells: AnnData, tmp_path: Path) -> None:
    path = _written(cells, tmp_path / "a.h5ad")
    assert isinstance(_take_cells(path), AnnData) and isinstance(_take_cells(path, on_disk="no", memory=0), AnnData)
    assert isinstance(_take_cells([_as_csv(tmp_path / "a.csv")], memory=0), AnnData)
    for how in ({"memory": 0}, {"on_disk": "yes"}):
        assert isinstance(_take_cells(path, **how), OpenCells)
    assert not _is_large(path) and _is_large([path, path], memory=0) and _is_large(path, on_disk="yes")
    with pytest.raises(InputError, match="on_disk is 'maybe'"):
        _take_cells(path, on_disk="maybe")


@pytest.mark.parametrize("form", [csr_matrix, csc_matrix, csr_matrix.toarray])
def test_what_is_stored_decides_whether_a_file_is_large(cells: AnnData, tmp_path: Path, form) -> None:
    adata = AnnData(form(cells.X))
    path = _written(adata, tmp_path / "a.h5ad")
    needed = 8 * sources._COPIES * cells.X.nnz + (4 * cells.X.shape[0] * cells.X.shape[1]) * isinstance(
        adata.X, np.ndarray
    )
    assert _is_large(path, memory=round(0.95 * needed)) and not _is_large(path, memory=round(1.05 * needed))
    assert 0.95 < open_cells(path).n_values / cells.X.nnz < 1.05
    adata.raw = adata.copy()
    adata.layers["more"] = cells.X.copy()
    again = _written(adata, tmp_path / "b.h5ad")
    assert _is_large(again, memory=round(1.05 * needed))


@pytest.mark.parametrize(
    ("form", "density", "cells_per_read"),
    [(lambda x: x, 0.3, 1000), (csc_matrix.toarray, 0.02, 20_000)],
    ids=["by gene", "dense"],
)
def test_other_forms_are_read_in_the_memory_of_a_few_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form, density: float, cells_per_read: int
) -> None:
    monkeypatch.setattr(sources, "_VALUES_TOGETHER", 100_000)
    monkeypatch.setattr(sources, "_CELLS_PER_READ", cells_per_read)
    X = csc_matrix(random_array((20_000, 300), density=density, format="csc", dtype=np.float32, rng=0))
    X.data[:] = 1 + np.arange(X.nnz) % 7
    by_cells = csr_matrix(X)
    usual = _peak(_written(AnnData(by_cells), tmp_path / "a.h5ad"), by_cells)
    more = _peak(_written(AnnData(form(X)), tmp_path / "b.h5ad"), by_cells) - usual
    assert more < 0.25 * (4 * np.prod(X.shape) if density < 0.1 else X.data.nbytes + X.indices.nbytes), more


def _peak(path: Path, expected: csr_matrix) -> int:
    """Most bytes held at a time while a file is opened and read in blocks, which are as expected."""
    tracemalloc.start()
    for places, block in read_blocks(open_cells(path), raw=True):
        assert (block != expected[places]).nnz == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_copy_of_a_file_kept_by_genes_is_said_and_leaves_nothing(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(AnnData(csc_matrix(cells.X)), tmp_path / "a.h5ad")
    monkeypatch.delenv("TMPDIR", raising=False)
    with pytest.warns(UserWarning, match=rf"gene by gene .* temporary file in '{tmp_path}'") as said:
        opened = open_cells(path)
    assert [warning.filename for warning in said] == [__file__]
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5ad"]
    assert len(list(read_blocks(opened))) == 12
    monkeypatch.setenv("TMPDIR", str(tmp_path.parent))
    with pytest.warns(UserWarning, match=rf"temporary file in '{tmp_path.parent}'"):
        open_cells(path)
    monkeypatch.setattr(sources, "disk_usage", lambda place: SimpleNamespace(free=10**5))
    with pytest.raises(InputError, match=r"needs 2 MB; set TMPDIR to a folder with so much room"):
        open_cells(path)


@pytest.mark.parametrize("spoilt", ["indices", "indptr"])
def test_a_broken_file_kept_by_genes_is_refused(cells: AnnData, tmp_path: Path, spoilt: str) -> None:
    path = _written(AnnData(csc_matrix(cells.X)), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        file[f"X/{spoilt}"][5] = 10**6
    with pytest.raises(InputError, match="cannot read"):
        open_cells(path)


def test_processes_are_as_many_as_memory_and_cells_call_for(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (AnnData(csr_matrix(np.ones((n, 2), dtype=np.float32))) for n in (100, 20_000))
    monkeypatch.setattr(sources, "_available_memory", lambda: 9 * sources._PROCESS_MEMORY)
    assert _processes_that_fit(few) == 1 and _processes_that_fit(many) == 4
    monkeypatch.setattr(sources, "_available_memory", lambda: 10**6)
    assert _processes_that_fit(many) == 1 < _available_memory()


@pytest.fixture
def matrix(cells: AnnData, tmp_path: Path) -> tuple[DiskMatrix, AnnData]:
    labelled = prepare_cells(cells[cells.obs[KEY].notna()], KEY)
    path = _written(cells, tmp_path / "a.h5ad")
    genes = labelled.var_names[::2].tolist()
    written = write_matrix(open_cells(path, label_key=KEY), labelled.obs_names, genes, tmp_path / "train.h5ad")
    return written, labelled[:, genes].copy()


def test_a_matrix_on_disk_is_that_in_memory(matrix: tuple[DiskMatrix, AnnData]) -> None:
    on_disk, cells = matrix
    assert on_disk.shape == cells.shape and anndata.read_h5ad(on_disk.path).obs_names.equals(cells.obs_names)
    rng = np.random.default_rng(0)
    for rows in (
        np.array([5]),
        rng.permutation(cells.n_obs)[:700],
        np.arange(cells.n_obs),
        cells.obs[KEY] == "type_01",
    ):
        rows = np.asarray(rows)
        np.testing.assert_allclose(on_disk[rows].toarray(), cells.X[rows].toarray(), rtol=1e-6)
    scale = rng.uniform(0.5, 2, cells.n_vars)
    np.testing.assert_allclose(on_disk.scaled(scale)[np.arange(9)].toarray(), cells.X[:9].toarray() / scale, rtol=1e-5)
    assert sum(block.shape[0] for block in on_disk.blocks()) == len(on_disk)


def test_every_cell_comes_once_in_a_pass_from_disk(matrix: tuple[DiskMatrix, AnnData]) -> None:
    on_disk, cells = matrix
    codes = np.arange(cells.n_obs)
    loader = _BatchLoader(_CodedCells(on_disk, codes, np.ones(len(codes), np.float32)), batch_size=100, shuffle=True)
    seen = [(x.numpy(), order.numpy()) for x, order, _ in loader]
    orders = np.concatenate([order for _, order in seen])
    assert sorted(orders) == codes.tolist() and not np.array_equal(orders, np.sort(orders))
    for x, order in seen:
        np.testing.assert_allclose(x, cells.X[order].toarray(), rtol=1e-6)
    assert _WINDOW % 64 == 0


def test_training_from_disk_one_cell_a_block_is_training_in_memory(matrix: tuple[DiskMatrix, AnnData]) -> None:
    on_disk, cells = matrix
    y, genes = cells.obs[KEY].to_numpy().astype(str), cells.var_names
    held = np.arange(len(y)) % 7 == 0
    validation = (cells.X[held], y[held])
    settings = {"hidden_sizes": (8,), "max_epochs": 2, "steps_per_epoch": 5, "batch_size": 64}
    fitted = [
        SelectorMLPClassifier(**settings).fit(X, y, validation=validation, gene_names=genes)
        for X in (cells.X, DiskMatrix(on_disk.path, block_size=1), on_disk)
    ]
    np.testing.assert_allclose(fitted[1].feature_importances_, fitted[0].feature_importances_, rtol=1e-3)
    assert np.corrcoef(fitted[2].feature_importances_, fitted[0].feature_importances_)[0, 1] > 0.9
    assert (fitted[0].predict(on_disk) == fitted[0].predict(cells.X)).all()


def test_a_matrix_on_disk_is_for_networks_with_validation_cells(matrix: tuple[DiskMatrix, AnnData]) -> None:
    from selectormlp.classifiers import LinearSVMClassifier

    on_disk, cells = matrix
    y = cells.obs[KEY].to_numpy().astype(str)
    with pytest.raises(InputError, match="validation"):
        SelectorMLPClassifier().fit(on_disk, y)
    with pytest.raises(InputError, match="in memory"):
        LinearSVMClassifier().fit(on_disk, y)
    with pytest.raises(InputError, match=r"\d+ cells and 3 labels"):
        SelectorMLPClassifier().fit(on_disk, y[:3], validation=(cells.X, y))


def test_the_file_of_a_matrix_appears_whole(matrix: tuple[DiskMatrix, AnnData], tmp_path: Path) -> None:
    with h5py.File(matrix[0].path) as file:
        assert file.attrs["encoding-type"] == "anndata"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
