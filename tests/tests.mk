# SPDX-License-Identifier: BSD-3-Clause
# Test targets; included by the Makefile.

# A second build of everything but the plugin, with sanitizers (SAN, OPT and BUILD are set by
# tests/run), and the fuzzers' corpora replayed: tests/fuzz/fuzz_<thing>.c defines
# LLVMFuzzerTestOneInput, its inputs are the files of tests/fuzz/corpus/<thing>/.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ := $(FUZZ_SRC:%.c=$(BUILD)/%)
FUZZ_COMMON := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c))

.PHONY: programs fuzz-replay check check-fast
programs: $(PROGRAMS) $(BUILD)/tests/lib/replay $(BUILD)/tests/lib/ext2read

# An inspector that is killed and goes on, for tests/e2e/test_replay.py.
$(BUILD)/tests/lib/%: tests/lib/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIB) $(PKG_LIBS)

# A reader of volumes that has nothing of the product, for tests/lib/oracle.py.
$(BUILD)/tests/lib/ext2read: tests/lib/ext2read.c
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< $(shell pkg-config --libs ext2fs com_err)

fuzz-replay: $(FUZZ)

$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(FUZZ_COMMON) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -Wno-missing-prototypes -MMD -MP $(LDFLAGS_ALL) \
		-o $@ $< $(FUZZ_COMMON) $(LIB) $(PKG_LIBS)

# Fuzzing with clang's libFuzzer: each target for FUZZ_SECONDS, what it finds new is kept in
# $(BUILD)/fuzz/corpus. FUZZ_ONLY="map state" takes these targets only.
FUZZ_SECONDS ?= 60
FUZZ_ONLY ?= $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)
# Without pointer-overflow: it takes NULL + 0, of an empty buffer, for an error.
FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=pointer-overflow \
	-fno-sanitize-recover=undefined

.PHONY: fuzz libfuzzer
fuzz:
	@$(MAKE) --no-print-directory BUILD="$(BUILD)/fuzz" CC=clang OPT="-O1 -g" SAN="$(FUZZ_SAN)" libfuzzer
	@for name in $(FUZZ_ONLY); do \
		mkdir -p "$(BUILD)/fuzz/corpus/$$name"; \
		"$(BUILD)/fuzz/libfuzzer/$$name" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-max_len=4096 -print_final_stats=0 -verbosity=0 -artifact_prefix="$(BUILD)/fuzz/$$name-" \
			"$(BUILD)/fuzz/corpus/$$name" "tests/fuzz/corpus/$$name" || exit; \
	done

libfuzzer: $(FUZZ_ONLY:%=$(BUILD)/libfuzzer/%)

$(BUILD)/libfuzzer/%: tests/fuzz/fuzz_%.c $(FUZZ_COMMON) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -Wno-missing-prototypes $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $< \
		$(filter-out tests/fuzz/replay.c,$(FUZZ_COMMON)) $(LIB) $(PKG_LIBS)

# All tests, and those that together take under two minutes. Both install what is missing.
check:
	@TAPWIRE_BUILD="$(BUILD)" tests/run

check-fast:
	@TAPWIRE_BUILD="$(BUILD)" tests/run --fast

-include $(FUZZ:%=%.d)
