"""How long the desk takes to answer a click: search, judging and page, as the server does them.

    python benchmarks/desk.py                       # 5,000 cells x 2,000 genes
    python benchmarks/desk.py --large               # and 100,000 x 20,000, which takes some minutes and 8 GB
    python benchmarks/desk.py --large --write       # and writes data/studies/desk/answers.csv

Cells of 20 types are drawn, a panel of 30 genes is opened, and then a person is at work: pins, bans, swaps, sizes,
a budget, markers, weights, undo. Each act is timed until the page is ready to be sent. Prints the median and the 95th
percentile over all acts, the median of those that change a rule (undo apart), and that of each kind.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from selectormlp.desk import _Desk, _Given, _Hands, _render_view
from selectormlp.selection import PanelDesign

TABLE = Path(__file__).resolve().parent.parent / "data" / "studies" / "desk" / "answers.csv"
SMALL, LARGE = (5_000, 2_000), (100_000, 20_000)
N_TYPES, MOLECULES, N_GENES = 20, 2_000, 30


def drawn_cells(n_cells: int, n_genes: int, seed: int = 0) -> AnnData:
    """Counts of types that differ in a fiftieth of the genes each, in an order at random."""
    rng = np.random.default_rng(seed)
    base, y, blocks = rng.lognormal(0, 1.5, n_genes), np.sort(rng.integers(0, N_TYPES, n_cells)), []
    for kind in range(N_TYPES):
        rates, own = base.copy(), rng.choice(n_genes, n_genes // 50, replace=False)
        rates[own] *= rng.lognormal(1.0, 0.7, len(own))
        edges = np.cumsum(rates / rates.sum())
        for start in range(0, int((y == kind).sum()), 1000):
            n = min(1000, int((y == kind).sum()) - start)
            genes = np.minimum(np.searchsorted(edges, rng.random((n, MOLECULES)).ravel()), n_genes - 1)
            places, counts = np.unique(np.repeat(np.arange(n), MOLECULES) * n_genes + genes, return_counts=True)
            values = (counts.astype(np.float32), (places // n_genes, places % n_genes))
            blocks.append(csr_matrix(values, shape=(n, n_genes)))
    order = rng.permutation(n_cells)
    obs = pd.DataFrame(
        {"cell_type": [f"type_{kind:02d}" for kind in y[order]]}, index=[f"c{i}" for i in range(n_cells)]
    )
    return AnnData(vstack(blocks, format="csr")[order], obs, pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)]))


def acts_of(desk: _Desk, turn: int) -> list[dict[str, str]]:
    """What a person does in one turn, with genes of the panel as it is."""
    table = desk.answer().panel.table
    swap = table.index[(table["substitutes"] != "") & (table["reason"] != "must include")]
    place = int(swap[(7 * turn) % len(swap)])
    other = table["substitutes"][place].split(" (")[0]
    most = desk.answer().molecules.max()
    return [
        {"act": "pin", "gene": table["gene"].iloc[-1 - turn]},
        {"act": "ban", "gene": table["gene"].iloc[2 + turn]},
        {"act": "undo"},
        {"act": "swap", "gene": table["gene"][place], "other": other},
        {"act": "rule", "rule": "n_genes", "value": str(N_GENES + 5 * (1 if turn % 2 else -1))},
        {"act": "rule", "rule": "max_total", "value": f"{1.5 * most:.0f}"},
        {"act": "rule", "rule": "min_markers", "value": str(1 + turn % 2)},
        {"act": "rule", "rule": f"weight:type_{turn:02d}", "value": "3"},
        {"act": "undo"},
    ]


def time_a_desk(size: tuple[int, int], turns: int) -> pd.DataFrame:
    """Open a desk and time each act."""
    cells = drawn_cells(*size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        desk = _Desk(_Given(lambda: cells, cells, "cell_type"), PanelDesign(n_genes=N_GENES), Path(folder) / "desk")
        opened, rows = time.perf_counter() - start, []
        hands = _Hands(desk)
        for turn in range(turns):
            for act in acts_of(desk, turn):
                start = time.perf_counter()
                hands.do(act)
                page = _render_view(hands)
                kind = act.get("rule", act["act"]).partition(":")[0]
                rows.append((*size, kind, time.perf_counter() - start, hands.failed))
                print(f"{rows[-1][3]:6.2f} s  {hands.said[:90]}  ({len(page):,} characters)", flush=True)
        desk.close()
    print(f"opened in {opened:.1f} s")
    return pd.DataFrame(rows, columns=["n_cells", "n_genes", "act", "seconds", "refused"])


def main() -> None:
    """Time the desk at each size, print the figures and, if wanted, store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="100,000 x 20,000 too")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="write data/studies/desk/answers.csv")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = [time_a_desk(size, asked.turns) for size in [SMALL, *([LARGE] if asked.large else [])]]
    table = pd.concat(tables)
    for size, every in table.groupby(["n_cells", "n_genes"]):
        changed = every.loc[every["act"] != "undo", "seconds"]
        print(
            f"{size[0]:,} x {size[1]:,}: {len(every)} acts, median {every['seconds'].median():.2f} s, 95th percentile"
            f" {every['seconds'].quantile(0.95):.2f} s; without undo: median {changed.median():.2f} s"
        )
        print(every.groupby("act")["seconds"].median().round(2).to_string())
    if asked.write:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(TABLE, index=False, float_format="%.3f", lineterminator="\n")


if __name__ == "__main__":
    main()
