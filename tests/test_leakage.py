"""Test cells have no say before the scores, validation cells none in what is fitted; and the faults of the original.

FAULTS says which test holds which fault; a test checks that these tests exist.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from selectormlp import LinearSVMClassifier, SelectorMLPClassifier
from selectormlp.benchmark import _DataSet, _prepare_split
from selectormlp.classifiers import _gene_spread
from selectormlp.data import choose_variable_genes, prepare_cells
from selectormlp.evaluation import compare_panels
from selectormlp.files import _fingerprint_cells, _write_json
from selectormlp.masking import masking_curve, random_masking_curve, rank_genes
from selectormlp.peers import choose_with
from selectormlp.selection import select_genes
from selectormlp.simulation import simulate_cells
from selectormlp.split import split_cells
from selectormlp.study import Study, _study_config, _study_steps

FAULTS = {
    "retraining takes validation cells for test cells": "test_leakage.py::test_nothing_before_the_scores_knows_the_"
    "test_cells test_split.py::test_parts_are_asked_for_by_name_so_they_cannot_be_unpacked_in_another_order",
    "per-class accuracy is precision": "test_evaluation.py::test_per_class_accuracy_is_recall_not_precision",
    "masks stop before the last gene": "test_leakage.py::test_a_curve_holds_no_genes_and_all_genes",
    "codes of types per subset": "test_leakage.py::test_a_rare_type_that_a_part_lacks_shifts_no_code",
    "genes and scales before the split": "test_leakage.py::test_genes_scales_and_svm_know_training_cells_only "
    "test_study.py::test_genes_are_chosen_on_training_cells_only",
    "random baseline without a seed": "test_masking.py::test_random_orders_are_repeatable_and_differ "
    "test_leakage.py::test_nothing_draws_from_the_global_seeds",
    "settings that do nothing": "test_study.py::test_every_field_of_the_study_changes_a_table "
    "test_classifiers.py::test_every_setting_of_the_classifier_has_an_effect",
    "pickled models": "test_saving.py::test_the_library_unpickles_nothing",
    "a restart that starts from scratch": "test_resume.py::test_a_training_goes_on_from_its_checkpoint "
    "test_study.py::test_study_that_was_cut_off_ends_with_the_same_tables",
    "GPU only, dense data, one batch per mask": "test_leakage.py::test_sparse_cells_stay_sparse_but_for_a_batch",
    "SVM ranked by coefficients of unscaled genes": "test_leakage.py::test_the_ranking_of_an_svm_is_free_of_units",
}


def test_every_fault_of_the_original_has_its_test() -> None:
    assert len(FAULTS) == 11
    for place in " ".join(FAULTS.values()).split():
        file, name = place.split("::")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), place


@pytest.fixture(scope="module")
def counts() -> AnnData:
    """500 simulated cells of four types, 100 genes."""
    return simulate_cells(n_cells=500, n_genes=100, n_types=4, n_housekeeping=3, library_size=400, size_ratio=3, seed=0)


@pytest.fixture(scope="module")
def split(counts):
    return split_cells(counts, "cell_type")


def spoiled(counts: AnnData, names: np.ndarray, how: str, seed: int) -> AnnData:
    """The same cells, but those named hold other counts."""
    rng, cells = np.random.default_rng(seed), counts.copy()
    values, rows = counts.X.toarray(), counts.obs_names.isin(names)
    some = values[rows]
    other = {
        "noise": lambda: rng.poisson(rng.integers(1, 50), size=some.shape),
        "one gene": lambda: some + 1000 * (np.arange(some.shape[1]) == rng.integers(some.shape[1])),
        "mixed genes": lambda: some[:, rng.permutation(some.shape[1])],
        "mixed cells": lambda: rng.permutation(some),
        "empty genes": lambda: some * (rng.random(some.shape[1]) < 0.5) + (np.arange(some.shape[1]) == 0),
    }
    values[rows] = other[how]()
    cells.X = csr_matrix(values.astype(np.float32))
    return cells


HOWS = st.sampled_from(["noise", "one gene", "mixed genes", "mixed cells", "empty genes"])
quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fitted(cells: AnnData, split) -> dict[str, np.ndarray]:
    """The genes that the training cells choose, and the numbers that they give to the models."""
    cells = prepare_cells(cells, "cell_type")
    genes = choose_variable_genes(split.subset(cells, "train"), 40)
    train, validation = (split.labelled(cells, part, "cell_type", genes) for part in ("train", "validation"))
    model = LinearSVMClassifier().fit(*train, validation=validation, gene_names=genes)
    ranking = rank_genes(model)["gene"].to_numpy()
    return {
        "genes": np.array(genes), "spread": model.gene_spread_, "scale": model.gene_scale_, "weights": model.coef_,
        "ranking": ranking,
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain(counts, split) -> dict[str, np.ndarray]:
    return fitted(counts, split)


@quick
@given(part=st.sampled_from(["validation", "test"]), how=HOWS, seed=st.integers(0, 2**16))
def test_genes_scales_and_svm_know_training_cells_only(part: str, how: str, seed: int, counts, split, plain) -> None:
    other = fitted(spoiled(counts, split.cells(part), how, seed), split)
    for name, value in plain.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_the_training_cells_do_have_a_say(counts, split, plain) -> None:
    """Or else the test above could not fail."""
    other = fitted(spoiled(counts, split.cells("train"), "empty genes", 0), split)
    assert all(not np.array_equal(value, other[name]) for name, value in plain.items())


@settings(quick, max_examples=5)
@given(how=HOWS, seed=st.integers(0, 2**16))
def test_a_panel_does_not_know_the_test_cells(how: str, seed: int, counts) -> None:
    panel = select_genes(counts, "cell_type", 15)
    other = select_genes(spoiled(counts, panel.split.cells("test"), how, seed), "cell_type", 15)
    pd.testing.assert_frame_equal(panel.table, other.table)


def test_the_benchmark_chooses_without_the_test_cells(counts) -> None:
    test = split_cells(counts, "cell_type", min_cells=20, seed=3).cells("test")
    panels = []
    for cells in (counts, spoiled(counts, test, "noise", 0)):
        prepared = _prepare_split(_DataSet("simulated", cells, "cell_type", min_cells=20), 3)
        panels.append([choose_with(name, prepared.train, 10) for name in ("random forest", "t-test")])
    assert panels[0] == panels[1]


# ----------------------------------------------------------------------------------------------------------- a study

QUICK = {
    "n_genes": 40, "max_epochs": 1, "step": 10, "n_orders": 1, "panel_sizes": (10,), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1", "svm_l1"),
}  # fmt: skip


def left_by(cells: AnnData, folder: Path) -> dict[str, bytes]:
    """The files of a study without figures and logs, and without the sum over all values."""
    config = _study_config(cells="pancreas", label_key="cell_type", **QUICK)
    study = Study(config, folder, load=lambda given: cells)
    for name, step in _study_steps(study):
        if not name.startswith("figure") and name != "page":
            step()
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.as_posix(): (folder / path).read_bytes() for path in paths if path.name not in ("data.json",)}


def test_nothing_before_the_scores_knows_the_test_cells(counts, split, tmp_path) -> None:
    """Expression and labels of the test cells change, at the same split: only the scores may."""
    plain = left_by(counts, tmp_path / "plain")
    other = spoiled(counts, split.cells("test"), "mixed genes", 0)
    labels = other.obs["cell_type"].astype(str).to_numpy(dtype=object)
    test = other.obs_names.isin(split.cells("test"))
    labels[test] = np.random.default_rng(0).permutation(labels[test])
    other.obs["cell_type"] = labels
    (tmp_path / "changed").mkdir()
    for name in ("split.csv", "config.json"):
        shutil.copy(tmp_path / "plain" / name, tmp_path / "changed" / name)
    table = pd.read_csv(tmp_path / "plain" / "split.csv", dtype=str)
    table["cell_type"] = other.obs["cell_type"].reindex(table["cell"]).to_numpy()
    table.to_csv(tmp_path / "changed" / "split.csv", index=False)  # a split with other labels would be another run
    _write_json(_fingerprint_cells(other, "cell_type"), tmp_path / "changed" / "data.json")  # and so would other cells
    changed = left_by(other, tmp_path / "changed")
    assert set(changed) == set(plain) and {"genes.csv", "rankings.csv", "masking.csv", "overlap.csv"} < set(plain)
    notes = {"split.csv", "tables.json"}  # the labels themselves, and the digests of all tables
    assert [name for name in plain if plain[name] != changed[name] and name not in notes] == ["scores.csv"]


# ------------------------------------------------------------------------------------------- faults of the original


@pytest.mark.parametrize("step", [7, 50, 1000])
def test_a_curve_holds_no_genes_and_all_genes(step: int, counts, split) -> None:
    cells = prepare_cells(counts, "cell_type")
    train, validation = (split.labelled(cells, part, "cell_type") for part in ("train", "validation"))
    model = LinearSVMClassifier().fit(*train)
    curve = masking_curve(model, *validation, rank_genes(model), step=step)
    random = random_masking_curve(model, *validation, step=step, n_orders=2, seed=0)
    for table in (curve, *(part for _, part in random.groupby("order"))):
        assert table["n_genes"].iloc[0] == 0 and table["n_genes"].iloc[-1] == 100
        assert table["accuracy"].iloc[-1] == model.score(*validation)


@pytest.mark.parametrize("kind", [LinearSVMClassifier, SelectorMLPClassifier])
def test_a_rare_type_that_a_part_lacks_shifts_no_code(kind: type, counts, split) -> None:
    cells = prepare_cells(counts, "cell_type")
    train, validation = (split.labelled(cells, part, "cell_type") for part in ("train", "validation"))
    first = np.unique(train[1])[0]
    some = validation[1] != first
    short = {"max_epochs": 8, "hidden_sizes": (16,)} if kind is SelectorMLPClassifier else {}
    model = kind(**short).fit(*train, validation=(validation[0][some], validation[1][some]))
    assert model.score(validation[0][some], validation[1][some]) > 0.5  # every code after it would be wrong
    if kind is SelectorMLPClassifier:
        last = model.history_["validation_accuracy"].iloc[model.best_epoch_ - 1]
        assert last == pytest.approx(model.score(validation[0][some], validation[1][some]), abs=0.02)


def test_nothing_draws_from_the_global_seeds(counts, split) -> None:
    import torch

    cells = prepare_cells(counts, "cell_type")
    train, validation = (split.labelled(cells, part, "cell_type") for part in ("train", "validation"))

    def outcome(seed: int) -> list[pd.DataFrame]:
        np.random.seed(seed)
        torch.manual_seed(seed)
        network = SelectorMLPClassifier(max_epochs=1, steps_per_epoch=3, hidden_sizes=(8,)).fit(*train)
        random = random_masking_curve(network, *validation, step=50, n_orders=2, seed=0)
        scores = compare_panels(
            {"a": cells.var_names[:5]},
            cells,
            split,
            "cell_type",
            model_settings={"max_epochs": 1, "hidden_sizes": (8,)},
        )
        return [rank_genes(network), random, rank_genes(LinearSVMClassifier().fit(*train)), scores]

    for one, other in zip(outcome(1), outcome(2), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_sparse_cells_stay_sparse_but_for_a_batch(counts, split, monkeypatch) -> None:
    """On any machine: the accelerator is chosen, not named; and no more cells than a batch are dense at a time."""
    cells = prepare_cells(counts, "cell_type")
    train, validation = (split.labelled(cells, part, "cell_type") for part in ("train", "validation"))
    dense, plain = [], csr_matrix.toarray
    monkeypatch.setattr(csr_matrix, "toarray", lambda self, *more, **other: dense.append(self.shape[0]) or plain(self))
    settings = {"max_epochs": 1, "batch_size": 32, "hidden_sizes": (8,)}
    model = SelectorMLPClassifier(protocol="report", **settings).fit(*train, validation=validation)
    assert 32 in dense and max(dense) <= 4096
    monkeypatch.setattr(csr_matrix, "toarray", lambda self, *more, **other: pytest.fail("all cells were made dense"))
    masking_curve(model, *validation, rank_genes(model), step=20)
    model.predict(validation[0])


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
def test_the_ranking_of_an_svm_is_free_of_units(counts, split) -> None:
    cells = prepare_cells(counts, "cell_type")
    X, y = split.labelled(cells, "train", "cell_type")
    spread = _gene_spread(X)
    units = np.where(spread > np.quantile(spread, 0.6), 10.0, 1.0).astype(np.float32)  # the median stays
    scaled = csr_matrix(X.multiply(units))

    def best(protocol: str, x: csr_matrix) -> list[str]:
        return rank_genes(LinearSVMClassifier(protocol=protocol).fit(x, y))["gene"].tolist()[:10]

    assert best("robust", X) == best("robust", scaled)
    assert best("report", X) != best("report", scaled), "the report's own ranking is comparable after all"
