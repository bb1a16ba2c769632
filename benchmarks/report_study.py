"""The report's protocol, to the letter, on two data sets: the tables that the chapters show beside the report's own.

    python benchmarks/report_study.py pancreas            # a few minutes on two cores
    python benchmarks/report_study.py simulated           # half an hour: 40 types x 2,000 genes, 15,000 training cells
    python benchmarks/report_study.py simulated --full    # the report's size, 154,401 + 2 x 30,875 cells: for a GPU

Each run is a study (runs/study_NAME, can be killed and goes on) and leaves its small tables in data/studies/NAME.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from pathlib import Path

import pandas as pd

from selectormlp.simulation import simulate_to_file
from selectormlp.study import Study, StudyConfig, run_study

TABLES = ("masking.csv", "panel_masking.csv", "overlap.csv")
ROOT = Path(__file__).resolve().parent.parent
SIZES = {"simulated": 21_500, "simulated_full": 217_000}


def study_of(name: str) -> StudyConfig:
    """The study's configuration; simulated cells are written first where they are missing."""
    if name == "pancreas":
        return StudyConfig("pancreas", "cell_type", protocol="report", panel_sizes=(200, 100))
    path = Path("runs") / f"{name}.h5ad"
    if not path.exists():
        simulate_to_file(path, n_cells=SIZES[name], n_genes=2000, n_types=40, seed=0)
    return StudyConfig(path.as_posix(), "cell_type", protocol="report", panel_sizes=(200, 100))


def curves(study: Study) -> pd.DataFrame:
    """Learning curves of all networks in one table."""
    names = dict.fromkeys([*study.config.ablations, *study.config.conditions])
    networks = [name for name in names if not name.startswith("svm")]
    return pd.concat([study.history(name).assign(model=name) for name in networks], ignore_index=True)


def main() -> None:
    """Run one study and copy what is small."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["pancreas", "simulated"])
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    name = f"{arguments.name}_full" if arguments.full else arguments.name
    study = run_study(study_of(name), Path("runs") / f"study_{name}")
    folder = ROOT / "data" / "studies" / f"{name}_report"
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        shutil.copy(study.folder / table, folder / table)
    curves(study).to_csv(folder / "curves.csv", index=False, float_format="%.4g")
    study.test_accuracy().to_csv(folder / "test_accuracy.csv", index=False, float_format="%.4g")
    about = {
        "command": f"python benchmarks/report_study.py {arguments.name}" + " --full" * arguments.full,
        "cells": study.split().counts().sum().to_dict(),
        "types": len(study.types()),
        "genes": len(study.genes()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(study.test_accuracy().round(3).to_string(index=False))


if __name__ == "__main__":
    main()
