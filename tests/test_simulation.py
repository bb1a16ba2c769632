"""Properties of simulated cells: the same seed gives the same cells, and the truth beside the counts is the truth."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_selection import f_classif
from sklearn.metrics import average_precision_score

from selectormlp.data import InputError, value_kind
from selectormlp.simulation import (
    SimulationRecipe,
    _count_informative,
    _draw_cells,
    _plan_simulation,
    _type_tree,
    simulate_cells,
    simulate_to_file,
)

SMALL = {"n_genes": 200, "n_types": 5}


def same_counts(first, second):
    return first.shape == second.shape and (first != second).nnz == 0


def test_counts_are_whole_numbers_in_csr():
    adata = simulate_cells(1200, **SMALL)
    assert sparse.issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.float32
    assert (adata.X.data > 0).all() and (adata.X.data % 1 == 0).all()
    assert value_kind(adata.X) == "raw counts"
    assert adata.obs_names.is_unique and adata.var_names.is_unique


def test_same_seed_same_cells_and_another_seed_others():
    first, again, other = (simulate_cells(1200, **SMALL, seed=seed) for seed in (3, 3, 4))
    assert same_counts(first.X, again.X)
    pd.testing.assert_frame_equal(first.obs, again.obs)
    pd.testing.assert_frame_equal(first.var, again.var)
    assert not same_counts(first.X, other.X) and not first.var.equals(other.var)


@pytest.mark.parametrize("chunk_size", [1, 1000, 1500, 2000, 50_000])
def test_file_holds_the_same_cells_whatever_the_chunks(tmp_path, chunk_size):
    memory = simulate_cells(3300, **SMALL, seed=5, dispersion=0.5)
    path = simulate_to_file(tmp_path / "cells.h5ad", 3300, **SMALL, seed=5, dispersion=0.5, chunk_size=chunk_size)
    disk = anndata.read_h5ad(path)
    assert same_counts(memory.X, disk.X)
    pd.testing.assert_frame_equal(memory.obs, disk.obs)
    pd.testing.assert_frame_equal(memory.var, disk.var)
    pd.testing.assert_frame_equal(memory.varm["expected_counts"], disk.varm["expected_counts"], check_names=False)
    assert memory.uns["simulation"] == disk.uns["simulation"]
    assert list(tmp_path.iterdir()) == [path]


def test_file_can_be_read_backed(tmp_path):
    path = simulate_to_file(tmp_path / "cells.h5ad", 2500, **SMALL, chunk_size=1000)
    backed = anndata.read_h5ad(path, backed="r")
    assert backed.shape == (2500, 200)
    assert same_counts(sparse.csr_matrix(backed[990:1010].to_memory().X), simulate_cells(2500, **SMALL).X[990:1010])
    backed.file.close()


def test_wrong_settings_leave_no_file(tmp_path):
    for wrong in ({"n_types": 1}, {"chunk_size": 0}, {"n_marker": 3}):
        with pytest.raises(InputError):
            simulate_to_file(tmp_path / "cells.h5ad", 1000, 200, **wrong)
    with pytest.raises(InputError, match="h5ad"):
        simulate_to_file(tmp_path / "cells.csv", 1000, 200)
    assert not list(tmp_path.iterdir())


def test_a_failure_halfway_leaves_no_file(tmp_path, monkeypatch):
    import selectormlp.simulation as simulation

    real = simulation._simulate_block

    def fail_late(plan, block):
        if block == 2:
            raise RuntimeError("stopped")
        return real(plan, block)

    monkeypatch.setattr(simulation, "_simulate_block", fail_late)
    with pytest.raises(RuntimeError, match="stopped"):
        simulate_to_file(tmp_path / "cells.h5ad", 3000, **SMALL, chunk_size=1000)
    assert not list(tmp_path.iterdir())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 130))
def test_tree_is_binary_and_names_every_type_once(n_types):
    tree = _type_tree(n_types).set_index("node")
    assert tree.index.is_unique and tree["is_type"].sum() == n_types and (~tree["is_type"]).sum() == n_types - 1
    children = tree[tree["parent"] != ""].groupby("parent")
    assert (children.size() == 2).all()
    for parent, rows in children:
        assert rows["first_type"].min() == tree.loc[parent, "first_type"]
        assert rows["end_type"].max() == tree.loc[parent, "end_type"]
    assert sorted(tree.loc[tree["is_type"], "first_type"]) == list(range(n_types))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(0, 400), st.floats(1, 500), st.integers(0, 100))
def test_type_sizes_add_up_and_none_is_too_small(n_types, extra, size_ratio, seed):
    recipe = SimulationRecipe(n_cells=3 * n_types + extra, n_types=n_types, size_ratio=size_ratio, seed=seed)
    sizes = _draw_cells(recipe)["cell_type"].value_counts()
    assert sizes.sum() == recipe.n_cells and len(sizes) == n_types and sizes.min() >= 3


def test_given_proportions_are_kept():
    adata = simulate_cells(1000, 200, 4, type_proportions=(4, 3, 2, 1))
    sizes = adata.obs["cell_type"].value_counts().sort_index()
    assert sizes.tolist() == [400, 300, 200, 100]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 12), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)
)
def test_truth_is_consistent(n_types, per_type, per_branch, n_copies, n_housekeeping, n_programs):
    recipe = SimulationRecipe(
        n_cells=100,
        n_genes=400,
        n_types=n_types,
        n_markers_per_type=per_type,
        n_markers_per_branch=per_branch,
        n_copies=n_copies,
        n_housekeeping=n_housekeeping,
        n_programs=n_programs,
    )
    plan = _plan_simulation(recipe)
    genes, tree = plan.genes, plan.tree.set_index("node")
    assert len(genes) == 400 and genes.index.is_monotonic_increasing
    assert genes["is_marker"].sum() == _count_informative(recipe)
    assert genes["is_housekeeping"].sum() == n_housekeeping
    assert ((genes["marker_of"] != "") == genes["is_marker"]).all()
    assert not (genes["is_marker"] & (genes["is_housekeeping"] | (genes["program"] >= 0))).any()
    assert genes["program"].between(-1, n_programs - 1).all()
    copies = genes[genes["copy_of"] != ""]
    assert len(copies) == _count_informative(recipe) * n_copies / (1 + n_copies)
    leaders = genes.loc[copies["copy_of"]]
    assert (leaders["copy_of"] == "").all()
    assert (leaders["marker_of"].to_numpy() == copies["marker_of"].to_numpy()).all()
    counts = genes.loc[genes["copy_of"] == "", "marker_of"].value_counts()
    assert all(counts[node] == per_type for node in tree.index[tree["is_type"]])
    for name, node in genes.loc[genes["is_marker"], "marker_of"].items():
        first, end = tree.loc[node, "first_type"], tree.loc[node, "end_type"]
        means = plan.expected_counts.loc[name].to_numpy()
        assert means[first:end].min() > 2 * np.delete(means, np.arange(first, end)).max()
    others = plan.expected_counts[~genes["is_marker"]]
    assert np.ptp(others.to_numpy(), axis=1).max() < 1e-12


@pytest.mark.parametrize("dispersion", [0, 0.1, 1.0])
def test_mean_and_variance_follow_the_negative_binomial(dispersion):
    adata = simulate_cells(
        8000, 200, 2, size_ratio=1, library_size=2000, library_spread=0, n_programs=0, dispersion=dispersion
    )
    for name in adata.obs["cell_type"].cat.categories:
        counts = adata[adata.obs["cell_type"] == name].X.toarray()
        expected = adata.varm["expected_counts"][name].to_numpy()
        variance = expected + dispersion * expected**2
        error = (counts.mean(axis=0) - expected) / np.sqrt(variance / len(counts))
        assert abs(error.mean()) < 0.3 and 0.8 < error.std() < 1.2
        assert np.isclose(np.median(counts.var(axis=0) / variance), 1, atol=0.03)


def test_library_size_is_log_normal_and_scales_the_totals():
    adata = simulate_cells(4000, 500, 4, library_size=400, library_spread=0.5)
    log_size = np.log(adata.obs["library_size"])
    assert np.isclose(log_size.mean(), np.log(400), atol=0.05) and np.isclose(log_size.std(), 0.5, rtol=0.05)
    totals = np.asarray(adata.X.sum(axis=1)).ravel()
    assert np.corrcoef(totals, adata.obs["library_size"])[0, 1] > 0.8
    denser = simulate_cells(1000, 500, 4, library_size=800)
    assert denser.X.nnz / np.prod(denser.shape) > simulate_cells(1000, 500, 4, library_size=200).X.nnz / 5e5 * 1.5


@pytest.mark.parametrize("redundancy", [0, 0.5, 1])
def test_redundancy_is_the_correlation_of_a_marker_with_its_copy(redundancy):
    adata = simulate_cells(
        4000, 100, 2, size_ratio=1, library_size=20_000, library_spread=0, redundancy=redundancy, dispersion=0.5
    )
    cells = adata[adata.obs["cell_type"] == "type_00"].to_df()
    copies = adata.var.loc[(adata.var["copy_of"] != "") & (adata.var["marker_of"] == "type_00"), "copy_of"]
    found = np.mean([cells[copy].corr(cells[marker]) for copy, marker in copies.items()])
    assert abs(found - redundancy) < 0.05


def test_programs_correlate_genes_but_not_with_the_type():
    adata = simulate_cells(3000, 300, 3, library_size=2000, library_spread=0)
    cells = adata.to_df()
    in_program = cells[adata.var_names[adata.var["program"] == 0]]
    correlation = np.corrcoef(in_program.to_numpy().T)
    assert np.median(correlation[~np.eye(len(correlation), dtype=bool)]) > 0.2
    _, probability = f_classif(in_program.to_numpy(), adata.obs["cell_type"])
    assert np.median(probability) > 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_markers_can_be_found_with_labels_and_not_by_variance(seed):
    adata = simulate_cells(seed=seed)
    counts = adata.X.toarray()
    expression = np.log1p(counts * (1e4 / counts.sum(axis=1, keepdims=True)))
    truth = adata.var["is_marker"]
    assert average_precision_score(truth, np.nan_to_num(f_classif(expression, adata.obs["cell_type"])[0])) > 0.95
    assert average_precision_score(truth, expression.var(axis=0)) < 0.3
    assert 0.05 < adata.X.nnz / np.prod(adata.shape) < 0.1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n_markers_per_type", 2),
        ("n_markers_per_branch", 0),
        ("n_copies", 0),
        ("n_housekeeping", 3),
        ("n_programs", 1),
        ("type_proportions", (1, 1, 1, 1, 2)),
        ("size_ratio", 2.0),
        ("library_size", 50.0),
        ("library_spread", 0.1),
        ("dispersion", 0.1),
        ("marker_level", 3.0),
        ("separation", 3.0),
        ("redundancy", 0.9),
        ("seed", 1),
    ],
)
def test_every_setting_changes_the_cells_and_is_recorded(setting, value):
    changed = simulate_cells(300, **SMALL, **{setting: value})
    assert not same_counts(changed.X, simulate_cells(300, **SMALL).X)
    recorded = json.loads(changed.uns["simulation"])[setting]
    assert recorded == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_genes": 100}, "n_genes is 100"),
        ({"n_types": 1}, "n_types is 1"),
        ({"n_cells": 29}, "n_cells is 29"),
        ({"n_cells": 0}, "n_cells is 0"),
        ({"n_cells": 10.5}, "whole number"),
        ({"n_cells": "many"}, "'many'"),
        ({"type_proportions": (1, 2)}, "2 numbers"),
        ({"type_proportions": (0,) + (1,) * 9}, "above 0"),
        ({"size_ratio": 0.5}, "size_ratio"),
        ({"dispersion": -1}, "dispersion"),
        ({"library_size": 0}, "library_size"),
        ({"library_spread": float("nan")}, "nan"),
        ({"redundancy": 1.5}, "redundancy"),
        ({"separation": None}, "None"),
        ({"seed": -1}, "seed"),
        ({"n_marker_per_type": 3}, "did you mean 'n_markers_per_type'"),
    ],
)
def test_wrong_settings_are_one_clear_sentence(wrong, words):
    with pytest.raises(InputError, match=words) as caught:
        simulate_cells(**wrong)
    assert "\n" not in str(caught.value)


def test_the_smallest_simulation_works():
    adata = simulate_cells(6, 2, 2, n_markers_per_type=1, n_copies=0, n_housekeeping=0)
    assert adata.shape == (6, 2) and adata.var["is_marker"].all()
