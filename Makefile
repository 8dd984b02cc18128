# make demo   set up .venv with the lab and run the quick study
# make test   the same environment with the test extras, then the fast suite
# make slow   the long tests; MINUTES=38 begins none after 38 minutes, and names those that it left
# make check  format, lint, types
# make docs   the documentation as a site, in site/
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow check docs clean

.venv/demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bitlaw needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab]"
	@touch $@

.venv/test: .venv/demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test]"
	@touch $@

demo: .venv/demo
	$(BIN)/bitlaw study quick

test: .venv/test
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: .venv/test
	$(BIN)/python -m pytest -n 2 -m slow --durations=60 $(if $(MINUTES),--minutes=$(MINUTES))

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv study-quick site
