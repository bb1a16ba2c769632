"""Our TabNet against pytorch-tabnet's own classifier: the same splits, genes, settings and number of steps.

    python benchmarks/tabnet.py                      # pancreas and pbmc68k, 5 splits: about 20 minutes on 2 cores
    python benchmarks/tabnet.py --splits 1 --epochs 5 --genes 200

Needs pytorch-tabnet, which the extra `sims` brings. The two are trained in turn, in one process with
one thread, and what is measured is processor time. A whole run writes data/studies/tabnet/matched.csv, which chapter 35
shows.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from selectormlp.data import choose_variable_genes, prepare_cells  # noqa: E402
from selectormlp.evaluation import score_predictions  # noqa: E402
from selectormlp.files import _write_table  # noqa: E402
from selectormlp.readers import load_cells  # noqa: E402
from selectormlp.split import split_cells  # noqa: E402

TABLE = Path(__file__).resolve().parent.parent / "data" / "studies" / "tabnet" / "matched.csv"
SETS = {"pancreas": "cell_type", "pbmc68k": "bulk_labels"}
STEPS = 360  # optimiser steps that each is given
BATCH = 256
COMMON: dict[str, Any] = {"gamma": 1.3, "n_steps": 3, "n_independent": 2, "n_shared": 2, "momentum": 0.02}

Part = tuple[Any, np.ndarray]


def ours(train: Part, test: Part, *, epochs: int, seed: int) -> np.ndarray:
    """Types of the test cells, by `TabNetClassifier` with the package's settings."""
    from selectormlp.tabnet import TabNetClassifier

    steps = -(-len(train[1]) // BATCH)
    model = TabNetClassifier(
        learning_rate=0.02, weight_decay=0.0, clip=1.0, class_weight=None, patience=None, plateau_patience=10**6,
        max_epochs=epochs, steps_per_epoch=steps, batch_size=BATCH, random_state=seed, **COMMON,
    )  # fmt: skip
    return model.fit(*train, validation=(train[0][:64], train[1][:64])).predict(test[0])


def package(train: Part, test: Part, *, epochs: int, seed: int) -> np.ndarray:
    """Types of the test cells, by pytorch-tabnet's `TabNetClassifier` as it comes."""
    from pytorch_tabnet.tab_model import TabNetClassifier

    model = TabNetClassifier(seed=seed, verbose=0, device_name="cpu", **COMMON)
    model.fit(train[0].toarray(), train[1], max_epochs=epochs, patience=0, batch_size=BATCH, drop_last=False)
    return model.predict(test[0].toarray())


CLASSIFIERS: dict[str, Callable[..., np.ndarray]] = {"selectormlp": ours, "pytorch-tabnet": package}


def measured(cells: str, label_key: str, split_number: int, *, n_genes: int, epochs: int | None) -> pd.DataFrame:
    """Scores and processor seconds of both on one split."""
    adata = prepare_cells(load_cells(cells, label_key), label_key, min_cells=7)
    split = split_cells(adata, label_key, seed=split_number)
    genes = choose_variable_genes(split.subset(adata, "train"), min(n_genes, adata.n_vars))
    train, test = (split.labelled(adata, part, label_key, genes) for part in ("train", "test"))
    passes = epochs or -(-STEPS // -(-len(train[1]) // BATCH))
    rows = []
    for name, predict in CLASSIFIERS.items():
        start = time.process_time()
        scores = score_predictions(test[1], predict(train, test, epochs=passes, seed=split_number))
        seconds = time.process_time() - start
        accuracies = {"accuracy": scores.accuracy, "mean_per_class_accuracy": scores.mean_per_class_accuracy}
        rows.append({"cells": cells, "split": split_number, "classifier": name, **accuracies, "seconds": seconds})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, help="passes over the cells (default: as many as give 360 steps)")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_tabnet|pytorch_lightning")
    tables = []
    for split_number in range(given.splits):
        for cells, label_key in SETS.items():
            tables.append(measured(cells, label_key, split_number, n_genes=given.genes, epochs=given.epochs))
            print(tables[-1].round(3).to_string(index=False, header=len(tables) == 1), flush=True)
    table = pd.concat(tables, ignore_index=True)
    wide = table.pivot(index=["cells", "split"], columns="classifier", values="seconds")
    print("seconds, ours / theirs (median):", round(float((wide["selectormlp"] / wide["pytorch-tabnet"]).median()), 2))
    if given == parser.parse_args([]):
        _write_table(table.round(4), TABLE)


if __name__ == "__main__":
    main()
