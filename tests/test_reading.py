"""Names, ready lists, labels and joining: what the user means is found, and what is left out is said."""

# ruff: noqa: E501

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import shapes
from anndata import AnnData
from pandas.testing import assert_frame_equal
from stress import shapes_fuzz

from selectormlp import data, readers
from selectormlp.data import InputError, normalise, prepare_cells
from selectormlp.inspection import panel_recalls, panel_robustness
from selectormlp.panels import read_panel
from selectormlp.platforms import fit_platform, simulate_platform
from selectormlp.selection import describe_panel, extend_panel, remake_panel, select_genes, unwanted_genes
from selectormlp.simulation import simulate_cells
from selectormlp.sources import open_cells
from selectormlp.split import split_cells

READY_LISTS = {
    "mitochondrial": (["MT-CO1", "MT.CO1", "mt-Co1", "mt-co1", "mt:CoI", "MTCE.21", "nduo-1", "ctb-1"], ["MTOR", "MT1A", "ctc-31"]),
    "ribosomal": (["RPL3", "RPS4X", "RPL36AL", "MRPL1", "RPLP0", "Rpl13a", "RpL3", "RpS5a", "rpl-1", "rps-11", "rpl22l1", "rps27.1"],
                  ["RPS6KA1", "RPE65", "rpn-1"]),
    "haemoglobin": (["HBA1", "HBB", "Hbb-bs", "Hba-a1", "hbaa1", "hbba2", "hbae1.1", "hbbe1.1"], ["HBEGF", "HBS1L", "HBP1"]),
    "immediate early": (["FOS", "FOSB", "Jun", "fosab", "fosl1a", "junbb", "egr1", "ier2b", "Hr38"], ["FOXP3", "JUP"]),
    "unnamed": (["LOC105", "LINC01", "RP11-34P13.7", "CTB-31O20.2", "Gm1234", "CG12345", "si:dkey-1", "zgc:1", "F53F4.11"],
                ["ctb-1", "CTB-1", "CD8A", "CR2"]),
    "heat shock": (["HSPA1A", "HSP90AA1", "Hsp70Aa", "hsp-16.2", "dnajb1b"], ["HSPG2"]),
    "sex": (["XIST", "Ddx3y", "lncRNA:roX1"], ["SEX1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", READY_LISTS)
def test_ready_lists_know_five_species(name: str) -> None:
    meant, others = READY_LISTS[name]
    assert unwanted_genes([*meant, *others], [name]) == set(meant)


def test_a_misspelt_ready_list_is_an_error_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'mitochondrial'"):
        unwanted_genes(["INS", "GCG"], ["mitochondiral"])
    assert unwanted_genes(["INS", "GCG"], ["INS"]) == {"INS"}


def test_rules_take_ids_and_symbols_in_memory_and_from_disk(tmp_path: Path) -> None:
    shapes.by_id(feature_name=shapes.SYMBOLS).write_h5ad(path := tmp_path / "cells.h5ad")
    rules = {"must_include": [shapes.IDS[7], "SYM9"], "exclude": [f"{shapes.IDS[3]}.12"], "n_variable": 30}
    memory = select_genes(readers.read_cells(path), "cell_type", 6, **rules)
    for most in (0, 10**12):
        disk = select_genes(open_cells(path), "cell_type", 6, memory=most, **rules)
        assert disk.genes == memory.genes
    assert memory.genes[:2] == ["SYM7", "SYM9"] and "SYM3" not in memory.genes


def test_a_gene_that_one_file_lacks_is_named_with_the_file(tmp_path: Path) -> None:
    paths = shapes.pair(tmp_path)
    for cells in (readers.read_cells(paths), open_cells(paths), paths):
        with pytest.raises(InputError, match="which the file 'b.h5ad' lacks"):
            select_genes(cells, "cell_type", 4, must_include=["SYM1"])


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_what_is_left_out_of_the_labels_is_said(caplog: pytest.LogCaptureFixture) -> None:
    cells = shapes.cells()
    cells.obs["cell_type"] = ["tiny"] * 2 + ["Unknown"] * 20 + ["alpha"] * 50 + ["beta"] * 40 + ["(none)"] * 8
    with caplog.at_level(logging.INFO, "selectormlp"), pytest.warns(UserWarning, match="8 of 120 cells have no label"):
        kept = data.prepare_cells(cells, "cell_type", min_cells=7)
    assert kept.n_obs == 110
    assert "left out: 2 cells of 1 types with fewer than 7 cells (tiny 2)" in told(caplog)
    assert "'Unknown' (20 cells); are they?" in told(caplog)
    with pytest.warns(UserWarning):
        assert data.prepare_cells(cells, "cell_type", min_cells=7, drop_types=["Unknown"]).n_obs == 90
    with pytest.raises(InputError, match="did you mean 'Unknown'"), pytest.warns(UserWarning):
        data.prepare_cells(cells, "cell_type", min_cells=7, drop_types=["unknwon"])


@pytest.mark.parametrize("values", [np.random.default_rng(0).random(120), [f"cell{i}" for i in range(120)]])
def test_a_column_that_holds_no_types_is_refused(values: object) -> None:
    cells = shapes.cells()
    cells.obs["score"] = values
    with pytest.raises(InputError, match="'score' holds 120 different"):
        data.prepare_cells(cells, "score", min_cells=1)


def test_types_sort_as_people_count() -> None:
    cells = shapes.cells()
    cells.obs["cluster"] = np.arange(120) % 12
    found = data.prepare_cells(cells, "cluster", min_cells=3).obs["cluster"].cat.categories.tolist()
    assert found == [str(i) for i in range(12)]


def test_values_that_changed_since_they_were_read_are_looked_at_again() -> None:
    read = data._take_values(shapes.cells())
    read.X = shapes.logged()
    assert np.allclose(data.normalise(read).X.toarray(), shapes.logged(), atol=1e-4)
    read.X = shapes.logged() - 1
    with pytest.raises(InputError, match="only scaled values"):
        data.normalise(read)


@pytest.mark.slow
def test_values_of_any_combination_are_the_right_ones() -> None:
    assert shapes_fuzz.faults(40) == []  # the long run: tests/stress/shapes_fuzz.py --draws 2000


def test_values_overrule_the_decision() -> None:
    cells = shapes.cells(shapes.logged())
    as_counts = data.normalise(cells, values="counts").X.toarray()
    assert not np.allclose(as_counts, shapes.logged(), atol=1e-2)
    with pytest.raises(InputError, match="values='raw'"):
        data.normalise(cells, values="raw")
    with pytest.raises(InputError, match="hold no raw.X"):
        data.normalise(cells, use_raw=True)
    assert isinstance(data._take_values(cells).var, pd.DataFrame)


def two_matrices() -> AnnData:
    """Log-normalised X of some genes, two layers of counts that know other types, and a column of other names."""
    counts = simulate_cells(240, 60, 3, n_housekeeping=5, size_ratio=2.0, seed=0)
    other = simulate_cells(240, 60, 3, n_housekeeping=5, size_ratio=2.0, seed=7)
    cells = normalise(counts)
    cells.layers["counts"], cells.layers["other"] = counts.X.copy(), other.X.copy()
    cells.var["symbol"] = [f"S{name}" for name in cells.var_names]
    del cells.uns["selectormlp_values"]
    return cells


@pytest.mark.parametrize("asked", [{}, {"layer": "other"}, {"layer": "X"}, {"gene_names": "symbol"}])
def test_a_panel_is_chosen_scored_inspected_and_made_anew_from_the_same_values(asked: dict, tmp_path: Path) -> None:
    cells = two_matrices()
    read = prepare_cells(cells, "cell_type", **asked)
    expected = select_genes(read, "cell_type", 5)
    panel = select_genes(cells, "cell_type", 5, **asked)
    assert panel.genes == expected.genes
    assert panel.settings["values"]["place"] == {"other": "layers['other']", "X": "X"}.get(
        asked.get("layer", ""), "layers['counts']"
    )
    panel.to_csv(tmp_path / "panel.csv")
    again = read_panel(tmp_path / "panel.csv")
    assert remake_panel(again, cells).genes == panel.genes
    mine, prepared = panel.score(cells), expected.score(read)
    assert mine.per_type.equals(prepared.per_type)
    assert describe_panel(panel, cells, **asked).genes == extend_panel(panel, cells, 0, **asked).genes == panel.genes
    assert_frame_equal(panel_recalls(panel, cells), panel_recalls(expected, read))
    if asked.get("layer") != "X":
        assert len(panel_robustness(panel, cells, captures=[0.5], failures=[0.0])) == 2
    else:
        with pytest.raises(InputError, match="thinning needs .* these are log-normalised"):
            panel_robustness(panel, cells, captures=[0.5], failures=[0.0])


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_backed_table_is_worked_on_as_the_same_in_memory(form: str, tmp_path: Path) -> None:
    cells = two_matrices()
    if form != "csr":
        cells.X = cells.X.toarray() if form == "dense" else cells.X.tocsc()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    del cells.layers["counts"], cells.layers["other"]
    cells.write_h5ad(tmp_path / "logged.h5ad")
    for name in ("cells", "logged"):
        memory = anndata.read_h5ad(tmp_path / f"{name}.h5ad")
        panel = select_genes(memory, "cell_type", 5)
        backed = anndata.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        same = select_genes(backed, "cell_type", 5)
        assert (same.genes, same.settings) == (panel.genes, panel.settings)
        assert remake_panel(panel, backed).genes == panel.genes
        assert same.score(backed).per_type.equals(panel.score(memory).per_type)


def test_a_platform_takes_the_counts_wherever_they_lie() -> None:
    cells, counts = two_matrices(), simulate_cells(240, 60, 3, n_housekeeping=5, size_ratio=2.0, seed=0)
    made, expected = (simulate_platform(each, "cell_type", "imaging", seed=0) for each in (cells, counts))
    assert (made.X != expected.X).nnz == 0
    del cells.layers["counts"], cells.layers["other"]
    with pytest.raises(InputError, match="log-normalised"):
        simulate_platform(cells, "cell_type", "imaging", seed=0)
    with pytest.raises(InputError, match="the target's are log-normalised"):
        fit_platform(counts, cells, "cell_type")


@pytest.mark.parametrize(
    "function", [prepare_cells, split_cells, data.check_cells, lambda *given: select_genes(*given, 5)]
)
def test_a_label_key_is_one_name_and_cells_are_cells(function: Callable) -> None:
    cells = simulate_cells(60, 60, 2, n_housekeeping=5, seed=0)
    if function is not data.check_cells:  # there None means that labels are not looked at
        with pytest.raises(InputError, match="label_key is None; pass the name of one column of adata.obs$"):
            function(cells, None)
    with pytest.raises(InputError, match=r"label_key is \['cell_type', 'donor'\]; .* make one column of several first"):
        function(cells, ["cell_type", "donor"])
    if function in (prepare_cells, split_cells, data.check_cells):  # select_genes takes names of examples, and files
        with pytest.raises(InputError, match="the cells are 'pancreas', where an AnnData is needed; load_cells reads"):
            function("pancreas", "cell_type")
    with pytest.raises(InputError, match="the cells are of type NoneType"):
        function(None, "cell_type")
