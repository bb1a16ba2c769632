"""The bench: its scores are scikit-learn's, its intervals scipy's, and nothing that goes wrong is left out."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from selectormlp import benchmark
from selectormlp.benchmark import (
    _DataSet,
    _measure_panel,
    _neighbour_overlap,
    _plot_stability,
    _prepare_split,
    _PreparedSplit,
    _redundancy,
    _stability,
    plot_accuracy,
    read_benchmark,
    run_benchmark,
)
from selectormlp.data import InputError
from selectormlp.evaluation import _JUDGES, _make_judge, score_panel
from selectormlp.intervals import (
    _EVERY_SET,
    _mean_jaccard,
    _paired_interval,
    _verdicts,
    paired_differences,
    plot_differences,
)
from selectormlp.peers import PEERS, LabelledCells, Peer
from selectormlp.simulation import simulate_cells

SIZES = (2, 5)


@pytest.fixture(scope="module")
def simulated():
    cells = simulate_cells(700, 150, 4, n_markers_per_type=2, n_housekeeping=2, size_ratio=3, seed=0)
    return _DataSet("simulated", cells, "cell_type", min_cells=20)


@pytest.fixture(scope="module")
def prepared(simulated):
    return _prepare_split(simulated, 0)


def first_genes(cells: LabelledCells, n_genes: int, seed: int) -> list[str]:
    return cells.genes[:n_genes]


def toy_split(columns: np.ndarray, y: np.ndarray) -> _PreparedSplit:
    """Even rows train, odd rows test; genes a, b, c, ..."""
    genes = [chr(ord("a") + i) for i in range(columns.shape[1])]
    train = LabelledCells(columns[::2].astype(np.float32), y[::2], genes)
    neighbours = np.zeros((len(y[1::2]), 15), dtype=int)
    return _PreparedSplit("toy", 0, train, (columns[1::2].astype(np.float32), y[1::2]), neighbours)


def test_scores_are_those_of_scikit_learn(prepared):
    genes = prepared.train.genes[3:9]
    table = _measure_panel(genes, prepared).set_index("judge")
    assert list(table.index) == list(_JUDGES)
    (X, y), (X_test, y_test) = (prepared.train.X[:, 3:9].toarray(), prepared.train.y), prepared.test
    for judge, row in table.iterrows():
        called = _make_judge(judge, seed=0).fit(X, y).predict(X_test[:, 3:9].toarray())
        recalls = recall_score(y_test, called, average=None)
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y_test, called))
        assert row["macro_f1"] == pytest.approx(f1_score(y_test, called, average="macro"))
        assert row["worst_recall"] == pytest.approx(recalls.min())
        assert row["share_recalled"] == pytest.approx((recalls >= 0.8).mean())


def test_a_perfect_panel_and_a_random_one():
    y = np.repeat(["t0", "t1", "t2", "t3"], 100)
    noise = np.random.default_rng(0).normal(size=(400, 4))
    told = np.eye(4)[np.repeat(range(4), 100)] * 5
    split = toy_split(np.hstack([told, noise]), y)
    perfect, random = _measure_panel(list("abcd"), split), _measure_panel(list("efgh"), split)
    assert (perfect[["balanced_accuracy", "macro_f1", "worst_recall", "share_recalled"]] == 1).all(axis=None)
    assert random["balanced_accuracy"].between(0.1, 0.4).all()


def test_labels_that_are_numbers_can_be_judged():
    y = np.repeat(["7", "10", "2"], 60)
    split = toy_split(np.eye(3)[np.repeat(range(3), 60)] * 5, y)
    assert (_measure_panel(list("abc"), split)["balanced_accuracy"] == 1).all()


def test_a_classifier_of_ours_can_be_a_judge_apart(prepared):
    table = _measure_panel(prepared.train.genes[:5], prepared, judges=["logistic_regression", "svm_l2"])
    assert table["judge"].tolist() == ["logistic_regression", "svm_l2"] and table["balanced_accuracy"].notna().all()


def test_measures_without_a_judge(prepared):
    X, X_test = prepared.train.X[:, :6], prepared.test[0][:, :6]
    r = np.abs(np.corrcoef(X.toarray().T))[np.triu_indices(6, 1)]
    assert _redundancy(X, threshold=0.01) == pytest.approx((r > 0.01).mean())
    twice = np.repeat(np.random.default_rng(0).normal(size=(50, 2)), 2, axis=1)
    assert _redundancy(np.hstack([twice, np.ones((50, 1))])) == pytest.approx(2 / 10)  # the fifth gene never varies
    near = np.argsort(((X_test.toarray()[:, None] - X.toarray()[None]) ** 2).sum(axis=2), axis=1, kind="stable")
    assert _neighbour_overlap(X, X_test, near[:, :15]) > 0.8  # equal distances may be taken in another order
    assert (
        prepared.planted
        and _measure_panel(sorted(prepared.planted & set(prepared.train.genes))[:4], prepared)["planted_share"]
        .eq(1)
        .all()
    )


def test_genes_that_cannot_be_scored(prepared):
    for genes in (["nope"], [], [prepared.train.genes[0]] * 2):
        with pytest.raises(InputError, match="cannot be scored"):
            _measure_panel(genes, prepared)


def test_test_cells_have_no_part_in_the_preparation(simulated, prepared):
    from selectormlp.split import split_cells

    cells = simulated.load()
    test = split_cells(cells, "cell_type", min_cells=20, seed=0).cells("test")
    X = cells.X.toarray()
    X[cells.obs_names.isin(test)] = np.random.default_rng(1).poisson(30, size=(len(test), cells.n_vars))
    cells.X = X
    again = _prepare_split(_DataSet("changed", cells, "cell_type", min_cells=20), 0)
    assert again.train.genes == prepared.train.genes
    np.testing.assert_array_equal(again.train.X.toarray(), prepared.train.X.toarray())
    assert (again.test[0] != prepared.test[0]).nnz > 0


def test_a_split_is_disjoint_balanced_and_keeps_raw_counts(simulated, prepared):
    counts, X = prepared.train.counts.toarray(), prepared.train.X.toarray()
    assert counts.shape == X.shape and (counts == np.floor(counts)).all() and ((counts > 0) == (X > 0)).all()
    assert prepared.train.validation is not None
    other = _prepare_split(simulated, 1)
    assert other.train.X.shape == X.shape and not np.array_equal(other.train.X.toarray()[:, 0], X[:, 0])


def test_cells_without_a_label_are_left_out():
    cells = simulate_cells(300, 50, 3, n_markers_per_type=1, n_housekeeping=2, size_ratio=2, seed=0)
    labels = cells.obs["cell_type"].astype(str).to_numpy(dtype=object)
    labels[:3] = "(none)", "nan", ""
    cells.obs["cell_type"] = labels
    assert _DataSet("some", cells, "cell_type").load().n_obs == 297
    assert _DataSet("some", lambda: cells, "cell_type").load().n_obs == 297
    assert _DataSet("some", cells, "cell_type").least_cells(300) == 7
    assert _DataSet("some", cells, "cell_type").least_cells(3000) == 20


def fail(cells, n_genes, seed):
    raise ValueError("no such luck")


def crash(cells, n_genes, seed):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(cells, n_genes, seed):
    if n_genes > 2:
        time.sleep(60)
    return cells.genes[:n_genes]


def falter(cells, n_genes, seed):
    return cells.genes[:3]


def test_whatever_goes_wrong_is_recorded_with_its_reason(simulated, tmp_path):
    methods = [
        Peer("good", first_genes),
        Peer("fails", fail),
        Peer("crashes", crash),
        Peer("sleeps", sleep, nested=False),
        Peer("falters", falter),
        Peer("is missing", first_genes, package="no-such-package", module="no_such_package"),
    ]
    start = time.monotonic()
    results = run_benchmark(
        [simulated], methods, folder=tmp_path, sizes=SIZES, n_splits=1, time_limit=8, judges=["nearest_neighbours"]
    )
    assert time.monotonic() - start < 40
    status = results.scores.set_index(["method", "n_genes"])["status"].unstack()
    assert status.loc["good"].tolist() == ["done", "done"]
    assert status.loc["fails"].tolist() == ["failed", "failed"]
    assert status.loc["crashes"].tolist() == ["crashed", "crashed"]
    assert status.loc["sleeps"].tolist() == ["done", "timed out"]
    assert status.loc["falters"].tolist() == ["done", "failed"]
    assert status.loc["is missing"].tolist() == ["missing", "missing"]
    reasons = results.failures().groupby("method")["reason"].first()
    for method, words in {
        "fails": "ValueError: no such luck",
        "crashes": "exit code -9",
        "sleeps": "limit of 8 s",
        "falters": "ranks 3 genes",
        "is missing": "no-such-package is not installed",
    }.items():
        assert words in reasons[method]
    assert not (results.scores["status"] != "done").eq(results.scores["balanced_accuracy"].notna()).any()


def test_resume_skips_what_is_done(simulated, tmp_path):
    settings = {"folder": tmp_path, "n_splits": 2, "judges": ["nearest_neighbours"], "n_jobs": 1}
    first = run_benchmark([simulated], [Peer("a", first_genes)], sizes=SIZES, **settings)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.json")}
    assert len(files) == 2
    again = run_benchmark([simulated], [Peer("a", fail), Peer("b", first_genes)], sizes=SIZES, **settings)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    pd.testing.assert_frame_equal(again.scores[again.scores["method"] == "a"].reset_index(drop=True), first.scores)
    both = again.scores.pivot(index=["split", "n_genes"], columns="method", values="balanced_accuracy")
    assert (both["a"] == both["b"]).all()
    more = run_benchmark([simulated], [Peer("a", fail)], sizes=(2,), **settings)  # other settings: done anew
    assert (more.scores[more.scores["method"] == "a"]["status"] == "failed").all()
    redone = run_benchmark([simulated], [Peer("a", first_genes)], sizes=(2,), retry=["failed"], **settings)
    assert (redone.scores[redone.scores["method"] == "a"]["status"] == "done").all()
    pd.testing.assert_frame_equal(read_benchmark(tmp_path).scores, redone.scores)


def by_size(cells, n_genes, seed):
    return sorted(cells.genes[: n_genes + 1], reverse=n_genes > 2)[:n_genes]


def test_nested_methods_are_asked_once_others_for_each_size(simulated, tmp_path):
    methods = [Peer("nested", by_size), Peer("not nested", by_size, nested=False)]
    settings = {"sizes": SIZES, "n_splits": 1, "judges": ["nearest_neighbours"]}
    chosen = run_benchmark([simulated], methods, folder=tmp_path, **settings).chosen
    lists = chosen.groupby(["method", "n_genes"])["gene"].agg(list)
    assert lists["nested", 2] == lists["nested", 5][:2] != lists["not nested", 2]
    assert lists["nested", 5] == lists["not nested", 5]


def greedy_for_memory(cells, n_genes, seed):
    block = np.ones(25_000_000)  # 191 MiB
    return cells.genes[: n_genes + int(block[0] > 1)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak cannot be set back elsewhere")
def test_seconds_and_peak_memory(simulated, tmp_path):
    methods = [Peer("large", greedy_for_memory), Peer("small", first_genes)]
    settings = {"sizes": SIZES, "n_splits": 1, "judges": ["nearest_neighbours"]}
    scores = run_benchmark([simulated], methods, folder=tmp_path, **settings).scores.groupby("method").first()
    assert 150 < scores["peak_memory_mb"]["large"] < 300 and scores["peak_memory_mb"]["small"] < 50
    assert scores["seconds"].between(0, 10).all()


def test_processes_may_also_be_spawned(simulated, tmp_path):
    settings = {"sizes": SIZES, "n_splits": 1, "judges": ["nearest_neighbours"], "start_method": "spawn"}
    results = run_benchmark([simulated], [PEERS["random"]], folder=tmp_path, **settings)
    assert (results.scores["status"] == "done").all()


def test_a_method_that_cannot_be_pickled_travels_by_its_name(prepared):
    method = PEERS["SelectorMLP, robust"]
    job = pickle.loads(pickle.dumps(benchmark._Job(prepared, method, benchmark.BenchmarkPlan())))
    assert job.method is method and job.prepared.train.genes == prepared.train.genes


def test_names_that_share_a_file_are_refused(simulated, tmp_path):
    with pytest.raises(InputError, match="names of their own"):
        run_benchmark([simulated], [Peer("a b", first_genes), Peer("A-B", first_genes)], folder=tmp_path)
    with pytest.raises(InputError, match="no results"):
        read_benchmark(tmp_path)


def test_paired_interval_is_scipys():
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    ours, theirs = _paired_interval(a - b), ttest_rel(a, b).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high)) and ours.n_pairs == 5
    wider = _paired_interval(a - b, test_to_train=0.2)
    assert (wider.high - wider.low) / (ours.high - ours.low) == pytest.approx(np.sqrt(2))
    assert np.isnan(_paired_interval([0.3]).low) and _paired_interval([0.3]).mean == 0.3


def made_up_scores() -> pd.DataFrame:
    """Two sets, three splits: ours is 0.1 ahead of worse, 0.02 to 0.04 behind better on s1; lazy did s1 alone."""
    rows = []
    for data_set, split in [(s, i) for s in ("s1", "s2") for i in range(3)]:
        ours = 0.7 + 0.01 * split + (0.1 if data_set == "s2" else 0)
        better = ours + 0.02 + 0.01 * split if data_set == "s1" else ours - 0.05 + 0.05 * split
        given = {"ours": ours, "worse": ours - 0.1 + 0.001 * split, "better": better}
        given["lazy"] = ours if data_set == "s1" else np.nan
        rows += [
            {"data_set": data_set, "split": split, "method": name, "n_genes": 10, "balanced_accuracy": value}
            for name, value in given.items()
        ]
    return pd.DataFrame(rows)


def test_paired_differences_and_verdicts():
    scores = made_up_scores()
    pairs = paired_differences(scores, "ours").set_index(["other", "data_set"])
    wide = scores.pivot(index=["split", "data_set"], columns="method", values="balanced_accuracy")
    for other in ("worse", "better"):
        means = (wide["ours"] - wide[other]).unstack().mean(axis=1)
        assert pairs.loc[(other, _EVERY_SET), "mean"] == pytest.approx(means.mean())
        expected = _paired_interval(means)
        assert pairs.loc[(other, _EVERY_SET), "low"] == pytest.approx(expected.low)
    assert pairs.loc[("lazy", _EVERY_SET), "n_sets"] == 1 and ("lazy", "s2") not in pairs.index
    stands = _verdicts(scores, "ours").set_index("data_set")
    assert stands.loc["s1", "verdict"] == "behind" and stands.loc["s1", "best_other"] == "better"
    assert stands.loc["s2", "verdict"] == "first"
    assert _verdicts(scores, "better").set_index("data_set").loc["s2", "verdict"] == "level"
    assert stands.loc[_EVERY_SET, "best_other"] == "better"
    with pytest.raises(InputError, match="did you mean 'worse'"):
        paired_differences(scores, "wors")


def test_jaccard_and_stability():
    assert _mean_jaccard([["a", "b"], ["b", "c"], ["a", "b"]]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert np.isnan(_mean_jaccard([["a"]]))
    lists = {0: "abc", 1: "abd", 2: "abe"}
    rows = [
        {"data_set": "s", "split": split, "method": "m", "n_genes": n, "gene": gene}
        for split, genes in lists.items()
        for n in (2, 3)
        for gene in genes[:n]
    ]
    table = _stability(pd.DataFrame(rows)).set_index("n_genes")["stability"]
    assert table[2] == 1 and table[3] == pytest.approx(0.5)


def test_figures():
    import matplotlib.pyplot as plt

    scores = made_up_scores()
    plot_differences(paired_differences(scores, "ours"), sizes=(10, 25))
    plot_accuracy(scores, highlight=["ours"])
    stable = pd.DataFrame({"data_set": "s1", "method": ["ours", "worse"], "n_genes": 10, "stability": [0.5, 0.2]})
    _plot_stability(scores, stable, n_genes=10, highlight=["ours"])
    plt.close("all")


def test_score_panel_takes_a_judge(simulated):
    from selectormlp.data import prepare_cells
    from selectormlp.split import split_cells

    cells = prepare_cells(simulated.source, "cell_type", min_cells=20)
    split = split_cells(cells, "cell_type", min_cells=20)
    markers = cells.var_names[simulated.source.var["is_marker"]].tolist()
    assert score_panel(markers, cells, split, "cell_type", condition="random_forest").mean_per_class_accuracy > 0.8
    with pytest.raises(InputError, match="takes no 'max_epochs'"):
        score_panel(markers, cells, split, "cell_type", condition="random_forest", model_settings={"max_epochs": 3})
    with pytest.raises(InputError, match="did you mean 'random_forest'"):
        _make_judge("random_forests")


def test_the_command_prints_the_table(root: Path, tmp_path):
    tables = sorted((root / "data" / "studies").rglob("*"))
    chosen = ["--sets", "pbmc68k", "--methods", "random", "ANOVA F", "--ours", "ANOVA F"]
    command = [
        sys.executable,
        "benchmarks/panels.py",
        *chosen,
        "--splits",
        "2",
        "--sizes",
        "10",
        "--run-folder",
        tmp_path,
    ]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    assert "balanced accuracy on pbmc68k" in result.stdout and "where ANOVA F stands" in result.stdout
    assert result.stderr.count("done, chosen in") == 4
    assert sorted((root / "data" / "studies").rglob("*")) == tables
