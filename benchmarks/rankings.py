"""How good are the first k genes of a ranking? The selector under both protocols, beside two familiar rankings.

    python benchmarks/rankings.py                                         # the shipped pancreas, three splits
    python benchmarks/rankings.py --cells my.h5ad --label-key cell_type   # any other cells; prints only

Genes are chosen and ranked on training cells; a class-balanced logistic regression on the first k genes is judged on
test cells (mean per-class accuracy). For the pancreas the table goes to data/studies/rankings/pancreas.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from selectormlp import choose_variable_genes, load_cells, make_classifier, prepare_cells, split_cells

SIZES = (10, 25, 50, 100)


def importances(parts: dict, seed: int) -> dict[str, np.ndarray]:
    """One importance per gene from each method, from training (and validation) cells."""
    x, y = parts["train"]
    found = {}
    for protocol in ("report", "robust"):
        model = make_classifier("selector_l1", protocol=protocol, seed=seed)
        found[f"selector_l1, {protocol}"] = model.fit(x, y, validation=parts["validation"]).feature_importances_
    found["svm_l1, robust"] = make_classifier("svm_l1", seed=seed).fit(x, y).feature_importances_
    forest = RandomForestClassifier(300, class_weight="balanced", random_state=seed, n_jobs=2).fit(x, y)
    return {**found, "random forest": forest.feature_importances_, "ANOVA F": np.nan_to_num(f_classif(x, y)[0])}


def judged(parts: dict, chosen: np.ndarray) -> float:
    """Mean per-class test accuracy of a logistic regression on the chosen genes."""
    judge = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
    (x, y), (x_test, y_test) = ((x[:, chosen].toarray(), y) for x, y in (parts["train"], parts["test"]))
    return balanced_accuracy_score(y_test, judge.fit(x, y).predict(x_test))


def main() -> None:
    """Judge every method at every size on several splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="pancreas")
    parser.add_argument("--label-key", default="cell_type")
    parser.add_argument("--splits", type=int, default=3)
    arguments = parser.parse_args()
    key = arguments.label_key
    cells = prepare_cells(load_cells(arguments.cells, key), key, min_cells=20)
    rows = []
    for seed in range(arguments.splits):
        split = split_cells(cells, key, seed=seed)
        genes = choose_variable_genes(split.subset(cells, "train"))
        subsets = {name: split.subset(cells, name)[:, genes] for name in ("train", "validation", "test")}
        parts = {name: (part.X, part.obs[key].to_numpy().astype(str)) for name, part in subsets.items()}
        for method, importance in importances(parts, seed).items():
            order = np.argsort(-importance, kind="stable")
            same = {"split": seed, "method": method}
            rows += [{**same, "n_genes": k, "accuracy": judged(parts, order[:k])} for k in SIZES]
    table = pd.DataFrame(rows)
    if arguments.cells == "pancreas":
        path = Path(__file__).resolve().parent.parent / "data" / "studies" / "rankings" / "pancreas.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.4g")
    print(table.pivot_table(index="method", columns="n_genes", values="accuracy", sort=False).round(3).to_string())


if __name__ == "__main__":
    main()
