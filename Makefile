# h5lens. The two commands of the README: `make deps demo`, `make deps test`.
# Everything that is built goes to $(BUILD); nothing else in the tree changes.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
PYTHON  ?= python3
VERSION := 0.6.0

PKGS     = $(HDF5) jansson yaml-0.1 libpcre2-8 libutf8proc libcrypto libzip libxxhash
# What `make deps` installs: to build and run, to read and plot; to test and analyse. By
# names that Debian 12 and 13 both have.
APT_BUILD := build-essential pkg-config libhdf5-dev libopenblas0-pthread libcsv-dev libjansson-dev \
	     libyaml-dev libpcre2-dev libutf8proc-dev libssl-dev libzip-dev libxxhash-dev
APT_READ  := python3 python3-venv ca-certificates
APT_TEST  := libcmocka-dev hdf5-tools valgrind clang clang-format clang-tidy cppcheck libclang-rt-dev libomp-dev
APT_SLURM := slurm-wlm munge
VENV    := $(BUILD)/venv
# Where the program finds plot.py and report.py, wherever BUILD is.
export H5LENS_SCRIPTS ?= $(CURDIR)/scripts
VPY     := $(VENV)/bin/python

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
	   -Werror=incompatible-pointer-types
OPT     ?= -O2 -g
SAN     ?=
# CC, CFLAGS, CPPFLAGS and LDFLAGS are the user's, from the command line or the environment. What the program
# needs is in C and LD, and stands where it wins: after CFLAGS (which can change OPT), before CPPFLAGS' folders.
# -ffp-contract=off: a multiply-add is fused where the kernels say so, and
# nowhere else, so that the compiler cannot change bits.
C_CPP    = -Iinclude -Isrc -DLENS_VERSION='"$(VERSION)"' $(CPPFLAGS)
C_FLAGS  = $(OPT) $(CFLAGS) -std=c11 -D_GNU_SOURCE $(WARN) -fopenmp -ffp-contract=off $(SAN)
C        = $(CC) $(C_CPP) $(C_FLAGS)
LD       = $(CC) $(LDFLAGS) -fopenmp $(SAN)
DEPFLAGS = -MMD -MP
# Asked when first used, once: `make deps all` installs pkg-config in between.
PKG_CONFIG ?= pkg-config
PKG_ASK    = PKG_CONFIG_PATH='$(PKG_CONFIG_PATH)' $(PKG_CONFIG)
HDF5       = $(eval HDF5 := $$(shell $(PKG_ASK) --exists hdf5-serial 2>&1 && echo hdf5-serial || echo hdf5))$(HDF5)
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(call pkg,--cflags))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(call pkg,--libs))$(PKG_LIBS)
pkg        = $(shell $(PKG_ASK) $(1) $(PKGS))$(if $(filter-out 0,$(.SHELLSTATUS)),$(error $(PKG_CONFIG) has not found all \
	     of $(PKGS): `make deps` installs them on Debian, elsewhere PKG_CONFIG_PATH says where they are (README, "Building elsewhere")))
# The HL library of HDF5 (dimension scales) and libcsv have no pkg-config name
# of their own in Debian. OpenBLAS is opened with dlopen (src/kernels/blas.c).
LIBS     = $(PKG_LIBS) -l$(if $(filter hdf5-serial,$(HDF5)),hdf5_serial_hl,hdf5_hl) -lcsv -ldl -lpthread -lm

SRC      := $(sort $(wildcard src/*/*.c))
OBJ      := $(SRC:%.c=$(BUILD)/%.o)
CLIOBJ   := $(filter $(BUILD)/src/cli/%,$(OBJ))
LIBOBJ   := $(filter-out $(CLIOBJ),$(OBJ))
BIN      := $(BUILD)/h5lens
LIB      := $(BUILD)/libh5lens.a

TESTSRC  := $(sort $(wildcard tests/unit/test_*.c tests/golden/test_*.c))
TESTBIN  := $(TESTSRC:%.c=$(BUILD)/%)
TOOLSRC  := $(sort $(wildcard tests/fuzz/*_driver.c tests/bench/*.c))
TOOLBIN  := $(TOOLSRC:%.c=$(BUILD)/%)
FUZZSRC  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZBIN  := $(FUZZSRC:%.c=$(BUILD)/%)
FUZZOBJ  := $(BUILD)/tests/fuzz/fuzz.o
SUPOBJ   := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/support/*.c)))
CHECKED   = $(shell find src include tests -name '*.[ch]')

.PHONY: all bundle demo patching-demo modular-addition notebooks notebooks-random get-gpt2-small test unit-test cli-test slurm-test report-test faults fuzz fuzz-replay asan coverage valgrind analyze format format-check tidy \
	layers bench install man clean deps deps-build help
.DELETE_ON_ERROR:

all: $(BIN) ## build the program

# --- compiling -----------------------------------------------------------------

# Our own kernels, once for each CPU level; the program picks one at run time.
LEVELFLAGS = $(if $(findstring _avx512.o,$@),-mavx512f -mavx512bw -mavx512vl -mavx512dq \
		-mprefer-vector-width=512) -mavx2 -mfma -mf16c -O3 -ffp-contract=fast
$(BUILD)/src/kernels/vec_avx%.o: src/kernels/vec_avx%.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(C) $(LEVELFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(C) $(if $(findstring tests/,$<),-Itests) $(PKG_CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(LIB): $(LIBOBJ)
	@rm -f $@
	@ar rcs $@ $^

$(BIN): $(CLIOBJ) $(LIB)
	@echo "LD $@"
	@$(LD) -o $@ $^ $(LIBS)

$(TESTBIN): %: %.o $(SUPOBJ) $(LIB)
	@echo "LD $@"
	@$(LD) -o $@ $^ -lcmocka $(LIBS)
$(TOOLBIN): %: %.o $(LIB)
	@echo "LD $@"
	@$(LD) -o $@ $^ $(LIBS)
# LIBFUZZER is set in `make fuzz`, which brings its own main.
$(FUZZBIN): %: %.o $(FUZZOBJ) $(if $(LIBFUZZER),,$(BUILD)/tests/fuzz/replay.o) $(LIB)
	@echo "LD $@"
	@$(LD) $(LIBFUZZER) -o $@ $^ $(LIBS)

-include $(OBJ:.o=.d) $(TESTBIN:=.d) $(TOOLBIN:=.d) $(SUPOBJ:.o=.d) $(FUZZBIN:=.d) $(FUZZOBJ:.o=.d)

# Also under -j: what deps installs comes before what needs it.
ifneq (,$(filter deps,$(MAKECMDGOALS)))
$(OBJ) $(SUPOBJ) $(TESTBIN:=.o) $(TOOLBIN:=.o) $(FUZZBIN:=.o) $(FUZZOBJ) $(VENV)/.done: | deps
endif

# --- the demo --------------------------------------------------------------------

DEMO := $(BUILD)/demo

demo: $(BIN) $(VENV)/.done ## run experiments/ioi.yaml on the shipped model, print results, draw plots, make a report
	@mkdir -p $(DEMO)
	$(BIN) run experiments/ioi.yaml -o $(DEMO)/ioi.h5
	$(BIN) plot $(DEMO)/ioi.h5 -o $(DEMO)
	$(BIN) report $(DEMO)/ioi.h5 -o $(DEMO)/report.html --by order
	@echo "the file, its pictures and its report: $(DEMO)"

patching-demo: $(BIN) $(VENV)/.done ## run experiments/ioi-patching.yaml on the shipped model, draw which heads move the name
	@mkdir -p $(DEMO)
	$(BIN) run experiments/ioi-patching.yaml -o $(DEMO)/ioi-patching.h5
	$(BIN) plot $(DEMO)/ioi-patching.h5 -o $(DEMO) --what patch --roles subject,indirect_object,object
	@echo "the file and its pictures: $(DEMO)"

modular-addition: $(BIN) $(VENV)/.done ## run experiments/modular-addition, a one-layer model that grokked, and draw how it adds
	@mkdir -p $(DEMO)
	$(BIN) run experiments/modular-addition/experiment.yaml -o $(DEMO)/modular-addition.h5
	$(BIN) plot $(DEMO)/modular-addition.h5 -o $(DEMO) --what lens,components,heads,head_scores,layer --prompt 391
	PYTHONPATH=scripts $(VPY) experiments/modular-addition/fourier.py $(DEMO)/modular-addition.h5 -o $(DEMO)/modular-addition.fourier.png
	@echo "the file and its pictures: $(DEMO)"

# --- models and notebooks ----------------------------------------------------------

MODELS := $(BUILD)/models
# An environment with PyTorch and TransformerLens 2.16, some GB: or FIDELITY_PYTHON=… of one that has them.
FIDELITY := $(BUILD)/fidelity
FIDELITY_PYTHON ?= $(FIDELITY)/bin/python

$(VENV)/.models: scripts/requirements-models.txt $(VENV)/.done
	$(VPY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

get-gpt2-small: get-gpt2 # TransformerLens's other name of it: one model, one folder
	@:
get-%: $(VENV)/.models ## fetch a model to build/models: get-smollm2-135m, get-gpt2, get-pythia-70m-deduped, …
	@[ -e $(MODELS)/$* ] && echo "$(MODELS)/$* is there" || $(VPY) scripts/get_model.py $* $(MODELS)/$*

notebooks: $(BIN) $(VENV)/.done ## run the notebooks' experiments, ours beside theirs; without a model on a random one (ONLY=gpt2-ioi: one)
	@$(VPY) scripts/notebooks.py $(ONLY) --h5lens $(BIN) --models $(MODELS) -o $(BUILD)/notebooks || [ $$? = 3 ]

# Their lines on random models of the real shapes, beside TransformerLens.
RANDOM := $(BUILD)/random
notebooks-random: $(BIN) $(if $(filter $(FIDELITY)/%,$(FIDELITY_PYTHON)),$(FIDELITY)/.done) ## the same on random models of the real shapes, beside TransformerLens: TOKENIZERS=DIR
	@[ "$(TOKENIZERS)" ] || { echo "make notebooks-random TOKENIZERS=DIR (gpt2.tokenizer.json.gz, neox-20B_tokenizer.json.gz)"; exit 2; }
	$(FIDELITY_PYTHON) scripts/notebook_refs.py $(ONLY) --tokenizers $(TOKENIZERS) --models $(RANDOM)/models --out $(RANDOM)
	$(FIDELITY_PYTHON) scripts/notebooks.py $(or $(ONLY),$(NOTEBOOKS)) --h5lens $(BIN) --models $(RANDOM)/models --refs $(RANDOM) -o $(RANDOM)
NOTEBOOKS = $(notdir $(patsubst %/,%,$(dir $(wildcard experiments/*/random.json))))

# --- how exact the numbers are -------------------------------------------------------

# PyTorch, TransformerLens 2.16 and h5lens on the same model and prompts, against float64.

$(FIDELITY)/.done: scripts/requirements-fidelity.txt
	$(PYTHON) -m venv $(FIDELITY)
	$(FIDELITY)/bin/pip install --quiet "$$(grep '^torch==' $<)"
	$(FIDELITY)/bin/pip install --quiet -r $<
	@touch $@

fidelity: $(BIN) $(if $(filter $(FIDELITY)/%,$(FIDELITY_PYTHON)),$(FIDELITY)/.done) ## compare with float64 and TransformerLens: MODEL=DIR DATA=CSV [FIDELITY_ARGS=…]
	@[ "$(MODEL)" ] && [ "$(DATA)" ] || { echo "make fidelity MODEL=DIR DATA=prompts.csv"; exit 2; }
	$(FIDELITY_PYTHON) scripts/fidelity.py $(MODEL) --data $(DATA) --h5lens $(BIN) $(FIDELITY_ARGS)

# --- tests -----------------------------------------------------------------------

test: unit-test fuzz-replay cli-test ## every test

unit-test: $(TESTBIN)
	@BUILD=$(BUILD) sh tests/run-unit.sh $(TESTBIN)

cli-test: $(BIN) $(VENV)/.done $(TOOLBIN)
	@PYTHON=$(VPY) BUILD=$(BUILD) sh tests/run-cli.sh $(BIN)

# Its folder is short: sockets have names of at most 108 bytes.
slurm-test: $(BIN) $(VENV)/.done ## the README's scripts on a real Slurm, which it installs and starts (2 minutes)
	@sh scripts/deps.sh "" "$(APT_SLURM)"
	@H5LENS=$(BIN) PYTHON=$(VPY) bash tests/cluster/run.sh

# In a real browser, which `make deps` does not install (400 MB).
report-test: $(BIN) $(VENV)/.done ## look at reports in headless Chromium: sort, search, move by keyboard, light, dark, on a phone's width
	@sh scripts/deps.sh "" "chromium"
	@mkdir -p $(BUILD)/report
	$(BIN) run experiments/ioi.yaml -o $(BUILD)/report/ioi.h5 --tables all --lens-positions all --limit 100
	$(BIN) run experiments/ioi-patching.yaml -o $(BUILD)/report/patching.h5 --limit 30
	for name in ioi patching; do $(BIN) report $(BUILD)/report/$$name.h5; done
	$(VPY) scripts/check_report.py $(BUILD)/report/ioi.html $(BUILD)/report/patching.html -o $(BUILD)/report

fuzz-replay: $(FUZZBIN) ## what fuzzing found, once more
	@for t in $(FUZZBIN); do \
		corpus=tests/fuzz/corpus/$${t##*/fuzz_}; \
		if $$t $$corpus > $$t.log 2>&1; then echo "ok: $$t: $$(tail -n 1 $$t.log)"; \
		else echo "FAILED: $$t"; tail -n 40 $$t.log; exit 1; fi; \
	done

# Findings and the growing corpus stay in $(BUILD)/fuzz. A dictionary gives the words.
TARGET  ?= csv
SECONDS ?= 60
FUZZARGS ?= -max_len=8192
fuzz: ## fuzz with clang's libFuzzer: make fuzz TARGET=csv SECONDS=60
	@$(MAKE) --no-print-directory CC=clang BUILD=$(BUILD)/fuzz LIBFUZZER=-fsanitize=fuzzer \
		OPT='-O1 -g -fno-omit-frame-pointer -DLENS_MAX_NORMALIZED=65536ul' \
		SAN='-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all' \
		$(BUILD)/fuzz/tests/fuzz/fuzz_$(TARGET)
	@mkdir -p $(BUILD)/fuzz/$(TARGET) $(BUILD)/fuzz/findings
	OMP_NUM_THREADS=1 $(BUILD)/fuzz/tests/fuzz/fuzz_$(TARGET) -max_total_time=$(SECONDS) \
		-rss_limit_mb=2048 -timeout=20 -print_final_stats=1 $(FUZZARGS) \
		$(addprefix -dict=,$(wildcard tests/fuzz/dict/$(TARGET).dict)) \
		-artifact_prefix=$(BUILD)/fuzz/findings/$(TARGET)- \
		$(BUILD)/fuzz/$(TARGET) tests/fuzz/corpus/$(TARGET)

# As many processes as PARTS share the calls; their threads must not spin for each other's cores.
PARTS ?= 2
faults: $(BIN) $(VENV)/.done $(BUILD)/tests/golden/test_sweep_faults ## every call and allocation of a sweep made to fail, 200 kills (an hour)
	@t=$(BUILD)/tests/golden/test_sweep_faults; \
	seq $(PARTS) | xargs -P $(PARTS) -I@ sh -c "OMP_WAIT_POLICY=passive H5LENS_TEST_FULL=@/$(PARTS) $$t > $$t.@.log 2>&1"; failed=$$?; \
	for i in $$(seq $(PARTS)); do cat $$t.$$i.log; done; exit $$failed
	H5LENS=$(BIN) $(VPY) tests/cli/check_kills.py --kills 200 --minutes

# Levels differ in kernels; whole runs and sweeps use the same ones as test_golden and others do.
asan: ## unit tests and the fuzz corpus under ASan and UBSan
	ONE_LEVEL='test_shards test_ragged test_bits test_mean test_faults test_interventions test_share_prefixes test_plan_file test_plan_chunks' $(MAKE) BUILD=$(BUILD)/asan OPT='-O1 -g -fno-omit-frame-pointer' \
		SAN='-fsanitize=address,undefined -fno-sanitize-recover=all' unit-test fuzz-replay

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
	clang-tidy --quiet $(filter-out src/kernels/vec_%,$(SRC)) -- $(C_CPP) $(PKG_CFLAGS) -std=c11 -D_GNU_SOURCE

format: ## rewrite the sources in the project's format
	clang-format -i $(CHECKED)

format-check: ## is the format the project's?
	@command -v clang-format >/dev/null || { echo "clang-format: not installed, skipped"; exit 0; }; \
	clang-format --dry-run --Werror $(CHECKED)

layers: ## do the stages include only what they may, and what does a table take?
	sh scripts/check_layers.sh
	sh scripts/check_seams.sh

bench: $(BIN) $(TOOLBIN) ## sgemm's rate, and the program beside it
	sh tests/bench/run.sh $(BUILD)

# --- installing -------------------------------------------------------------------

install: $(BIN) ## to PREFIX=/usr/local
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/h5lens
	install -D -m 644 scripts/h5lens.1 $(DESTDIR)$(PREFIX)/share/man/man1/h5lens.1
	@mkdir -p $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	$(BIN) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/h5lens
	$(BIN) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_h5lens
	install -d $(DESTDIR)$(PREFIX)/share/h5lens/python/h5lens
	install -m 644 scripts/h5lens/*.py scripts/h5lens/py.typed $(DESTDIR)$(PREFIX)/share/h5lens/python/h5lens
	rm -f $(DESTDIR)$(PREFIX)/share/h5lens/python/h5lens.py # of versions up to 0.4
	install -m 755 scripts/plot.py scripts/report.py $(DESTDIR)$(PREFIX)/share/h5lens/python
	install -m 644 scripts/plot_*.py scripts/report_data.py scripts/report.js scripts/report.css $(DESTDIR)$(PREFIX)/share/h5lens/python

# The old kind of run path (DT_RPATH): it holds for what the libraries need, too, and for dlopen, before LD_LIBRARY_PATH.
BUNDLE := $(BUILD)/bundle
$(BUNDLE)/h5lens: $(CLIOBJ) $(LIB)
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(LD) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib' -o $@ $^ $(LIBS)

bundle: $(BIN) $(BUNDLE)/h5lens ## a tar file with the program and its libraries that runs without installing anything
	+@sh scripts/bundle.sh $(BUNDLE)/h5lens $(VERSION) $(BUNDLE) $(BUILD)/h5lens-$(VERSION)-linux-x86_64.tar.gz

man: $(BIN) ## make scripts/h5lens.1 anew, from the program's help and key table
	$(BIN) help --man > scripts/h5lens.1

deps: ## install what is missing (Debian; elsewhere it says what)
	@BUILD=$(BUILD) PYTHON=$(PYTHON) sh scripts/deps.sh "$(APT_BUILD) $(APT_READ)" "$(APT_TEST)"
	@$(MAKE) --no-print-directory $(VENV)/.done

deps-build: ## only what building takes
	@sh scripts/deps.sh "$(APT_BUILD)" ""

$(VENV)/.done: scripts/requirements.txt
	@rm -rf $(VENV)
	@mkdir -p $(BUILD)
	$(PYTHON) -m venv $(VENV)
	$(VPY) -m pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
	@touch $@

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## this list
	@awk -F':.*## ' '/^[a-z%-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
