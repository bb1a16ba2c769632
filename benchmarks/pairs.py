"""Panels chosen on one technology and judged on another. One command prints the table for any folder of pairs.

    python benchmarks/pairs.py --folder pairs/                          # NAME/{reference,target}.h5ad, obs["cell_type"]
    python benchmarks/pairs.py --folder pairs/ --methods discriminant Wilcoxon --draws 3
    python benchmarks/pairs.py --simulated 30                           # cells and machines at random, nothing needed
    python benchmarks/pairs.py --folder pairs/ --write scores.csv
    python benchmarks/pairs.py --folder pairs/ --forecast sequencing    # does the forecast's interval hold the truth?

Only genes and types that both files hold are used. Each draw takes a share of the reference's cells of every type;
panels are chosen on these, and judged on the target in two ways:

- retrained: classifiers are trained on the target itself, five folds;
- transferred: classifiers are trained on the drawn reference cells, at most as many of every type, and applied to the
  target as it is. Both are normalised over the shared genes, as someone who measured these genes would have to.

The measure is balanced accuracy, the mean of three classifiers (nearest centroid, class-balanced logistic regression,
5-nearest neighbours). A pair of files is a unit: its draws are averaged before the pairs are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy: a thread per process
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from anndata import AnnData, read_h5ad  # noqa: E402
from panels import METHODS as AT_HOME  # noqa: E402
from scipy import sparse  # noqa: E402

from selectormlp.data import InputError, _log_per_total, choose_variable_genes, prepare_cells  # noqa: E402
from selectormlp.files import _write_table  # noqa: E402
from selectormlp.inspection import forecast_panel  # noqa: E402
from selectormlp.intervals import _paired_interval  # noqa: E402
from selectormlp.peers import LabelledCells, Peer, _peer_missing  # noqa: E402
from selectormlp.platforms import PLATFORMS, Platform, simulate_platform  # noqa: E402
from selectormlp.selection import rank_by_discriminant, select_genes  # noqa: E402
from selectormlp.simulation import simulate_cells  # noqa: E402

LABEL = "cell_type"
SIZES = (5, 10, 15, 25)
PEERS = ("Wilcoxon", "t-test", "COSG", "greedy Mahalanobis", "L1 SVM", "random forest", "random")
FORECAST_BY = ("logistic_regression", "nearest_neighbours")  # the classifiers of `forecast_panel`
TYPE_CELLS = 500  # of a type at most in a draw of the reference, and in the target


def for_target(target: str) -> Peer:
    """The search of `select_genes` for another machine, with the interface of the peers."""

    def choose(cells: LabelledCells, n_genes: int, seed: int) -> list[str]:
        return rank_by_discriminant(cells.X, cells.y, cells.genes, n_genes, target=target)["gene"].tolist()

    return Peer(f"target={target}", choose, designed_for="types that another machine will tell apart")


METHODS = {**AT_HOME, **{f"target={name}": for_target(name) for name in PLATFORMS if name != "same"}}


@dataclass(frozen=True, eq=False)
class PairDraw:
    """One draw of a pair: cells to choose on, the same cells as the target's user would normalise them, and targets."""

    pair: str
    draw: int
    cells: LabelledCells
    reference: sparse.csr_matrix
    target: sparse.csr_matrix
    target_y: np.ndarray


def counts_of(adata: AnnData, genes: Sequence[str]) -> sparse.csr_matrix:
    """Values of some genes, cells x genes."""
    return sparse.csr_matrix(adata[:, list(genes)].X, dtype=np.float32)


def drawn(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Places of a share of the cells of each type (at least 3, at most TYPE_CELLS), at random."""
    kept = []
    for name in np.unique(y):
        here = np.flatnonzero(y == name)
        kept.append(rng.permutation(here)[: min(TYPE_CELLS, max(3, round(share * len(here))))])
    return np.sort(np.concatenate(kept))


def shared_parts(reference: AnnData, target: AnnData) -> tuple[AnnData, AnnData, list[str]]:
    """Both files with the types that both hold (5 cells or more of each), and the genes that both hold."""
    sizes = [part.obs[LABEL].astype(str).value_counts() for part in (reference, target)]
    types = set.intersection(*(set(size.index[size >= 5]) for size in sizes))
    genes = [gene for gene in reference.var_names if gene in set(target.var_names)]
    if len(types) < 2 or not genes:
        raise InputError(f"reference and target share {len(types)} types and {len(genes)} genes; nothing can be judged")
    reference, target = (part[part.obs[LABEL].astype(str).isin(types)].copy() for part in (reference, target))
    return reference, target, genes


def draws_of(
    name: str, reference: AnnData, target: AnnData, *, n_draws: int, share: float = 0.8, n_variable: int = 2000
) -> Iterator[PairDraw]:
    """The draws of a pair."""
    reference, target, genes = shared_parts(reference, target)
    for draw in range(n_draws):
        rng = np.random.default_rng([draw, 21])
        cells = reference[drawn(reference.obs[LABEL].to_numpy().astype(str), share, rng)].copy()
        goal = target[drawn(target.obs[LABEL].to_numpy().astype(str), 1.0, rng)]
        prepared = prepare_cells(cells, LABEL, min_cells=3)[:, genes].copy()
        chosen = choose_variable_genes(prepared, min(n_variable, len(genes)))
        depth = float(np.median(np.asarray(cells[:, genes].X.sum(axis=1))))
        normalised = [_log_per_total(counts_of(part, genes), depth) for part in (cells, goal)]
        columns = [genes.index(gene) for gene in chosen]
        y = prepared.obs[LABEL].to_numpy().astype(str)
        labelled = LabelledCells(
            counts_of(prepared, chosen), y, chosen, counts=counts_of(cells, chosen), validation=None
        )
        known, goals = (sparse.csr_matrix(X[:, columns]) for X in normalised)
        yield PairDraw(name, draw, labelled, known, goals, goal.obs[LABEL].to_numpy().astype(str))


def classifiers() -> dict[str, object]:
    """The classifiers that judge."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = LogisticRegression(class_weight="balanced", tol=1e-3, max_iter=200)
    return {
        "nearest_centroid": make_pipeline(StandardScaler(), NearestCentroid()),
        "logistic_regression": make_pipeline(StandardScaler(), linear),
        "nearest_neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
    }


def balanced_accuracy(y: np.ndarray, called: np.ndarray) -> float:
    """The mean recall of the types."""
    return float(np.mean([np.mean(called[y == name] == name) for name in np.unique(y)]))


def folds_of(y: np.ndarray, n_folds: int = 5) -> np.ndarray:
    """A fold for each cell; each type is dealt out in an order at random."""
    order = np.random.default_rng(0).permutation(len(y))
    folds = np.empty(len(y), dtype=int)
    folds[order] = pd.Series(order).groupby(y[order]).cumcount().to_numpy() % n_folds
    return folds


def balanced_cells(y: np.ndarray, *, most: int = 100) -> np.ndarray:
    """Places of equally many cells of each type, as far as they reach: `most`, or twice those of the rarest type."""
    cap = min(most, max(25, 2 * int(pd.Series(y).value_counts().min())))
    order = np.random.default_rng(1).permutation(len(y))
    return np.sort(order[pd.Series(order).groupby(y[order]).cumcount().to_numpy() < cap])


def judged(draw: PairDraw, genes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Balanced accuracy of a panel on the target by classifier, retrained and transferred."""
    from sklearn.base import clone

    columns = [draw.cells.genes.index(gene) for gene in genes]
    X, y = draw.target[:, columns].toarray(), draw.target_y
    known = balanced_cells(draw.cells.y)
    known_X, known_y = draw.reference[known][:, columns].toarray(), draw.cells.y[known]
    folds, scores = folds_of(y), {}
    for name, model in classifiers().items():
        called = np.empty(len(y), dtype=object)
        for fold in np.unique(folds):
            out = folds == fold
            called[out] = clone(model).fit(X[~out], y[~out]).predict(X[out])
        transferred = clone(model).fit(known_X, known_y).predict(X)
        scores[name] = {
            "retrained": balanced_accuracy(y, called),
            "transferred": balanced_accuracy(y, transferred),
        }
    return scores


def scores_of(draw: PairDraw, methods: Sequence[str], sizes: Sequence[int]) -> list[dict[str, object]]:
    """One row for each method, size, classifier and way of training."""
    rows, sizes = [], [size for size in sizes if size <= len(draw.cells.genes)]
    for method in methods:
        peer, panels, started = METHODS[method], {}, time.perf_counter()
        for size in sizes:
            if peer.nested and panels:
                continue
            asked = max(sizes) if peer.nested else size
            panels[asked] = peer.choose(draw.cells, asked, draw.draw)
        seconds = time.perf_counter() - started
        for size in sizes:
            genes = panels[size][:size] if size in panels else panels[max(sizes)][:size]
            for classifier, found in judged(draw, genes).items():
                for training, accuracy in found.items():
                    rows.append({
                        "pair": draw.pair, "draw": draw.draw, "method": method, "n_genes": size,
                        "classifier": classifier, "training": training, "accuracy": accuracy, "seconds": seconds,
                    })  # fmt: skip
    return rows


def forecasts_of(draw: PairDraw, reference: AnnData, platform: str, sizes: Sequence[int]) -> list[dict[str, object]]:
    """The forecast for the panel of `select_genes`, made of the reference alone, beside what the target says."""
    sizes = [size for size in sizes if size <= len(draw.cells.genes)]
    panel = select_genes(reference, LABEL, n_genes=max(sizes), candidates=draw.cells.genes, min_cells=5, seed=draw.draw)
    rows = forecast_panel(panel, reference, platform, sizes=sizes, seed=draw.draw).to_dict("records")
    for row in rows:
        found = judged(draw, panel.genes[: row["n_genes"]])
        row["truth"] = float(np.mean([found[name][row["training"]] for name in FORECAST_BY]))
    return [{"pair": draw.pair, "draw": draw.draw, **row} for row in rows]


def print_forecasts(table: pd.DataFrame) -> None:
    """How often the interval holds the truth, how wide it is, and how far the forecast lies above it."""
    found = table.assign(
        held=(table["low"] <= table["truth"]) & (table["truth"] <= table["high"]),
        width=table["high"] - table["low"],
        above=table["accuracy"] - table["truth"],
    )
    for keys in (["training"], ["training", "n_genes"], ["training", "pair"]):
        print(f"\n{found.groupby(keys)[['accuracy', 'truth', 'above', 'held', 'width']].mean().round(3).to_string()}")


def by_pair(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over classifiers and draws: one row for each training, size and pair, one column for each method."""
    keys = ["training", "n_genes", "pair"]
    return scores.pivot_table(index=keys, columns="method", values="accuracy", aggfunc="mean")


def differences(scores: pd.DataFrame, ours: str) -> pd.DataFrame:
    """`ours` less every other method: mean over pairs and its 95 % interval (t, each pair a unit)."""
    rows = []
    for (training, size), table in by_pair(scores).groupby(level=["training", "n_genes"]):
        for other in [name for name in table if name != ours]:
            gap = (table[ours] - table[other]).dropna()
            found = _paired_interval(gap)
            rows.append((training, size, other, found.mean, found.low, found.high, len(gap)))
    return pd.DataFrame(rows, columns=["training", "n_genes", "other", "mean", "low", "high", "n_pairs"])


def print_tables(scores: pd.DataFrame, ours: str) -> None:
    """Means over pairs, each pair, and the paired differences."""
    table = by_pair(scores)
    means = table.groupby(level=["training", "n_genes"]).mean().T
    print(f"\nbalanced accuracy on the target, mean over pairs\n{means.round(3).to_string()}")
    print(f"\nof each pair\n{table.round(3).to_string()}")
    print(f"\n{ours} less the others\n{differences(scores, ours).round(3).to_string(index=False)}")


def simulated_pair(seed: int) -> tuple[AnnData, AnnData]:
    """Cells of 5 to 16 types, and the same tissue by a machine whose numbers are at random too."""
    rng = np.random.default_rng([seed, 22])
    cells = simulate_cells(
        2000, 800, int(rng.integers(5, 17)), size_ratio=float(rng.uniform(2, 20)), separation=float(rng.uniform(3, 10)),
        library_size=float(rng.uniform(200, 1500)), seed=seed,
    )  # fmt: skip
    machine = Platform(
        "at random", capture=float(2 ** rng.uniform(-2, 2)), gene_sd=float(rng.uniform(0.5, 2)),
        type_sd=float(rng.uniform(0.3, 1.2)), failed=float(rng.uniform(0, 0.1)), spillover=float(rng.uniform(0, 0.1)),
        background=float(rng.uniform(0, 0.05)),
    )  # fmt: skip
    first = rng.random(cells.n_obs) < 0.5
    return cells[first].copy(), simulate_platform(cells[~first].copy(), LABEL, machine, seed=seed)


def pairs_of(arguments: argparse.Namespace) -> Iterator[tuple[str, AnnData, AnnData]]:
    """The pairs that were asked for, one after the other."""
    if arguments.folder:
        for name, path in pairs_in(arguments.folder).items():
            if not arguments.pairs or name in arguments.pairs:
                yield name, read_h5ad(path / "reference.h5ad"), read_h5ad(path / "target.h5ad")
    for seed in range(arguments.simulated):
        yield f"simulated {seed}", *simulated_pair(seed)


def pairs_in(folder: Path) -> dict[str, Path]:
    """The pairs of a folder."""
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/reference.h5ad"))}
    found = {name: path for name, path in found.items() if (path / "target.h5ad").exists()}
    if not found:
        sys.exit(f"{folder} holds no pair: a pair is a folder with reference.h5ad and target.h5ad")
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of pairs: NAME/{reference,target}.h5ad")
    parser.add_argument("--simulated", type=int, default=0, help="so many simulated pairs")
    parser.add_argument("--pairs", nargs="+", help="only these pairs")
    parser.add_argument("--ours", default=next(iter(METHODS)), help="the method that the others are compared with")
    parser.add_argument("--methods", nargs="+", help=f"of: {', '.join(METHODS)}")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--draws", type=int, default=3, help="subsamples of each reference")
    parser.add_argument("--share", type=float, default=0.8, help="share of the reference's cells in each")
    parser.add_argument("--forecast", choices=list(PLATFORMS), help="forecasts of this platform, beside the truth")
    parser.add_argument("--write", type=Path, help="write the scores to this csv")
    arguments = parser.parse_args()
    if not arguments.folder and not arguments.simulated:
        parser.error("name a --folder of pairs, or ask for --simulated ones")
    return arguments


def main() -> None:
    """Score, print, write."""
    arguments = parsed()
    methods = list(arguments.methods or (arguments.ours, "target=sequencing", *PEERS))
    for method in [method for method in methods if _peer_missing(METHODS[method])]:
        print(f"left out: {_peer_missing(METHODS[method])}", file=sys.stderr)
        methods.remove(method)
    rows = []
    for name, reference, target in pairs_of(arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for draw in draws_of(name, reference, target, n_draws=arguments.draws, share=arguments.share):
                if arguments.forecast:
                    kept = shared_parts(reference, target)[0]
                    rows += forecasts_of(draw, kept, arguments.forecast, arguments.sizes)
                else:
                    rows += scores_of(draw, methods, arguments.sizes)
        print(f"{name} done", file=sys.stderr)
    scores = pd.DataFrame(rows)
    if arguments.write:
        _write_table(scores, arguments.write)
    if arguments.forecast:
        print_forecasts(scores)
    else:
        print_tables(scores, arguments.ours)


if __name__ == "__main__":
    main()
