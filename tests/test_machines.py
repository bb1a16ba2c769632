"""Resamples and benchmarks through joblib: whatever the backend, the tables are the same."""

import warnings
from collections.abc import Iterator

import joblib
import numpy as np
import pandas as pd
import pytest

from selectormlp import benchmark
from selectormlp.benchmark import BenchmarkPlan, BenchmarkResults, _DataSet, run_benchmark
from selectormlp.data import InputError
from selectormlp.inspection import panel_curve, panel_robustness, panel_stability
from selectormlp.peers import PEERS, Peer
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells


@pytest.fixture(scope="module")
def counts():
    """Raw counts of 400 cells, 80 genes and 4 types."""
    return simulate_cells(n_cells=400, n_genes=80, n_types=4, n_markers_per_type=3, seed=2)


@pytest.fixture(scope="module")
def panel(counts):
    """A panel of 8 genes."""
    return select_genes(counts, "cell_type", 8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Dask cluster of two processes on this machine, whose workers may start processes of their own."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        distributed.LocalCluster(**settings, host="127.0.0.1", silence_logs=50) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def on_dask(cluster: str) -> Iterator[None]:
    """What joblib is asked to do goes to the cluster."""
    from distributed import Client

    with Client(cluster), joblib.parallel_config(backend="dask"):
        yield


def tables_of(counts, panel, **settings) -> list[pd.DataFrame]:
    """The three tables of chapter 27 that are made of independent questions."""
    return [
        panel_stability(panel, counts, n_resamples=3, **settings),
        panel_curve(panel, counts, sizes=(2, 5), judges=("logistic_regression",), **settings),
        panel_robustness(panel, counts, captures=(0.1, 1.0), failures=(0.0, 0.5), **settings),
    ]


@pytest.fixture(scope="module")
def serial(counts, panel) -> list[pd.DataFrame]:
    """The tables, made one question after the other."""
    return tables_of(counts, panel)


@pytest.mark.slow
def test_threads_and_processes_change_nothing(counts, panel, serial) -> None:
    with joblib.parallel_config(backend="threading", n_jobs=2):
        in_threads = tables_of(counts, panel)
    for tables in (in_threads, tables_of(counts, panel, n_jobs=2)):
        for ours, theirs in zip(tables, serial, strict=True):
            pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.slow
def test_a_dask_cluster_changes_nothing(counts, panel, serial, on_dask) -> None:
    for ours, theirs in zip(tables_of(counts, panel), serial, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_warnings_are_kept_quiet_also_by_processes(counts, panel, recwarn) -> None:
    panel_stability(panel, counts, n_resamples=2, n_jobs=2)
    assert not [one for one in recwarn if "fewer markers" in str(one.message)]


def first_genes(cells, n_genes, seed):
    return cells.genes[:n_genes]


def crash(cells, n_genes, seed):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def sleep(cells, n_genes, seed):
    import time

    time.sleep(60)


METHODS = [PEERS["ANOVA F"], Peer("first", first_genes), Peer("crashes", crash)]


def judged(folder, counts, methods=METHODS, **settings) -> BenchmarkResults:
    """A small benchmark in which one method crashes."""
    same = {"sizes": (2, 5), "n_splits": 2, "judges": ["nearest_neighbours"]}
    return run_benchmark([_DataSet("simulated", counts, "cell_type", 20)], methods, folder=folder, **same, **settings)


@pytest.mark.slow
def test_a_benchmark_on_a_dask_cluster(counts, tmp_path, on_dask) -> None:
    ours, theirs = judged(tmp_path / "dask", counts, n_jobs=None), judged(tmp_path / "here", counts, n_jobs=2)
    costs = ["seconds", "peak_memory_mb"]
    pd.testing.assert_frame_equal(ours.scores.drop(columns=costs), theirs.scores.drop(columns=costs))
    pd.testing.assert_frame_equal(ours.chosen, theirs.chosen)
    status = ours.scores.groupby("method")["status"].agg(set)
    assert status.to_dict() == {"ANOVA F": {"done"}, "first": {"done"}, "crashes": {"crashed"}}
    done = ours.scores[ours.scores["status"] == "done"]
    assert np.isfinite(done[costs]).all(axis=None)
    folders = (tmp_path / "dask", tmp_path / "here")
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in folders]
    assert files[0] == files[1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    judged(tmp_path / "dask", counts, n_jobs=None)  # all is there
    assert {path: path.stat().st_mtime_ns for path in before} == before
    slow = judged(tmp_path / "slow", counts, [Peer("sleeps", sleep)], time_limit=1, n_jobs=None)
    assert set(slow.scores["status"]) == {"timed out"}


def test_a_worker_that_may_not_start_processes_says_so(counts, monkeypatch) -> None:
    class Daemon:
        daemon = True

    monkeypatch.setattr(benchmark.multiprocessing, "current_process", Daemon)
    due = benchmark._DueSplit(_DataSet("simulated", counts, "cell_type", 20), 0, ("random",), BenchmarkPlan((2,)))
    with warnings.catch_warnings(), pytest.raises(InputError, match="DASK_DISTRIBUTED__WORKER__DAEMON=False"):
        benchmark._run_split(due, "fork")
