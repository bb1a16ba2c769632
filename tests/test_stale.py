"""Nothing stale: after every kind of change of the input, a run or a book is refused; cut tables are noticed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

from selectormlp import book
from selectormlp.cli import main
from selectormlp.data import InputError
from selectormlp.files import _changes_of_cells, _fingerprint_cells, _fingerprint_path, _read_json, _write_json
from selectormlp.readers import load_cells
from selectormlp.simulation import simulate_cells
from selectormlp.sources import open_cells
from selectormlp.study import Study, _study_config, _study_steps, run_study

QUICK = {
    "n_genes": 40, "step": 20, "n_orders": 1, "panel_sizes": (10,), "ablations": (),
    "conditions": ("svm_l1",), "panel_conditions": ("svm_l1",),
}  # fmt: skip


def exchange_two_labels(cells: AnnData) -> AnnData:
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    one, other = 0, int(np.flatnonzero(labels != labels[0])[0])
    labels[[one, other]] = labels[[other, one]]
    cells.obs["cell_type"] = pd.Categorical(labels)
    return cells


def rotate_labels(cells: AnnData) -> AnnData:
    cells.obs["cell_type"] = np.roll(cells.obs["cell_type"].astype(str).to_numpy(), 1)
    return cells


def rename_a_type(cells: AnnData) -> AnnData:
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace("type_00", "another")
    return cells


def exchange_two_types(cells: AnnData) -> AnnData:
    """The names of all types and, if they are of one size, the counts of each stay."""
    swap = {"type_00": "type_01", "type_01": "type_00"}
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace(swap)
    return cells


def permute_rows(cells: AnnData) -> AnnData:
    return cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()


def permute_values_of_rows(cells: AnnData) -> AnnData:
    """Values go to other cells; names and labels stay."""
    cells.X = csr_matrix(cells.X[np.random.default_rng(0).permutation(cells.n_obs)])
    return cells


def reverse_genes(cells: AnnData) -> AnnData:
    return cells[:, ::-1].copy()


def reverse_names_of_genes(cells: AnnData) -> AnnData:
    cells.var_names = cells.var_names[::-1]
    return cells


def rename_a_gene(cells: AnnData) -> AnnData:
    cells.var_names = ["new", *cells.var_names[1:]]
    return cells


def rename_a_cell(cells: AnnData) -> AnnData:
    cells.obs_names = ["new", *cells.obs_names[1:]]
    return cells


def change_a_value(cells: AnnData) -> AnnData:
    values = cells.X.toarray()
    values[3, 4] += 1
    cells.X = csr_matrix(values)
    return cells


def swap_two_values(cells: AnnData) -> AnnData:
    """Within a rectangle, so that the sums of cells and of genes all stay."""
    values = cells.X.toarray()
    values[[2, 5], [1, 6]] += 1
    values[[2, 5], [6, 1]] -= 1
    cells.X = csr_matrix(np.abs(values))
    return cells


def drop_a_cell(cells: AnnData) -> AnnData:
    return cells[1:].copy()


def drop_a_gene(cells: AnnData) -> AnnData:
    return cells[:, 1:].copy()


def forget_a_label(cells: AnnData) -> AnnData:
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(object)
    cells.obs.iloc[0, list(cells.obs).index("cell_type")] = None
    return cells


CHANGES: dict[Callable[[AnnData], AnnData], str] = {
    exchange_two_labels: "the labels of 2 cells",
    rotate_labels: r"the labels of \d+ cells",
    rename_a_type: r"the labels of \d+ cells \('type_00' is gone, 'another' is new\)",
    exchange_two_types: r"the labels of \d+ cells",
    permute_rows: "the order of the cells",
    permute_values_of_rows: "the values",
    reverse_genes: "the order of the genes",
    reverse_names_of_genes: "the order of the genes",
    rename_a_gene: "the names of the genes",
    rename_a_cell: "the names of the cells",
    change_a_value: "the values",
    swap_two_values: "the values",
    drop_a_cell: "its n_cells is 240, not 239",
    drop_a_gene: "its n_genes is 60, not 59",
    forget_a_label: "the labels",
}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    cells = simulate_cells(n_cells=240, n_genes=60, n_types=3, n_housekeeping=5, library_size=400, size_ratio=1, seed=0)
    cells.X = csr_matrix(cells.X + np.ones(cells.shape, dtype=np.float32))  # room to move counts about
    return cells


@pytest.fixture(scope="module")
def done(counts: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells and a finished run."""
    place = tmp_path_factory.mktemp("done")
    counts.write_h5ad(place / "cells.h5ad")
    run_study(
        _study_config(cells=str(place / "cells.h5ad"), label_key="cell_type", **QUICK), place / "run", progress=False
    )
    return place


@pytest.fixture
def again(done: Path, tmp_path: Path) -> Path:
    """A copy of it, whose run belongs to the cells of the copy."""
    shutil.copytree(done, tmp_path / "again")
    config = _read_json(tmp_path / "again" / "run" / "config.json")
    _write_json({**config, "cells": str(tmp_path / "again" / "cells.h5ad")}, tmp_path / "again" / "run" / "config.json")
    return tmp_path / "again"


def study_again(place: Path, cells: str = "cells.h5ad") -> Study:
    return run_study(
        _study_config(cells=str(place / cells), label_key="cell_type", **QUICK), place / "run", progress=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_run_is_not_gone_on_with_after_a_change(change: Callable[[AnnData], AnnData], again: Path) -> None:
    (again / "run" / "scores.csv").unlink()  # what is missing must not be made of the new cells either
    before = contents(again / "run")
    change(read_h5ad(again / "cells.h5ad")).write_h5ad(again / "cells.h5ad")
    with pytest.raises(InputError, match=f"holds another run: .*{CHANGES[change]}.*choose another folder"):
        study_again(again)
    assert contents(again / "run") == before
    for part in (Study.scores, Study.masking, Study.genes, lambda study: study.model("svm_l1")):
        fresh = Study(_study_config(**_read_json(again / "run" / "config.json")), again / "run")
        with pytest.raises(InputError, match="holds another run"):
            part(fresh)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_fingerprint_sees_every_change_and_how_cells_are_stored_is_none(
    change: Callable[[AnnData], AnnData], counts: AnnData, tmp_path: Path
) -> None:
    before = _fingerprint_cells(counts, "cell_type")
    assert _changes_of_cells(before, _fingerprint_cells(change(counts.copy()), "cell_type"))
    dense, columns = counts.copy(), counts.copy()
    dense.X, columns.X = counts.X.toarray(), counts.X.tocsc()
    stored = csr_matrix(counts.X, copy=True)
    stored[0, 0] = 0
    zeros = counts.copy()
    zeros.X = stored
    assert [_fingerprint_cells(other, "cell_type") == before for other in (dense, columns, zeros)] == [
        True,
        True,
        False,
    ]
    counts.write_zarr(tmp_path / "cells.zarr")
    from selectormlp.readers import read_cells

    assert _fingerprint_cells(read_cells(tmp_path / "cells.zarr"), "cell_type") == before


def test_cells_that_did_not_change_go_on_whatever_the_time_on_their_file(again: Path) -> None:
    before = contents(again / "run")
    read_h5ad(again / "cells.h5ad").write_h5ad(again / "cells.h5ad", compression="gzip")
    study_again(again)
    after = contents(again / "run")
    assert {name for name in before if before[name] != after[name]} <= {"report.html"}


@pytest.mark.parametrize(
    "change", [exchange_two_labels, permute_rows, rename_a_type], ids=lambda change: change.__name__
)
def test_a_run_of_the_first_format_notices_labels_too(change: Callable[[AnnData], AnnData], again: Path) -> None:
    from selectormlp.data import prepare_cells
    from selectormlp.study import _first_fingerprint

    cells = read_h5ad(again / "cells.h5ad")
    _write_json(_first_fingerprint(prepare_cells(cells, "cell_type")), again / "run" / "data.json")
    (again / "run" / "tables.json").unlink()
    study_again(again)
    change(cells).write_h5ad(again / "cells.h5ad")
    if change is permute_rows:  # which changes no result
        study_again(again)
        return
    with pytest.raises(InputError, match="holds another run: the labels of"):
        study_again(again)


def test_labels_of_a_zarr_and_of_a_label_file_are_seen(counts: AnnData, tmp_path: Path) -> None:
    counts.write_zarr(tmp_path / "cells.zarr")
    study_again(tmp_path, "cells.zarr")
    exchange_two_labels(counts.copy()).write_zarr(tmp_path / "cells.zarr")
    with pytest.raises(InputError, match="the labels of 2 cells"):
        study_again(tmp_path, "cells.zarr")

    bare = AnnData(counts.X, obs=counts.obs[[]], var=counts.var[[]])
    bare.write_h5ad(tmp_path / "bare.h5ad")
    labels = counts.obs["cell_type"].astype(str)
    labels.to_csv(tmp_path / "labels.csv")
    settings = {"cells": str(tmp_path / "bare.h5ad"), "label_key": "cell_type", "labels": str(tmp_path / "labels.csv")}
    run_study(_study_config(**settings, **QUICK), tmp_path / "labelled", progress=False)
    edited = labels.copy()
    edited.iloc[[0, 1, 2]] = "type_00" if labels.iloc[0] != "type_00" else "type_01"
    edited.to_csv(tmp_path / "labels.csv")
    changed = int((labels != edited).sum())
    with pytest.raises(InputError, match=rf"the labels of {changed} cells" if changed else "x"):
        run_study(_study_config(**settings, **QUICK), tmp_path / "labelled", progress=False)


TABLES = ("masking.csv", "scores.csv", "genes.csv", "rankings.csv", "overlap.csv", "split.csv", "panel_masking.csv",
          "panels/svm_l1_top10.csv")  # fmt: skip
HARMS: dict[str, Callable[[str], str]] = {
    "half": lambda text: "".join(text.splitlines(keepends=True)[: 1 + text.count("\n") // 2]),
    "a row less": lambda text: "".join(text.splitlines(keepends=True)[:-1]),
    "another text": lambda text: (
        text.replace("svm_l1", "svm_l2").replace("gene_", "Gene_", 1).replace("test", "train", 1)
    ),
    "empty": lambda text: "",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_was_cut_or_edited_is_refused(name: str, again: Path) -> None:
    whole = (again / "run" / name).read_text()
    harmed = {harm(whole) for harm in HARMS.values()} - {whole}
    assert len(harmed) >= 2
    for text in harmed:
        (again / "run" / name).write_text(text)
        study = Study(_study_config(**_read_json(again / "run" / "config.json")), again / "run")
        with pytest.raises(InputError, match="is not the file that the run wrote: .*remove it"):
            for _, step in _study_steps(study):
                step()


def test_a_table_that_was_cut_comes_back_when_it_is_removed(again: Path) -> None:
    whole = (again / "run" / "masking.csv").read_text()
    (again / "run" / "masking.csv").unlink()
    study_again(again)
    assert (again / "run" / "masking.csv").read_text() == whole


def test_the_command_refuses_too_and_says_what_changed(again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotate_labels(read_h5ad(again / "cells.h5ad")).write_h5ad(again / "cells.h5ad")
    _write_json(_read_json(again / "run" / "config.json"), again / "settings.json")
    assert main(["report", "--config", str(again / "settings.json"), "--out", str(again / "run")]) == 2
    said = capsys.readouterr()
    assert "holds another run: the labels of" in said.err and not said.out


# ------------------------------------------------------------------------------------------------------------- a book


@pytest.fixture
def quick_book(monkeypatch: pytest.MonkeyPatch, counts: AnnData, tmp_path: Path) -> Callable[..., Path]:
    """A book without chapters and pages: who may go on is decided before them."""
    monkeypatch.setattr(book, "_book_chapters", list)
    monkeypatch.setattr(book, "_render_book", lambda out, index: out / "site" / "index.html")
    counts.write_h5ad(tmp_path / "cells.h5ad")

    def run(cells: object, **reading: object) -> Path:
        given = tmp_path / cells if isinstance(cells, str) else cells
        return book.run_book(given, "cell_type", tmp_path / "book", **reading)

    return run


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_book_of_changed_cells_is_refused(
    change: Callable[[AnnData], AnnData],
    ending: str,
    quick_book: Callable[..., Path],
    counts: AnnData,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"cells.{ending}"
    write = (lambda cells: cells.write_h5ad(path)) if ending == "h5ad" else (lambda cells: cells.write_zarr(path))
    write(counts)
    quick_book(path.name)
    quick_book(path.name)
    write(change(counts.copy()))
    with pytest.raises(InputError, match="before it changed; name a new folder"):
        quick_book(path.name)


def test_a_book_of_other_values_is_another_book(
    quick_book: Callable[..., Path], counts: AnnData, tmp_path: Path
) -> None:
    counts.layers["twisted"] = counts.X[:, ::-1].copy()
    counts.write_h5ad(tmp_path / "cells.h5ad")
    for other in ({}, {"layer": "X"}, {"layer": "twisted"}):
        quick_book("cells.h5ad", layer="twisted", drop_types=["type_00"])
        with pytest.raises(InputError, match="with other settings; name a new folder"):
            quick_book("cells.h5ad", **other)
    kept = load_cells(tmp_path / "book" / "cells.h5ad", "cell_type")
    assert (kept.X.toarray() == counts.X[:, ::-1].toarray()).all() and "type_00" not in set(kept.obs["cell_type"])


@pytest.mark.parametrize("where", ["memory", "backed", "lazy", "open", "two files"])
def test_a_book_takes_cells_wherever_they_lie(
    where: str, quick_book: Callable[..., Path], counts: AnnData, tmp_path: Path
) -> None:
    from anndata import experimental, read_h5ad

    def found(path: Path) -> object:
        read = {"memory": read_h5ad, "backed": lambda path: read_h5ad(path, backed="r"), "open": open_cells}
        read |= {"lazy": experimental.read_lazy, "two files": lambda path: [path, tmp_path / "second.h5ad"]}
        return read[where](path)

    counts[: counts.n_obs // 2].copy().write_h5ad(tmp_path / "half.h5ad")
    counts[counts.n_obs // 2 :].copy().write_h5ad(tmp_path / "second.h5ad")
    path = tmp_path / ("half.h5ad" if where == "two files" else "cells.h5ad")
    for _ in range(2):
        quick_book(found(path))
    kept = load_cells(tmp_path / "book" / "cells.h5ad", "cell_type")
    assert set(kept.obs_names) == set(counts.obs_names)
    assert (kept[counts.obs_names].X.toarray() == counts.X.toarray()).all()
    other = counts[: counts.n_obs // 2].copy() if where == "two files" else counts.copy()
    other.obs["cell_type"] = other.obs["cell_type"].to_numpy()[::-1]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match="name a new folder"):
        quick_book(found(tmp_path / "other.h5ad"))


def test_a_chapter_runs_again_when_a_file_of_a_folder_changed(counts: AnnData, tmp_path: Path) -> None:
    counts.write_zarr(tmp_path / "cells.zarr")
    (tmp_path / "02_x.ipynb").write_text('{"cells": []}')
    given = (tmp_path / "02_x.ipynb", {"cells": str(tmp_path / "cells.zarr")})
    before = book._chapter_digest(*given)
    assert book._chapter_digest(*given) == before
    chunk = next(path for path in (tmp_path / "cells.zarr" / "obs" / "cell_type").rglob("0") if path.is_file())
    chunk.write_bytes(b"other")
    assert book._chapter_digest(*given) != before


def test_names_beside_a_matrix_belong_to_it(tmp_path: Path) -> None:
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv", "notes.txt"):
        (tmp_path / name).write_text(name)
    before = _fingerprint_path(tmp_path / "matrix.mtx")
    (tmp_path / "notes.txt").write_text("other")
    assert _fingerprint_path(tmp_path / "matrix.mtx") == before
    (tmp_path / "barcodes.tsv").write_text("other")
    assert _fingerprint_path(tmp_path / "matrix.mtx") != before
