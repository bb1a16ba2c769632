"""Every shape of file: in memory and from disk the same cells, genes and values, or the same sentence."""

# ruff: noqa: E501

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapes
from shapes import SHAPES, Shape

from selectormlp import data


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
    ):
        (shape,) = [shape for shape in SHAPES if shape.name == name]
        folder = tmp_path / str(len(name))
        folder.mkdir(exist_ok=True)
        found = data.normalise(data.read_cells(shape.make(folder)))
        expected = shapes.logged(target=1e6) if "million" in name else right
        np.testing.assert_allclose(found.X.toarray(), expected, rtol=1e-3, atol=1e-3, err_msg=name)


def test_the_table_of_the_book_is_that_of_the_shapes() -> None:
    stored = pd.read_csv(shapes.TABLE, keep_default_na=False)
    assert stored["shape"].tolist() == [shape.name for shape in SHAPES] and len(stored) >= 60
    pd.testing.assert_frame_equal(stored, shapes.rows(), check_dtype=False)  # after a change: tests/shapes.py --write
