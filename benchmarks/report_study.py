"""The report's protocol, to the letter, on two data sets: the tables that the chapters show beside the report's own.

    python benchmarks/report_study.py pancreas            # a few minutes on two cores
    python benchmarks/report_study.py simulated           # half an hour: 40 types x 2,000 genes, 15,339 training cells
    python benchmarks/report_study.py simulated --full    # the report's size, 154,401 + 2 x 30,875 cells: some hours

Each run is a study (runs/study_NAME, or in the folder --runs) that can be killed and goes on when the same command is
given again. The networks that say most come first and the L1 SVM, the slowest, last; what there is so far lies in
the study's folder tables/ (`--so-far` copies them), and at the end in data/studies/NAME_report. seconds.csv there says
what each part took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from watch import PartLog, Watch

from selectormlp.classifiers import GeneClassifier
from selectormlp.files import _write_table
from selectormlp.masking import random_masking_curve
from selectormlp.panels import GenePanel, panel_from_ranking, panel_overlap
from selectormlp.simulation import simulate_to_file
from selectormlp.study import _MEAN, Study, StudyConfig, _only_run, run_study

ROOT = Path(__file__).resolve().parent.parent
FIRST = ("mlp", "selector_l1", "selector_none", "selector_clamped_l1", "selector_l2")
# Cells to simulate. By the report's rule, int(5000 n / 7000) of a type of n cells, 411,802 cells of 40 types whose
# sizes fall by 18 in all give its own numbers: 154,401 training cells, and 30,875 for validation and for testing.
SIMULATED = {
    "simulated": {"n_cells": 21_500},
    "simulated_full": {"n_cells": 411_802, "size_ratio": 18.0},
    "simulated_tiny": {"n_cells": 3_000},  # to try out the script itself
}


class WatchedStudy(Study):
    """A study that, where the truth is known, watches each network of all genes find the planted markers."""

    @cached_property
    def is_marker(self) -> np.ndarray | None:
        """Whether each of the study's genes was planted as a marker; None for real cells."""
        truth = self.cells.var.loc[self.genes()]
        return truth["is_marker"].to_numpy() if "is_marker" in truth else None

    watching = False

    def _fit(self, condition: str, panel: GenePanel | None, folder: Path) -> None:
        network = panel is None and not condition.startswith("svm")
        self.watching = network and self.config.protocol == "report" and self.is_marker is not None
        try:
            super()._fit(condition, panel, folder)
        finally:
            self.watching = False

    def _unfitted(self, condition: str) -> GeneClassifier:
        model = super()._unfitted(condition)
        if self.watching:
            self._watch(model, condition)
        return model

    def _watch(self, model: GeneClassifier, condition: str) -> None:
        x, y = self.part("validation")
        path = self.folder / "watched" / f"{condition}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        watch = Watch(path, x, np.searchsorted(self.types(), y), self.is_marker)
        model.set_params(trainer_arguments={"callbacks": [watch]})


def study_of(name: str, folder: Path, protocol: str, epochs: int | None) -> StudyConfig:
    """The study's configuration."""
    cells = "pancreas" if name == "pancreas" else (folder / f"{name}.h5ad").as_posix()
    return StudyConfig(cells, "cell_type", protocol=protocol, panel_sizes=(200, 100), max_epochs=epochs)


def simulate(name: str, path: Path) -> None:
    """Write the simulated cells, where they are not there yet."""
    if not path.exists():
        simulate_to_file(path, n_genes=2000, n_types=40, seed=0, **SIMULATED[name])


def parts_of(study: Study) -> list[tuple[str, Callable[[], object]]]:
    """What the study does, by name, what says most first: each part leaves its files in the study's folder."""
    config, folder = study.config, study.folder / "parts"
    known = [name for name in FIRST if name in config.conditions]
    networks = [*known, *(name for name in config.ablations if study.trained_as(name) == name)]
    machines = [name for name in ("svm_l2", "svm_l1") if name in config.conditions]
    parts: list[tuple[str, Callable[[], object]]] = []

    def leave(table: str, compute: Callable[[], pd.DataFrame]) -> None:
        if not (folder / table).exists():
            folder.mkdir(exist_ok=True)
            _write_table(compute(), folder / table)

    def add(table: str, name: str, compute: Callable[[str], pd.DataFrame]) -> None:
        told = f"{table} {name}".replace("_", " ", 1)
        parts.append((told, partial(leave, f"{table}_{name}.csv", lambda: compute(name))))

    for name in dict.fromkeys([*networks, *machines]):
        parts.append((f"train {name}", partial(study.model, name)))
        if name in config.conditions:
            add("masking", name, study.masking_of)
        if name in config.panel_conditions:
            for size in study.panel_sizes():
                parts.append((f"retrain {name} on {size} genes", partial(study.retrained, name, size)))
            add("panel_masking", name, study.panel_masking_of)
            add("scores", name, study.scores_of)
        if name == config.panel_conditions[0]:
            add("random", name, partial(random_orders, study))
    return parts


def random_orders(study: Study, condition: str) -> pd.DataFrame:
    """Masking curves of random orders, as the study has them."""
    config, cells = study.config, study.part("validation")
    return random_masking_curve(
        study.model(condition), *cells, step=config.step, n_orders=config.n_orders, seed=config.seed, loss=True
    )


def so_far(study: Study) -> None:
    """The tables of the parts that are done, in the study's folder tables/."""
    parts, folder = study.folder / "parts", study.folder / "tables"
    folder.mkdir(exist_ok=True)

    def joined(table: str, **marks: object) -> list[pd.DataFrame]:
        files = sorted(parts.glob(f"{table}_*.csv"))
        names = [path.stem.removeprefix(f"{table}_") for path in files]
        return [pd.read_csv(path).assign(model=name, **marks) for path, name in zip(files, names, strict=True)]

    tables = {
        "masking.csv": [*joined("masking", order=-1), *joined("random")],
        "panel_masking.csv": joined("panel_masking", order=-1),
        "test_accuracy.csv": [means(table) for table in [pd.read_csv(path) for path in parts.glob("scores_*.csv")]],
        "curves.csv": [
            study.history(name).assign(model=name)
            for name in dict.fromkeys([*study.config.conditions, *study.config.ablations])
            if not name.startswith("svm") and (study.folder / "models" / name / "config.json").exists()
        ],
        "markers.csv": watched(study),
        "overlap.csv": overlaps(study),
    }
    for name, found in tables.items():
        if found:
            pd.concat(found, ignore_index=True).to_csv(folder / name, index=False, float_format="%.4g")
    shutil.copy(study.folder / "seconds.csv", folder / "seconds.csv")


def overlaps(study: Study) -> list[pd.DataFrame]:
    """Genes that the best 200 of the models trained so far share."""
    largest = max(study.panel_sizes())
    trained = [name for name in study.config.conditions if (study.folder / "models" / name / "config.json").exists()]
    panels = {name: panel_from_ranking(study.ranking(name), largest) for name in trained}
    return [panel_overlap(panels).rename_axis("model").reset_index()] if len(panels) > 1 else []


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean per-class accuracy of each model and condition."""
    return scores.groupby(["model", "condition"], sort=False)["recall"].mean().rename(_MEAN).reset_index()


def watched(study: Study) -> list[pd.DataFrame]:
    """What was watched of each network of all genes."""
    files = sorted((study.folder / "watched").glob("*.csv"))
    return [pd.read_csv(path).assign(model=path.stem) for path in files]


def curves(study: Study) -> pd.DataFrame:
    """Learning curves of all networks in one table."""
    names = dict.fromkeys([*study.config.ablations, *study.config.conditions])
    networks = [name for name in names if not name.startswith("svm")]
    return pd.concat([study.history(name).assign(model=name) for name in networks], ignore_index=True)


def keep(study: Study, folder: Path, about: dict[str, object]) -> None:
    """Copy what is small of a study that is done, and say what it was."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in ("masking.csv", "panel_masking.csv"):
        pd.read_csv(study.folder / table).to_csv(folder / table, index=False, float_format="%.5g")
    shutil.copy(study.folder / "overlap.csv", folder / "overlap.csv")
    shutil.copy(study.folder / "seconds.csv", folder / "seconds.csv")
    curves(study).to_csv(folder / "curves.csv", index=False, float_format="%.4g")
    study.test_accuracy().to_csv(folder / "test_accuracy.csv", index=False, float_format="%.4g")
    if watched(study):
        pd.concat(watched(study)).to_csv(folder / "markers.csv", index=False, float_format="%.4g")
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")


def told_of(study: Study, command: str) -> dict[str, object]:
    """What a study was, for its tables."""
    return {
        "command": command,
        "cells": study.split().counts().sum().to_dict(),
        "types": len(study.types()),
        "genes": len(study.genes()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def keep_so_far(study: Study, log: PartLog, folder: Path, about: dict[str, object]) -> None:
    """Copy the tables of the parts that are done, and say which are lacking."""
    so_far(study)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (study.folder / "tables").glob("*.csv"):
        shutil.copy(path, folder / path.name)
    lacking = [told for told, _ in parts_of(study) if not log.done(told)]
    (folder / "about.json").write_text(json.dumps(about | {"lacking": lacking}, indent=2) + "\n")


def main() -> None:
    """Run one study and copy what is small."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["pancreas", "simulated", "simulated_tiny"])
    parser.add_argument("--full", action="store_true", help="the report's number of cells")
    parser.add_argument("--protocol", choices=["report", "robust"], default="report")
    parser.add_argument("--epochs", type=int, help="fewer epochs, to try the command out")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the cells and of the study")
    parser.add_argument("--tables", type=Path, default=ROOT / "data" / "studies", help="folder of the tables")
    parser.add_argument("--so-far", action="store_true", help="run nothing; copy the tables of what is done so far")
    arguments = parser.parse_args()
    name = f"{arguments.name}_full" if arguments.full else arguments.name
    folder = arguments.runs / (f"study_{name}" if arguments.protocol == "report" else f"study_{name}_robust")
    config = study_of(name, arguments.runs, arguments.protocol, arguments.epochs)
    folder.mkdir(parents=True, exist_ok=True)
    log, tables = PartLog(folder / "seconds.csv"), arguments.tables / f"{name}_{arguments.protocol}"
    flags = " --full" * arguments.full + " --protocol robust" * (arguments.protocol == "robust")
    command = f"python benchmarks/report_study.py {arguments.name}{flags}"
    if arguments.so_far:
        study = WatchedStudy(config, folder)
        keep_so_far(study, log, tables, told_of(study, command))
        return
    with _only_run(folder):
        if name in SIMULATED and not log.done("simulate"):
            with log.part("simulate"):
                simulate(name, Path(config.cells))
        study = WatchedStudy(config, folder)
        with log.part("read, split, choose genes"):
            study.part("train", study.genes())
        for told, part in parts_of(study):
            if not log.done(told):
                print(told, flush=True)
                with log.part(told):
                    part()
                so_far(study)
    with log.part("figures and page"):
        run_study(config, folder, progress=False)
    study = Study(config, folder)
    keep(study, tables, told_of(study, command))
    print(study.test_accuracy().round(3).to_string(index=False))


if __name__ == "__main__":
    main()
