# What a developer does here; each target sets up what it needs in .venv.
# Only what every make since 3.81 knows is used, so that it works on Linux and macOS as they come.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed.stamp

# Each worker has one processor, and threads that wait for another one's would keep it busy.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Coverage is that of the core by the tests that stand beside it. Watching the frameworks' own Python as well would make
# the whole take half as long again, and say nothing of this code.
COVERED = tests/adapters/http tests/bundles tests/cli tests/components tests/docs tests/fleets tests/golden \
	tests/judging tests/marking tests/observing tests/report tests/suites tests/weights tests/zoo/test_zoo.py tests/auditing/test_mistakes.py \
	tests/auditing/test_subject.py tests/conformance/test_broken_schemes.py tests/test_architecture.py \
	tests/test_errors.py tests/test_text.py

# Most tests are one fact on many networks, formats or files: a few of them tell most mistakes.
SAMPLE = --one-in 8

# A real inference server, in an environment of its own: its packages want other releases than ours.
SERVER = .venv/server
SERVER_INSTALLED = $(SERVER)/installed.stamp

# Tests of whole audits and commands, of processes, and of what frameworks are for.
WHOLE = $(addprefix tests/,adapters auditing bundles cli conformance examples fleets marking sandbox zoo)

.PHONY: help demo zoo-demo check test other-tests server-tests quick-tests sampled-tests compiled lint format docs site picture clean

help:
	@echo 'make demo      train small models, save them in three formats, audit the files (writes demo/)'
	@echo 'make zoo-demo  train a small victim, make controls and steal it in every way, say which thefts an audit sees'
	@echo 'make check     make lint, and at the same time the tests of single parts, without a framework: two minutes'
	@echo 'make test      make lint, and at the same time every test but the slow ones, each with a share of its cases'
	@echo '               (a quarter of an hour)'
	@echo 'make other-tests  the cases and the slow tests that make test leaves out: half an hour'
	@echo 'make server-tests  ask models that a real inference server serves (installs MLServer into .venv/server)'
	@echo 'make lint      ruff, mypy, import-linter'
	@echo 'make format    let ruff format the code and mend what it can'
	@echo 'make docs      write the tables of the documentation from the code'
	@echo 'make site      build the documentation as a site (writes build/site/); any warning is an error'
	@echo 'make picture   take the picture of the report that README shows, of what make demo wrote (needs Chromium)'
	@echo 'make clean     remove everything that these targets made, .venv too'
	@echo 'PYTHON=...     which Python makes .venv, 3.11 or later (now: $(PYTHON))'

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

zoo-demo: $(INSTALLED)
	$(BIN)/python examples/zoo_demo.py

# mypy, of one process, runs beside the tests.
check: $(INSTALLED)
	$(MAKE) -j 2 lint quick-tests

test: $(INSTALLED)
	$(MAKE) -j 2 lint sampled-tests

# Where Python may not keep what it compiled, each of the hundreds of processes that tests start would compile all modules.
compiled: $(INSTALLED)
	$(BIN)/python -m compileall -q deepjudge_core adapters plugins tests/support

quick-tests: compiled
	$(PYTEST) $(SAMPLE) --without-frameworks -r fE $(addprefix --ignore=,$(WHOLE))

sampled-tests: compiled
	$(PYTEST) $(SAMPLE) $(COVERED) --cov --cov-report= --cov-fail-under=84
	$(PYTEST) $(SAMPLE) $(addprefix --ignore=,$(COVERED))

# Together with the share of make test, all that there is; so is the coverage.
other-tests: compiled
	$(PYTEST) $(SAMPLE) --others $(COVERED) --cov --cov-append --cov-report=
	$(PYTEST) $(SAMPLE) --others $(addprefix --ignore=,$(COVERED))

server-tests: $(INSTALLED) $(SERVER_INSTALLED)
	PATH=$$PATH:$(CURDIR)/$(SERVER)/bin $(BIN)/python -m pytest tests/adapters/http/test_real_server.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/python docs/tables.py

site: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/doctrees . build/site
	@echo 'The site: build/site/index.html'

picture: $(INSTALLED)
	$(BIN)/python docs/screenshot.py demo/report.html docs/start/report.png

# The stamp says that .venv has what these two files ask for.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'deepjudge needs Python 3.11 or later; $(PYTHON) is:' `$(PYTHON) --version 2>&1` >&2; \
		echo 'Name another one, as in: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing deepjudge with ONNX Runtime, PyTorch and TensorFlow into $(VENV): minutes, the first time.'
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

$(SERVER_INSTALLED): tests/adapters/http/server-requirements.txt
	$(PYTHON) -m venv $(SERVER)
	$(SERVER)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/adapters/http/server-requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) .coverage build demo zoo-demo dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
