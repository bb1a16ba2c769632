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
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
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
from speed_atlas import measure_atlas, measure_reading  # noqa: E402
from speed_sources import BEFORE, measure_sources, wide_cells  # noqa: E402

from selectormlp.classifiers import LinearSVMClassifier, make_classifier  # noqa: E402
from selectormlp.data import normalise  # noqa: E402
from selectormlp.files import _read_json, _write_json  # noqa: E402
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
        model = make_classifier(name, model_settings=settings).fit(cells.X[train], y[train], gene_names=cells.var_names)
        groups += [masking_group(model, cells.X[judged], y[judged], name=name, step=step) for step in (50, 1)]
    return pd.concat(groups, ignore_index=True).assign(cells=len(y) - half)


# --------------------------------------------------------------------------------------------------------------- svm


def solution_of(model: LinearSVMClassifier, x: Any, codes: np.ndarray) -> np.ndarray:
    """Decision values (cells, classes) at the solution of the L2 problem, as closely as LIBLINEAR comes."""
    from sklearn.svm import LinearSVC

    from selectormlp.classifiers import _balanced_weights

    weights = _balanced_weights(codes) if model.protocol == "robust" else None
    close = LinearSVC(dual=True, C=model._machine().C, tol=1e-8, max_iter=100_000, random_state=0)
    scaled = x.multiply(1 / model.gene_scale_).tocsr().astype(float)
    return close.fit(scaled, codes, sample_weight=weights).decision_function(scaled)


def svm_group(x: Any, y: np.ndarray, test: tuple[Any, np.ndarray], *, penalty: str, protocol: str) -> pd.DataFrame:
    """One SVM: scikit-learn's on dense data, with its own choice of primal or dual, and ours on sparse data."""
    from selectormlp.classifiers import _balanced_weights, _gene_scale, _gene_spread

    codes = np.unique(y, return_inverse=True)[1]
    robust, model = protocol == "robust", LinearSVMClassifier(penalty=penalty, protocol=protocol)
    scale = _gene_scale(_gene_spread(x)) if robust else np.ones(x.shape[1])
    dense, weights = x.toarray() / scale.astype(np.float32), _balanced_weights(codes) if robust else None
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


# ------------------------------------------------------------------------------------------------------------- guard


def measure_guard(n_cells: int | None) -> pd.DataFrame:
    """(h) The process that watches the command line while it reads: `select` with it and without it."""
    unguarded = "import sys; from selectormlp.cli import main; sys.exit(main(sys.argv[1:]))"
    ways = {"guarded": ["-m", "selectormlp"], "without a guard": ["-c", unguarded]}
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "wide.h5ad"
        wide_cells(wide, n_cells or 100_000, 20_000)
        for path, turns in ((ROOT / "data" / "pancreas.h5ad", 7), (wide, 3)):
            options = ["select", str(path), "--label-key", "cell_type", "--page", "false", "--out", f"{folder}/p.csv"]

            def chosen(way: list[str], options: list[str] = options) -> Callable[[], Any]:
                return lambda: subprocess.run([sys.executable, *way, *options], check=True, capture_output=True)

            table, _ = in_turn({name: chosen(way) for name, way in ways.items()}, turns=turns)
            table.insert(0, "file", "the shipped file" if path != wide else f"{n_cells or 100_000:,} x 20,000")
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


# -------------------------------------------------------------------------------------------------------------- page


def measure_page(n_cells: int | None) -> pd.DataFrame:
    """(i) A panel of 100 genes by `select`, with its page and without; SELECTORMLP_BEFORE is another checkout."""
    run = "import sys; from selectormlp.cli import main; code = main(sys.argv[1:]);"  # maxrss would be the parent's
    run += " peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0];"
    run += " print(int(peak) // 1024); sys.exit(code)"
    checkouts = {"": ROOT, **({" (another checkout)": Path(BEFORE)} if BEFORE else {})}
    with tempfile.TemporaryDirectory() as folder:
        wide_cells(Path(folder) / "wide.h5ad", n_cells or 100_000, 20_000)
        options = ["select", f"{folder}/wide.h5ad", "--label-key", "cell_type", "--n-genes", "100", "--n-jobs", "1"]

        def chosen(page: str, checkout: Path) -> Callable[[], int]:
            command = [sys.executable, "-c", run, *options, "--page", page, "--out", f"{folder}/p.csv"]
            more: dict[str, Any] = {"check": True, "capture_output": True, "text": True, "cwd": checkout}
            more["env"] = {**os.environ, "PYTHONPATH": str(checkout)}
            return lambda: int(subprocess.run(command, **more).stdout.split()[-1])

        ways = {
            f"{name}{where}": chosen(page, checkout)
            for where, checkout in checkouts.items()
            for name, page in (("with its page", "true"), ("without", "false"))
        }
        table, peaks = in_turn(ways, turns=1)
    return table.assign(peak_memory_mb=[peaks[name] for name in table["what"]])


# ---------------------------------------------------------------------------------------------------------- training


def products_alone(steps: int) -> float:
    """Seconds per step of the matrix products of forward pass and weight gradients, and nothing else."""
    import torch

    sizes = [2000, 512, 128, 64, 40]
    pairs = list(zip(sizes, sizes[1:], strict=False))
    layers = [(torch.rand(256, i), torch.rand(o, i), torch.rand(256, o)) for i, o in pairs]
    start = time.perf_counter()
    for _ in range(steps):
        for x, weight, gradient in layers:
            x @ weight.T
            gradient.T @ x
    return (time.perf_counter() - start) / steps


def trained(module: Any, batches: Any, **arguments: Any) -> float:
    """Seconds per step of Lightning on an epoch of batches, the first five steps left out."""
    import pytorch_lightning as pl

    class Watch(pl.Callback):
        """Notes when the sixth step begins and the last one ends."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 5:
                self.start = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    watch, quiet = Watch(), {"enable_progress_bar": False, "enable_model_summary": False}
    usual = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 1}
    pl.Trainer(**{**usual, **quiet, **arguments}, callbacks=[watch]).fit(module, batches)
    return watch.seconds / (len(batches) - 5)


def our_way(x: Any, codes: np.ndarray) -> float:
    """Seconds per step of our module on our batches: sparse cells, the report's network, protocol and penalty."""
    from selectormlp.models import NetworkShape, SelectorNet
    from selectormlp.training import _REPORT, _BatchLoader, _CodedCells, _SelectorModule

    module = _SelectorModule(SelectorNet(NetworkShape(2000, 40)), _REPORT, penalty="l1", seed=0)
    cells = _CodedCells(x, codes, np.ones(len(codes), dtype=np.float32))
    return trained(module, _BatchLoader(cells, batch_size=256, shuffle=True))


def usual_way(x: Any, codes: np.ndarray) -> float:
    """Seconds per step as usually written: dense TensorDataset, DataLoader, x * w, two figures logged each step."""
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.loggers import CSVLogger
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    from selectormlp.models import NetworkShape, SelectorNet

    class Usual(pl.LightningModule):
        """The same network and loss."""

        def __init__(self) -> None:
            super().__init__()
            self.selector = torch.nn.Parameter(torch.randn(2000))
            rest = SelectorNet(NetworkShape(2000, 40, selector="none"))
            layers = [torch.nn.Dropout(part.p) if hasattr(part, "p") else part for part in rest.rest]
            self.layers = torch.nn.Sequential(rest.first, *layers)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            scores = self.layers((x + 0.2 * torch.randn_like(x)) * self.selector)
            loss = functional.cross_entropy(scores, y) + 0.1 * self.selector.abs().sum()
            self.log("loss", loss)
            self.log("accuracy", (scores.argmax(dim=1) == y).float().mean())
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=3e-4, weight_decay=0.3)

    data = TensorDataset(torch.from_numpy(x.toarray()), torch.from_numpy(codes))
    with tempfile.TemporaryDirectory() as folder:
        return trained(Usual(), DataLoader(data, batch_size=256, shuffle=True), logger=CSVLogger(folder))


def measure_training(n_cells: int | None) -> pd.DataFrame:
    """(a) A training step against its matrix products alone and the usual way, with one thread and with two.

    `products` says what torch.set_float32_matmul_precision was told: "medium" lets products round to bfloat16.
    """
    import torch

    cells, y = report_cells(n_cells or 256 * 60)
    codes, rows = np.unique(y, return_inverse=True)[1], []
    ways: dict[str, Callable[[], float]] = {
        "matrix products alone": lambda: products_alone(60),
        "the usual way": lambda: usual_way(cells.X, codes),
        "SelectorModule": lambda: our_way(cells.X, codes),
    }
    for threads, products in ((1, "highest"), (1, "medium"), (2, "highest"), (2, "medium")):
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(products)
        turns = pd.DataFrame([{name: way() for name, way in ways.items()} for _ in range(5)])
        floor, usual = (turns[name].median() for name in list(ways)[:2])
        for name, seconds in turns.median().items():
            rows.append((threads, products, name, 1000 * seconds, seconds / floor, usual / seconds))
    torch.set_float32_matmul_precision("highest")
    columns = ["threads", "products", "what", "milliseconds_per_step", "times_floor", "faster_than_usual"]
    return pd.DataFrame(rows, columns=columns)


def measure_roofline(n_cells: int | None) -> pd.DataFrame:
    """Where a step's time goes: operations per second of its parts, between the two roofs of this machine."""
    import torch

    from selectormlp.models import NetworkShape, SelectorNet
    from selectormlp.training import _REPORT, _gaussian_noise, _optimizer_and_schedule

    cells, _ = report_cells(n_cells or 4096)
    net, x, weight = SelectorNet(NetworkShape(2000, 40)), torch.rand(256, 2000), torch.rand(512, 2000)
    units, w, large = torch.rand(256, 512), torch.rand(2000), torch.rand(2**24)
    square, types = torch.rand(2048, 2048), torch.randint(0, 40, (256,))
    optimizer, n_weights = _optimizer_and_schedule(net, _REPORT)["optimizer"], sum(p.numel() for p in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.rand_like(parameter)
    hidden = torch.rand(256, 512, requires_grad=True)
    rows, product = np.arange(0, 4096, 16), 2 * 256 * 2000 * 512
    small = 3 * 2 * 256 * (512 * 128 + 128 * 64 + 64 * 40)
    values, first = 256 * 2000, 4 * (256 * 2000 + 2000 * 512 + 256 * 512)

    def rest() -> None:
        torch.nn.functional.cross_entropy(net.rest(hidden), types).backward()

    parts: dict[str, tuple[Callable[[], Any], float, float]] = {  # what it does, operations, bytes moved
        "roof: large product": (lambda: square @ square, 2 * 2048**3, 12 * 2048**2),
        "roof: copying": (lambda: large.clone(), 2**24, 8 * 2**24),
        "first layer, forward": (lambda: x @ weight.T, product, first),
        "first layer, gradient": (lambda: units.T @ x, product, first),
        "layers above, both ways": (rest, small, 4 * 12 * 256 * (512 + 128 + 64)),
        "selector": (lambda: (x * w, (weight * weight).sum(0), weight * w), values + 3 * weight.numel(), 40 * 10**6),
        "noise": (lambda: x.add(_gaussian_noise(x), alpha=0.2), 4 * values, 16 * values),
        "AdamW": (lambda: optimizer.step(), 12 * n_weights, 28 * n_weights),
        "sparse cells to a batch": (lambda: cells.X[rows].toarray(), values, 4 * values),
    }

    def often(part: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: [part() for _ in range(20)]

    table, _ = in_turn({name: often(part[0]) for name, part in parts.items()}, turns=5)
    table[["seconds", "processor_seconds"]] /= 20
    numbers = np.array([part[1:] for part in parts.values()], dtype=float).T
    return table.drop(columns="ratio").assign(operations=numbers[0], bytes=numbers[1])


# -------------------------------------------------------------------------------------------------------- the program

PARTS: dict[str, Callable[[int | None], pd.DataFrame]] = {
    "training": measure_training,
    "roofline": measure_roofline,
    "masking": measure_masking,
    "svm": measure_svm,
    "atlas": measure_atlas,
    "reading": measure_reading,
    "sources": measure_sources,
    "start": measure_start,
    "guard": measure_guard,
    "page": measure_page,
}


def write_part(part: str, table: pd.DataFrame) -> None:
    """Write the table of a part, and under what it was measured."""
    TABLES.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLES / f"{part}.csv", index=False, float_format="%.4g", lineterminator="\n")
    path = TABLES / "about.json"
    about = _read_json(path) if path.exists() else {}
    about[part] = {
        "command": f"python benchmarks/speed.py {part} --write",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "threads": os.environ["OMP_NUM_THREADS"],
        "cells": SHAPE,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch", "selectormlp")},
    }
    _write_json(about, path)


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
