"""Any small table of cells ends in a result that holds, or in one sentence: properties tried on random tables.

`SELECTORMLP_EXAMPLES=2000 python -m pytest tests/test_properties.py` tries that many tables for each property, and
others at every call.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from selectormlp.classifiers import LinearSVMClassifier
from selectormlp.data import InputError, choose_variable_genes, prepare_cells
from selectormlp.masking import masking_curve, rank_genes
from selectormlp.selection import DesignedPanel, select_genes
from selectormlp.sources import open_cells
from selectormlp.split import _PARTS, CellSplit, split_cells

pytestmark = pytest.mark.filterwarnings("ignore")
MORE = int(os.environ.get("SELECTORMLP_EXAMPLES", "0"))
KEY, N_GENES = "type", 3
NAMES: dict[str, Callable[[str, int], str]] = {
    "plain": lambda what, i: f"{what}{i}",
    "not ASCII": lambda what, i: f"β-{what} é{i} 細胞",
    "numbers": lambda what, i: str(i),
    "odd": lambda what, i: f" {what},{i};'\"",
    "repeated": lambda what, i: f"{what}{i // 2}",
}
LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "text": lambda codes: np.array(["α cell", "beta", "3", "NK, T"], dtype=object)[codes],
    "categories": lambda codes: pd.Categorical.from_codes(codes, ["a", "b", "c", "d"]),
    "whole numbers": lambda codes: codes,
    "numbers": lambda codes: codes * 1.0,
    "halves": lambda codes: codes / 2,
    "true or false": lambda codes: codes > 0,
    "some missing": lambda codes: np.array(["a", "b", None, "nan"], dtype=object)[codes],
    "some NaN": lambda codes: np.array([0.0, 1.0, 2.0, np.nan])[codes],
    "gaps in categories": lambda codes: pd.Categorical.from_codes(np.where(codes == 3, -1, codes), ["a", "b", "c"]),
}
MISSING = ("", "nan", "none", "<na>")
DTYPES = ("float32", "float64", "int32", "int64", "uint16")
STORAGES = ("csr", "csc", "dense", "backed")


@dataclass(frozen=True)
class Table:
    """What a random table of cells is drawn from."""

    seed: int
    n_cells: int
    n_genes: int
    n_types: int
    lonely: bool  # one type has one cell
    values: str
    dtype: str
    labels: str
    cell_names: str
    gene_names: str

    def matrix(self) -> np.ndarray:
        """The values, cells x genes, with some constant genes and empty cells."""
        rng = np.random.default_rng(self.seed)
        X = rng.poisson(1.5, (self.n_cells, self.n_genes)) + 6 * (self.codes()[:, None] == np.arange(self.n_genes))
        X[:, rng.random(self.n_genes) < 0.1] = rng.integers(3)
        X[rng.random(self.n_cells) < 0.05] = 0
        odd = {"counts": X, "logged": np.log1p(X), "nothing": X * 0, "scaled": X - 2.0, "huge": X * 1e6}
        found = odd.get(self.values, np.where(rng.random(X.shape) < 0.02, np.nan, X))
        with np.errstate(all="ignore"):
            return found.astype(self.dtype)

    def codes(self) -> np.ndarray:
        """The type of each cell."""
        codes = np.random.default_rng(self.seed + 1).integers(self.n_types, size=self.n_cells)
        codes[0] = 3 if self.lonely else codes[0]
        return codes

    def cells(self, storage: str = "csr", folder: Path | None = None) -> AnnData:
        """The cells, their values stored so; "backed" is an .h5ad file in the folder."""
        X = self.matrix()
        make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}.get(storage, np.asarray)
        obs = pd.DataFrame({KEY: LABELS[self.labels](self.codes())}, index=self.names(self.cell_names, "c", len(X)))
        var = pd.DataFrame(index=self.names(self.gene_names, "g", X.shape[1]))
        if storage != "backed":
            return AnnData(make(X), obs=obs, var=var)
        assert folder is not None
        AnnData(sparse.csr_matrix(X), obs=obs, var=var).write_h5ad(folder / "cells.h5ad")
        return anndata.read_h5ad(folder / "cells.h5ad", backed="r")

    @staticmethod
    def names(kind: str, what: str, n: int) -> list[str]:
        """Names of one kind."""
        return [NAMES[kind](what, i) for i in range(n)]

    def n_varying(self) -> int:
        """How many genes vary."""
        return int((self.matrix().std(axis=0) > 0).sum())

    def expected_labels(self) -> list[str | None]:
        """The labels as text, None where missing: written down here once more."""
        found = []
        for value in list(LABELS[self.labels](self.codes())):
            whole = isinstance(value, float) and value == value and value == int(value)
            text = str(int(value) if whole else value)
            found.append(None if text.lower() in MISSING else text)
        return found


def mostly(usual: str, others: tuple[str, ...]) -> st.SearchStrategy[str]:
    """The usual choice in every second table, any of the others in the rest."""
    return st.one_of(st.just(usual), st.sampled_from(others))


TABLES = st.builds(
    Table,
    seed=st.integers(0, 10**6),
    n_cells=st.integers(2, 60),
    n_genes=st.integers(1, 12),
    n_types=st.integers(1, 4),
    lonely=st.booleans(),
    values=mostly("counts", ("logged", "nothing", "scaled", "huge", "nan")),
    dtype=st.sampled_from(DTYPES),
    labels=st.sampled_from(list(LABELS)),
    cell_names=mostly("plain", tuple(NAMES)),
    gene_names=mostly("plain", tuple(NAMES)),
)
USABLE = st.builds(
    Table,
    seed=st.integers(0, 10**6),
    n_cells=st.integers(40, 80),
    n_genes=st.integers(4, 12),
    n_types=st.integers(2, 3),
    lonely=st.booleans(),
    values=st.sampled_from(("counts", "logged")),
    dtype=st.sampled_from(("float32", "float64")),
    labels=st.sampled_from([name for name in LABELS if name != "true or false"]),
    cell_names=st.sampled_from(("plain", "not ASCII", "odd")),
    gene_names=st.sampled_from(("plain", "not ASCII", "odd")),
)


def tried(n_examples: int) -> Callable[[Any], Any]:
    """Few tables, always the same, or as many new ones as the environment asks for."""
    return settings(
        max_examples=MORE or n_examples,
        derandomize=not MORE,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def or_sentence(do: Callable[[], Any]) -> Any:
    """The result, or the one sentence of an InputError; every other error goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return do()
        except InputError as error:
            sentence = str(error)
            assert sentence and "\n" not in sentence and len(sentence) < 600
            return sentence


def panel_of(adata: AnnData) -> DesignedPanel | str:
    """A panel of the cells, or a sentence."""
    return or_sentence(lambda: select_genes(adata, KEY, N_GENES, n_variable=6))


def check_panel(panel: DesignedPanel, table: Table) -> None:
    """The panel is one: right number, distinct, of the data, with finite figures."""
    names = {name.strip() for name in table.names(table.gene_names, "g", table.n_genes)}
    assert len(panel) == N_GENES == len(set(panel.genes)) and set(panel.genes) <= names
    figures = panel.table.select_dtypes("number")
    assert np.isfinite(figures.to_numpy()).all() and figures["accuracy"].between(0, 1).all()
    assert panel.split is not None
    check_split(panel.split, table)


def check_split(split: CellSplit, table: Table) -> None:
    """Each cell in one part, each type in every part, no cell without a label, and the right types."""
    labels = dict(zip(table.names(table.cell_names, "c", table.n_cells), table.expected_labels(), strict=True))
    assert split.table["cell"].is_unique
    assert [labels[cell] for cell in split.table["cell"]] == split.table["cell_type"].tolist()
    assert (split.counts()[list(_PARTS)] >= 1).all(axis=None)


def state(adata: AnnData) -> tuple[Any, ...]:
    """What of the caller's cells may not change."""
    X = adata.X[:] if adata.isbacked else adata.X
    dense = X.toarray() if sparse.issparse(X) else np.asarray(X)
    form = getattr(X, "format", "dense")
    return form, str(dense.dtype), dense.tobytes(), adata.obs.to_csv(), tuple(adata.var_names), tuple(adata.obs_names)


@tried(60)
@given(table=TABLES)
def test_any_table_gives_results_that_hold_or_one_sentence(table: Table) -> None:
    adata = table.cells()
    before = state(adata)
    prepared = or_sentence(lambda: prepare_cells(adata, KEY, min_cells=3))
    if isinstance(prepared, AnnData):
        labels = dict(zip(adata.obs_names, table.expected_labels(), strict=True))
        assert prepared.obs[KEY].tolist() == [labels[cell] for cell in prepared.obs_names]
        assert (prepared.obs[KEY].value_counts() >= 3).all() and prepared.obs[KEY].notna().all()
        assert prepared.X.dtype == np.float32 and np.isfinite(prepared.X.data).all() and (prepared.X.data >= 0).all()
        split = or_sentence(lambda: split_cells(prepared, KEY))
        if isinstance(split, CellSplit):
            check_split(split, table)
            genes = or_sentence(lambda: choose_variable_genes(split.subset(prepared, "train"), 4))
            assert isinstance(genes, str) or len(set(genes)) == len(genes) == min(4, table.n_genes)
    panel = panel_of(adata)
    if isinstance(panel, DesignedPanel):
        check_panel(panel, table)
    assert state(adata) == before


@tried(25)
@given(table=st.one_of(USABLE, TABLES))
def test_the_storage_of_the_values_changes_nothing(table: Table) -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for storage in STORAGES:
            adata = table.cells(storage, Path(folder))
            before = state(adata)
            panel = panel_of(adata)
            assert state(adata) == before
            found.append(panel.genes if isinstance(panel, DesignedPanel) else panel)
        on_disk = or_sentence(lambda: select_genes(open_cells(Path(folder) / "cells.h5ad"), KEY, N_GENES, n_variable=6))
    assert found == found[:1] * len(STORAGES)
    assert isinstance(on_disk, str) == isinstance(found[0], str)
    if isinstance(on_disk, DesignedPanel):
        assert on_disk.genes == found[0]


@tried(25)
@given(table=USABLE)
def test_usable_tables_give_a_panel_and_not_a_sentence(table: Table) -> None:
    panel = panel_of(table.cells())
    counts = pd.Series(table.expected_labels()).value_counts()
    if (counts >= 7).sum() < 2:
        return
    if isinstance(panel, str):  # it may be refused for one reason only
        assert table.n_varying() < N_GENES and f"a panel of {N_GENES} genes was asked for, and there are" in panel, (
            panel
        )
    else:
        check_panel(panel, table)


@tried(8)
@given(table=USABLE, storage=st.sampled_from(("csr", "dense")))
def test_a_model_of_any_usable_table_ranks_and_masks_each_gene_once(table: Table, storage: str) -> None:
    cells = or_sentence(lambda: prepare_cells(table.cells(storage), KEY, min_cells=3))
    if isinstance(cells, str):
        return
    y = cells.obs[KEY].to_numpy().astype(str)
    X = cells.X if storage == "csr" else cells.X.toarray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearSVMClassifier().fit(X, y, gene_names=cells.var_names.to_numpy())
    ranking = rank_genes(model)
    assert sorted(ranking["gene"]) == sorted(cells.var_names) and np.isfinite(ranking["importance"]).all()
    curve = masking_curve(model, X, y, ranking, step=2)
    assert {0, table.n_genes} <= set(curve["n_genes"]) and curve["accuracy"].between(0, 1).all()
    assert curve["accuracy"].iloc[-1] == (model.predict(X) == y).mean()
