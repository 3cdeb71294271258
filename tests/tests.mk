# SPDX-License-Identifier: BSD-3-Clause
# Test targets; included by the Makefile.

# A second build of everything but the plugin, with sanitizers (SAN, OPT and BUILD are set by
# tests/run), and the fuzzers' corpora replayed: tests/fuzz/fuzz_<thing>.c defines
# LLVMFuzzerTestOneInput, its inputs are the files of tests/fuzz/corpus/<thing>/.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ := $(FUZZ_SRC:%.c=$(BUILD)/%)
FUZZ_COMMON := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c))

.PHONY: programs fuzz-replay check check-fast
programs: $(PROGRAMS)

fuzz-replay: $(FUZZ)

$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(FUZZ_COMMON) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -Wno-missing-prototypes -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(FUZZ_COMMON) $(LIB) $(PKG_LIBS)

# All tests, and those that together take under two minutes. Both install what is missing.
check:
	@TAPWIRE_BUILD="$(BUILD)" tests/run

check-fast:
	@TAPWIRE_BUILD="$(BUILD)" tests/run --fast

-include $(FUZZ:%=%.d)
