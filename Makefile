# h5lens. The two commands of the README: `make deps demo`, `make deps test`.
# Everything that is built goes to $(BUILD); nothing else in the tree changes.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
PYTHON  ?= python3
VERSION := 0.1.0

PKGS    := hdf5-serial jansson yaml-0.1 libpcre2-8 libutf8proc libcrypto
# What `make deps` installs: to build and run, to read and plot, to test.
APT_BUILD := build-essential pkg-config libhdf5-dev libopenblas0-pthread libcsv-dev libjansson-dev \
	     libyaml-dev libpcre2-dev libutf8proc-dev libssl-dev
APT_TEST  := libcmocka-dev hdf5-tools python3 python3-venv ca-certificates valgrind clang clang-format clang-tidy \
	     cppcheck libclang-rt-14-dev
VENV    := $(BUILD)/venv
VPY     := $(VENV)/bin/python

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
OPT     ?= -O2 -g
SAN     ?=
# -ffp-contract=off: a multiply-add is fused where the kernels say so, and
# nowhere else, so that the compiler cannot change bits.
CFLAGS  += -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -fopenmp -ffp-contract=off $(SAN)
CPPFLAGS += -Iinclude -Isrc -DLENS_VERSION='"$(VERSION)"'
DEPFLAGS = -MMD -MP
# Asked when first used, once: `make deps all` installs pkg-config in between.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
# The HL library of HDF5 (dimension scales) and libcsv have no pkg-config name
# of their own in Debian. OpenBLAS is opened with dlopen (src/kernels/blas.c).
LIBS     = $(PKG_LIBS) -lhdf5_serial_hl -lcsv -ldl -lpthread -lm
LDFLAGS += -fopenmp $(SAN)

SRC      := $(sort $(wildcard src/*/*.c))
OBJ      := $(SRC:%.c=$(BUILD)/%.o)
CLIOBJ   := $(filter $(BUILD)/src/cli/%,$(OBJ))
LIBOBJ   := $(filter-out $(CLIOBJ),$(OBJ))
BIN      := $(BUILD)/h5lens
LIB      := $(BUILD)/libh5lens.a

TESTSRC  := $(sort $(wildcard tests/unit/test_*.c tests/golden/test_*.c))
TESTBIN  := $(TESTSRC:%.c=$(BUILD)/%)
TOOLSRC  := $(sort $(wildcard tests/fuzz/*.c tests/bench/*.c))
TOOLBIN  := $(TOOLSRC:%.c=$(BUILD)/%)
SUPOBJ   := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/support/*.c)))
CHECKED  := $(shell find src include tests -name '*.[ch]')

.PHONY: all demo test unit-test cli-test asan coverage valgrind analyze format format-check tidy \
	layers bench install clean deps help
.DELETE_ON_ERROR:

all: $(BIN) ## build the program

# --- compiling -----------------------------------------------------------------

# Our own kernels, once for each CPU level; the program picks one at run time.
LEVELFLAGS = $(if $(findstring _avx512.o,$@),-mavx512f -mavx512bw -mavx512vl -mavx512dq \
		-mprefer-vector-width=512) -mavx2 -mfma -mf16c -O3 -ffp-contract=fast
$(BUILD)/src/kernels/vec_avx%.o: src/kernels/vec_avx%.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LEVELFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(CPPFLAGS) $(if $(findstring tests/,$<),-Itests) $(PKG_CFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(LIB): $(LIBOBJ)
	@rm -f $@
	@ar rcs $@ $^

$(BIN): $(CLIOBJ) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(TESTBIN): %: %.o $(SUPOBJ) $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)
$(TOOLBIN): %: %.o $(LIB)
	@echo "LD $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

-include $(OBJ:.o=.d) $(TESTBIN:=.d) $(TOOLBIN:=.d) $(SUPOBJ:.o=.d)

# Also under -j: what deps installs comes before what needs it.
ifneq (,$(filter deps,$(MAKECMDGOALS)))
$(OBJ) $(SUPOBJ) $(TESTBIN:=.o) $(TOOLBIN:=.o) $(VENV)/.done: | deps
endif

# --- the demo --------------------------------------------------------------------

DEMO := $(BUILD)/demo

demo: $(BIN) $(VENV)/.done ## run experiments/ioi.yaml on the shipped model, print results, draw plots
	@mkdir -p $(DEMO)
	$(BIN) run experiments/ioi.yaml -o $(DEMO)/ioi.h5
	$(VPY) scripts/plot.py $(DEMO)/ioi.h5 -o $(DEMO) --by order
	@echo "the file and its pictures: $(DEMO)"

# --- tests -----------------------------------------------------------------------

test: unit-test cli-test ## every test

unit-test: $(TESTBIN)
	@BUILD=$(BUILD) sh tests/run-unit.sh $(TESTBIN)

cli-test: $(BIN) $(VENV)/.done $(TOOLBIN)
	@PYTHON=$(VPY) BUILD=$(BUILD) sh tests/run-cli.sh $(BIN)

asan: ## unit tests under ASan and UBSan
	$(MAKE) BUILD=$(BUILD)/asan OPT='-O1 -g -fno-omit-frame-pointer' \
		SAN='-fsanitize=address,undefined -fno-sanitize-recover=all' unit-test

coverage: ## line coverage of the unit tests, by gcov
	$(MAKE) BUILD=$(BUILD)/coverage OPT='-O0 -g' SAN='--coverage' unit-test
	@cd $(BUILD)/coverage && find src -name '*.gcda' | xargs gcov -n 2>/dev/null | \
		awk '/^File .src/ {f=$$2} /^Lines executed/ && f {print f, $$0; f=""}' | sort

valgrind: $(TESTBIN) ## unit tests under valgrind (slow)
	@command -v valgrind >/dev/null || { echo "valgrind: not installed, skipped"; exit 0; }; \
	BUILD=$(BUILD) H5LENS_TEST_CPU=avx2 H5LENS_TEST_QUICK=1 \
	WRAP='valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' sh tests/run-unit.sh $(TESTBIN)

analyze: ## cppcheck and gcc's analyzer
	@command -v cppcheck >/dev/null || { echo "cppcheck: not installed, skipped"; exit 0; }; \
	cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,portability \
		--suppress=missingIncludeSystem -Iinclude -Isrc -DLENS_VERSION='"x"' src

tidy: ## clang-tidy
	@command -v clang-tidy >/dev/null || { echo "clang-tidy: not installed, skipped"; exit 0; }; \
	clang-tidy --quiet $(filter-out src/kernels/vec_%,$(SRC)) -- $(CPPFLAGS) $(PKG_CFLAGS) -std=c11 -D_GNU_SOURCE

format: ## rewrite the sources in the project's format
	clang-format -i $(CHECKED)

format-check: ## is the format the project's?
	@command -v clang-format >/dev/null || { echo "clang-format: not installed, skipped"; exit 0; }; \
	clang-format --dry-run --Werror $(CHECKED)

layers: ## do the stages include only what they may?
	sh scripts/check_layers.sh

bench: $(BIN) $(TOOLBIN) ## sgemm's rate, and the program beside it
	sh tests/bench/run.sh $(BUILD)

# --- installing -------------------------------------------------------------------

install: $(BIN) ## to PREFIX=/usr/local
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/h5lens
	install -D -m 644 scripts/h5lens.1 $(DESTDIR)$(PREFIX)/share/man/man1/h5lens.1
	install -D -m 644 scripts/h5lens.py $(DESTDIR)$(PREFIX)/share/h5lens/python/h5lens.py
	install -D -m 755 scripts/plot.py $(DESTDIR)$(PREFIX)/share/h5lens/python/plot.py

deps: ## install what is missing (Debian; elsewhere it says what)
	@BUILD=$(BUILD) PYTHON=$(PYTHON) sh scripts/deps.sh "$(APT_BUILD)" "$(APT_TEST)"
	@$(MAKE) --no-print-directory $(VENV)/.done

$(VENV)/.done: scripts/requirements.txt
	@rm -rf $(VENV)
	@mkdir -p $(BUILD)
	$(PYTHON) -m venv $(VENV)
	$(VPY) -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
	@touch $@

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
