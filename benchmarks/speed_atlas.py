"""Parts of `speed.py` that work on files: from file to panel, and reading cells in random order."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pandas as pd

from selectormlp.classifiers import make_classifier
from selectormlp.data import prepare_cells
from selectormlp.peers import PEERS, LabelledCells, _peer_missing
from selectormlp.readers import load_cells
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_to_file
from selectormlp.sources import open_cells, read_blocks
from selectormlp.split import split_cells
from selectormlp.streaming import DiskMatrix
from selectormlp.training import _BatchLoader, _CodedCells

KEY = "cell_type"
SIZES = (2_000, 20_000, 150_000, 1_500_000)
LIMIT = int(os.environ.get("SELECTORMLP_SPEED_LIMIT", 3600))  # processor seconds that a way may take
FOLDER = Path(os.environ.get("SELECTORMLP_SPEED_FOLDER", Path(tempfile.gettempdir()) / "selectormlp_speed"))
ROWS = FOLDER / "atlas.csv"  # every way that was measured; a run goes on where the last one stopped
COLUMNS = ["cells", "what", "seconds", "processor_seconds", "peak_memory_mb", "genes"]

# ---------------------------------------------------------------------------------------------------- file to panel


def read_once(path: Path) -> int:
    """Read every value of the file once, block by block, and do nothing with it."""
    return sum(block.shape[0] for _, block in read_blocks(open_cells(path, label_key=KEY, columns=[]), raw=True))


def from_disk(path: Path) -> list[str]:
    """The default method on cells that stay on disk."""
    return select_genes(open_cells(path, label_key=KEY, columns=[]), KEY, 100).genes


def in_memory(path: Path) -> list[str]:
    """The default method on cells that are loaded."""
    return select_genes(load_cells(str(path)), KEY, 100).genes


def network(path: Path) -> list[str]:
    """The ranking of the L1 selector, robust protocol, on cells that stay on disk."""
    return select_genes(open_cells(path, label_key=KEY, columns=[]), KEY, 100, method="selector_l1").genes


def by_peer(name: str) -> Callable[[Path], list[str]]:
    """Another method on the training cells of the same split."""

    def choose(path: Path) -> list[str]:
        cells = prepare_cells(load_cells(str(path)), KEY, min_cells=7)
        X, y = split_cells(cells, KEY).labelled(cells, "train", KEY)
        return PEERS[name].choose(LabelledCells(X, y, cells.var_names.tolist()), 100, 0)

    return choose


WAYS: dict[str, Callable[[Path], Any]] = {
    "reading the file once": read_once,
    "select_genes, from disk": from_disk,
    "select_genes": in_memory,
    "selector_l1, on disk": network,
    **{name: by_peer(name) for name in ("random forest", "LassoNet", "stochastic gates", "PERSIST")},
}


def measured(way: str, path: Path, answer: Any) -> None:
    """Run one way in this process: seconds without imports, and the most memory that the process held.

    After LIMIT processor seconds the system ends the process: other programs on the machine cost a way nothing.
    """
    import anndata.io  # noqa: F401  (what the ways import when they are called is imported before the clock starts)
    import pytorch_lightning  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    start, processor = time.perf_counter(), time.process_time()
    result = WAYS[way](path)
    seconds = (time.perf_counter() - start, time.process_time() - processor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    answer.put((*seconds, peak, " ".join(result) if isinstance(result, list) else ""))


def alone(way: str, path: Path) -> tuple[float, float, float, str]:
    """The same in a fresh process; nan where it takes longer than LIMIT processor seconds or dies."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=measured, args=(way, path, answer))
    process.start()
    alive = True
    while alive:
        alive = process.is_alive()  # asked first: what ends after its answer is still heard
        with suppress(Empty):
            found = answer.get(timeout=1)
            process.join()
            return found
    return float("nan"), float("nan"), float("nan"), ""


def file_of(size: int) -> Path:
    """Simulated cells in a file, which is made once."""
    path = FOLDER / f"cells_{size}.h5ad"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        simulate_to_file(path, n_cells=size, n_genes=2000, n_types=40, seed=0)
    return path


def atlas_rows() -> pd.DataFrame:
    """What was measured so far."""
    return pd.read_csv(ROWS, keep_default_na=False, na_values="nan") if ROWS.exists() else pd.DataFrame(columns=COLUMNS)


def measure_way(way: str, size: int) -> None:
    """Measure one way on one size and keep its row; a slower method that failed on fewer cells is not tried."""
    rows = atlas_rows()
    same, tried = rows["what"] == way, rows["cells"].astype(int)
    if (same & (tried == size)).any():
        return
    hopeless = way in PEERS and (same & (tried < size) & rows["processor_seconds"].isna()).any()
    row = (float("nan"),) * 3 + ("",) if hopeless else alone(way, file_of(size))
    print(f"{size:>9,} cells, {way}: {row[1]:.1f} processor seconds, {row[2]:.0f} MiB", flush=True)
    pd.DataFrame([(size, way, *row)], columns=COLUMNS).to_csv(
        ROWS, mode="a", index=False, header=not ROWS.exists(), na_rep="nan"
    )


def measure_atlas(n_cells: int | None) -> pd.DataFrame:
    """(d) Seconds and memory from file to a panel of 100 genes, each way in a fresh process; nan: longer than LIMIT."""
    sizes = (n_cells,) if n_cells else SIZES
    missing = [name for name, peer in PEERS.items() if name in WAYS and _peer_missing(peer)]
    for size in sizes:
        file_of(size)
        for way in WAYS:
            if way not in missing:
                measure_way(way, size)
    rows = atlas_rows()
    rows = rows[rows["cells"].isin(sizes)]
    by_way = rows.set_index(["cells", "what"])
    once = by_way["processor_seconds"].xs("reading the file once", level="what")
    default = by_way["genes"].xs("select_genes", level="what").str.split().map(set)
    shared = [
        len(default[size] & set(genes.split())) if genes else np.nan
        for size, genes in zip(rows["cells"], rows["genes"], strict=True)
    ]
    ratio = rows["processor_seconds"] / rows["cells"].map(once)
    table = rows.drop(columns="genes").assign(times_reading_once=ratio, genes_shared_with_default=shared)
    table["what"] = pd.Categorical(table["what"], list(WAYS))
    return table.sort_values(["cells", "what"])


# ----------------------------------------------------------------------------------------------- reading at random


def batches_of_loader(x: Any, y: np.ndarray) -> Iterator[int]:
    """Batches of 256 cells by our loader."""
    cells = _CodedCells(x, y, np.ones(len(y), dtype=np.float32))
    for batch in _BatchLoader(cells, batch_size=256, shuffle=True):
        yield len(batch[0])


def batches_of_scdataset(path: Path) -> Iterator[int]:
    """The same by scDataset, blocks and fetches as large as ours."""
    from anndata import read_h5ad
    from scdataset import BlockShuffling, scDataset

    backed = read_h5ad(path, backed="r")
    given: dict[str, Any] = {"fetch_transform": lambda cells: cells.X, "batch_transform": lambda x: x.toarray()}
    for batch in scDataset(backed, BlockShuffling(block_size=64), batch_size=256, fetch_factor=32, **given):
        yield len(batch)


def annbatch_loader(path: Path) -> Any:
    """annbatch's loader, blocks and fetches as large as ours, on its own form of the cells, which it makes first."""
    import zarr
    from annbatch import DatasetCollection, Loader

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collection = DatasetCollection(str(path.with_suffix(".zarr"))).add_adatas([path])
    loader = Loader(chunk_size=64, preload_nchunks=128, batch_size=256, shuffle=True, to="torch")
    return loader.use_collection(collection)


def batches_of_annbatch(loader: Any) -> Iterator[int]:
    """Its batches, made dense."""
    for batch in loader:
        yield len(batch["X"].to_dense())


def batches_of_anndata(path: Path) -> Iterator[int]:
    """The same by cutting random cells out of backed AnnData."""
    from anndata import read_h5ad

    backed = read_h5ad(path, backed="r").X
    order = np.random.default_rng(0).permutation(backed.shape[0])
    for rows in np.split(order, range(256, len(order), 256)):
        yield len(backed[np.sort(rows)].toarray())


def speed_of(batches: Iterator[int], *, seconds: float = 4.0) -> float:
    """Cells per second over some seconds."""
    start, seen = time.perf_counter(), 0
    for size in batches:
        seen += size
        if time.perf_counter() - start > seconds:
            break
    return seen / (time.perf_counter() - start)


def training_speed(x: Any, y: np.ndarray, validation: tuple[Any, np.ndarray]) -> float:
    """Cells per second of a training on them, measuring between epochs included."""
    model = make_classifier("selector_l1", model_settings={"max_epochs": 2, "steps_per_epoch": 100})
    start = time.perf_counter()
    model.fit(x, y, validation=validation)
    return 200 * 256 / (time.perf_counter() - start)


def measure_reading(n_cells: int | None) -> pd.DataFrame:
    """(e) Cells per second read in random order, and trained on: from disk against in memory."""
    from selectormlp.streaming import write_matrix

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = simulate_to_file(folder / "cells.h5ad", n_cells=n_cells or 100_000, n_genes=2000, n_types=40, seed=0)
        opened = open_cells(path, label_key=KEY)
        split = split_cells(opened.obs, KEY, max_train=10**6, max_validation=200, max_test=200)
        train = write_matrix(opened, split.cells("train"), opened.genes, folder / "train.h5ad")
        inside = train[np.arange(len(train))]
        names = opened.obs.index[opened.obs.index.isin(split.cells("train"))]
        y = opened.obs.loc[names, KEY].to_numpy().astype(str)
        codes = np.unique(y, return_inverse=True)[1]
        held = np.arange(0, len(y), 20)
        validation = (inside[held], y[held])
        loader = annbatch_loader(train.path) if find_spec("annbatch") else None  # it needs Python 3.12
        ways: dict[str, Callable[[], float]] = {
            "in memory": lambda: speed_of(batches_of_loader(inside, codes)),
            "DiskMatrix": lambda: speed_of(batches_of_loader(train, codes)),
            "DiskMatrix, one cell a block": lambda: speed_of(
                batches_of_loader(DiskMatrix(train.path, block_size=1), codes)
            ),
            "scDataset": lambda: speed_of(batches_of_scdataset(train.path)),
            "annbatch": lambda: speed_of(batches_of_annbatch(loader)),
            "backed AnnData": lambda: speed_of(batches_of_anndata(train.path)),
            "training, in memory": lambda: training_speed(inside, y, validation),
            "training, DiskMatrix": lambda: training_speed(train, y, validation),
        }
        missing = [name for name in ("scDataset", "annbatch") if find_spec(name.lower()) is None]
        ways = {name: way for name, way in ways.items() if name not in missing}
        turns = [{name: way() for name, way in ways.items()} for _ in range(3)]
    table = pd.DataFrame(turns).median().rename("cells_per_second").rename_axis("what").reset_index()
    base = np.where(table["what"].str.startswith("training"), "training, in memory", "in memory")
    reference = table.set_index("what")["cells_per_second"]
    return table.assign(ratio=table["cells_per_second"] / reference[base].to_numpy(), cells=len(y))
