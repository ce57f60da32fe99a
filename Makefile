# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
CORE := tests/spec tests/count tests/timing tests/exchange

unexport PYTHONDONTWRITEBYTECODE  # else each process that tests start compiles perfmodel again

.PHONY: setup demo check core test lint docs properties fuzz faults mutants bench measured measured-serving gallery readme clean

setup: .venv/complete

.venv/complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/light: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

demo: .venv/light
	$(BIN)/perfmodel predict nemotron-4-15b

# While you work: under a minute on two cores, for types are checked beside the tests.
check: setup
	$(MAKE) --no-print-directory --jobs 2 lint core

core: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not slow and not processes and not ranks" $(CORE)

# Everything: a file stays on one worker, for what its tests share, and so does all that starts ranks.
test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, from docs/ and from what the code declares; commands on its pages are run. A link that leads nowhere is an error.
docs: .venv/docs
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --nitpicky --quiet --jobs $(JOBS) --doctree-dir build/doctrees docs build/site

# The same properties as in `make test` on many more runs and servers, drawn anew each time.
DEPTH ?= 20
properties: setup
	PROPERTY_DEPTH=$(DEPTH) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile tests/properties

# Broken files for every reader, others each time, for so many minutes a reader; what is found is kept in tests/fuzz/cases.
MINUTES ?= 1
fuzz: setup
	FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest -s tests/fuzz -k broken_files

# Every command under everything that a machine, a shell or a person may do to it: 1,800 times, 47 minutes with one job.
faults: setup
	FAULT_JOBS=$(JOBS) $(BIN)/python -m pytest tests/faults

# Do the tests of counts and times notice when an equation is changed? Some seconds a mutant, half a minute for one that survives.
# AT=--at-import changes constants, defaults and tables instead.
MUTANTS ?= 40
AT ?=
SEED ?= 0
mutants: setup
	$(BIN)/python -m perfmodel.benchmarks.project.mutation.mutants $(AT) --number $(MUTANTS) --seed $(SEED) --jobs $(JOBS)

bench: setup
	$(BIN)/python -m perfmodel.benchmarks.project.start_up
	$(BIN)/python -m perfmodel.benchmarks.project.search_speed
	$(BIN)/python -m perfmodel.benchmarks.project.commands

measured: setup
	$(BIN)/python -m perfmodel.benchmarks.project.measured --output docs/measured

measured-serving: setup
	$(BIN)/python -m perfmodel.benchmarks.project.measured_serving --output docs/measured_serving

gallery: setup
	$(BIN)/python -m perfmodel.benchmarks.project.gallery
	$(BIN)/python -m perfmodel.benchmarks.project.notebook docs/first_steps.ipynb

readme: setup
	$(BIN)/python -m perfmodel.benchmarks.project.front_page

clean:
	rm -rf .venv build
