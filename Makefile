# SPDX-License-Identifier: BSD-3-Clause
# GNU make. Objects go to build/; "make help" lists the targets.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
CC ?= gcc
V ?= 0
VERSION := 0.1.0

PKGS := ext2fs com_err blkid libcurl inih sqlite3 libcrypto yajl libuv libxxhash
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS))

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wundef -Wformat=2 -Wimplicit-fallthrough
WERROR ?=
HARDEN := -fstack-protector-strong -fPIE -fvisibility=hidden
OPT ?= -O2 -g -D_FORTIFY_SOURCE=2
SAN ?=
CFLAGS_ALL = -std=gnu17 $(OPT) $(WARN) $(WERROR) $(HARDEN) $(SAN) -D_GNU_SOURCE \
	-DTW_VERSION='"$(VERSION)"' -Idom0-service -Itapdisk-plugin $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now $(SAN) $(LDFLAGS)

ifeq ($(V),0)
Q := @
say = @printf '  %-7s %s\n' $(1) $(2)
else
Q :=
say = @:
endif

# A program's main is dom0-service/<part>/main.c; everything else is one static library.
MAINS := $(wildcard dom0-service/*/main.c)
LIB_SRC := $(filter-out $(MAINS),$(wildcard dom0-service/*/*.c)) $(addprefix tapdisk-plugin/, \
	ring.c ring-file.c ring-reader.c trace.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
LIB := $(BUILD)/libtapwire.a

PROGRAM_inspect := tapwire-inspect
PROGRAM_courier := tapwire-courier
PROGRAM_supervise := tapwired
PROGRAM_cli := tapwire
PROGRAMS := $(foreach m,$(MAINS),$(BUILD)/$(PROGRAM_$(notdir $(patsubst %/main.c,%,$(m)))))
PLUGIN := $(BUILD)/nbdkit-tapwire-plugin.so

# tests/unit/<part>/test_<thing>.c, each a cmocka program, found without a list.
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
UNIT := $(UNIT_SRC:%.c=$(BUILD)/%)

.PHONY: all unit clean
all: $(PROGRAMS) $(PLUGIN)

unit: $(UNIT)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(LIB): $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

define program
$(BUILD)/$(PROGRAM_$(1)): $(BUILD)/dom0-service/$(1)/main.o $(LIB)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$^ $$(PKG_LIBS)
endef
$(foreach p,inspect courier supervise cli,$(eval $(call program,$(p))))

PLUGIN_SRC := $(addprefix tapdisk-plugin/, nbdkit-tapwire.c capture.c range-lock.c ring.c ring-file.c trace.c)
$(PLUGIN): $(PLUGIN_SRC) $(wildcard tapdisk-plugin/*.h)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -std=gnu17 $(OPT) $(WARN) $(WERROR) -fstack-protector-strong -fPIC -fvisibility=hidden $(SAN) \
		-D_GNU_SOURCE -DTW_VERSION='"$(VERSION)"' -Itapdisk-plugin $(CFLAGS) -shared \
		-Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $(PLUGIN_SRC)

$(BUILD)/tests/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIB) -lcmocka $(PKG_LIBS)

clean:
	rm -rf $(BUILD) compile_commands.json

-include tests/tests.mk
-include $(LIB_OBJ:.o=.d) $(MAINS:%.c=$(BUILD)/%.d) $(UNIT:%=%.d)
