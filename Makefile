# make demo: run a small sweep on built-in speech and write runs/demo/report.html; it says how long it will take.  make test: run the quick suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := $(VENV)/.docs

# Some container images set this. Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-long test-cluster test-cluster-short check docs notebooks bench clean

demo: $(READY)
	$(BIN)/distvae tune demo --out runs/demo --force

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not long and not cluster"

# Most of these tests wait for processes to start, so four at once keep two cores busy.
test-slow: $(READY)
	$(BIN)/pytest -n 4 --dist worksteal -m "slow and not long and not cluster"

# Tests that repeat others with one more signal, seed, program or way to fail, that time other programs, or that keep the
# machine busy.
test-long: $(READY)
	$(BIN)/pytest -n 2 -m "long and not cluster"

# From `ray up` to `ray down` on three hosts that are namespaces of this machine. Skipped, with the reason, where
# namespaces cannot be created.
test-cluster: $(READY)
	$(BIN)/pytest -x -rs -m cluster tests/cluster

# The same without the tests that lose a host. Hosts install nothing: they see the packages of this environment.
test-cluster-short: $(READY)
	$(BIN)/pytest -x -rs -m "cluster and not long" tests/cluster

check: $(READY)
	$(BIN)/ruff format --check distvae tests benchmarks docs
	$(BIN)/ruff check distvae tests benchmarks docs
	$(BIN)/mypy

# Pages that need no network. A warning, such as one of a link that leads nowhere, is an error.
docs: $(DOCS)
	$(BIN)/python -m sphinx -q -W --keep-going -c docs/site -d build/doctrees . build/site
	@echo "open build/site/index.html in a browser"

# Run the notebooks of docs/ anew and keep their outputs.
notebooks: $(READY)
	$(BIN)/python -m docs.site.execute

bench: $(READY)
	$(BIN)/python -m benchmarks.steps

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first, so that later packages that depend on torch accept the pinned one.
$(READY): pyproject.toml setup.py requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock torch numpy
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock pesq \
		|| echo "PESQ could not be built (it needs a C compiler and Python's headers): its scores will be left out."
	touch $@

$(DOCS): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[docs]'
	touch $@
