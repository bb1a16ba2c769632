"""Make README.md from nbs/index.ipynb, or check with --check that it is in step."""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cell_text(cell: dict) -> str:
    """Write one cell as Markdown; hidden cells are left out."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    if re.search(r"^#\| *(hide|default_exp|export)", source, re.MULTILINE):
        return ""
    code = re.sub(r"^#\|.*\n", "", source, flags=re.MULTILINE)
    return f"```python\n{code}\n```"


def readme_text(notebook: Path) -> str:
    """Write the notebook as Markdown, with links to chapters that work from the top of the repository."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(filter(None, (cell_text(cell).strip() for cell in cells)))
    text = re.sub(r"\]\(([\w/]+\.ipynb)", r"](nbs/\1", text).replace("```py\n", "```python\n")
    return f"<!-- Made from nbs/index.ipynb by tools/make_readme.py; edit the notebook. -->\n\n{text}\n"


def main() -> int:
    """Write README.md, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if README.md is not in step")
    text, readme = readme_text(ROOT / "nbs" / "index.ipynb"), ROOT / "README.md"
    if parser.parse_args().check:
        in_step = readme.exists() and readme.read_text(encoding="utf-8") == text
        print("README.md is in step" if in_step else "README.md is not in step with nbs/index.ipynb; run: make export")
        return int(not in_step)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
