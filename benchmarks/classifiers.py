"""Every classifier on every data set, with the same cells and genes for each. One command prints the whole table.

    python benchmarks/classifiers.py                                 # the shipped sets: pancreas and pbmc68k
    python benchmarks/classifiers.py --folder cells/ --write         # and every .h5ad of a folder; stores the tables
    python benchmarks/classifiers.py --classifiers tabnet --folder cells/ --write      # adds the rows of one classifier

Genes (the 2,000 most variable of the training cells) and everything else that is learned come from training cells;
networks stop early by validation cells, and all are scored on test cells. Each fit has a process of its own with one
thread, and is stopped when it has used its processor time. A run that was stopped goes on where it was
(`--run-folder`); classifiers from packages that are not installed are listed with the reason (scANVI:
the extra `scanvi`). `--write` puts new rows into data/studies/classifiers/, which chapter 36 shows,
and keeps the others.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy: a thread per process
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from panels import SHIPPED, describe, installed, picked, sets_in, show  # noqa: E402  (the benchmark beside this one)
from scipy import sparse  # noqa: E402

from selectormlp.benchmark import _DataSet, _prepare_split, _PreparedSplit  # noqa: E402
from selectormlp.comparison import _COMPARED, _MEASURED, _against, _compared_classifier, _measure_classifier  # noqa: E402
from selectormlp.data import InputError, prepare_cells  # noqa: E402
from selectormlp.files import _read_json, _write_json  # noqa: E402
from selectormlp.intervals import _EVERY_SET  # noqa: E402
from selectormlp.signatures import _pip_install  # noqa: E402
from selectormlp.split import split_cells  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "data" / "studies" / "classifiers"
LABEL_KEYS = {  # of the public sets in the stored tables
    "cbmc_citeseq": "cell_type,label",
    "human_kidney": "label",
    "zeisel": "level1class,level2class",
}
KEY = ["data_set", "split", "classifier"]


class ScanviClassifier:
    """scANVI (Xu et al. 2021, doi:10.15252/msb.20209620) behind the face of our classifiers; X holds raw counts.

    Settings of the scvi-tools tutorial on integrating an atlas of the lung: two layers, 30 latent dimensions, negative
    binomial counts, 20 epochs of scANVI with 100 cells per type after scVI. scVI has the package's number of epochs,
    and stops early by the validation cells, as our networks do.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _cells(self, X: Any, labels: Sequence[str]) -> Any:
        """Counts and labels as an AnnData."""
        from anndata import AnnData

        obs = pd.DataFrame({"type": pd.Categorical(labels)}, index=[f"cell{i}" for i in range(X.shape[0])])
        return AnnData(sparse.csr_matrix(X, dtype=np.float32), obs=obs)

    def fit(self, X: Any, y: np.ndarray, *, validation: tuple[Any, np.ndarray], gene_names: Any = None) -> Any:
        """Train scVI, then scANVI; genes have no names here."""
        import scvi

        scvi.settings.seed, scvi.settings.verbosity = self.seed, logging.ERROR
        cells = self._cells(sparse.vstack([X, validation[0]]), [*y, *validation[1]])
        places = np.split(np.arange(cells.n_obs), [X.shape[0]])
        common = {
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "datasplitter_kwargs": {"external_indexing": places},
        }
        scvi.model.SCVI.setup_anndata(cells)
        first = scvi.model.SCVI(cells, n_layers=2, n_latent=30, gene_likelihood="nb")
        first.train(early_stopping=True, **common)
        self.model_ = scvi.model.SCANVI.from_scvi_model(first, unlabeled_category="(unknown)", labels_key="type")
        self.model_.train(max_epochs=20, n_samples_per_label=100, **common)
        self.network_ = self.model_.module
        return self

    def _shares(self, X: Any) -> pd.DataFrame:
        """Probabilities, cells x types."""
        return self.model_.predict(self._cells(X, ["(unknown)"] * X.shape[0]), soft=True)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the types, cells x types."""
        return self._shares(X).to_numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable type of each cell."""
        return self._shares(X).idxmax(axis=1).to_numpy()


def counts_of(data_set: _DataSet, prepared: _PreparedSplit) -> _PreparedSplit:
    """The same split with raw counts in place of log-normalised values."""
    if prepared.train.counts is None:
        raise InputError(f"scANVI needs raw counts, and {data_set.name!r} has none; leave it out there")
    raw, key = data_set.load(), data_set.label_key
    least = data_set.least_cells(raw.n_obs)
    parts = split_cells(prepare_cells(raw, key, min_cells=least), key, min_cells=least, seed=prepared.split)
    genes = prepared.train.genes
    held = {part: sparse.csr_matrix(raw[parts.cells(part), genes].X) for part in ("validation", "test")}
    assert prepared.train.validation is not None
    validation = (held["validation"], prepared.train.validation[1])
    train = replace(prepared.train, X=prepared.train.counts, validation=validation)
    return replace(prepared, train=train, test=(held["test"], prepared.test[1]))


def made(name: str, seed: int) -> Any:
    """An unfitted classifier; InputError if there is none of this name here."""
    if name != "scanvi":
        return _compared_classifier(name, seed=seed)
    if find_spec("scvi") is None:
        raise InputError(f"scvi-tools is not installed; {_pip_install('scanvi')}")
    return ScanviClassifier(seed)


def load_packages(name: str) -> None:
    """Import what a fit needs, so that it is not counted as its time."""
    import pytorch_lightning  # noqa: F401
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.svm  # noqa: F401
    import torch

    import selectormlp.training  # noqa: F401

    torch.set_num_threads(1)
    if name == "scanvi":
        with suppress(ImportError):
            import scvi  # noqa: F401


def fit_and_score(name: str, data_set: _DataSet, prepared: _PreparedSplit, record: dict[str, Any], path: Path) -> None:
    """In a process of its own: fit one classifier, score it, and write down what came of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    load_packages(name)
    try:
        model = made(name, prepared.split)
        cells = counts_of(data_set, prepared) if name == "scanvi" else prepared
        record = {**record, "status": "done", **_measure_classifier(model, cells)}
    except Exception as error:  # whatever a package raises is its answer
        text = " ".join(str(error).split())
        record = {**record, "status": "failed", "reason": f"{type(error).__name__}: {text}"[:200]}
    _write_json({key: None if value != value else value for key, value in record.items()}, path)


def processor_seconds(process_id: int) -> float:
    """What a process has used so far; 0 when it is gone."""
    with suppress(psutil.Error):
        used = psutil.Process(process_id).cpu_times()
        return float(used.user + used.system)
    return 0.0


def run_one(name: str, data_set: _DataSet, prepared: _PreparedSplit, path: Path, time_limit: float) -> dict[str, Any]:
    """Fit and score one classifier in a process of its own; its record, also when it fails, hangs or crashes."""
    record = {"data_set": data_set.name, "split": prepared.split, "classifier": name, "status": "", "reason": ""}
    try:
        made(name, prepared.split)
    except InputError as error:
        record |= {"status": "missing", "reason": str(error)}
        _write_json(record, path)
        return record
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    process = context.Process(target=fit_and_score, args=(name, data_set, prepared, record, path))
    path.unlink(missing_ok=True)
    process.start()
    while process.is_alive():
        process.join(0.2)
        if process.is_alive() and processor_seconds(process.pid or 0) > time_limit:
            process.kill()
            process.join()
            record |= {"status": "timed out", "reason": f"more than the limit of {time_limit:g} processor seconds"}
    if not path.exists():
        record["status"] = record["status"] or "crashed"
        record["reason"] = record["reason"] or f"its process ended with the exit code {process.exitcode}"
        _write_json(record, path)
    return _read_json(path)


def record_path(folder: Path, data_set: str, split: int, name: str) -> Path:
    """Where a result is kept."""
    return folder / re.sub(r"[^a-z0-9]+", "-", data_set.lower()) / str(split) / f"{name}.json"


def is_due(path: Path, retry: Sequence[str]) -> bool:
    """Whether a result is not there yet, or is to be tried again."""
    return not path.exists() or _read_json(path)["status"] in retry


def run(data_sets: list[_DataSet], names: list[str], arguments: argparse.Namespace) -> None:
    """Do what is not done yet, one fit after the other."""
    for data_set in data_sets:
        for split in range(arguments.splits):
            paths = {name: record_path(arguments.run_folder, data_set.name, split, name) for name in names}
            due = {name: path for name, path in paths.items() if is_due(path, arguments.retry)}
            if not due:
                continue
            prepared = _prepare_split(data_set, split)
            for name, path in due.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                record = run_one(name, data_set, prepared, path, arguments.time_limit)
                how = f" in {record['seconds']:.1f} s" if record["status"] == "done" else f": {record['reason']}"
                print(f"{data_set.name}, split {split}, {name}: {record['status']}{how}", file=sys.stderr, flush=True)


def collected(folder: Path) -> pd.DataFrame:
    """Every result of a run folder, a row each."""
    rows = [_read_json(path) for path in sorted(folder.glob("*/*/*.json"))]
    return pd.DataFrame(rows, columns=[*KEY, "status", *_MEASURED, "reason"])


def merged(stored: pd.DataFrame, new: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Both tables; where they have a row of the same key, the new one. Order: that of the key."""
    both = pd.concat([table for table in (stored, new) if len(table)], ignore_index=True)
    return both.drop_duplicates(key, keep="last").sort_values(key, kind="stable").reset_index(drop=True)


def update(path: Path, new: pd.DataFrame, key: list[str]) -> None:
    """Put new rows into a stored table; four significant digits."""
    stored = pd.read_csv(path) if path.exists() else new.iloc[:0]
    path.parent.mkdir(parents=True, exist_ok=True)
    merged(stored, new, key).to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def write_tables(results: pd.DataFrame, data_sets: list[_DataSet], arguments: argparse.Namespace) -> None:
    """Add what a run found to the tables that are committed."""
    update(TABLES / "scores.csv", results, KEY)
    update(TABLES / "data_sets.csv", pd.DataFrame([describe(data_set) for data_set in data_sets]), ["data_set"])
    packages = ("selectormlp", "scikit-learn", "torch", "pytorch-lightning", "pytorch-tabnet", "scvi-tools")
    about: dict[str, Any] = {
        "command": "python benchmarks/classifiers.py --folder FOLDER --write",
        "splits": arguments.splits,
        "time_limit_processor_seconds": arguments.time_limit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used, one thread for each fit",
        "python": platform.python_version(),
    }
    path = TABLES / "about.json"
    known = _read_json(path)["packages"] if path.exists() else {}
    found = {name: installed(name) for name in packages}
    about["packages"] = {name: known.get(name, one) if one == "not installed" else one for name, one in found.items()}
    _write_json(about, path)


def print_tables(results: pd.DataFrame, ours: str) -> None:
    """Means over splits, one table for each measure; costs; what is paired with ours; what was not done."""
    done = results[results["status"] == "done"]
    for measure in _MEASURED[:4]:
        table = done.pivot_table(index="classifier", columns="data_set", values=measure, sort=False)
        show(f"{measure.replace('_', ' ')}, mean over splits", table.round(3))
    costs = done.groupby(["classifier", "data_set"], sort=False)[["seconds", "parameters"]].median()
    show("processor seconds of fitting and parameters, medians over splits", costs.unstack("data_set").round(2))
    if ours in set(done["classifier"]) and done["classifier"].nunique() > 1:
        pairs = _against(done, ours=ours)
        show(f"mean per-class accuracy, less that of {ours}", pairs[pairs["data_set"] == _EVERY_SET].round(4))
    show("not done", results.loc[results["status"] != "done", [*KEY, "status", "reason"]])


def parsed(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of further .h5ad files")
    parser.add_argument("--label-keys", nargs="+", metavar="FILE=COLUMN[,COLUMN]", help="default: those of known files")
    parser.add_argument("--sets", nargs="+", help="only these data sets")
    parser.add_argument("--classifiers", nargs="+", help=f"only these of: {', '.join(_COMPARED)}")
    parser.add_argument("--ours", default="selector_l1", help="the classifier that the others are compared with")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--time-limit", type=float, default=1800.0, help="processor seconds for one fit")
    parser.add_argument("--retry", nargs="+", default=["missing"], help="missing, failed, crashed, 'timed out'")
    parser.add_argument("--run-folder", type=Path, default=ROOT / "runs" / "classifiers")
    parser.add_argument("--no-run", action="store_true", help="only print and store what the run folder holds")
    parser.add_argument("--write", action="store_true", help="add the rows to data/studies/classifiers/")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Run what is not done yet, print the tables, and add them to the stored ones if wanted."""
    arguments = parsed(line)
    data_sets = [data_set for data_set in SHIPPED if data_set.name != "simulated"]
    if arguments.folder:
        known = [f"{name}={keys}" for name, keys in LABEL_KEYS.items() if (arguments.folder / f"{name}.h5ad").exists()]
        data_sets += sets_in(arguments.folder, arguments.label_keys or known)
    data_sets = picked({data_set.name: data_set for data_set in data_sets}, arguments.sets, "data set")
    names = picked({name: name for name in _COMPARED}, arguments.classifiers, "classifier")
    if not arguments.no_run:
        run(data_sets, names, arguments)
    results = collected(arguments.run_folder)
    print_tables(results, arguments.ours)
    if arguments.write:
        write_tables(results, data_sets, arguments)


if __name__ == "__main__":
    main()
