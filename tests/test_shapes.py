"""Every shape of file: in memory and from disk the same cells, genes and values, or the same sentence."""

# ruff: noqa: E501

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import shapes
from anndata import AnnData
from shapes import SHAPES, Shape

from selectormlp import book, cli, data, readers
from selectormlp.classifiers import LinearSVMClassifier
from selectormlp.panels import read_panel
from selectormlp.saving import save_model
from selectormlp.selection import select_genes
from selectormlp.study import StudyConfig


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_read_alike_in_memory_and_from_disk(shape: Shape, tmp_path: Path) -> None:
    made = shape.make(tmp_path)
    memory, _ = shapes.heard(lambda: shapes.in_memory(made, shape.options))
    disk, _ = shapes.heard(lambda: shapes.from_disk(made, shape.options))
    if shape.refused:
        assert memory == disk and shape.refused in memory and "damaged" not in memory
        return
    assert not isinstance(memory, str), memory
    assert not isinstance(disk, str), disk
    assert memory.uns[data._VALUES]["place"] == disk.uns[data._VALUES]["place"] == shape.place
    assert (memory.n_vars, memory.var_names[0]) == (shape.n_genes, shape.first)
    assert memory.var_names.tolist() == disk.var_names.tolist() and memory.obs_names.tolist() == disk.obs_names.tolist()
    np.testing.assert_allclose(memory.X.toarray(), disk.X.toarray(), rtol=1e-5, atol=1e-5)
    assert memory.X.max() < 20 and memory.X.min() >= 0
    if "cell_type" in memory.obs:
        kept = [data._cell_labels(found.obs, "cell_type").fillna("none").tolist() for found in (memory, disk)]
        assert kept[0] == kept[1] and set(kept[0]) <= {*shapes.TYPES, "none"}


def test_the_values_are_those_of_the_counts_whatever_else_the_file_holds(tmp_path: Path) -> None:
    right = shapes.logged()
    for name in (
        "counts in X",
        "logged X, raw counts",
        "no X, counts in a layer",
        "scaled without centring, raw counts",
        "log2 of counts per million",
        "counts divided by a constant",
        "log(1 + counts), depth not removed",
        "scaled variable genes, raw logged",
        "MuData",
        "loom",
        "Parse folder",
        "csv with comment lines",
        "tsv of genes in rows, ids and symbols before the cells",
    ):
        (shape,) = [shape for shape in SHAPES if shape.name == name]
        folder = tmp_path / str(len(name))
        folder.mkdir(exist_ok=True)
        found = data.normalise(readers.read_cells(shape.make(folder)))
        expected = shapes.logged(target=1e6) if "million" in name else right
        np.testing.assert_allclose(found.X.toarray(), expected, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_label_column_that_is_called_like_one_of_genes_makes_no_row_a_gene(tmp_path: Path) -> None:
    table = pd.DataFrame(shapes.counts().astype(int), index=shapes.obs().index, columns=shapes.SYMBOLS)
    table.insert(0, "gene_type", shapes.obs()["cell_type"])
    table.to_csv(tmp_path / "cells.csv")
    found = readers.read_cells(tmp_path / "cells.csv", label_key="gene_type")
    assert found.shape == table.drop(columns="gene_type").shape
    assert found.obs["gene_type"].tolist() == table["gene_type"].tolist()


def test_the_table_of_the_book_is_that_of_the_shapes() -> None:
    stored = pd.read_csv(shapes.TABLE, keep_default_na=False)
    assert stored["shape"].tolist() == [shape.name for shape in SHAPES] and len(stored) >= 60
    pd.testing.assert_frame_equal(stored, shapes.rows(), check_dtype=False)  # after a change: tests/shapes.py --write


def words(shape: Shape) -> list[str]:
    """The options of a shape, as the command line has them."""
    options = {f"--{name.replace('_', '-')}": value for name, value in shape.options.items()}
    return [name if value is True else f"{name}={value}" for name, value in options.items()]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, AnnData]:
    """What a report and a book would work on: neither is made, but the cells that they ask for are kept."""
    found: dict[str, AnnData] = {}

    def run_study(config: StudyConfig, folder: str, *, load: Callable[[StudyConfig], AnnData]) -> Any:
        found["report"] = data.normalise(load(config))
        return SimpleNamespace(folder=Path(folder))

    def run_book(cells: str, key: str, out: str, *, protocol: str, seed: int, on_disk: str, **asked: Any) -> str:
        found["book"] = data.normalise(book._read_for_book(cells, key, on_disk, seed, asked))
        return "index.html"

    monkeypatch.setattr("selectormlp.study.run_study", run_study)
    monkeypatch.setattr("selectormlp.book.run_book", run_book)
    return found


def lines_of(shape: Shape, paths: list[str], on_disk: str) -> dict[str, list[str]]:
    """A line for each command that takes such cells; report, book and split_data take one file."""
    shared = [f"--on-disk={on_disk}", *words(shape)]
    key = "--label-key=cell_type"
    lines = {
        "select": ["select", *paths, key, "--n-genes=3", "--page=false", "--min-cells=5", "--out=panel.csv", *shared],
        "predict": ["predict", *paths, "--model=model", "--out=types.csv", *shared],
    }
    if len(paths) == 1:
        lines["report"] = ["report", *paths, key, "--out=run", *shared]
        lines["book"] = ["book", *paths, key, "--out=my_book", *shared]
        step = ["--y_column=cell_type", "--min_cluster_size=5", "--save_dir=parts"]
        lines["split_data"] = ["split_data", f"--adata_path={paths[0]}", *step, *shared]
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "on_disk"),
    [pytest.param(shape, "no" if i % 2 else "yes", id=shape.name) for i, shape in enumerate(SHAPES)],
)
def test_every_command_works_on_what_is_read(
    shape: Shape, on_disk: str, asked: dict[str, AnnData], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "given").mkdir()
    monkeypatch.chdir(tmp_path)
    made = shape.make(tmp_path / "given")
    paths = [str(path) for path in (made if isinstance(made, list) else [made])]
    read, _ = shapes.heard(lambda: shapes.in_memory(made, shape.options))
    if isinstance(read, str):
        save_model(LinearSVMClassifier().fit(np.eye(6), np.arange(6) % 2, gene_names=list("abcdef")), "model")
        for command, line in lines_of(shape, paths, on_disk).items():
            assert cli.main(line) == 2, command
            assert shape.refused in capsys.readouterr().err, command
        return
    labelled = "cell_type" in read.obs
    if not labelled:
        read.obs["cell_type"] = np.array(shapes.TYPES)[np.arange(read.n_obs) % 3]
        read.obs[["cell_type"]].to_csv("labels.csv")
    cells = data.prepare_cells(read, "cell_type", min_cells=5)
    model = LinearSVMClassifier().fit(cells.X, cells.obs["cell_type"].astype(str), gene_names=cells.var_names)
    save_model(model, "model")
    lines = lines_of(shape, paths, on_disk)
    for command in ("select", "report"):
        if not labelled and command in lines:
            lines[command].append("--labels=labels.csv")
    for command in ("book", "split_data"):
        if not labelled:
            lines.pop(command, None)  # they take no label files
    for command, line in lines.items():
        assert cli.main(line) == 0, (command, capsys.readouterr().err)
    assert read_panel("panel.csv").genes == select_genes(read, "cell_type", 3, min_cells=5).genes
    named = pd.read_csv("types.csv", index_col="cell", dtype=str)["cell_type"]
    assert named.index.astype(str).tolist() == read.obs_names.tolist()
    assert (named.to_numpy() == model.predict(read.X)).all()
    if "split_data" in lines:
        parts = [anndata.read_h5ad(path) for path in sorted(Path("parts").glob("adata_*.h5ad"))]
        asked["split_data"] = anndata.concat(parts)
    assert set(asked) == set(lines) & {"report", "book", "split_data"}
    for command, found in asked.items():
        same = cells if command == "split_data" else read
        assert found.var_names.equals(same.var_names), command
        assert 0.9 * same.n_obs < found.n_obs <= same.n_obs, command  # a split keeps types of one size
        expected = same[found.obs_names].X.toarray()
        np.testing.assert_allclose(found.X.toarray(), expected, rtol=1e-5, atol=1e-5, err_msg=command)
