"""The face of the library: every public name explains itself, and no setting is swallowed."""

import ast
import doctest
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
from numpydoc.validate import validate

import selectormlp
from selectormlp import InputError
from selectormlp.signatures import (
    _CellsAsked,
    _check_settings,
    _setting,
    _setting_entry,
    _settings_of,
    _takes_settings,
    _ValuesAsked,
)  # fmt: skip

LIBRARY = "selectormlp"
# What numpydoc asks for and we do not, each with the reason.
NOT_ASKED = {
    "GL01": "the summary stands beside the opening quotes",
    "GL02": "a text of one line closes its quotes beside it",
    "GL08": "asked for below, with a clearer message",
    "ES01": "a summary may say everything",
    "SA01": "See Also only where there is something to see",
    "SS05": "it takes words such as 'Cells' for verbs in the third person",
    "EX01": "asked for below: of functions and classes, not of their methods",
    "RT01": "asked for below: numpydoc looks at the code, and misses a return that is computed elsewhere",
    "PR01": "asked for below, by the signature",
    "PR02": "asked for below, by the signature",
}
NOT_RUN = {  # examples that are not run, and why
    "run_study": "takes a minute",
    "run_book": "takes half an hour",
    "fetch_brain": "needs a network",
}


def is_own(thing: Any) -> bool:
    """Say whether something was made in this library."""
    return str(getattr(thing, "__module__", "")).split(".")[0] == LIBRARY


NAMES = [name for name in selectormlp.__all__ if callable(getattr(selectormlp, name))]


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class that are this library's own, also inherited ones."""
    for name, member in inspect.getmembers(cls):
        method = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and (inspect.isroutine(method)) and is_own(method):
            yield name, member


METHODS = [
    f"{name}.{member}"
    for name in NAMES
    if inspect.isclass(getattr(selectormlp, name))
    for member, _ in members(getattr(selectormlp, name))
]


def found(path: str) -> Any:
    """Return a public name, or a method of one."""
    thing: Any = selectormlp
    for part in path.split("."):
        thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
    return thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing


def parameters(thing: Any) -> list[inspect.Parameter]:
    """List the parameters of a function, method or constructor, without `self`."""
    if isinstance(thing, property) or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return []
    return [each for each in inspect.signature(thing).parameters.values() if each.name not in ("self", "cls")]


def sections(thing: Any) -> dict[str, str]:
    """Split a documentation into its sections."""
    text = inspect.getdoc(thing) or ""
    parts = [""] + text.split("\n")
    names = [i for i in range(1, len(parts)) if set(parts[i]) == {"-"} and len(parts[i]) == len(parts[i - 1])]
    ends = [*(i - 1 for i in names[1:]), *([len(parts)] if names else [])]
    return {parts[i - 1]: "\n".join(parts[i + 1 : end]) for i, end in zip(names, ends, strict=True)}


def code_of(thing: Any) -> ast.AST:
    """Parse the source of a function or class."""
    thing = thing.fget if isinstance(thing, property) else thing
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing))))


def raises_itself(thing: Any) -> bool:
    """Say whether the source of a function raises InputError; of a class, whether its construction does."""
    tree = code_of(thing)
    if inspect.isclass(thing):
        made = [node for node in ast.walk(tree) if getattr(node, "name", "") in ("__init__", "__post_init__")]
        tree = ast.Module(body=made, type_ignores=[])
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return any(isinstance(each, ast.Call) and getattr(each.func, "id", "") == "InputError" for each in raised)


@pytest.mark.parametrize("path", [*NAMES, *METHODS])
def test_no_parameter_is_hidden(path: str) -> None:
    hidden = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert not [each.name for each in parameters(found(path)) if each.kind in hidden]


@pytest.mark.parametrize("path", [*NAMES, *METHODS])
def test_documentation_is_complete(path: str) -> None:
    thing = found(path)
    assert inspect.getdoc(thing), "it has no documentation"
    has = sections(thing)
    listed = [
        name.strip()
        for line in has.get("Parameters", "").split("\n")
        if line and not line.startswith(" ")
        for name in line.partition(" : ")[0].split(",")
    ]
    assert listed == [each.name for each in parameters(thing)]
    assert path in METHODS or "Examples" in has, "it has no example"
    assert "Raises" in has or isinstance(thing, property) or not raises_itself(thing), "it says not when it raises"
    if not inspect.isclass(thing) and not isinstance(thing, property):
        given = inspect.signature(thing).return_annotation
        assert ("Returns" in has or "Yields" in has) == (given not in (None, "None")), "Returns, or a return annotation"


@pytest.mark.parametrize("path", [*NAMES, *METHODS])
def test_documentation_has_the_form_of_numpydoc(path: str) -> None:
    module = "" if "." not in path else found(path.split(".")[0]).__module__ + "."
    where = module + path if module else f"{found(path).__module__}.{found(path).__qualname__}"
    wrong = [error for error in validate(where)["errors"] if error[0] not in NOT_ASKED]
    assert not wrong


@pytest.mark.parametrize("path", [*NAMES, *METHODS])
def test_defaults_in_the_documentation_are_those_of_the_signature(path: str) -> None:
    thing = found(path)
    lines = {
        line.partition(" : ")[0]: line for line in sections(thing).get("Parameters", "").split("\n") if " : " in line
    }
    for each in parameters(thing):
        if each.default is inspect.Parameter.empty:
            assert ", default " not in lines[each.name]
            continue
        if lines[each.name].endswith(", optional"):
            assert each.default is None or repr(each.default) == "<factory>", "its default is another than None"
            continue
        said = lines[each.name].partition(", default ")[2]
        assert said, f"the default of {each.name} is not given"
        with_names = {"nan": float("nan"), "MISSING": None, "DataFrame": pd.DataFrame}
        value = eval(said, {"__builtins__": {}}, with_names)  # noqa: S307  the text of our own documentation
        default = each.default
        if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":  # as dataclasses have it
            default = next(f.default_factory() for f in thing.__dataclass_fields__.values() if f.name == each.name)
        assert repr(value) == repr(default), each.name


@pytest.mark.parametrize("path", [*NAMES, *METHODS])
def test_examples_run(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(found(path)) or ""
    examples = doctest.DocTestParser().get_doctest(text, {}, path, None, 0)
    skipped = any(doctest.SKIP in example.options for example in examples.examples)
    assert skipped == (path in NOT_RUN)
    said: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doctest.DocTestRunner(optionflags=flags).run(examples, out=said.append)
    assert not said, "".join(said)


# --- settings that are described once


@dataclass(frozen=True)
class Recipe:
    """Settings of every kind."""

    n_cells: int = _setting("number of cells", 100, least=1, most=1000)
    share: float = _setting("share that is tested", 0.5, least=0, most=1)
    name: str = _setting("what it is called", "x")
    shuffle: bool = _setting("whether they are shuffled", True)
    protocol: str = _setting("how", "robust", kind="{'robust', 'report'}")
    sizes: tuple[int, ...] = _setting("sizes", (1, 2), least=1)
    weights: dict[str, float] = _setting("weights", {}, least=0)
    groups: str | tuple[str, ...] | None = _setting("groups", None)
    most: int | None = _setting("limit", None, least=1)

    def __post_init__(self) -> None:
        _check_settings(self)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("n_cells", 0, "n_cells is 0; it must be a whole number from 1 to 1,000"),
        ("n_cells", 1001, "n_cells is 1001"),
        ("n_cells", 5.0, "whole number"),
        ("n_cells", True, "n_cells is True"),
        ("n_cells", None, "n_cells is None"),
        ("share", 1.01, "a number from 0 to 1"),
        ("share", float("nan"), "share is nan"),
        ("share", float("inf"), "share is inf"),
        ("name", 3, "must be text"),
        ("shuffle", 1, "True or False"),
        ("protocol", "reprot", "one of 'robust', 'report'; did you mean 'report'"),
        ("protocol", None, "one of 'robust'"),
        ("sizes", 5, "a sequence"),
        ("sizes", (5, 0), "at least 1"),
        ("sizes", "12", "a sequence"),
        ("weights", {"a": -1}, "mapping"),
        ("weights", [("a", 1)], "mapping"),
        ("groups", 7, "text or a sequence"),
        ("groups", (1, 2), "groups is"),
        ("most", 0, "of at least 1 or None"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Recipe(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} is {value!r}; it must be")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_cells", np.int64(7)), ("n_cells", 1), ("n_cells", 1000), ("share", 1), ("share", np.float32(0.5)),
        ("shuffle", np.bool_(False)), ("sizes", [3]), ("sizes", np.array([3, 4])), ("weights", {"a": 0}),
        ("groups", ("a", "b")), ("groups", "a"), ("groups", None), ("most", None), ("most", 4),
    ],
)  # fmt: skip
def test_a_setting_that_can_be_is_taken(name: str, value: object) -> None:
    assert getattr(Recipe(**{name: value}), name) is value  # type: ignore[arg-type]


def test_a_mutable_default_is_not_shared() -> None:
    Recipe().weights["a"] = 1.0
    assert Recipe().weights == {}


@_takes_settings(Recipe, leave_out=["most"])
def cook(path: str, n_cells: int = 100, *, seed: int = 0, **settings: Any) -> Recipe:
    """Cook.

    Parameters
    ----------
    path : str
        Where.
    {n_cells}
    seed : int, default 0
        Luck.
    {settings}
    """
    return Recipe(n_cells=n_cells, **settings)


def test_settings_are_written_out() -> None:
    names = [each.name for each in _settings_of(Recipe)]
    assert list(inspect.signature(cook).parameters) == ["path", "n_cells", "seed", *names[1:-1]]
    assert inspect.signature(cook).parameters["share"].kind is inspect.Parameter.KEYWORD_ONLY
    text = inspect.getdoc(cook) or ""
    assert "sizes : tuple of int, default (1, 2)\n    Sizes; at least 1." in text
    assert "most : " not in text and "{" not in text.replace("{'robust', 'report'}", "").replace("{}", "")
    assert cook("pot", 5, share=0.25) == Recipe(5, 0.25)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shuffel": True}, "cook takes no 'shuffel'; did you mean 'shuffle'"),
        ({"most": 3}, "cook takes no 'most'"),
        ({"max_validation": 3}, "cook takes no 'max_validation'; it belongs to split_"),
        ({"share": 2}, "share is 2"),
    ],
)
def test_an_unknown_setting_is_refused(given: dict[str, Any], words: str) -> None:
    assert selectormlp.split_cells
    with pytest.raises(InputError, match=words):
        cook("pot", **given)


def test_a_setting_without_default_is_asked_for() -> None:
    @dataclass(frozen=True)
    class Needy:
        cells: str = _setting("cells")

    @_takes_settings(Needy)
    def work(**settings: Any) -> Any:
        return Needy(**settings)

    with pytest.raises(InputError, match="work needs 'cells'"):
        work()
    assert work(cells="x").cells == "x"
    with pytest.raises(TypeError):
        cook()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "cls"),
    [("simulate_cells", "SimulationRecipe"), ("simulate_to_file", "SimulationRecipe"), ("open_study", "StudyConfig")],
)
def test_functions_have_the_defaults_of_their_settings(name: str, cls: str) -> None:
    from selectormlp import simulation, study

    described = {each.name: each for each in _settings_of(getattr(simulation, cls, getattr(study, cls, None)))}  # type: ignore[arg-type]
    signature = inspect.signature(getattr(selectormlp, name)).parameters
    assert set(described) <= set(signature)
    for setting_name, each in described.items():
        default = signature[setting_name].default
        assert default == each.default or default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("normalise", _ValuesAsked),
        ("prepare_cells", _ValuesAsked),
        ("read_cells", _CellsAsked),
        ("load_cells", _CellsAsked),
    ],
)
def test_settings_of_reading_that_are_written_by_hand_are_the_same(name: str, settings: type) -> None:
    function = getattr(selectormlp, name)
    documented, signature = " ".join(function.__doc__.split()), inspect.signature(function).parameters
    for each in _settings_of(settings):
        entry = _setting_entry(each, get_type_hints(settings)[each.name])
        assert signature[each.name].default == each.default and " ".join(entry.split()) in documented, each.name


@pytest.mark.parametrize(
    ("condition", "given", "words"),
    [
        ("svm_l1", {"max_epochs": 3}, "max_epochs does not belong to 'svm_l1'.*leave it out"),
        ("svm_l1", {"dropout": 0.1}, "it belongs to SelectorMLPClassifier"),
        ("svm_l2", {"max_itre": 5}, "did you mean 'max_iter'"),
        ("mlp", {"max_epoch": 3}, "did you mean 'max_epochs'"),
        ("mlp", {"max_epoch": None}, "did you mean 'max_epochs'"),
        ("selector_l1", {"penalty": "l2"}, "the condition decides it"),
        ("mlp", {"random_state": 2}, "pass it as seed"),
        ("first", {"protocol": "robust"}, "pass it as protocol"),
    ],
)
def test_a_setting_that_a_model_does_not_have_is_refused(condition: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        selectormlp.make_classifier(condition, model_settings=given)


@pytest.mark.parametrize("given", [{"protocol": "report"}, {"model_settings": {"max_epochs": 3}}])
def test_an_evaluation_classifier_takes_no_settings_of_networks(given: dict[str, Any]) -> None:
    adata = selectormlp.prepare_cells(selectormlp.simulate_cells(n_cells=200, n_genes=60, n_types=2), "cell_type")
    split, genes = selectormlp.split_cells(adata, "cell_type"), list(adata.var_names[:3])
    with pytest.raises(InputError, match=f"takes no '{next(iter(given.get('model_settings', given)))}'"):
        selectormlp.score_panel(genes, adata, split, "cell_type", condition="nearest_neighbours", **given)


# --- warnings point at the line of the caller


def labelled_cells() -> Any:
    """Simulated cells, one of them without a label, and one type that is rare."""
    adata = selectormlp.simulate_cells(n_cells=200, n_genes=60, n_types=3, n_markers_per_type=2)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(object)
    adata.obs.iloc[0, 0] = None
    adata.obs.iloc[1:3, 0] = "rare"
    return adata


def small_type(folder: Path) -> None:
    selectormlp.split_cells(labelled_cells(), "cell_type")


def no_label(folder: Path) -> None:
    selectormlp.prepare_cells(labelled_cells(), "cell_type", min_cells=5)


def new_type(folder: Path) -> None:
    adata = labelled_cells()
    adata.obs["donor"] = ["b" if kind == "rare" or i % 3 == 0 else "a" for i, kind in enumerate(adata.obs["cell_type"])]
    selectormlp.split_batches(adata, "cell_type", batch_key="donor", test="b")


def same_names(folder: Path) -> None:
    for name in "ab":
        labelled_cells().to_df().iloc[:5].to_csv(folder / f"{name}.csv")
    selectormlp.read_cells([folder / "a.csv", folder / "b.csv"])


def too_few_passes(folder: Path) -> None:
    adata = selectormlp.prepare_cells(labelled_cells(), "cell_type", min_cells=5)
    selectormlp.LinearSVMClassifier(max_iter=1).fit(adata.X, adata.obs["cell_type"])


@pytest.mark.parametrize("ask", [small_type, no_label, new_type, same_names, too_few_passes])
def test_a_warning_points_at_the_line_of_the_caller(ask: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask(tmp_path)
    assert caught
    source, first = inspect.getsourcelines(ask)
    for each in caught:
        if issubclass(each.category, UserWarning):
            assert each.filename == __file__, str(each.message)
            assert first <= each.lineno < first + len(source)
