"""How fast the library is: every figure is a ratio between things that were run in turn, in one process.

    python benchmarks/speed.py                        # every part
    python benchmarks/speed.py masking start          # some parts
    python benchmarks/speed.py svm --cells 5000       # smaller
    python benchmarks/speed.py masking --write        # the whole size; writes data/studies/speed/

`ratio` says how many times longer the first thing of a group takes than this one, in processor seconds, which other
programs on the machine disturb least; the seconds themselves belong to one machine and one day. Simulated cells of the
report's shape: 2,000 genes, one value in fourteen above zero, 40 types; the network has 512, 128 and 64 hidden units.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy: one thread for everybody
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from anndata import AnnData  # noqa: E402

from selectormlp.classifiers import LinearSVMClassifier, make_classifier  # noqa: E402
from selectormlp.data import normalise, read_json, write_json  # noqa: E402
from selectormlp.masking import masking_curve, random_masking_curve, rank_genes  # noqa: E402
from selectormlp.simulation import simulate_cells  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "data" / "studies" / "speed"
SHAPE = {"n_genes": 2000, "n_types": 40, "library_size": 170.0}  # about 7 % of the values are above zero


def report_cells(n_cells: int) -> tuple[AnnData, np.ndarray]:
    """Log-normalised simulated cells of the report's shape, and their types (cells,)."""
    cells = normalise(simulate_cells(n_cells=n_cells, seed=0, **SHAPE))
    return cells, cells.obs["cell_type"].to_numpy().astype(str)


def processor_seconds() -> float:
    """Processor seconds of this process and of the children that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def in_turn(things: dict[str, Callable[[], Any]], *, turns: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run all things `turns` times, one after the other; medians of their seconds, ratios, and what they returned."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in things}
    results = {}
    for _ in range(turns):
        for name, thing in things.items():
            clock, processor = time.perf_counter(), processor_seconds()
            results[name] = thing()
            taken[name].append((time.perf_counter() - clock, processor_seconds() - processor))
    medians = [[statistics.median(column) for column in zip(*pairs, strict=True)] for pairs in taken.values()]
    table = pd.DataFrame(medians, columns=["seconds", "processor_seconds"])
    table.insert(0, "what", list(taken))
    return table.assign(ratio=table["processor_seconds"].iloc[0] / table["processor_seconds"], turns=turns), results


# ----------------------------------------------------------------------------------------------------------- masking


def full_passes(model: Any, x: np.ndarray, y: np.ndarray, order: np.ndarray, sizes: np.ndarray) -> list[float]:
    """The usual way: for each mask the whole network on all cells x (dense, cells x genes); accuracies."""
    import torch

    network, cells = model.network_.eval(), torch.from_numpy(x / model.gene_scale_.astype(np.float32))
    accuracies = []
    with torch.inference_mode():
        for size in sizes:
            mask = torch.zeros(x.shape[1])
            mask[order[:size]] = 1
            predicted = model.classes_[network(cells * mask).numpy().argmax(axis=1)]
            accuracies.append(float((predicted == y).mean()))
    return accuracies


def full_predictions(model: Any, x: Any, y: np.ndarray, order: np.ndarray, sizes: np.ndarray) -> list[float]:
    """The same with the classifier's own `predict` on sparse cells."""
    place = np.argsort(order)
    return [float((model.predict(x.multiply(place < size).tocsr()) == y).mean()) for size in sizes]


def masking_group(model: Any, x: Any, y: np.ndarray, *, name: str, step: int) -> pd.DataFrame:
    """One model at one step. At steps below 50 the plain ways do every 50th gene, and their time is scaled up."""
    order = pd.Index(model.gene_names_).get_indexer(rank_genes(model)["gene"])
    sizes, dense, ranking = np.arange(0, len(order) + 1, 50), x.toarray(), rank_genes(model)
    things: dict[str, Callable[[], Any]] = {
        "a full pass per mask": lambda: full_passes(model, dense, y, order, sizes),
        "a prediction per mask": lambda: full_predictions(model, x, y, order, sizes),
        "masking_curve": lambda: masking_curve(model, x, y, ranking, step=step),
        "random_masking_curve": lambda: random_masking_curve(model, x, y, step=step),
    }
    if not hasattr(model, "network_"):
        del things["a full pass per mask"]
    table, results = in_turn(things, turns=3)
    plain = table["what"].str.endswith("per mask")
    table["masks"] = np.where(plain, len(sizes), [5 if "random" in what else 1 for what in table["what"]])
    table["masks"] *= np.where(plain, 1, -(-len(order) // step) + 1)
    per_mask = table["processor_seconds"] / table["masks"]
    curve = results["masking_curve"].set_index("n_genes")["accuracy"].loc[sizes]
    apart = np.abs(curve.to_numpy() - np.array(results["a prediction per mask"])).max() * len(y)
    return table.assign(model=name, step=step, ratio=per_mask.iloc[0] / per_mask, most_cells_apart=round(apart))


def measure_masking(n_cells: int | None) -> pd.DataFrame:
    """(b) Masking curves against a full pass per mask, at steps of 50 and of 1."""
    cells, y = report_cells(n_cells or 6000)
    half = len(y) // 2
    train, judged = slice(None, half), slice(half, None)
    groups = []
    for name, settings in {"selector_l1": {"max_epochs": 3}, "mlp": {"max_epochs": 3}, "svm_l2": {}}.items():
        model = make_classifier(name, **settings).fit(cells.X[train], y[train], gene_names=cells.var_names)
        groups += [masking_group(model, cells.X[judged], y[judged], name=name, step=step) for step in (50, 1)]
    return pd.concat(groups, ignore_index=True).assign(cells=len(y) - half)


# --------------------------------------------------------------------------------------------------------------- svm


def solution_of(model: LinearSVMClassifier, x: Any, codes: np.ndarray) -> np.ndarray:
    """Decision values (cells, classes) at the solution of the L2 problem, as closely as LIBLINEAR comes."""
    from sklearn.svm import LinearSVC

    from selectormlp.classifiers import balanced_weights

    weights = balanced_weights(codes) if model.protocol == "robust" else None
    close = LinearSVC(dual=True, C=model._machine().C, tol=1e-8, max_iter=100_000, random_state=0)
    scaled = x.multiply(1 / model.gene_scale_).tocsr().astype(float)
    return close.fit(scaled, codes, sample_weight=weights).decision_function(scaled)


def svm_group(x: Any, y: np.ndarray, test: tuple[Any, np.ndarray], *, penalty: str, protocol: str) -> pd.DataFrame:
    """One SVM: scikit-learn's on dense data, with its own choice of primal or dual, and ours on sparse data."""
    from selectormlp.classifiers import balanced_weights, gene_scale, gene_spread

    codes = np.unique(y, return_inverse=True)[1]
    robust, model = protocol == "robust", LinearSVMClassifier(penalty=penalty, protocol=protocol)
    scale = gene_scale(gene_spread(x)) if robust else np.ones(x.shape[1])
    dense, weights = x.toarray() / scale.astype(np.float32), balanced_weights(codes) if robust else None
    things = {
        "LinearSVC, dense": lambda: model._machine().set_params(dual="auto").fit(dense, y, sample_weight=weights),
        "LinearSVMClassifier, sparse": lambda: LinearSVMClassifier(penalty=penalty, protocol=protocol).fit(x, y),
    }
    table, fitted = in_turn(things, turns=1)  # minutes each
    theirs, ours = fitted.values()
    scaled_test = test[0].toarray() / scale.astype(np.float32)
    table["accuracy"] = [float((theirs.predict(scaled_test) == test[1]).mean()), ours.score(*test)]
    if penalty == "l2":
        solution = solution_of(ours, x, codes)
        values = (theirs.decision_function(dense), ours.decision_function(x))
        table["distance_to_solution"] = [float(np.abs(value - solution).max()) for value in values]
    passes = [int(np.max(theirs.n_iter_)), ours.n_iter_]
    return table.assign(penalty=penalty, protocol=protocol, passes=passes, cells=len(y))


def measure_svm(n_cells: int | None) -> pd.DataFrame:
    """(c) The linear SVM against scikit-learn's on dense data; L1, which takes long, on a quarter of the cells."""
    n_cells = n_cells or 20_000
    cells, y = report_cells(n_cells + 2000)
    test = (cells.X[n_cells:], y[n_cells:])
    groups = []
    for penalty, n_train in (("l2", n_cells), ("l1", n_cells // 4)):
        for protocol in ("report", "robust"):
            part = {"penalty": penalty, "protocol": protocol}
            groups.append(svm_group(cells.X[:n_train], y[:n_train], test, **part))
    return pd.concat(groups, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------- start


def measure_start(n_cells: int | None) -> pd.DataFrame:
    """(f) Starting: imports and `selectormlp --help`, each in a fresh process."""
    commands = {
        "import numpy, pandas": ["-c", "import numpy, pandas"],
        "import selectormlp": ["-c", "import selectormlp"],
        "import numpy, pandas, selectormlp": ["-c", "import numpy, pandas, selectormlp"],
        "from selectormlp import masking_curve": ["-c", "from selectormlp import masking_curve"],
        "selectormlp --help": ["-m", "selectormlp.cli", "--help"],
    }

    def started(arguments: list[str]) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    table, _ = in_turn({name: started(arguments) for name, arguments in commands.items()}, turns=7)
    more = table["processor_seconds"] - table["processor_seconds"].iloc[0]
    return table.assign(more_processor_seconds=more)


# -------------------------------------------------------------------------------------------------------- the program

PARTS: dict[str, Callable[[int | None], pd.DataFrame]] = {
    "masking": measure_masking,
    "svm": measure_svm,
    "start": measure_start,
}


def write_part(part: str, table: pd.DataFrame) -> None:
    """Write the table of a part, and under what it was measured."""
    TABLES.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLES / f"{part}.csv", index=False, float_format="%.4g", lineterminator="\n")
    path = TABLES / "about.json"
    about = read_json(path) if path.exists() else {}
    about[part] = {
        "command": f"python benchmarks/speed.py {part} --write",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "threads": os.environ["OMP_NUM_THREADS"],
        "cells": SHAPE,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch", "selectormlp")},
    }
    write_json(about, path)


def main() -> None:
    """Measure the parts that were asked for, print their tables and, if wanted, store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--cells", type=int, help="another number of cells; such tables are not stored")
    parser.add_argument("--write", action="store_true", help="write data/studies/speed/")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown or (arguments.write and arguments.cells):
        parser.error(f"there is no part {unknown[0]!r}" if unknown else "--write stores the usual number of cells only")
    warnings.filterwarnings("ignore", message="Liblinear failed to converge")
    for name in arguments.parts or PARTS:
        table = PARTS[name](arguments.cells)
        table.insert(0, "part", name)
        print(f"\n{name}\n{table.to_string(index=False, float_format='{:.4g}'.format)}", flush=True)
        if arguments.write:
            write_part(name, table)


if __name__ == "__main__":
    main()
