# make help lists what there is. The version stands in pg_whatsapp.control only.
EXTENSION = pg_whatsapp
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(EXTENSION).control)
RELEASED := $(patsubst migrations/released/$(EXTENSION)--%.sql,%,$(wildcard migrations/released/*.sql))
SCRIPT = build/$(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(SCRIPT) $(patsubst %,build/$(EXTENSION)--%--$(EXTVERSION).sql,$(filter-out $(EXTVERSION),$(RELEASED)))
EXTRA_CLEAN = build
# Our own installcheck runs pgTAP, not pg_regress.
NO_INSTALLCHECK = 1

PG_CONFIG ?= $(or $(shell command -v pg_config),$(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin/pg_config))))
# Not for `make check`: PGXS has a target of that name, which only says that there is none.
ifeq ($(filter check,$(MAKECMDGOALS)),)
PGXS := $(if $(PG_CONFIG),$(wildcard $(shell $(PG_CONFIG) --pgxs)))
endif

ifneq ($(PGXS),)
include $(PGXS)
else
all install uninstall clean:
	@echo 'No PostgreSQL build files (PGXS): run bin/setup, or set PG_CONFIG.' >&2; exit 1
endif

SOURCES = $(EXTENSION).control sql/manifest sql/grants bin/build-extension \
	$(shell find sql plpython migrations -name '*.sql' -o -name '*.py')
PYTHON_DIR = $(DESTDIR)$(datadir)/$(EXTENSION)/python

$(SCRIPT): $(SOURCES)
	bin/build-extension script
$(filter-out $(SCRIPT),$(DATA_built)): $(SCRIPT)

build/python: pyproject.toml
	bin/build-extension python
	@touch $@

# The phone number rules live beside the extension: what a server has installed is often years old.
all: build/python
install: install-python
install-python: build/python
	mkdir -p '$(PYTHON_DIR)'
	rm -rf '$(PYTHON_DIR)'/phonenumbers*
	cp -R build/python/phonenumbers* '$(PYTHON_DIR)'
	chmod -R a+rX '$(DESTDIR)$(datadir)/$(EXTENSION)'
uninstall: uninstall-python
uninstall-python:
	rm -rf '$(DESTDIR)$(datadir)/$(EXTENSION)'

## installcheck: run the pgTAP suite, or FILES of it, on the server that PGHOST, PGPORT and PGUSER name
installcheck:
	bin/installcheck $(FILES)

## setup: install what is missing and make .venv; creates and touches no server of yours
setup:
	bin/setup

## demo: WhatsApp traffic on a private server, from a bare checkout, in under a minute
demo: setup
	bin/demo

# Cores as the system counts them: auto would count one where two share a physical one.
PYTEST = .venv/bin/python -m pytest -n logical --dist loadgroup

## test: everything, on private servers of its own, one a core
test: setup
	$(PYTEST)

## check: the quick part of the tests, in under two minutes: all but those marked slow
ifeq ($(PGXS),)
check: setup
	$(PYTEST) -m 'not slow' --durations=5
endif

## fuzz: the fuzzers of the tests for an hour instead of seconds; FUZZ=100000 says how many inputs each tries
FUZZ ?= 20000
fuzz: setup
	FUZZ_EXAMPLES='$(FUZZ)' $(PYTEST) tests/integration/test_fuzz.py

## bench: speed beside other queues and plain tables, about an hour; ARGS="--quick", ARGS="--only drain"
## bench AGAINST=REF: speed beside another commit, in turn, about 20 minutes; the same as ARGS="--against REF"
bench: setup
	.venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	PYTHONPATH=bin:tests .venv/bin/python -m bench $(if $(AGAINST),--against '$(AGAINST)') $(ARGS)

## reference: write docs/reference.md and docs/errors.md from what the database says of itself
reference: setup
	.venv/bin/python bin/reference

## rooms: draw the rooms of sql/ into docs/architecture.md from the sources
rooms: setup
	.venv/bin/python bin/rooms

## release-script: keep the install script of this version as released; migrations/README.md says when
release-script: $(SCRIPT)
	mkdir -p migrations/released
	@test ! -e migrations/released/$(notdir $<) || { echo 'version $(EXTVERSION) is released already' >&2; exit 1; }
	cp $< migrations/released/

## lint: layout, types and shell scripts; needs no server
lint: setup
	bin/lint

## help: this list
help:
	@echo 'make: assemble the extension; make install, make uninstall: as root, honour PG_CONFIG and DESTDIR'
	@sed -n 's/^## /make /p' Makefile

.PHONY: installcheck setup demo test check fuzz bench reference rooms release-script lint help install-python uninstall-python
