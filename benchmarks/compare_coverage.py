"""Are the intervals of `compare_lists` right? A/A experiments, in which neither of two lists is better.

Genes come in twins, two genes with the same parameters in every type. One list has the first of each pair, the other
the second, so the true difference is zero. Each resample is a whole experiment with fresh cells; what is counted is how
often the interval holds zero. Three ways to split: cells at random, the same with most cells of large types left out,
and donors held out, each with shifts of its own in every gene.

    python benchmarks/compare_coverage.py                  # 200 resamples of each, minutes on one core
    python benchmarks/compare_coverage.py --resamples 20   # a quick look; nothing is stored

The table goes to data/studies/compare_coverage/coverage.csv, which chapter 29 shows.
"""

import argparse
import os
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from anndata import AnnData  # noqa: E402
from scipy.sparse import csr_matrix  # noqa: E402

from selectormlp.files import _write_table  # noqa: E402
from selectormlp.intervals import _paired_interval  # noqa: E402
from selectormlp.lists import _ALL_TYPES, compare_lists  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SIZES = (180, 120, 80, 50)  # cells of each type
N_TWINS, N_OTHERS, N_DONORS = 6, 4, 6
LISTS = {
    "first twins": [f"twin_{i}_a" for i in range(N_TWINS)],
    "second twins": [f"twin_{i}_b" for i in range(N_TWINS)],
}
WAYS = {
    "random splits": {"n_splits": 5},
    "thinned splits": {"n_splits": 5, "max_cells": 100},
    "held-out donors": {"n_splits": N_DONORS, "batch_key": "donor"},
}


def twin_cells(seed: int, *, donor_sd: float = 0.0) -> AnnData:
    """Fresh cells of four types; the parameters of the genes are always the same, and alike within a pair of twins.

    `donor_sd` is the standard deviation of each donor's shifts, which belong to a gene in a type.
    """
    of_genes, rng = np.random.default_rng(0), np.random.default_rng([seed, 1])
    centres = np.repeat(of_genes.normal(0.5, 0.7, (len(SIZES), N_TWINS)), 2, axis=1)
    types = np.repeat(np.arange(len(SIZES)), SIZES)
    donors = rng.integers(N_DONORS, size=len(types))
    shifts = rng.normal(0, donor_sd, (N_DONORS, len(SIZES), 2 * N_TWINS))
    means = np.exp(centres[types] + shifts[donors, types])
    counts = rng.poisson(np.hstack([means, np.full((len(types), N_OTHERS), 20.0)]))
    names = [f"twin_{i}_{side}" for i in range(N_TWINS) for side in "ab"] + [f"other_{i}" for i in range(N_OTHERS)]
    cells = [f"cell_{i}" for i in range(len(types))]
    obs = pd.DataFrame(
        {"cell_type": [f"type_{i}" for i in types], "donor": [f"donor_{i}" for i in donors]}, index=cells
    )
    return AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))


def one_resample(seed: int, how: dict) -> dict[str, float]:
    """Compare the twins on fresh cells: does the interval hold zero, does the plain one, and how wide is it?"""
    cells = twin_cells(seed, donor_sd=0.3 if "batch_key" in how else 0.0)
    found = compare_lists(LISTS, cells, "cell_type", judges=["nearest_neighbours"], all_genes=False, seed=seed, **how)
    row = found.differences[found.differences["type"] == _ALL_TYPES].iloc[0]
    scores = found.scores.pivot(index="split", columns="list", values="balanced_accuracy")
    plain = _paired_interval(scores["second twins"] - scores["first twins"])
    return {
        "compare_lists": row["low"] <= 0 <= row["high"],
        "plain": plain.low <= 0 <= plain.high,
        "reversed": row["verdict"] != "not shown to differ",
        "half_width": row["high"] - row["mean"],
        "mean_difference": row["mean"],
    }


def coverage(n_resamples: int) -> pd.DataFrame:
    """One row per way of splitting: the share of resamples whose interval holds zero."""
    rows = []
    for name, how in WAYS.items():
        found = pd.DataFrame([one_resample(seed, how) for seed in range(n_resamples)]).astype(float)
        rows.append({"splits": name, "n_resamples": n_resamples, **found.mean()})
        print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Run all, and store the table of a whole run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resamples", type=int, default=200, help="experiments for each way of splitting")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    table = coverage(asked.resamples)
    if asked.resamples >= 200:
        place = ROOT / "data" / "studies" / "compare_coverage"
        place.mkdir(parents=True, exist_ok=True)
        _write_table(table.round(4), place / "coverage.csv")


if __name__ == "__main__":
    main()
