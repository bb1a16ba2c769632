# Two commands: `make report` runs the whole report on the shipped cells, `make test` checks everything.
# Both make .venv and install into it when needed; repeated, they start in seconds. With LOCKED=yes every package but torch
# has the very bytes that requirements-dev.lock names.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --no-compile# Python compiles what is used, when it is used first
SETUP := settings.ini setup.py constraints.txt requirements.lock requirements-dev.lock
export MPLBACKEND := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help report check test stress audit lock matrix site export clean

help:
	@echo "make report   the whole report on the shipped pancreas cells, into runs/report"
	@echo "make check    what is checked of a change in five minutes: style, types, sync, and the quick tests"
	@echo "make test     everything that is checked before a change is accepted"
	@echo "make stress   the long checks: kills, damaged files, memory, mutants (hours); writes data/studies/stress"
	@echo "make audit    what the public advisories know of the packages that are installed (needs a network)"
	@echo "make lock     requirements.lock and requirements-dev.lock, after a change of settings.ini or constraints.txt"
	@echo "make matrix   the tests on Python 3.11, 3.12 and 3.13, with the oldest packages allowed, and each extra (an hour)"
	@echo "make site     the site, into _docs"
	@echo "make export   the library, README.md and the exercises from the notebooks"
	@echo "make clean    remove what was built (not .venv, not runs)"

report: $(VENV)/.installed
	.venv/bin/selectormlp report pancreas --out runs/report

check: $(VENV)/.installed-dev
	$(BIN)/python tools/check.py lint types sync readme quick

test: $(VENV)/.installed-dev
	$(BIN)/python tools/check.py

stress: $(VENV)/.installed-dev
	$(BIN)/python -m pip install -qq 'mutmut>=3.8,<4' 'coverage>=7.10'
	$(BIN)/python tests/stress/fuzz.py --cases 11000 --write
	$(BIN)/python tests/stress/shapes_fuzz.py --draws 2000 --write
	$(BIN)/python tests/stress/attacks.py --cases 20000 --write
	$(BIN)/python tests/stress/kills.py
	$(BIN)/python tests/stress/fits.py
	SELECTORMLP_EXAMPLES=500 $(BIN)/python -m pytest -q tests/test_properties.py
	$(BIN)/python tests/stress/mutants.py --write
	$(BIN)/python tests/stress/lines.py --write

audit: $(BIN)/python
	$(BIN)/python -m pip install -qq pip-audit==2.10.1
	$(BIN)/python -m pip_audit --disable-pip --require-hashes -r requirements-dev.lock

lock: $(BIN)/python
	$(BIN)/python -m pip install -qq uv==0.13.9
	$(BIN)/python tools/lock.py

matrix: $(VENV)/.installed-dev
	$(BIN)/python -m pip install -qq 'uv>=0.5'
	$(BIN)/python tools/matrix.py

site: $(VENV)/.installed-dev
	$(BIN)/python tools/build_site.py

export: $(VENV)/.installed-dev
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/make_install.py
	$(BIN)/python tools/make_readme.py
	$(BIN)/python tools/make_exercises.py

clean:
	rm -rf _docs _proc build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "selectormlp needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SETUP) | $(BIN)/python
	@echo "installing into $(VENV); the first time takes some minutes"
ifdef LOCKED
	@$(INSTALL) --require-hashes --no-deps -r requirements.lock
	@$(INSTALL) -c constraints.txt torch
	@$(INSTALL) --no-deps --no-build-isolation -e .
else
	@$(INSTALL) -c constraints.txt -e .
endif
	@touch $@

$(VENV)/.installed-dev: $(SETUP) | $(BIN)/python
	@echo "installing into $(VENV); the first time takes some minutes"
ifdef LOCKED
	@$(INSTALL) --require-hashes --no-deps -r requirements-dev.lock
	@$(INSTALL) -c constraints.txt torch
	@$(INSTALL) --no-deps --no-build-isolation -e .
else
	@$(INSTALL) -c constraints.txt -e ".[dev]"
endif
	@touch $(VENV)/.installed $@
