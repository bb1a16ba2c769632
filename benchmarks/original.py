"""The original's own code and ours on the same cells: same split, same number of steps, several seeds of each.

    git clone https://github.com/aepstein96/selector-mlp ORIGINAL      # or any checkout of it
    python benchmarks/original.py ORIGINAL                             # some ten minutes on one quiet core
    python benchmarks/original.py ORIGINAL --show                      # prints the comparison from the stored tables

Its code is read from that folder and is no part of this project; it runs as it is, but on the CPU (it asks for a GPU
by name) and with its data loaders in the process. Cells are simulated: 1,500 of 8 types, 300 genes. Batches are of 32
cells and the learning rate is 0.001, both of which its configuration knows, so that in some 1,700 steps a selector
weight can move. What was trained is kept, and the same command goes on. Settings:

- released: what its command line trains. alpha is read from the configuration and not passed on, so it is 0.01; the
  selector starts from N(0, 0.2).
- report: what its report says. alpha 0.1; a free selector starts from N(0, 1). Set by handing its classes those values.

Both codes keep the last epoch's weights here; what the original would have kept, the best epoch's by validation
balanced accuracy, stands beside it in runs.csv.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import combinations, product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from sklearn.metrics import average_precision_score

from selectormlp.classifiers import SelectorMLPClassifier
from selectormlp.data import prepare_cells
from selectormlp.evaluation import score_predictions
from selectormlp.files import _write_table
from selectormlp.masking import masking_curve, rank_genes
from selectormlp.simulation import simulate_cells
from selectormlp.split import CellSplit, split_cells

FOLDER = Path(__file__).resolve().parent.parent / "data" / "studies" / "original"
KEY, PARTS = "cell_type", ("train", "validation", "test")
CELLS, GENES, TYPES, BATCH, RATE, STEP, BEST = 1500, 300, 8, 32, 1e-3, 25, 30
ALPHA, START = {"released": 0.01, "report": 0.1}, {"released": 0.2, "report": 1.0}
SELECTORS = {"selector_l1": ("std", "free"), "selector_clamped_l1": ("clamped", "clamped"), "mlp": ("none", "none")}
RUNS = [  # the MLP has neither alpha nor a selector
    ("selector_l1", "report"), ("mlp", "report"), ("selector_l1", "released"), ("selector_clamped_l1", "report"),
]  # fmt: skip
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def read_original(checkout: Path) -> ModuleType:
    """Import the package of a checkout under a name of its own: it is called as ours is."""
    folder, name = checkout / "selectormlp", "original_selectormlp"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not folder.is_dir():
        raise SystemExit(f"{checkout} is no checkout of selector-mlp: it has no folder selectormlp")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def set_up(setting: str) -> tuple[ModuleType, dict[str, Any]]:
    """The original's module of training, on the CPU and with the values of a setting; and its names as they were."""
    train = importlib.import_module("original_selectormlp.train")
    models = importlib.import_module("original_selectormlp.models")
    before = {"MultiClassifier": train.MultiClassifier, "Selector": models.Selector, "pl": train.pl}

    class WithAlpha(before["MultiClassifier"]):  # its trainSelectorMLP passes no alpha on
        def __init__(self, *args: Any, alpha: float = ALPHA[setting], **settings: Any):
            super().__init__(*args, alpha=alpha, **settings)

    def selector(num_features: int, clamp: bool = False) -> torch.nn.Module:
        return before["Selector"](num_features, std=0.2 if clamp else START[setting], clamp=clamp)

    def trainer(**settings: Any) -> pl.Trainer:
        return pl.Trainer(**{**settings, "accelerator": "cpu", "enable_model_summary": False})

    train.MultiClassifier, models.Selector = WithAlpha, selector
    train.pl = SimpleNamespace(Trainer=trainer, loggers=pl.loggers, callbacks=pl.callbacks)
    return train, before


def put_back(before: dict[str, Any]) -> None:
    """Undo `set_up`."""
    train = importlib.import_module("original_selectormlp.train")
    train.MultiClassifier, train.pl = before["MultiClassifier"], before["pl"]
    importlib.import_module("original_selectormlp.models").Selector = before["Selector"]


class LastNetwork(pl.Callback):
    """Holds the network as the last epoch leaves it: the original returns another, the best epoch's."""

    network: torch.nn.Module

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take it."""
        self.network = pl_module.net


def train_theirs(adata: dict[str, Any], condition: str, setting: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train by the original's `trainSelectorMLP`, and judge by its functions: measures, weights, curve, test."""
    train, before = set_up(setting)
    last, trainer = LastNetwork(), train.pl.Trainer
    train.pl.Trainer = lambda callbacks, **settings: trainer(callbacks=[*callbacks, last], **settings)
    model = {"name": "SelectorMLP", "selector_type": SELECTORS[condition][0], "penalty": "L1"}
    training = {"lr": RATE, "weight_decay": 0.3, "dropout": 0.3, "noise_std": 0.2}
    training |= {"batch_norm": False, "max_epochs": 50}
    loader = {"batch_size": BATCH, "num_workers": 0, "shuffle_train": True, "shuffle_val": False}
    saving = {"dir": str(folder / "checkpoints"), "save_top_k": 1, "save_last": True}
    pl.seed_everything(seed, verbose=False)
    try:
        with redirect_stdout(StringIO()):
            best, measures, out = train.trainSelectorMLP(
                adata["train"], adata["validation"], KEY, model, training, loader, saving, str(folder / "logs")
            )
    finally:
        put_back(before)
    history = pd.read_csv(Path(out) / "metrics.csv")
    epochs = history.dropna(subset=["val_accuracy"])
    return {
        "network": last.network.eval(), "best": best.net.eval(), "steps": int(epochs["step"].max()) + 1,
        "train_loss": measures["train_eval_loss"], "validation_loss": measures["val_eval_loss"],
        "train_accuracy": measures["train_accuracy"], "validation_accuracy": measures["val_accuracy"],
        "best_validation_loss": float(epochs.loc[epochs["val_multiclass_accuracy"].idxmax(), "val_eval_loss"]),
        "best_epoch": int(epochs.loc[epochs["val_multiclass_accuracy"].idxmax(), "epoch"]) + 1,
    }  # fmt: skip


def judge_theirs(found: dict[str, Any], adata: dict[str, Any]) -> tuple[dict[str, float], np.ndarray, pd.DataFrame]:
    """Its importances of the genes, its masking curve on validation cells, and its two "accuracies" on test cells."""
    selection = importlib.import_module("original_selectormlp.feature_selection")
    utils = importlib.import_module("original_selectormlp.utils")
    data = importlib.import_module("original_selectormlp.data")
    network = found["network"]
    with torch.no_grad():
        plain = network.selector is None
        weights = network.h1.weight.abs().sum(dim=0) if plain else network.selector.weight.abs()
    importance = weights.detach().numpy().astype(float)
    sizes = np.arange(0, len(importance), STEP)  # as its testFeatureSelection has them: all genes are left out
    order = np.argsort(importance)[::-1]
    x, y = data.createDataset(adata["validation"], KEY).tensors
    with redirect_stderr(StringIO()):  # its progress bar
        accuracy, recall = selection.filterFeaturesMLP(sizes, order.copy(), network, x, y)
    curve = pd.DataFrame({"n_genes": sizes, "accuracy": accuracy, "balanced_accuracy": recall})
    test = data.createDataset(adata["test"], KEY)
    _, told = utils.getTestAccuracy(network, test)
    with torch.no_grad():
        codes = network(test.tensors[0]).argmax(dim=1).numpy()
    types = adata["test"].obs[KEY].cat.categories.to_numpy()
    scores = score_predictions(adata["test"].obs[KEY].to_numpy().astype(str), types[codes])
    told_of = {"test_recall": scores.mean_per_class_accuracy, "test_told": float(told)}
    return told_of, importance, curve


class OursSetLike(SelectorMLPClassifier):
    """Our classifier, whose free selector starts from N(0, `start`)."""

    def __init__(self, start: float = 1.0, **settings: Any):
        super().__init__(**settings)
        self.start = start

    def _network_maker(self, n_genes: int) -> Any:
        make = super()._network_maker(n_genes)

        def scaled() -> Any:
            network = make()
            if self.selector == "free":
                network.selector.weight.data *= self.start
            return network

        return scaled


def train_ours(
    adata: dict[str, Any], condition: str, setting: str, seed: int
) -> tuple[dict[str, Any], np.ndarray, pd.DataFrame]:
    """The same by our code."""
    cells = {part: (adata[part].X, adata[part].obs[KEY].to_numpy().astype(str)) for part in PARTS}
    kind = SELECTORS[condition][1]
    model = OursSetLike(
        START[setting], protocol="report", selector=kind, penalty="none" if kind == "none" else "l1",
        penalty_weight=ALPHA[setting], batch_size=BATCH, random_state=seed, learning_rate=RATE,
        selector_learning_rate=RATE,
    )  # fmt: skip
    genes = list(adata["train"].var_names)
    model.fit(*cells["train"], validation=cells["validation"], gene_names=genes)
    end = model.history_.iloc[-1]
    best = model.history_.loc[model.history_["validation_balanced_accuracy"].idxmax()]
    measures = {
        "steps": int(end["step"]),
        **{
            f"{part}_{what}": float(end[f"{part}_{what}"])
            for part, what in product(("train", "validation"), ("loss", "accuracy"))
        },
        "best_validation_loss": float(best["validation_loss"]),
        "best_epoch": int(best["epoch"]),
        "test_recall": score_predictions(cells["test"][1], model.predict(cells["test"][0])).mean_per_class_accuracy,
    }
    curve = masking_curve(model, *cells["validation"], rank_genes(model), step=STEP)
    return measures, model.feature_importances_, curve


def make_cells() -> tuple[dict[str, Any], np.ndarray]:
    """Log-normalised simulated cells of each part of one split, and which genes are planted."""
    cells = prepare_cells(simulate_cells(CELLS, GENES, TYPES, seed=0), KEY, min_cells=7)
    split: CellSplit = split_cells(cells, KEY, seed=0)
    adata = {part: split.subset(cells, part).copy() for part in PARTS}
    for part in adata.values():
        part.X = part.X.tocsr().astype(np.float32)
        part.obs[KEY] = pd.Categorical(part.obs[KEY].astype(str), categories=sorted(set(cells.obs[KEY].astype(str))))
    return adata, cells.var["is_marker"].to_numpy()


def run(checkout: Path, n_seeds: int, folder: Path) -> None:
    """Train whatever is not in the folder's tables yet, one seed after the other, and add it to them."""
    read_original(checkout)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its checkpoints hold classes, and it wrote them just now
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    adata, is_marker = make_cells()
    genes = np.asarray(adata["train"].var_names)
    for seed, (condition, setting), code in product(range(n_seeds), RUNS, ("original", "ours")):
        marks = {"condition": condition, "setting": setting, "code": code, "seed": seed}
        done = stored(folder, "runs")
        if len(done) and (done[list(marks)] == pd.Series(marks)).all(axis=1).any():
            continue
        began = time.perf_counter()
        if code == "original":
            with tempfile.TemporaryDirectory() as place:
                found = train_theirs(adata, condition, setting, seed, Path(place))
            told, importance, curve = judge_theirs(found, adata)
            measures = {name: value for name, value in found.items() if name not in ("network", "best")} | told
        else:
            measures, importance, curve = train_ours(adata, condition, setting, seed)
        measures["average_precision"] = average_precision_score(is_marker, importance)
        quantiles = dict(zip([f"q{100 * q:g}" for q in QUANTILES], np.quantile(importance, QUANTILES), strict=True))
        best = " ".join(genes[np.argsort(-importance, kind="stable")[:BEST]])
        add(folder, "weights", [marks | quantiles])
        add(folder, "best", [marks | {"genes": best}])
        add(folder, "masking", [marks | row for row in curve.to_dict("records")])
        add(folder, "runs", [marks | measures | {"seconds": round(time.perf_counter() - began, 1)}])
        print(*marks.values(), f"{measures['validation_loss']:.3f}", flush=True)


def stored(folder: Path, name: str) -> pd.DataFrame:
    """A table of the folder, or an empty one."""
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def add(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Add rows to a table of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(pd.concat([stored(folder, name), pd.DataFrame(rows).round(5)]), folder / f"{name}.csv")


def overlaps(best: pd.DataFrame) -> pd.DataFrame:
    """Genes that two trainings share among their best, mean over all pairs of seeds: of one code, or of both."""
    rows = []
    trained = [(*row[:4], set(row.genes.split())) for row in best.itertuples(index=False)]
    for one, other in combinations(trained, 2):
        if one[:2] == other[:2] and one[3] != other[3]:
            pair = f"two of {one[2]}" if one[2] == other[2] else "one of each"
            rows.append({"condition": one[0], "setting": one[1], "trainings": pair, "shared": len(one[4] & other[4])})
    return pd.DataFrame(rows).groupby(["condition", "setting", "trainings"], sort=False)["shared"].mean().unstack()


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean of each code and the difference, with the interval that the seeds give (95 %, Welch)."""
    from scipy.stats import ttest_ind

    measures = (
        "train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "test_recall", "average_precision",
    )  # fmt: skip
    rows = []
    for (condition, setting), part in runs.groupby(["condition", "setting"], sort=False):
        for name in measures:
            theirs, ours = (part.loc[part["code"] == code, name] for code in ("original", "ours"))
            low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
            means = {"original": theirs.mean(), "ours": ours.mean(), "low": low, "high": high}
            rows.append({"condition": condition, "setting": setting, "measure": name, **means})
    return pd.DataFrame(rows)


def main() -> None:
    """Run or show the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of the original's repository")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--tables", type=Path, default=FOLDER, help="folder of the tables")
    arguments = parser.parse_args()
    if not arguments.show:
        run(arguments.checkout, arguments.seeds, arguments.tables)
        about = {
            "command": "python benchmarks/original.py CHECKOUT", "n_cells": CELLS, "genes": GENES, "types": TYPES,
            "batch_size": BATCH, "learning_rate": RATE, "seeds": arguments.seeds, "torch": torch.__version__,
            "pytorch_lightning": pl.__version__, "python": platform.python_version(),
        }  # fmt: skip
        (arguments.tables / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(compared(stored(arguments.tables, "runs")).round(3).to_string(index=False))
    print(overlaps(stored(arguments.tables, "best")).round(1).to_string())


if __name__ == "__main__":
    main()
