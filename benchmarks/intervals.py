"""How often does an interval of a score hold the truth? Simulated tables of few samples, where the truth is known.

    python benchmarks/intervals.py            # prints; five minutes
    python benchmarks/intervals.py --write    # and writes data/studies/bulk/intervals.csv

Each table has 75 samples x 5 genes, 40 % of them positive; one gene is shifted by `shift` standard deviations in these.
A logistic regression is judged by 5 stratified folds, 5 times over, or by one split. The truth is its mean accuracy on
10,000 fresh samples, over all tables, when it is trained on a whole table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, t
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, train_test_split

from selectormlp.bulk import cross_validated_scores, score_interval
from selectormlp.files import _write_table

TABLE = Path(__file__).resolve().parent.parent / "data" / "studies" / "bulk" / "intervals.csv"
N_SAMPLES, SHARE, N_GENES, LEVEL, MEASURE = 75, 0.4, 5, 0.95, "accuracy"


def draw(n_samples: int, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples x genes and 1 or 0 for each sample."""
    y = (np.arange(n_samples) < SHARE * n_samples).astype(int)
    X = rng.normal(size=(n_samples, N_GENES))
    X[:, 0] += shift * y
    return X, y


def one_split(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """The interval (Wilson) of the accuracy on a fifth of the samples."""
    x_train, x_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=seed)
    right = int((LogisticRegression().fit(x_train, y_train).predict(x_test) == y_test).sum())
    found = binomtest(right, len(y_test)).proportion_ci(LEVEL, method="wilson")
    return found.low, found.high


def plain(scores: pd.Series) -> tuple[float, float]:
    """The interval that takes the folds for independent: mean +- t sd / sqrt(folds)."""
    reach = t.ppf((1 + LEVEL) / 2, len(scores) - 1) * scores.std() / np.sqrt(len(scores))
    return scores.mean() - reach, scores.mean() + reach


def resampled(predictions: pd.DataFrame, rng: np.random.Generator) -> tuple[float, float]:
    """The bootstrap over samples of the share of right predictions of each."""
    right = (predictions["positive"] == predictions["predicted"]).groupby(predictions["sample"]).mean().to_numpy()
    means = right[rng.integers(len(right), size=(1000, len(right)))].mean(axis=1)
    return tuple(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def intervals(X: np.ndarray, y: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """Every interval for one table."""
    cv = RepeatedStratifiedKFold(n_splits=5, n_repeats=5, random_state=seed)
    found = cross_validated_scores(LogisticRegression(), X, y, positive=1, cv=cv)
    corrected = score_interval(found.scores, MEASURE, level=LEVEL)
    return {
        "one split, Wilson": one_split(X, y, seed),
        "folds, sd / sqrt(folds)": plain(found.scores[MEASURE]),
        "folds, bootstrap of samples": resampled(found.predictions, np.random.default_rng(seed)),
        "folds, corrected t": (corrected.low, corrected.high),
    }


def study(shift: float, n_tables: int) -> pd.DataFrame:
    """How often each interval holds the truth, and how wide it is."""
    rng, truths, rows = np.random.default_rng(0), [], []
    x_fresh, y_fresh = draw(10_000, shift, rng)
    for table in range(n_tables):
        X, y = draw(N_SAMPLES, shift, rng)
        truths.append(LogisticRegression().fit(X, y).score(x_fresh, y_fresh))
        rows += [(name, low, high) for name, (low, high) in intervals(X, y, table).items()]
    truth, found = np.mean(truths), pd.DataFrame(rows, columns=["interval", "low", "high"])
    found = found.assign(holds=(found["low"] <= truth) & (truth <= found["high"]), width=found["high"] - found["low"])
    found = found.groupby("interval", sort=False)[["holds", "width"]].mean().reset_index()
    return found.assign(shift=shift, truth=truth, tables=n_tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=150, help="simulated tables for each shift")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    arguments = parser.parse_args()
    found = pd.concat([study(shift, arguments.tables) for shift in (0.0, 1.0, 2.0)], ignore_index=True)
    print(found.round(3).to_string(index=False))
    if arguments.write:
        _write_table(found[["shift", "truth", "tables", "interval", "holds", "width"]], TABLE)


if __name__ == "__main__":
    main()
