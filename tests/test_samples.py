"""What the pages tell a reader to type exists: commands, options, parameters, targets and extras."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from scripts import ALL_NOTEBOOKS, tool

ROOT = Path(__file__).resolve().parent.parent
run_chapter = tool("run_chapter")
samples = run_chapter.samples
PAGES = [*ALL_NOTEBOOKS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def text_of(page: Path) -> str:
    """The Markdown of a page."""
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def help_of(*command: str) -> str:
    """What a command says of itself."""
    return subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True).stdout


def lines_of(page: Path) -> list[list[str]]:
    """The words of each line of shell on a page."""
    codes = [sample.code for sample in samples(text_of(page)) if sample.language == "bash"]
    joined = "\n".join(codes).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


LINES = [(page.name, words) for page in PAGES for words in lines_of(page)]


def options(words: list[str]) -> set[str]:
    """The long options in a line."""
    return {word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")}


def unknown(words: list[str], said: dict[tuple[str, ...], str]) -> list[str]:
    """Name what a line asks for and nobody offers."""
    if words[0] == "selectormlp":
        command = ("-m", "selectormlp", words[1])
    elif Path(words[0]).name == "python" and words[1].endswith(".py"):
        command = (words[1],)
    else:
        return []
    if command not in said:
        said[command] = help_of(*command).replace("_", "-")
    wrong = [option for option in sorted(options(words)) if not re.search(rf"{option}\b", said[command])]
    return wrong if said[command] else [" ".join(command)]


@pytest.mark.slow
def test_every_command_and_option_on_a_page_exists():
    said: dict[tuple[str, ...], str] = {}
    missing = [(page, words[:2], wrong) for page, words in LINES if (wrong := unknown(words, said))]
    assert not missing and len(said) >= 5


def test_a_wrong_option_would_be_found():
    line = shlex.split("selectormlp select cells.h5ad --n-gene 5 --label-keys x")
    assert unknown(line, {}) == ["--label-keys", "--n-gene"]
    assert unknown(["selectormlp", "choose"], {})


def test_papermill_lines_name_parameters_that_the_chapter_has():
    asked = [words for _, words in LINES if words[0] == "papermill"]
    for words in asked:
        cells = nbformat.read(ROOT / "nbs" / words[1], 4).cells
        (parameters,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        names = [words[place + 1] for place, word in enumerate(words) if word == "-p"]
        assert names and all(re.search(rf"^{name} = ", parameters, re.MULTILINE) for name in names), words
    assert asked


ELSEWHERE = {  # names that pages mention and our code does not hold: other packages', made-up ones, those that are gone
    "aggregate_metrics", "compute_accuracy_tuple", "DistributedSampler", "final", "final2", "first_prob",
    "GenesOptions", "interactive", "mlp_new", "mlp_new2", "pbmc3k", "permutation_test_score", "run_genes",
    "SelectorMLP_best_model", "sh", "SLURM_PROCID", "SLURMCluster", "sync_batchnorm", "third_prob",
    # R and Seurat, in from_seurat; and scanpy, in from_10x_to_an_order
    "DefaultAssay", "DropletUtils", "ENSG00000254647", "integer", "integrated", "leiden", "scrublet",
    "SCT", "seurat_clusters", "writeLines", "writeMM",
}  # fmt: skip


def words_of_the_code() -> set[str]:
    """All names in the library, the scripts, the chapters' code and the heads of stored tables; options with --."""
    files = [path for kind in ("selectormlp", "tools", "benchmarks", "tests") for path in (ROOT / kind).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.name != Path(__file__).name]
    texts += [path.read_text(encoding="utf-8") for path in [ROOT / "settings.ini", *ROOT.glob(".github/workflows/*")]]
    texts += [path.read_text(encoding="utf-8").partition("\n")[0] for path in (ROOT / "data").rglob("*.csv")]
    for page in PAGES:
        cells = nbformat.read(page, 4).cells if page.suffix == ".ipynb" else []
        texts += [cell.source for cell in cells if cell.cell_type == "code"]
    words = set(re.findall(r"(?:--)?[A-Za-z_][\w-]*|\w+", "\n".join(texts)))
    parts = {part for word in words for part in re.findall(r"\w+", word)}
    return words | parts | {f"--{part.replace('_', '-')}" for part in parts}


def names_in(text: str) -> set[str]:
    """Options, and the last part of whatever looks like a name, in backticks outside code samples."""
    plain = re.sub(r"^(~~~|```).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`\n]+)`", plain)
    names = [re.fullmatch(r"(?:\w+\.)*([A-Za-z_]\w*)(?:\(.*\))?=?", code) for code in quoted]
    options = {word.replace("_", "-") for code in quoted for word in re.findall(r"--[a-z][\w-]*", code)}
    return {found[1] for found in names if found} | options


def test_names_in_backticks_exist():
    known = words_of_the_code() | ELSEWHERE
    assert not {(page.name, name) for page in PAGES for name in names_in(text_of(page)) - known}
    assert {"rank_genes", "--label-key", "no_such_name_at_all"} - known == {"no_such_name_at_all"}


def test_every_public_question_has_its_source_and_its_line():
    text = text_of(ROOT / "nbs" / "guides" / "what_people_ask.ipynb")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] != "they ask"]
    assert len(rows) >= 29 and all(len(row) == 3 for row in rows)
    for asked, source, answer in rows:
        assert re.fullmatch(r"\[[^]]+\]\(https?://\S+\)", source), asked
        assert "`" in answer or ("**Not done:**" in answer and "instead" in answer), asked
    assert len({source for _, source, _ in rows}) >= 29


def test_targets_of_make_and_extras_of_pip_exist():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = {words[1] for _, words in LINES if words[0] == "make" and "=" not in words[1]}
    installed = " ".join(words[2] for _, words in LINES if words[:2] == ["pip", "install"])
    extras = set(re.findall(r"\[(\w+)\]", installed))
    assert made and made <= targets
    assert extras and all(f"{name}_requirements" in settings["DEFAULT"] for name in extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_fence_of_python_or_shell_is_a_sample(page):
    text = text_of(page)
    fences = re.findall(r"^ *(?:~~~|```) ?(?:python|py|bash|sh|shell|console)\b", text, re.MULTILINE)
    assert len(fences) == len(run_chapter.SAMPLE.findall(text))


def test_samples_become_cells_where_they_belong():
    text = (
        "<details>\n\n~~~python\nx = 1\n~~~\n</details>\n\n<!-- sample: y = 2 -->\n~~~python\nassert x + y == 3\n~~~\n"
        "<!-- not run: slow -->\n~~~python\nimport ray\nfrom selectormlp import rank_genes\nwhile True: pass\n~~~\n"
        "<!-- sample: import os -->\n~~~bash\nls\n~~~\n<!-- not run: slow -->\n~~~bash\nls\n~~~\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("z = 3")])
    codes = [cell.source for cell in run_chapter.with_samples(notebook, "/there").cells if cell.cell_type == "code"]
    assert [code.strip() for code in codes[:2]] == ["x = 1", "z = 3"] and "'/there'" in codes[2]
    last = ["y = 2", "assert x + y == 3", "from selectormlp import rank_genes", "import os", "%%bash\nset -e\nls"]
    assert [code.strip() for code in codes[3:]] == last
