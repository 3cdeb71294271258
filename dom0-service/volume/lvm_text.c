/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/lvm_text.h"

#include <stdlib.h>
#include <string.h>

/* Nodes are made in blocks that do not move. */
#define BLOCK_NODES 512u

struct block {
	struct block *next;
	struct tw_lvm_node nodes[BLOCK_NODES];
};

struct tw_lvm_text {
	struct block *blocks;
	size_t n;
	struct tw_lvm_node root;
};

struct parser {
	struct tw_lvm_text *out;
	const char *at, *end;
	const char *start;
	size_t *left;
};

static struct tw_error *broken(const struct parser *p, const char *what)
{
	return tw_error_create(
		TW_BAD_DATA, "LVM metadata: %s at byte %zu", what, (size_t)(p->at - p->start));
}

static struct tw_error *new_node(struct parser *p, struct tw_lvm_node **out)
{
	struct tw_lvm_text *text = p->out;
	if (!*p->left)
		return broken(p, "too many parts");
	--*p->left;
	size_t i = text->n % BLOCK_NODES;
	if (!i) {
		struct block *block = calloc(1, sizeof(*block));
		if (!block)
			return tw_error_nomem();
		block->next = text->blocks;
		text->blocks = block;
	}
	text->n++;
	*out = &text->blocks->nodes[i];
	return NULL;
}

static void skip_space(struct parser *p)
{
	while (p->at < p->end) {
		if (*p->at == '#')
			while (p->at < p->end && *p->at != '\n')
				p->at++;
		else if (memchr(" \t\r\n", *p->at, 4))
			p->at++;
		else
			return;
	}
}

/* The next character that counts, 0 at the end (where the text may be filled with zeroes). */
static char peek(struct parser *p)
{
	skip_space(p);
	return p->at < p->end ? *p->at : '\0';
}

static bool accept(struct parser *p, char c)
{
	if (peek(p) != c)
		return false;
	p->at++;
	return true;
}

static bool in_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("_-.+/@", c));
}

static struct tw_span name(struct parser *p)
{
	const char *from = p->at;
	while (p->at < p->end && in_name(*p->at))
		p->at++;
	return tw_span(from, (size_t)(p->at - from));
}

static struct tw_error *string(struct parser *p, struct tw_lvm_node *node)
{
	const char *from = ++p->at;
	while (p->at < p->end && *p->at != '"')
		p->at += *p->at == '\\' && p->end - p->at > 1 ? 2 : 1;
	if (p->at >= p->end)
		return broken(p, "a string without an end");
	node->kind = TW_LVM_STRING;
	node->text = tw_span(from, (size_t)(p->at - from));
	p->at++;
	return NULL;
}

static uint64_t number_of(struct tw_span text)
{
	uint64_t v = 0;
	for (size_t i = 0; i < text.len; i++) {
		unsigned digit = text.data[i] - (unsigned)'0';
		if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) ||
			__builtin_add_overflow(v, digit, &v))
			return UINT64_MAX;
	}
	return v;
}

static struct tw_error *scalar(struct parser *p, struct tw_lvm_node *node)
{
	if (peek(p) == '"')
		return string(p, node);
	struct tw_span word = name(p);
	if (!word.len)
		return broken(p, "no value");
	node->kind = TW_LVM_NUMBER;
	node->number = number_of(word);
	return NULL;
}

static struct tw_error *list(struct parser *p, struct tw_lvm_node *node)
{
	struct tw_lvm_node **end = &node->child, *element;
	p->at++;
	node->kind = TW_LVM_LIST;
	while (!accept(p, ']')) {
		TW_TRY(new_node(p, &element));
		TW_TRY(scalar(p, element));
		*end = element;
		end = &element->next;
		if (!accept(p, ',') && peek(p) != ']')
			return broken(p, "a list without an end");
	}
	return NULL;
}

static struct tw_error *section(struct parser *p, struct tw_lvm_node *node, unsigned depth);

static struct tw_error *value(struct parser *p, struct tw_lvm_node *node, unsigned depth)
{
	if (accept(p, '{')) {
		TW_TRY(section(p, node, depth + 1));
		return accept(p, '}') ? NULL : broken(p, "a section without an end");
	}
	if (!accept(p, '='))
		return broken(p, "neither a section nor a value");
	return peek(p) == '[' ? list(p, node) : scalar(p, node);
}

static struct tw_error *section(struct parser *p, struct tw_lvm_node *node, unsigned depth)
{
	struct tw_lvm_node **end = &node->child, *child;
	node->kind = TW_LVM_SECTION;
	if (depth > TW_LVM_MAX_DEPTH)
		return broken(p, "too many sections in each other");
	while (peek(p) && peek(p) != '}') {
		TW_TRY(new_node(p, &child));
		child->key = name(p);
		if (!child->key.len)
			return broken(p, "no name");
		TW_TRY(value(p, child, depth));
		*end = child;
		end = &child->next;
	}
	return NULL;
}

struct tw_error *tw_lvm_parse(struct tw_span text, size_t *parts, struct tw_lvm_text **out)
{
	struct parser p = {.at = (const char *)text.data, .left = parts};
	p.start = p.at;
	p.end = p.at + text.len;
	p.out = calloc(1, sizeof(*p.out));
	if (!p.out)
		return tw_error_nomem();
	struct tw_error *err = section(&p, &p.out->root, 0);
	if (!err && peek(&p))
		err = broken(&p, "a brace too many");
	if (err) {
		tw_lvm_text_destroy(p.out);
		return err;
	}
	*out = p.out;
	return NULL;
}

void tw_lvm_text_destroy(struct tw_lvm_text *text)
{
	if (!text)
		return;
	while (text->blocks) {
		struct block *next = text->blocks->next;
		free(text->blocks);
		text->blocks = next;
	}
	free(text);
}

const struct tw_lvm_node *tw_lvm_root(const struct tw_lvm_text *text)
{
	return &text->root;
}

bool tw_lvm_is(struct tw_span text, const char *word)
{
	return text.len == strlen(word) && !memcmp(text.data, word, text.len);
}

bool tw_lvm_same(struct tw_span a, struct tw_span b)
{
	return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

const struct tw_lvm_node *tw_lvm_child(
	const struct tw_lvm_node *node, const char *key, enum tw_lvm_kind kind)
{
	for (node = node ? node->child : NULL; node; node = node->next)
		if (node->kind == kind && tw_lvm_is(node->key, key))
			return node;
	return NULL;
}

uint64_t tw_lvm_number(const struct tw_lvm_node *node, const char *key)
{
	const struct tw_lvm_node *child = tw_lvm_child(node, key, TW_LVM_NUMBER);
	return child ? child->number : UINT64_MAX;
}

bool tw_lvm_has(const struct tw_lvm_node *node, const char *key, const char *word)
{
	const struct tw_lvm_node *child = tw_lvm_child(node, key, TW_LVM_LIST);
	for (child = child ? child->child : NULL; child; child = child->next)
		if (child->kind == TW_LVM_STRING && tw_lvm_is(child->text, word))
			return true;
	return false;
}
