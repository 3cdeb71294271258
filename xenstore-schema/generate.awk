# SPDX-License-Identifier: BSD-3-Clause
# Makes of keys.ini the header (-v make=header) or the reference page (-v make=page).

function fail(text)
{
	printf "%s:%d: %s\n", FILENAME, FNR, text >"/dev/stderr"
	failed = 1
	exit 1
}

function check_last(    i)
{
	for (i = 1; n && i <= nfields; i++)
		if (!((n, fields[i]) in value))
			fail("[" path[n] "] has no " fields[i])
}

BEGIN {
	nfields = split("id type writer reader perms needed since meaning", fields)
	for (i = 1; i <= nfields; i++)
		known[fields[i]] = 1
}

/^;/ || /^[ \t]*$/ { next }

/^\[.*\]$/ {
	check_last()
	path[++n] = substr($0, 2, length($0) - 2)
	next
}

{
	at = index($0, " = ")
	key = substr($0, 1, at - 1)
	if (!n || !at || !(key in known))
		fail("expected [PATH] or one of the keys that the comment lists: " $0)
	value[n, key] = substr($0, at + 3)
	if (value[n, key] ~ /["\\]/)
		fail("no quotes and backslashes, please")
}

END {
	if (failed)
		exit 1
	check_last()
	if (make == "header")
		print_header()
	else
		print_page()
}

function print_header(    i)
{
	print "/* SPDX-License-Identifier: BSD-3-Clause */"
	print "/* Made from xenstore-schema/keys.ini. X(id, path, type, ours, needed, perms) */"
	print "#define TW_XENSTORE_KEYS(X) \\"
	for (i = 1; i <= n; i++)
		printf "\tX(%s, \"%s\", \"%s\", %d, %d, \"%s\")%s\n", value[i, "id"], path[i], value[i, "type"],
			value[i, "writer"] == "tapwired", value[i, "needed"] == "yes", value[i, "perms"], i < n ? " \\" : ""
}

function print_page(    i, cell)
{
	print "<!-- SPDX-License-Identifier: BSD-3-Clause -->"
	print "<!-- Made from xenstore-schema/keys.ini by `make docs/xenstore.md`; change it there. -->"
	print "# xenstore"
	print ""
	print "Every key that tapwire reads, watches or writes. `{self}` is the domain that tapwire runs in (0 for dom0),"
	print "`{kind}` one of vbd, vbd3 and qdisk, `{domid}` a guest's number, `{devid}` a disk's, `{uuid}` a guest's UUID,"
	print "`{where}` is `tapwire` in dom0 and `data/tapwire` in any other domain, which may write nowhere else in its home."
	print "`tapwire check-xenstore` holds a live xenstore against this page."
	table("Written by tapwired", "Nobody else writes these, and no guest can read them: `xenstore-ls` in dom0 tells what goes on.", 1)
	table("Read by tapwire", "These are the toolstack's, the backend's and Xen's own.", 0)
}

function table(title, about, ours,    i, type)
{
	printf "\n## %s\n%s\n\n", title, about
	print "| key | type | writer | reader | permissions | since | meaning |"
	print "| --- | --- | --- | --- | --- | --- | --- |"
	for (i = 1; i <= n; i++) {
		if ((value[i, "writer"] == "tapwired") != ours)
			continue
		type = value[i, "type"]
		gsub(/\|/, ", ", type)
		printf "| `%s` | %s | %s | %s | %s | %s | %s |\n", path[i], type, value[i, "writer"],
			value[i, "reader"], value[i, "perms"] == "-" ? "" : "`" value[i, "perms"] "`", value[i, "since"],
			value[i, "meaning"]
	}
}
