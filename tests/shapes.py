"""Shapes of files that people really have, made small: what is read of each, and what is said.

`tests/test_shapes.py` reads every one in memory and from disk, and compares what was taken with the table
`data/faults/file_shapes.csv`, which the book shows. After a change: python tests/shapes.py --write
"""
# ruff: noqa: E501 (a shape is a line)

from __future__ import annotations

import argparse
import gzip
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import write_elem
from scipy import sparse
from scipy.io import mmwrite

from selectormlp import data, files, readers
from selectormlp.sources import open_cells, read_blocks

TABLE = Path(__file__).resolve().parent.parent / "data" / "faults" / "file_shapes.csv"
N_CELLS, N_GENES, N_VARIABLE = 120, 60, 24
TYPES = ("alpha", "beta", "delta")
SOURCES = {  # where a shape is described or complained of
    "10x ATAC": "https://www.10xgenomics.com/support/software/cell-ranger-arc/latest/analysis/outputs/outputs-h5-matrices",
    "10x Genomics": "https://www.10xgenomics.com/support/software/cell-ranger/latest/analysis/outputs/cr-outputs-h5-matrices",
    "anndata": "https://anndata.readthedocs.io/en/stable/fileformat-prose.html",
    "anndata 0.6": "https://anndata.readthedocs.io/en/stable/release-notes/index.html",
    "anndata 0.7": "https://anndata.readthedocs.io/en/stable/release-notes/index.html",
    "anndata 0.11": "https://anndata.readthedocs.io/en/stable/release-notes/index.html",
    "anndata 0.12": "https://anndata.readthedocs.io/en/stable/release-notes/index.html",
    "BD Rhapsody": "https://bd-rhapsody-bioinfo-docs.genomics.bd.com/outputs/outputs_datatables.html",
    "CELLxGENE": "https://github.com/chanzuckerberg/single-cell-curation/blob/main/schema/5.0.0/schema.md",
    "downloads": "https://github.com/git-lfs/git-lfs/issues/4830",
    "Excel": "https://journals.plos.org/plosone/article?id=10.1371/journal.pone.0185207",
    "Excel in Europe": "https://github.com/tidyverse/readr/pull/749",
    "GENCODE": "https://www.gencodegenes.org/pages/data_format.html",
    "GEO": "https://www.ncbi.nlm.nih.gov/geo/info/seq.html",
    "kallisto": "https://pachterlab.github.io/kallistobustools/kb_usage/kb_count",
    "kallisto | bustools": "https://pachterlab.github.io/kallistobustools/kb_usage/kb_count",
    "loompy": "https://linnarssonlab.org/loompy/format/index.html",
    "muon": "https://bioconductor.org/packages/release/bioc/vignettes/MuData/inst/doc/Getting-Started.html",
    "Parse Biosciences": "https://support.parsebiosciences.com/hc/en-us/articles/360052794312-Scanpy-Tutorial-65k-PBMCs",
    "scanpy": "https://github.com/scverse/scanpy/issues/3756",
    "scanpy tutorial": "https://scanpy.readthedocs.io/en/stable/tutorials/basics/clustering-2017.html",
    "scanpy.pp.scale": "https://scanpy.readthedocs.io/en/stable/generated/scanpy.pp.scale.html",
    "scVelo": "https://rdrr.io/cran/CytoSimplex/man/readVelocytoLoom.html",
    "scvi-tools": "https://docs.scvi-tools.org/en/latest/tutorials/notebooks/quick_start/data_loading.html",
    "Seurat": "https://github.com/satijalab/seurat/issues/427",
    "SeuratDisk": "https://github.com/mojaveazure/seurat-disk/issues/123",
    "SoupX, CellBender": "https://github.com/constantAmateur/SoupX",
    "spatialdata": "https://spatialdata.scverse.org/en/stable/design_doc.html",
    "STARsolo": "https://github.com/alexdobin/STAR/blob/master/docs/STARsolo.md",
    "subread": "https://subread.sourceforge.net/featureCounts.html",
    "Xenium": "https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-understanding-outputs",
}
SYMBOLS = [f"SYM{i}" for i in range(N_GENES)]
IDS = [f"ENSG{i:011d}" for i in range(N_GENES)]


@dataclass(frozen=True)
class Shape:
    """A kind of file: its name, where it is seen, how it is made, and what is right of it."""

    name: str
    source: str
    make: Callable[[Path], Path | list[Path]]
    place: str = "X"
    n_genes: int = N_GENES
    first: str = "SYM0"
    refused: str = ""
    options: dict[str, Any] = field(default_factory=dict)


SHAPES: list[Shape] = []


def counts(seed: int = 0) -> np.ndarray:
    """Raw counts of three types, cells of different depth."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(0, 1, N_GENES) * np.where(
        np.arange(N_GENES)[None] % 3 == np.arange(N_CELLS)[:, None] % 3, 4, 1
    )
    return rng.poisson(level * rng.lognormal(0.8, 0.4, (N_CELLS, 1))).astype(np.float32)


def obs() -> pd.DataFrame:
    """Labels and donors."""
    return pd.DataFrame(
        {"cell_type": np.array(TYPES)[np.arange(N_CELLS) % 3], "donor": "d1"},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )


def cells(X: Any = None, names: list[str] | None = None, **more: Any) -> AnnData:
    """Cells with some values."""
    X = sparse.csr_matrix(counts()) if X is None else X
    names = SYMBOLS[: X.shape[1]] if names is None else names
    return AnnData(X, obs=obs(), var=pd.DataFrame(more, index=names))


def logged(X: np.ndarray | None = None, target: float = 1e4) -> np.ndarray:
    """Log-normalised values."""
    X = counts() if X is None else X
    return np.log1p(X / X.sum(axis=1, keepdims=True) * target).astype(np.float32)


def scaled(centre: bool = True) -> np.ndarray:
    """Scaled values of the variable genes, as scanpy makes them."""
    X = logged()[:, :N_VARIABLE]
    return np.minimum((X - X.mean(axis=0) * centre) / X.std(axis=0, ddof=1), 10).astype(np.float32)


def shape(name: str, source: str, **right: Any) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Add a shape that a function makes in a folder."""

    def add(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        SHAPES.append(Shape(name, source, make, **right))
        return make

    return add


def of(name: str, source: str, make: Callable[[], AnnData], *, ending: str = "h5ad", **right: Any) -> None:
    """Add a shape that is an AnnData written to a file."""

    def write(folder: Path) -> Path:
        path = folder / f"cells.{ending}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make().write_zarr(path) if ending == "zarr" else make().write_h5ad(path)
        return path

    SHAPES.append(Shape(name, source, write, **right))


def with_raw(X: Any, raw: Any, **raw_columns: Any) -> AnnData:
    """Variable genes in X, all genes in raw."""
    found = cells(X)
    found.raw = cells(raw, **raw_columns)
    return found


def with_layer(X: Any, **layers: Any) -> AnnData:
    """Cells with layers."""
    found = AnnData(X, obs=obs(), var=pd.DataFrame(index=SYMBOLS), shape=None if X is not None else (N_CELLS, N_GENES))
    for name, values in layers.items():
        found.layers[name] = values
    return found


def by_id(**columns: Any) -> AnnData:
    """Cells whose genes are named by ids, symbols in a column."""
    return cells(names=IDS, **columns)


C = sparse.csr_matrix
SCANPY, CELLXGENE, TENX, SEURAT, GEO = "scanpy tutorial", "CELLxGENE", "10x Genomics", "Seurat", "GEO"

# Which matrix
of("counts in X", TENX, cells)
of("counts in X, dense", "anndata", lambda: cells(counts()))
of("counts in X, gene by gene", CELLXGENE, lambda: cells(sparse.csc_matrix(counts())))
of("whole numbers as int32", TENX, lambda: cells(C(counts().astype(np.int32))))
of("scaled variable genes, raw logged", SCANPY, lambda: with_raw(scaled(), C(logged())), place="raw.X")
of("scaled variable genes, raw counts", "scanpy", lambda: with_raw(scaled(), C(counts())), place="raw.X")
of(
    "scaled without centring, raw counts",
    "scanpy.pp.scale",
    lambda: with_raw(scaled(False), C(counts())),
    place="raw.X",
)
of(
    "logged variable genes, raw logged",
    "scanpy",
    lambda: with_raw(C(logged()[:, :N_VARIABLE]), C(logged())),
    place="raw.X",
)
of("logged X, raw counts", CELLXGENE, lambda: with_raw(C(logged()), C(counts())), place="raw.X")
of(
    "logged X, counts in a layer",
    "scvi-tools",
    lambda: with_layer(C(logged()), counts=C(counts())),
    place="layers['counts']",
)
of("no X, counts in a layer", "anndata", lambda: with_layer(None, counts=C(counts())), place="layers['counts']")
of(
    "X all zero, counts in a layer",
    "SeuratDisk",
    lambda: with_layer(C((N_CELLS, N_GENES), dtype=np.float32), counts=C(counts())),
    place="layers['counts']",
)
of(
    "logged X, only parts of the counts in layers",
    "scVelo",
    lambda: with_layer(C(logged()), unspliced=C(counts() // 2), ambiguous=C(counts() // 3)),
)
of(
    "fractional counts",
    "SoupX, CellBender",
    lambda: cells(C(counts() * np.random.default_rng(1).uniform(0.75, 1, (N_CELLS, N_GENES)).astype(np.float32))),
)
of("counts divided by a constant", GEO, lambda: cells(C(counts() * 0.37)))
of("counts per ten thousand, not logged", "scanpy", lambda: cells(C(np.expm1(logged()))))
of("log2 of counts per million", GEO, lambda: cells(C(np.log2(1 + np.expm1(logged(target=1e6))))))
of("logged variable genes alone", GEO, lambda: cells(C(logged()[:, :40])), n_genes=40)
of("log(1 + counts), depth not removed", GEO, lambda: cells(C(np.log1p(counts()))))
of("16 bit values, dense", "anndata", lambda: cells(counts().astype(np.float16)))
of("scaled values alone", GEO, lambda: cells(scaled()), refused="only scaled values (X: scaled, 24 genes)")
of("scaled values, raw numbered", "SeuratDisk", lambda: numbered(C(counts()), features=SYMBOLS), place="raw.X")
of("scaled values, raw numbered as X has genes", "SeuratDisk", lambda: numbered(C(counts()), every=True), place="raw.X")
of(
    "layer by name",
    "scvi-tools",
    lambda: with_layer(C(counts()), other=C(counts(1))),
    place="layers['other']",
    options={"layer": "other"},
)
of(
    "raw by name",
    "scanpy",
    lambda: with_raw(C(counts()[:, :N_VARIABLE]), C(logged())),
    place="raw.X",
    options={"use_raw": True},
)
of(
    "X by name",
    "scanpy",
    lambda: with_raw(C(logged()[:, :N_VARIABLE]), C(logged())),
    n_genes=N_VARIABLE,
    options={"layer": "X"},
)


def numbered(raw: Any, *, every: bool = False, **columns: Any) -> AnnData:
    """Scaled X, and a raw whose genes are numbers."""
    X = scaled() if not every else np.hstack([scaled(), -scaled(), scaled()])[:, :N_GENES]
    found = cells(X)
    found.raw = AnnData(raw, obs=obs(), var=pd.DataFrame(columns, index=[str(i) for i in range(N_GENES)]))
    return found


# Which names
of("ids, symbols in feature_name", CELLXGENE, lambda: by_id(feature_name=SYMBOLS))
of("ids, symbols in gene_symbols", "scanpy", lambda: by_id(gene_symbols=SYMBOLS))
of("ids, symbols in gene_name", "kallisto", lambda: by_id(gene_name=SYMBOLS))
of(
    "ids with versions, symbols in Symbol",
    "GENCODE",
    lambda: cells(names=[f"{name}.4" for name in IDS], Symbol=SYMBOLS),
)
of("symbols, ids in gene_ids", TENX, lambda: cells(gene_ids=IDS))
of(
    "ids that share symbols",
    CELLXGENE,
    lambda: by_id(feature_name=["SYM1", *SYMBOLS[1:]]),
    first="SYM1_ENSG00000000000",
)
of("ids without symbols", GEO, lambda: cells(names=IDS), first=IDS[0])
of(
    "numbers, symbols in a column",
    "SeuratDisk",
    lambda: cells(names=[str(i) for i in range(N_GENES)], features=SYMBOLS),
)
of(
    "names by column",
    GEO,
    lambda: cells(names=[f"x{i}" for i in range(N_GENES)], best=SYMBOLS),
    options={"gene_names": "best"},
)
of("names twice, numbered", GEO, lambda: cells(names=["SYM0", "SYM0", *SYMBOLS[2:]]), options={"make_unique": True})

# Which features
KINDS = ["Gene Expression"] * 50 + ["Antibody Capture"] * 10
of("genes and antibodies", TENX, lambda: cells(feature_types=KINDS), n_genes=50)
of("genes and peaks, by modality", "muon", lambda: cells(modality=["rna"] * 50 + ["atac"] * 10), n_genes=50)
of(
    "genes and guides, zarr",
    TENX,
    lambda: cells(feature_types=["Gene Expression"] * 50 + ["CRISPR Guide Capture"] * 10),
    ending="zarr",
    n_genes=50,
)
of(
    "genes and control probes by name",
    "Xenium",
    lambda: cells(names=[*SYMBOLS[:50], *(f"NegControlProbe_{i:05d}" for i in range(10))]),
    n_genes=50,
)
of("peaks alone", "10x ATAC", lambda: cells(feature_types=["Peaks"] * N_GENES), refused="is a gene (Peaks 60)")

# Layouts
of("zarr", "anndata", cells, ending="zarr")
of("AnnData named .h5", GEO, cells, ending="h5")
of("missing labels as categories", "anndata", lambda: missing())


def missing() -> AnnData:
    """Some cells without a label."""
    found = cells()
    found.obs["cell_type"] = pd.Categorical(found.obs["cell_type"].where(np.arange(N_CELLS) > 3))
    return found


@shape("nullable and string arrays", "anndata 0.11")
def _nullable(folder: Path) -> Path:
    found = cells()
    found.obs["cell_type"] = found.obs["cell_type"].astype("string")
    found.obs["n"] = pd.array([1, None] * (N_CELLS // 2), dtype="Int64")
    with anndata.settings.override(allow_write_nullable_strings=True):
        found.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


@shape("16 bit values, sparse", "anndata")
def _half(folder: Path) -> Path:
    cells().write_h5ad(path := folder / "cells.h5ad")
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        file["X"]["data"] = values.astype(np.float16)
    return path


@shape("h5ad.gz", GEO)
def _packed(folder: Path) -> Path:
    cells().write_h5ad(folder / "cells.h5ad")
    return gz(folder / "cells.h5ad")


@shape("X of encoding null, counts in a layer", "anndata 0.11", place="layers['counts']")
def _null(folder: Path) -> Path:
    with_layer(C((N_CELLS, N_GENES), dtype=np.float32), counts=C(counts())).write_h5ad(path := folder / "cells.h5ad")
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.Empty("f")
        file["X"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
    return path


@shape("categories of anndata 0.7", "anndata 0.7")
def _old_categories(folder: Path) -> Path:
    missing().write_h5ad(path := folder / "cells.h5ad")
    with h5py.File(path, "r+") as file:
        table = file["obs"]
        for name in [name for name in table if hasattr(table[name], "keys") and "codes" in table[name]]:
            codes, categories = table[name]["codes"][:], table[name]["categories"][:]
            del table[name]
            kept = table.require_group("__categories").create_dataset(name, data=categories)
            table[name] = codes
            table[name].attrs["categories"] = kept.ref
        for group in ("obs", "var"):
            file[group].attrs["encoding-version"] = "0.1.0"
    return path


@shape("compound tables of anndata 0.6", "anndata 0.6")
def _compound(folder: Path) -> Path:
    table, X = obs(), C(counts())
    with h5py.File(path := folder / "cells.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": np.array(X.shape)})
        group["data"], group["indices"], group["indptr"] = X.data, X.indices, X.indptr
        codes = pd.Categorical(table["cell_type"])
        rows = np.zeros(N_CELLS, dtype=[("index", "S9"), ("cell_type", "i1")])
        rows["index"], rows["cell_type"] = table.index.to_numpy().astype("S"), codes.codes
        file["obs"] = rows
        genes = np.zeros(N_GENES, dtype=[("index", "S9")])
        genes["index"] = np.array(SYMBOLS, dtype="S")
        file["var"] = genes
        file.create_group("uns")["cell_type_categories"] = np.array(codes.categories, dtype=object).astype("S")
    return path


def mudata(path: Path) -> Path:
    """Two modalities, the labels outside of them."""
    inner = cells()
    inner.obs = inner.obs[[]]
    with h5py.File(path, "w") as file:
        group = file.create_group("mod")
        write_elem(group, "rna", inner)
        write_elem(group, "prot", cells(C(counts()[:, :9])))
        write_elem(file, "obs", obs())
        write_elem(file, "var", pd.DataFrame(index=SYMBOLS))
    return path


shape("MuData", "muon")(lambda folder: mudata(folder / "cells.h5mu"))
shape("MuData named .h5ad", "muon")(lambda folder: mudata(folder / "cells.h5ad"))


@shape("SpatialData", "spatialdata")
def _spatial(folder: Path) -> Path:
    root = zarr.open_group(folder / "cells.zarr", mode="w", zarr_format=2)
    write_elem(root.create_group("tables"), "table", cells())
    root.create_group("images")
    return folder / "cells.zarr"


@shape("zarr.zip", "anndata")
def _zipped(folder: Path) -> Path:
    with zarr.storage.ZipStore(folder / "cells.zarr.zip", mode="w") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_elem(zarr.open_group(store, mode="w", zarr_format=2), "/", cells())
    return folder / "cells.zarr.zip"


@shape("zarr of the third version", "anndata 0.12")
def _third(folder: Path) -> Path:
    write_elem(zarr.open_group(folder / "cells.zarr", mode="w", zarr_format=3), "/", cells())
    return folder / "cells.zarr"


@shape("loom", "loompy")
def _loom(folder: Path) -> Path:
    with h5py.File(path := folder / "cells.loom", "w") as file:
        file["matrix"] = counts().T
        for name, values in (("Gene", SYMBOLS), ("Accession", IDS)):
            file[f"row_attrs/{name}"] = np.array(values, dtype="S")
        file["col_attrs/CellID"] = np.array(obs().index, dtype="S")
        file["col_attrs/cell_type"] = np.array(obs()["cell_type"], dtype="S")
        file.create_group("layers")["spliced"] = counts().T // 2
    return path


def tenx(path: Path, *, groups: dict[str, slice], new: bool = True) -> Path:
    """A .h5 file of Cell Ranger 3 (one group) or 2 (a group for each genome)."""
    with h5py.File(path, "w") as file:
        for genome, genes in groups.items():
            group, X = file.create_group(genome), C(counts()[:, genes])
            group["barcodes"] = np.array(obs().index, dtype="S")
            group["data"], group["indices"], group["indptr"] = X.data.astype("i4"), X.indices, X.indptr
            group["shape"] = np.array(X.shape[::-1])
            names = group.create_group("features") if new else group
            names["id" if new else "genes"] = np.array(IDS[genes], dtype="S")
            names["name" if new else "gene_names"] = np.array(SYMBOLS[genes], dtype="S")
            if new:
                names["feature_type"] = np.array(KINDS[genes], dtype="S")
    return path


EVERY = slice(0, N_GENES)
shape("10x .h5, with antibodies", TENX, n_genes=50)(lambda folder: tenx(folder / "cells.h5", groups={"matrix": EVERY}))
shape("10x .h5 of Cell Ranger 2", TENX)(lambda folder: tenx(folder / "cells.h5", groups={"GRCh38": EVERY}, new=False))
shape("10x .h5 of two genomes", TENX, first="GRCh38_SYM0")(
    lambda folder: tenx(folder / "cells.h5", groups={"GRCh38": slice(0, 30), "mm10": slice(30, 60)}, new=False)
)


@shape("molecule_info.h5", TENX, refused="single molecules")
def _molecules(folder: Path) -> Path:
    with h5py.File(path := folder / "molecule_info.h5", "w") as file:
        for name in ("barcode_idx", "feature_idx", "umi", "count"):
            file[name] = np.arange(5)
    return path


@shape("h5Seurat", "SeuratDisk", refused="From Seurat")
def _h5seurat(folder: Path) -> Path:
    with h5py.File(path := folder / "cells.h5seurat", "w") as file:
        file.create_group("assays/RNA")
    return path


def folder_of(folder: Path, prefix: str = "", rows: slice = slice(None)) -> Path:
    """Files of a 10x folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(counts()[rows].T.astype(int)))
    pd.DataFrame({"id": IDS, "name": SYMBOLS, "type": KINDS}).to_csv(
        folder / f"{prefix}features.tsv", sep="\t", header=False, index=False
    )
    pd.Series(obs().index[rows]).to_csv(folder / f"{prefix}barcodes.tsv", header=False, index=False)
    for file in list(folder.glob(f"{prefix}*.*")):
        gz(file)
    return folder


def gz(path: Path) -> Path:
    """The file, gzipped."""
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return target


shape("10x folder, with antibodies", TENX, n_genes=50)(lambda folder: folder_of(folder / "tenx"))


@shape("folder of several samples with prefixes", GEO, n_genes=50)
def _samples(folder: Path) -> Path:
    folder_of(folder / "GSE1", "GSM1_a_", slice(0, 60))
    return folder_of(folder / "GSE1", "GSM2_b_", slice(60, 120))


@shape("Parse folder", "Parse Biosciences")
def _parse(folder: Path) -> Path:
    mmwrite(folder / "count_matrix.mtx", sparse.coo_matrix(counts().astype(int)))
    obs().rename_axis("bc_wells").to_csv(folder / "cell_metadata.csv")
    pd.DataFrame({"gene_id": IDS, "gene_name": SYMBOLS, "genome": "hg38"}).to_csv(folder / "all_genes.csv", index=False)
    return folder


@shape("kallisto folder", "kallisto | bustools")
def _kallisto(folder: Path) -> Path:
    mmwrite(folder / "cells_x_genes.mtx", sparse.coo_matrix(counts().astype(int)))
    for name, values in (("barcodes", obs().index), ("genes", IDS), ("genes.names", SYMBOLS)):
        (folder / f"cells_x_genes.{name}.txt").write_text("\n".join(values) + "\n")
    return folder


def table(path: Path, *, before: str = "", **options: Any) -> Path:
    """A csv of cells x genes."""
    found = pd.DataFrame(counts().astype(int), index=obs().index, columns=SYMBOLS)
    path.write_text(before + found.to_csv(**options))
    return path


shape("csv", GEO)(lambda folder: table(folder / "cells.csv"))
shape("csv with semicolons", "Excel in Europe")(lambda folder: table(folder / "cells.csv", sep=";"))
shape("csv with comment lines", "BD Rhapsody")(
    lambda folder: table(folder / "cells.csv", before="## made by a pipeline\n## version 2\n")
)
shape("tsv", GEO)(lambda folder: table(folder / "cells.tsv", sep="\t"))


@shape("csv with metadata among its columns", SEURAT)
def _metadata(folder: Path) -> Path:
    found = pd.DataFrame(counts().astype(int), index=obs().index, columns=SYMBOLS)
    found = found.assign(
        nCount_RNA=found.sum(axis=1),
        nFeature_RNA=9,
        seurat_clusters=1,
        RNA_snn_res_0=2,
        **{"percent.mt": 0.5, "RNA_snn_res.0.8": 3},
    )
    found.drop(columns="RNA_snn_res_0").to_csv(folder / "cells.csv")
    return folder / "cells.csv"


@shape("csv with semicolons and decimal commas", "Excel in Europe")
def _commas(folder: Path) -> Path:
    found = pd.DataFrame(np.expm1(logged()).round(3), index=obs().index, columns=SYMBOLS)
    found.to_csv(folder / "cells.csv", sep=";", decimal=",")
    return folder / "cells.csv"


@shape("featureCounts", "subread")
def _feature_counts(folder: Path) -> Path:
    found = pd.DataFrame(counts().astype(int).T, columns=[f"bams/{name}.bam" for name in obs().index])
    found.insert(0, "Geneid", SYMBOLS)
    for i, name in enumerate(("Chr", "Start", "End", "Strand", "Length")):
        found.insert(i + 1, name, ["chr1", 1, 9, "+", 8][i])
    (folder / "counts.txt").write_text("# Program:featureCounts v2.0.1\n" + found.to_csv(sep="\t", index=False))
    return folder / "counts.txt"


@shape("tsv of genes in rows, ids and symbols before the cells", GEO)
def _ids_and_symbols(folder: Path) -> Path:
    found = pd.DataFrame(counts().astype(int).T, index=pd.Index(IDS, name="gene_id"), columns=obs().index)
    found.insert(0, "gene_name", SYMBOLS)
    found.to_csv(folder / "GSE1_counts.tsv", sep="\t")
    return folder / "GSE1_counts.tsv"


def pair(folder: Path) -> list[Path]:
    """Two files; each lacks ten genes of the other."""
    first, second = cells()[:60, :50].copy(), cells()[60:, 10:].copy()
    first.write_h5ad(folder / "a.h5ad")
    second.write_h5ad(folder / "b.h5ad")
    return [folder / "a.h5ad", folder / "b.h5ad"]


shape("two files, shared genes", GEO, n_genes=40, first="SYM10")(pair)
shape("two files, all genes", GEO, options={"join": "outer"})(pair)

# What is no file of cells
for name, content, said in (
    ("a web page named .h5ad", "<!DOCTYPE html><html>", "a web page"),
    ("a pointer of git-lfs", "version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs"),
    ("an empty file", "", "it is empty"),
):
    SHAPES.append(
        Shape(name, "downloads", lambda folder, content=content: text(folder / "cells.h5ad", content), refused=said)
    )
SHAPES.append(Shape("an R object", SEURAT, lambda folder: text(folder / "cells.rds", "x"), refused="From Seurat"))
SHAPES.append(
    Shape("a spreadsheet", "Excel", lambda folder: text(folder / "cells.xlsx", "x"), refused="save its table as csv")
)
SHAPES.append(
    Shape(
        "a folder above that of the matrix",
        "STARsolo",
        lambda folder: folder_of(folder / "run" / "Solo.out" / "Gene" / "filtered").parents[2],
        refused="holds Solo.out/Gene/filtered",
    )
)
SHAPES.append(Shape("an archive", GEO, lambda folder: text(folder / "GSE1_RAW.tar", "x"), refused="unpack it"))


def text(path: Path, content: str) -> Path:
    """A file that holds a text."""
    path.write_text(content)
    return path


class Heard(logging.Handler):
    """Collects the lines that the user is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if record.levelno == data._NOTICE and record.getMessage() not in self.lines:
            self.lines.append(record.getMessage())


def heard(do: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what a function returns, or the sentence of its refusal, and what was told on the way."""
    library, ear = logging.getLogger("selectormlp"), Heard()
    level = library.level
    library.addHandler(ear)
    library.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return do(), ear.lines
    except data.InputError as error:
        return str(error), ear.lines
    finally:
        library.removeHandler(ear)
        library.setLevel(level)


def in_memory(paths: Any, options: dict[str, Any]) -> AnnData:
    """Log-normalised cells, read whole."""
    return data.normalise(readers.read_cells(paths, **options))


def from_disk(paths: Any, options: dict[str, Any]) -> AnnData:
    """The same, from disk."""
    opened = open_cells(paths, **options)
    X = sparse.vstack([block for _, block in read_blocks(opened)], format="csr")
    return AnnData(X, obs=opened.obs, var=opened.var, uns={data._VALUES: dict(opened.note)})


def rows() -> pd.DataFrame:
    """The table of the book: each shape, what is read of it and what is said."""
    found = []
    for each in SHAPES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            result, lines = heard(lambda: readers.read_cells(each.make(folder), **each.options))  # noqa: B023
            read = (
                "refused"
                if isinstance(result, str)
                else f"{result.n_obs} cells x {result.n_vars} genes, {result.var_names[0]}, ..."
            )
            said = result if isinstance(result, str) else "; ".join(lines)
            said = said.replace(str(folder), "my_folder")
            found.append((each.name, each.source, SOURCES[each.source], read, said))
    return pd.DataFrame(found, columns=["shape", "seen_at", "source", "read", "said"])


def main() -> None:
    """Write the table, or show it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table")
    found = rows()
    if parser.parse_args().write:
        files._write_table(found, TABLE)
    for row in found.itertuples():
        print(f"{row.shape} | {row.read} | {row.said}")


if __name__ == "__main__":
    main()
