"""Make the students' notebook from the instructor's, or check with --check that it is in step.

What stands between the lines BEGIN SOLUTION and END SOLUTION is left out, outputs too; cells of which nothing is left
are dropped. In the title "Exercises, solved" becomes "Exercises".
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOLVED, STUDENTS = (ROOT / "nbs" / f"{name}.ipynb" for name in ("teaching/exercises_solved", "teaching/exercises"))
SOLUTION = re.compile(
    r"^(?:### BEGIN SOLUTION$.*?^### END SOLUTION|<!-- BEGIN SOLUTION -->$.*?^<!-- END SOLUTION -->)$\n?",
    re.MULTILINE | re.DOTALL,
)


def without_solution(source: str) -> str:
    """Take the solutions out of a cell."""
    left = SOLUTION.sub("", source)
    if "SOLUTION" in left:
        raise ValueError(f"a line BEGIN SOLUTION or END SOLUTION has no partner:\n{source}")
    return re.sub(r"\A# (.+), solved$", r"# \1", left.strip("\n"), flags=re.MULTILINE)


def students_notebook(solved: dict) -> dict:
    """Make the students' notebook; a cell keeps its id."""
    cells: list[dict] = []
    for cell in solved["cells"]:
        text = without_solution("".join(cell["source"]))
        if text:
            empty: dict = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
            cells.append(cell | empty | {"source": text.splitlines(keepends=True)})
    return solved | {"cells": cells}


def main() -> int:
    """Write the students' notebook, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the notebook is not in step")
    arguments = parser.parse_args()
    notebook = students_notebook(json.loads(SOLVED.read_text(encoding="utf-8")))
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if arguments.check:
        in_step = STUDENTS.exists() and STUDENTS.read_text(encoding="utf-8") == text
        print(f"{STUDENTS.name} is {'' if in_step else 'not '}in step with {SOLVED.name}", end="")
        print("" if in_step else "; run: make export")
        return int(not in_step)
    STUDENTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
