"""Fuzz combinations of what an AnnData file can hold: memory and disk must take the right matrix, both alike.

    python tests/stress/shapes_fuzz.py --draws 2000 [--write]

A draw is X x raw x layer x column of var x labels x sparse format x kind of file. It knows by a rule of its own which
matrix is right (the most genes, then counts before logged values, then X, raw, layers) and what its values are once they
are log-normalised.
"""

# ruff: noqa: E501

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shapes  # noqa: E402

from selectormlp import data, files  # noqa: E402

N, G, V = shapes.N_CELLS, shapes.N_GENES, shapes.N_VARIABLE
X_KINDS = (
    "counts",
    "logged",
    "per ten thousand",
    "scaled",
    "scaled without centring",
    "zero",
    "absent",
    "fractional",
    "log2",
)
RAW_KINDS = (None, "counts", "logged", "scaled", "log2")
LAYERS = (None, ("counts", "counts"), ("counts", "logged"), ("unspliced", "counts"), ("z", "scaled"))
VARS = (None, "feature_name", "gene_symbols", "gene_ids", "feature_types")
LABELS = ("text", "category", "int", "float", "string", "missing")
FORMATS = ("csr", "csc", "dense")
FILES = ("h5ad", "h5ad.gz", "zarr", "h5")
TABLE = Path(__file__).resolve().parents[2] / "data" / "studies" / "stress" / "file_shapes.csv"
RANK = {"counts": 0, "per ten thousand": 1, "fractional": 1, "logged": 2, "log2": 2}


@dataclass(frozen=True)
class Draw:
    """One combination."""

    seed: int
    x: str
    few: bool
    raw: str | None
    layer: tuple[str, str] | None
    var: str | None
    labels: str
    format: str
    file: str


def drawn(seed: int) -> Draw:
    """The combination of a seed."""
    rng = np.random.default_rng(seed)
    pick = [
        each[rng.integers(len(each))]
        for each in (X_KINDS, (False, True), RAW_KINDS, LAYERS, VARS, LABELS, FORMATS, FILES)
    ]
    return Draw(seed, *pick)


def values_of(kind: str, seed: int, n_genes: int) -> np.ndarray | None:
    """Values of a kind; None for none."""
    counts = shapes.counts(seed)
    logged = shapes.logged(counts)
    found = {
        "counts": counts,
        "logged": logged,
        "per ten thousand": np.expm1(logged),
        "zero": np.zeros_like(counts),
        "absent": None,
        "fractional": counts * np.random.default_rng(seed).uniform(0.75, 1, counts.shape).astype(np.float32),
        "log2": np.log2(1 + np.expm1(shapes.logged(counts, 1e6))),
        "scaled": (logged - logged.mean(axis=0)) / np.maximum(logged.std(axis=0), 1e-6),
        "scaled without centring": logged / np.maximum(logged.std(axis=0), 1e-6),
    }[kind]
    return None if found is None else found[:, :n_genes].astype(np.float32)


def expected(kind: str, values: np.ndarray) -> np.ndarray:
    """What values of a kind come to, log-normalised."""
    if kind == "log2":
        return values * np.log(2)
    return values if kind == "logged" else shapes.logged(values)


def right_of(draw: Draw) -> tuple[str, str, int] | None:
    """Place, kind and number of features of the right matrix; None where none can be used."""
    n_x = V if draw.few else G
    held = [("X", draw.x, n_x, 0), ("raw.X", draw.raw, G, 0)]
    if draw.layer is not None:
        held.append((f"layers['{draw.layer[0]}']", draw.layer[1], n_x, int(draw.layer[0] == "unspliced")))
    usable = [(last, -n, RANK[kind], place, kind) for place, kind, n, last in held if kind in RANK]
    if not usable:
        return None
    order = ["X", "raw.X"]
    last, n, _, place, kind = min(usable, key=lambda each: (*each[:3], order.index(each[3]) if each[3] in order else 2))
    return place, kind, -n


def formed(values: np.ndarray | None, draw: Draw) -> Any:
    """Values in the format of a draw."""
    if values is None or draw.format == "dense":
        return values
    return sparse.csr_matrix(values) if draw.format == "csr" else sparse.csc_matrix(values)


def genes_of(draw: Draw, n: int) -> tuple[pd.DataFrame, list[str]]:
    """The table of the first n features, and the names that are right of those that are genes."""
    if draw.var in ("feature_name", "gene_symbols"):
        return pd.DataFrame({draw.var: shapes.SYMBOLS[:n]}, index=shapes.IDS[:n]), shapes.SYMBOLS[:n]
    table = pd.DataFrame(index=shapes.SYMBOLS[:n])
    if draw.var == "gene_ids":
        table["gene_ids"] = shapes.IDS[:n]
    if draw.var == "feature_types":
        table["feature_types"] = ["Gene Expression"] * (n - 4) + ["Antibody Capture"] * 4
        return table, shapes.SYMBOLS[: n - 4]
    return table, shapes.SYMBOLS[:n]


def labels_of(draw: Draw) -> Any:
    """Labels of a type."""
    codes = np.arange(N) % 3
    names = np.array(shapes.TYPES)[codes]
    return {
        "text": names,
        "category": pd.Categorical(names),
        "int": codes,
        "float": codes.astype(float),
        "string": pd.array(names, dtype="string"),
        "missing": pd.Categorical(np.where(np.arange(N) < 5, None, names)),
    }[draw.labels]


def write(draw: Draw, folder: Path) -> Path:
    """The file of a draw."""
    import anndata

    n = V if draw.few else G
    obs = pd.DataFrame({"cell_type": labels_of(draw)}, index=[f"cell{i}" for i in range(N)])
    X = formed(values_of(draw.x, draw.seed, n), draw)
    cells = AnnData(X, obs=obs, var=genes_of(draw, n)[0], shape=(N, n) if X is None else None)
    if draw.layer is not None:
        cells.layers[draw.layer[0]] = formed(values_of(draw.layer[1], draw.seed + 1, n), draw)
    if draw.raw is not None:
        cells.raw = AnnData(formed(values_of(draw.raw, draw.seed + 2, G), draw), obs=obs, var=genes_of(draw, G)[0])
    path = folder / f"cells.{draw.file.removesuffix('.gz')}"
    with warnings.catch_warnings(), anndata.settings.override(allow_write_nullable_strings=True):
        warnings.simplefilter("ignore")
        cells.write_zarr(path) if draw.file == "zarr" else cells.write_h5ad(path)
    return shapes.gz(path) if draw.file.endswith("gz") else path


def fault_of(draw: Draw, folder: Path) -> str | None:
    """What is wrong of how a draw is read; None for nothing."""
    path = write(draw, folder)
    memory, _ = shapes.heard(lambda: shapes.in_memory(path, {}))
    disk, _ = shapes.heard(lambda: shapes.from_disk(path, {}))
    right = right_of(draw)
    if isinstance(memory, str) or isinstance(disk, str):
        return None if right is None and memory == disk else f"memory: {memory}; disk: {disk}"
    if right is None:  # zeros alone may be read, a sample of the cells does not tell, but nothing is made of them
        said, _ = shapes.heard(lambda: data.check_cells(memory))
        taken = f"took {memory.uns[data._VALUES]['place']}, where nothing can be used"
        return None if memory.X.nnz == disk.X.nnz == 0 and "every value is 0" in str(said) else taken
    place, kind, n = right
    shift = {"X": 0, "raw.X": 2}.get(place, 1)
    names = genes_of(draw, n)[1]
    values = expected(kind, values_of(kind, draw.seed + shift, n)[:, : len(names)])
    for how, found in (("memory", memory), ("disk", disk)):
        if found.uns[data._VALUES]["place"] != place:
            return f"{how} took {found.uns[data._VALUES]['place']}, not {place}"
        if found.var_names.tolist() != names:
            return f"{how} has genes {found.var_names[:3].tolist()}, not {names[:3]}"
        if not np.allclose(found.X.toarray(), values, rtol=1e-3, atol=1e-3):
            return f"{how} has other values than {place}"
        types = data._cell_labels(found.obs, "cell_type")
        if types.nunique() != 3 or types.isna().sum() != (5 if draw.labels == "missing" else 0):
            return f"{how} has types {types.unique()[:4]}"
    return None


def faults(n_draws: int, *, first: int = 0) -> list[tuple[Draw, str]]:
    """The draws that are read wrongly."""
    found = []
    for seed in range(first, first + n_draws):
        with tempfile.TemporaryDirectory() as folder:
            try:
                fault = fault_of(drawn(seed), Path(folder))
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
        if fault is not None:
            found.append((drawn(seed), fault))
    return found


def table_of(first: int, n_draws: int, wrong: list[tuple[Draw, str]]) -> pd.DataFrame:
    """The table of the book: by what X holds, files with a usable matrix, files without one, and faults."""
    draws = [drawn(seed) for seed in range(first, first + n_draws)]
    faulty = {draw.seed for draw, _ in wrong}
    rights = [right_of(draw) for draw in draws]
    rows = {
        "X holds": [draw.x for draw in draws],
        "files": 1,
        "usable": [right is not None for right in rights],
        "not from X": [right is not None and right[0] != "X" for right in rights],
        "faults": [draw.seed in faulty for draw in draws],
    }
    counts = pd.DataFrame(rows).groupby("X holds").sum().astype(int)
    counts.loc["all"] = counts.sum()
    return counts.reset_index()


def main() -> None:
    """Try many draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the table of the book")
    given = parser.parse_args()
    wrong = faults(given.draws, first=given.first)
    for draw, fault in wrong:
        print(f"{fault} | {draw}")
    table = table_of(given.first, given.draws, wrong)
    print(table.to_string(index=False))
    if given.write:
        files._write_table(table, TABLE)
    print(f"{given.draws} draws, {len(wrong)} faults")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
