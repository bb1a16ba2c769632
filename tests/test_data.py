"""Contracts of selectormlp.data: every kind of file, checks, the sentences of errors, and writing whole."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

from selectormlp import data, files, identity, readers

GENES = ["INS", "GCG", "SST", "PPY", "KRT19"]


@pytest.fixture
def cells() -> anndata.AnnData:
    """Twelve cells x five genes, raw counts, two types."""
    counts = np.random.default_rng(0).poisson(2.0, (12, 5)).astype(np.float32)
    counts[:, 0] += 1  # no cell is empty
    obs = pd.DataFrame({"cell_type": ["alpha"] * 5 + ["beta"] * 7}, index=[f"cell{i}" for i in range(12)])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def pancreas() -> anndata.AnnData:
    return data.load_pancreas()


@pytest.fixture(scope="module")
def ready(pancreas: anndata.AnnData) -> anndata.AnnData:
    return data.prepare_cells(pancreas, "cell_type", min_cells=20)


def refusal(function, *arguments, **options) -> str:
    """The message of an InputError: one line, one sentence."""
    with pytest.raises(data.InputError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 600
    assert not re.search(r"[a-z]\. [A-Z]", sentence), f"more than one sentence: {sentence}"
    assert ";" in sentence, f"no way out: {sentence}"
    return sentence


def gzipped(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def write_10x_h5(cells: anndata.AnnData, path: Path) -> None:
    """A file as Cell Ranger 3 writes it."""
    matrix = sparse.csr_matrix(cells.X)  # one row for each barcode
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(list(cells.obs_names), dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data.astype("i4"), matrix.indices, matrix.indptr
        group["shape"] = np.array(cells.shape[::-1])
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i}" for i in range(cells.n_vars)], dtype="S")
        features["name"] = np.array(list(cells.var_names), dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * cells.n_vars, dtype="S")
        features["genome"] = np.array(["GRCh38"] * cells.n_vars, dtype="S")


def write_10x_folder(cells: anndata.AnnData, folder: Path, *, legacy=False, packed=False, prefix="") -> Path:
    folder.mkdir()
    mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(cells.X.T.astype(np.int64)))
    genes = pd.DataFrame({"id": [f"ENSG{i}" for i in range(cells.n_vars)], "name": cells.var_names})
    if not legacy:
        genes["type"] = "Gene Expression"
    genes.to_csv(folder / f"{prefix}{'genes' if legacy else 'features'}.tsv", sep="\t", header=False, index=False)
    pd.Series(cells.obs_names).to_csv(folder / f"{prefix}barcodes.tsv", header=False, index=False)
    if packed:
        for file in list(folder.iterdir()):
            gzipped(file)
    return folder


def assert_same_counts(found: anndata.AnnData, expected: anndata.AnnData) -> None:
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    assert found.var_names.tolist() == expected.var_names.tolist()
    assert (found.to_df().to_numpy() == expected.to_df().to_numpy()).all()


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("kind", ["h5ad", "h5ad.gz", "zarr"])
def test_reads_anndata(cells, tmp_path, kind):
    path = tmp_path / f"cells.{kind.removesuffix('.gz')}"
    cells.write_zarr(path) if kind == "zarr" else cells.write_h5ad(path)
    found = readers.read_cells(gzipped(path) if kind.endswith("gz") else path, label_key="cell_type")
    assert_same_counts(found, cells)
    assert found.obs["cell_type"].tolist() == cells.obs["cell_type"].tolist()


def test_reads_a_zarr_folder_of_any_name(cells, tmp_path):
    cells.write_zarr(tmp_path / "atlas")
    assert_same_counts(readers.read_cells(tmp_path / "atlas"), cells)


def test_reads_10x_h5(cells, tmp_path):
    write_10x_h5(cells, tmp_path / "cells.h5")
    assert_same_counts(readers.read_cells(str(tmp_path / "cells.h5")), cells)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM1_"])
def test_reads_10x_folders(cells, tmp_path, legacy, packed, prefix):
    folder = write_10x_folder(cells, tmp_path / "tenx", legacy=legacy, packed=packed, prefix=prefix)
    assert_same_counts(readers.read_cells(folder), cells)
    matrix = next(folder.glob("*matrix.mtx*"))
    assert_same_counts(readers.read_cells(matrix), cells)
    assert sparse.issparse(readers.read_cells(folder).X)


def test_10x_leaves_out_antibodies_and_tells_shared_symbols_apart(cells, tmp_path):
    folder = write_10x_folder(cells, tmp_path / "tenx")
    rows = [["E0", "INS", "Gene Expression"], ["E1", "INS", "Gene Expression"], ["E2", "SST", "Gene Expression"],
            ["E3", "PPY", "Gene Expression"], ["A1", "CD3", "Antibody Capture"]]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "features.tsv", sep="\t", header=False, index=False)
    found = readers.read_cells(folder)
    assert found.var_names.tolist() == ["INS_E0", "INS_E1", "SST", "PPY"]


def test_10x_matrix_of_cells_by_genes_is_read_the_way_that_fits(cells, tmp_path):
    folder = write_10x_folder(cells, tmp_path / "tenx")
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(cells.X.astype(np.int64)))
    assert_same_counts(readers.read_cells(folder), cells)


def test_10x_names_with_a_header_are_refused(cells, tmp_path):
    folder = write_10x_folder(cells, tmp_path / "tenx")
    names = folder / "barcodes.tsv"
    names.write_text("x\n" + names.read_text())
    shape = f"{cells.n_vars} x {cells.n_obs}, but there are names of {cells.n_vars} genes and {cells.n_obs + 1} cells"
    assert shape in refusal(readers.read_cells, folder)


@pytest.mark.parametrize("labels", ["cells.csv", "cells.txt"])
@pytest.mark.parametrize("values", [".", "counts.csv"])
def test_what_r_wrote_is_read_alike(values, labels):
    export = data.data_folder() / "seurat_export"
    found = readers.read_cells(export / values, labels=export / labels, label_key="cell_type")
    assert found.shape == (60, 40) and data.value_kind(found.X) == "raw counts"
    assert found.obs_names[0] == "CELL1-1" and found.var_names[:4].tolist() == ["INS", "GCG", "MT-CO1", "HLA-DRA"]
    totals = np.asarray(found.X.sum(axis=1)).ravel()
    assert (totals == found.obs["nCount_RNA"].astype(int)).all()  # as Seurat counted them itself
    assert found.obs["cell_type"].value_counts().to_dict() == {"alpha": 20, "beta": 20, "T/NK cell": 20}


def test_the_lines_of_r_on_the_page_wrote_the_shipped_files():
    root = Path(__file__).parent.parent
    cells = json.loads((root / "nbs" / "guides" / "from_seurat.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    shown = text.partition("~~~r\n")[2].partition("~~~")[0].splitlines()
    script = (root / "tools" / "make_seurat_export.R").read_text(encoding="utf-8")
    lines = [line for line in shown if line.strip() and not line.startswith(("folder <-", "library"))]
    assert len(lines) >= 6 and [line for line in lines if line not in script] == []


def test_a_label_file_without_a_name_above_the_cells_may_hold_one_column(cells, tmp_path):
    lines = ["cell_type", *(f"{cell}\tT cell" for cell in cells.obs_names)]  # write.table(sep="\t", quote=FALSE)
    (tmp_path / "types.tsv").write_text("\n".join(lines) + "\n")
    found = readers.attach_labels(cells.copy(), str(tmp_path / "types.tsv"), None)
    assert set(found.obs["cell_type"]) == {"T cell"}


def test_10x_folder_must_be_complete(cells, tmp_path):
    folder = write_10x_folder(cells, tmp_path / "tenx")
    (folder / "barcodes.tsv").unlink()
    assert "must hold one barcodes.tsv" in refusal(readers.read_cells, folder)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("packed", [True, False])
def test_reads_tables(cells, tmp_path, separator, ending, packed):
    path = tmp_path / f"cells{ending}"
    cells.to_df().to_csv(path, sep=separator)
    found = readers.read_cells(gzipped(path) if packed else path)
    assert_same_counts(found, cells)
    assert sparse.issparse(found.X) and found.X.format == "csr"


def test_reads_tables_in_parts(tmp_path):
    table = pd.DataFrame(np.eye(2500, 3, dtype=int), index=[f"c{i}" for i in range(2500)], columns=["A", "B", "C"])
    table.to_csv(tmp_path / "many.csv")
    assert (readers.read_cells(tmp_path / "many.csv").to_df() == table).all(axis=None)


def test_reads_a_table_as_r_writes_it(cells, tmp_path):
    text = cells.to_df().astype(int).to_csv()
    (tmp_path / "r.csv").write_text(text.removeprefix(","))  # no name above the first column
    assert_same_counts(readers.read_cells(tmp_path / "r.csv"), cells)


def test_a_table_keeps_a_gene_that_occurs_twice(tmp_path):
    (tmp_path / "t.csv").write_text(",A,A\nc1,1,2\nc2,3,4\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = readers.read_cells(tmp_path / "t.csv")
    assert "'A' occurs 2 times" in refusal(data.check_cells, found)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("ending", ["csv", "tsv.gz"])
def test_label_files(cells, tmp_path, turned, header, ending):
    table = cells.to_df().T if turned else cells.to_df()
    table.to_csv(tmp_path / "cells.csv")
    labels = tmp_path / f"types.{ending}"
    shuffled = cells.obs.iloc[::-1]
    shuffled.to_csv(labels, sep="\t" if ending.startswith("tsv") else ",", header=header)
    found = readers.read_cells(tmp_path / "cells.csv", labels=labels, label_key="type")
    assert_same_counts(found, cells)
    assert found.obs["type"].tolist() == cells.obs["cell_type"].tolist()


def test_label_file_with_several_columns(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.obs.assign(donor="d1", cluster=3).to_csv(tmp_path / "labels.csv")
    found = readers.read_cells(tmp_path / "cells.h5ad", labels=tmp_path / "labels.csv", label_key="cluster")
    assert found.obs["cluster"].tolist() == ["3"] * 12 and found.obs["donor"].tolist() == ["d1"] * 12
    sentence = refusal(readers.read_cells, tmp_path / "cells.h5ad", labels=tmp_path / "labels.csv", label_key="doner")
    assert "did you mean 'donor'?" in sentence


def test_label_file_of_other_cells_twice_named_or_part(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "other.csv").write_text("cell,type\nX1,alpha\nX2,beta\n")
    assert "'X1'" in refusal(readers.read_cells, tmp_path / "cells.h5ad", labels=tmp_path / "other.csv")
    (tmp_path / "twice.csv").write_text("cell,type\ncell1,alpha\ncell1,beta\n")
    assert "'cell1' more than once" in refusal(
        readers.read_cells, tmp_path / "cells.h5ad", labels=tmp_path / "twice.csv"
    )
    cells.obs.head(9).to_csv(tmp_path / "part.csv")
    found = readers.read_cells(tmp_path / "cells.h5ad", labels=tmp_path / "part.csv", label_key="type")
    assert found.obs["type"].isna().sum() == 3


def test_labels_inside_a_table(cells, tmp_path):
    cells.to_df().assign(kind=cells.obs["cell_type"]).to_csv(tmp_path / "cells.csv")
    found = readers.read_cells(tmp_path / "cells.csv", label_key="kind")
    assert_same_counts(found, cells)
    assert found.obs["kind"].tolist() == cells.obs["cell_type"].tolist()
    assert "column 'kind'" in refusal(readers.read_cells, tmp_path / "cells.csv")


def test_several_files(cells, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    other = cells[:, ["KRT19", "SST", "INS"]].copy()
    other.obs_names = [f"other{i}" for i in range(12)]
    other.obs["donor"] = "d2"
    other.to_df().to_csv(tmp_path / "b.csv")
    other.obs.to_csv(tmp_path / "b_types.csv")
    cells.obs.to_csv(tmp_path / "a_types.csv")
    found = readers.read_cells(
        [tmp_path / "a.h5ad", tmp_path / "b.csv"], labels=[tmp_path / "a_types.csv", tmp_path / "b_types.csv"]
    )
    assert found.var_names.tolist() == ["INS", "SST", "KRT19"]  # the order of the first file
    assert found.obs["file"].tolist() == ["a.h5ad"] * 12 + ["b.csv"] * 12
    assert found.obs["donor"].isna().sum() == 12  # a column of one file is kept
    assert found.obs_names.tolist() == cells.obs_names.tolist() + other.obs_names.tolist()
    assert found.obs["cell_type"].tolist() == cells.obs["cell_type"].tolist() * 2


def test_several_files_that_share_names(cells, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        cells.write_h5ad(tmp_path / folder / "cells.h5ad")
    paths = [tmp_path / "one" / "cells.h5ad", tmp_path / "two" / "cells.h5ad"]
    with pytest.warns(UserWarning, match="share names"):
        found = readers.read_cells(paths)
    assert found.obs_names.is_unique and found.obs_names[0] == "cell0-1" and found.obs_names[-1] == "cell11-2"
    assert found.obs["file"].unique().tolist() == [str(path) for path in paths]
    assert found.X.format == "csr"


def test_several_files_that_do_not_fit(cells, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    data.normalise(cells).write_h5ad(tmp_path / "logged.h5ad")
    other = cells.copy()
    other.var_names = [f"ENSG{i}" for i in range(5)]
    other.write_h5ad(tmp_path / "ids.h5ad")
    assert "share no gene" in refusal(readers.read_cells, [tmp_path / "a.h5ad", tmp_path / "ids.h5ad"])
    assert "log-normalised" in refusal(readers.read_cells, [tmp_path / "a.h5ad", tmp_path / "logged.h5ad"])
    assert "2 label files for 1" in refusal(readers.read_cells, tmp_path / "a.h5ad", labels=["x.csv", "y.csv"])
    refusal(readers.read_cells, [])


# ---------------------------------------------------------------- files that cannot be read


@pytest.mark.parametrize("kind", ["h5ad", "h5ad.gz", "h5", "csv.gz", "zarr", "tenx"])
def test_truncated_files_are_one_sentence(cells, tmp_path, kind):
    path = tmp_path / f"cells.{kind}"
    if kind == "zarr":
        cells.write_zarr(path)
        shutil.rmtree(path / "X")
        for name in ("zarr.json", ".zgroup"):  # of the third and of the second version of the format
            (path / name).write_text("{")
    elif kind == "tenx":
        path = write_10x_folder(cells, tmp_path / "tenx")
        matrix = (path / "matrix.mtx").read_text()
        (path / "matrix.mtx").write_text(matrix[: len(matrix) // 2])
    else:
        {"h5ad": cells.write_h5ad, "h5ad.gz": cells.write_h5ad, "h5": lambda p: write_10x_h5(cells, p),
         "csv.gz": cells.to_df().to_csv}[kind](whole := tmp_path / "whole")  # fmt: skip
        whole = gzipped(whole) if kind.endswith("gz") else whole
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sentence = refusal(readers.read_cells, path)
    assert f"'{path}'" in sentence and "get it again" in sentence


def test_missing_files_suggest_a_neighbour(cells, tmp_path):
    cells.write_h5ad(tmp_path / "pancreas_donor1.h5ad")
    assert "did you mean 'pancreas_donor1.h5ad'?" in refusal(readers.read_cells, tmp_path / "pancreas_doner1.h5ad")
    assert "no folder" in refusal(readers.read_cells, tmp_path / "nowhere" / "cells.h5ad")
    assert "check the path" in refusal(readers.read_cells, tmp_path / "zzz.csv")
    sentence = refusal(readers.read_cells, tmp_path / "pancreas_donor1.h5ad", labels=tmp_path / "types.csv")
    assert "types.csv" in sentence


def test_unknown_kinds_list_the_known_ones(tmp_path):
    (tmp_path / "cells.docx").write_text("x")
    sentence = refusal(readers.read_cells, tmp_path / "cells.docx")
    assert all(ending in sentence for ending in readers._READERS)
    (tmp_path / "empty").mkdir()
    assert "folder of no known kind" in refusal(readers.read_cells, tmp_path / "empty")
    (tmp_path / "none.csv").write_text("")
    assert "no table" in refusal(readers.read_cells, tmp_path / "none.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_right_to_read(cells, tmp_path):
    cells.to_df().to_csv(tmp_path / "cells.csv")
    (tmp_path / "cells.csv").chmod(0)
    assert "no right to read" in refusal(readers.read_cells, tmp_path / "cells.csv")


# ---------------------------------------------------------------- kinds of values


COUNTS = np.array([[0, 3, 1, 40], [2, 0, 0, 7], [5, 1, 0, 9], [0, 0, 0, 0]])
FORMATS = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.lil_matrix, sparse.csr_array]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_raw_counts_of_every_type_and_format(make, dtype):
    assert data.value_kind(make(COUNTS.astype(dtype))) == "raw counts"


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_kinds(make, dtype):
    totals = np.maximum(COUNTS.sum(axis=1, keepdims=True), 1)
    values = {
        "log-normalised": [np.log1p(COUNTS), np.log1p(1e4 * COUNTS / totals), np.log2(1e6 * COUNTS / totals + 1)],
        "normalised, not logged": [1e4 * COUNTS / totals, COUNTS / totals, COUNTS * 1.5],
        "scaled": [COUNTS - COUNTS.mean(axis=0), np.log1p(COUNTS) - 0.01],
    }
    for kind, matrices in values.items():
        for matrix in matrices:
            assert data.value_kind(make(matrix.astype(dtype))) == kind


def test_value_kind_looks_at_every_block(monkeypatch):
    monkeypatch.setattr(data, "_VALUES_PER_BLOCK", 8)
    X = np.zeros((50, 4))
    X[49, 3] = -1
    assert data.value_kind(X) == data.value_kind(sparse.csr_matrix(X)) == "scaled"
    X[49, 3] = np.inf
    assert refusal(data.value_kind, sparse.csr_matrix(X)).startswith("row 49 has the value inf for column 3")


def test_a_huge_sparse_matrix_stays_sparse():
    rows, columns = np.arange(20_000), np.arange(20_000) * 10
    X = sparse.csr_matrix((np.ones(20_000), (rows, columns)), shape=(20_000, 200_000))  # 32 GB as a dense matrix
    assert data.value_kind(X) == "raw counts"


def test_values_that_are_not_numbers():
    assert "not numbers" in refusal(data.value_kind, np.array([["a", "b"]], dtype=object))
    refusal(data.value_kind, np.zeros((0, 3)))
    refusal(data.value_kind, None)


# ---------------------------------------------------------------- checks


def test_check_cells(cells):
    found = data.check_cells(cells, "cell_type")
    assert (found.value_kind, found.n_cells, found.n_genes, found.warnings) == ("raw counts", 12, 5, ())
    assert found.type_counts.to_dict() == {"beta": 7, "alpha": 5} and found.type_counts.index[0] == "beta"
    assert data.check_cells(cells).type_counts is None
    with pytest.raises(AttributeError):
        found.n_cells = 3


def test_empty_cells_genes_and_missing_labels_are_warnings(cells):
    X = cells.X.toarray()
    X[3], X[:, 2] = 0, 0
    cells.X = sparse.csr_matrix(X)
    cells.X.data[0] = 0  # a stored zero is a zero
    cells.obs["cell_type"] = ["nan", None, "", "NaN", "None", "alpha", " alpha ", "alpha"] + ["beta"] * 4
    found = data.check_cells(cells, "cell_type")
    assert [note.split(" ")[0] for note in found.warnings] == ["1", "1", "5"]
    assert found.type_counts.to_dict() == {"beta": 4, "alpha": 3}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(cells, value):
    X = cells.X.toarray()
    X[7, 3] = value
    for matrix in (X, sparse.csr_matrix(X), sparse.csc_matrix(X)):
        cells.X = matrix
        assert refusal(data.check_cells, cells).startswith(f"cell 'cell7' has the value {value} for gene 'PPY'")


def test_repeated_names(cells):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.var_names = ["INS", "INS", "SST", "SST", "SST"]
        assert "gene name 'INS' occurs 2 times" in (sentence := refusal(data.check_cells, cells))
        assert "adata.var_names_make_unique()" in sentence and "more than once: 2" in sentence
        cells.var_names = GENES
        cells.obs_names = ["c"] * 12
        assert "cell name 'c' occurs 12 times" in refusal(data.prepare_cells, cells, "cell_type")


def test_labels_that_cannot_be_used(cells):
    assert "did you mean 'cell_type'?" in refusal(data.check_cells, cells, "Cell type")
    assert "its columns are: cell_type" in refusal(data.check_cells, cells, "zzz")
    cells.obs["one"], cells.obs["none"] = "alpha", None
    assert "one type only, 'alpha'" in refusal(data.check_cells, cells, "one")
    assert "no label at all" in refusal(data.check_cells, cells, "none")
    assert "0 cells" in refusal(data.check_cells, cells[:0], "cell_type")


def test_types_with_too_few_cells(cells):
    cells.obs["cell_type"] = ["alpha"] * 5 + ["beta"] * 5 + ["rare"] * 2
    sentence = refusal(data.check_cells, cells, "cell_type")
    assert "'rare'" in sentence and "2 of the 3 cells" in sentence and "min_cells=3" in sentence
    assert data.check_cells(cells, "cell_type", min_cells=2).type_counts["rare"] == 2
    assert "min_cells=6" in refusal(data.check_cells, cells, "cell_type", min_cells=6)


# ---------------------------------------------------------------- normalising and preparing


def test_normalise_matches_scanpy(cells):
    import scanpy

    theirs = cells.copy()
    scanpy.pp.normalize_total(theirs, target_sum=5e3)
    scanpy.pp.log1p(theirs)
    ours = data.normalise(cells, target_sum=5e3)
    assert ours.X.dtype == np.float32 and ours.X.format == "csr"
    np.testing.assert_allclose(ours.X.toarray(), theirs.X.toarray(), rtol=1e-5)
    assert data.value_kind(cells.X) == "raw counts"


@pytest.mark.parametrize("make", FORMATS[:3] + FORMATS[5:], ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_normalise_takes_every_type_and_format(cells, make, dtype):
    expected = data.normalise(cells).X.toarray()
    cells.X = make(cells.X.toarray().astype(dtype))
    np.testing.assert_allclose(data.normalise(cells).X.toarray(), expected, rtol=1e-6)


def test_normalise_by_kind(cells):
    logged = data.normalise(cells)
    assert (data.normalise(logged).X != logged.X).nnz == 0  # log-normalised values stay
    per_million = cells.copy()
    per_million.X = sparse.csr_matrix(cells.X.multiply(1e6 / cells.X.sum(axis=1)))
    np.testing.assert_allclose(data.normalise(per_million).X.toarray(), logged.X.toarray(), rtol=1e-5)
    scaled = logged.copy()
    scaled.X = logged.X.toarray() - logged.X.toarray().mean(axis=0)
    assert "scaled" in refusal(data.normalise, scaled)
    scaled.layers["counts"] = cells.X
    np.testing.assert_allclose(data.normalise(scaled).X.toarray(), logged.X.toarray(), rtol=1e-6)
    scaled.layers.pop("counts")
    scaled.raw = logged
    assert (data.normalise(scaled).X != logged.X).nnz == 0
    few = scaled[:, ["SST", "INS"]]
    assert data.normalise(few).var_names.tolist() == logged.var_names.tolist()  # raw has all genes
    few.layers["logged"] = logged[:, ["SST", "INS"]].X
    assert data.normalise(few, layer="logged").var_names.tolist() == ["SST", "INS"]


def test_an_empty_cell_stays_empty(cells):
    cells.X = sparse.csr_matrix(np.vstack([np.zeros(5), cells.X.toarray()[1:]]))
    assert data.normalise(cells).X[0].nnz == 0


def test_prepare_cells(cells, caplog):
    cells.obs["cell_type"] = ["alpha"] * 4 + ["beta"] * 4 + ["rare"] * 2 + [None, "nan"]
    assert "'rare'" in refusal_with_warning(cells)
    with pytest.warns(UserWarning, match="2 of 12 cells have no label"), caplog.at_level(logging.INFO, "selectormlp"):
        ready = data.prepare_cells(cells, "cell_type", min_cells=3)
    assert "rare" in caplog.text
    assert ready.obs_names.tolist() == [f"cell{i}" for i in range(8)]
    assert ready.obs["cell_type"].cat.categories.tolist() == ["alpha", "beta"]
    assert data.value_kind(ready.X) == "log-normalised" and ready.X.dtype == np.float32
    assert cells.n_obs == 12 and data.value_kind(cells.X) == "raw counts"


def refusal_with_warning(cells) -> str:
    with pytest.warns(UserWarning, match="no label"):
        return refusal(data.prepare_cells, cells, "cell_type")


@pytest.mark.parametrize("labels", [[1] * 6 + [2] * 6, [1.0] * 6 + [2.0] * 6, pd.Categorical([1] * 6 + [2] * 6)])
def test_number_labels_become_text(cells, labels):
    cells.obs["cluster"] = labels
    assert data.prepare_cells(cells, "cluster").obs["cluster"].tolist() == ["1"] * 6 + ["2"] * 6


def test_prepare_cells_reads_backed_cells(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert data.prepare_cells(backed, "cell_type").n_obs == 12
    backed.file.close()


# ---------------------------------------------------------------- variable genes


def test_variable_genes_match_scanpy(ready):
    import scanpy

    theirs = scanpy.pp.highly_variable_genes(ready, flavor="seurat", n_top_genes=2000, inplace=False)
    ours = data.choose_variable_genes(ready, 2000, flavor="seurat")
    assert len(set(ours)) == 2000
    assert len(set(ours).symmetric_difference(theirs.index[theirs["highly_variable"]])) <= 4  # ties
    scores = theirs.loc[ours, "dispersions_norm"].to_numpy()
    assert (np.diff(scores) < 1e-4).all()  # highest first


def test_variable_genes_above_the_trend_keep_strong_markers(ready):
    assert set(data.choose_variable_genes(ready, 100)) >= {"INS", "GCG", "SST", "PPY"}


@pytest.mark.parametrize("flavor", ["trend", "seurat"])
def test_variable_genes_do_not_depend_on_order(ready, flavor):
    expected = data.choose_variable_genes(ready, 500, flavor=flavor)
    for seed in range(2):
        random = np.random.default_rng(seed)
        mixed = ready[random.permutation(ready.n_obs), random.permutation(ready.n_vars)].copy()
        assert data.choose_variable_genes(mixed, 500, flavor=flavor) == expected


def test_variable_genes_with_constant_genes_and_large_numbers(ready):
    few = ready[:, ready.var_names[:40]].copy()
    X = few.X.toarray()
    X[:, :3] = 0
    X[:, 3] = 1.5
    few.X = sparse.csr_matrix(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genes = data.choose_variable_genes(few, 1000)
        assert data.choose_variable_genes(few, 10) == genes[:10]
    assert sorted(genes) == sorted(few.var_names)
    constant = (X.max(axis=0) == X.min(axis=0)).sum()
    assert constant > 3 and genes[-constant:] == sorted(few.var_names[X.max(axis=0) == X.min(axis=0)])
    few.X = few.X.toarray()
    assert data.choose_variable_genes(few, 1000) == genes  # dense is the same


def test_variable_genes_refuses(cells, ready):
    assert "call normalise first" in refusal(data.choose_variable_genes, cells)
    assert "flavor='best'" in refusal(data.choose_variable_genes, ready, flavor="best")
    assert "n_genes=0" in refusal(data.choose_variable_genes, ready, 0)


# ---------------------------------------------------------------- examples


def test_pancreas(pancreas):
    assert pancreas.shape == (1937, 20125) and pancreas.X.dtype == np.float32 and pancreas.X.format == "csr"
    assert pancreas.obs["cell_type"].value_counts().iloc[[0, -1]].tolist() == [872, 2]
    assert pancreas.uns["source"]["accession"] == "GSE84133"
    file = data.data_folder() / "pancreas.h5ad"
    assert file.stat().st_size < 10_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() in (data.data_folder() / "README.md").read_text()


def test_pbmc68k_and_load_cells(cells, tmp_path):
    blood = readers.load_cells("pbmc68k")
    assert blood.shape == (700, 765) and blood.obs["bulk_labels"].nunique() == 10
    assert data.value_kind(blood.X) == "log-normalised"
    assert data.prepare_cells(blood, readers.EXAMPLES["pbmc68k"].label_key).n_obs == 700
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert_same_counts(readers.load_cells(str(tmp_path / "cells.h5ad"), "cell_type"), cells)
    assert "did you mean 'pancreas'?" in refusal(readers.load_cells, "pancraes")
    assert "pbmc68k" in refusal(readers.load_cells, "zzz")
    assert "there is no layer 'counts'" in refusal(readers.load_cells, "pancreas", layer="counts")
    for name, value in {"labels": "labels.csv", "join": "outer", "make_unique": True}.items():
        assert f"{name} has no effect on the example" in refusal(readers.load_cells, "pancreas", **{name: value})
    for load, label_key in readers.EXAMPLES.values():
        assert callable(load) and isinstance(label_key, str)


def test_fetch_brain_without_a_network(monkeypatch, tmp_path):
    import pooch

    def refuse(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    sentence = refusal(readers.fetch_brain, tmp_path)
    assert (
        readers._BRAIN_URL in sentence
        and readers._BRAIN_SHA256 in sentence
        and str(tmp_path / readers._BRAIN_FILE) in sentence
    )


def test_fetch_brain_takes_a_file_that_is_there(cells, monkeypatch, tmp_path):
    cells.write_h5ad(tmp_path / "brain.h5ad")
    place = gzipped(tmp_path / "brain.h5ad").rename(tmp_path / readers._BRAIN_FILE)
    monkeypatch.setattr(readers, "_BRAIN_SHA256", hashlib.sha256(place.read_bytes()).hexdigest())
    assert_same_counts(readers.fetch_brain(tmp_path), cells)


def test_reference_table():
    bars = data.reference_table("report/figure6_test_accuracy")
    assert {"model", "condition", "mean_per_class_accuracy"} <= set(bars.columns)
    assert len(data.reference_table("report/figure5_masking_curves")) > 50
    assert "did you mean 'report/figure6_test_accuracy'?" in refusal(data.reference_table, "report/figure6_test")


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("ins", ["GCG", "INS"], "INS"), ("hla.dra", ["HLA-DRA"], "HLA-DRA"), ("INSS", ["INS"], "INS"),
        ("SSTR", ["SSTA"], "SSTA"), ("PAX5", ["PAX6"], None), ("CD19", ["CD9", "CD1"], None),
        ("INS", ["LSS", "INSR2"], None), ("CD2", ["CD20"], None), ("CD3X", ["CD33", "CD3"], "CD3"), ("A", [], None),
        ("QZXB", ["QXZB"], "QXZB"), ("PAX65", ["PAX56"], None), ("GC", ["GCG"], None),  # a gene of its own
        ("CD3", ["C3"], None), ("CD20", ["CDK20"], None), ("KI67", ["MKI67"], "MKI67"),
    ],
)  # fmt: skip
def test_a_gene_is_proposed_for_a_slip_of_one_letter_only(name, known, meant):
    said = identity._hint_of(name, known) or ""
    assert said == f"did you mean {meant!r}?" if meant else "did you mean" not in said


def test_nearest_name():
    assert data._nearest_name("alpha", []) is None
    assert data._nearest_name("CELLTYPE", ["donor", "cell type"]) == "cell type"
    assert data._nearest_name("x", ["cell_type"]) is None


# ---------------------------------------------------------------- writing


def test_write_table_and_json(tmp_path):
    table = pd.DataFrame({"gene": ["INS", "GCG"], "importance": [1 / 3, 1e-9]}, index=[5, 6])
    files._write_table(table, tmp_path / "new" / "folder" / "t.csv")
    assert (tmp_path / "new/folder/t.csv").read_text() == "gene,importance\nINS,0.333333\nGCG,1e-09\n"
    value = {"a": np.float32(1.5), "b": np.arange(3), "c": Path("x") / "y", "d": None, "e": "β", "f": pd.Series([1])}
    files._write_json(value, tmp_path / "c.json")
    plain = {"a": 1.5, "b": [0, 1, 2], "c": "x/y", "d": None, "e": "β", "f": [1]}
    assert files._read_json(tmp_path / "c.json") == plain
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["e"] == "β"


def test_a_failed_write_leaves_nothing(tmp_path):
    files._write_json(1, tmp_path / "c.json")
    with pytest.raises(TypeError):
        files._write_json({"a": object()}, tmp_path / "c.json")
    with pytest.raises(RuntimeError), files._write_whole(tmp_path / "c.json") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
        temporary.write_text("half")
        raise RuntimeError
    assert files._read_json(tmp_path / "c.json") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.json"]


def test_no_place_to_write(tmp_path):
    def write(number: int) -> None:
        with files._write_whole(tmp_path / "t.csv") as temporary:
            temporary.write_text("half")
            raise OSError(number, os.strerror(number))

    for number in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        sentence = refusal(write, number)
        assert f"'{tmp_path}'" in sentence and os.strerror(number) in sentence
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        write(errno.ENOENT)  # something else went wrong: not ours to explain
    (tmp_path / "file").write_text("")
    assert "folder" in refusal(files._write_json, 1, tmp_path / "file" / "c.json")
    (tmp_path / "dir" / "c.json").mkdir(parents=True)
    assert "c.json" in refusal(files._write_json, 1, tmp_path / "dir" / "c.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    assert str(tmp_path) in refusal(files._write_json, 1, tmp_path / "c.json")


def test_read_json_refuses(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1')
    assert "config.json" in refusal(files._read_json, tmp_path / "config.json")
    assert "did you mean 'config.json'?" in refusal(files._read_json, tmp_path / "confg.json")
