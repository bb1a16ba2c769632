"""Gene panels of every method on every data set, judged in the same way. One command prints the whole table.

    python benchmarks/panels.py                                     # the shipped sets: pancreas, pbmc68k, simulated
    python benchmarks/panels.py --folder cells/ --label-keys zeisel=level1class,level2class human_kidney=label
    python benchmarks/panels.py --sets pancreas --methods random "ANOVA F" --splits 2 --run-folder runs/try

Genes are chosen on training cells only, in a process of its own for each method; classifiers that no method trained on
judge them on test cells. A run that was stopped goes on where it was (`--run-folder`). Methods from packages that are
not installed are in the table with the reason: the extra `peers` brings them; PERSIST needs a clone, named by
SELECTORMLP_PERSIST. A whole run writes its tables to data/studies/panels/, which chapter 32 shows.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy: a thread per process
    os.environ.setdefault(_name, "1")

import pandas as pd  # noqa: E402

from selectormlp.benchmark import (  # noqa: E402
    _MEASURES,
    BenchmarkResults,
    _DataSet,
    _prepare_split,
    _stability,
    read_benchmark,
    run_benchmark,
)
from selectormlp.evaluation import _JUDGES  # noqa: E402
from selectormlp.files import _write_json  # noqa: E402
from selectormlp.intervals import _EVERY_SET, _verdicts, paired_differences  # noqa: E402
from selectormlp.peers import PEERS, LabelledCells, Peer  # noqa: E402
from selectormlp.selection import rank_by_discriminant  # noqa: E402
from selectormlp.simulation import simulate_cells  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "data" / "studies" / "panels"
SHIPPED = [
    _DataSet("pancreas", "pancreas", "cell_type"),
    _DataSet("pbmc68k", "pbmc68k", "bulk_labels"),
    _DataSet("simulated", partial(simulate_cells, seed=0), "cell_type"),
]
# Sets that our selectors and their settings were chosen on; no setting was chosen by the scores of the others (chapter
# 11 says what was seen when). "zeisel level 1" has the cells of level 2 under other labels.
TUNED_ON = {"pancreas", "zeisel level 2", "cbmc_citeseq"}
NAMES = {"zeisel level1class": "zeisel level 1", "zeisel level2class": "zeisel level 2"}


def own_methods() -> dict[str, Peer]:
    """The library's own selectors, behind the face of the peers; the first is the default of `select_genes`."""

    def discriminant(cells: LabelledCells, n_genes: int, seed: int) -> list[str]:
        return rank_by_discriminant(cells.X, cells.y, cells.genes, n_genes)["gene"].tolist()

    return {"discriminant": Peer("discriminant", discriminant, designed_for="types that are still confused")}


METHODS = {**own_methods(), **PEERS}


def sets_in(folder: Path, label_keys: list[str]) -> list[_DataSet]:
    """Every .h5ad of a folder, once for each of its label columns ("file=column,column")."""
    keys = dict(entry.split("=", 1) for entry in label_keys)
    files = {path.stem: path for path in sorted(folder.glob("*.h5ad"))}
    unknown, unnamed = sorted(set(keys) - set(files)), sorted(set(files) - set(keys))
    if unknown or unnamed:
        sys.exit(
            f"--label-keys names {unknown}, not in {folder}" if unknown else f"--label-keys must name {unnamed} too"
        )
    found = []
    for name, path in files.items():
        columns = keys[name].split(",")
        for column in columns:
            full = f"{name} {column}" if len(columns) > 1 else name
            found.append(_DataSet(NAMES.get(full, full), path, column))
    return found


def picked(known: dict, names: list[str] | None, what: str) -> list:
    """The named ones, all where none are named; an unknown name ends the program."""
    unknown = [name for name in names or () if name not in known]
    if unknown:
        sys.exit(f"there is no {what} {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def describe(data_set: _DataSet) -> dict[str, object]:
    """Size of a data set's first split, and whether our selectors were tuned on it."""
    prepared = _prepare_split(data_set, 0)
    return {
        "data_set": data_set.name,
        "training_cells": len(prepared.train.y),
        "test_cells": len(prepared.test[1]),
        "types": len(set(prepared.train.y)),
        "candidate_genes": len(prepared.train.genes),
        "tuned_on": data_set.name in TUNED_ON,
    }


def installed(package: str) -> str:
    """Version of a package, or why there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_tables(results: BenchmarkResults, data_sets: list[_DataSet], arguments: argparse.Namespace) -> None:
    """The tables that are committed: no gene lists, four significant digits."""
    TABLES.mkdir(parents=True, exist_ok=True)
    tables = {
        "scores": results.scores.drop(columns="reason"),
        "failures": results.failures(),
        "stability": _stability(results.chosen),
        "data_sets": pd.DataFrame([describe(data_set) for data_set in data_sets]),
    }
    for name, table in tables.items():
        table.to_csv(TABLES / f"{name}.csv", index=False, float_format="%.4g", lineterminator="\n")
    packages = sorted(
        {"selectormlp", "scikit-learn", "scanpy", "torch"} | {m.package for m in METHODS.values() if m.package}
    )
    about = {
        "command": "python benchmarks/panels.py --folder FOLDER --label-keys ...",
        "splits": arguments.splits,
        "time_limit_seconds": arguments.time_limit,
        "processes": arguments.jobs if arguments.scheduler is None else "a Dask cluster",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
    }
    _write_json(about, TABLES / "about.json")


def show(title: str, table: pd.DataFrame) -> None:
    """Print a table under its title."""
    print(f"\n{title}\n{table.to_string()}")


def print_tables(results: BenchmarkResults, ours: str) -> None:
    """The whole table: accuracy, costs, failures, and how our method stands."""
    scores = results.scores
    for name, part in (("all sets", scores), ("untouched sets", scores[~scores["data_set"].isin(TUNED_ON)])):
        if part.empty:
            continue
        means = part.groupby(["data_set", "method", "n_genes"])["balanced_accuracy"].mean().unstack("data_set")
        table = means.mean(axis=1, skipna=False).unstack("n_genes")
        show(f"balanced accuracy, mean over judges, splits and {name} (only methods that did them all)", table.round(3))
    for data_set, part in scores.groupby("data_set"):
        table = part.pivot_table(index="method", columns="n_genes", values="balanced_accuracy")
        show(f"balanced accuracy on {data_set}", table.round(3))
    rest = [*_MEASURES[1:], "neighbour_overlap", "redundancy", "seconds", "peak_memory_mb"]
    show("at 50 genes, mean over sets", scores[scores["n_genes"] == 50].groupby("method")[rest].mean().round(3))
    stable = _stability(results.chosen).pivot_table(index="method", columns="n_genes", values="stability")
    show("stability, mean over sets", stable.round(3))
    show("not done", results.failures())
    if ours in set(scores["method"]) and scores["method"].nunique() > 1:
        pairs = paired_differences(scores, ours)
        show(f"{ours} less the others", pairs[pairs["data_set"] == _EVERY_SET].round(4))
        show(f"where {ours} stands", _verdicts(scores, ours).round(4))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of further .h5ad files")
    parser.add_argument("--label-keys", nargs="+", default=[], metavar="FILE=COLUMN[,COLUMN]")
    parser.add_argument("--sets", nargs="+", help="only these data sets")
    parser.add_argument("--methods", nargs="+", help=f"only these methods of: {', '.join(METHODS)}")
    parser.add_argument("--ours", default=next(iter(METHODS)), help="the method that the others are compared with")
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 25, 50, 100, 200])
    parser.add_argument("--judges", nargs="+", default=list(_JUDGES), help="more: a condition such as mlp (slow)")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time on this machine")
    parser.add_argument("--scheduler", help="address of a Dask scheduler: its workers do the splits")
    parser.add_argument("--time-limit", type=float, default=600.0, help="seconds a method may take on a split")
    parser.add_argument("--retry", nargs="+", default=["missing"], help="missing, failed, crashed, 'timed out'")
    parser.add_argument("--run-folder", type=Path, default=ROOT / "runs" / "panels")
    parser.add_argument("--no-run", action="store_true", help="only print and store what the run folder holds")
    parser.add_argument(
        "--write", action="store_true", help="write data/studies/panels/ also when not all was asked for"
    )
    return parser.parse_args()


@contextmanager
def workers(scheduler: str | None) -> Iterator[None]:
    """Hand joblib's tasks to the workers of a Dask scheduler, if there is one."""
    if scheduler is None:
        yield
        return
    import joblib
    from dask.distributed import Client

    with Client(scheduler), joblib.parallel_config(backend="dask"):
        yield


def run(arguments: argparse.Namespace, data_sets: list[_DataSet], methods: list[Peer]) -> BenchmarkResults:
    """Run what is not done yet."""
    return run_benchmark(
        data_sets,
        methods,
        folder=arguments.run_folder,
        sizes=arguments.sizes,
        n_splits=arguments.splits,
        judges=arguments.judges,
        time_limit=arguments.time_limit,
        n_jobs=None if arguments.scheduler else arguments.jobs,
        retry=arguments.retry,
    )


def main() -> None:
    """Run what is not done yet, print the tables, and store them when nothing was left out."""
    arguments = parsed()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("selectormlp.benchmark").setLevel(logging.INFO)
    every_set = SHIPPED + (sets_in(arguments.folder, arguments.label_keys) if arguments.folder else [])
    data_sets = picked({data_set.name: data_set for data_set in every_set}, arguments.sets, "data set")
    methods = picked(METHODS, arguments.methods, "method")
    with workers(arguments.scheduler):
        results = read_benchmark(arguments.run_folder) if arguments.no_run else run(arguments, data_sets, methods)
    print_tables(results, arguments.ours)
    if arguments.write or not (arguments.sets or arguments.methods):
        write_tables(results, data_sets, arguments)


if __name__ == "__main__":
    main()
