"""How long it takes to extend a large list: 100 genes more on a base of 1,000 to 5,000, 47 types.

    python benchmarks/extension.py                                         # prints the table
    python benchmarks/extension.py --before CHECKOUT --before-bases 1000   # that library's too, in turn
    python benchmarks/extension.py --write                                 # writes data/studies/speed/extension.csv

3,005 simulated cells x 7,000 genes, the cells and types of a well-known mouse cortex; the base is drawn at random. Each
row is a process of its own, on one thread unless `--threads` says otherwise: seconds, processor seconds, and the most
memory that it held.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import json, sys, time, warnings
import numpy as np
from selectormlp.selection import extend_panel
from selectormlp.simulation import simulate_cells

warnings.simplefilter("ignore")
cells = simulate_cells(n_cells=3005, n_genes=7000, n_types=47, seed=0)
base = np.random.default_rng(0).permutation(cells.var_names.to_numpy())[: int(sys.argv[1])].tolist()
start, used = time.perf_counter(), time.process_time()
panel = extend_panel(base, cells, 100, label_key="cell_type")
seconds = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - used}
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
added = panel.table.iloc[len(base):]
print(json.dumps({**seconds, "peak_memory_mib": int(peak.split()[1]) / 2**10, "added": len(added), "no_gain_shown":
    int((added["reason"] == "chosen; no gain shown").sum()), "genes": panel.genes[-100:]}))
"""


def extended(base: int, checkout: Path, threads: int) -> dict[str, object]:
    """One extension by the library of a checkout, in a fresh process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    settings = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", SCRIPT, str(base)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=settings, cwd=checkout)
    return {"base": base, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Measure, print and, when asked, write."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=int, nargs="+", default=[1000, 3000, 5000])
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    parser.add_argument("--before-bases", type=int, nargs="+", default=[1000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = []
    for base in asked.bases:
        found = extended(base, ROOT, asked.threads)
        genes = found.pop("genes")
        rows.append({"version": "this", "threads": asked.threads, **found})
        if asked.before and base in asked.before_bases:
            earlier = extended(base, asked.before.resolve(), asked.threads)
            same = earlier.pop("genes") == genes
            rows.append({"version": "before", "threads": asked.threads, **earlier, "same_genes": same})
    table = pd.DataFrame(rows).round(1)
    sys.stdout.write(table.to_string(index=False) + "\n")
    if asked.write:
        table.to_csv(ROOT / "data" / "studies" / "speed" / "extension.csv", index=False)


if __name__ == "__main__":
    main()
