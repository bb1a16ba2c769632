"""What a user can get wrong, one case each, tried through the library's public functions and its command line.

`tests/test_bad_inputs.py` runs every case and compares its sentence with the table `data/faults/bad_inputs.csv`, which
the book shows. After a case or a sentence has changed: python tests/bad_inputs.py --write
"""
# ruff: noqa: E501 (a case is a line)

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import io
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.io import mmwrite
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from selectormlp import cli, data, files, readers, sources
from selectormlp.benchmark import _DataSet, read_benchmark, run_benchmark
from selectormlp.bulk import _prepare_samples, cross_validated_scores, read_samples, score_interval
from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier, make_classifier
from selectormlp.evaluation import _make_judge, compare_panels, confusion_table, score_panel, score_predictions
from selectormlp.masking import masking_curve, predict_masked, random_masking_curve, rank_genes
from selectormlp.panels import GenePanel, panel_from_ranking, read_panel
from selectormlp.peers import LabelledCells, choose_with
from selectormlp.pipeline import GeneSelector
from selectormlp.saving import annotate_cells, load_model, save_model
from selectormlp.selection import extend_panel, select_genes
from selectormlp.simulation import simulate_cells, simulate_to_file
from selectormlp.sources import open_cells, read_blocks
from selectormlp.split import CellSplit, read_split, split_batches, split_cells
from selectormlp.streaming import DiskMatrix
from selectormlp.study import Study, _study_config

TABLE = Path(__file__).resolve().parent.parent / "data" / "faults" / "bad_inputs.csv"
FOLDER = "my_folder"  # stands for the folder of the case in the table
GENES = ["INS", "GCG", "SST", "PPY", "KRT19", "SOX9"]


@dataclass(frozen=True)
class BadInput:
    """One case: the kind of input, what was done, in words, and a function of a folder that does it."""

    kind: str
    what: str
    do: Callable[[Path], object]


CASES: list[BadInput] = []


def case(kind: str, what: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Add the decorated function to the cases."""

    def add(do: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES.append(BadInput(kind, what, do))
        return do

    return add


def several(kind: str, cases: dict[str, Callable[[Path], object]]) -> None:
    """Add cases that one line does."""
    CASES.extend(BadInput(kind, what, do) for what, do in cases.items())


def sentence_of(bad: BadInput, folder: Path) -> str:
    """Do what the case does, and return the sentence that the user sees, with the folder's name replaced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            said = bad.do(folder)
        except data.InputError as error:
            said = str(error)
    if not isinstance(said, str):
        raise AssertionError(f"{bad.what}: taken without a word")
    return re.sub(rf"{re.escape(str(folder))}(/|\b)", rf"{FOLDER}\1", said)


def sentences() -> pd.DataFrame:
    """The table: kind, what, sentence."""
    rows = []
    for bad in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append((bad.kind, bad.what, sentence_of(bad, Path(folder).resolve())))
    return pd.DataFrame(rows, columns=["kind", "what", "sentence"])


# What the cases are made of


def cells(n_cells: int = 60) -> AnnData:
    """Raw counts of two types (alpha, beta) and two donors, six genes."""
    rng = np.random.default_rng(0)
    types = np.array(["alpha", "beta"])[np.arange(n_cells) % 2]
    counts = rng.poisson(2.0, (n_cells, len(GENES))).astype(np.float32) + 1
    counts[types == "alpha", 1] += 9
    obs = pd.DataFrame({"cell_type": types, "donor": "d1"}, index=[f"cell{i}" for i in range(n_cells)])
    obs.loc[obs.index[n_cells // 2 :], "donor"] = "d2"
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))


def with_value(value: float) -> AnnData:
    """Cells, one value of which is changed."""
    found = cells()
    X = found.X.toarray()
    X[7, 3] = value
    found.X = sparse.csr_matrix(X)
    return found


def with_labels(labels: Any, name: str = "cell_type") -> AnnData:
    """Cells with other labels."""
    found = cells()
    found.obs[name] = labels
    return found


def scaled() -> AnnData:
    """Cells whose values are scaled."""
    found = cells()
    X = found.X.toarray()
    found.X = X - X.mean(axis=0)
    return found


def renamed(names: list[str], *, of: str) -> AnnData:
    """Cells with other names of genes or cells."""
    found = cells()
    if of == "genes":
        found.var_names = names
    else:
        found.obs_names = names
    return found


def file_of(folder: Path, found: AnnData | None = None, name: str = "cells.h5ad") -> Path:
    """An .h5ad file of some cells."""
    (cells() if found is None else found).write_h5ad(folder / name)
    return folder / name


def text(folder: Path, name: str, content: str) -> Path:
    """A file that holds a text."""
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def cut(path: Path, share: float = 0.5) -> Path:
    """A file that is cut short."""
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def tenx(folder: Path, *, without: str = "") -> Path:
    """A 10x folder, with or without all of its parts."""
    place, found = folder / "tenx", cells()
    place.mkdir()
    mmwrite(place / "matrix.mtx", sparse.coo_matrix(found.X.T.astype(np.int64)))
    pd.DataFrame({"id": GENES, "name": GENES}).to_csv(place / "features.tsv", sep="\t", header=False, index=False)
    pd.Series(found.obs_names).to_csv(place / "barcodes.tsv", header=False, index=False)
    if without:
        (place / without).unlink()
    return place


def ready() -> AnnData:
    """Cells that are log-normalised and labelled."""
    return data.prepare_cells(cells(), "cell_type")


def other_split() -> CellSplit:
    """A split of cells of other names."""
    return split_cells(renamed([f"other{i}" for i in range(60)], of="cells"), "cell_type")


def select(**settings: Any) -> object:
    """Choose a panel of two genes, or as the settings say."""
    return select_genes(settings.pop("adata", None) or cells(), **{"label_key": "cell_type", "n_genes": 2, **settings})


@functools.cache
def svm() -> LinearSVMClassifier:
    """A fitted model."""
    found = ready()
    return LinearSVMClassifier().fit(found.X, found.obs["cell_type"].to_numpy().astype(str), gene_names=GENES)


def ranking(genes: list[str]) -> pd.DataFrame:
    """A ranking of some genes."""
    return pd.DataFrame({"gene": genes, "importance": 1.0, "rank": range(1, len(genes) + 1)})


def command(folder: Path, line: str) -> str | None:
    """What the command line says in a folder, without its name; None where it is content."""
    said, here = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = cli.main(line.split())
    finally:
        os.chdir(here)
    found = re.search(r"^selectormlp: error: (.*)$", said.getvalue(), re.MULTILINE)
    return found[1] if status == 2 and found and "unforeseen" not in found[1] else None


def after(_: object, then: Callable[[], object]) -> object:
    """Do something else first."""
    return then()


def on_disk(folder: Path, found: AnnData) -> object:
    """Read the cells of a file in blocks."""
    return list(read_blocks(open_cells(file_of(folder, found), label_key="cell_type")))


def without_room(do: Callable[[], object]) -> object:
    """Do something while every disk is full."""
    with patch.object(sources, "disk_usage", lambda place: SimpleNamespace(free=0)):
        return do()


def late(value: float) -> AnnData:
    """More cells than are looked at when a file is opened, the last with an odd value."""
    found = cells(2400)
    X = found.X.toarray()
    X[2300, 3] = value
    found.X = sparse.csr_matrix(X)
    return found


read = readers.read_cells

# Files

several("file", {
    "the name of the file is misspelt": lambda f: after(file_of(f, name="pancreas_donor1.h5ad"), lambda: read(f / "pancreas_doner1.h5ad")),
    "the folder does not exist": lambda f: read(f / "nowhere" / "cells.h5ad"),
    "no file looks like it": lambda f: read(f / "zzz.csv"),
    "an example's name is misspelt": lambda f: readers.load_cells("pancraes"),
    "neither a file nor an example": lambda f: readers.load_cells("zzz"),
    "the file is of an unknown kind": lambda f: read(text(f, "cells.docx", "x")),
    "a folder without cells": lambda f: read(f),
    "a folder that is named like a file": lambda f: after((f / "cells.h5ad").mkdir(), lambda: read(f / "cells.h5ad")),
    "an .h5ad file is cut short": lambda f: read(cut(file_of(f))),
    "an empty .h5ad file": lambda f: read(text(f, "cells.h5ad", "")),
    "a text file is named .h5ad": lambda f: read(text(f, "cells.h5ad", "gene,INS\n")),
    "an .h5ad.gz file that was not packed": lambda f: read(file_of(f).rename(f / "cells.h5ad.gz")),
    "a csv.gz file is cut short": lambda f: read(cut(packed(text(f, "cells.csv", cells().to_df().to_csv())))),
    "an .h5ad file that points outside its own table": lambda f: read(pointing_outside(f)),
    "an HDF5 file that holds no cells": lambda f: read(other_hdf5(f)),
    "an empty csv file": lambda f: read(text(f, "cells.csv", "")),
    "a csv file with a header and no cells": lambda f: read(text(f, "cells.csv", "cell,INS,GCG\n")),
    "a csv file with text among its values": lambda f: read(text(f, "cells.csv", "cell,INS,GCG\nc1,1,low\nc2,2,high\n")),
    "a csv file whose rows differ in length": lambda f: read(text(f, "cells.csv", "cell,INS,GCG\nc1,1,2\nc2,2,3,4,5\n")),
    "a csv file with an empty value": lambda f: data.check_cells(read(text(f, "cells.csv", "cell,INS,GCG\nc1,1,2\nc2,,3\n"))),
    "a 10x folder without its cell names": lambda f: read(tenx(f, without="barcodes.tsv")),
    "a 10x folder without its gene names": lambda f: read(tenx(f, without="features.tsv")),
    "a 10x folder without its matrix": lambda f: read(tenx(f, without="matrix.mtx")),
    "a 10x matrix that is cut short": lambda f: after(cut(tenx(f) / "matrix.mtx"), lambda: read(f / "tenx")),
    "a 10x matrix that ends in zeros, as after a power failure": lambda f: after(append_zeros(tenx(f) / "matrix.mtx"), lambda: read(f / "tenx")),
    "a 10x folder with one cell name too few": lambda f: after(drop_line(tenx(f) / "barcodes.tsv"), lambda: read(f / "tenx")),
    "a .zarr folder whose values are gone": lambda f: data.check_cells(read(zarr_without_values(f))),
    "two files without a gene in common": lambda f: read([file_of(f), file_of(f, renamed([f"ENSG{i}" for i in range(6)], of="genes"), "ids.h5ad")]),
    "counts in one file, logged values in the other": lambda f: read([file_of(f), file_of(f, ready(), "logged.h5ad")]),
    "two label files for one file of cells": lambda f: read(file_of(f), labels=["a.csv", "b.csv"]),
    "an empty list of files": lambda f: read([]),
    "an unknown shipped table": lambda f: data.reference_table("report/figure6_test"),
    "a matrix on disk that is cut short": lambda f: DiskMatrix(cut(file_of(f))),
    "a matrix to train on keeps its values gene by gene": lambda f: DiskMatrix(file_of(f, gene_by_gene())),
    "there is no room for a copy that keeps cells": lambda f: without_room(lambda: on_disk(f, gene_by_gene())),
})  # fmt: skip


def packed(path: Path) -> Path:
    """A file, gzipped."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return target


def other_hdf5(folder: Path) -> Path:
    """An HDF5 file with something else in it."""
    import h5py

    with h5py.File(folder / "cells.h5", "w") as file:
        file["picture"] = np.zeros((2, 2))
    return folder / "cells.h5"


def pointing_outside(folder: Path) -> Path:
    """A file with a gene number that is larger than the number of genes: scipy would crash on it."""
    import h5py

    with h5py.File(path := file_of(folder), "r+") as file:
        file["X/indices"][5] = 10**6
    return path


def append_zeros(path: Path) -> None:
    """Put zero bytes where a file ends: scipy would crash on it."""
    path.write_bytes(path.read_bytes().rstrip() + bytes(9))


def drop_line(path: Path) -> None:
    """Take away the last line of a file."""
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n")


def zarr_without_values(folder: Path) -> Path:
    """A .zarr folder, the values of which were not copied."""
    cells().write_zarr(folder / "cells.zarr")
    shutil.rmtree(folder / "cells.zarr" / "X")
    return folder / "cells.zarr"


def gene_by_gene() -> AnnData:
    """Cells as CSC."""
    found = cells()
    found.X = sparse.csc_matrix(found.X)
    return found


# Labels

several("labels", {
    "the label column is misspelt": lambda f: data.prepare_cells(cells(), "celltype"),
    "no label column looks like it": lambda f: data.check_cells(cells(), "zzz"),
    "the cells have no columns at all": lambda f: data.check_cells(AnnData(cells().X), "cell_type"),
    "the file has no such label column": lambda f: read(file_of(f), label_key="celltype"),
    "the label file does not exist": lambda f: read(file_of(f), labels=f / "types.csv"),
    "the label file is of other cells": lambda f: read(file_of(f), labels=text(f, "types.csv", "cell,type\nX1,alpha\nX2,beta\n")),
    "the label file names a cell twice": lambda f: read(file_of(f), labels=text(f, "types.csv", "cell,type\ncell1,alpha\ncell1,beta\n")),
    "the label file is empty": lambda f: read(file_of(f), labels=text(f, "types.csv", "")),
    "the label file has only cell names": lambda f: read(file_of(f), labels=text(f, "types.csv", "cell\ncell1\ncell2\n")),
    "the label file lacks the label column": lambda f: read(file_of(f), labels=text(f, "types.csv", "cell,donor,cluster\ncell1,d1,1\n"), label_key="doner"),
    "all labels are missing": lambda f: data.prepare_cells(with_labels(np.nan), "cell_type"),
    "all labels say 'nan'": lambda f: data.prepare_cells(with_labels(["nan", "None", ""] * 20), "cell_type"),
    "there is one type only": lambda f: data.prepare_cells(with_labels("alpha"), "cell_type"),
    "a type has too few cells": lambda f: data.prepare_cells(with_labels(["rare"] + ["alpha", "beta"] * 29 + ["alpha"]), "cell_type"),
    "the only type has fewer cells than asked for": lambda f: data.prepare_cells(with_labels("alpha"), "cell_type", min_cells=1000),
    "no type has as many cells as asked for": lambda f: data.prepare_cells(cells(), "cell_type", min_cells=1000),
    "a file on disk lacks the label column": lambda f: open_cells(file_of(f), label_key="celltype"),
    "every cell is a type of its own": lambda f: data.prepare_cells(with_labels([f"t{i}" for i in range(60)]), "cell_type"),
})  # fmt: skip

# Values

several("values", {
    "a value is NaN": lambda f: data.check_cells(with_value(np.nan)),
    "a value is infinite": lambda f: data.prepare_cells(with_value(np.inf), "cell_type"),
    "a negative count": lambda f: data.normalise(with_value(-1)),
    "scaled values, and nothing keeps those from before": lambda f: select_genes(scaled(), "cell_type", 2),
    "the table has no values, only cells": lambda f: data.check_cells(AnnData(obs=cells().obs, var=cells().var)),
    "there is no cell": lambda f: data.check_cells(cells()[:0], "cell_type"),
    "there is no gene": lambda f: data.prepare_cells(cells()[:, :0], "cell_type"),
    "the values are text": lambda f: data.value_kind(np.array([["low", "high"]], dtype=object)),
    "values that are text in a file of counts": lambda f: data.check_cells(AnnData(np.array([["a", "b"]] * 3, dtype=object))),
    "the values are complex numbers": lambda f: data.value_kind(np.ones((2, 2), dtype=complex)),
    "counts where logged values are needed": lambda f: data.choose_variable_genes(cells()),
    "only scaled values in a file on disk": lambda f: on_disk(f, scaled()),
    "a NaN far down in a file on disk": lambda f: on_disk(f, late(np.nan)),
    "negative values far down in a file on disk": lambda f: on_disk(f, late(-1)),
    "half counts far down in a file on disk": lambda f: on_disk(f, late(0.5)),
    "every cell is empty": lambda f: select(adata=AnnData(sparse.csr_matrix((60, 6)), obs=cells().obs, var=cells().var)),
})  # fmt: skip

# Names of cells and genes

several("names", {
    "a gene occurs twice": lambda f: data.prepare_cells(renamed(["INS", "INS", *GENES[2:]], of="genes"), "cell_type"),
    "cells share a name": lambda f: data.check_cells(renamed(["cell1"] * 60, of="cells")),
    "cells that are split share a name": lambda f: split_cells(renamed(["cell1"] * 60, of="cells"), "cell_type"),
    "a gene occurs twice in a file on disk": lambda f: open_cells(file_of(f, renamed(["INS", "INS", *GENES[2:]], of="genes"))),
})  # fmt: skip

# Splits


def alike() -> AnnData:
    """Sixty times the same cell."""
    found = cells()
    found.X = sparse.csr_matrix(np.ones(found.shape, dtype=np.float32))
    return found


several("values", {
    "all cells are alike": lambda f: select(adata=alike()),
})  # fmt: skip

several("split", {
    "a split file that does not exist": lambda f: read_split(f / "split.csv"),
    "a table that is no split": lambda f: read_split(text(f, "split.csv", "a,b\n1,2\n")),
    "an empty split file": lambda f: read_split(text(f, "split.csv", "")),
    "a split file without test cells": lambda f: read_split(text(f, "split.csv", "cell,cell_type,part\nc1,a,train\nc2,a,validation\n")),
    "a split file that names a cell twice": lambda f: read_split(text(f, "split.csv", "cell,cell_type,part\nc1,a,train\nc1,a,test\nc2,a,validation\n")),
    "a split of other cells": lambda f: other_split().subset(cells(), "train"),
    "a part that there is not": lambda f: other_split().cells("valid"),
    "too few cells of every type": lambda f: split_cells(cells(6), "cell_type", min_cells=20),
    "a split of types with two cells": lambda f: split_cells(cells(), "cell_type", min_cells=2),
    "no test cells asked for": lambda f: split_cells(cells(), "cell_type", max_test=0),
    "a number of cells that is not a number": lambda f: split_cells(cells(), "cell_type", max_train="all"),
    "a seed that is text": lambda f: split_cells(cells(), "cell_type", seed="seven"),
    "a donor that there is not": lambda f: split_batches(cells(), "cell_type", batch_key="donor", test="d9"),
    "all donors are held out": lambda f: split_batches(cells(), "cell_type", batch_key="donor", test=["d1", "d2"]),
    "no donor is held out": lambda f: split_batches(cells(), "cell_type", batch_key="donor", test=[]),
    "the column of the donors is misspelt": lambda f: split_batches(cells(), "cell_type", batch_key="doner", test="d1"),
})  # fmt: skip

# Genes and panels

several("genes", {
    "a panel file that does not exist": lambda f: read_panel(f / "panel.csv"),
    "an empty panel file": lambda f: read_panel(text(f, "panel.csv", "")),
    "a panel file with a header only": lambda f: read_panel(text(f, "panel.csv", "gene,rank\n")),
    "a panel file without a column of genes": lambda f: read_panel(text(f, "panel.csv", "protein,score\nINS,1\n")),
    "a panel file that names a gene twice": lambda f: read_panel(text(f, "panel.txt", "INS\nGCG\nINS\n")),
    "a panel of genes that the data lack": lambda f: score_panel(["INS", "GGC"], ready(), split_cells(ready(), "cell_type"), "cell_type"),
    "panels to compare, one of which the data lack": lambda f: compare_panels({"a": ["XYZ1"]}, ready(), split_cells(ready(), "cell_type"), "cell_type"),
    "a panel with more genes than a ranking has": lambda f: panel_from_ranking(ranking(GENES), 10),
    "variable genes, none": lambda f: data.choose_variable_genes(ready(), 0),
    "variable genes, two and a half": lambda f: data.choose_variable_genes(ready(), 2.5),
    "variable genes of an unknown flavour": lambda f: data.choose_variable_genes(ready(), 2, flavor="best"),
    "a ranking for other genes than the model has": lambda f: rank_genes(svm(), ["INS"]),
    "a masking curve for a ranking that lacks a gene": lambda f: masking_curve(svm(), ready().X, ready().obs["cell_type"], ranking(GENES[:5])),
    "a masking curve with steps of no gene": lambda f: masking_curve(svm(), ready().X, ready().obs["cell_type"], ranking(GENES), step=0),
    "a masking curve on cells with other genes": lambda f: masking_curve(svm(), ready().X[:, :5], ready().obs["cell_type"], ranking(GENES)),
    "no random orders to compare with": lambda f: random_masking_curve(svm(), ready().X, ready().obs["cell_type"], n_orders=0),
    "a gene to keep that the model does not know": lambda f: predict_masked(svm(), ready().X, ["GCGR"]),
    "more genes of a method than there are": lambda f: choose_with("ANOVA F", labelled(), 10),
    "an unknown method": lambda f: choose_with("ANOVA", labelled(), 2),
    "a judge that there is not": lambda f: _make_judge("logistic"),
    "labels and predictions of different length": lambda f: score_predictions(["a"], ["a", "b"]),
    "a confusion table of nothing": lambda f: confusion_table([], []),
})  # fmt: skip


def labelled() -> LabelledCells:
    """Cells as other methods take them."""
    found = ready()
    return LabelledCells(found.X, found.obs["cell_type"].to_numpy().astype(str), GENES)


# Parameters

several("parameters", {
    "a panel of no genes": lambda f: select(n_genes=0),
    "a panel of -5 genes": lambda f: select(n_genes=-5),
    "a panel of more genes than there are": lambda f: select(n_genes=500),
    "a gene that must be in is not in the data": lambda f: select(must_include=["INSULIN"]),
    "more genes must be in than the panel has": lambda f: select(must_include=GENES[:3]),
    "a gene must be in and is left out": lambda f: select(must_include=["INS"], exclude=["INS"]),
    "a pattern that is not one": lambda f: select(exclude="("),
    "everything is left out": lambda f: select(exclude="^"),
    "no candidate is in the data": lambda f: select(candidates=["TP53", "MYC"]),
    "a setting that there is not": lambda f: select(batch="donor"),
    "a method that there is not": lambda f: select(method="selector_l9"),
    "a number of genes that is a word": lambda f: select(n_genes="ten"),
    "a share above 1": lambda f: select(min_detected=1.5),
    "a negative number of markers": lambda f: select(min_markers=-1),
    "expression below zero is asked for": lambda f: select(max_expression=-1.0),
    "a weight for a type that there is not": lambda f: select(type_weights={"gamma": 3}),
    "a negative weight": lambda f: select(type_weights={"alpha": -1.0}),
    "groups of a type that there is not": lambda f: select(groups={"gamma": "islet"}),
    "groups that tear a type apart": lambda f: select(groups="donor"),
    "markers for each type, from a model's ranking": lambda f: select(method="svm_l1", min_markers=1),
    "the column of the donors is misspelt in a panel": lambda f: select(batch_key="doner"),
    "a panel from disk of more genes than there are": lambda f: select_genes(open_cells(file_of(f)), "cell_type", 500),
    "a panel is extended by -1 genes": lambda f: extend_panel(["INS"], cells(), -1, label_key="cell_type"),
    "a panel is extended by another method": lambda f: extend_panel(["INS"], cells(), 1, label_key="cell_type", method="svm_l1"),
    "a condition that there is not": lambda f: make_classifier("selektor"),
    "a study with an unknown setting": lambda f: _study_config(cells="pancreas", label_key="cell_type", max_epoch=1),
    "a study with an unknown protocol": lambda f: _study_config(cells="pancreas", label_key="cell_type", protocol="fast"),
    "a study with an unknown model": lambda f: _study_config(cells="pancreas", label_key="cell_type", conditions=["mpl"]),
    "a study with a panel of a model that it does not train": lambda f: _study_config(cells="pancreas", label_key="cell_type", conditions=["mlp"], panel_conditions=["svm_l1"]),
    "a study with steps of no gene": lambda f: _study_config(cells="pancreas", label_key="cell_type", step=0),
    "a simulation of two cells": lambda f: simulate_cells(n_cells=2),
    "a simulation with more markers than genes": lambda f: simulate_cells(n_genes=20),
    "a simulation with half a type": lambda f: simulate_cells(n_types=2.5),
    "a simulation with an unknown setting": lambda f: simulate_cells(n_marker_per_type=3),
    "a simulation into a text file": lambda f: simulate_to_file(f / "cells.txt"),
    "a benchmark in which two data sets share a name": lambda f: run_benchmark([data_set(), data_set()], ["ANOVA F"], folder=f),
    "a benchmark without methods": lambda f: run_benchmark([data_set()], [], folder=f),
})  # fmt: skip


def data_set() -> _DataSet:
    """Cells as a benchmark takes them."""
    return _DataSet("mine", cells(), "cell_type", 7)


# Folders

several("folder", {
    "the folder holds another run": lambda f: study_of_another_run(f),
    "the folder of results holds none": lambda f: read_benchmark(f),
    "a file stands where a folder is needed": lambda f: files._write_json(1, text(f, "run", "x") / "config.json"),
    "a folder stands where a file is needed": lambda f: after((f / "c.json").mkdir(), lambda: files._write_json(1, f / "c.json")),
    "a settings file that is not JSON": lambda f: files._read_json(text(f, "config.json", '{"a": 1')),
    "a settings file that is missing": lambda f: after(text(f, "config.json", "{}"), lambda: files._read_json(f / "confg.json")),
    "a panel is written below a file": lambda f: GenePanel(ranking(GENES)).to_csv(text(f, "run", "x") / "panel.csv"),
})  # fmt: skip


def study_of_another_run(folder: Path) -> None:
    """Open a study with another seed than the one in the folder."""
    path, settings = file_of(folder), {"label_key": "cell_type", "n_genes": 6}
    Study(_study_config(cells=str(path), **settings), folder / "run").split()
    Study(_study_config(cells=str(path), seed=5, **settings), folder / "run")


# The command line

SELECT = "select cells.h5ad --label-key cell_type --out panel.csv "


def lines(*given: tuple[str, str]) -> dict[str, Callable[[Path], object]]:
    """Cases of the command line, in a folder that holds a file of cells."""
    return {what: functools.partial(in_folder, line) for what, line in given}


def in_folder(line: str, folder: Path) -> object:
    """Run a command where there is a file of cells and some settings."""
    file_of(folder)
    text(folder, "broken.json", '{"data":')
    text(folder, "list.json", "[1]")
    text(folder, "misspelt.json", '{"n_geens": 5}')
    text(folder, "single.json", '{"must_include": "INS"}')
    text(folder, "section.json", '{"data": {"input_dri": "x"}}')
    text(folder, "value.json", '{"training": {"lr": "fast"}}')
    text(folder, "symbols.csv", "symbol,score\nINS,1\n")
    return command(folder, line)


several("command line", lines(
    ("no command", ""),
    ("a command is misspelt", "selct"),
    ("no cells are named", "select --out panel.csv"),
    ("no label column is named", "select cells.h5ad --out panel.csv"),
    ("a file of cells is misspelt", "select cels.h5ad --label-key cell_type --out panel.csv"),
    ("an option is misspelt", SELECT + "--n-geens 5"),
    ("an option without its value", SELECT + "--seed"),
    ("a word too many", SELECT + "--n-genes 2 again"),
    ("a number of genes that is text", SELECT + "--n-genes many"),
    ("a protocol that there is not", SELECT + "--protocol fast"),
    ("a negative seed", SELECT + "--seed -1"),
    ("more genes than there are", SELECT + "--n-genes 61"),
    ("the result would replace the cells", "select cells.h5ad --label-key cell_type --out cells.h5ad"),
    ("the result lies below a file", "select cells.h5ad --label-key cell_type --out cells.h5ad/panel.csv"),
    ("donors are held out without their column", SELECT + "--test-batches d1"),
    ("a file of candidates without a column of genes", SELECT + "--candidates symbols.csv"),
    ("a panel to extend that does not exist", SELECT + "--extend old.csv"),
    ("settings with an unknown name", "select --config misspelt.json"),
    ("settings with one gene where a list is needed", "select --config single.json"),
    ("settings that are not JSON", "train --config broken.json"),
    ("settings that are a list", "train --config list.json"),
    ("settings with an unknown name in a section", "train --config section.json"),
    ("settings with a value of the wrong kind", "train --config value.json"),
    ("settings that do not exist", "train --config nothing.json"),
    ("a training without its data", "train"),
    ("a report into a file", "report cells.h5ad --label-key cell_type --out cells.h5ad"),
    ("a report with an unknown model", "report cells.h5ad --label-key cell_type --out run --conditions selektor"),
    ("a simulation of two cells, from the command line", "simulate --out new.h5ad --n-cells 2"),
))  # fmt: skip

# Classifiers and their files


def learn(X: Any = None, y: Any = None, **more: Any) -> object:
    """Fit an SVM on the cells, some of which may be given otherwise."""
    found = ready()
    return LinearSVMClassifier(**more.pop("settings", {})).fit(
        found.X if X is None else X, found.obs["cell_type"].to_numpy().astype(str) if y is None else y, **more
    )


several("classifier", {
    "labels of one type only": lambda f: learn(y=np.repeat("alpha", 60)),
    "weights of the cells, one too few": lambda f: learn(sample_weight=np.ones(59)),
    "a cell with a negative weight": lambda f: learn(sample_weight=np.r_[-1, np.ones(59)]),
    "no cell has a weight": lambda f: learn(sample_weight=np.zeros(60)),
    "one gene name too few": lambda f: learn(gene_names=GENES[:5]),
    "a gene name twice": lambda f: learn(gene_names=[*GENES[:5], "INS"]),
    "an unknown protocol": lambda f: learn(settings={"protocol": "fast"}),
    "validation cells of a type that no training cell has": lambda f: learn(validation=(ready().X[:2], ["alpha", "PP"])),
    "a network with a penalty that there is not": lambda f: network(penalty="l3"),
    "a network with half of its cells dropped, twice": lambda f: network(dropout=2),
    "a network with a layer of no units": lambda f: network(hidden_sizes=(8, 0)),
    "all cells are held out": lambda f: network(validation_fraction=1.0),
    "a hidden layer that there is not": lambda f: network().embed(ready().X, layer=7),
    "a gene selector without types": lambda f: GeneSelector(2).fit(ready()),
    "a gene selector with more genes than there are": lambda f: GeneSelector(20, label_key="cell_type").fit(ready()),
    "genes to keep that the cells lack": lambda f: GeneSelector(6, label_key="cell_type").fit(ready()).transform(
        ready()[:, :3]
    ),
})  # fmt: skip


def network(**settings: Any) -> SelectorMLPClassifier:
    """A network of few units, fitted for a moment."""
    quick = {"hidden_sizes": (4,), "max_epochs": 1, "steps_per_epoch": 1, **settings}
    return SelectorMLPClassifier(**quick).fit(ready().X, ready().obs["cell_type"].to_numpy().astype(str))


several("model", {
    "the folder of a model does not exist": lambda f: load_model(f / "models" / "mlp"),
    "a folder that holds no model": lambda f: load_model(f),
    "the description of a model is cut short": lambda f: load_model(broken_model(f)),
    "the weights of a model are cut short": lambda f: load_model(saved(f, lambda m: cut(m / "weights.safetensors"))),
    "the weights of a model are missing": lambda f: load_model(saved(f, lambda m: (m / "weights.safetensors").unlink())),
    "the weights of a model are a link": lambda f: load_model(saved(f, linked)),
    "a model of a newer version": lambda f: load_model(saved(f, described(format_version=99))),
    "a model of an unknown kind": lambda f: load_model(saved(f, described(model="Forest"))),
    "a model with a gene less than its weights": lambda f: load_model(saved(f, described(genes=GENES[:5]))),
    "a model with a setting that would write files": lambda f: load_model(saved(f, described(settings={"log_folder": "/"}))),
    "a model is asked about cells that lack its genes": lambda f: annotate_cells(svm(), cells()[:, :3].copy()),
    "a model is asked about cells that have its answer": lambda f: annotate_cells(svm(), with_labels("x", "predicted_type")),
    "a model is asked about cells with a gene twice": lambda f: annotate_cells(svm(), renamed([*GENES[:5], "INS"], of="genes")),
})  # fmt: skip


def saved(folder: Path, change: Callable[[Path], object]) -> Path:
    """The folder of a saved model, with something changed in it."""
    save_model(svm(), folder / "model")
    change(folder / "model")
    return folder / "model"


def linked(model: Path) -> None:
    """The weights lie elsewhere."""
    (model / "weights.safetensors").rename(model.parent / "elsewhere")
    (model / "weights.safetensors").symlink_to(model.parent / "elsewhere")


def described(**changes: Any) -> Callable[[Path], object]:
    """Other entries in the description of a model."""

    def change(model: Path) -> None:
        files._write_json(files._read_json(model / "config.json") | changes, model / "config.json")

    return change


several("model", lines(
    ("a model that does not exist, from the command line", "predict cells.h5ad --model nowhere --out types.csv"),
))  # fmt: skip


def broken_model(folder: Path) -> Path:
    """A saved model, the description of which is cut short."""
    save_model(svm(), folder / "model")
    cut(folder / "model" / "config.json")
    return folder / "model"


# Tables of samples (chapter 37)


def table(folder: Path, *, name: str = "table.csv", **columns: Any) -> Path:
    """A table of 20 samples with two genes and a phenotype, and other columns in their place or beside them."""
    rng = np.random.default_rng(0)
    genes = {gene: rng.normal(8, 1, 20).round(2) for gene in ("AQP4", "GFAP")}
    whole = {**genes, "smoker": ["yes", "no"] * 10, **columns}
    pd.DataFrame(whole, index=[f"p{i}" for i in range(20)]).to_csv(folder / name, index_label="patient")
    return folder / name


def answers(folder: Path, content: str, **settings: Any) -> object:
    """Read a table with a label file."""
    labels = text(folder, "labels.csv", content)
    return read_samples(table(folder, smoker=1.0), "smoker", labels=labels, **settings)


def judged(model: Any = None, y: Any = None, **settings: Any) -> object:
    """Cross-validate a classifier on 20 samples."""
    X = np.random.default_rng(0).normal(size=(20, 2))
    y = np.array(["no", "yes"] * 10) if y is None else np.array(y)
    return cross_validated_scores(model or GaussianNB(), X, y, **{"positive": "yes", **settings})


def twice(folder: Path, old: str, new: str) -> object:
    """Read a table in which a name was replaced by another."""
    path = table(folder)
    return read_samples(text(folder, "twice.csv", path.read_text().replace(old, new)), "smoker")


LABELS = "patient,smoker\n" + "".join(f"p{i},{'yes' if i % 2 else 'no'}\n" for i in range(20))

several("table of samples", {
    "a column of a table is text": lambda f: read_samples(table(f, sex=["m", "f"] * 10), "smoker"),
    "the phenotype of a table is misspelt": lambda f: read_samples(table(f), "smokes"),
    "the phenotype has one value": lambda f: read_samples(table(f, smoker="yes"), "smoker"),
    "the phenotype is missing for all samples": lambda f: read_samples(table(f, smoker=""), "smoker"),
    "the phenotype has a value for every sample": lambda f: read_samples(table(f, smoker=range(20)), "smoker"),
    "every sample lacks a value": lambda f: read_samples(table(f, AQP4=[1.5, np.nan] * 10, GFAP=[np.nan, 1.5] * 10), "smoker"),
    "every gene lacks a value": lambda f: read_samples(table(f, AQP4=[1.5, np.nan] * 10, GFAP=[np.nan, 1.5] * 10), "smoker", missing="genes"),
    "all columns are constant": lambda f: read_samples(table(f, AQP4=1.5, GFAP=2.5), "smoker"),
    "a value of a table is infinite": lambda f: read_samples(table(f, GFAP=[np.inf, *range(19)]), "smoker"),
    "a gene occurs twice in a table": lambda f: twice(f, "AQP4", "GFAP"),
    "a sample occurs twice in a table": lambda f: twice(f, "p11,", "p10,"),
    "genes lie in neither rows nor columns": lambda f: read_samples(table(f), "smoker", genes_in="sheets"),
    "genes lie in rows, and there is no label file": lambda f: read_samples(table(f), "smoker", genes_in="rows"),
    "the label file of a table is of other samples": lambda f: answers(f, "patient,smoker\nq1,yes\nq2,no\n"),
    "the label file of a table names a sample twice": lambda f: answers(f, LABELS + "p3,yes\n"),
    "the label file of a table lacks the phenotype": lambda f: answers(f, LABELS.replace("smoker", "smokes,age").replace("\np", "\np").replace(",yes", ",yes,1").replace(",no", ",no,2")),
    "values of a table are of an unknown kind": lambda f: read_samples(table(f), "smoker", values="fpkm"),
    "counts that are negative": lambda f: read_samples(table(f, AQP4=[-1.5, *range(19)]), "smoker", values="counts"),
    "neither samples nor genes are left out": lambda f: read_samples(table(f), "smoker", missing="rows"),
    "a table without its phenotype": lambda f: _prepare_samples(cells(), "smoker"),
    "a yes or no of three labels": lambda f: judged(y=["no", "yes", "once", "no"] * 5),
    "a yes that is not among the labels": lambda f: judged(positive="Yes!"),
    "five folds of four samples": lambda f: judged(y=["yes"] * 4 + ["no"] * 16),
    "folds that hold one label only": lambda f: judged(y=["yes"] * 10 + ["no"] * 10, cv=KFold(2)),
    "a model that gives no probabilities": lambda f: judged(LinearSVC()),
    "an interval from one fold": lambda f: score_interval(pd.DataFrame({"roc_auc": [0.9], "n_train": 8, "n_test": 2})),
})  # fmt: skip


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    table = sentences()
    if parser.parse_args().write:
        files._write_table(table, TABLE)
    with pd.option_context("display.max_colwidth", None, "display.width", 250):
        for row in table.itertuples():
            print(f"{row.kind} | {row.what} | {row.sentence}")


if __name__ == "__main__":
    main()
