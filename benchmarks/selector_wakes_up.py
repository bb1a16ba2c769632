"""When does the report's selector find the genes? Its training at growing numbers of steps, where the truth is known.

    python benchmarks/selector_wakes_up.py            # some ten minutes on one quiet core
    python benchmarks/selector_wakes_up.py --show     # prints the stored tables' means

Simulated cells (4,000 cells, 500 genes, 10 types, 112 planted markers and copies), the report's protocol, three seeds
of everything: cells, split and network. Each training is looked at as it goes: average precision of the planted genes,
and the accuracy on validation cells with all but the best genes masked. The arms:

- the learning rate: 12,000 steps of 0.0003 (the report's), 3,600 of 0.001 and 1,200 of 0.003, which all come to
  steps x rate = 3.6; the other arms have the last one;
- what the report leaves open: alpha 0.1 (appendix) or 0.01 (its code); a second layer of 128 (text) or 256 (appendix);
- the data: easier (ten times the depth) and harder (a third of the contrast), each with the MLP beside the selector.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from watch import Watch

from selectormlp.classifiers import make_classifier
from selectormlp.data import prepare_cells
from selectormlp.files import _write_table
from selectormlp.simulation import simulate_cells
from selectormlp.split import split_cells

TABLE = Path(__file__).resolve().parent.parent / "data" / "studies" / "selector_wakes_up" / "growing_steps.csv"
KEY, EPOCHS = "cell_type", 12
CELLS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "easier": {"library_size": 2000.0},
    "harder": {"separation": 3.0},
}
FAST = {"learning_rate": 3e-3, "selector_learning_rate": 3e-3, "steps_per_epoch": 1200 // EPOCHS}
ARMS: list[tuple[str, str, str, dict[str, Any]]] = [  # name, cells, condition, settings
    ("rate 0.003", "ordinary", "selector_l1", FAST),
    ("mlp", "ordinary", "mlp", FAST),
    ("alpha 0.01", "ordinary", "selector_l1", {**FAST, "penalty_weight": 0.01}),
    ("second layer 256", "ordinary", "selector_l1", {**FAST, "hidden_sizes": (512, 256, 64)}),
    ("easier, selector", "easier", "selector_l1", FAST),
    ("easier, mlp", "easier", "mlp", FAST),
    ("harder, selector", "harder", "selector_l1", FAST),
    ("harder, mlp", "harder", "mlp", FAST),
    ("rate 0.001", "ordinary", "selector_l1",
     {"learning_rate": 1e-3, "selector_learning_rate": 1e-3, "steps_per_epoch": 3600 // EPOCHS}),
    ("rate 0.0003", "ordinary", "selector_l1", {"steps_per_epoch": 12000 // EPOCHS}),
]  # fmt: skip


def trained(arm: tuple[str, str, str, dict[str, Any]], seed: int, path: Path) -> pd.DataFrame:
    """Train one arm, watched from epoch to epoch."""
    name, kind, condition, settings = arm
    adata = prepare_cells(simulate_cells(4000, 500, 10, seed=seed, **CELLS[kind]), KEY, min_cells=7)
    split = split_cells(adata, KEY, seed=seed)
    train, validation = (split.labelled(adata, part, KEY) for part in ("train", "validation"))
    codes = np.unique(np.concatenate([train[1], validation[1]]), return_inverse=True)[1][len(train[1]) :]
    watch = Watch(path, validation[0], codes, adata.var["is_marker"].to_numpy(), every=1)
    model = make_classifier(condition, protocol="report", seed=seed)
    model.set_params(max_epochs=EPOCHS, trainer_arguments={"callbacks": [watch]}, **settings)
    model.fit(*train, validation=validation)
    rate = settings.get("learning_rate", 3e-4)
    table = pd.read_csv(path)
    return table.assign(arm=name, seed=seed, rate=rate, moved=table["step"] * rate)


def main() -> None:
    """Run what is not in the table yet, or show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    done = pd.read_csv(arguments.table) if arguments.table.exists() else pd.DataFrame(columns=["arm", "seed"])
    for seed, arm in product(range(0 if arguments.show else arguments.seeds), ARMS):
        if ((done["arm"] == arm[0]) & (done["seed"] == seed)).any():
            continue
        path = arguments.table.with_name(f"{arguments.table.stem}_now.csv")
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        done = pd.concat([done, trained(arm, seed, path)], ignore_index=True)
        path.unlink()
        columns = ["arm", "seed", "step", "moved", "average_precision", "kept_50", "kept_100", "kept_all"]
        _write_table(done[columns].round(4), arguments.table)
        print(seed, arm[0], done["average_precision"].iloc[-1].round(3), flush=True)
    done["moved"] = done["moved"].round(2)
    shown = done[done["moved"].isin([0.3, 0.6, 0.9, 1.2, 1.8, 2.4, 3.6])]
    print(shown.pivot_table(index="arm", columns="moved", values="average_precision", sort=False).round(2).to_string())


if __name__ == "__main__":
    main()
