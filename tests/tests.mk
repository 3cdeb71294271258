# SPDX-License-Identifier: BSD-3-Clause
# Test targets; included by the Makefile.

# A second build of everything but the plugin, with sanitizers (SAN, OPT and BUILD are set by
# tests/run), and the fuzzers' corpora replayed: tests/fuzz/fuzz_<thing>.c defines
# LLVMFuzzerTestOneInput, its inputs are the files of tests/fuzz/corpus/<thing>/.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ := $(FUZZ_SRC:%.c=$(BUILD)/%)
FUZZ_COMMON := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c))

.PHONY: programs fuzz-replay check check-fast
programs: $(PROGRAMS) $(BUILD)/tests/lib/replay $(BUILD)/tests/lib/rings $(BUILD)/tests/lib/gaps \
	$(BUILD)/tests/lib/ext2read

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

# The tapdisk driver in the test host, for tests/unit/driver: as of blktap 4.0, and with the shapes that the
# driver's interface had before.
HOST_SRC := $(addprefix tests/host/, host.c image.c vbd.c) tapdisk-plugin/block-tapwire.c \
	tapdisk-plugin/flights.c
HOST_OBJS :=

# $(call host,directory of objects,flags)
define host
HOST_OBJS += $(HOST_SRC:%.c=$(BUILD)/$(1)/%.o)
$(HOST_SRC:%.c=$(BUILD)/$(1)/%.o): $(BUILD)/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(call say,CC,$$<)
	$$(Q)$$(CC) $$(CFLAGS_ALL) $(2) -Itests/host -MMD -MP -c -o $$@ $$<
endef

# $(call driver_unit,programs,directory of objects,flags)
define driver_unit
$(1): $(BUILD)/%: %.c $(HOST_SRC:%.c=$(BUILD)/$(2)/%.o) $(LIB)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(CFLAGS_ALL) $(3) -Itests/host -MMD -MP $$(LDFLAGS_ALL) -o $$@ $$< \
		$(HOST_SRC:%.c=$(BUILD)/$(2)/%.o) $(LIB) -lcmocka -laio
endef

DRIVER_UNIT := $(filter $(BUILD)/tests/unit/driver/%,$(UNIT))
DRIVER_UNIT_OLD := $(filter %/test_blktap_3_4 %/test_blktap_3_16,$(DRIVER_UNIT))
$(eval $(call host,host))
$(eval $(call host,host-3.4,-DTW_TAPDISK_API=304))
$(eval $(call host,host-3.16,-DTW_TAPDISK_API=316))
$(eval $(call driver_unit,$(filter-out $(DRIVER_UNIT_OLD),$(DRIVER_UNIT)),host))
$(eval $(call driver_unit,$(filter %/test_blktap_3_4,$(DRIVER_UNIT)),host-3.4,-DTW_TAPDISK_API=304))
$(eval $(call driver_unit,$(filter %/test_blktap_3_16,$(DRIVER_UNIT)),host-3.16,-DTW_TAPDISK_API=316))

# Under the thread sanitizer, which wants all of a program built with it. It knows no fences: what
# they are for is in tests/model/sleep.pml.
TSAN_RING := $(BUILD)/tsan/test_ring_threads
TSAN_VIEW := $(BUILD)/tsan/test_load $(BUILD)/tsan/test_owner
TSAN_VIEW_SRC := $(wildcard dom0-service/view/*.c dom0-service/base/*.c)

.PHONY: tsan
tsan: $(TSAN_RING) $(TSAN_VIEW)

$(TSAN_RING): $(BUILD)/tsan/%: tests/unit/ring/%.c tapdisk-plugin/ring.c tapdisk-plugin/ring-file.c \
		tapdisk-plugin/ring-reader.c $(wildcard tapdisk-plugin/ring*.h tests/unit/ring/*.h)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)gcc -std=gnu17 -O1 -g $(WARN) -Wno-tsan -fsanitize=thread -D_GNU_SOURCE -Itapdisk-plugin -o $@ \
		$< tapdisk-plugin/ring.c tapdisk-plugin/ring-file.c -lcmocka

$(TSAN_VIEW): $(BUILD)/tsan/%: tests/unit/view/%.c $(TSAN_VIEW_SRC) \
		$(wildcard dom0-service/view/*.h dom0-service/base/*.h)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)gcc -std=gnu17 -O1 -g $(WARN) -fsanitize=thread -D_GNU_SOURCE -Idom0-service -o $@ \
		$< $(TSAN_VIEW_SRC) -lcmocka $(PKG_LIBS)

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

# Under a real Xen, emulated: three to four minutes of one processor.
.PHONY: check-xen
check-xen:
	@TAPWIRE_BUILD="$(BUILD)" tests/xen/run

# The courier for a long time, and before receivers of other people's libraries (from npm).
.PHONY: soak interop
soak: all
	TAPWIRE_BUILD="$(BUILD)" /usr/bin/python3 tests/soak/courier.py $(SOAK)

interop: all
	TAPWIRE_BUILD="$(BUILD)" /usr/bin/python3 tests/interop/run.py

-include $(FUZZ:%=%.d) $(HOST_OBJS:.o=.d)
