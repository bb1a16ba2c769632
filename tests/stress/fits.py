"""Does memory stay flat? 200 fits in one process, three kinds in turn; writes data/studies/stress/fits.csv.

python tests/stress/fits.py [number of fits] [file]
"""

import gc
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import psutil

from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.data import normalise
from selectormlp.files import _write_table
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells

ALLOWED = 0.05  # MiB per fit, after the first tenth
TABLE = Path(__file__).resolve().parents[2] / "data" / "studies" / "stress" / "fits.csv"


def resident() -> float:
    """Memory of this process, in MiB, after what can be freed has been freed."""
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def measure(n_fits: int) -> pd.DataFrame:
    """One row per fit: its number, what was fitted, the memory after it and the seconds it took."""
    cells = normalise(simulate_cells(n_cells=600, n_genes=300, n_types=5, seed=0))
    X, y = cells.X, cells.obs["cell_type"].to_numpy().astype(str)
    kinds = {
        "SelectorMLPClassifier": lambda seed: SelectorMLPClassifier(
            hidden_sizes=(64, 32), max_epochs=3, steps_per_epoch=5, random_state=seed
        ).fit(X, y),
        "LinearSVMClassifier": lambda seed: LinearSVMClassifier(random_state=seed).fit(X, y),
        "select_genes": lambda seed: select_genes(cells, "cell_type", 20, seed=seed),
    }
    rows = []
    for number in range(1, n_fits + 1):
        name = list(kinds)[number % len(kinds)]
        start = time.monotonic()
        kinds[name](number)
        rows.append((number, name, round(resident(), 2), round(time.monotonic() - start, 2)))
    return pd.DataFrame(rows, columns=["fit", "kind", "mib", "seconds"])


def growth(table: pd.DataFrame) -> float:
    """MiB per fit: the slope of a straight line from the end of the first tenth of the fits on."""
    later = table[table["fit"] >= max(2, len(table) // 10)]
    return float(np.polyfit(later["fit"], later["mib"], 1)[0])


def main() -> int:
    """Measure, write the table and say what it tells."""
    table = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    _write_table(table, Path(sys.argv[2]) if len(sys.argv) > 2 else TABLE)
    slope, first, last = growth(table), table["mib"].iloc[max(1, len(table) // 10) - 1], table["mib"].iloc[-1]
    print(f"{len(table)} fits: {first:.0f} MiB after the first tenth, {last:.0f} at the end, {slope:+.3f} a fit")
    print("memory stays flat" if slope <= ALLOWED else f"memory grows by more than {ALLOWED} MiB a fit")
    return int(slope > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
