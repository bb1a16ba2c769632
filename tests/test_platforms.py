"""The measuring model: what is put in must come out, and what is no platform must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData

from selectormlp.data import InputError, normalise
from selectormlp.inspection import _first_sources, forecast_panel
from selectormlp.platforms import PLATFORMS, Platform, _find_platform, fit_platform, simulate_platform
from selectormlp.search import DiscriminantSearch
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return simulate_cells(900, 250, 5, size_ratio=2, library_size=1500.0, seed=3)


def means(adata: AnnData, name: str) -> np.ndarray:
    here = (adata.obs["cell_type"] == name).to_numpy()
    return np.asarray(adata.X[here].mean(axis=0)).ravel()


@pytest.mark.parametrize(
    ("field", "value"),
    [("capture", 0), ("capture", -1), ("gene_sd", -0.1), ("type_sd", np.nan), ("failed", 1.0), ("spillover", 1.5),
     ("background", "much"), ("gene_sd", True), ("capture", np.inf)],
)  # fmt: skip
def test_a_number_that_no_machine_has_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Platform(**{field: value})


def test_names_are_known_or_refused() -> None:
    assert all(_find_platform(name) is platform and platform.source for name, platform in PLATFORMS.items())
    own = Platform("own", gene_sd=1.0)
    assert _find_platform(own) is own
    with pytest.raises(InputError, match="did you mean 'imaging'"):
        _find_platform("imagng")


def test_the_same_machine_counts_the_same(counts: AnnData) -> None:
    made = simulate_platform(counts, "cell_type", "same", seed=1)
    assert made.shape == counts.shape and (made.var["efficiency"] == 1).all()
    assert made.obs["cell_type"].value_counts().to_dict() == counts.obs["cell_type"].value_counts().to_dict()
    for name in counts.obs["cell_type"].cat.categories:
        here, there = means(counts, name), means(made, name)
        high = here > 1
        assert np.abs(np.log(there[high] / here[high])).mean() < 0.15
    again = simulate_platform(counts, "cell_type", "same", seed=1)
    assert (made.X != again.X).nnz == 0
    assert (made.X != simulate_platform(counts, "cell_type", "same", seed=2).X).nnz > 0


@pytest.mark.parametrize("capture", [0.2, 4.0])
def test_capture_scales_the_counts(counts: AnnData, capture: float) -> None:
    made = simulate_platform(counts, "cell_type", Platform(capture=capture))
    assert made.X.sum() / counts.X.sum() == pytest.approx(capture, rel=0.1)


def test_every_number_changes_the_counts(counts: AnnData) -> None:
    plain = simulate_platform(counts, "cell_type", Platform(), cells_per_type=40)
    for field in ("capture", "gene_sd", "type_sd", "failed", "background", "spillover"):
        made = simulate_platform(counts, "cell_type", replace(Platform(), **{field: 0.4}), cells_per_type=40)
        assert made.obs["cell_type"].value_counts().eq(40).all()
        assert (made.X != plain.X).nnz > 0, field
    failed = simulate_platform(counts, "cell_type", Platform(failed=0.5))
    lost = failed.var["efficiency"].to_numpy() == 0
    assert 0.35 < lost.mean() < 0.65 and failed.X[:, lost].nnz == 0


def test_only_the_named_genes_are_measured(counts: AnnData) -> None:
    genes = counts.var_names[[5, 2, 9]].tolist()
    made = simulate_platform(counts, "cell_type", "imaging", genes=genes, cells_per_type=3)
    assert made.var_names.tolist() == genes and made.n_obs == 15
    with pytest.raises(InputError, match="'no such gene' is not in the data"):
        simulate_platform(counts, "cell_type", genes=["no such gene"])
    with pytest.raises(InputError, match="log-normalised"):
        simulate_platform(normalise(counts), "cell_type")


@pytest.mark.parametrize(("gene_sd", "type_sd"), [(0.0, 0.0), (1.0, 0.3), (2.0, 1.0)])
def test_a_made_machine_is_found_again(counts: AnnData, gene_sd: float, type_sd: float) -> None:
    truth = Platform("made", capture=2.0, gene_sd=gene_sd, type_sd=type_sd)
    found = fit_platform(counts, simulate_platform(counts, "cell_type", truth, seed=5), "cell_type")
    assert found.gene_sd == pytest.approx(gene_sd, abs=0.35)
    assert found.type_sd == pytest.approx(type_sd, abs=0.2)
    assert found.capture == pytest.approx(2.0, rel=0.5)


def test_a_fit_needs_shared_types_and_genes(counts: AnnData) -> None:
    one = counts[counts.obs["cell_type"] == counts.obs["cell_type"].iloc[0]]
    with pytest.raises(InputError, match="needs two or more"):
        fit_platform(counts, one, "cell_type")
    with pytest.raises(InputError, match="5 are needed"):
        fit_platform(counts, counts[:, :3], "cell_type")


def test_a_forecast_falls_with_the_machine(counts: AnnData) -> None:
    panel = select_genes(counts, "cell_type", 8)
    settings = {"sizes": (8,), "n_draws": 10, "cells_per_type": 30}
    home, away = (forecast_panel(panel, counts, target, **settings) for target in ("same", "imaging"))
    assert set(home["training"]) == {"retrained", "transferred"}
    assert (home["low"] <= home["accuracy"]).all() and (home["accuracy"] <= home["high"]).all()
    assert (away["accuracy"].to_numpy() < home["accuracy"].to_numpy()).all()
    assert (away["high"] - away["low"]).sum() > (home["high"] - home["low"]).sum()
    with pytest.raises(InputError, match="n_draws"):
        forecast_panel(panel, counts, n_draws=1)


def test_a_forecast_learns_nothing_from_labels_without_meaning(counts: AnnData) -> None:
    """Several drawn cells are like one cell of the reference: were some in training, they would give its label away.

    What is left above chance are the rates of the types, which are estimated from the same cells.
    """
    odd = counts.copy()
    odd.obs["cell_type"] = np.random.default_rng(0).permutation(odd.obs["cell_type"].astype(str))
    panel = select_genes(odd, "cell_type", 20)
    found = forecast_panel(panel, odd, "same", sizes=(20,), n_draws=6, cells_per_type=100).set_index("training")
    chance = 1 / odd.obs["cell_type"].nunique()
    assert abs(found.loc["retrained", "accuracy"] - chance) < 0.15 * (1 - chance)


def test_a_drawn_cell_names_the_one_that_it_is_like(counts: AnnData) -> None:
    some = counts.copy()
    some.obs["cell_type"] = some.obs["cell_type"].astype(object).where(np.arange(some.n_obs) % 3 > 0, None)
    drawn = simulate_platform(some, "cell_type", "same", cells_per_type=40, seed=1)
    like = some.obs.loc[drawn.obs["like"], "cell_type"].astype(str).to_numpy()
    assert (like == drawn.obs["cell_type"].astype(str).to_numpy()).all()
    first = _first_sources(
        drawn.obs["cell_type"].to_numpy().astype(str), drawn.obs["like"].to_numpy(), 0.7, np.random.default_rng(0)
    )
    assert not set(drawn.obs["like"][first]) & set(drawn.obs["like"][~first])
    assert all(drawn.obs["cell_type"][part].nunique() == drawn.obs["cell_type"].nunique() for part in (first, ~first))


def test_a_panel_for_another_machine_marks_every_type_first(counts: AnnData) -> None:
    panel = select_genes(counts, "cell_type", 9, target="imaging")
    assert panel.table["highest_in"].head(5).nunique() == 5
    assert panel.table["reason"].head(5).str.startswith("marker of").all()
    assert select_genes(counts, "cell_type", 4, target="imaging").genes == panel.genes[:4]
    same = select_genes(counts, "cell_type", 9)
    assert same.genes == select_genes(counts, "cell_type", 9, target="same").genes
    own = Platform("own", type_sd=1.0)
    again = select_genes(counts, "cell_type", 9, target=own)
    assert again.genes == panel.genes and again.settings["rules"]["target"]["type_sd"] == 1.0
    unshifted = select_genes(counts, "cell_type", 9, target=Platform("mild", gene_sd=2.0))
    assert unshifted.genes == same.genes  # nothing that a machine does to all types alike changes their differences
    with pytest.raises(InputError, match="did you mean 'imaging'"):
        select_genes(counts, "cell_type", 9, target="imagin")
    with pytest.raises(InputError, match="target needs method='discriminant'"):
        select_genes(counts, "cell_type", 9, target="imaging", method="svm_l1")


def test_small_differences_count_less_on_another_machine(counts: AnnData) -> None:
    cells = normalise(counts)
    y = cells.obs["cell_type"].to_numpy()
    here = DiscriminantSearch(cells.X, y)
    gains = {}
    for sd in (0.0, 1.0, 3.0):
        search = DiscriminantSearch(cells.X, y, platform=Platform(type_sd=sd))
        for gene in (3, 7):
            search.add(gene)
        gains[sd] = search.pair_gains(np.arange(cells.n_vars))
        best = int(np.argmax(search.worth()))
        assert search.best() == best  # the bound that saves work still holds
    for gene in (3, 7):
        here.add(gene)
    assert np.array_equal(gains[0.0], here.pair_gains(np.arange(cells.n_vars)))
    assert (gains[1.0] <= gains[0.0]).all() and (gains[3.0] <= gains[1.0]).all()
    assert gains[3.0].sum() < 0.9 * gains[0.0].sum()
