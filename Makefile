# SPDX-License-Identifier: BSD-3-Clause
# GNU make. Objects go to build/; "make help" lists the targets.

PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
CC ?= gcc
OBJCOPY ?= objcopy
V ?= 0
VERSION := 0.1.0

PKGS := ext2fs com_err e2p blkid libcurl inih sqlite3 libcrypto yajl libuv libxxhash libisal libzstd zlib xenstore
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS))

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wundef -Wformat=2 -Wimplicit-fallthrough
WERROR ?=
HARDEN := -fstack-protector-strong -fPIE -fvisibility=hidden
OPT ?= -O2 -g -D_FORTIFY_SOURCE=2
SAN ?=
CFLAGS_ALL = -std=gnu17 $(OPT) $(WARN) $(WERROR) $(HARDEN) $(SAN) -D_GNU_SOURCE \
	-DTW_VERSION='"$(VERSION)"' -Idom0-service -Itapdisk-plugin -I$(BUILD)/include $(PKG_CFLAGS) $(CFLAGS)
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
	ring.c ring-file.c ring-reader.c ring-remove.c capture.c range-lock.c trace.c)
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

# The keys of xenstore: a header for the code, a page for people, from one schema.
XENSTORE_KEYS := $(BUILD)/include/xenstore-keys.h
$(XENSTORE_KEYS): xenstore-schema/keys.ini xenstore-schema/generate.awk
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)awk -v make=header -f xenstore-schema/generate.awk $< >$@.new && mv $@.new $@

docs/xenstore.md: xenstore-schema/keys.ini xenstore-schema/generate.awk
	$(call say,GEN,$@)
	$(Q)awk -v make=page -f xenstore-schema/generate.awk $< >$@.new && mv $@.new $@

$(LIB_OBJ) $(MAINS:%.c=$(BUILD)/%.o): | $(XENSTORE_KEYS)

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

PLUGIN_SRC := $(addprefix tapdisk-plugin/, nbdkit-tapwire.c sink.c capture.c range-lock.c ring.c ring-file.c trace.c)
$(PLUGIN): $(PLUGIN_SRC) $(wildcard tapdisk-plugin/*.h)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -std=gnu17 $(OPT) $(WARN) $(WERROR) -fstack-protector-strong -fPIC -fvisibility=hidden $(SAN) \
		-D_GNU_SOURCE -DTW_VERSION='"$(VERSION)"' -Itapdisk-plugin $(CFLAGS) -shared \
		-Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $(PLUGIN_SRC)

# The driver inside tapdisk: one object with one symbol, which a packager links into tapdisk (INSTALL).
# BLKTAP_SRC: blktap's source tree, for its headers (the older ones want GNU's meaning of inline); without
# it, the project's own declarations, which is good for checking only.
BLKTAP_SRC ?=
DRIVER_SRC := $(addprefix tapdisk-plugin/, block-tapwire.c flights.c ring.c ring-file.c)
DRIVER_DIR := $(BUILD)/driver$(if $(BLKTAP_SRC),-blktap)
DRIVER := $(DRIVER_DIR)/block-tapwire.o
DRIVER_CFLAGS = -std=gnu17 $(OPT) $(WARN) $(WERROR) -fstack-protector-strong -fPIC -fvisibility=hidden $(SAN) \
	-D_GNU_SOURCE -Itapdisk-plugin $(if $(BLKTAP_SRC),-DTW_BLKTAP -fgnu89-inline -isystem $(BLKTAP_SRC)/drivers \
	-isystem $(BLKTAP_SRC)/include) $(CFLAGS)
DRIVER_OBJ := $(DRIVER_SRC:tapdisk-plugin/%.c=$(DRIVER_DIR)/parts/%.o)

.PHONY: driver
driver: $(DRIVER)

$(DRIVER_DIR)/parts/%.o: tapdisk-plugin/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(DRIVER_CFLAGS) -MMD -MP -c -o $@ $<

$(DRIVER): $(DRIVER_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -r -nostdlib -o $@.tmp $^ && $(OBJCOPY) --localize-hidden $@.tmp $@ && rm $@.tmp

-include $(DRIVER_OBJ:.o=.d)

$(BUILD)/tests/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIB) -lcmocka $(PKG_LIBS)

# --- installation: every path can be set, DESTDIR goes before all of them ---

SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBEXECDIR ?= $(PREFIX)/libexec/tapwire
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/tapwire
UNITDIR ?= $(PREFIX)/lib/systemd/system
NBDKIT_PLUGINDIR ?= $(shell pkg-config --variable=plugindir nbdkit)
XEN_SCRIPTS ?= $(SYSCONFDIR)/xen/scripts
INSTALL ?= install

MAN_PAGES := $(wildcard man/*.[1-8])
DOCS := README.md CHANGELOG.md SECURITY.md LICENSE $(wildcard docs/*.md)
SAMPLES := $(wildcard conf/*.sample)

.PHONY: install uninstall
install: all
	$(INSTALL) -d $(addprefix $(DESTDIR),$(BINDIR) $(SBINDIR) $(LIBEXECDIR) $(NBDKIT_PLUGINDIR) \
		$(UNITDIR) $(DOCDIR) $(SYSCONFDIR)/tapwire $(XEN_SCRIPTS))
	$(INSTALL) $(BUILD)/tapwire $(DESTDIR)$(BINDIR)/
	$(INSTALL) $(BUILD)/tapwired $(DESTDIR)$(SBINDIR)/
	$(INSTALL) $(BUILD)/tapwire-inspect $(BUILD)/tapwire-courier $(DESTDIR)$(LIBEXECDIR)/
	$(INSTALL) -m 644 $(PLUGIN) $(DESTDIR)$(NBDKIT_PLUGINDIR)/
	$(INSTALL) conf/xen/block-tapwire $(DESTDIR)$(XEN_SCRIPTS)/
	for page in $(MAN_PAGES); do \
		$(INSTALL) -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit; \
	done
	$(INSTALL) -m 644 $(DOCS) $(SAMPLES) $(DESTDIR)$(DOCDIR)/
	$(INSTALL) -d $(DESTDIR)$(DOCDIR)/examples
	$(INSTALL) $(wildcard examples/*) $(DESTDIR)$(DOCDIR)/examples/
	sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
		conf/systemd/tapwired.service.in >$(DESTDIR)$(UNITDIR)/tapwired.service
	chmod 644 $(DESTDIR)$(UNITDIR)/tapwired.service

# What install put there; the configuration stays.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/tapwire $(DESTDIR)$(SBINDIR)/tapwired \
		$(DESTDIR)$(NBDKIT_PLUGINDIR)/$(notdir $(PLUGIN)) $(DESTDIR)$(UNITDIR)/tapwired.service \
		$(DESTDIR)$(XEN_SCRIPTS)/block-tapwire
	rm -rf $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(DOCDIR)
	for page in $(notdir $(MAN_PAGES)); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done

# --- for developers ---

.PHONY: demo bench valgrind cppcheck format-check help
demo:
	@TAPWIRE_BUILD="$(BUILD)" tests/demo/demo

# Each benchmark prints tables, then its figures as JSON, one a line. Installs what they run. What
# they print goes to $(BUILD)/bench, too, where the plots are. BENCH="crawl plots" takes these only;
# FULL=1 takes the volumes of ten million files, too.
BENCH ?= $(patsubst tests/bench/%.py,%,$(wildcard tests/bench/*.py))
FULL ?=
bench:
	@tests/deps tests/bench/packages.txt
	@$(MAKE) --no-print-directory all programs
	@mkdir -p "$(BUILD)/bench"
	@for name in $(BENCH); do \
		echo "== tests/bench/$$name.py"; \
		TAPWIRE_BUILD="$(BUILD)" TAPWIRE_BENCH_FULL="$(FULL)" PYTHONDONTWRITEBYTECODE=1 \
			/usr/bin/python3 -u tests/bench/$$name.py >"$(BUILD)/bench/$$name.txt" 2>&1; \
		status=$$?; \
		cat "$(BUILD)/bench/$$name.txt"; \
		[ $$status = 0 ] || exit $$status; \
	done

# A supervisor starts its children through /proc/self/exe, which under valgrind is valgrind.
valgrind: unit
	@for program in $(filter-out %/supervise/test_child,$(UNIT)); do \
		valgrind -q --leak-check=full --error-exitcode=1 $$program || exit; \
	done

# An event is borrowed by the call that it is handed to, which cppcheck takes for its being returned; and it does
# not see through uthash's macros.
cppcheck: $(XENSTORE_KEYS)
	cppcheck --quiet --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=returnDanglingLifetime --suppress=unknownMacro --suppress=uninitvar \
		-Idom0-service -Itapdisk-plugin -I$(BUILD)/include dom0-service tapdisk-plugin

format-check:
	@tests/format-check

quote = $(subst ",\",$(1))
compile_entry = {"directory": "$(CURDIR)", "file": "$(1)", "command": "$(call quote,$(strip $(CC) $(CFLAGS_ALL) -c $(1)))"}
COMPILED := $(LIB_SRC) $(MAINS) $(filter-out $(LIB_SRC),$(PLUGIN_SRC)) $(UNIT_SRC)
compile_commands.json: Makefile $(XENSTORE_KEYS)
	$(file >$@,[)$(foreach source,$(wordlist 2,$(words $(COMPILED)),$(COMPILED)),$(file \
		>>$@,$(call compile_entry,$(source)),))$(file >>$@,$(call \
		compile_entry,$(firstword $(COMPILED))))$(file >>$@,])
	@:

help:
	@echo 'make                         programs and the nbdkit plugin, into $(BUILD)/'
	@echo 'make demo                    the main job on a disk of its own, seen as it happens'
	@echo 'make check, make check-fast  all tests; those that take under two minutes'
	@echo 'make check-xen               guests of a real Xen in QEMU'
	@echo 'make bench                   benchmarks, see docs/benchmarks.md'
	@echo 'make install, uninstall      DESTDIR, PREFIX, SYSCONFDIR, NBDKIT_PLUGINDIR, ... see INSTALL'
	@echo 'make unit                    the unit tests'' programs'
	@echo 'make fuzz                    the fuzz targets, FUZZ_SECONDS=60 each, with clang'
	@echo 'make soak, interop           the courier for a long time; before libraries from npm'
	@echo 'make valgrind, cppcheck      unit tests under valgrind; static checks'
	@echo 'make format-check            the style rules that a program can check'
	@echo 'make compile_commands.json   for clangd and other tools'
	@echo 'make clean'
	@echo 'BUILD=DIR builds elsewhere, V=1 shows commands, WERROR=-Werror makes warnings errors.'

clean:
	rm -rf $(BUILD) compile_commands.json

-include tests/tests.mk
-include $(LIB_OBJ:.o=.d) $(MAINS:%.c=$(BUILD)/%.d) $(UNIT:%=%.d)
