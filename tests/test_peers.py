"""Methods of others: as many known genes as asked for, the same for the same seed, and a clear word if absent."""

import os
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from selectormlp.classifiers import make_classifier
from selectormlp.data import InputError, normalise
from selectormlp.peers import (
    PEERS,
    LabelledCells,
    Peer,
    _at_most,
    _genes_by_score,
    _interleave_types,
    _peer_missing,
    available_peers,
    choose_with,
)
from selectormlp.simulation import simulate_cells

ALWAYS = [name for name, peer in PEERS.items() if not peer.package]
OPTIONAL = [name for name, peer in PEERS.items() if peer.package]


@pytest.fixture(scope="module")
def planted() -> pd.Series:
    """Truth of the simulated cells: is a gene a marker?"""
    return simulated().var["is_marker"]


@pytest.fixture(scope="module")
def cells() -> LabelledCells:
    """300 simulated cells of five types, with validation cells."""
    adata = simulated()
    X, y = sparse.csr_matrix(adata.X), adata.obs["cell_type"].to_numpy().astype(str)
    return LabelledCells(X[:300], y[:300], list(adata.var_names), validation=(X[300:], y[300:]))


def simulated():
    """360 cells x 120 genes, log-normalised."""
    return normalise(simulate_cells(360, 120, 5, seed=1))


def chosen(name: str, cells: LabelledCells, n_genes: int, seed: int = 0) -> list[str]:
    """What a method chooses, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return choose_with(name, cells, n_genes, seed)


def check_contract(name: str, cells: LabelledCells) -> None:
    """Distinct known genes, the same twice, and the short list at the head of the long one where it says so."""
    genes = chosen(name, cells, 12)
    assert len(genes) == len(set(genes)) == 12 and set(genes) <= set(cells.genes)
    assert all(type(gene) is str for gene in genes)
    assert chosen(name, cells, 12) == genes
    if PEERS[name].nested:
        assert chosen(name, cells, 5) == genes[:5]


@pytest.fixture
def short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let peers that are our own networks train for two steps."""
    short = partial(make_classifier, model_settings={"max_epochs": 1, "steps_per_epoch": 2})
    monkeypatch.setattr("selectormlp.peers.make_classifier", short)


@pytest.mark.usefixtures("short_trainings")
@pytest.mark.parametrize("name", ALWAYS)
def test_always_available(name: str, cells: LabelledCells) -> None:
    check_contract(name, cells)


@pytest.mark.usefixtures("short_trainings")
@pytest.mark.parametrize("name", OPTIONAL)
def test_optional(name: str, cells: LabelledCells) -> None:
    if PEERS[name].checkout:
        if _peer_missing(PEERS[name]):
            pytest.skip(f"{PEERS[name].checkout} names no clone")
        if not os.environ.get("SELECTORMLP_SLOW_TESTS"):
            pytest.skip("minutes; set SELECTORMLP_SLOW_TESTS=1")
    else:
        pytest.importorskip(PEERS[name].module)
    check_contract(name, cells)


def test_order_of_the_genes_in_the_file_does_not_matter(cells: LabelledCells) -> None:
    order = np.random.default_rng(0).permutation(len(cells.genes))
    X, y = cells.validation or pytest.fail("no validation cells")
    mixed = replace(cells, X=cells.X[:, order], genes=[cells.genes[i] for i in order], validation=(X[:, order], y))
    for name in ("random", "HVG", "ANOVA F", "t-test", "Wilcoxon", "greedy Mahalanobis"):
        assert choose_with(name, mixed, 20) == choose_with(name, cells, 20), name


@pytest.mark.parametrize("name", ["ANOVA F", "random forest", "t-test", "greedy Mahalanobis", "L1 logistic"])
def test_planted_markers_are_found(name: str, cells: LabelledCells, planted: pd.Series) -> None:
    at_random = np.mean([planted[choose_with("random", cells, 20, seed)].mean() for seed in range(10)])
    assert planted[chosen(name, cells, 20)].mean() > at_random + 0.2


def test_all_genes_can_be_asked_for_and_no_more(cells: LabelledCells) -> None:
    for name in ("random", "ANOVA F", "t-test", "random forest", "greedy Mahalanobis"):
        assert sorted(choose_with(name, cells, len(cells.genes))) == sorted(cells.genes)
    for n_genes in (0, len(cells.genes) + 1):
        with pytest.raises(InputError, match="between 1 and the 120 genes"):
            choose_with("random", cells, n_genes)


def test_a_gene_that_never_varies_comes_last(cells: LabelledCells) -> None:
    flat = replace(cells, X=sparse.hstack([cells.X, sparse.csr_matrix((300, 1))]).tocsr(), genes=[*cells.genes, "FLAT"])
    flat = replace(flat, validation=None)
    for name in ("ANOVA F", "HVG", "random forest", "greedy Mahalanobis", "L1 SVM"):
        assert "FLAT" not in chosen(name, flat, 60), name
    assert choose_with("ANOVA F", flat, 121)[-1] == "FLAT"


def test_l1_goes_on_with_weaker_penalties(cells: LabelledCells) -> None:
    from sklearn.svm import LinearSVC

    from selectormlp.peers import _standardised

    X = _standardised(cells.X)
    size = np.abs(
        LinearSVC(penalty="l1", dual=False, C=0.01, class_weight="balanced", random_state=0).fit(X, cells.y).coef_
    ).sum(axis=0)
    n_first = int((size > 0).sum())
    assert 0 < n_first < 110
    longer = chosen("L1 SVM", cells, n_first + 5)
    assert set(longer[:n_first]) == {gene for gene, weight in zip(cells.genes, size, strict=True) if weight > 0}


def test_greedy_takes_the_gene_that_lowers_the_sum_most(cells: LabelledCells) -> None:
    from selectormlp.peers import _means_and_spread

    means, spread = _means_and_spread(cells)
    first, second = np.triu_indices(len(means), 1)

    def objective(kept: list[int]) -> float:
        gap = (means[first] - means[second])[:, kept]
        distance = (gap * np.linalg.solve(spread[np.ix_(kept, kept)], gap.T).T).sum(axis=1)
        return float(np.exp(-distance / 8).sum())

    kept: list[int] = []
    for gene in choose_with("greedy Mahalanobis", cells, 6):
        values = [np.inf if i in kept else objective([*kept, i]) for i in range(len(cells.genes))]
        kept.append(cells.genes.index(gene))
        assert values[kept[-1]] <= min(values) * (1 + 1e-6)


def test_at_most_keeps_rare_types_whole(cells: LabelledCells) -> None:
    counted = replace(cells, counts=cells.X * 2)
    few = _at_most(counted, 20, 0)
    before, after = pd.Series(cells.y).value_counts(), pd.Series(few.y).value_counts()
    assert (after == before.clip(upper=20)[after.index]).all() and few.counts is not None
    assert few.counts.shape == few.X.shape and abs(few.counts - few.X * 2).max() == 0
    assert (_at_most(counted, 20, 0).X != few.X).nnz == 0 and (_at_most(counted, 20, 1).X != few.X).nnz > 0


def test_helpers() -> None:
    assert _genes_by_score(["B", "A", "C"], np.array([1.0, 1.0, np.nan])) == ["A", "B", "C"]
    scores = pd.DataFrame([[3.0, 2, 1], [1, np.nan, 4]], columns=["x", "y", "z"])
    assert _interleave_types(scores) == ["z", "x", "y"]


def test_errors_name_the_way_out(cells: LabelledCells, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'random forest'"):
        choose_with("random_forrest", cells, 5)
    absent = Peer("absent", lambda cells, n_genes, seed: [], package="no-such-package", module="no_such_package")
    monkeypatch.setitem(PEERS, "absent", absent)
    assert "absent" not in available_peers() and set(ALWAYS) <= set(available_peers())
    with pytest.raises(InputError, match=r"no-such-package is not installed; pip install 'selectormlp\[peers\]"):
        choose_with("absent", cells, 5)
    monkeypatch.setenv("SELECTORMLP_PERSIST", "nowhere")
    with pytest.raises(InputError, match="names no clone of it; clone https"):
        choose_with("PERSIST", cells, 5)
    with pytest.raises(InputError, match="cells x genes, with a name of its own"):
        replace(cells, genes=cells.genes[:-1])


@pytest.mark.parametrize("answer", [["g"] * 3, ["nobody", "knows", "these"], []])
def test_a_wrong_answer_is_refused(cells: LabelledCells, monkeypatch: pytest.MonkeyPatch, answer: list[str]) -> None:
    monkeypatch.setitem(PEERS, "wrong", Peer("wrong", lambda cells, n_genes, seed: answer))
    with pytest.raises(InputError, match="wrong ranks only"):
        choose_with("wrong", cells, 3)


def test_nothing_leaks_out(cells: LabelledCells, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import torch

    def noisy(cells: LabelledCells, n_genes: int, seed: int) -> list[str]:
        print("noise")
        warnings.filterwarnings("ignore")
        return [str(gene) for gene in np.random.permutation(cells.genes)[:n_genes]]

    monkeypatch.setitem(PEERS, "noisy", Peer("noisy", noisy))
    before = (np.random.get_state()[1].copy(), torch.get_rng_state(), list(warnings.filters))
    assert choose_with("noisy", cells, 5, 3) == choose_with("noisy", cells, 5, 3) != choose_with("noisy", cells, 5, 4)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    assert list(warnings.filters) == before[2] and capsys.readouterr().out == ""


def test_every_peer_says_where_it_is_from() -> None:
    for name, peer in PEERS.items():
        assert name == peer.name and peer.designed_for and (peer.source or name == "random")
        assert bool(peer.package) == bool(peer.module)
