"""The study: it leaves what it promises, goes on where it stopped, and keeps to its folder."""

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from selectormlp.data import InputError
from selectormlp.files import _read_json, _write_json
from selectormlp.panels import GenePanel
from selectormlp.signatures import _READING
from selectormlp.simulation import simulate_cells
from selectormlp.study import Study, StudyConfig, _study_config, _study_steps, run_study


@pytest.fixture(scope="module")
def counts() -> AnnData:
    """700 simulated cells of four types, 120 genes."""
    return simulate_cells(n_cells=700, n_genes=120, n_types=4, n_housekeeping=5, library_size=400, size_ratio=3, seed=0)


QUICK = {
    "n_genes": 60, "max_epochs": 1, "step": 20, "n_orders": 2, "panel_sizes": (20, 10), "ablations": ("mlp",),
    "conditions": ("selector_l1", "svm_l1"), "panel_conditions": ("selector_l1", "svm_l1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def config(counts, tmp_path_factory) -> StudyConfig:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    counts.write_h5ad(path)
    return _study_config(cells=str(path), label_key="cell_type", **QUICK)


@pytest.fixture(scope="module")
def study(config, tmp_path_factory) -> Study:
    return run_study(config, tmp_path_factory.mktemp("run"), progress=False)


def tables_of(config: StudyConfig, folder: Path) -> dict[str, bytes]:
    """What a study leaves without its figures, which take longer than the rest."""
    for name, step in _study_steps(Study(config, folder)):
        if not name.startswith("figure") and name != "page":
            step()
    return tables(folder)


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a run folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.csv")
        if "logs" not in path.parts
    }


def test_study_leaves_what_it_promises(study) -> None:
    names = {path.name for path in study.folder.iterdir()}
    assert names >= {
        "config.json",
        "split.csv",
        "genes.csv",
        "models",
        "rankings.csv",
        "masking.csv",
        "panels",
    }
    assert names >= {"panel_masking.csv", "overlap.csv", "scores.csv", "figures", "report.html"}
    assert {path.name for path in (study.folder / "figures").iterdir()} == {f"figure{i}.png" for i in range(1, 7)}
    masking = study.masking()
    assert {0, 60} <= set(masking["n_genes"])
    assert set(study.scores()["type"]) == set(study.types())
    assert len(pd.read_csv(study.folder / "panels" / "selector_l1_top20.csv")) == 20
    assert not list(study.folder.rglob("*.ckpt")) and not list(study.folder.rglob(".*"))


def test_study_that_was_cut_off_ends_with_the_same_tables(config, study, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(study.folder, copy)
    for name in ("rankings.csv", "masking.csv", "scores.csv", "panel_masking.csv"):
        (copy / name).unlink()
    for name in ("models/svm_l1", "models/mlp", "models/selector_l1_top10", "panels"):
        shutil.rmtree(copy / name)
    assert tables_of(config, copy) == tables(study.folder)


def test_genes_are_chosen_on_training_cells_only(config, counts, study, tmp_path) -> None:
    changed = counts.copy()
    test = changed.obs_names.isin(study.split().cells("test"))
    values = changed.X.toarray()
    values[test] = np.random.default_rng(1).poisson(3, size=values[test].shape)
    changed.X = sparse.csr_matrix(values.astype(np.float32))
    changed.write_h5ad(tmp_path / "cells.h5ad")
    other = Study(replace(config, cells=str(tmp_path / "cells.h5ad")), tmp_path / "run")
    assert other.genes() == study.genes()
    np.testing.assert_array_equal(other.model("svm_l1").coef_, study.model("svm_l1").coef_)


EFFECTS = {
    "protocol": "report", "seed": 1, "max_train": 20, "max_validation": 8, "max_test": 5, "min_cells": 130,
    "n_genes": 50,
    "conditions": ("svm_l1", "selector_l1"), "ablations": ("mlp_nothing",), "max_epochs": 2, "step": 30, "n_orders": 1,
    "panel_conditions": ("svm_l1",), "panel_sizes": (15,), "panel_step": 7,
}  # fmt: skip
INPUTS = {"cells", "label_key", "labels"}


def test_every_field_of_the_study_is_tried() -> None:
    assert set(EFFECTS) | INPUTS | set(_READING) == {field.name for field in fields(StudyConfig)}


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.filterwarnings("ignore:Liblinear failed", "ignore:types with fewer")
def test_every_field_of_the_study_changes_a_table(name: str, config, study, tmp_path) -> None:
    after = tables_of(replace(config, **{name: EFFECTS[name]}), tmp_path)
    before = {name: table for name, table in tables(study.folder).items() if name != "cell_map.csv"}
    assert after != before


def test_a_study_works_with_the_values_that_are_asked_for(config, counts, tmp_path) -> None:
    """A layer, and types to leave out; they are kept in the folder, and others are another run."""
    order = np.random.default_rng(0).permutation(counts.n_vars)
    both, alone = counts.copy(), counts[counts.obs["cell_type"] != "type_03"].copy()
    both.layers["twisted"], alone.X = both.X[:, order].copy(), alone.X[:, order].copy()
    both.write_h5ad(tmp_path / "both.h5ad")
    alone.write_h5ad(tmp_path / "alone.h5ad")
    asked = replace(config, cells=str(tmp_path / "both.h5ad"), layer="twisted", drop_types=("type_03",))
    with pytest.warns(UserWarning, match="cells have no label"):
        study = Study(asked, tmp_path / "run")
        genes = study.genes()
    right = Study(replace(config, cells=str(tmp_path / "alone.h5ad")), tmp_path / "right")
    assert study.types() == right.types() == ["type_00", "type_01", "type_02"] and genes == right.genes()
    assert _read_json(tmp_path / "run" / "config.json")["layer"] == "twisted"
    with pytest.raises(InputError, match="holds another run: its layer is 'twisted', not None"):
        Study(replace(asked, layer=None), tmp_path / "run")


def test_folder_of_another_run_or_of_changed_cells_is_refused(config, counts, study, tmp_path) -> None:
    with pytest.raises(InputError, match=r"holds another run: its seed is 0, not 5; choose another folder"):
        Study(replace(config, seed=5), study.folder)
    shutil.copytree(study.folder, tmp_path / "run")
    path = tmp_path / "cells.h5ad"
    shutil.copy(config.cells, path)
    moved = replace(config, cells=str(path))
    run = Study(moved, tmp_path / "new")
    run.split()
    counts[:650].copy().write_h5ad(path)
    with pytest.raises(InputError, match="its n_cells is 700, not 650"):
        _ = Study(moved, tmp_path / "new").cells


def test_study_that_cannot_start_leaves_nothing(config, tmp_path) -> None:
    with pytest.raises(InputError):
        run_study(replace(config, label_key="celltype"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_epoch": 1}, "did you mean 'max_epochs'?"),
        ({"protocol": "fast"}, "protocol is 'fast'"),
        ({"conditions": ["mpl"]}, "there is no condition 'mpl'"),
        ({"conditions": ["mlp"], "panel_conditions": ["svm_l1"]}, "not in conditions"),
        ({"ablations": ["svm_l1"]}, "ablations names 'svm_l1', which trains in no epochs"),
        ({"join": "all"}, "join is 'all'; it must be one of 'inner', 'outer'"),
        ({"step": 0}, "of at least 1"),
    ],
)
def test_config_refusals(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        _study_config(cells="pancreas", label_key="cell_type", **settings)


@pytest.mark.parametrize(("protocol", "twin"), [("robust", "mlp_final"), ("report", "mlp_no_batch_norm")])
def test_two_names_of_one_training_are_trained_once(protocol: str, twin: str, config, tmp_path) -> None:
    conditions = {"conditions": ("mlp", "svm_l1"), "panel_conditions": ("mlp",), "panel_sizes": (10,)}
    ablations = ("mlp_final", "mlp_no_batch_norm")
    study = Study(replace(config, protocol=protocol, ablations=ablations, **conditions), tmp_path)
    other = next(name for name in ablations if name != twin)
    assert [study.trained_as(name) for name in ("mlp", twin, other, "svm_l1")] == ["mlp", "mlp", other, "svm_l1"]
    trained = [name for name, _ in _study_steps(study) if name.startswith("train")]
    assert sorted(trained) == sorted(["train mlp", "train svm_l1", f"train {other}"])
    pd.testing.assert_frame_equal(study.history(twin), study.history("mlp"))
    assert not study.history(other).equals(study.history("mlp"))
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"mlp", other}


def test_a_study_keeps_the_loss_under_masks(study) -> None:
    for table in (study.masking(), study.panel_masking()):
        told = table.groupby("model")["loss"]
        assert told.apply(lambda loss: loss.notna().all())["selector_l1"]
        assert told.apply(lambda loss: loss.isna().all())["svm_l1"]


def test_a_run_that_an_earlier_version_wrote_opens_and_goes_on(tmp_path) -> None:
    """The folder holds a run of format 1, of the version that introduced it; every later version must open it."""

    def absent(config: StudyConfig) -> AnnData:
        raise AssertionError("everything is there: the cells are not needed")

    folder = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "models" / "study_format_1", folder)
    before = tables(folder)
    opened = Study(_study_config(**_read_json(folder / "config.json")), folder, load=absent)
    assert opened.types() == ["type_00", "type_01", "type_02"] and len(opened.genes()) == 20
    assert opened.model("svm_l1").gene_names_.tolist() == opened.genes() and len(opened.panel("svm_l1", 5)) == 5
    shown = [opened.ranking("svm_l1"), opened.masking(), opened.panel_masking(), opened.overlap(), opened.scores()]
    assert all(len(table) for table in shown) and opened.test_accuracy()["mean_per_class_accuracy"].gt(0.3).all()
    assert tables(folder) == before


def test_a_run_without_a_setting_that_came_later_has_its_default(config, tmp_path) -> None:
    _write_json({"cells": config.cells, "label_key": config.label_key, "n_genes": 60}, tmp_path / "config.json")
    Study(_study_config(cells=config.cells, label_key=config.label_key, n_genes=60), tmp_path)
    with pytest.raises(InputError, match="its panel_step is 5, not 7"):
        Study(_study_config(cells=config.cells, label_key=config.label_key, n_genes=60, panel_step=7), tmp_path)


def test_a_run_of_a_newer_version_is_refused(config, tmp_path) -> None:
    _write_json({"format_version": 99}, tmp_path / "config.json")
    with pytest.raises(InputError, match="a newer version wrote the run in .*; update selectormlp"):
        Study(config, tmp_path)


def test_a_study_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="study_config needs 'cells'; add it"):
        _study_config(label_key="cell_type")


def test_panel_of_one_method_scores_like_any_other(study) -> None:
    panel = GenePanel(pd.DataFrame({"gene": study.genes()[:10]}))
    assert study.model("svm_l1", panel).coef_.shape[1] == 10
