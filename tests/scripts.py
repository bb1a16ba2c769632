"""What tests of the scripts in tools/ share."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
NBS = TOOLS.with_name("nbs")
# All notebooks, also those in folders; those with _ are copies that run with their samples.
ALL_NOTEBOOKS = sorted(path for kind in ("[!_]*.ipynb", "[!._]*/[!_]*.ipynb") for path in NBS.glob(kind))


def tool(name: str) -> ModuleType:
    """Import a script of tools/ anew; scripts find each other there."""
    if str(TOOLS) not in sys.path:
        sys.path.insert(0, str(TOOLS))
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)  # a NamedTuple or dataclass asks for its module
    spec.loader.exec_module(module)
    return module


def chromium() -> str:
    """Find the browser; without one the test is skipped."""
    executable = next(filter(None, map(shutil.which, tool("check_site").BROWSERS)), None)
    if executable is None:
        pytest.skip("there is no Chromium on this machine")
    return executable
