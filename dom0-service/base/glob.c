/* SPDX-License-Identifier: BSD-3-Clause */
/* A state machine whose states are the pattern's tokens; all that are possible are followed at once. */
#include "base/glob.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_MAX 500

enum kind {
	LITERAL,
	ONE,	    /* ? */
	SET,
	STAR,
	GLOBSTAR,
	DIRS,	    /* a component ** with its slash, before it has taken anything */
	DIRS_INSIDE /* and while it takes a component */
};

struct token {
	uint8_t kind;
	uint8_t literal;
	uint64_t set[4]; /* bytes */
};

struct tw_glob {
	size_t prefix; /* so many literals come first */
	size_t n;
	struct token tokens[];
};

static void add_to_set(struct token *token, unsigned char first, unsigned char last)
{
	for (unsigned int c = first; c <= last; c++)
		token->set[c / 64] |= UINT64_C(1) << c % 64;
}

/* Takes a set behind its bracket; returns what follows it, NULL when it has no end. */
static const char *take_set(const char *at, struct token *token)
{
	bool inverse = *at == '!' || *at == '^';
	at += inverse;
	token->kind = SET;
	for (bool first = true; first || *at != ']'; first = false) {
		if (*at == '\\')
			at++;
		unsigned char low = (unsigned char)*at;
		if (!low)
			return NULL;
		at++;
		unsigned char high = low;
		if (at[0] == '-' && at[1] && at[1] != ']') {
			high = (unsigned char)at[1];
			at += 2;
		}
		add_to_set(token, low, high);
	}
	for (size_t i = 0; inverse && i < 4; i++)
		token->set[i] = ~token->set[i];
	token->set['/' / 64] &= ~(UINT64_C(1) << '/' % 64);
	return at + 1;
}

static const char *take_stars(const char *at, bool component, struct tw_glob *glob)
{
	struct token *token = &glob->tokens[glob->n++];
	if (at[1] != '*') {
		token->kind = STAR;
		return at + 1;
	}
	if (component && at[2] == '/') {
		token->kind = DIRS;
		glob->tokens[glob->n++].kind = DIRS_INSIDE;
		return at + 3;
	}
	token->kind = GLOBSTAR;
	while (*at == '*')
		at++;
	return at;
}

static bool compile(struct tw_glob *glob, const char *pattern)
{
	for (const char *at = pattern; *at;) {
		struct token *token = &glob->tokens[glob->n];
		if (*at == '*') {
			at = take_stars(at, at == pattern || at[-1] == '/', glob);
			continue;
		}
		glob->n++;
		if (*at == '?') {
			token->kind = ONE;
			at++;
		} else if (*at == '[') {
			at = take_set(at + 1, token);
			if (!at)
				return false;
		} else {
			if (*at == '\\' && at[1])
				at++;
			token->kind = LITERAL;
			token->literal = (uint8_t)*at++;
		}
	}
	while (glob->prefix < glob->n && glob->tokens[glob->prefix].kind == LITERAL)
		glob->prefix++;
	return true;
}

struct tw_glob *tw_glob_create(const char *pattern)
{
	size_t len = strlen(pattern);
	if (len > PATTERN_MAX)
		return NULL;
	struct tw_glob *glob = calloc(1, sizeof(*glob) + (len + 1) * sizeof(struct token));
	if (!glob || compile(glob, pattern))
		return glob;
	free(glob);
	return NULL;
}

void tw_glob_destroy(struct tw_glob *glob)
{
	free(glob);
}

/* Enters state i, and those that it leads to without a byte. */
static void enter(const struct tw_glob *glob, bool *states, size_t i)
{
	while (!states[i]) {
		states[i] = true;
		if (i == glob->n)
			return;
		uint8_t kind = glob->tokens[i].kind;
		if (kind == DIRS)
			i += 2;
		else if (kind == STAR || kind == GLOBSTAR)
			i++;
		else
			return;
	}
}

static void step(const struct tw_glob *glob, size_t i, unsigned char c, bool *next)
{
	const struct token *token = &glob->tokens[i];
	switch (token->kind) {
	case LITERAL:
		if (token->literal == c)
			enter(glob, next, i + 1);
		return;
	case ONE:
		if (c != '/')
			enter(glob, next, i + 1);
		return;
	case SET:
		if (token->set[c / 64] >> c % 64 & 1)
			enter(glob, next, i + 1);
		return;
	case STAR:
		if (c != '/')
			enter(glob, next, i);
		return;
	case GLOBSTAR:
		enter(glob, next, i);
		return;
	case DIRS:
		enter(glob, next, c == '/' ? i : i + 1);
		return;
	default: /* DIRS_INSIDE */
		enter(glob, next, c == '/' ? i - 1 : i);
	}
}

bool tw_glob_match(const struct tw_glob *glob, const char *text, size_t len)
{
	if (len < glob->prefix)
		return false;
	for (size_t i = 0; i < glob->prefix; i++)
		if ((uint8_t)text[i] != glob->tokens[i].literal)
			return false;
	bool states[2][PATTERN_MAX + 2] = { { false } };
	bool *now = states[0];
	bool *next = states[1];
	enter(glob, now, glob->prefix);
	for (size_t at = glob->prefix; at < len; at++) {
		bool any = false;
		memset(next, 0, glob->n + 1);
		for (size_t i = glob->prefix; i < glob->n; i++) {
			if (!now[i])
				continue;
			step(glob, i, (unsigned char)text[at], next);
			any = true;
		}
		if (!any)
			return false;
		bool *swap = now;
		now = next;
		next = swap;
	}
	return now[glob->n];
}
