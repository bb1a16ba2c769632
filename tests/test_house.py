"""The rules of the house: what every chapter and every module keeps to."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import NUMERICS, SLOW
from scripts import ALL_NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))  # the notebooks with a number
MODULES = sorted(path for path in (ROOT / "selectormlp").glob("*.py") if not path.name.startswith("_"))
SCRIPTS = sorted(path for folder in ("tools", "benchmarks") for path in (ROOT / folder).glob("*.py"))
PARAMETERS = {"cells", "label_key", "run_folder", "protocol", "seed"}
CHAPTERS_WITH_PARAMETERS = ("08", "10", "11", "12", "15", "16", "17")
HEAVY = {"torch", "scanpy", "pytorch_lightning", "anndata", "sklearn", "matplotlib", "pandas"}

# A function is one thought that a reader can hold: some 30 statements at most, however they are laid out. Longer ones
# stand here by name (module.Class.function), each with the reason a reader would accept.
MOST_STATEMENTS = 30
LONG_FUNCTIONS: dict[str, str] = {
    "guard._run_guarded": "two processes and the signals between them, which are right or wrong together",
    "report_study.main": "a script from its options to its table, a line for each step",
}


def cells_of(notebook: Path) -> list[dict]:
    """Read the cells of a notebook, each source as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def number_of_modules() -> dict[str, str]:
    """Map each module to the number of its chapter: {"data": "00"}."""
    numbers = {}
    for notebook in CHAPTERS:
        for cell in cells_of(notebook):
            found = re.search(r"^#\| *default_exp +(\w+)", cell["source"], re.MULTILINE)
            if cell["cell_type"] == "code" and found:
                numbers[found[1]] = notebook.name.partition("_")[0]
    return numbers


def imported_modules(path: Path) -> set[str]:
    """Name the modules of the library that a module imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selectormlp."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("selectormlp.")}
    return names


def functions_of(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """List the functions and methods of a module with their full names."""
    found = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{child.name}"
                if not isinstance(child, ast.ClassDef):
                    found.append((name, child))
                visit(child, name)

    visit(ast.parse(path.read_text(encoding="utf-8")), path.stem)
    return found


def count_statements(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the statements in a function's body, also those within others, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return sum(isinstance(node, ast.stmt) for statement in body for node in ast.walk(statement))


@pytest.mark.parametrize("number", CHAPTERS_WITH_PARAMETERS)
def test_chapter_has_the_shared_parameters(number: str) -> None:
    (notebook,) = [path for path in CHAPTERS if path.name.startswith(f"{number}_")]
    tagged = [cell for cell in cells_of(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{notebook.name} needs exactly one cell tagged parameters"
    assigned = [node.targets[0].id for node in ast.parse(tagged[0]["source"]).body if isinstance(node, ast.Assign)]
    assert sorted(assigned) == sorted(PARAMETERS)


def test_every_module_belongs_to_a_chapter() -> None:
    assert {path.stem for path in MODULES} == set(number_of_modules())


def place_of(notebook: Path) -> str:
    """Name a notebook by its path in nbs."""
    return notebook.relative_to(ROOT / "nbs").as_posix()


def sidebar() -> list[str]:
    """List the notebooks of the sidebar in its order."""
    sections = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    return [name for section in sections for name in section["contents"] if name.endswith(".ipynb")]


def test_every_notebook_is_in_the_sidebar_once() -> None:
    assert sorted(sidebar()) == sorted(place_of(notebook) for notebook in ALL_NOTEBOOKS)


def test_numbers_run_on_in_the_order_of_the_sidebar() -> None:
    numbered = [name for name in sidebar() if re.match(r"\d", name)]
    assert [name.partition("_")[0] for name in numbered] == [f"{place:02d}" for place in range(len(numbered))]
    assert numbered == [chapter.name for chapter in CHAPTERS]


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_a_number_is_for_what_exports_or_runs_on_cells(notebook: Path) -> None:
    from selectormlp.book import _takes_cells

    exports = any(re.search(r"^#\| *(?:export|default_exp)", cell["source"], re.M) for cell in cells_of(notebook))
    assert (exports or _takes_cells(notebook)) == (notebook in CHAPTERS)
    assert re.fullmatch(r"\d\d_[a-z][a-z0-9_]*" if notebook in CHAPTERS else r"[a-z][a-z0-9_]*", notebook.stem)
    assert notebook.parent.relative_to(ROOT / "nbs").as_posix() in (".", "guides", "teaching")


def test_no_two_notebooks_share_a_page() -> None:
    from selectormlp.site import _page_names

    names = _page_names([notebook.relative_to(ROOT / "nbs") for notebook in ALL_NOTEBOOKS])
    assert len(names) == len(ALL_NOTEBOOKS)
    assert not {"reference", "contributing", "code_of_conduct", "changelog", "404"} & set(names.values())


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_notebooks_lead_to_files(notebook: Path) -> None:
    """As Jupyter and GitHub follow them; the site finds its pages in its own way."""
    outputs = [
        data for cell in cells_of(notebook) for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items() if kind in ("text/html", "text/markdown")
    ]  # fmt: skip
    texts = [cell["source"] for cell in cells_of(notebook) if cell["cell_type"] == "markdown"] + outputs
    links = re.findall(r"""(?:\]\(|href=")([\w./-]+\.ipynb)\b""", "\n".join("".join(text) for text in texts))
    assert [link for link in links if not (notebook.parent / link).is_file()] == []


def test_the_first_page_lists_every_notebook_in_the_order_of_the_sidebar() -> None:
    text = "\n".join(cell["source"] for cell in cells_of(ROOT / "nbs" / "index.ipynb"))
    rows = re.findall(r"^\| (\d\d) \| \[[^]]+\]\((\S+?)\)", text, re.MULTILINE)
    assert rows == [(chapter.name[:2], chapter.name) for chapter in CHAPTERS]
    linked = set(re.findall(r"\]\(([\w/]+\.ipynb)", text))
    assert linked == {place_of(notebook) for notebook in ALL_NOTEBOOKS} - {"index.ipynb"}


def test_the_table_of_rooms_names_every_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = text[text.index("## The rooms") : text.index("The commonest additions")]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in rooms.splitlines() if line.startswith("| `")))
    assert sorted(set(named) - {"selectormlp"}) == sorted(path.stem for path in MODULES)
    numbers = number_of_modules()
    chapters = re.findall(
        r"\b\d\d_\w+", "".join(line.split("|")[2] for line in rooms.splitlines() if line.startswith("| `"))
    )
    assert chapters == [chapter.stem for chapter in CHAPTERS if chapter.name[:2] in numbers.values()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_only_lower_numbers(path: Path) -> None:
    numbers = number_of_modules()
    imported = {name: numbers.get(name, "no chapter") for name in imported_modules(path) - {"__version__"}}
    higher = {name: number for name, number in imported.items() if number >= numbers[path.stem]}
    assert not higher, f"{path.name} (chapter {numbers[path.stem]}) imports {higher}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_print_pickle_or_star(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno} prints; use logging"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        modules = [*names, node.module or ""] if isinstance(node, ast.ImportFrom) else names
        assert "*" not in names, f"{path.name}:{getattr(node, 'lineno', 0)} imports with a star"
        if names in (["parallel_config"], ["effective_n_jobs"]):  # where tasks run, on how many cores: no pickles
            continue
        assert not {"pickle", "joblib", "dill", "fastcore", "nbdev"} & {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_public_functions_have_docstrings(path: Path) -> None:
    module = importlib.import_module(f"selectormlp.{path.stem}")
    own = [getattr(module, name) for name in module.__all__]
    documented = [thing for thing in own if inspect.isroutine(thing) or inspect.isclass(thing)]
    assert not [thing.__name__ for thing in documented if not thing.__doc__]


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_function_is_one_thought(path: Path) -> None:
    counts = {name: count_statements(function) for name, function in functions_of(path)}
    long = {name: n for name, n in counts.items() if n > MOST_STATEMENTS and name not in LONG_FUNCTIONS}
    assert not long, f"more than {MOST_STATEMENTS} statements, and no reason in LONG_FUNCTIONS: {long}"


def test_statements_are_counted_not_lines() -> None:
    text = 'def f(x):\n    """What it does."""\n    if x: a = 1; b = 2\n    def g():\n        return (\n        x)\n'
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef) and count_statements(function) == 5


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_lines_are_short(path: Path) -> None:
    code = re.sub(r"^__all__ = \[.*?\]$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)  # nbdev wraps it
    assert [line for line in code.splitlines() if len(line) > 120] == []


def test_modules_import_nothing_idle() -> None:
    """What only the examples of a chapter need is imported there, and stays out of the library."""
    modules = [str(path) for path in MODULES]
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--select",
            "F401,F821",
            "--output-format",
            "concise",
            *modules,
        ],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_can_be_read_in_one_sitting(notebook: Path) -> None:
    assert len(cells_of(notebook)) <= 100


def test_reasons_for_long_functions_are_needed() -> None:
    counts = {
        name: count_statements(function) for path in [*MODULES, *SCRIPTS] for name, function in functions_of(path)
    }
    assert [name for name in LONG_FUNCTIONS if counts.get(name, 0) <= MOST_STATEMENTS] == []


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_have_lasting_ids_and_sources_by_line(notebook: Path) -> None:
    """So that a change of one line is a change of one line, and a cell that is put in renames no other."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ids = [cell["id"] for cell in cells]
    assert [name for name in set(ids) if ids.count(name) > 1] == [], "two cells of a notebook have one id"
    assert [name for name in ids if re.match(r"cell-\d+", name)] == [], "numbered ids change when a cell is put in"
    for cell in cells:
        assert isinstance(cell["source"], list) and [line for line in cell["source"] if "\n" in line[:-1]] == []


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_have_labels_captions_and_descriptions(notebook: Path) -> None:
    for cell in cells_of(notebook):
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if pictures and "#| hide" not in cell["source"]:
            assert re.search(r"^#\| *label: *fig-[\w-]+", cell["source"], re.MULTILINE), cell["source"][:200]
            assert re.search(r"^#\| *fig-cap: *\S", cell["source"], re.MULTILINE), cell["source"][:200]
            assert re.search(r"^#\| *fig-alt: *.{20}", cell["source"], re.MULTILINE), cell["source"][:200]


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_every_fence_is_closed(notebook: Path) -> None:
    for cell in cells_of(notebook):
        if cell["cell_type"] == "markdown":
            for fence in ("```", "~~~"):
                assert len(re.findall(rf"^{fence}", cell["source"], re.MULTILINE)) % 2 == 0, cell["source"][:200]


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_begins_with_title_and_one_line(notebook: Path) -> None:
    first = cells_of(notebook)[0]["source"].strip()
    assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+", first), first


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_small_and_name_no_folder_of_a_machine(notebook: Path) -> None:
    outputs = json.dumps([cell.get("outputs", []) for cell in cells_of(notebook)])
    assert notebook.stat().st_size < 1_000_000
    assert "widget-view" not in outputs
    assert not re.search(r'[" (]/(?:root|home|Users|tmp|work)/', outputs)
    assert '"stderr"' not in outputs


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout


def test_importing_the_library_is_light() -> None:
    loaded = run_python("import selectormlp, sys; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not HEAVY & set(loaded)


def test_help_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    command = [sys.executable, "-m", "selectormlp", "--help"]
    program = Path(sys.executable).parent / "selectormlp"
    result = subprocess.run([str(program), "--help"] if program.exists() else command, capture_output=True, text=True)
    with capsys.disabled():
        print(f"\nselectormlp --help took {time.monotonic() - start:.2f} s")
    assert result.returncode == 0, result.stderr
    for name in (
        "select",
        "score",
        "compare",
        "report",
        "book",
        "predict",
        "simulate",
        "split_data",
        "train",
        "feature_selection",
    ):
        assert name in result.stdout


def test_readme_is_in_step_with_the_index() -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_readme.py"), "--check"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_names_in_the_readme_exist() -> None:
    import selectormlp

    for names in re.findall(r"^from selectormlp import (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M):
        for name in names.split(","):
            assert hasattr(selectormlp, name.strip())


def test_nothing_committed_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile("/(?:work|root|tmp|opt)/" + r"\w")
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".ipynb", ".md", ".txt", ".ini", ".toml", ".yml", ""}:
            found = forbidden.search(path.read_text(encoding="utf-8"))
            assert not found or name.startswith("tests/"), f"{name} names {found and found[0]}"


def test_one_frame_and_one_place_of_settings() -> None:
    assert not (ROOT / "pyproject.toml").exists()
    assert (ROOT / "nbs" / "_quarto.yml").read_bytes() == (ROOT / "_quarto.yml").read_bytes()


def test_marked_files_exist() -> None:
    for name in (*NUMERICS, *SLOW):
        assert (ROOT / "tests" / f"{name}.py").is_file(), f"{name} is marked in tests/conftest.py"


def test_hooks_run_what_ci_checks() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "a hook from elsewhere would be fetched"
    entries = " ".join(hook["entry"] for hook in hooks[0]["hooks"])
    assert all(words in entries for words in ("nbdev_clean", "ruff check", "ruff format", "check.py sync"))


def test_workflows_ask_for_what_there_is() -> None:
    workflows = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    if not workflows:
        pytest.skip("an sdist has no workflows")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)", ".venv/bin")
    targets = set(re.findall(r"^([\w./-]+):", makefile, re.MULTILINE))
    assert {"check", "test"} <= targets
    assert {"test", "site"} <= set(re.findall(r"\bmake ([\w./-]+)", " ".join(workflows.values()))) <= targets
    (matrix,) = re.findall(r"^PYTHONS = \((.+)\)$", (ROOT / "tools" / "matrix.py").read_text(encoding="utf-8"), re.M)
    assert f"python: [{matrix}]" in workflows["tests"]
    version = re.search(r"^version = (\S+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.MULTILINE)
    assert version, "the workflow of a release compares its tag with this line"


WORDS = {  # homemade words, and the field's own
    r"by lot\b|\bdealt out": "at random, permuted",
    r"\bat hand\b": "available, in memory",
    r"overtrain": "overfit",
    r"\bby heart\b": "memorise",
    r"\bstand-ins?\b": "substitute",
    r"\b(?:one|same|our) face\b|behind the face": "interface",
    r"boastful": "overconfident",
    r"too large for the memory": "too large for memory",
    r"less theirs": "difference (ours - theirs)",
    r"nobody taught": "unseen cell types",
    r"among friends": "within-experiment test",
    r"what is no cell|spoiled droplets|swims in every": "empty or damaged droplets; contaminates",
    r"in any company": "independent of the batch",
    r"made up its mind": "converged",
}


def texts_for_readers() -> Iterator[tuple[str, str]]:
    """Prose of notebooks, of the texts at the top, and of the docstrings of modules: place and text."""
    for notebook in ALL_NOTEBOOKS:
        for number, cell in enumerate(cells_of(notebook)):
            if cell["cell_type"] == "markdown":
                yield f"{notebook.name}, cell {number}", "".join(cell["source"])
    for path in sorted(ROOT.glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                yield f"{path.name}, {getattr(node, 'name', 'its head')}", ast.get_docstring(node) or ""


def test_words_are_those_of_the_field() -> None:
    found = [
        f"{place}: {match[0]!r}; better: {better}"
        for place, text in texts_for_readers()
        for pattern, better in WORDS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert found == []
