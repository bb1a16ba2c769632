"""The guard: a reader that crashes or stalls is one sentence; what is well passes through."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selectormlp.data import InputError, data_folder
from selectormlp.guard import _reading_seconds, try_file

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from selectormlp.guard import _run_guarded

def work():
    from selectormlp.data import InputError
    from selectormlp.readers import _reading
    how = sys.argv[1]
    if how in ("0", "3"):
        return int(how)
    print("begun", os.getpid(), flush=True)
    if how == "wait":
        time.sleep(60)
    if how == "crash":
        os.abort()
    with _reading(Path("cells.h5ad")):
        if how == "refused":
            raise InputError("no")
        if how == "read crash":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # as in a loop of a library in C
        time.sleep(60)

sys.exit(_run_guarded(work, lambda text: print(text, file=sys.stderr)))
"""


def start(how: str, **environment: str) -> subprocess.Popen:
    variables = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("0", 0, ""),
        ("3", 3, ""),
        ("read crash", 2, "SIGSEGV while it read 'cells.h5ad'; the file is damaged"),
        ("crash", 2, "SIGABRT at work"),
        ("stall", 2, "reading 'cells.h5ad' took longer than 1 seconds and was given up"),
    ],
)
def test_how_a_program_ends_is_said(how: str, status: int, words: str) -> None:
    program = start(how, SELECTORMLP_READ_SECONDS="1")
    said = program.communicate(timeout=120)[1]
    assert program.returncode == status and words in said and "Traceback" not in said
    assert said.count("\n") == bool(words)


def test_ctrl_c_ends_a_stalled_reader_and_a_signal_reaches_the_program() -> None:
    program = start("stall")
    assert program.stdout.readline().startswith("begun")
    time.sleep(1)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)
    assert program.returncode == 130
    program = start("wait")
    assert program.stdout.readline().startswith("begun")
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=60)
    assert program.returncode == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="a child ends with its parent on Linux")
def test_nobody_works_on_when_the_program_was_killed() -> None:
    program = start("wait")
    child = int(program.stdout.readline().split()[1])
    program.kill()
    program.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
            state = Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def test_a_file_is_tried_in_a_process_of_its_own(tmp_path: Path) -> None:
    try_file(data_folder() / "pancreas.h5ad", label_key="cell_type")
    (tmp_path / "cut.h5ad").write_bytes((data_folder() / "pancreas.h5ad").read_bytes()[:200_000])
    with pytest.raises(InputError, match="cannot read .*cut.h5ad"):
        try_file(tmp_path / "cut.h5ad")
    with pytest.raises(InputError, match="took longer than 0 seconds"):
        try_file(tmp_path / "cut.h5ad", seconds=0.01)
    with pytest.raises(InputError, match="does not exist"):
        try_file(tmp_path / "absent.h5ad")


def test_large_files_have_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").write_bytes(b"x")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**9)
    assert _reading_seconds(tmp_path / "small") < 31 and _reading_seconds(tmp_path / "large") > 1000
    monkeypatch.setenv("SELECTORMLP_READ_SECONDS", "7")
    assert _reading_seconds(tmp_path / "large") == 7
