"""The part of `speed.py` that chooses one panel from the same cells, wherever they lie: on disk, backed, lazy, in dask.

python benchmarks/speed.py sources --cells 10000
SELECTORMLP_BEFORE=/path/to/another/checkout python benchmarks/speed.py sources      # also that library's, in turn
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

KEY = "cell_type"
STEPS = {"_summarise_open": "sums", "_read_open": "reading", "_build_panel": "search"}
BEFORE = os.environ.get("SELECTORMLP_BEFORE")


def wide_cells(path: Path, n_cells: int, n_genes: int) -> None:
    """Write cells of random counts, one value in twenty above zero, ten types of which each has genes of its own."""
    from scipy.sparse import csr_matrix

    rng, each = np.random.default_rng(0), n_genes // 20
    columns = np.minimum(np.cumsum(rng.integers(1, 40, (n_cells, each), dtype=np.int32), axis=1), n_genes - 1)
    values = rng.integers(1, 9, (n_cells, each), dtype=np.int32)
    types = np.arange(n_cells) % 10
    values[columns // 20 % 10 == types[:, None]] *= 8
    X = csr_matrix((values.ravel(), columns.ravel(), np.arange(0, values.size + 1, each)), shape=(n_cells, n_genes))
    X.sum_duplicates()
    obs = pd.DataFrame({KEY: types.astype(str)}, index=[f"c{i}" for i in range(n_cells)])
    AnnData(X.astype(np.float32), obs, pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])).write_h5ad(path)


def opened_as(way: str, path: Path) -> Any:
    """The cells as they come to `select_genes`."""
    if "another checkout" in way:
        from selectormlp.streaming import open_cells

        return open_cells(path, label_key=KEY, columns=[])
    if way == "backed":
        from anndata import read_h5ad

        return read_h5ad(path, backed="r")
    if "dask" in way:
        from anndata.experimental import read_lazy

        return read_lazy(path)
    return path


def timed(function: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    """The same function, whose seconds are added up."""

    def run(*args: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **settings)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return run


def choose(way: str, path: Path) -> dict[str, Any]:
    """One panel of 100 genes in this process; only what can be chosen from is brought into memory."""
    from selectormlp import selection

    warnings.simplefilter("ignore")
    seconds: dict[str, float] = {}
    if "another checkout" in way:
        from selectormlp.streaming import select_genes_on_disk as select
    else:
        select = selection.select_genes
        for name, step in STEPS.items():
            setattr(selection, name, timed(getattr(selection, name), seconds, step))
    start = time.perf_counter()
    panel = select(opened_as(way, path), KEY, 100, memory=0)
    return {"seconds": time.perf_counter() - start, **seconds, "genes": panel.genes}


def on_cluster(way: str, path: Path) -> dict[str, Any]:
    """The same with two processes of dask; also the most memory that one of them held (MiB)."""
    from distributed import Client, LocalCluster

    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**settings, host="127.0.0.1", silence_logs=50) as cluster, Client(cluster) as client:
        found = choose(way, path)
        return found | {"worker_peak_memory_mb": max(client.run(peak_memory).values())}


def peak_memory() -> float:
    """The most memory that this process has held (MiB); ru_maxrss would count that of the process that began it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


WAYS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "on disk": choose,
    **({"on disk, another checkout": choose} if BEFORE else {}),
    "backed": choose,
    "lazy, dask in this process": choose,
    "lazy, dask on two processes": on_cluster,
}


def alone(way: str, path: Path) -> dict[str, Any]:
    """One way in a fresh process, with the processor seconds of it and of all that it started."""
    place = Path(BEFORE) if BEFORE and "another checkout" in way else Path(__file__).resolve().parent.parent
    there = os.environ | {"PYTHONPATH": str(place)}
    if "two processes" not in way:
        there["DASK_NUM_WORKERS"] = "1"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, way, str(path)]
    ended = subprocess.run(command, env=there, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(ended.stdout.splitlines()[-1]) | {"processor_seconds": used}


def measure_sources(n_cells: int | None) -> pd.DataFrame:
    """(i) From cells to a panel of 100 genes, wherever they lie; medians of turns, each in a fresh process."""
    turns = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.h5ad"
        wide_cells(path, n_cells or 100_000, 20_000)
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(turns):
            for way, rows in found.items():
                rows.append(alone(way, path))
    genes = {tuple(row.pop("genes")) for rows in found.values() for row in rows}
    assert len(genes) == 1, "the panels differ"
    columns = ["seconds", "processor_seconds", *STEPS.values(), "peak_memory_mb", "worker_peak_memory_mb"]
    medians = [
        {"what": way} | {name: statistics.median(row.get(name, np.nan) for row in rows) for name in columns}
        for way, rows in found.items()
    ]
    table = pd.DataFrame(medians)
    ratio = table["processor_seconds"] / table["processor_seconds"].iloc[0]
    return table.assign(ratio=ratio, cells=n_cells or 100_000, turns=turns)


if __name__ == "__main__":
    asked, file = sys.argv[1], Path(sys.argv[2])
    answer = WAYS[asked](asked, file)
    sys.stdout.write(json.dumps(answer | {"peak_memory_mb": peak_memory()}) + "\n")
