# Everything here works from a fresh clone with Python 3.11+, git and make; the tools live in .venv.
PYTHON ?= python3
JOBS ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
MUTATION := $(VENV)/.mutation
SUPPLY := $(VENV)/.supply
DOCS := $(VENV)/.docs

.DEFAULT_GOAL := help
.PHONY: help demo example-web example-worker test check format coverage pictures docs bench bench-polling bench-watch bench-monitor bench-batch bench-distributed soak soak-distributed mutation dist test-wheel audit sbom clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tenios_async needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or so) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip --disable-pip-version-check install -q --upgrade 'pip>=25.1'
	@$(BIN)/pip --disable-pip-version-check install -q -e '.[cli,distributed,otel,phone,simulator]' --group dev
	@touch $@

demo: $(READY) ## place callbacks against a simulator on this machine and watch each to its end
	@$(BIN)/tenios demo

example-web: $(READY) ## a web page with a "call me back" form, beside a simulator; ARGS="--port 8080" for another port
	@cd examples && ../$(BIN)/python -m web_callback.demo $(ARGS)

example-worker: $(READY) ## calls placed once and followed by workers on Redis, one of which is killed; needs redis-server
	@cd examples && ../$(BIN)/python -m worker.demo

test: $(READY) ## the whole test suite, JOBS=4 tests at a time: they wait more than they compute; ARGS="-k pool" for some
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(READY) ## ruff, mypy and pyright, also over tests/typing, which pins the public face
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 tenios_async
	@$(BIN)/pyright --warnings
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes tenios_async --ignoreexternal >$(VENV)/.types || { cat $(VENV)/.types; exit 1; }
	@grep completeness $(VENV)/.types

format: $(READY) ## let ruff format and mend what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

coverage: $(READY) ## the suite with branch coverage, which has to be 100 %; on Python 3.12 or newer
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { echo "Python 3.11 does not tell coverage what runs after an exception thrown into a coroutine (cpython#106749). Try: make coverage VENV=.venv-3.13 PYTHON=python3.13"; exit 1; }
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

pictures: $(READY) ## render docs/watch.svg and docs/web-*.png from the real programs; the latter with Chromium
	@$(BIN)/python docs/render_watch.py docs/watch.svg
	@$(BIN)/python docs/render_web.py docs

$(DOCS): $(READY)
	@$(BIN)/pip --disable-pip-version-check install -q --group docs
	@touch $@

docs: $(DOCS) ## the documentation site in .site/; a warning fails it
	@$(BIN)/zensical build --strict --clean >$(DOCS).log 2>&1 || { cat $(DOCS).log; exit 1; }
	@! grep -E '^(griffe|mkdocs)' $(DOCS).log # whose warnings zensical passes on and does not count
	@echo "Open $(CURDIR)/.site/index.html"

$(BENCH): $(READY)
	@$(BIN)/pip --disable-pip-version-check install -q --group bench
	@touch $@

bench: $(BENCH) ## what a status poll costs beside other clients, some minutes; ARGS=--quick for a smoke run
	@$(BIN)/python benchmarks/polling.py $(ARGS)

bench-polling: $(BENCH) ## how few polls and how late, beside other schedules and the best there is; some minutes
	@$(BIN)/python benchmarks/schedules.py $(ARGS)

bench-watch: $(BENCH) ## what it costs to follow a callback to its end, beside loops that ask every 2 s; 8 minutes
	@$(BIN)/python benchmarks/watching.py $(ARGS)

bench-monitor: $(BENCH) ## memory, CPU and lag of a hundred thousand callbacks at once; 4 minutes
	@$(BIN)/python benchmarks/monitor.py $(ARGS)

bench-batch: $(BENCH) ## contacts a second that a campaign works off, beside httpx and gather; 3 minutes
	@$(BIN)/python benchmarks/campaign.py $(ARGS)

bench-distributed: $(BENCH) ## several workers on PostgreSQL, which must be there, and their rate limit; 5 minutes
	@$(BIN)/python benchmarks/distributed.py $(ARGS)

soak: $(READY) ## every experiment of docs/reliability.md, for hours: ARGS="--hours 8", or --only NAME --seed N
	@$(BIN)/python -m tests.faults.soak $(ARGS)

soak-distributed: $(READY) ## disasters of machines and PostgreSQL, which must be there; ARGS="--minutes 5 --seed 7" for less
	@$(BIN)/python -m tests.batch.disasters $(ARGS)

$(MUTATION): $(READY)
	@$(BIN)/pip --disable-pip-version-check install -q --group mutation
	@touch $@

mutation: $(MUTATION) ## one small fault at a time in the pure rooms and the ledgers, for their tests to notice; ARGS="_watch batch/standing" for some
	@$(BIN)/python tests/mutation/mutants.py $(ARGS)

dist: $(READY) ## sdist and wheel in dist/, without a network
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation

test-wheel: dist ## the wheel in clean environments: alone, with each extra, and the suite with its lowest dependencies
	@$(BIN)/python tests/packaging/wheel.py dist/*.whl $(JOBS)

$(SUPPLY): $(READY)
	@$(BIN)/pip --disable-pip-version-check install -q --group supply
	@touch $@

audit: $(SUPPLY) dist ## known vulnerabilities of what the wheel brings; asks the network
	@$(BIN)/python tests/packaging/supply.py audit dist/*.whl

sbom: $(SUPPLY) dist ## a CycloneDX bill of what the wheel brings, in dist/
	@$(BIN)/python tests/packaging/supply.py sbom dist/*.whl

clean: ## remove what make made
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* .cache .site dist
