"""What is promised: same seed, same panel; and no order of cells, genes or names of types decides.

Promised is: in two processes everything is equal to the last bit, with the same packages, machine and number of
threads. With another number of threads the panels of the default search and of the SVMs hold the same genes; a network
may differ, as with another seed. The tests hold no more and no less.
"""

import hashlib
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from selectormlp.classifiers import _MORE_CONDITIONS, CONDITIONS, make_classifier
from selectormlp.data import choose_variable_genes, prepare_cells
from selectormlp.masking import rank_genes
from selectormlp.search import _type_folds
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.split import _PARTS, split_cells
from selectormlp.study import Study, _study_config, _study_steps

SHORT = {"max_epochs": 2, "steps_per_epoch": 3, "hidden_sizes": (16,)}
SEARCHES = ["discriminant", "svm_l1", "svm_l2"]  # whose panels do not depend on the number of threads
METHODS = [*CONDITIONS.index, *_MORE_CONDITIONS.index]
QUICK = {
    "n_genes": 40, "max_epochs": 1, "step": 20, "n_orders": 1, "panel_sizes": (10,), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1",),
}  # fmt: skip


def simulated() -> AnnData:
    """600 cells of five types of unequal size, none a multiple of the folds."""
    return simulate_cells(n_cells=600, n_genes=150, n_types=5, size_ratio=3, library_size=500, seed=0)


def ranked(cells: AnnData, condition: str) -> pd.DataFrame:
    """The genes of the training cells in the order of a model, as a study finds them."""
    cells = prepare_cells(cells, "cell_type")
    split = split_cells(cells, "cell_type")
    genes = choose_variable_genes(split.subset(cells, "train"), 100)
    short = {} if condition.startswith("svm") else SHORT
    model = make_classifier(condition, model_settings=short)
    train, validation = (split.labelled(cells, part, "cell_type", genes) for part in ("train", "validation"))
    return rank_genes(model.fit(*train, validation=validation, gene_names=genes))


# ---------------------------------------------------------------------------------------------------- two processes


def searches() -> dict[str, str]:
    """The default panel and the rankings of the SVMs, as text."""
    cells = simulated()
    told = {condition: ranked(cells, condition).to_csv() for condition in SEARCHES[1:]}
    return told | {"discriminant": select_genes(cells, "cell_type", 30).table.to_csv()}


def everything(cells_file: Path, folder: Path) -> dict[str, str]:
    """Everything that is promised to be equal, as text or as a sum over bytes."""
    cells, told = simulated(), searches()
    for condition in set(METHODS) - set(SEARCHES):
        told[condition] = ranked(cells, condition).to_csv()
    told["model"] = select_genes(cells, "cell_type", 10, method="selector_l1", model_settings=SHORT).table.to_csv()
    study = Study(_study_config(cells=str(cells_file), label_key="cell_type", **QUICK), folder)
    for name, step in _study_steps(study):
        if not name.startswith("figure") and name != "page":
            step()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "logs" not in path.parts:
            told[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return told


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """What three processes say: two alike but for the order of their sets, one with two threads."""
    place, told = tmp_path_factory.mktemp("processes"), {}
    simulated().write_h5ad(place / "cells.h5ad")
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    for name, threads, hashes in (("one", "1", "1"), ("another", "1", "2"), ("two threads", "2", "3")):
        environment = os.environ | dict.fromkeys(names, threads) | {"PYTHONHASHSEED": hashes}
        done = subprocess.run([sys.executable, __file__, str(place)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        told[name] = json.loads(done.stdout)
    return told


def test_two_processes_find_the_same_to_the_last_bit(processes) -> None:
    one, another = processes["one"], processes["another"]
    assert set(one) == set(another) and set(METHODS) < set(one) and "scores.csv" in one
    assert [name for name in one if one[name] != another[name]] == []


def test_another_number_of_threads_changes_no_panel_of_the_search_or_of_an_svm(processes) -> None:
    for name in SEARCHES:
        one, two = (pd.read_csv(StringIO(processes[who][name])) for who in ("one", "two threads"))
        assert one["gene"].tolist() == two["gene"].tolist()


# --------------------------------------------------------------------------------------------------------- the orders


def reversed_types(cells: AnnData) -> AnnData:
    """The same cells with types that are named so that their alphabet runs backwards."""
    types = sorted(cells.obs["cell_type"].astype(str).unique())
    names = {name: f"{99 - number} was {name}" for number, name in enumerate(types)}
    other = cells.copy()
    other.obs["cell_type"] = other.obs["cell_type"].astype(str).map(names)
    return other


SHUFFLES = {
    "cells": lambda cells: cells[np.random.default_rng(1).permutation(cells.n_obs)].copy(),
    "genes": lambda cells: cells[:, np.random.default_rng(2).permutation(cells.n_vars)].copy(),
    "types": reversed_types,
}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return simulated()


@pytest.fixture(scope="module")
def rankings(cells) -> dict[str, pd.DataFrame]:
    """What each model says of the cells as they are."""
    return {condition: ranked(cells, condition) for condition in ("svm_l1", "svm_l2", "selector_l1", "mlp")}


@pytest.mark.parametrize("what", SHUFFLES)
def test_the_split_depends_on_names_of_cells_only(what: str, cells) -> None:
    one, other = (split_cells(each, "cell_type") for each in (cells, SHUFFLES[what](cells)))
    for part in _PARTS:
        assert set(one.cells(part)) == set(other.cells(part))
    if what != "types":
        pd.testing.assert_frame_equal(one.table, other.table)


def test_other_names_of_cells_are_another_split(cells) -> None:
    """Said, not wished: the draw goes by name, so that it survives any order."""
    renamed = cells.copy()
    renamed.obs_names = [f"x{name}" for name in cells.obs_names]
    names = {name.removeprefix("x") for name in split_cells(renamed, "cell_type").cells("test")}
    assert names != set(split_cells(cells, "cell_type").cells("test"))


@pytest.mark.parametrize("what", ["cells", "genes"])
@pytest.mark.parametrize("flavor", ["trend", "seurat"])
def test_variable_genes_do_not_depend_on_orders(what: str, flavor: str, cells) -> None:
    one, other = (
        choose_variable_genes(prepare_cells(each, "cell_type"), 60, flavor=flavor)
        for each in (cells, SHUFFLES[what](cells))
    )
    assert one == other


@pytest.mark.parametrize("what", ["cells", "genes"])
def test_the_panel_does_not_depend_on_orders(what: str, cells) -> None:
    one, other = (select_genes(each, "cell_type", 40) for each in (cells, SHUFFLES[what](cells)))
    assert one.genes == other.genes
    np.testing.assert_allclose(one.table["gain"], other.table["gain"], atol=1e-9)


def test_the_panel_does_not_depend_on_the_names_of_types(cells) -> None:
    codes = np.repeat([0, 1, 2], [7, 11, 9])
    np.testing.assert_array_equal(_type_folds(codes), _type_folds(2 - codes))
    one, other = (select_genes(each, "cell_type", 40).genes for each in (cells, reversed_types(cells)))
    assert one == other


@pytest.mark.parametrize("what", SHUFFLES)
@pytest.mark.parametrize("condition", ["svm_l1", "svm_l2"])
def test_the_best_genes_of_an_svm_do_not_depend_on_orders(condition: str, what: str, cells, rankings) -> None:
    other = ranked(SHUFFLES[what](cells), condition)
    assert rankings[condition]["gene"].tolist()[:20] == other["gene"].tolist()[:20]


@pytest.mark.parametrize("what", ["cells", "genes"])
@pytest.mark.parametrize("condition", ["selector_l1", "mlp"])
def test_a_network_does_not_depend_on_the_order_of_the_file(condition: str, what: str, cells, rankings) -> None:
    """Cells come by lot and genes by how variable they are, before a network sees them."""
    pd.testing.assert_frame_equal(rankings[condition], ranked(SHUFFLES[what](cells), condition))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    here, who = Path(sys.argv[1]), os.environ["PYTHONHASHSEED"]
    print(json.dumps(searches() if who == "3" else everything(here / "cells.h5ad", here / who)))
