"""The exercises: each check names the wrong turn that was taken, and the students' notebook holds no solution.

That each check accepts a right answer is shown by nbs/teaching/exercises_solved.ipynb, whose last cell asserts it.
"""

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import tool

from selectormlp import SelectorMLPClassifier, masking_curve, normalise, rank_genes, select_genes, split_cells
from selectormlp.data import InputError, choose_variable_genes
from selectormlp.exercises import _CHECKS, Exercises, _best_one_by_one

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:types with fewer")


@pytest.fixture(scope="module")
def course() -> Exercises:
    """Exercises with a model that learned for a moment only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exercises = Exercises()
        exercises.model = fitted(exercises)
        return exercises


def fitted(
    course: Exercises, cells: Any = None, genes: list[str] | None = None, steps: int | None = None, **settings: Any
) -> Any:
    """A selector that learned for a moment, from the training cells or from others."""
    genes = genes or course.genes
    X, y = course.part("train", genes) if cells is None else (cells[:, genes].X, cells.obs["cell_type"].astype(str))
    model = SelectorMLPClassifier(max_epochs=1, steps_per_epoch=steps)
    return model.fit(X, y, validation=course.part("validation", genes), **({"gene_names": genes} | settings))


def says(course: Exercises, number: int, sentence: str, **answers: Any) -> None:
    """Ask that an answer is called wrong, in these words, and in one sentence."""
    verdict = course.check(number, **answers)
    assert verdict.state == "not yet" and re.search(sentence, verdict.sentence), verdict
    assert verdict.sentence.endswith((".", "?")) and len(verdict.sentence) < 160, verdict


def test_an_empty_answer_is_called_so_and_every_exercise_has_a_row(course: Exercises) -> None:
    assert repr(course.check(8, order=..., price=1.0)) == "Not answered yet: put your answer into `order`."
    assert course.check(1, most="beta", rare=None).sentence == "put your answer into `rare`."
    assert course.marks().index.tolist() == sorted(_CHECKS) == list(range(1, 9))
    assert course.marks().loc[8, "verdict"] == "not answered yet"
    with pytest.raises(InputError, match="1 to 8"):
        course.check(9, x=1)


def test_wrong_rare_types_are_named(course: Exercises) -> None:
    counts = course.raw.obs["cell_type"].value_counts()
    rare = list(counts.index[counts < 20])
    says(course, 1, "a list of type names", most="beta", rare=5)
    says(course, 1, "'872'|not the name", most=872, rare=rare)
    says(course, 1, "14 is not the name of a cell type: the counts", most="beta", rare=list(counts[counts < 20]))
    says(course, 1, "'Beta' is not the name .* did you mean 'beta'", most="Beta", rare=rare)
    says(course, 1, "did you mean 't_cell'", most="beta", rare=["T cell", *rare[1:]])
    says(course, 1, "the one value 'mast'", most="beta", rare="mast")
    says(course, 1, "another type has more", most="alpha", rare=rare)
    says(course, 1, "'gamma' has 70 cells", most="beta", rare=[*rare, "gamma"])
    says(course, 1, "has 4 types, and more", most="beta", rare=rare[1:])
    assert course.check(1, most="beta", rare=rare).state == "right"


def test_forgotten_normalisation_is_named(course: Exercises) -> None:
    half, only_log, no_log, doubled = (course.raw.copy() for _ in range(4))
    only_log.X = only_log.X.log1p()
    no_log.X = no_log.X.multiply(1e4 / no_log.X.sum(axis=1)).tocsr()
    doubled.X = normalise(doubled).X.expm1().multiply(2).log1p().tocsr()
    says(course, 2, "raw counts", normalised=course.raw)
    says(course, 2, "logarithm is missing", normalised=no_log)
    says(course, 2, "divide by the total", normalised=only_log)
    says(course, 2, "brought to 20,000 molecules, and 10,000", normalised=doubled)
    says(course, 2, "lose no cell", normalised=normalise(half[:100]))
    says(course, 2, "keep the cells with their names", normalised=np.ones((2, 2)))
    again = normalise(course.raw)
    again.X = again.X[:, ::-1].tocsr()
    says(course, 2, "the values are not", normalised=again)
    assert course.check(2, normalised=normalise(course.raw)).state == "right"


def test_other_ways_to_normalise_are_told_apart(course: Exercises) -> None:
    import scanpy

    def logged(target: float | None, base: float | None = None, times: int = 1) -> Any:
        cells = course.raw.copy()
        scanpy.pp.normalize_total(cells, target_sum=target)
        for _ in range(times):
            cells.uns.pop("log1p", None)
            scanpy.pp.log1p(cells, base=base)
        return cells

    says(course, 2, r"brought to \d,\d{3} molecules, and 10,000 are asked", normalised=logged(None))
    says(course, 2, "brought to 1,000,000 molecules, and 10,000 are asked", normalised=logged(1e6))
    says(course, 2, "logarithm was taken twice", normalised=logged(1e4, times=2))
    says(course, 2, "has the base 2", normalised=logged(1e4, base=2))
    says(course, 2, "has the base 10", normalised=logged(1e4, base=10))
    backwards = course.raw.copy()
    scanpy.pp.log1p(backwards)
    scanpy.pp.normalize_total(backwards, target_sum=1e4)
    says(course, 2, "logarithm is missing|raw counts once, then one logarithm", normalised=backwards)
    assert course.check(2, normalised=logged(1e4)).state == "right"


def test_unfair_splits_are_named(course: Exercises) -> None:
    from sklearn.model_selection import train_test_split

    table = course.split.table
    says(course, 3, "type list", split=train_test_split(course.cells.obs_names))
    says(course, 3, "too small to be tested", split=split_cells(course.raw, "cell_type"))
    says(course, 3, "order of the file", split=split_cells(course.cells, "cell_type", shuffle=False))
    says(course, 3, "leave the caps", split=split_cells(course.cells, "cell_type", max_train=100, max_test=1000))
    says(course, 3, "in two parts", split=replace(course.split, table=table.assign(cell=table["cell"].iloc[0])))
    alone = table[(table["part"] == "train") | (table["cell_type"] != "gamma")]
    says(course, 3, "'gamma' has no cell in one", split=replace(course.split, table=alone))
    assert course.check(3, split=course.split).state == "right"


def test_models_that_saw_the_wrong_cells_are_named(course: Exercises) -> None:
    from sklearn.svm import LinearSVC

    train = course.split.subset(course.cells, "train")
    counts = course.raw[train.obs_names]
    says(course, 4, "type LinearSVC", model=LinearSVC())
    says(course, 4, "learned nothing yet", model=SelectorMLPClassifier())
    says(course, 4, "calls its first gene 'gene_?0|pass gene_names", model=fitted(course, gene_names=None))
    says(course, 4, "keep test cells out", model=fitted(course, course.cells))
    says(course, 4, "use all of them", model=fitted(course, course.split.subset(course.cells, "validation")))
    says(course, 4, "raw counts", model=fitted(course, counts))
    odd = train.copy()
    odd.X = odd.X * 2
    says(course, 4, "other values", model=fitted(course, odd))
    everywhere = choose_variable_genes(course.cells, 500)
    says(course, 4, "chosen on all cells", model=fitted(course, genes=everywhere))
    says(course, 4, "of the validation cells are right", model=fitted(course, steps=1))


def test_models_with_other_settings_are_named_and_the_default_is_right(course: Exercises) -> None:
    def trained(**settings: Any) -> SelectorMLPClassifier:
        model = SelectorMLPClassifier(**settings)
        return model.fit(*course.part("train"), validation=course.part("validation"), gene_names=course.genes)

    short = {"max_epochs": 2}
    says(course, 4, "cut at 2 epochs of 30", model=trained(**short))
    says(course, 4, "no weight has a price", model=trained(penalty="none", **short))
    says(course, 4, "no weight has a price", model=trained(penalty_weight=0.0, **short))
    says(course, 4, "the price is another", model=trained(penalty="l2", **short))
    says(course, 4, "has no selector", model=trained(selector="none", penalty="none", **short))
    before = course.model
    ours = trained()
    assert course.check(4, model=ours).state == "right" and course.model is ours
    course.model = before


def test_wrong_orders_cells_and_sizes_are_named(course: Exercises) -> None:
    ranking = rank_genes(course.model)
    curve, on_test = (
        masking_curve(course.model, *course.part(part), ranking, step=10) for part in ("validation", "test")
    )
    first = curve.loc[curve["accuracy"] >= 0.95 * curve["accuracy"].iloc[-1], "n_genes"].iloc[0]
    says(course, 5, "has 50 genes", ranking=ranking[:50], curve=curve, enough=first)
    says(course, 5, "stands first", ranking=ranking[::-1], curve=curve, enough=first)
    says(course, 5, "not the order", ranking=ranking.sort_values("gene"), curve=curve, enough=first)
    says(course, 5, "measured on test cells", ranking=ranking, curve=on_test, enough=first)
    says(course, 5, "from 0 to all genes", ranking=ranking, curve=curve[:20], enough=first)
    says(course, 5, "not that of", ranking=ranking, curve=curve.assign(accuracy=0.5), enough=first)
    says(course, 5, "go on", ranking=ranking, curve=curve, enough=first - 10)
    says(course, 5, "take the first", ranking=ranking, curve=curve, enough=first + 10)
    assert course.check(5, ranking=ranking, curve=curve, enough=first).state == "right"


def test_panels_and_scores_of_another_kind_are_named(course: Exercises) -> None:
    panel = course.panel
    scores = {part: panel.score(course.cells, part=part) for part in ("train", "validation", "test")}
    right = scores["test"].mean_per_class_accuracy
    smaller = select_genes(course.cells, "cell_type", 10, split=course.split)
    elsewhere = select_genes(course.cells, "cell_type", 20, seed=1)
    says(course, 6, "type list", panel=panel.genes, accuracy=right)
    says(course, 6, "has 10 genes", panel=smaller, accuracy=right)
    says(course, 6, "another split", panel=elsewhere, accuracy=right)
    says(course, 6, "holds all scores", panel=panel, accuracy=scores["test"])
    says(course, 6, "a share", panel=panel, accuracy=100 * right)
    says(course, 6, "mean over the types", panel=panel, accuracy=scores["test"].accuracy)
    says(course, 6, "on train cells", panel=panel, accuracy=scores["train"].mean_per_class_accuracy)
    says(course, 6, "on validation cells", panel=panel, accuracy=scores["validation"].mean_per_class_accuracy)
    says(course, 6, "use its `score`", panel=panel, accuracy=0.5)
    assert course.check(6, panel=panel, accuracy=right).state == "right"


def test_a_leak_that_is_none_is_named(course: Exercises) -> None:
    train = course.split.subset(course.cells, "train")
    leaky, honest = (
        course.accuracy_on_shuffled(_best_one_by_one(cells, course.shuffled)) for cells in (course.cells, train)
    )
    says(course, 7, "must see all cells", leaky=honest, honest=honest)
    says(course, 7, "swapped", leaky=honest, honest=leaky)
    says(course, 7, "choose its genes on course.cells", leaky=0.9, honest=honest)
    says(course, 7, "training cells alone", leaky=leaky, honest=0.9)
    says(course, 7, "choose its genes on course.cells", leaky=100 * leaky, honest=honest)
    assert course.check(7, leaky=leaky, honest=honest).state == "right"


def test_broken_rules_and_wrong_prices_are_named(course: Exercises) -> None:
    rules = {"must_include": ["INS", "GCG"], "exclude": ["ribosomal", "mitochondrial", "SPARC"]}
    order = select_genes(course.cells, "cell_type", 20, split=course.split, **rules)
    loose = select_genes(course.cells, "cell_type", 20, split=course.split, must_include=["INS", "GCG"])
    without = select_genes(course.cells, "cell_type", 20, split=course.split, exclude=["INS"])
    by_hand = replace(order, table=order.table.assign(reason="chosen"))
    free, ruled = (panel.score(course.cells).mean_per_class_accuracy for panel in (course.panel, order))
    says(course, 8, "INS is not in `order`", order=without, price=free - ruled)
    says(course, 8, "SPARC is in `order`", order=loose, price=free - ruled)
    says(course, 8, "without a rule", order=by_hand, price=free - ruled)
    says(course, 8, "wrong sign", order=order, price=ruled - free)
    says(course, 8, "of both panels", order=order, price=0.5)
    says(course, 8, "type list", order=order.genes, price=free - ruled)
    says(course, 8, "has 10 genes", order=select_genes(course.cells, "cell_type", 10, split=course.split), price=0.0)
    assert course.check(8, order=order, price=free - ruled).state == "right"


def test_an_answer_of_another_kind_is_a_fault_and_no_crash(course: Exercises) -> None:
    says(course, 5, "cannot read `ranking` of type int and", ranking=3, curve=4, enough=5)
    says(course, 7, "cannot read `leaky` of type str and", leaky="much", honest=0.1)


@pytest.fixture
def make_exercises() -> ModuleType:
    """The script that makes the students' notebook."""
    return tool("make_exercises")


def test_the_students_notebook_is_in_step_and_holds_no_solution(make_exercises: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_exercises.py", "--check"])
    assert make_exercises.main() == 0
    cells = json.loads(make_exercises.STUDENTS.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert "SOLUTION" not in text and "must_include=[...]" in text and '"SPARC"' not in text
    assert len(re.findall(r"^course\.check\((\d)", text, re.MULTILINE)) == len(_CHECKS) == text.count("<details>")
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


def test_a_changed_exercise_makes_the_check_fail(
    make_exercises: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    stale = tmp_path / "exercises.ipynb"
    stale.write_text(make_exercises.STUDENTS.read_text(encoding="utf-8").replace("beta", "gamma"), encoding="utf-8")
    monkeypatch.setattr(make_exercises, "STUDENTS", stale)
    monkeypatch.setattr("sys.argv", ["make_exercises.py", "--check"])
    assert make_exercises.main() == 1 and "make export" in capsys.readouterr().out


def test_solutions_are_cut_out_and_half_markers_are_refused(make_exercises: ModuleType) -> None:
    code = "x = ...\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\ncheck(x)"
    assert make_exercises.without_solution(code) == "x = ...\ncheck(x)"
    assert make_exercises.without_solution("<!-- BEGIN SOLUTION -->\nhush\n<!-- END SOLUTION -->") == ""
    assert make_exercises.without_solution("# Exercises, solved\n\n> A line") == "# Exercises\n\n> A line"
    with pytest.raises(ValueError, match="no partner"):
        make_exercises.without_solution("### BEGIN SOLUTION\nx = 1")
