"""Fuzz every reader of files: damage small valid files, read them, and count what happens.

    python tests/stress/fuzz.py --cases 10000 [--kinds h5ad zarr] [--write]

A case changes one file: it is cut short, bits are flipped, bytes are written over, left out or doubled, or the file is
emptied or removed. Then the library reads it and looks at what it read. Allowed are a result that can be worked with,
and an InputError of one sentence. Everything else is a fault. Cases run in a process of their own, with a limit on time
and memory, so that a crash or a hang of a library below is counted too. The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ("read", "refused", "faults", "crashes", "hangs")
CASES_PER_WORKER = 500  # what leaks in the libraries below stays small
MEMORY = 2 * 2**30  # bytes of address space that a worker may take on top of what it has at the start
GENES = ["INS", "GCG", "SST", "PPY", "KRT19", "β-gene"]

# Valid files


def small_cells() -> Any:
    """Twelve cells x six genes: raw counts, two types, a donor."""
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    counts = np.random.default_rng(0).poisson(2.0, (12, len(GENES))).astype(np.float32)
    counts[:, 0] += 1
    types = pd.Categorical(["alpha"] * 6 + ["beta"] * 6)
    obs = pd.DataFrame({"cell_type": types, "donor": ["d1", "d2"] * 6}, index=[f"cell{i}" for i in range(12)])
    return AnnData(csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))


def make_h5ad(folder: Path, *, compression: str | None = None, dense: bool = False, name: str = "cells.h5ad") -> Path:
    """An .h5ad file, its values sparse or dense, packed or not."""
    cells = small_cells()
    cells.X = cells.X.toarray() if dense else cells.X
    cells.write_h5ad(folder / name, compression=compression)
    return folder / name


def make_h5ad_gz(folder: Path) -> Path:
    """An .h5ad.gz file."""
    return packed(make_h5ad(folder))


def packed(path: Path) -> Path:
    """A file, gzipped in its place."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return target


def make_zarr(folder: Path, name: str = "cells.zarr") -> Path:
    """A .zarr folder."""
    small_cells().write_zarr(folder / name)
    return folder / name


def make_10x_h5(folder: Path) -> Path:
    """A file as Cell Ranger 3 writes it."""
    import h5py

    cells, path = small_cells(), folder / "cells.h5"
    cells.var_names = [*GENES[:-1], "SOX9"]  # scanpy reads only ASCII names from such files
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        matrix = {"data": cells.X.data.astype("i4"), "indices": cells.X.indices, "indptr": cells.X.indptr}
        for key, value in matrix.items():
            group[key] = value
        group["shape"], group["barcodes"] = np.array(cells.shape[::-1]), as_bytes(cells.obs_names)
        features = group.create_group("features")
        columns = {"id": [f"ENSG{i}" for i in range(cells.n_vars)], "name": cells.var_names}
        same = {"feature_type": ["Gene Expression"] * cells.n_vars, "genome": ["GRCh38"] * cells.n_vars}
        for key, values in {**columns, **same}.items():
            features[key] = as_bytes(values)
    return path


def as_bytes(values: Any) -> np.ndarray:
    """Names as HDF5 text of a fixed length."""
    return np.array([str(value).encode() for value in values], dtype="S")


def make_10x_folder(folder: Path, *, gz: bool = False) -> Path:
    """A folder as Cell Ranger writes it."""
    import pandas as pd
    from scipy.io import mmwrite
    from scipy.sparse import coo_matrix

    cells, place = small_cells(), folder / "tenx"
    place.mkdir()
    mmwrite(place / "matrix.mtx", coo_matrix(cells.X.T.astype(np.int64)))
    ids = [f"ENSG{i}" for i in range(cells.n_vars)]
    genes = pd.DataFrame({"id": ids, "name": cells.var_names, "type": "Gene Expression"})
    genes.to_csv(place / "features.tsv", sep="\t", header=False, index=False)
    pd.Series(cells.obs_names).to_csv(place / "barcodes.tsv", header=False, index=False)
    for file in list(place.iterdir()) if gz else []:
        packed(file)
    return place


def make_table(folder: Path, *, ending: str = "csv", gz: bool = False) -> Path:
    """A csv or tsv file of expression."""
    path = folder / f"cells.{ending}"
    small_cells().to_df().to_csv(path, sep="\t" if ending == "tsv" else ",")
    return packed(path) if gz else path


def make_labels(folder: Path) -> Path:
    """A label file; the cells that it is for are made when it is read."""
    small_cells().obs.to_csv(folder / "labels.csv")
    return folder / "labels.csv"


def make_split(folder: Path) -> Path:
    """A split.csv."""
    from selectormlp.split import split_cells

    split_cells(small_cells(), "cell_type", min_cells=3).to_csv(folder / "split.csv")
    return folder / "split.csv"


def make_panel(folder: Path) -> Path:
    """A panel as csv."""
    import pandas as pd

    from selectormlp.panels import GenePanel

    table = pd.DataFrame({"gene": GENES, "importance": np.arange(6) / 7, "rank": np.arange(1, 7), "reason": "ranked"})
    GenePanel(table).to_csv(folder / "panel.csv")
    return folder / "panel.csv"


def make_gene_list(folder: Path) -> Path:
    """A gene on each line."""
    (folder / "panel.txt").write_text("\n".join(GENES) + "\n", encoding="utf-8")
    return folder / "panel.txt"


def make_study_config(folder: Path) -> Path:
    """The settings of a study as JSON."""
    from dataclasses import asdict

    from selectormlp.files import _write_json
    from selectormlp.study import _study_config

    _write_json(asdict(_study_config(cells="pancreas", label_key="cell_type")), folder / "config.json")
    return folder / "config.json"


def make_train_config(folder: Path) -> Path:
    """The original's settings of a training as JSON."""
    from selectormlp.data import data_folder

    return Path(shutil.copy(data_folder() / "example_workflow" / "train.json", folder / "train.json"))


def make_model(folder: Path, *, network: bool) -> Path:
    """The folder of a saved model."""
    from selectormlp.classifiers import LinearSVMClassifier, SelectorMLPClassifier
    from selectormlp.data import prepare_cells
    from selectormlp.saving import save_model

    cells = prepare_cells(small_cells(), "cell_type")
    settings = {"hidden_sizes": (4,), "max_epochs": 1, "steps_per_epoch": 1}
    model = SelectorMLPClassifier(**settings) if network else LinearSVMClassifier()
    y = cells.obs["cell_type"].to_numpy().astype(str)
    save_model(model.fit(cells.X, y, gene_names=cells.var_names.to_numpy()), folder / "model")
    return folder / "model"


def make_several(folder: Path) -> Path:
    """A folder with two files of cells."""
    make_h5ad(folder, name="one.h5ad")
    cells = small_cells()
    cells.obs_names = [f"other{i}" for i in range(cells.n_obs)]
    cells.write_zarr(folder / "two.zarr")
    return folder


# Reading them, and looking at what was read


def look_at(cells: Any, label_key: str | None = "cell_type") -> None:
    """Cells are well-formed, and the next steps work or refuse them."""
    from selectormlp.data import check_cells, normalise

    assert cells.X is not None and cells.X.shape == (len(cells.obs_names), len(cells.var_names))
    check_cells(cells, label_key)
    X = normalise(cells).X
    assert np.isfinite(X.data).all() and (X.data >= 0).all()


def read_cells(path: Path) -> None:
    """Read a file of cells with their labels."""
    from selectormlp.readers import read_cells

    look_at(read_cells(path, label_key="cell_type"))


def read_counts(path: Path) -> None:
    """Read a file of cells without labels."""
    from selectormlp.readers import read_cells

    look_at(read_cells(path), None)


def read_labels(path: Path) -> None:
    """Join a label file to a good table of cells."""
    from selectormlp.readers import attach_labels

    look_at(attach_labels(small_cells(), path, "cell_type"))


def read_several(folder: Path) -> None:
    """Read two files as one."""
    from selectormlp.readers import read_cells

    look_at(read_cells([folder / "one.h5ad", folder / "two.zarr"], label_key="cell_type"))


def read_on_disk(path: Path | list[Path]) -> None:
    """Open cells on disk and read them in blocks."""
    from selectormlp.data import _cell_labels
    from selectormlp.sources import _is_large, open_cells, read_blocks

    _is_large(path)
    cells = open_cells(path, label_key="cell_type")
    _cell_labels(cells.obs, "cell_type")
    assert cells.obs.index.is_unique and cells.genes.is_unique
    rows = 0
    for places, block in read_blocks(cells):
        assert block.shape == (len(places), len(cells.genes)) and np.isfinite(block.data).all()
        rows += len(places)
    assert rows == len(cells.obs)


def read_several_on_disk(folder: Path) -> None:
    """Open two files as one."""
    read_on_disk([folder / "one.h5ad", folder / "two.zarr"])


def read_disk_matrix(path: Path) -> None:
    """Read rows of a matrix on disk."""
    from selectormlp.streaming import DiskMatrix

    matrix = DiskMatrix(path, block_size=4)
    x = matrix[np.arange(len(matrix))[::3]]
    assert x.shape == (len(range(0, len(matrix), 3)), matrix.shape[1])
    x.sum(axis=0)


def read_split(path: Path) -> None:
    """Read a split and take its cells."""
    from selectormlp.split import _PARTS, read_split

    split, cells = read_split(path), small_cells()
    assert split.table["cell"].is_unique and split.table["part"].isin(_PARTS).all()
    split.counts()
    for part in _PARTS:
        split.subset(cells, part)


def read_panel(path: Path) -> None:
    """Read a panel."""
    from selectormlp.panels import read_panel

    panel = read_panel(path)
    assert len(panel) and len(set(panel.genes)) == len(panel) and all(isinstance(gene, str) for gene in panel.genes)


def read_study_config(path: Path) -> None:
    """Read the settings of a study."""
    from selectormlp.data import InputError
    from selectormlp.files import _read_json
    from selectormlp.study import _study_config

    if not isinstance(found := _read_json(path), dict):
        raise InputError("not settings; asked for by the caller of study_config")
    _study_config(**found)


def read_train_config(path: Path) -> None:
    """Read the settings of a training as the command line does."""
    from selectormlp import cli, original
    from selectormlp.data import InputError

    arguments = ["train", "--config", str(path)]
    parser = cli._make_parser(arguments)
    try:
        values = parser.parse_args(arguments)["train"]
        original._refuse_idle_settings(cli._build(original._TrainStep, values))
    except Exception as error:
        sentence = cli._error_sentence(error, parser)
        if "something unforeseen" in sentence:
            raise
        raise InputError(sentence) from error


def read_model(path: Path) -> None:
    """Load a model and let it predict."""
    from selectormlp.data import normalise
    from selectormlp.saving import align_genes, load_model

    model = load_model(path)
    cells = normalise(small_cells())
    predicted = model.predict(align_genes(cells, model.gene_names_, max_missing=1))
    assert len(predicted) == cells.n_obs and set(predicted) <= set(model.classes_)


def read_itself(path: Path) -> None:
    """No reader: fails in another way in each case, to show that the fuzz sees it."""
    match int(os.environ.get("FUZZ_CASE", "0")):
        case 1:
            raise KeyError("as a broken reader does")
        case 2:
            time.sleep(600)
        case 3:
            os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to make a good one (in a folder; returns what to read), and how to read it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], None]


ITSELF = "itself"
KINDS: dict[str, Kind] = {
    "h5ad": Kind(make_h5ad, read_cells),
    "h5ad, dense and packed": Kind(lambda folder: make_h5ad(folder, compression="gzip", dense=True), read_cells),
    "h5ad.gz": Kind(make_h5ad_gz, read_cells),
    "zarr": Kind(make_zarr, read_cells),
    "10x h5": Kind(make_10x_h5, read_counts),
    "10x folder": Kind(make_10x_folder, read_counts),
    "10x folder, gz": Kind(lambda folder: make_10x_folder(folder, gz=True), read_counts),
    "csv": Kind(make_table, read_counts),
    "tsv.gz": Kind(lambda folder: make_table(folder, ending="tsv", gz=True), read_counts),
    "labels": Kind(make_labels, read_labels),
    "several files": Kind(make_several, read_several),
    "h5ad on disk": Kind(make_h5ad, read_on_disk),
    "zarr on disk": Kind(make_zarr, read_on_disk),
    "several on disk": Kind(make_several, read_several_on_disk),
    "disk matrix": Kind(make_h5ad, read_disk_matrix),
    "split": Kind(make_split, read_split),
    "panel csv": Kind(make_panel, read_panel),
    "panel txt": Kind(make_gene_list, read_panel),
    "study config": Kind(make_study_config, read_study_config),
    "train config": Kind(make_train_config, read_train_config),
    "model, svm": Kind(lambda folder: make_model(folder, network=False), read_model),
    "model, network": Kind(lambda folder: make_model(folder, network=True), read_model),
    ITSELF: Kind(make_gene_list, read_itself),
}

# Damage


def damaged(content: bytes, rng: np.random.Generator) -> bytes | None:
    """A file's bytes after one kind of damage; None: the file is gone."""
    n = max(1, len(content))
    start, length = int(rng.integers(n)), int(rng.integers(1, 65))
    changed = bytearray(content)
    match int(rng.integers(12)):
        case 0 | 1 | 2:
            return content[:start]
        case 3 | 4 if content:
            changed[start] ^= 1 << int(rng.integers(8))
        case 5 | 6 if content:
            for place in rng.integers(n, size=int(rng.integers(1, 9))):
                changed[place] = int(rng.integers(256))
        case 7:
            changed[start : start + length] = rng.bytes(len(changed[start : start + length]))
        case 8:
            changed[start : start + length] = bytes([int(rng.choice([0, 255]))]) * len(changed[start : start + length])
        case 9:
            del changed[start : start + length]
        case 10:
            changed[start:start] = changed[start : start + length]
        case 11:
            return None if rng.integers(2) else b""
    return bytes(changed)


class Place:
    """A folder with the good files of a kind, one of which is damaged while `damage` is active."""

    def __init__(self, kind: str, folder: Path):
        self.name = kind
        self.kind = KINDS[kind]
        self.target = self.kind.make(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        self.files = {path: path.read_bytes() for path in paths}

    def try_case(self, seed: int, number: int) -> tuple[str, str]:
        """Damage one file, read, put the file back; returns the outcome and what was said."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), number])
        path = list(self.files)[int(rng.integers(len(self.files)))]
        content = damaged(self.files[path], rng)
        path.unlink()  # a new file, also for a library that still holds the old one
        if content is not None:
            path.write_bytes(content)
        os.environ["FUZZ_CASE"] = str(number)
        try:
            return outcome_of(lambda: self.kind.read(self.target))
        finally:
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[path])


def outcome_of(read: Callable[[], None]) -> tuple[str, str]:
    """What reading comes to: "read", "refused" with the sentence, or "faults" with the error."""
    from selectormlp.data import InputError

    try:
        read()
    except InputError as error:
        sentence = str(error)
        whole = "\n" not in sentence and len(sentence) < 1000
        return ("refused" if whole else "faults"), sentence
    except BaseException:
        return "faults", traceback.format_exc()
    return "read", ""


# Workers


def work(connection: Connection, memory: int, log: Path) -> None:
    """Try the cases that are asked for, one by one, within a limit on memory; a crash leaves its place in `log`."""
    import faulthandler
    import logging
    import resource

    tales = log.open("w")
    faulthandler.enable(tales, all_threads=False)
    faulthandler.register(signal.SIGUSR1, tales, all_threads=False)

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # HDF5 writes long tales to the error stream
    with tempfile.TemporaryDirectory() as folder:
        (kind, seed) = connection.recv()
        place = Place(kind, Path(folder))
        place.kind.read(place.target)  # the good files are read well
        used = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        while (number := connection.recv()) is not None:
            connection.send(place.try_case(seed, number))
    connection.close()


class Worker:
    """A process that tries cases of one kind."""

    def __init__(self, kind: str, seed: int, memory: int, log: Path):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["anndata", "scanpy", "h5py", "zarr", "torch", "selectormlp.study"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, memory, log), daemon=True)
        self.process.start()
        self.log = log
        theirs.close()
        self.connection.send((kind, seed))

    def ask(self, number: int, seconds: float) -> tuple[str, str]:
        """The outcome of a case; a worker that dies or says nothing for too long is a crash or a hang."""
        try:
            self.connection.send(number)
            if self.connection.poll(seconds):
                return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(5)
            return "crashes", f"exit code {self.process.exitcode} {self.where()}"
        os.kill(self.process.pid or 0, signal.SIGUSR1)
        time.sleep(1)
        return "hangs", f"nothing for {seconds} s {self.where()}"

    def where(self) -> str:
        """Where the process crashed or hangs: the innermost call, and the innermost of this library."""
        calls = re.findall(r'File "(.*?)", line (\d+) in (\w+)', self.log.read_text())
        ours = [call for call in calls if "selectormlp" in call[0]]
        return " < ".join(f"{Path(path).name}:{line} {name}" for path, line, name in [*calls[:1], *ours[:1]])

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def try_kind(kind: str, n_cases: int, *, seed: int = 0, first: int = 0, seconds: float = 20.0,
             memory: int = MEMORY) -> list[tuple[int, str, str]]:  # fmt: skip
    """Cases of one kind: number, outcome and what was said; never raises."""
    worker, found, alone, place = None, [], 0, tempfile.TemporaryDirectory()
    for number in range(first, first + n_cases):
        if worker is None or alone == CASES_PER_WORKER:
            if worker:
                worker.stop()
            worker, alone = Worker(kind, seed, memory, Path(place.name) / "log"), 0
        outcome, said = worker.ask(number, seconds + (60 if alone == 0 else 0))  # the first waits for the imports
        found.append((number, outcome, said))
        alone += 1
        if outcome in ("crashes", "hangs"):
            worker.stop()
            worker = None
    if worker:
        worker.stop()
    place.cleanup()
    return found


# The program


def main() -> int:
    """Try the cases, print the table, and write it if asked to."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="cases in all, shared by the kinds")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), metavar="KIND")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write data/studies/stress/fuzz.csv")
    options = parser.parse_args()
    options.kinds = options.kinds or [kind for kind in KINDS if kind != ITSELF]
    each, rows, start = -(-options.cases // len(options.kinds)), [], time.monotonic()
    for kind in options.kinds:
        found = try_kind(kind, each, seed=options.seed, first=options.first)
        counts = Counter(outcome for _, outcome, _ in found)
        rows.append({"kind": kind, "cases": len(found), **{name: counts[name] for name in OUTCOMES}})
        print(json.dumps(rows[-1]), f"{time.monotonic() - start:.0f} s", flush=True)
        shown: set[str] = set()
        for number, outcome, said in found:
            if outcome in OUTCOMES[2:] and (last := said.strip().split("\n")[-1][:60]) not in shown:
                shown.add(last)
                print(f"--- {kind}, case {number}: {outcome}\n{said}", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    total = {"kind": "all", **table.drop(columns="kind").sum().to_dict()}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    print(table.to_string(index=False))
    if options.write:
        from selectormlp.files import _write_table

        _write_table(table, ROOT / "data" / "studies" / "stress" / "fuzz.csv")
    return int(bool(table[list(OUTCOMES[2:])].to_numpy().any()))


if __name__ == "__main__":
    raise SystemExit(main())
