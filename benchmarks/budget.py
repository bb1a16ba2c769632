"""What a limit on the molecules of a panel costs: a budget for the whole panel beside a limit for each gene.

    python benchmarks/budget.py                     # prints the table
    python benchmarks/budget.py --write             # and writes data/studies/budget/

Panels of 30 genes of the shipped pancreas, on five splits. Of each: the most molecules per 10,000 that its genes have
in any type (training cells), and the mean per-class accuracy of logistic regression on test cells.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from selectormlp.data import InputError, load_pancreas, prepare_cells
from selectormlp.selection import select_genes

TABLE = Path(__file__).resolve().parent.parent / "data" / "studies" / "budget" / "front.csv"
LIMITS: list[tuple[str, list[float | None]]] = [
    ("max_total", [25, 50, 100, 200, 400, 800, 1600, None]),
    ("max_expression", [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0]),
]
KEY, N_GENES, MIN_CELLS = "cell_type", 30, 20


def one_row(rule: str, limit: float | None, split: int) -> dict[str, object]:
    """One panel on one split."""
    cells = load_pancreas()
    row = {"rule": rule, "limit": "none" if limit is None else f"{limit:g}", "split": split}
    try:
        panel = select_genes(cells, KEY, N_GENES, min_cells=MIN_CELLS, seed=split, **{rule: limit})
    except InputError as error:
        return {**row, "molecules": np.nan, "accuracy": np.nan, "failed": str(error).split(";")[0]}
    train = prepare_cells(panel.split.subset(cells, "train"), KEY, min_cells=1)[:, panel.genes]
    molecules = (
        pd.DataFrame(np.expm1(train.X.toarray())).groupby(train.obs[KEY].to_numpy().astype(str)).mean().sum(axis=1)
    )
    return {**row, "molecules": molecules.max(), "accuracy": panel.score(cells).mean_per_class_accuracy, "failed": ""}


def main() -> None:
    """Measure all panels, print means over the splits and, if wanted, store every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write data/studies/budget/front.csv")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [one_row(rule, limit, split) for rule, limits in LIMITS for limit in limits for split in range(asked.splits)]
    table = pd.DataFrame(rows)
    means = table.groupby(["rule", "limit"], sort=False)[["molecules", "accuracy"]].agg(["mean", "std"])
    print(means.round(3).to_string())
    if asked.write:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(TABLE, index=False, float_format="%.5g", lineterminator="\n")


if __name__ == "__main__":
    main()
