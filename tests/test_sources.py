"""Cells wherever they lie: one panel from memory, files, backed and lazy AnnData, and dask arrays on a cluster."""

import builtins
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from selectormlp.data import InputError, normalise, prepare_cells
from selectormlp.evaluation import compare_panels, score_panel
from selectormlp.identity import match_genes
from selectormlp.inspection import panel_recalls
from selectormlp.selection import describe_panel, extend_panel, remake_panel, select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.sources import (
    _is_lazy,
    _read_open,
    _summarise_genes,
    _summarise_open,
    open_cells,
    read_blocks,
    read_usable,
)
from selectormlp.study import run_study

KEY = "cell_type"
RULES = {"n_variable": 60, "min_markers": 1, "batch_key": "donor", "must_include": ["gene_003"]}

pytest.importorskip("dask")
pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def cells() -> AnnData:
    adata = simulate_cells(n_cells=1500, n_genes=150, n_types=5, seed=1)
    adata.obs["donor"] = np.where(np.arange(1500) % 3 == 0, "one", "two")
    adata.layers["doubled"] = adata.X * 2
    return adata


@pytest.fixture(scope="module")
def folder(cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sources")
    cells.write_h5ad(place / "cells.h5ad")
    cells.write_zarr(place / "cells.zarr")
    for number, (first, last) in enumerate([(0, 400), (400, 1500)], start=1):
        cells[first:last].copy().write_zarr(place / f"part{number}.zarr")
    by_gene = cells.copy()
    by_gene.X = by_gene.X.tocsc()
    by_gene.write_zarr(place / "by_gene.zarr")
    return place


def lazy(path: Path) -> AnnData:
    from anndata.experimental import read_lazy

    return read_lazy(path)


def in_dask(cells: AnnData, chunks: tuple[int, int], *, dense: bool = False) -> AnnData:
    import dask.array

    adata = cells.copy()
    adata.X = dask.array.from_array(adata.X.toarray() if dense else adata.X, chunks=chunks)
    return adata


SOURCES: dict[str, Callable[[Path, AnnData], Any]] = {
    "memory": lambda folder, cells: cells,
    "a view": lambda folder, cells: cells[:],
    "backed": lambda folder, cells: anndata.read_h5ad(folder / "cells.h5ad", backed="r"),
    "a view of a backed one": lambda folder, cells: anndata.read_h5ad(folder / "cells.h5ad", backed="r")[:],
    ".h5ad": lambda folder, cells: folder / "cells.h5ad",
    ".zarr": lambda folder, cells: str(folder / "cells.zarr"),
    "open": lambda folder, cells: open_cells(folder / "cells.zarr"),
    "lazy .h5ad": lambda folder, cells: lazy(folder / "cells.h5ad"),
    "lazy .zarr": lambda folder, cells: lazy(folder / "cells.zarr"),
    "dask, sparse chunks": lambda folder, cells: in_dask(cells, (333, -1)),
    "dask, dense chunks": lambda folder, cells: in_dask(cells, (700, -1), dense=True),
    "memory in two": lambda folder, cells: [cells[:400], cells[400:]],
    "two files": lambda folder, cells: [folder / "part1.zarr", folder / "part2.zarr"],
    "two lazy ones": lambda folder, cells: [lazy(folder / "part1.zarr"), lazy(folder / "part2.zarr")],
    "a lazy one and memory": lambda folder, cells: [lazy(folder / "part1.zarr"), cells[400:]],
}


@pytest.fixture(scope="module")
def expected(cells: AnnData) -> Any:
    return select_genes(cells, KEY, 12, **RULES)


@pytest.mark.parametrize("memory", [None, 0], ids=["fits", "does not fit"])
@pytest.mark.parametrize("name", SOURCES)
def test_one_panel_from_every_source(name: str, memory: int | None, folder: Path, cells: AnnData, expected) -> None:
    source = SOURCES[name](folder, cells)
    found = select_genes(source, KEY, 12, memory=memory, **RULES)
    assert found.genes == expected.genes
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-4)
    pd.testing.assert_frame_equal(found.split.table, expected.split.table)
    for said in ("rules", "split", "left_out", "values"):
        assert found.settings[said] == expected.settings[said], said
    assert found.score(source).per_type.equals(expected.score(cells).per_type)


def test_every_question_takes_every_source(folder: Path, cells: AnnData, expected, caplog) -> None:
    prepared = prepare_cells(cells, KEY)
    rules = {"label_key": KEY, "n_variable": 60}
    for source in (folder / "cells.h5ad", lazy(folder / "cells.zarr"), open_cells(folder / "cells.zarr")):
        assert extend_panel(expected.genes[:3], source, 4, **rules).genes == (
            extend_panel(expected.genes[:3], cells, 4, **rules).genes
        )
        assert describe_panel(expected, source).table.equals(describe_panel(expected, cells).table)
        scores = score_panel(expected, source, expected.split, KEY, condition="logistic_regression")
        mine = score_panel(expected, prepared, expected.split, KEY, condition="logistic_regression")
        assert scores.per_type.equals(mine.per_type)
        panels = {"one": expected, "two": expected.genes[:5]}
        compared, known = (
            compare_panels(panels, each, expected.split, KEY, condition="nearest_neighbours")
            for each in (source, prepared)
        )
        pd.testing.assert_frame_equal(compared, known)
        assert panel_recalls(expected, source).equals(panel_recalls(expected, cells))
        assert remake_panel(expected, source).genes == expected.genes
    for named in (folder / "cells.h5ad", [folder / "part1.zarr", folder / "part2.zarr"]):
        from_file = select_genes(named, KEY, 4)
        assert remake_panel(from_file).genes == from_file.genes
    changed = cells.copy()
    changed.X = changed.X * 3
    with pytest.raises(InputError, match=r"these are not the cells of the panel \(the values\)"):
        remake_panel(expected, changed)
    with caplog.at_level("INFO", "selectormlp"):  # nobody looks at values on the workers, and that is said
        remake_panel(expected, in_dask(changed, (500, -1)))
    assert "values in dask arrays were not compared" in caplog.text
    example = select_genes("pancreas", KEY, 4, min_cells=20)
    assert remake_panel(example).genes == example.genes


def test_a_study_takes_open_cells(folder: Path, cells: AnnData, tmp_path: Path) -> None:
    from selectormlp.study import StudyConfig

    config = StudyConfig(
        cells="mine", label_key=KEY, n_genes=40, conditions=("svm_l2",), ablations=(), panel_conditions=("svm_l2",)
    )
    studies = [
        run_study(config, tmp_path / name, progress=False, load=lambda config, each=each: each)
        for name, each in (("memory", cells), ("lazy", lazy(folder / "cells.zarr")), ("open", open_cells(cells)))
    ]
    scores = [study.scores() for study in studies]
    assert scores[0].equals(scores[1]) and scores[0].equals(scores[2])


def test_layers_and_raw_of_lazy_cells(folder: Path, cells: AnnData) -> None:
    expected = select_genes(cells, KEY, 6, layer="doubled")
    for source in (lazy(folder / "cells.zarr"), folder / "cells.zarr", anndata.read_h5ad(folder / "cells.h5ad", "r")):
        found = select_genes(source, KEY, 6, layer="doubled")
        assert found.genes == expected.genes and found.settings["values"]["place"] == "layers['doubled']"
    scaled = cells.copy()
    scaled.raw, scaled.X = cells.copy(), cells.X.toarray() - 1.0
    del scaled.layers["doubled"]
    scaled.write_zarr(folder / "scaled.zarr")
    assert select_genes(lazy(folder / "scaled.zarr"), KEY, 6).settings["values"]["place"] == "raw.X"


def test_chunks_of_some_genes_are_joined(folder: Path, cells: AnnData, expected) -> None:
    import zarr
    from anndata.experimental import read_elem_lazy

    by_gene = cells.copy()
    by_gene.X = read_elem_lazy(zarr.open(folder / "by_gene.zarr", mode="r")["X"], chunks=(1500, 40))
    for source in (by_gene, in_dask(cells, (300, 40), dense=True)):
        with pytest.warns(UserWarning, match="hold some genes of the cells") as said:
            found = select_genes(source, KEY, 12, memory=0, **RULES)
        assert found.genes == expected.genes and {warning.filename for warning in said} == {__file__}
    assert select_genes(lazy(folder / "by_gene.zarr"), KEY, 12, **RULES).genes == expected.genes  # one chunk


def test_sums_and_blocks_of_dask_are_those_of_memory(cells: AnnData) -> None:
    opened, prepared = open_cells(in_dask(cells, (123, -1))), prepare_cells(cells, KEY)
    expected, found = _summarise_genes(prepared, KEY), _summarise_open(opened, prepared.obs[KEY])
    for name in ("mean", "variance", "varying", "highest_mean", "most_detected"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-9)
    rows = np.array([3, 200, 201, 1499])
    read = list(read_blocks(opened, rows, genes=["gene_007", "gene_001"]))
    assert np.concatenate([places for places, _ in read]).tolist() == rows.tolist()
    values = np.vstack([block.toarray() for _, block in read])
    np.testing.assert_allclose(values, normalise(cells)[rows, ["gene_007", "gene_001"]].X.toarray(), rtol=1e-6)
    assert (cells.X[rows] != _read_open(opened, cells.obs_names[rows]).X).nnz == 0
    assert (cells.X != simulate_cells(n_cells=1500, n_genes=150, n_types=5, seed=1).X).nnz == 0  # left as they were


def test_what_is_lazy_is_known(folder: Path, cells: AnnData) -> None:
    lying = [lazy(folder / "cells.zarr"), in_dask(cells, (100, -1)), anndata.read_h5ad(folder / "cells.h5ad", "r")]
    assert all(map(_is_lazy, lying)) and not _is_lazy(cells) and not _is_lazy(AnnData(obs=cells.obs))
    assert match_genes(["gene_003"], lying[0])["how"].tolist() == ["name"]
    few = read_usable(lying[0], KEY, most=20)
    assert (few.obs[KEY].value_counts() == 20).all() and (few.X != cells[few.obs_names].X).nnz == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A dask cluster of two processes on this machine, to which dask sends its work."""
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**settings, host="127.0.0.1", silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("memory", [None, 0])
def test_two_processes_over_several_files_choose_the_same(cluster, folder: Path, expected, memory) -> None:
    source = [lazy(folder / "part1.zarr"), lazy(folder / "part2.zarr")]
    found = select_genes(source, KEY, 12, memory=memory, **RULES)
    assert found.genes == expected.genes
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-4)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_sentence(cluster, cells: AnnData, monkeypatch) -> None:
    import dask.array

    monkeypatch.setattr(cluster.cluster.scheduler, "allowed_failures", 0)  # not tried four times
    adata = cells.copy()
    adata.X = dask.array.from_array(cells.X.toarray(), chunks=(1000, -1)).map_blocks(_end, meta=np.empty((0, 0)))
    with pytest.raises(InputError, match="dask could not bring the values .*; look whether"):
        select_genes(adata, KEY, 5)
    assert len(cluster.scheduler_info()["workers"]) >= 0


def _end(block: np.ndarray) -> np.ndarray:
    import os

    os._exit(1)


def test_bad_sources_are_one_sentence(folder: Path, cells: AnnData, tmp_path: Path, monkeypatch) -> None:
    import dask.array

    shutil.copytree(folder / "cells.zarr", tmp_path / "gone.zarr")
    gone = lazy(tmp_path / "gone.zarr")
    opened = open_cells(gone)
    shutil.rmtree(tmp_path / "gone.zarr")
    for source in (opened, gone):
        with pytest.raises(
            InputError, match=r"dask could not bring|every value is 0|only zeros"
        ):  # zarr: what is not there is 0
            select_genes(source, KEY, 5)
    shutil.copytree(folder / "cells.zarr", tmp_path / "gone.zarr")
    opened = open_cells(tmp_path / "gone.zarr")
    shutil.rmtree(tmp_path / "gone.zarr")
    with pytest.raises(InputError, match=r"gone.zarr' was taken away"):
        select_genes(opened, KEY, 5)
    spoilt = cells.X.toarray()
    spoilt[1400, 7] = np.nan
    later = cells.copy()
    later.X = dask.array.from_array(spoilt, chunks=(500, -1))
    with pytest.raises(InputError, match="has the value nan"):
        select_genes(later, KEY, 5)
    unknown = cells.copy()
    unknown.X = in_dask(cells, (300, -1), dense=True).X
    unknown.X._chunks = ((np.nan,) * 5, (150,))
    with pytest.raises(InputError, match="chunks of unknown size"):
        open_cells(unknown)
    with pytest.raises(InputError, match="different kinds"):
        open_cells([cells, normalise(cells)])
    with pytest.raises(InputError, match="label_key 'kind' is not in"):
        select_genes(lazy(folder / "cells.zarr"), "kind", 5)
    with pytest.raises(InputError, match="layer has no effect on cells that are open"):
        select_genes(open_cells(cells), KEY, 5, layer="doubled")
    for wrong in (None, 3, {"a": 1}, pd.DataFrame({"a": [1]})):
        with pytest.raises(InputError, match="where an AnnData is needed"):
            select_genes(wrong, KEY, 5)
    for wrong in ([None], [cells, 3], [open_cells(cells)], [["a.h5ad"]]):
        for look in (open_cells, lambda given: select_genes(given, KEY, 5)):
            with pytest.raises(InputError, match="the cells are of type .*, where an AnnData is needed"):
                look(wrong)
    for look in (open_cells, lambda given: select_genes(given, KEY, 5)):
        with pytest.raises(InputError, match="no cells are given"):
            look([])
    with pytest.raises(InputError, match="does not exist"):
        select_genes(tmp_path / "no.h5ad", KEY, 5)

    def without_dask(name: str, *more: Any, usual=builtins.__import__) -> Any:
        if name == "dask" or name.startswith("dask."):
            raise ImportError("no dask")
        return usual(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_dask)
    with pytest.raises(InputError, match=r"pip install 'selectormlp\[dask\]"):
        open_cells(later)


def test_choosing_a_panel_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from selectormlp.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    line = ["select", "pancreas", "--label-key", "cell_type", "--n-genes", "3", "--page", "false", "--out", "p.csv"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *line], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "False"
