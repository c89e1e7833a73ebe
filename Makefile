# make app    opens the dashboard on the committed artifacts
# make fast   lint, types, layers, and the tests that need no model, no browser and no process of their own: about two minutes
# make test   lint and all tests
# make artifacts   trains and evaluates everything under assets/ (needs a GPU; DATASET=… COUNTERFACTUAL=… name local copies)

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: app fast test lint lines artifacts benchmarks soak screenshots report

$(VENV)/.app: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check $(PIP_FLAGS) -r requirements.txt
	touch $@

$(VENV)/.test: $(VENV)/.app pyproject.toml
	$(BIN)/pip install --disable-pip-version-check $(PIP_FLAGS) -e '.[test]'
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(BIN)/playwright install chromium
	touch $@

app: $(VENV)/.app
	$(BIN)/python app.py

lint: $(VENV)/.test lines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

# Lines by package: product (Python, templates, scripts), then the tests.
lines:
	@git ls-files -co --exclude-standard '*.py' '*.html' '*.js' | xargs wc -l | awk '$$2 != "total" { \
	  depth = split($$2, part, "/"); \
	  room = part[1] == "tests" ? "tests" : part[1] != "sentiment_core" ? "scripts" : depth > 2 ? part[2] : "(words)"; \
	  lines[room] += $$1; product += room == "tests" ? 0 : $$1 } \
	  END { for (room in lines) print lines[room] "	" room; print product "	product in all" }' | sort -n

fast: lint
	$(PYTEST) -m "not model and not browser and not slow"

test: lint
	$(PYTEST)

# Everything that assets/ holds of runs and evaluations, in order. Calling it again continues an interrupted one.
artifacts: $(VENV)/.app
	BIN=$(BIN) DATASET="$(DATASET)" COUNTERFACTUAL="$(COUNTERFACTUAL)" sh assets/make_artifacts.sh

# One HTML file of a run, or with VERSUS=… of two: make report RUN=smollm2-135m-taught VERSUS=smollm2-135m
report: $(VENV)/.app
	$(BIN)/python -m sentiment_core.dashboard.report $(or $(RUN),smollm2-135m) --versus "$(VERSUS)" --output report.html

# The animation in README and the two pictures in docs/, from the committed artifacts.
screenshots: $(VENV)/.test
	$(BIN)/python tests/browser/screenshots.py

# The long form of tests/reliability, an hour or so on a quiet machine; its report stands on the Method tab.
soak: $(VENV)/.test
	$(BIN)/python -m tests.reliability.soak

benchmarks: $(VENV)/.app
	$(BIN)/python -m sentiment_core.benchmarks train
	$(BIN)/python -m sentiment_core.benchmarks score
	$(BIN)/python -m sentiment_core.benchmarks live
