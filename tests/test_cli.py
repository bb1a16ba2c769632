"""The command line: every command, every setting, every error."""

import gzip
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import anndata
import numpy as np
import pandas as pd
import pytest

from selectormlp import cli, collection, files, original
from selectormlp.data import InputError, data_folder
from selectormlp.panels import read_panel
from selectormlp.selection import PanelDesign, remake_panel, select_genes
from selectormlp.simulation import SimulationRecipe, simulate_cells
from selectormlp.study import StudyConfig

SPLIT = {
    "adata_path": "cells.h5ad", "y_column": "cell_type", "train_cluster_size": 40, "val_cluster_size": 9,
    "test_cluster_size": 9, "min_cluster_size": 5, "save_dir": "split_data", "shuffle": True, "shuffle_seed": 1,
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "restart": False, "log_dir": "logs", "trained_models_dir": "best", "seed": 1,
    "data": {"input_dir": "split_data", "y_column": "cell_type", "torch_sparsity_type": "dense",
             "train_cluster_size": 30, "val_cluster_size": 8, "test_cluster_size": 8},
    "dataloader": {"batch_size": 32, "num_workers": 1, "shuffle_train": True, "shuffle_val": False},
    "model": {"name": "Tiny", "selector_type": "std", "L1_size": 8, "L2_size": 6, "L3_size": 5, "leak_angle": 0.2,
              "penalty": "L1", "batch_norm": True},
    "training": {"lr": 0.01, "weight_decay": 0.3, "dropout": 0.1, "batch_norm": True, "noise_std": 0.2,
                 "max_epochs": 3, "alpha": 0.1},
    "svm": {"loss": "squared_hinge", "penalty": "L1", "dual": False, "C": 1.0, "max_iter": 200},
    "checkpoint": {"dir": "checkpoints", "restart_run": "last", "save_top_k": 1, "save_last": True},
}  # fmt: skip
MASKING = {
    "model_path": "best/Tiny_best_model", "adata_input": "split_data/adata_val.h5ad", "y_column": "cell_type",
    "results_dir": "results", "group_size": 20, "random_reps": 2, "seed": 0,
}  # fmt: skip
Outputs = dict[str, dict[str, bytes]]
ORIGINALS = ["split_data", "train", "feature_selection"]
COMMANDS = ["select", "score", "compare", "report", "book", "predict", "order", "simulate", *ORIGINALS]


def tiny_cells() -> anndata.AnnData:
    """Simulate cells of three types, with a second label column."""
    cells = simulate_cells(240, 60, 3, n_housekeeping=5, library_size=300.0, size_ratio=3.0, seed=0)
    cells.obs["group"] = np.where(np.arange(cells.n_obs) % 2, "odd", "even")
    cells.obs["lineage"] = np.where(cells.obs["cell_type"] == cells.obs["cell_type"].iloc[0], "one", "two")
    return cells


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with cells, a split and two trained models: what the tests start from."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_cells().write_h5ad("cells.h5ad")
        for name, settings in {"split": SPLIT, "train": TRAIN, "masking": MASKING}.items():
            Path(f"{name}.json").write_text(json.dumps(settings))
        assert cli.main(["split_data", "--config", "split.json"]) == 0
        assert cli.main(["train", "--config", "train.json"]) == 0
        assert cli.main(["train", "--config", "train.json", "--model_type", "svm"]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a fresh folder that holds the cells, the split and the models, but no logs."""
    for name in ("cells.h5ad", "split.json", "train.json", "masking.json"):
        (tmp_path / name).symlink_to(made / name)
    for name in ("split_data", "best"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path, ignore: str = r"\.(json|png|ckpt|h5ad)$|metrics|hparams") -> dict[str, bytes]:
    """Read the files below a folder, but not those that hold times or settings."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tfevents" not in path.name]
    files = [path for path in files if not any(part.is_symlink() for part in (path, *path.parents))]
    names = {str(path.relative_to(folder)): path for path in files}
    return {name: b"" if re.search(ignore, name) else path.read_bytes() for name, path in names.items()}


def changed(settings: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """Copy settings with one key changed: "training.lr" is in a section."""
    copy = json.loads(json.dumps(settings))
    section, _, name = key.rpartition(".")
    (copy[section] if section else copy)[name] = value
    return copy


def run_with(command: str, settings: dict[str, Any], *more: str) -> dict[str, bytes]:
    """Run a command with settings from a file, and return the files that it leaves."""
    Path("given.json").write_text(json.dumps(settings))
    assert cli.main([command, "--config", "given.json", *more]) == 0
    return contents(Path.cwd())


# What is there


def test_help_is_quick_and_names_every_command() -> None:
    code = "import selectormlp.cli, sys; selectormlp.cli.main(['--help']); print('LOADED', *sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    text, _, loaded = said.partition("LOADED")
    assert all(f"    {name}" in text for name in COMMANDS)
    assert not {"torch", "pandas", "numpy", "scipy", "sklearn", "anndata", "matplotlib"} & set(loaded.split())


def test_version_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    from selectormlp import __version__

    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    command = [sys.executable, "-m", "selectormlp", "--version"]
    assert __version__ in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    parser = cli._make_parser([command])
    assert parser.wanted and all(parser.wanted.values())
    for name in parser.wanted:
        assert re.search(rf"(--)?{re.escape(name)}( [A-Z0-9_{{\[].*?)? [a-z'].+\(", said), name


@pytest.mark.parametrize("settings", [StudyConfig, SimulationRecipe, PanelDesign])
def test_help_texts_are_those_of_the_fields(settings: type) -> None:
    parser = cli._CommandParser()
    cli._add_fields(parser, settings)
    said = {action.dest: action.help for action in parser._actions}
    assert all(each.metadata["help"] and said[each.name] == each.metadata["help"] for each in fields(settings))


# The commands


def select(out: str, *more: str) -> pd.DataFrame:
    """Choose a panel, without a page."""
    line = ["select", "cells.h5ad", "--label-key", "cell_type", "--out", out, "--n-genes", "8", "--page", "false"]
    assert cli.main([*line, *more]) == 0
    return pd.read_csv(out)


def test_select_writes_and_prints_the_panel(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panel = select("deep/panel.csv", "--must-include", "gene_01", "gene_02", "--exclude", "^gene_1.", "gene_20")
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == panel["gene"].tolist() and "deep/panel.csv" in said[-1]
    assert len(panel) == 8 and {"gene_01", "gene_02"} <= set(panel["gene"])
    assert not panel["gene"].str.match("gene_1.|gene_20").any()


@pytest.mark.parametrize("more", [
    ["--label_key", "group"], ["--n_genes", "9"], ["--must_include", "gene_00"], ["--exclude", "gene_[0-3]"],
    ["--method", "svm_l2"], ["--seed", "3"], ["--min_cells", "60"], ["--n_variable", "20"], ["--labels", "labels.csv"],
    ["--extend", "given.txt"], ["--candidates", "given.txt"], ["--min_detected", "0.6"], ["--max_expression", "4"],
    ["--max_total", "900"], ["--min_markers", "3"], ["--type_weights", '{"type_00": 40}'], ["--groups", "lineage"],
    ["--batch_key", "group"],
    ["--groups", "lineage", "--sibling_cost", "0"], ["--batch_key", "group", "--test_batches", "odd"],
], ids=lambda more: more[0])  # fmt: skip
def test_select_options_have_an_effect(here: Path, more: list[str]) -> None:
    labels = anndata.read_h5ad("cells.h5ad").obs["cell_type"].astype(str)
    labels.sample(frac=1, random_state=0).set_axis(labels.index).to_csv("labels.csv")
    Path("given.txt").write_text("".join(f"gene_{i:02}\n" for i in range(12)))
    assert not select("base.csv").equals(select("other.csv", *more))


@pytest.mark.parametrize(
    "more",
    [
        [], ["--method", "svm_l2"], ["--batch_key", "group", "--test_batches", "odd"], ["--groups", "lineage"],
        ["--labels", "labels.csv"],
    ],
    ids=["plain", "model", "donors", "groups", "labels"],
)  # fmt: skip
def test_select_chooses_the_same_from_disk(here: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    labels = anndata.read_h5ad("cells.h5ad").obs["cell_type"].astype(str)
    labels.rename("cell_type").to_csv("labels.csv")
    in_memory = select("memory.csv", *more)
    assert "read from disk" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(select("disk.csv", "--on-disk", "yes", *more), in_memory, rtol=1e-4)
    assert "cells are read from disk in blocks (all into memory: --on-disk no)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*Zarr|.*zarr")
def test_files_kept_gene_by_gene_are_worked_on_from_disk(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy.sparse import csc_matrix

    cells = anndata.read_h5ad("cells.h5ad")
    cells.X = csc_matrix(cells.X)
    cells[:150].copy().write_h5ad("one.h5ad")
    cells[150:, ::-1].copy().write_zarr("two.zarr")
    files, types = ["one.h5ad", "two.zarr"], {}
    for on_disk in ("no", "yes"):
        line = ["select", *files, "--label-key", "cell_type", "--n-genes", "8", "--out", f"{on_disk}.csv"]
        assert cli.main([*line, "--page", "false", "--on-disk", on_disk]) == 0
        line = ["predict", *files, "--model", "best/Tiny_best_model", "--out", f"{on_disk}_types.csv"]
        assert cli.main([*line, "--on-disk", on_disk]) == 0
        said = capsys.readouterr()
        types[on_disk] = pd.read_csv(f"{on_disk}_types.csv")
        assert ("keeps its values gene by gene (CSC)" in said.err) == (on_disk == "yes")
        assert ("240 cells are read from disk in blocks" in said.out) == (on_disk == "yes")
    pd.testing.assert_frame_equal(pd.read_csv("no.csv"), pd.read_csv("yes.csv"), rtol=1e-4)
    pd.testing.assert_frame_equal(types["no"], types["yes"], rtol=1e-4)


def test_processes_are_said_and_can_be_set(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cells = anndata.AnnData(np.ones((2, 2), dtype=np.float32))
    monkeypatch.setattr("joblib.effective_n_jobs", lambda n: 8 + 1 + n)
    for fit, expected in ((3, 3), (100, 8), (1, 1)):
        monkeypatch.setattr("selectormlp.sources._processes_that_fit", lambda cells, fit=fit: fit)
        assert cli._processes(-1, cells) == expected and cli._processes(5, cells) == 5
        said = capsys.readouterr().out
        assert said == ("" if fit == 1 else f"{expected} processes ask the page's questions (one alone: --n-jobs 1).\n")
    assert cli._processes(-6, cells) == 1 and cli._SelectOptions.n_jobs == -1
    with pytest.raises(InputError, match="n_jobs is 0; pass 1 or more"):
        cli._processes(0, cells)


def test_select_from_disk_writes_its_page(here: Path) -> None:
    select("disk.csv", "--on-disk", "yes", "--page", "true")
    page = (here / "disk_report" / "panel.html").read_bytes()
    select("two.csv", "--on-disk", "yes", "--page", "true", "--n-jobs", "2")
    assert (here / "two_report" / "panel.html").read_bytes() == page


def test_report_reads_the_cells_that_its_split_can_use(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selectormlp.split import split_cells

    read: list[anndata.AnnData] = []

    def run_study(config: StudyConfig, folder: str, *, load: Any) -> Any:
        read.append(load(config))
        return SimpleNamespace(folder=Path(folder))

    monkeypatch.setattr("selectormlp.study.run_study", run_study)
    caps = {"max_train": 20, "max_validation": 4, "max_test": 4, "seed": 2}
    words = [f"--{name}={value}" for name, value in caps.items()]
    for on_disk in ("no", "yes"):
        line = ["report", "cells.h5ad", "--label-key", "cell_type", "--on-disk", on_disk, "--out", "r", *words]
        assert cli.main(line) == 0
    assert read[1].n_obs == 3 * 28 < read[0].n_obs and read[1].n_vars == read[0].n_vars
    pd.testing.assert_frame_equal(*(split_cells(cells, "cell_type", **caps).table for cells in read))


def test_select_passes_the_protocol_to_a_model(here: Path) -> None:
    panels = [select(f"{p}.csv", "--method", "svm_l1", "--protocol", p) for p in ("robust", "report")]
    assert not panels[0].equals(panels[1])


def test_select_extends_a_panel_by_n_genes(here: Path) -> None:
    select("one.csv")
    assert select("two.csv", "--extend", "one.csv")["gene"].tolist()[:8] == pd.read_csv("one.csv")["gene"].tolist()
    assert len(pd.read_csv("two.csv")) == 16


def test_a_list_to_build_on_gets_as_many_more_as_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gene = tiny_cells().var_names[2]
    Path("list.txt").write_text(f"{gene}\n{gene.upper()}\nNOT-THERE\n")  # two names of one gene
    table = select("more.csv", "--extend", "list.txt", "--n-genes", "3")
    assert table["gene"].tolist()[:2] == [gene, "NOT-THERE"] and len(table) == 5
    line = ["select", "--config", "more.json", "--out", "again.csv", "--page", "false"]
    assert cli.main(line) == 0 and Path("again.csv").read_bytes() == Path("more.csv").read_bytes()
    panel = select_genes("cells.h5ad", "cell_type", 4, must_include={"type_01": [gene]})
    panel.to_csv("python.csv")
    line[2] = "python.json"
    assert cli.main(line) == 2 and "was made in Python: make it anew there" in capsys.readouterr().err


def test_select_writes_a_page_with_its_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    select("my.panel.csv", "--page", "true")
    folder = Path("my.panel_report")
    assert f"{folder / 'panel.html'}" in capsys.readouterr().out
    page = (folder / "panel.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == len(list(folder.glob("*.png"))) >= 5
    links = set(re.findall(r"https?://([^/\"]+)", page))  # which a reader may follow; see test_trust for requests
    assert links == {"www.ensembl.org", "www.genecards.org"} and 'src="http' not in page
    assert pd.read_csv(folder / "panel.csv").equals(pd.read_csv("my.panel.csv"))


def test_a_panel_is_made_anew_from_its_json_file_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--on-disk", "yes", "--type-weights", '{"type_01": 2}'], ["--method", "svm_l1"]):
        select("first.csv", *more)
        Path("other").mkdir(exist_ok=True)
        line = ["select", "--config", "first.json", "--out", "other/again.csv", "--page", "false"]
        assert cli.main(line) == 0
        assert Path("other/again.csv").read_bytes() == Path("first.csv").read_bytes()
        first, again = (json.loads(Path(name).read_text()) for name in ("first.json", "other/again.json"))
        assert first == again
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir("other")  # files are found from the panel's folder too
            assert remake_panel("../first.json").genes == first["genes"]
    capsys.readouterr()
    cells = tiny_cells()
    cells.X[0, 0] += 1
    Path("cells.h5ad").unlink()
    cells.write_h5ad("cells.h5ad")
    assert cli.main(line) == 2 and "is not the file that the panel was made from" in capsys.readouterr().err


@pytest.mark.parametrize("on_disk", ["no", "yes"])
def test_probes_and_prices_come_from_a_file_and_a_base_list_keeps_its_genes(
    on_disk: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vendor's list with a gene that the cells lack, and a table of genes: the same from the json, or refused."""
    names = tiny_cells().var_names.tolist()
    Path("base.csv").write_text(f"Gene Name,Annotation\n{names[3]},x\nNOT-THERE,\n{names[5]},\n")
    table = pd.DataFrame({"gene_symbol": [*names[1:], "NOBODY"], "probes": range(len(names)), "note": "none"})
    with gzip.open("probes.csv.gz", "wt") as file:
        file.write(table.to_csv(index=False))
    few = len(names) // 2
    more = ["--extend", "base.csv", "--gene-table", "probes.csv.gz", "--probes-key", "probes", "--on-disk", on_disk]
    select("panel.csv", *more, "--min-probes", str(few), "--costs", '{"probes": 0.3}')
    said = capsys.readouterr().err
    assert f"gene table: {len(names) - 1} of {len(names)} genes are in 'probes.csv.gz'" in said
    assert "in the order, not judged (not in the data): 'NOT-THERE'" in said
    genes = read_panel("panel.csv").genes
    assert genes[:3] == [names[3], "NOT-THERE", names[5]]
    assert len(genes) > 4 and all(names.index(gene) > few for gene in genes[3:])  # the first has no row, so no probes
    line = ["select", "--config", "panel.json", "--out", "again.csv", "--page", "false"]
    assert cli.main(line) == 0 and read_panel("again.csv").genes == genes
    assert remake_panel("panel.json").genes == genes
    with gzip.open("probes.csv.gz", "wt") as file:
        file.write(table.assign(probes=1).to_csv(index=False))
    assert (
        cli.main(line) == 2
        and "'probes.csv.gz' is not the file that the panel was made from" in capsys.readouterr().err
    )
    for wrong, words in (("Path,n\nx,1\n", "has no column of genes"), (f"gene\n{names[0]}\n", "no column of numbers")):
        Path("wrong.csv").write_text(wrong)
        assert cli.main([*SELECT.split()[:-2], "--out", "w.csv", "--gene-table", "wrong.csv"]) == 2
        assert words in capsys.readouterr().err and not Path("w.csv").exists()
    assert cli.main([*SELECT.split()[:-2], "--out", "wrong.csv", "--gene-table", "wrong.csv"]) == 2
    assert Path("wrong.csv").read_text().startswith("gene\n")  # what is read is not replaced


RULES = [each.name for each in fields(PanelDesign)]


@pytest.mark.parametrize("method", ["discriminant", "svm_l1", "selector_l1"])
def test_every_misspelt_rule_is_refused_with_the_right_name(
    method: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rule in [*RULES, "model_settings", "max_epochs", "extend", "labels"]:
        wrong = rule[:-1] if len(rule) > 5 else rule + "z"
        line = ["select", "cells.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--method", method]
        assert cli.main([*line, f"--{wrong}", "1"]) == 2
        said = capsys.readouterr().err
        assert f"there is no {wrong!r} here" in said and f"did you mean {rule!r}?" in said, said
    assert not Path("p.csv").exists()


@pytest.mark.parametrize("method", ["discriminant", "svm_l1"])
def test_epochs_of_a_model_without_any_are_refused(method: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["select", "cells.h5ad", "--label-key", "cell_type", "--out", "p.csv", "--method", method]
    assert cli.main([*line, "--max-epochs", "3"]) == 2
    assert "max_epochs" in capsys.readouterr().err and not Path("p.csv").exists()
    line = ["report", "cells.h5ad", "--label-key", "cell_type", "--out", "run", "--model", "svm_l1"]
    assert cli.main([*line, "--max-epochs", "3"]) == 2 and "trains in no epochs" in capsys.readouterr().err


def test_lists_of_genes_may_be_files(here: Path) -> None:
    genes = tiny_cells().var_names
    Path("must.txt").write_text("\n".join(genes[3:5]) + "\n")
    Path("out.csv").write_text("gene\n" + "\n".join(genes[6:9]) + "\n")
    table = select("listed.csv", "--must-include", "must.txt", genes[0], "--exclude", "out.csv")
    assert table["gene"].tolist()[:3] == [*genes[3:5], genes[0]] and not set(genes[6:9]) & set(table["gene"])


def test_select_wants_the_column_of_the_donors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SELECT.split(), "--test_batches", "x"]) == 2
    assert "--test-batches needs --batch-key" in capsys.readouterr().err


def test_select_trains_for_so_many_epochs(here: Path) -> None:
    panels = [select(f"{n}.csv", "--method", "mlp", "--max-epochs", str(n)) for n in (1, 2)]
    assert not panels[0].equals(panels[1])


def test_simulate_takes_every_setting_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("selectormlp.simulation.simulate_to_file", lambda path, **given: seen.update(given, path=path))
    recipe = SimulationRecipe()
    for field in fields(SimulationRecipe):
        value = getattr(recipe, field.name)
        values = ["1"] * 10 if value is None else [str(round(value * 1.5) + 1 if isinstance(value, int) else value / 2)]
        assert cli.main(["simulate", "--out", "x.h5ad", f"--{field.name}", *values]) == 0
        assert seen[field.name] != value, field.name
    assert cli.main(["simulate", "--out", "x.h5ad", "--chunk-size", "7"]) == 0
    assert seen["chunk_size"] == 7 and seen["path"] == "x.h5ad"


def test_simulate_writes_cells(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    assert cli.main(["simulate", "--out", str(path), "--n-cells", "90", "--n-genes", "100", "--n-types", "3"]) == 0
    assert anndata.read_h5ad(path).shape == (90, 100)


def test_report_takes_every_setting_of_a_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[StudyConfig] = []

    def run_study(config: StudyConfig, folder: str, *, load: Any) -> Any:
        seen.append(config)
        return type("Study", (), {"folder": Path(folder)})

    monkeypatch.setattr("selectormlp.study.run_study", run_study)
    base = StudyConfig("cells.h5ad", "cell_type")
    values: dict[str, Any] = {
        "label_key": "group", "labels": "l.csv", "protocol": "report", "seed": 5, "max_train": 11, "max_validation": 7,
        "max_test": 6, "min_cells": 9, "n_genes": 30, "conditions": ("selector_l1", "mlp", "svm_l1"),
        "ablations": ("mlp", "mlp_no_noise"), "max_epochs": 2, "step": 7, "n_orders": 3,
        "panel_conditions": ("mlp",), "panel_sizes": (20, 10), "panel_step": 2, "layer": "spliced", "use_raw": True,
        "values": "log", "gene_names": "symbol", "join": "outer", "drop_types": ("doublet", "Unknown"),
        "make_unique": True,
    }  # fmt: skip
    assert set(values) | {"cells"} == {field.name for field in fields(StudyConfig)}
    for name, value in values.items():
        words = [] if value is True else [str(item) for item in (value if isinstance(value, tuple) else (value,))]
        assert cli.main(["report", "cells.h5ad", "--label-key", "cell_type", f"--{name}", *words, "--out", "r"]) == 0
        assert seen[-1] == replace(base, **{name: value})
    Path("study.json").write_text(json.dumps({"cells": "cells.h5ad", "label_key": "cell_type", **values}))
    assert cli.main(["report", "--config", "study.json", "--out", "r"]) == 0
    assert seen[-1] == replace(base, **values)
    Path("study.json").write_text(json.dumps(asdict(replace(base, use_raw=False))))
    assert cli.main(["report", "--config", "study.json", "--out", "r"]) == 0
    assert seen[-1] == replace(base, use_raw=False)
    assert cli.main(["report", "pbmc68k", "--out", "r"]) == 0
    assert (seen[-1].cells, seen[-1].label_key) == ("pbmc68k", "bulk_labels")


def test_report_runs_and_says_where_things_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["report", "cells.h5ad", "--label-key", "cell_type", "--out", "run", "--max-epochs", "1"]
    line += ["--conditions", "mlp", "--ablations", "mlp", "--panel-conditions", "mlp", "--panel-sizes", "10"]
    for _ in range(2):
        assert cli.main(line) == 0
        said = capsys.readouterr()
        assert "run/figures" in said.out and "run/report.html" in said.out and "step" in said.err
    assert Path("run/report.html").exists() and Path("run/figures/figure6.png").exists()
    assert cli.main([*line, "--seed", "4"]) == 2
    assert "another run" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "absent"), [("tabnet", "figure2 figure3"), ("first", "figure2 figure3"),
                                               ("svm_l1", "figure2 figure3 figure4")])  # fmt: skip
def test_report_with_one_model_shows_that_model_alone(here: Path, model: str, absent: str) -> None:
    line = ["report", "cells.h5ad", "--label-key", "cell_type", "--out", "run", "--step", "30"]
    sizes = ["--panel-sizes", "20", "10", "--panel-step", "10", "--n-orders", "1"]
    epochs = [] if model == "svm_l1" else ["--max-epochs", "1"]
    assert cli.main([*line, "--model", model, *sizes, *epochs]) == 0
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert f"<code>{model}</code>" in page and "Do the models agree" not in page
    idle = int((pd.read_csv(f"run/panels/{model}_top20.csv")["reason"] == "no weight").sum())
    assert (f"<b>{idle} of these genes have no weight" in page) == (idle > 0)
    assert sorted(path.name for path in Path("run/models").iterdir()) == [model, f"{model}_top10", f"{model}_top20"]
    drawn = {path.stem for path in Path("run/figures").iterdir()}
    assert {f"figure{i}" for i in range(1, 7)} - drawn == set(absent.split())


def test_book_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("selectormlp.book.run_book", lambda *given, **more: seen.append((given, more)) or "index.html")
    out = str(tmp_path / "book")
    assert cli.main(["book", "pbmc68k", "--out", out, "--protocol", "report", "--seed", "3"]) == 0
    assert seen == [(("pbmc68k", "bulk_labels", out), {"protocol": "report", "seed": 3, "on_disk": "auto"})]


def test_book_keeps_the_cells_that_a_split_can_take(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from selectormlp import book, sources

    monkeypatch.setattr(book, "_book_chapters", list)
    monkeypatch.setattr(book, "_render_book", lambda out, index: out / "site" / "index.html")
    line = ["book", "cells.h5ad", "--label-key", "cell_type"]
    for out, more in (("yes", ["--on-disk", "yes"]), ("no", ["--on-disk", "no"]), ("auto", [])):
        assert cli.main([*line, *more, "--out", out]) == 0
    said = capsys.readouterr().err
    assert "of 240 cells the 240 that a split can take are read; the book keeps them" in said
    assert [Path(out, "cells.h5ad").exists() for out in ("yes", "no", "auto")] == [True, False, False]
    few, cells = anndata.read_h5ad("yes/cells.h5ad"), anndata.read_h5ad("cells.h5ad")
    assert few.obs_names.equals(cells.obs_names) and (few.X != cells.X).nnz == 0 and "lineage" in few.obs
    monkeypatch.setattr(sources, "_available_memory", lambda: 1)
    for out in ("yes", "auto"):  # a book goes on as it began, whatever memory there is now
        assert cli.main([*line, "--out", out]) == 0
    assert not Path("auto", "cells.h5ad").exists()
    assert cli.main([*line, "--out", "new"]) == 0
    assert Path("new", "cells.h5ad").exists()


def test_predict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = anndata.read_h5ad("cells.h5ad")
    cells[:, 3:].copy().write_h5ad("fewer.h5ad")
    for source, missing in (("cells.h5ad", 0), ("fewer.h5ad", 3)):
        line = ["predict", source, "--model", "best/Tiny_best_model", "--out", f"{missing}.csv"]
        assert cli.main(line) == 0
        assert f"{missing} of the model's 60 genes are missing" in capsys.readouterr().out
    table = pd.read_csv("0.csv")
    assert list(table) == ["cell", "cell_type", "probability"] and table["cell"].tolist() == cells.obs_names.tolist()
    assert cli.main([*line, "--probabilities"]) == 0
    shares = pd.read_csv("3.csv").filter(like="probability_")
    assert shares.shape[1] == 3 and np.allclose(shares.sum(axis=1), 1, atol=1e-4)
    assert cli.main([*line, "--max-missing", "0.01"]) == 2
    assert cli.main(["predict", "cells.h5ad", "--model", "best/SVM_best_model", "--out", "svm.csv"]) == 0
    assert list(pd.read_csv("svm.csv")) == ["cell", "cell_type"]
    capsys.readouterr()
    disk = ["predict", "cells.h5ad", "--model", "best/Tiny_best_model", "--on-disk", "yes", "--out", "disk.csv"]
    assert cli.main(disk) == 0 and "read from disk" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv("disk.csv"), table, rtol=1e-4)


def test_predict_writes_the_next_types_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "cells.h5ad", "--model", "best/Tiny_best_model", "--probabilities", "--out"]
    assert cli.main([*line, "top.csv", "--top", "2"]) == cli.main([*line, "one.csv"]) == 0
    top, one = pd.read_csv("top.csv"), pd.read_csv("one.csv")
    assert list(top)[:5] == ["cell", "cell_type", "probability", "cell_type_2", "probability_2"]
    pd.testing.assert_frame_equal(top.drop(columns=["cell_type_2", "probability_2"]), one)
    shares = top.filter(regex="^probability_(?!2)").to_numpy()
    np.testing.assert_allclose(np.sort(shares, axis=1)[:, -2], top["probability_2"], rtol=1e-5)
    named = [row[f"probability_{row['cell_type_2']}"] for _, row in top.iterrows()]
    np.testing.assert_allclose(named, top["probability_2"], rtol=1e-5)
    capsys.readouterr()
    for wrong, said in {"top.h5ad --top 2": "leave out --top", "top.csv --top 4": "ask for 1 to 3"}.items():
        assert cli.main([*line, *wrong.split()]) == 2 and said in capsys.readouterr().err


def test_predict_takes_a_model_of_a_collection(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    model = collection.open_model("best/Tiny_best_model")
    monkeypatch.setattr(collection.ModelCollection, "load", lambda self, name: asked.append((self.url, name)) or model)
    line = ["predict", "cells.h5ad", "--out", "far.csv", "--model", "https://example.org/models/tiny"]
    assert cli.main(line) == 0 and asked == [("https://example.org/models", "tiny")]


def test_predict_writes_the_cells_with_their_types(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "cells.h5ad", "--model", "best/Tiny_best_model", "--out"]
    assert cli.main([*line, "named.h5ad"]) == cli.main([*line, "named.csv"]) == 0
    named, cells = anndata.read_h5ad("named.h5ad"), anndata.read_h5ad("cells.h5ad")
    assert named.obs["predicted_type"].astype(str).tolist() == pd.read_csv("named.csv")["cell_type"].tolist()
    assert (named.X != cells.X).nnz == 0 and named.obs["cell_type"].equals(cells.obs["cell_type"])
    capsys.readouterr()
    again = ["predict", "named.h5ad", "--model", "best/Tiny_best_model", "--out", "twice.h5ad"]
    assert cli.main(again) == 2 and "has a column 'predicted_type' already" in capsys.readouterr().err


# The original's three steps


def test_the_example_workflow_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data_folder() / "example_workflow", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    size = ["--n-cells", "400", "--n-genes", "120", "--n-types", "4", "--library-size", "400"]
    assert cli.main(["simulate", "--out", "cells.h5ad", *size]) == 0
    assert cli.main(["split_data", "--config", "split.json"]) == 0
    for model, folder in (("selector_mlp", "SelectorMLP"), ("svm", "SVM")):
        quick = ["--training.max_epochs", "4"]
        assert cli.main(["train", "--config", "train.json", "--model_type", model, *quick]) == 0
        path = ["--model_path", f"trained_models/{folder}_best_model", "--model_type", model]
        assert cli.main(["feature_selection", "--config", "feature_selection.json", *path]) == 0
        for kind in ("ranked_genes", "feature_selection_results"):
            for ending in ("csv", "png"):
                assert Path(f"feature_selection_results/{model}_{kind}.{ending}").stat().st_size > 100
        assert json.loads(Path(f"logs/{folder}/summary.json").read_text())["test"]["cells"] > 10
    table = pd.read_csv("feature_selection_results/svm_feature_selection_results.csv")
    assert table["n_genes"].tolist() == [0, 50, 100, 120]
    assert Path("logs/SelectorMLP/accuracy_plot.png").exists() and Path("logs/SelectorMLP/loss_plot.png").exists()
    assert len(list(Path("trained_models/checkpoints/SelectorMLP").glob("*.ckpt"))) == 4


def test_the_originals_own_settings_and_workflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data_folder() / "example_workflow" / "original", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    cells = simulate_cells(400, 60, 3, library_size=400, size_ratio=2)
    cells.obs["Main_cluster_name"] = cells.obs.pop("cell_type")
    cells.write_h5ad("cells.h5ad")
    less = {"split_data": ["--adata_path", "cells.h5ad", "--min_cluster_size", "10"],
            "train": ["--training.max_epochs", "1"]}  # fmt: skip
    script = Path("workflow.sh").read_text().replace("\\\n", " ")
    lines = [line.split()[1:] for line in script.splitlines() if line.startswith("selectormlp ")]
    assert [line[0] for line in lines] == ["split_data", "train", "train", "feature_selection", "feature_selection"]
    for line in lines:
        assert cli.main([*line, *less.get(line[0], [])]) == 0
    settings = json.loads(Path("logs/SelectorMLP/config.json").read_text())
    assert (settings["training"]["alpha"], settings["training"]["batch_norm"]) == (0.05, False)
    assert len(pd.read_csv("feature_selection_results/selector_mlp_ranked_genes.csv")) == 60
    Path("trained_models/other.pkl").write_bytes(b"")
    selected = ["feature_selection", "--config", "feature_selection.json", "--model_type", "svm"]
    assert cli.main([*selected, "--model_path", "trained_models/other.pkl"]) == 2


def test_the_example_files_hold_every_key_of_the_original() -> None:
    kinds = {
        "split": original._SplitStep,
        "train": original._TrainStep,
        "feature_selection": original._FeatureSelectionStep,
    }
    for name, kind in kinds.items():
        keys = set(files._flat_settings(json.loads((data_folder() / "example_workflow" / f"{name}.json").read_text())))
        parser = cli._CommandParser()
        cli._add_fields(parser, kind)
        assert keys <= set(parser.wanted)
        assert set(parser.wanted) - keys <= {"model_type", "seed", "svm.max_iter"}


@pytest.mark.parametrize("form", ["h5ad", "gene by gene"])
def test_the_three_steps_read_from_disk_what_they_read_into_memory(
    here: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    from scipy.sparse import csc_matrix

    cells = anndata.read_h5ad("cells.h5ad")
    cells.obs.loc[cells.obs_names[3], "cell_type"] = np.nan
    if form != "h5ad":
        cells.X = csc_matrix(cells.X)
    cells.write_h5ad("some.h5ad")
    results = {}
    for on_disk in ("no", "yes"):
        (here / on_disk).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here / on_disk)
            run_with("split_data", {**SPLIT, "adata_path": "../some.h5ad"}, "--on-disk", on_disk)
            run_with("train", TRAIN, "--on-disk", on_disk)
            run_with("train", TRAIN, "--on-disk", on_disk, "--model_type", "svm")
            run_with("feature_selection", MASKING, "--on-disk", on_disk)
            results[on_disk] = contents(Path.cwd())
        said = capsys.readouterr().out.count("are read from disk in blocks")
        assert said == (8 if on_disk == "yes" else 0)
    assert set(results["yes"]) == set(results["no"])
    for name in ("split_data/split.csv", "logs/Tiny/history.csv", "results/selector_mlp_ranked_genes.csv"):
        assert results["yes"][name] == results["no"][name], name
    for part in original._PART_FILES.values():
        found, expected = (anndata.read_h5ad(here / on_disk / "split_data" / part) for on_disk in ("yes", "no"))
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        assert found.var_names.equals(expected.var_names) and abs(found.X - expected.X).max() < 1e-6
    tables = [name for name in results["no"] if name.endswith(".csv")]
    assert any(name.endswith("feature_selection_results.csv") for name in tables)
    for name in tables:
        pd.testing.assert_frame_equal(pd.read_csv(here / "yes" / name), pd.read_csv(here / "no" / name), rtol=1e-3)


def test_a_capped_type_is_split_from_disk_though_fewer_of_its_cells_are_read(here: Path) -> None:
    step = {**SPLIT, "min_cluster_size": 60, "shuffle": False}
    run_with("split_data", {**step, "save_dir": "whole"}, "--on-disk", "no")
    run_with("split_data", {**step, "save_dir": "parts"}, "--on-disk", "yes")
    assert Path("whole/split.csv").read_bytes() == Path("parts/split.csv").read_bytes()


def test_settings_of_a_split_do_not_ask_how_it_was_read(here: Path) -> None:
    assert cli.main(["split_data", "--config", "split.json", "--on-disk", "yes"]) == 0
    assert cli.main(["split_data", "--config", "split.json", "--on-disk", "no"]) == 0


@pytest.mark.parametrize(("key", "value"), [
    ("adata_path", "half.h5ad"), ("y_column", "group"), ("train_cluster_size", 20), ("val_cluster_size", 5),
    ("test_cluster_size", 5), ("min_cluster_size", 60), ("save_dir", "other"), ("shuffle", False), ("shuffle_seed", 2),
])  # fmt: skip
def test_split_keys_have_an_effect(here: Path, key: str, value: object) -> None:
    cells = anndata.read_h5ad("cells.h5ad")
    cells[::2].copy().write_h5ad("half.h5ad")
    base = {name: data for name, data in contents(here).items() if name.endswith("split.csv")}
    shutil.rmtree("split_data")
    after = run_with("split_data", changed(SPLIT, key, value))
    assert {name: data for name, data in after.items() if name.endswith("split.csv")} != base


TRAIN_CHANGES: list[tuple[str, object]] = [
    ("log_dir", "elsewhere"), ("trained_models_dir", "models"), ("seed", 2), ("data.input_dir", "second"),
    ("data.y_column", "group"), ("data.train_cluster_size", 10), ("data.val_cluster_size", 4),
    ("data.test_cluster_size", 0), ("dataloader.batch_size", 16), ("model.name", "Other"),
    ("model.selector_type", "clamped"), ("model.selector_type", "none"), ("model.L1_size", 9), ("model.L2_size", 9),
    ("model.L3_size", 9), ("model.leak_angle", 0.4), ("model.penalty", "L2"), ("model.batch_norm", False),
    ("training.lr", 0.02), ("training.weight_decay", 0.0), ("training.dropout", 0.5), ("training.batch_norm", False),
    ("training.noise_std", 0.0), ("training.max_epochs", 2), ("training.alpha", 5.0), ("checkpoint.dir", "kept"),
    ("checkpoint.save_top_k", 2), ("checkpoint.save_last", False),
]  # fmt: skip
SVM_CHANGES: list[tuple[str, object]] = [("svm.penalty", "L2"), ("svm.C", 0.01), ("svm.max_iter", 2)]
REFUSED: list[tuple[str, object]] = [
    ("dataloader.shuffle_train", False), ("dataloader.shuffle_val", True), ("svm.loss", "hinge"), ("svm.dual", True),
    ("checkpoint.save_top_k", -2), ("training.dropout", 1.0),
]  # fmt: skip
ELSEWHERE = {"restart", "data.torch_sparsity_type", "dataloader.num_workers", "checkpoint.restart_run"}


def test_every_key_of_train_is_tested() -> None:
    tested = {key for key, _ in TRAIN_CHANGES + SVM_CHANGES + REFUSED} | ELSEWHERE
    assert tested == set(files._flat_settings(TRAIN))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Train both models with the unchanged settings: what changed ones are compared with."""
    found = {}
    for kind in ("selector_mlp", "svm"):
        folder = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            (folder / "split_data").symlink_to(made / "split_data")
            found[kind] = run_with("train", TRAIN, "--model_type", kind)
    return found


@pytest.fixture
def split_only(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a fresh folder that holds two splits."""
    (tmp_path / "split_data").symlink_to(made / "split_data")
    (tmp_path / "cells.h5ad").symlink_to(made / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_repeats_itself(split_only: Path, trained: Outputs) -> None:
    assert run_with("train", TRAIN) == trained["selector_mlp"]


@pytest.mark.parametrize(("key", "value"), TRAIN_CHANGES)
def test_train_keys_have_an_effect(
    split_only: Path, tmp_path_factory: pytest.TempPathFactory, trained: Outputs, key: str, value: object
) -> None:
    if key == "data.input_dir":
        second = tmp_path_factory.mktemp("second")
        line = ["split_data", "--config", str((split_only / "split_data").resolve().parent / "split.json")]
        assert cli.main([*line, "--shuffle_seed", "7", "--save_dir", str(second)]) == 0
        (split_only / "second").symlink_to(second)
    if key == "data.y_column":
        copied = tmp_path_factory.mktemp("copied") / "split_data"
        shutil.copytree(split_only / "split_data", copied)
        (split_only / "split_data").unlink()
        (split_only / "split_data").symlink_to(copied)
    assert run_with("train", changed(TRAIN, key, value)) != trained["selector_mlp"]


@pytest.mark.parametrize(("key", "value"), SVM_CHANGES)
@pytest.mark.filterwarnings("ignore:Liblinear")
def test_svm_keys_have_an_effect(split_only: Path, trained: Outputs, key: str, value: object) -> None:
    assert run_with("train", changed(TRAIN, key, value), "--model_type", "svm") != trained["svm"]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_settings_that_would_do_nothing_are_refused(
    split_only: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    Path("given.json").write_text(json.dumps(changed(TRAIN, key, value)))
    assert cli.main(["train", "--config", "given.json"]) == 2
    assert key in capsys.readouterr().err
    assert not Path("logs").exists()


def test_cells_are_dense_or_sparse_and_threads_are_counted(split_only: Path) -> None:
    import torch
    from scipy.sparse import issparse

    data = original._DataSection("split_data", "cell_type")
    assert isinstance(original._read_part(original._TrainStep(data), "train").X, np.ndarray)
    assert issparse(original._read_part(original._TrainStep(replace(data, torch_sparsity_type="csr")), "train").X)
    before = torch.get_num_threads()
    with original._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_restart_goes_on(split_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "--config", "given.json"]
    Path("given.json").write_text(json.dumps(TRAIN))
    assert cli.main([*line, "--restart"]) == 2
    assert "no last checkpoint" in capsys.readouterr().err
    assert cli.main(line) == 0
    first = pd.read_csv("logs/Tiny/history.csv")
    assert cli.main([*line, "--restart", "--training.max_epochs", "5"]) == 0
    longer = pd.read_csv("logs/Tiny/history.csv")
    assert longer["epoch"].tolist() == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(longer.head(3), first)
    Path("checkpoints/Tiny/last.ckpt").unlink()
    best = changed(changed(TRAIN, "restart", True), "checkpoint.restart_run", "best")
    Path("given.json").write_text(json.dumps(best))
    assert cli.main([*line, "--training.max_epochs", "6"]) == 0
    assert pd.read_csv("logs/Tiny/history.csv")["epoch"].iloc[-1] == 6
    assert cli.main([*line, "--training.lr", "0.5"]) == 2
    assert "another run" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [
    ("model_path", "best/SVM_best_model"), ("adata_input", "split_data/adata_test.h5ad"), ("results_dir", "other"),
    ("group_size", 30), ("random_reps", 3), ("seed", 1),
])  # fmt: skip
def test_feature_selection_keys_have_an_effect(here: Path, key: str, value: object) -> None:
    base = run_with("feature_selection", MASKING)
    shutil.rmtree("results")
    assert run_with("feature_selection", changed(MASKING, key, value)) != base


def test_feature_selection_checks_what_it_is_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["feature_selection", "--config", "masking.json"]
    for more, said in (
        (["--model_type", "svm"], "of type 'selector_mlp'"),
        (["--y_column", "group"], "does not know"),
        (["--model_path", "other.pkl"], "could run code"),
    ):
        assert cli.main([*line, *more]) == 2
        assert said in capsys.readouterr().err
    assert not Path("results").exists()


# Errors

SELECT = "select cells.h5ad --label-key cell_type --out out.csv "
MODEL = "--model best/Tiny_best_model --out out.csv"
ERRORS = {
    "": "name a command",
    "selct": "there is no 'selct' here; did you mean 'select'?",
    "select --out out.csv": "name the cells",
    "select cells.h5ad --out out.csv": "--label_key",
    "select cels.h5ad --label-key cell_type --out out.csv": "'cels.h5ad' does not exist; did you mean 'cells.h5ad'?",
    "select cut.h5ad --label-key cell_type --out out.csv": "cannot read 'cut.h5ad'",
    "select cells.h5ad --label-key celltype --out out.csv": "did you mean 'cell_type'?",
    "select one.h5ad --label-key cell_type --out out.csv": "one type only, 'only'",
    "select scaled.h5ad --label-key cell_type --out out.csv": "scaled",
    "select rare.h5ad --label-key cell_type --out out.csv --min-cells 2": "3",
    SELECT + "--n-genes 61": "61 genes was asked for, and there are 60",
    SELECT + "--n-genes 0": "n_genes is 0; it must be a whole number of at least 1",
    SELECT + "--n-genes x": "n_genes is 'x', but it must be a whole number of at least 1",
    SELECT + "--max-epochs 3": "model_settings (max_epochs) belong to a classifier",
    SELECT + "--protocol report": "protocol='report' has no effect beside method='discriminant'",
    SELECT + "--n-geens 5": "there is no 'n_geens' here; did you mean 'n_genes'?",
    SELECT + "--protocol reprot": "protocol is 'reprot'; it must be one of 'robust', 'report'; did you mean 'report'?",
    SELECT + "--n-genes 8 --method selektor": "selektor",
    SELECT + "--must-include gene_0": "gene_0",
    SELECT + "--exclude (": "not a regular expression",
    SELECT + "--seed": "--seed needs a value",
    "select cells.h5ad --label-key cell_type --out cells.h5ad": "is the file of cells",
    "select cells.h5ad --label-key cell_type --out cells.h5ad/panel.csv": "cannot write 'cells.h5ad/panel.csv'",
    "select cells.h5ad --label-key cell_type --out best": "is a folder",
    "select cells.h5ad --label-key cell_type --out panel.xlsx": "ends in .csv; choose another name",
    "select cells.h5ad --label-key cell_type --out panel": "what is written here ends in .csv; choose another name",
    "predict cells.h5ad --model best/Tiny_best_model --out out.tsv": "ends in .csv or .h5ad",
    "simulate --out new.csv": "ends in .h5ad",
    "select --config misspelt.json": "there is no 'n_geens' here; did you mean 'n_genes'?",
    "select --config single.json": "must_include is 'gene_01' in 'single.json'; write a list",
    "report cells.h5ad --label-key celltype --out run": "did you mean 'cell_type'?",
    "report cells.h5ad --label-key cell_type --out run --conditions selektor": "selektor",
    "report cells.h5ad --label-key cell_type --out cells.h5ad": "it is the file of cells that is read",
    "book cells.h5ad --label-key celltype --out book": "did you mean 'cell_type'?",
    "book one.h5ad --label-key cell_type --out book": "one type only",
    "predict cells.h5ad --model nowhere --out out.csv": "nowhere",
    "predict fewer.h5ad " + MODEL: "of the 60 genes over which the model's values were normalised",
    "predict scaled.h5ad " + MODEL: "scaled",
    "predict cells.h5ad --model best/SVM_best_model --probabilities --out out.csv": "leave out --probabilities",
    "predict cells.h5ad --model best/SVM_best_model --top 2 --out out.csv": "leave out --top",
    "predict cells.h5ad --model http://example.org/mlp --out out.csv": "begins with https://",
    "simulate --out cells.txt": "cells.txt",
    "simulate --out new.h5ad --n-cells 2": "n_cells is 2",
    "simulate --out cells.h5ad/new.h5ad": "cannot write",
    "split_data --config split.json --train_cluster_size 7": "another run: its train_cluster_size is 40, not 7",
    "split_data --config split.json --adata_path scaled.h5ad --save_dir new": "scaled",
    "train --config section.json": "there is no 'data.input_dri' here; did you mean 'data.input_dir'?",
    "train --config broken.json": "'broken.json' is not a readable JSON file",
    "train --config list.json": "'list.json' does not hold settings",
    "train --config nothing.json": "'nothing.json' does not exist",
    "train --config text.json": "training.lr is 'fast', but it must be a number above 0",
    "train --config train.json --seed 1.5": "seed is '1.5', but it must be a whole number of 0 or more",
    "train --config train.json --data.input_dir nowhere": "nowhere",
    "train --config train.json --log_dir cells.h5ad/logs": "cannot write",
    "train --config train.json again": "'again' is too much",
    "train": "this must be given, as an option or in --config: data.input_dir, data.y_column",
    "feature_selection --config masking.json --group_size 0": "group_size is '0'",
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of things that cannot be worked with."""
    folder = tmp_path_factory.mktemp("faulty")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    cells = tiny_cells()
    types = cells.obs["cell_type"].astype(str)
    for name, labels in {"one": ["only"] * len(types), "rare": ["rare", "rare", *types[2:]]}.items():
        adata = anndata.AnnData(cells.X, obs=cells.obs.assign(cell_type=labels), var=cells.var[[]])
        adata.write_h5ad(folder / f"{name}.h5ad")
    anndata.AnnData(cells.X.toarray() - 1.5, obs=cells.obs, var=cells.var[[]]).write_h5ad(folder / "scaled.h5ad")
    cells[:, :20].copy().write_h5ad(folder / "fewer.h5ad")
    (folder / "cut.h5ad").write_bytes((made / "cells.h5ad").read_bytes()[:9000])
    texts = {"misspelt": '{"n_geens": 5}', "single": '{"must_include": "gene_01"}', "broken": '{"data":', "list": "[1]",
             "section": '{"data": {"input_dri": "x"}}', "text": '{"training": {"lr": "fast"}}'}  # fmt: skip
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    return folder


@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_sentence(
    faulty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.chdir(faulty)
    before = contents(faulty)
    assert cli.main(line.split()) == 2
    said = capsys.readouterr()
    (sentence,) = [text for text in said.err.splitlines() if text.startswith("selectormlp: error: ")]
    assert ERRORS[line] in sentence and len(sentence) < 500
    assert said.err.splitlines()[-1] == sentence and "Traceback" not in said.err
    assert said.out == "" and contents(faulty) == before


def test_faults_of_the_program_can_be_traced(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise KeyError("deep\ninside")

    monkeypatch.setattr("selectormlp.selection._choose_panel", fail)
    assert cli.main(SELECT.split()) == 2
    assert capsys.readouterr().err.count("selectormlp: error: ") == 1
    with pytest.raises(KeyError):
        cli.main(["--traceback", *SELECT.split()])


@pytest.mark.parametrize("lightning", [False, True])
def test_stopped_from_the_keyboard(here: Path, monkeypatch: pytest.MonkeyPatch, lightning: bool) -> None:
    def stop(*given: object, **more: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if lightning:  # Lightning exits with 1 when Ctrl-C is pressed
                raise SystemExit(1)  # noqa: B904
            raise

    monkeypatch.setattr("selectormlp.selection._choose_panel", stop)
    assert cli.main(SELECT.split()) == 130
    assert not Path("out.csv").exists()


def test_stopped_by_a_scheduler_or_with_a_reason(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    for stop, status in ((SIGTERMException(), 143), (SystemExit("no"), 1), (SystemExit(5), 5), (SystemExit(), 0)):
        monkeypatch.setattr("selectormlp.selection._choose_panel", Mock(side_effect=stop))
        assert cli.main(SELECT.split()) == status


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with cli._one_line_warnings():
        warnings.warn("two\nlines", stacklevel=1)
        warnings.warn("for programmers", FutureWarning, stacklevel=1)
    assert stream.getvalue() == "selectormlp: warning: two lines\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_main_tells_what_was_asked_for_and_leaves_the_log_as_it_was(
    verbose: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("selectormlp")
    before = library.level, list(library.handlers)
    assert cli.main([*(["--verbose"] if verbose else []), "train", "--config", "train.json"]) == 0
    assert (library.level, library.handlers) == before
    shown = capsys.readouterr()
    assert ("Epoch" in shown.out + shown.err) == verbose  # Lightning's bar
    assert cli.main(["split_data", "--config", "split.json", "--save_dir", "again"]) == 0
    assert "values: X, raw counts, 60 genes" in capsys.readouterr().err  # what was taken is told either way


def test_options_after_the_config_win(here: Path) -> None:
    settings = {"cells": ["cells.h5ad"], "label_key": "cell_type", "n_genes": 4, "method": "svm_l1"}
    Path("select.json").write_text(json.dumps(settings))
    assert cli.main(["select", "--config", "select.json", "--n-genes", "6", "--out", "panel.csv"]) == 0
    assert len(pd.read_csv("panel.csv")) == 6
