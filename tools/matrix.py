"""Try the library in fresh environments, in which nothing of this one is seen; each takes up to 7 GB, and is removed.

python tools/matrix.py                        # all that follow, where this machine can provide them
python tools/matrix.py 3.11 3.12 3.13         # the tests, with the newest packages
python tools/matrix.py oldest                 # the tests, with the oldest packages that settings.ini allows
python tools/matrix.py book peers dask docs   # whether an optional extra installs, and what it installs imports
python tools/matrix.py oldest -- -k masking   # what follows -- goes to pytest
"""

import os
import re
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from glob import glob
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
OLDEST = "oldest"
TOOLS = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6")
# Tests of files and tools are the same in every environment; some bad inputs are told in the words of other packages.
LEFT_OUT = ("package", "house", "site", "bad_inputs")
IMPORT = """
import sys
from importlib import import_module, metadata

modules = metadata.packages_distributions()
for name in sys.argv[1:]:
    for module in [one for one, names in modules.items() if name in (each.lower().replace("_", "-") for each in names)]:
        if module.isidentifier() and not module.startswith("_"):
            import_module(module)
"""


def extras() -> dict[str, list[str]]:
    """Name the packages of each optional extra, but for what only developers need."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    settings = {key.removesuffix("_requirements"): text for key, text in config["DEFAULT"].items() if "_req" in key}
    names = {name: re.findall(r"(?:^| )([\w.-]+)", text.lower()) for name, text in settings.items()}
    return {name: packages for name, packages in names.items() if name != "dev"}


def uv(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run uv; it also finds the Pythons of pyenv."""
    pyenv = glob(str(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions" / "*" / "bin"))
    environment = os.environ | {"PATH": os.pathsep.join([*pyenv, os.environ["PATH"]])}
    command = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def install(folder: Path, name: str) -> str:
    """Make an environment with the library, its extras and pytest; return what went wrong, if anything."""
    python = name if name in PYTHONS else PYTHONS[0]
    if uv("venv", "--python", python, folder).returncode:
        return f"left out: this machine has no Python {python}"
    age = ["--resolution", "lowest-direct"] if name == OLDEST else []
    extra = name if name in extras() else "book,dask"
    for wanted in ([*age, f"{ROOT}[{extra}]"], TOOLS):
        done = uv("pip", "install", "--python", folder, *wanted)
        if done.returncode:
            return f"FAILED to install\n{done.stderr}"
    return ""


def attempt(name: str, options: list[str]) -> str:
    """Make one environment and use it; return how it went."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        problem = install(environment, name)
        if problem:
            return problem
        ignored = [f"--ignore=tests/test_{test}.py" for test in LEFT_OUT]
        tests = ["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *ignored, *(options or ["tests"])]
        task = ["-c", IMPORT, *extras()[name]] if name in extras() else tests
        surroundings = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        done = subprocess.run([environment / "bin" / "python", *task], cwd=ROOT, env=surroundings)
        return "FAILED" if done.returncode else "passed"


def main(arguments: list[str]) -> int:
    """Try the named environments, or all."""
    known = [*PYTHONS, OLDEST, *extras()]
    place = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:place], arguments[place + 1 :]
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"there is no environment {unknown[0]!r}; there are: {', '.join(known)}")
        return 2
    results = {}
    for name in names or known:
        print(f"== {name}", flush=True)
        results[name] = attempt(name, options)
        print(f"== {name}: {results[name]}", flush=True)
    print("", *(f"{name}: {result}" for name, result in results.items()), sep="\n")
    return int(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
