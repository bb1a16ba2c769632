"""Seconds and memory for a panel of 100 genes from 2,000 and from 50,000 simulated cells x 2,000 genes.

    python benchmarks/select_speed.py                 # both sizes, each in a process of its own
    python benchmarks/select_speed.py --cells 10000   # another size

The whole of `select_genes` is timed: checks, normalising, split, variable genes, search and table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import time
import warnings

import pandas as pd

from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells


def measured(n_cells: int) -> dict[str, float]:
    """One panel of 100 genes: seconds, and the most memory the process held."""
    warnings.simplefilter("ignore")
    adata = simulate_cells(n_cells=n_cells, n_genes=2000, n_types=20, seed=0)
    start = time.perf_counter()
    panel = select_genes(adata, "cell_type", 100)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"cells": n_cells, "genes": adata.n_vars, "panel": len(panel), "seconds": seconds, "peak MiB": peak}


def main() -> None:
    """Measure one size after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", type=int, default=[2_000, 50_000])
    rows = []
    for n_cells in parser.parse_args().cells:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a fresh process: its peak is its own
            rows.append(pool.apply(measured, (n_cells,)))
    print(f"{platform.machine()}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}")
    print(pd.DataFrame(rows).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
