"""Panels: rules honoured exactly, reasons that are true, and a search that finds what was planted."""

import re
import subprocess
import sys
import warnings
from dataclasses import fields

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from selectormlp import search as search_module
from selectormlp import selection
from selectormlp.data import _NOTICE, InputError, load_pancreas, normalise, prepare_cells
from selectormlp.panels import read_panel
from selectormlp.search import DiscriminantSearch, _held_out_confusion, _type_folds, _type_profiles
from selectormlp.selection import (
    UNWANTED_GENES,
    DesignedPanel,
    PanelDesign,
    _marked_types,
    _pair_costs,
    _required_first,
    describe_panel,
    extend_panel,
    rank_by_discriminant,
    remake_panel,
    select_genes,
    unwanted_genes,
)
from selectormlp.simulation import simulate_cells
from selectormlp.split import split_batches, split_cells

MODEL = {"method": "selector_l1", "model_settings": {"hidden_sizes": (16,), "max_epochs": 2}}


@pytest.fixture(scope="module")
def counts():
    """Raw counts of 600 cells, 120 genes and 5 types, from three donors."""
    adata = simulate_cells(n_cells=600, n_genes=120, n_types=5, seed=1)
    adata.obs["donor"] = np.array(["a", "b", "c"])[np.arange(adata.n_obs) % 3]
    return adata


@pytest.fixture(scope="module")
def pancreas():
    """The shipped cells."""
    return load_pancreas()


@pytest.fixture(scope="module")
def panel(counts):
    """A panel of 20 genes."""
    return select_genes(counts, "cell_type", 20)


@pytest.fixture(scope="module")
def arrays(counts):
    """Log-normalised expression and the types of all cells."""
    cells = normalise(counts)
    return cells.X, cells.obs["cell_type"].to_numpy().astype(str)


# ------------------------------------------------------------------------------------------------------- the search


def test_distances_grow_as_the_mahalanobis_distance_says(arrays, monkeypatch) -> None:
    """The gains of a pair along a path add up to the distance computed at once, where the ridge stays as it is."""
    X, y = arrays
    monkeypatch.setattr("selectormlp.search._CAUTION", 1e12)
    search = DiscriminantSearch(X, y)
    total = np.zeros(len(search.first))
    for gene in (5, 17, 40, 2):
        total += -8 * np.log1p(-search.pair_gains([gene])[:, 0])
        search.add(gene)
    chosen = X[:, search.chosen].toarray().astype(float)
    within = np.mean([np.cov(chosen[y == name], rowvar=False) for name in search.profiles.types], axis=0)
    inverse = np.linalg.inv(within + search.ridge * np.eye(4))
    means = search.profiles.means[:, search.chosen]
    differences = means[search.first] - means[search.second]
    np.testing.assert_allclose(total, np.einsum("pi,ij,pj->p", differences, inverse, differences), rtol=1e-6)


def test_held_out_confusion_is_that_of_scikit_learn(arrays) -> None:
    class Ridge:
        def fit(self, rest):
            self.covariance_ = np.cov(rest, rowvar=False) + 0.5 * np.eye(rest.shape[1])

    X, y = arrays
    C, codes = X[:, :12].toarray().astype(float), np.unique(y, return_inverse=True)[1]
    folds = _type_folds(codes)
    judge = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(5, 0.2), covariance_estimator=Ridge())
    theirs = cross_val_predict(judge, C, codes, cv=PredefinedSplit(folds), method="predict_proba")
    ours = _held_out_confusion(C, codes, folds, ridge=0.5)
    np.testing.assert_allclose(ours.confusion, [theirs[codes == c].mean(axis=0) for c in range(5)], atol=1e-8)
    np.testing.assert_allclose(ours.recall, [(theirs[codes == c].argmax(axis=1) == c).mean() for c in range(5)])


def test_folds_hold_their_share_of_every_type() -> None:
    codes = np.repeat([0, 1, 2], [50, 7, 23])
    table = pd.crosstab(codes, _type_folds(codes))
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 1


def test_a_type_of_one_cell_is_no_trouble(arrays) -> None:
    X, y = arrays
    few = np.concatenate([np.flatnonzero(y == name)[:20] for name in np.unique(y)])
    labels = y[few].copy()
    labels[0] = "lonely"
    ranking = rank_by_discriminant(X[few], labels, [str(i) for i in range(X.shape[1])], 10)
    assert len(set(ranking["gene"])) == 10 and np.isfinite(ranking["importance"]).all()


def test_constant_genes_and_all_genes_at_once() -> None:
    X = np.zeros((12, 4))
    X[:6, 1] = [3, 3.1, 2.9, 3, 3.2, 3]
    ranking = rank_by_discriminant(X, np.repeat(["a", "b"], 6), list("wxyz"), 4)
    assert ranking["gene"].iloc[0] == "x" and sorted(ranking["gene"]) == list("wxyz")


def test_scale_of_types_does_not_matter(arrays) -> None:
    """Ten times the cells of one type give nearly the same panel: types count alike."""
    X, y = arrays
    more = np.concatenate([np.arange(len(y)), *[np.flatnonzero(y == y[0])] * 9])
    rankings = (rank_by_discriminant(X[rows], y[rows], range(X.shape[1]), 15) for rows in (np.arange(len(y)), more))
    one, two = (set(ranking["gene"]) for ranking in rankings)
    assert len(one & two) >= 13


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_markers_are_found_and_copies_take_one_place(seed: int) -> None:
    cells = normalise(simulate_cells(n_cells=3000, seed=seed))
    X, y, planted = cells.X, cells.obs["cell_type"].to_numpy().astype(str), cells.var["is_marker"].to_numpy()
    found = rank_by_discriminant(X, y, np.arange(cells.n_vars), int(planted.sum()) + 30)
    importance = np.zeros(cells.n_vars)
    importance[found["gene"]] = 1 / found["rank"]
    assert average_precision_score(planted, importance) >= 0.95
    best = found["gene"].to_numpy()[:40]
    thinned = np.random.default_rng(seed).binomial(np.expm1(X[:, best].toarray()).round().astype(int), 0.8)
    doubled = csr_matrix(np.hstack([X.toarray(), np.log1p(thinned), X[:, best].toarray()]))
    names = np.concatenate([np.arange(cells.n_vars), best, best])
    first = rank_by_discriminant(doubled, y, names, 50)["gene"]
    copies = first[first.isin(best)]
    assert (copies.value_counts() <= 2).all() and copies.duplicated().sum() <= 1


def test_one_of_two_copies_is_enough_where_copies_can_be_seen() -> None:
    """Copies that share all but counting noise, at a depth where that noise is small."""
    cells = normalise(simulate_cells(n_cells=1500, redundancy=1.0, library_size=50_000, dispersion=0.6, seed=0))
    y, truth = cells.obs["cell_type"].to_numpy().astype(str), cells.var
    first = rank_by_discriminant(cells.X, y, cells.var_names, 50)["gene"]
    leader = truth["copy_of"].where(truth["copy_of"] != "", truth.index)[first]
    assert truth["is_marker"][first].sum() >= 40 and leader[truth["is_marker"][first]].duplicated().sum() <= 1


# ------------------------------------------------------------------------------------------------- rules of a panel


@pytest.mark.parametrize("method", [{}, MODEL])
def test_names_are_honoured_exactly(counts, method: dict) -> None:
    names = counts.var_names
    must = [names[-1], names[3]]
    panel = select_genes(counts, "cell_type", 15, must_include=must, exclude=f"^{names[0]}$", **method)
    assert len(panel) == 15 == len(set(panel.genes)) and set(must) <= set(panel.genes) and names[0] not in panel.genes
    assert set(panel.table.loc[panel.table["reason"] == "must include", "gene"]) == set(must)
    assert (
        select_genes(counts, "cell_type", 15, must_include=must, exclude=f"^{names[0]}$", **method).genes == panel.genes
    )
    listed = select_genes(counts, "cell_type", 5, exclude=panel.genes, **method)
    assert not set(listed.genes) & set(panel.genes)


def test_panel_does_not_depend_on_the_order_of_the_file(counts) -> None:
    mixed = counts[np.random.default_rng(0).permutation(counts.n_obs)].copy()
    for method in ("discriminant", "svm_l1"):
        one, two = (select_genes(cells, "cell_type", 10, method=method) for cells in (counts, mixed))
        assert one.genes == two.genes
    genes = counts[:, np.random.default_rng(1).permutation(counts.n_vars)].copy()
    assert select_genes(genes, "cell_type", 10).genes == select_genes(counts, "cell_type", 10).genes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_genes": 500}, "a panel of 500 genes was asked for, and there are 120"),
        ({"n_genes": 0}, "n_genes is 0; it must be a whole number of at least 1"),
        ({"must_include": ["nope"]}, "'nope', which is not in the data"),
        ({"exclude": "("}, "not a regular expression"),
        ({"method": "selector_l9"}, "there is no condition 'selector_l9'"),
        ({"label_key": "celltype"}, "'celltype' is not in adata.obs"),
        ({"min_cells": 100_000}, "type"),
        ({"batch": "donor"}, "takes no 'batch'; did you mean 'batch_key'?"),
        ({"batch_key": "donr"}, "'donr' is not in adata.obs"),
        ({"min_detected": 1.5}, "a number from 0 to 1"),
        ({"min_markers": -1}, "min_markers is -1; it must be"),
        ({"max_expression": 0.0}, "there are 0 to choose from"),
        ({"candidates": ["x", "y"]}, "none of the 2 candidates is in the data"),
        ({"type_weights": {"type_9": 2.0}}, "type_weights names 'type_9'"),
        ({"type_weights": {"type_1": -1.0}}, "a number of at least 0"),
        ({"groups": {"nope": "g"}}, "groups names 'nope'"),
        ({"groups": "donor"}, "are in several groups of 'donor'"),
        ({"method": "svm_l1", "min_markers": 2}, "min_markers needs method='discriminant'"),
    ],
)
def test_panel_refusals(counts, arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        select_genes(counts, **{"label_key": "cell_type", "n_genes": 10, **arguments})
    assert "\n" not in str(caught.value)


RULES = tuple(each.name for each in fields(PanelDesign))
OF_A_LIST = ("n_genes", "must_include", "method", "protocol")  # a given list decides these


@pytest.mark.parametrize("method", ["discriminant", "svm_l1", "selector_l1"])
@pytest.mark.parametrize("rule", [*RULES, "split", "model_settings", "label_key"])
def test_every_misspelt_rule_is_refused_with_the_right_name(counts, rule: str, method: str) -> None:
    wrong = rule[:-1] if len(rule) > 5 else rule + "z"
    key = {} if rule == "label_key" else {"label_key": "cell_type"}
    for function, given in ((select_genes, (counts,)), (extend_panel, (["a"], counts, 1))):
        asked = {} if function is extend_panel or rule == "method" else {"method": method}
        with pytest.raises(InputError, match=re.escape(f"takes no {wrong!r}")) as caught:
            function(*given, **key, **asked, **{wrong: 1})
        of_lists = function is extend_panel and rule in {*OF_A_LIST, "model_settings"}
        assert of_lists or f"{rule!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"protocol": "report"}, "protocol='report' has no effect beside method='discriminant'"),
        ({"sibling_cost": 0.5}, "sibling_cost=0.5 has no effect without groups"),
        ({"candidates": ["gene_1"], "n_variable": 5}, "n_variable=5 has no effect beside candidates"),
        ({"model_settings": {"max_epochs": 3}}, "model_settings (max_epochs) belong to a classifier"),
        ({"method": "svm_l1", "groups": {"type_00": "a"}}, "groups needs method='discriminant'"),
        ({"method": 3}, "method is 3; it must be a name"),
    ],
)
def test_rules_that_would_do_nothing_are_refused(counts, rules: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        select_genes(counts, "cell_type", 5, **rules)


def test_a_rule_of_the_split_is_idle_beside_a_split(counts) -> None:
    split = split_cells(counts, "cell_type", seed=1)
    for rules in ({"min_cells": 20}, {"seed": 3}):
        with pytest.raises(InputError, match=f"{next(iter(rules))}=.* has no effect beside a split"):
            select_genes(counts, "cell_type", 5, split=split, **rules)


@pytest.mark.parametrize(("name", "value"), [("n_genes", -5), ("n_genes", 2.5), ("min_detected", "much"), ("seed", -1)])
def test_a_rule_checks_itself_when_it_is_made(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}; it must be"):
        PanelDesign(**{name: value})


def test_one_gene_may_come_without_a_list_and_repeated_ones_count_once() -> None:
    assert PanelDesign(must_include="INS", exclude=None).must_include == ["INS"]
    assert PanelDesign(must_include=pd.Index(["b", "a", "b"])).must_include == ["b", "a"]


def test_an_estimator_can_rank(counts) -> None:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(50, random_state=0)
    panel = select_genes(counts, "cell_type", 6, method=forest)
    assert panel.method == "RandomForestClassifier" and set(panel.table["reason"]) == {"ranked"}
    assert panel.settings["rules"]["method"] == "RandomForestClassifier"
    with pytest.raises(InputError, match="has its settings already"):
        select_genes(counts, "cell_type", 6, method=forest, model_settings={"max_depth": 3})


# ------------------------------------------------------------------------------------------------ how it was made


def test_a_panel_says_how_it_was_made_and_is_made_anew(counts, tmp_path) -> None:
    path = tmp_path / "cells.h5ad"
    counts.write_h5ad(path)
    rules = {"type_weights": {"type_01": 2.0}, "seed": 4}
    rules = {**rules, "must_include": [counts.var_names[3]], "exclude": [counts.var_names[7]]}
    panel = select_genes(counts, "cell_type", 8, **rules)
    panel.to_csv(tmp_path / "panel.csv")
    for source in (tmp_path / "panel.csv", tmp_path / "panel.json"):
        known = read_panel(source)
        assert (known.genes, known.label_key, known.method) == (panel.genes, "cell_type", "discriminant")
        assert known.settings["rules"]["seed"] == 4 and known.settings["left_out"]["genes"]["excluded"] == 1
        assert remake_panel(known, counts).genes == panel.genes
    assert remake_panel(tmp_path / "panel.json", counts).table.equals(panel.table)
    assert panel.settings["values"] == {"place": "X", "kind": "raw counts", "n_genes": counts.n_vars}
    with pytest.raises(InputError, match="does not name the files"):
        remake_panel(tmp_path / "panel.json")
    other = counts.copy()
    other.obs["cell_type"] = np.roll(other.obs["cell_type"].to_numpy(), 1)
    with pytest.raises(InputError, match="not the cells of the panel .the labels"):
        remake_panel(panel, other)
    given = select_genes(counts, "cell_type", 8, split=split_cells(counts, "cell_type", seed=9))
    with pytest.raises(InputError, match="a split of the caller's"):
        remake_panel(given, counts)


def test_a_note_of_another_panel_is_not_believed(counts, panel, tmp_path) -> None:
    panel.to_csv(tmp_path / "panel.csv")
    rows = (tmp_path / "panel.csv").read_text().splitlines()
    (tmp_path / "panel.csv").write_text("\n".join([*rows[:2], *rows[3:]]) + "\n")
    with pytest.warns(UserWarning, match="describes other genes"):
        assert read_panel(tmp_path / "panel.csv").settings == {}
    (tmp_path / "other.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="is not a panel's, and would be replaced"):
        panel.to_csv(tmp_path / "other.csv")
    assert (tmp_path / "other.json").read_text() == '{"mine": 1}' and not (tmp_path / "other.csv").exists()


def test_types_that_are_left_out_are_named_with_their_reason(counts) -> None:
    cells = counts.copy()
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    labels[:3], labels[3:5] = "rare", "nan"
    cells.obs["cell_type"] = labels
    with pytest.warns(UserWarning):
        left_out = select_genes(cells, "cell_type", 5).settings["left_out"]
    assert left_out["types"] == {"rare": {"cells": 3, "why": "fewer than 7 cells"}}
    assert left_out["cells_without_a_label"] == 2


def test_a_panel_annotates_cells_that_can_be_stored(counts, panel, tmp_path) -> None:
    cells = counts.copy()
    panel.annotate(cells)
    assert cells.var_names[cells.var["selectormlp"]].isin(panel.genes).all() and cells.var["selectormlp"].sum() == 20
    assert cells.var.loc[panel.genes, "selectormlp_rank"].tolist() == list(range(1, 21))
    cells.write_h5ad(tmp_path / "annotated.h5ad")
    assert list(cells.uns["selectormlp"]["panel"]["genes"]) == panel.genes
    with pytest.raises(InputError, match="1 of the 20 genes of the panel are not in the cells"):
        panel.annotate(counts[:, [name for name in counts.var_names if name != panel.genes[4]]].copy())


def test_a_panel_shows_itself(panel) -> None:
    assert repr(panel) == "DesignedPanel(20 genes, label_key='cell_type', method='discriminant')"
    html = panel._repr_html_()
    assert html.count("<tr") == 21 and "detected in" not in html and panel.genes[19] in html


def test_must_include_larger_than_the_panel_and_excluded_are_refused(counts) -> None:
    names = counts.var_names.tolist()
    with pytest.raises(InputError, match="must_include has 6 genes, more than the 5"):
        select_genes(counts, "cell_type", 5, must_include=names[:6])
    with pytest.raises(InputError, match="is in must_include and in exclude"):
        select_genes(counts, "cell_type", 5, must_include=names[:1], exclude=names[:1])


def test_must_include_comes_first_and_the_rest_is_chosen_for_what_it_leaves_open(counts, panel) -> None:
    worst = [name for name in counts.var_names if name not in panel.genes][:2]
    ruled = select_genes(counts, "cell_type", 10, must_include=worst)
    assert ruled.genes[:2] == worst and ruled.table["reason"].tolist() == ["must include"] * 2 + ["chosen"] * 8
    copied = select_genes(counts, "cell_type", 10, must_include=panel.genes[:5])
    assert copied.genes == panel.genes[:10]


def test_panels_are_nested(counts, panel) -> None:
    assert select_genes(counts, "cell_type", 7).genes == panel.genes[:7]


def test_extending_keeps_the_given_panel(counts, panel) -> None:
    more = extend_panel(panel, counts, 5)
    assert more.genes[:20] == panel.genes and len(more) == 25
    with pytest.raises(InputError, match="n_more is -1"):
        extend_panel(panel, counts, -1)
    with pytest.raises(InputError, match="takes no 'method'; it belongs to select_genes"):
        extend_panel(panel, counts, 1, method="svm_l1")


def test_a_list_from_a_paper_is_described_and_scored(counts, panel) -> None:
    backwards = panel.genes[:6][::-1]
    described = describe_panel(backwards, counts, label_key="cell_type")
    assert described.genes == backwards and list(described.table.columns) == list(panel.table.columns)
    assert 0 <= described.score(counts).mean_per_class_accuracy <= panel.score(counts).mean_per_class_accuracy + 0.05


def test_ready_lists_know_names_of_men_and_mice() -> None:
    names = [
        "RPL3",
        "Rps6",
        "RPS27A",
        "RPL36AL",
        "Mrpl12",
        "RPLP0",
        "RPS6KA1",
        "MT-CO1",
        "mt-Nd1",
        "MTOR",
        "HBA1",
        "Hbb-bs",
        "HBEGF",
        "IGHG1",
        "IGHMBP2",
        "IGKV1-5",
        "IGF1",
        "TRAC",
        "TRAF3",
        "FOS",
        "FOSL1",
        "JUND",
        "XIST",
        "MALAT1",
        "ERCC-00002",
        "ERCC1",
        "Gm1234",
        "LINC0001",
        "AC012345.1",
        "ACTB",
    ]
    left_out = {name: unwanted_genes(names, [name]) for name in UNWANTED_GENES}
    assert left_out["ribosomal"] == {"RPL3", "Rps6", "RPS27A", "RPL36AL", "Mrpl12", "RPLP0"}
    assert left_out["mitochondrial"] == {"MT-CO1", "mt-Nd1"} and left_out["haemoglobin"] == {"HBA1", "Hbb-bs"}
    assert left_out["immunoglobulin"] == {"IGHG1", "IGKV1-5"} and left_out["T cell receptor"] == {"TRAC"}
    assert left_out["immediate early"] == {"FOS", "FOSL1", "JUND"} and left_out["sex"] == {"XIST"}
    assert left_out["spike-in"] == {"ERCC-00002"} and left_out["unnamed"] == {"Gm1234", "LINC0001", "AC012345.1"}
    assert unwanted_genes(names, ["MTOR", "ACT"]) == {"MTOR"}  # a name is a name, not the beginning of one


def test_the_expression_window_is_kept(counts) -> None:
    limits = {"min_detected": 0.3, "max_expression": 4.0}
    cells = prepare_cells(counts, "cell_type")
    train = split_cells(cells, "cell_type").subset(cells, "train")
    inside = select_genes(counts, "cell_type", 10, **limits)
    profiles = _type_profiles(train[:, inside.genes].X.tocsc().astype(float), train.obs["cell_type"])
    assert profiles.detected.max(axis=0).min() >= 0.3 and profiles.means.max() <= 4.0
    assert inside.genes != select_genes(counts, "cell_type", 10).genes


def test_candidates_are_the_only_choice_besides_must_include(counts) -> None:
    names = counts.var_names.tolist()
    with pytest.warns(UserWarning, match="1 of 16 candidates are not in the data: 'absent'"):
        chosen = select_genes(counts, "cell_type", 12, candidates=[*names[:15], "absent"], must_include=[names[50]])
    assert set(chosen.genes) <= {*names[:15], names[50]} and names[50] in chosen.genes


def test_each_type_gets_its_markers_or_a_word_about_it(counts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ruled = select_genes(counts, "cell_type", 15, min_markers=2)
    assert len(ruled) == 15 and (ruled.coverage["markers"] >= 2).all() and (ruled.coverage["wanted"] == 2).all()
    with pytest.warns(UserWarning, match="fewer markers than wanted for type_"):
        short = select_genes(counts, "cell_type", 8, min_markers=4)
    assert len(short) == 8 and short.coverage["markers"].max() - short.coverage["markers"].min() <= 2


def test_a_marker_is_highest_in_its_type(arrays) -> None:
    search = DiscriminantSearch(*arrays)
    marks = _marked_types(search.profiles, search.ridge)
    gene = int(np.flatnonzero(marks >= 0)[0])
    assert search.profiles.means[:, gene].argmax() == marks[gene]
    assert (_marked_types(search.profiles, search.ridge, effect=1e9) == -1).all()


def test_costs_follow_weights_and_groups(counts) -> None:
    types = ["type_0", "type_1", "type_2"]
    rules = PanelDesign(type_weights={"type_0": 3.0}, groups={"type_1": "x", "type_2": "x"}, sibling_cost=0.1)
    costs = _pair_costs(types, counts.obs, "cell_type", rules)
    assert costs[0, 1] == 2 and costs[1, 2] == pytest.approx(0.1)
    tree = PanelDesign(groups={"type_0": ("a", "b"), "type_1": ("a", "b"), "type_2": ("a", "c")}, sibling_cost=0.5)
    costs = _pair_costs(types, counts.obs, "cell_type", tree)
    assert costs[0, 1] == 0.25 and costs[0, 2] == 0.5
    with pytest.raises(InputError, match="no confusion costs anything"):
        _pair_costs(types, counts.obs, "cell_type", PanelDesign(groups=dict.fromkeys(types, "all"), sibling_cost=0))


def test_confusing_siblings_costs_less(counts) -> None:
    groups = {"type_00": "pair", "type_01": "pair"}
    plain, eased = (
        select_genes(counts, "cell_type", 8, **rules) for rules in ({}, {"groups": groups, "sibling_cost": 0})
    )
    separated = [" ".join(panel.table["separates"]).count("type_00 | type_01") for panel in (plain, eased)]
    assert separated[1] == 0 < separated[0]


def test_weighty_types_come_first(counts) -> None:
    recalls = []
    for weights in ({}, {"type_03": 50.0}):
        coverage = select_genes(counts, "cell_type", 3, type_weights=weights).coverage.set_index("type")
        recalls.append(coverage.loc["type_03", "recall"])
    assert recalls[1] > recalls[0] or recalls[0] == 1


def test_groups_may_stand_in_obs(counts) -> None:
    cells = counts.copy()
    cells.obs["lineage"] = np.where(cells.obs["cell_type"].isin(["type_00", "type_01"]), "one", "two")
    by_column = select_genes(cells, "cell_type", 8, groups="lineage")
    names = {name: "one" if name in ("type_00", "type_01") else "two" for name in counts.obs["cell_type"].unique()}
    assert by_column.genes == select_genes(counts, "cell_type", 8, groups=names).genes


def test_a_difference_that_donors_disagree_on_counts_for_nothing(counts, arrays) -> None:
    (X, y), donor = arrays, counts.obs["donor"].to_numpy()
    fickle = np.random.default_rng(0).normal(1, 0.1, (len(y), 1))
    fickle[(donor == "a") & (y == "type_00")] += 6
    fickle[(donor == "b") & (y == "type_00")] -= 2
    steady = np.random.default_rng(1).normal(1, 0.1, (len(y), 1))
    steady[y == "type_00"] += 1.4
    both = np.hstack([X.toarray(), fickle, steady])
    gains = [
        DiscriminantSearch(both, y, batches=batches).pair_gains([both.shape[1] - 2, both.shape[1] - 1])[0]
        for batches in (None, donor)
    ]
    assert gains[0][0] > 0.02 and gains[1][0] < gains[0][0] / 5  # the fickle gene
    assert gains[1][1] == pytest.approx(gains[0][1], rel=0.1)  # the steady one


def test_one_donor_is_as_none(counts) -> None:
    cells = counts.copy()
    cells.obs["donor"] = "only"
    assert select_genes(cells, "cell_type", 6, batch_key="donor").genes == select_genes(counts, "cell_type", 6).genes


def test_a_held_out_donor_judges(counts) -> None:
    split = split_batches(counts, "cell_type", batch_key="donor", test="c")
    panel = select_genes(counts, "cell_type", 10, split=split, batch_key="donor")
    assert set(counts.obs.loc[split.cells("test"), "donor"]) == {"c"}
    assert not set(split.cells("train")) & set(split.cells("test"))
    assert panel.score(counts).mean_per_class_accuracy > 0.5


def test_test_cells_have_no_say(counts, panel) -> None:
    spoiled = counts.copy()
    values = spoiled.X.toarray()
    values[spoiled.obs_names.isin(panel.split.cells("test")), 0] = 500
    spoiled.X = csr_matrix(values)
    assert select_genes(spoiled, "cell_type", 20).genes == panel.genes


# ---------------------------------------------------------------------------------------------- what the table says


def test_the_table_tells_the_truth(counts, panel) -> None:
    table = panel.table
    assert table["rank"].tolist() == list(range(1, 21)) and not table["gene"].duplicated().any()
    np.testing.assert_allclose(table["gain"].cumsum() + 1 / 5, table["accuracy"])
    cells = prepare_cells(counts, "cell_type")
    train = panel.split.subset(cells, "train")
    here = (train.obs["cell_type"] == "type_02").to_numpy()
    seen = np.ravel((train[here][:, panel.genes].X > 0).mean(axis=0))
    np.testing.assert_allclose(table["detected in type_02"], seen)
    stand_ins = {text.split(" (")[0] for row in table["substitutes"] for text in row.split(", ") if text}
    assert stand_ins and not stand_ins & set(panel.genes)
    first = table.loc[0, "substitutes"].split(", ")[0]
    name, value = re.fullmatch(r"(.+) \(([\d.]+)\)", first).groups()
    pair = train[:, [table.loc[0, "gene"], name]].X.toarray()
    types = train.obs["cell_type"].to_numpy().astype(str)
    weights = 1 / pd.Series(types).map(pd.Series(types).value_counts()).to_numpy()
    centred = pair - np.average(pair, axis=0, weights=weights)
    first, second, both = (
        np.average(centred[:, i] * centred[:, j], weights=weights) for i, j in ((0, 0), (1, 1), (0, 1))
    )
    assert float(value) == pytest.approx(both / np.sqrt(first * second), abs=0.02)


def test_a_model_can_rank_too(counts) -> None:
    ranked = select_genes(counts, "cell_type", 8, **MODEL)
    assert ranked.method == "selector_l1" and set(ranked.table["reason"]) == {"ranked"} and len(ranked.coverage) == 5


def test_genes_that_a_model_gives_no_weight_are_counted() -> None:
    ranking = pd.DataFrame({"gene": list("dcab"), "importance": [2.0, 1.0, 0.0, 0.0], "rank": [1, 2, 3, 4]})
    with pytest.warns(UserWarning, match=r"1 of the 3 genes have no weight in svm_l1 .*ask for 2, or use"):
        assert _required_first(ranking, PanelDesign(n_genes=3, method="svm_l1")) == ["d", "c", "a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _required_first(ranking, PanelDesign(n_genes=2, method="svm_l1")) == ["d", "c"]
        assert _required_first(ranking, PanelDesign(n_genes=2, method="svm_l1", must_include=["b"])) == ["d", "b"]


# --------------------------------------------------------------------------------------------------- time and memory


@pytest.mark.parametrize("batches", [False, True], ids=["all cells", "donors"])
@pytest.mark.parametrize("n_allowed", [None, 30], ids=["any gene", "some genes"])
def test_the_best_gene_is_that_of_most_worth(counts, arrays, monkeypatch, batches: bool, n_allowed: int | None) -> None:
    monkeypatch.setattr(search_module, "_VALUES_AT_HAND", 200)  # many parts, so that most genes are not looked at
    X = arrays[0][:, [*range(120), 3, 4]].copy()  # two genes come twice
    search = DiscriminantSearch(X, arrays[1], batches=counts.obs["donor"] if batches else None)
    for step in range(20 if n_allowed else 100):
        allowed = np.ones(122, dtype=bool)
        allowed[n_allowed or 122 :] = False
        assert (search._most_worth() >= search.worth()).all(), step
        worth = np.where(allowed, search.worth(), -np.inf)
        best = search.best(allowed if n_allowed else None)
        assert worth[best] == pytest.approx(worth.max(), rel=1e-12) and allowed[best], step
        search.add(best)


def test_few_genes_are_looked_at(arrays, monkeypatch) -> None:
    looked = []
    search = DiscriminantSearch(*arrays)
    monkeypatch.setattr(search_module, "_VALUES_AT_HAND", 200)
    monkeypatch.setattr(search, "_worth_of", lambda genes, worth=search._worth_of: looked.extend(genes) or worth(genes))
    assert search.best() == int(np.argmax(search.worth())) and len(looked) < 120 + 60


VIEWS = {
    "whole": lambda cells: cells,
    "all": lambda cells: cells[:],
    "slices": lambda cells: cells[:, :],
    "first": lambda cells: cells[:500],
    "names": lambda cells: cells[cells.obs_names],
    "mask": lambda cells: cells[np.ones(600, dtype=bool)],
    "genes": lambda cells: cells[:, cells.var_names],
}


@pytest.mark.parametrize("made", [csr_matrix, csc_matrix, np.asarray], ids=["CSR", "CSC", "dense"])
@pytest.mark.parametrize("view", VIEWS)
def test_the_given_cells_are_left_as_they_are(counts, made, view: str) -> None:
    given = counts.copy()
    given.X = made(counts.X.toarray().astype(np.float32))  # of the type that is worked with: nothing forces a copy
    before, names = given.to_df().copy(), given.obs.copy()
    for use in (normalise, prepare_cells, select_genes):
        use(VIEWS[view](given), *(() if use is normalise else ("cell_type",)))
        pd.testing.assert_frame_equal(given.to_df(), before)
        pd.testing.assert_frame_equal(given.obs, names)


PEAK = """
import re, sys
from pathlib import Path
from selectormlp.readers import load_cells
from selectormlp.selection import select_genes

def memory(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

select_genes(load_cells("pancreas")[:, :300], "cell_type", 3)  # whatever is imported is imported now
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
cells = load_cells(sys.argv[1])
select_genes(cells, "cell_type", 5)
print((memory("VmHWM") - before) / (8 * cells.X.nnz))  # a number and a place, four bytes each
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak cannot be set back elsewhere")
def test_cells_are_not_copied_in_memory(tmp_path) -> None:
    rng, n_cells, n_seen = np.random.default_rng(0), 200_000, 100
    genes = (rng.integers(0, 20, (n_cells, n_seen)) + 20 * np.arange(n_seen)).astype(np.int32)
    values = rng.poisson(1, n_cells * n_seen).astype(np.float32) + 1
    X = csr_matrix((values, genes.ravel(), np.arange(0, n_cells * n_seen + 1, n_seen)), shape=(n_cells, 2000))
    AnnData(X, obs={"cell_type": np.array(["a", "b", "c"])[np.arange(n_cells) % 3]}).write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:  # as a file is that was written in parts
        ends = file["X/indptr"][:].astype(np.int64)
        del file["X/indptr"]
        file["X/indptr"] = ends
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / "cells.h5ad")]
    sizes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(sizes) < 1.75  # names and labels are in it


def molecules(panel: DesignedPanel, adata: AnnData, key: str) -> pd.DataFrame:
    """Sum over the first genes of a panel (rows) of their mean molecules per 10,000 in each type's training cells."""
    train = prepare_cells(panel.split.subset(adata, "train"), key, min_cells=1)
    values = pd.DataFrame(np.expm1(train[:, panel.genes].X.toarray()), columns=panel.genes)
    return values.groupby(train.obs[key].to_numpy().astype(str)).mean().T.cumsum()


@pytest.mark.parametrize("limit", [40.0, 150.0, 1000.0])
@pytest.mark.parametrize(
    "more", [{}, {"min_markers": 1}, {"must_include": ["KRT19", "PECAM1"]}, {"type_weights": {"beta": 3}}]
)
def test_a_budget_is_kept_by_every_beginning_of_a_panel(limit: float, more: dict) -> None:
    adata = load_pancreas()
    panel = select_genes(adata, "cell_type", 12, min_cells=20, n_variable=400, max_total=limit, **more)
    totals = molecules(panel, adata, "cell_type")
    assert (totals.to_numpy() <= limit * 1.0001).all() and len(panel) == 12
    free = select_genes(adata, "cell_type", 12, min_cells=20, n_variable=400, **more)
    assert molecules(free, adata, "cell_type").to_numpy().max() > 40


def test_a_wide_budget_changes_nothing_and_a_narrow_one_says_so() -> None:
    adata, rules = load_pancreas(), {"min_cells": 20, "n_variable": 300}
    assert (
        select_genes(adata, "cell_type", 6, max_total=1e6, **rules).genes
        == select_genes(adata, "cell_type", 6, **rules).genes
    )
    with pytest.raises(
        InputError, match=r"must_include has [\d,]+ molecules per 10,000 in the type 'delta', .* leave out 'SST'"
    ):
        select_genes(adata, "cell_type", 6, max_total=100, must_include=["SST", "INS"], **rules)
    with pytest.raises(InputError, match=r"only \d+ genes fit into max_total=0.5"):
        select_genes(adata, "cell_type", 250, max_total=0.5, **rules)
    with pytest.raises(InputError, match="max_total needs method='discriminant'"):
        PanelDesign(max_total=10, method="svm_l1")
    with pytest.raises(InputError, match="max_total is -1"):
        PanelDesign(max_total=-1)


def test_a_long_base_in_blocks_is_the_same_as_gene_by_gene(monkeypatch) -> None:
    """Accuracies, worths, what genes separate and what is chosen next do not depend on how the base is taken."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 6, 400)
    rates = rng.gamma(0.5, 1, 90) * np.exp(rng.normal(0, 1, (6, 90)) * (rng.random((6, 90)) < 0.1))
    X = csr_matrix(np.log1p(rng.poisson(rates[y]))).astype(np.float32)
    base, donors = rng.permutation(90)[:50].tolist(), rng.integers(0, 3, 400)
    grown: dict[int, list[pd.DataFrame]] = {}
    for block in (16, 1000):  # 50 genes are four blocks, the last not full; and one by one
        monkeypatch.setattr(search_module, "_BLOCK", block)
        for batches in (None, donors):
            search = DiscriminantSearch(X, y.astype(str), batches=batches)
            means = search.profiles.means.copy()
            grown.setdefault(block, []).append(selection._grow_panel(search, 70, required=base))
            assert (search.profiles.means == means).all()  # what the table is made of stays
    for blocks, single in zip(grown[16], grown[1000], strict=True):
        assert blocks["index"].tolist() == single["index"].tolist() and blocks["index"].tolist()[:50] == base
        pd.testing.assert_frame_equal(blocks, single, rtol=1e-4, atol=1e-6)


def test_gains_have_intervals_and_genes_without_a_gain_say_so(caplog) -> None:
    """Cells drawn without any difference but in four genes: the rest of the panel is spare, and that is said once."""
    rng = np.random.default_rng(1)
    X = rng.poisson(1.0, (300, 40)).astype(np.float32)
    types = np.repeat(["a", "b", "c"], 100)
    for place, name in enumerate("abc"):
        X[types == name, place] += 6
    adata = AnnData(X, obs=pd.DataFrame({"type": types}, index=[f"cell{i}" for i in range(300)]))
    adata.var_names = [f"g{i}" for i in range(40)]
    with caplog.at_level(_NOTICE, "selectormlp"):
        panel = select_genes(adata, "type", 20)
    spare = panel.table["reason"] == "chosen; no gain shown"
    assert spare.tolist() == sorted(spare) and 15 <= spare.sum() <= 18
    assert sum("no gain is shown after" in line for line in caplog.messages) == 1
    table = panel.table.iloc[1:]
    assert (table["gain_low"] <= table["gain"] + 1e-9).all() and (table["gain"] <= table["gain_high"] + 1e-9).all()
    assert panel.table["gain_low"].iloc[1] > 0 and set(panel.genes[:2]) < {"g0", "g1", "g2"}
    imaging = select_genes(adata, "type", 20, target="imaging").table["reason"]  # its cells are not these
    assert not imaging.str.contains("no gain").any()


def test_genes_that_the_data_lack_are_carried(pancreas, tmp_path, caplog) -> None:
    """They stay in their place, count, are named, are not judged, and come back when the panel is made anew."""
    base = ["INS", "NOT-THERE-1", "GCG", "NOT-THERE-2"]
    with caplog.at_level(_NOTICE, "selectormlp"):
        panel = extend_panel(base, pancreas, 4, label_key="cell_type", min_cells=20)
    assert panel.genes[:4] == base and len(panel) == 8 and panel.table["rank"].tolist() == list(range(1, 9))
    carried = panel.table[panel.table["reason"] == "carried: not in the data"]
    assert carried["gene"].tolist() == ["NOT-THERE-1", "NOT-THERE-2"] and carried["accuracy"].isna().all()
    assert "in the order, not judged (not in the data): 'NOT-THERE-1', 'NOT-THERE-2'" in caplog.text
    without = extend_panel(["INS", "GCG"], pancreas, 4, label_key="cell_type", min_cells=20)
    assert panel.judged_genes == without.genes
    assert panel.score(pancreas).per_type.equals(without.score(pancreas).per_type)
    panel.to_csv(tmp_path / "panel.csv")
    assert remake_panel(tmp_path / "panel.json", pancreas).genes == panel.genes
    assert read_panel(tmp_path / "panel.csv").judged_genes == panel.judged_genes
    assert describe_panel(base, pancreas, label_key="cell_type", min_cells=20).genes == base
    with pytest.raises(InputError, match="must_include names 2 genes that are not in the data"):
        describe_panel(base[1::2], pancreas, label_key="cell_type", min_cells=20)  # nothing is left to judge
    with pytest.raises(InputError, match="'NOT-THERE-1', which is not in the data"):
        select_genes(pancreas, "cell_type", 8, must_include=base[:2], min_cells=20)


def test_markers_wanted_of_types_come_first_and_say_for_which(pancreas, caplog) -> None:
    wanted = {"beta": ["INS", "IAPP"], "kupffer": ["CD5L", "NOT-THERE"], "alpha": ["gcg", "INS"]}
    with caplog.at_level(_NOTICE, "selectormlp"):
        panel = select_genes(pancreas, "cell_type", 8, must_include=wanted, min_cells=20)
    assert panel.genes[:5] == ["INS", "IAPP", "CD5L", "NOT-THERE", "GCG"]
    reasons = dict(zip(panel.genes, panel.table["reason"], strict=True))
    assert reasons["INS"] == "must include, for beta, alpha" and reasons["GCG"] == "must include, for alpha"
    assert reasons["NOT-THERE"] == "carried: not in the data"
    assert "no cells of kupffer are judged; their genes are in the panel" in caplog.text
    assert remake_panel(panel, pancreas).genes == panel.genes
    with pytest.raises(InputError, match="must_include names the type 'Beta'; did you mean 'beta'?"):
        select_genes(pancreas, "cell_type", 8, must_include={"Beta": ["INS"]}, min_cells=20)


def test_costs_probes_and_preferred_genes(pancreas, caplog) -> None:
    pancreas = pancreas.copy()
    rng = np.random.default_rng(0)
    pancreas.var["price"], pancreas.var["probe_count"] = (
        rng.random(pancreas.n_vars),
        rng.integers(0, 60, pancreas.n_vars),
    )
    rules = {"min_cells": 20, "exclude": ["ribosomal"]}
    free = select_genes(pancreas, "cell_type", 12, **rules)
    paid = {
        weight: select_genes(pancreas, "cell_type", 12, costs={"price": weight}, **rules) for weight in (0.0, 0.5, 0.9)
    }
    price = {weight: pancreas.var.loc[panel.genes, "price"].mean() for weight, panel in paid.items()}
    assert paid[0.0].genes == free.genes and price[0.0] > price[0.5] > price[0.9]
    with pytest.raises(InputError, match=r"costs is \{'price': 1.5\}; it must be a mapping to a number from 0 to 1"):
        select_genes(pancreas, "cell_type", 12, costs={"price": 1.5}, **rules)
    with pytest.raises(InputError, match="costs names the column 'prise', which is not in var; did you mean 'price'?"):
        select_genes(pancreas, "cell_type", 12, costs={"prise": 0.5}, **rules)

    pancreas.var.loc[free.genes[0], "probe_count"] = np.nan  # a number that is not known is no room
    probed = select_genes(pancreas, "cell_type", 12, min_probes=30, must_include=["INS"], **rules)
    assert (pancreas.var.loc[probed.genes[1:], "probe_count"] >= 30).all() and free.genes[0] not in probed.genes
    pancreas.var.loc["INS", "probe_count"] = 3
    with caplog.at_level(_NOTICE, "selectormlp"):
        select_genes(pancreas, "cell_type", 12, min_probes=30, must_include=["INS"], **rules)
    assert "must_include keeps INS, which another rule would leave out: below min_probes" in caplog.text

    liked = ["TTR", "ACTA2", "KRT19", "IAPP"]
    for loss, least in ((0.0, 0), (0.3, 2), (1.0, 4)):
        panel = select_genes(pancreas, "cell_type", 12, prefer=liked, prefer_loss=loss, **rules)
        taken = panel.table.loc[panel.table["reason"] == "preferred", "gene"]
        assert len(set(liked) & set(panel.genes)) >= least and set(taken) <= set(liked)
    assert select_genes(pancreas, "cell_type", 12, prefer=liked, prefer_loss=0.0, **rules).genes == free.genes
    assert set(panel.genes[:4]) == set(liked)  # at a loss of 1 they come first
    with pytest.raises(InputError, match="none of the 1 preferred genes is in the data"):
        select_genes(pancreas, "cell_type", 12, prefer=["NOT-THERE"], **rules)


def test_what_cannot_be_told_apart_is_said(pancreas, caplog) -> None:
    """Types with one donor each, a label that is the batch, and types that a small panel confuses."""
    pancreas = pancreas.copy()
    types = pancreas.obs["cell_type"].astype(str)
    pancreas.obs["donor"] = np.where(types == "beta", np.arange(pancreas.n_obs) % 2, types.factorize()[0] % 3).astype(
        str
    )
    with caplog.at_level(_NOTICE, "selectormlp"):
        apart = select_genes(pancreas, "cell_type", 3, batch_key="donor", min_cells=20).coverage
        few = select_genes(pancreas, "cell_type", 3, min_cells=20)
    assert apart.set_index("type")["recall"].notna().tolist() == [name == "beta" for name in apart["type"]]
    assert "batch_key: 8 of 9 types have one donor alone (acinar," in caplog.text
    told = [line for line in caplog.messages if line.startswith("types not told apart")][-1]
    worst = few.coverage.loc[few.coverage["recall"].idxmin()]
    assert f"{worst['recall']:.2f}" in told and worst["type"] in told
    assert (few.coverage["taken_for"] != few.coverage["type"]).all()
    with pytest.raises(InputError, match="batch_key is 'cell_type', the column of the types"):
        select_genes(pancreas, "cell_type", 3, batch_key="cell_type", min_cells=20)


def test_a_gene_without_a_count_is_highest_nowhere(pancreas) -> None:
    pancreas = pancreas.copy()
    pancreas.X[:, pancreas.var_names.get_loc("A2ML1")] = 0
    panel = select_genes(pancreas, "cell_type", 5, must_include=["A2ML1", "INS"], min_cells=20)
    assert panel.table["highest_in"].tolist()[:2] == ["", "beta"]


def test_genes_to_look_at_are_named_but_for_those_asked_for(counts, caplog) -> None:
    counts = counts.copy()
    first = select_genes(counts, "cell_type", 6).genes
    named = dict(zip(first, ["XIST", "Fos", "Gm9846", "RPL3", "INS", "Jun"], strict=True))
    counts.var_names = [named.get(name, name) for name in counts.var_names]
    with caplog.at_level(_NOTICE, "selectormlp"):
        panel = select_genes(counts, "cell_type", 6, must_include=["Jun"], candidates=[*named.values()])
    assert set(panel.genes) == set(named.values())
    said = next(line for line in caplog.messages if line.startswith("look at these before you order"))
    assert all(f"{gene} ({kind})" in said for gene, kind in (
        ("XIST", "sex"), ("Fos", "immediate early"), ("Gm9846", "unnamed"), ("RPL3", "ribosomal")
    ))  # fmt: skip
    assert "Jun" not in said and "INS" not in said


# Rules beside one another


def test_a_list_of_which_two_names_mean_one_gene_gets_as_many_more_as_asked(pancreas) -> None:
    names = ["PTPRC", "CD45", "INS", "INS", "NOT-THERE"]
    extended = extend_panel(names, pancreas, 2, label_key="cell_type", min_cells=20)
    assert extended.genes[:3] == ["PTPRC", "INS", "NOT-THERE"] and len(extended) == 5
    assert (extended.table["reason"] == "chosen").sum() == 2 and extended.settings["rules"]["n_genes"] == 5
    assert remake_panel(extended, pancreas).genes == extended.genes
    described = describe_panel(names, pancreas, label_key="cell_type", min_cells=20)
    assert described.genes == ["PTPRC", "INS", "NOT-THERE"]  # and none that is not on the list


def test_carried_genes_leave_the_ranking_of_a_classifier_as_it_is(counts) -> None:
    how = {"method": "svm_l1", "candidates": counts.var_names[:40].tolist()}
    gene = select_genes(counts, "cell_type", 6, **how).genes[3]  # not the first of the ranking
    plain = select_genes(counts, "cell_type", 6, **how, must_include=[gene]).table
    table = select_genes(counts, "cell_type", 8, **how, must_include=["NOT-1", gene, "NOT-2"], carry=True).table
    judged = table[table["accuracy"].notna()].reset_index(drop=True)
    assert judged["gene"].tolist() == plain["gene"].tolist()
    np.testing.assert_allclose(judged["accuracy"].diff()[1:], judged["gain"][1:], atol=1e-9)  # with the genes so far
    assert table["gene"][0] == "NOT-1" and table["gene"].tolist()[5:6] == ["NOT-2"] and table["gene"][4] == gene


def test_preferred_genes_that_another_rule_leaves_out_are_named(pancreas, caplog) -> None:
    with caplog.at_level("INFO"):
        select_genes(pancreas, "cell_type", 3, min_cells=20, prefer=["INS", "GCG"], exclude=["INS"])
    assert "prefer: INS cannot be taken, for another rule leaves out: excluded" in caplog.text


def test_a_price_without_end_and_a_gene_without_a_name_are_refused(counts) -> None:
    priced = counts.copy()
    priced.var["price"] = np.where(np.arange(priced.n_vars) == 3, np.inf, 1.0)
    with pytest.raises(InputError, match="finite numbers"):
        select_genes(priced, "cell_type", 3, costs={"price": 0.5})
    with pytest.raises(InputError, match="an empty name"):
        select_genes(counts, "cell_type", 3, must_include=[" "], carry=True)


def test_prices_that_have_changed_are_other_cells(counts) -> None:
    priced = counts.copy()
    priced.var["price"], priced.var["probes"] = np.arange(priced.n_vars), 9
    panel = select_genes(priced, "cell_type", 4, costs={"price": 0.5}, min_probes=3, probes_key="probes")
    assert remake_panel(panel, priced).genes == panel.genes
    for column in ("price", "probes"):
        other = priced.copy()
        other.var[column] = other.var[column].to_numpy()[::-1] + 1
        with pytest.raises(InputError, match=f"the column '{column}' of var"):
            remake_panel(panel, other)
