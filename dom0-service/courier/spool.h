/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spool: events that some target has not acknowledged yet, in an SQLite file (WAL, synchronous=FULL).
 * An event is stored once, with its neighbours in a chunk (courier/chunk.h), and has a number in the spool.
 *
 * A target reads the events in one lane or more; the events of a disk are all in the same one, so that
 * lanes may go on side by side and each disk's order is kept. A lane has a cursor and up to TW_SPOOL_PLAN
 * planned batches. A planned batch is a number and a set of events, so it is the same batch after any restart.
 *
 * Everything between two tw_spool_commit() calls is one transaction: what came in, what was planned and what
 * was acknowledged. Nothing may be promised to a peer or sent to a target before the commit returned NULL.
 * After an error from a function that writes, tw_spool_rollback() returns the spool to its last commit.
 */
#ifndef TW_COURIER_SPOOL_H
#define TW_COURIER_SPOOL_H

#include "base/buf.h"
#include "base/error.h"
#include "courier/chunk.h"
#include "courier/picks.h"
#include <stdbool.h>
#include <stdint.h>

#define TW_SPOOL_PLAN 8
#define TW_SPOOL_LANES 64
#define TW_SPOOL_EPOCH_SIZE 17 /* sixteen hexadecimal digits and a NUL */
#define TW_SPOOL_NAME_SIZE 65

struct tw_spool;

/* A disk epoch that sends or sent events; read it, change it only through the functions below. */
struct tw_spool_disk {
	struct tw_spool_disk *next;
	int64_t id;    /* 0: not in the file (rolled back) */
	uint64_t last; /* sequence of the last event stored */
	bool dirty;
	char *epoch;
	char *source;
	struct tw_chunk *open; /* what came in since the last tw_spool_seal() */
	struct tw_spool_disk *next_open;
};

/* What a target wants to have: the types of mask, and of these what wants() says yes to (NULL: all). The
 * body is one JSON object. */
struct tw_spool_filter {
	uint64_t mask;
	bool (*wants)(void *arg, const char *source, unsigned int type, const char *body, size_t len);
	void *arg;
};

/* Events that a target has lost to its limits since it last acknowledged an event that told of it. Kept in the
 * file as it is. */
struct tw_spool_loss {
	uint64_t events;
	int64_t from_ms; /* when the oldest and the youngest came in */
	int64_t until_ms;
	char reason[16]; /* the name of the limit */
	uint32_t ndisks; /* those that are named here; there may have been more */
	uint32_t more_disks;
	struct tw_spool_lost_disk {
		int64_t disk;
		uint64_t first; /* sequences: what was lost lies between them */
		uint64_t last;
		uint64_t events;
	} disks[64];
};

struct tw_spool_batch {
	uint64_t n; /* counts up by one within the lane's epoch */
	struct tw_picks picks;
	uint64_t bytes; /* of the bodies */
};

struct tw_spool_target;

/* Read it, change it only through the functions below. */
struct tw_spool_lane {
	struct tw_spool_target *target;
	unsigned int index;
	int64_t id;
	bool dirty;
	char epoch[TW_SPOOL_EPOCH_SIZE]; /* new when its numbers start again */
	uint64_t next;	/* number of the batch that is planned next */
	uint64_t acked; /* number of the batch that was acknowledged last */
	int64_t cursor; /* the last event that is acknowledged, planned or not wanted */
	int64_t stored_cursor; /* as the file has it */
	struct tw_spool_batch plan[TW_SPOOL_PLAN]; /* the oldest first */
	unsigned int nplan;
	struct tw_spool_batch draft; /* wanted events after the cursor, up to looked */
	int64_t looked;
	uint64_t held; /* events that were refused alone and are not given up yet; see tw_spool_hold() */
	int64_t held_first;
};

/* A target as the spool knows it; read it, change it only through the functions below. */
struct tw_spool_target {
	struct tw_spool_target *following;
	int64_t id;
	bool dirty;
	char name[TW_SPOOL_NAME_SIZE];
	bool suspended;
	uint64_t dropped; /* events that its limits cost it, ever */
	uint64_t refused; /* events that went to the dead letters, ever */
	struct tw_spool_loss *loss; /* NULL: none */
	int64_t loss_event; /* that tells of it */
	struct tw_spool_filter filter;
	struct tw_spool_lane *lanes[TW_SPOOL_LANES];
	unsigned int nlanes; /* those that are in use */
	unsigned int want;   /* so many are to be, when each lane has come to the event settle */
	int64_t settle;
};

/* Opens or makes the file. A file that is damaged, of another version or in use by another courier is an
 * error and is left as it is. The spool refuses events when it holds max_bytes; *out is the caller's. */
struct tw_error *tw_spool_open(const char *path, uint64_t max_bytes, struct tw_spool **out) TW_MUST_CHECK;
/* Renames a damaged file that nobody has open, with its log, so that another can be made; *out is its new
 * name, for the caller to free. */
struct tw_error *tw_spool_set_aside(const char *path, char **out) TW_MUST_CHECK;
/* Rolls back what is not committed and closes; NULL is fine. */
void tw_spool_close(struct tw_spool *spool);
/* Changes the limit, and for how long events stay that nobody waits for any more (0: not at all). They go
 * earlier when their room is needed. */
void tw_spool_set_limits(struct tw_spool *spool, uint64_t max_bytes, uint64_t keep_ms);

const char *tw_spool_path(const struct tw_spool *spool);

/* Whether events may be stored: false at max_bytes, and when the file system is nearly full, so that there
 * is room to record what is delivered. */
bool tw_spool_has_room(struct tw_spool *spool);

/* Finds or enters the disk epoch. The pointer lives as long as the spool. An epoch with another source than
 * before is TW_BAD_DATA. */
struct tw_error *tw_spool_disk(struct tw_spool *spool, const char *epoch, const char *source,
	struct tw_spool_disk **out) TW_MUST_CHECK;
/* The disk's events up to that sequence are in no spool: the next one is sequence + 1. Only for a disk that has
 * none in this spool. */
struct tw_error *tw_spool_skip(struct tw_spool *spool, struct tw_spool_disk *disk, uint64_t sequence)
	TW_MUST_CHECK;
/* Stores one event under the sequence disk->last + 1 (of a type that no target takes, only the sequence is
 * kept). type is below 64. */
struct tw_error *tw_spool_store(struct tw_spool *spool, struct tw_spool_disk *disk, unsigned int type,
	const char *body, size_t len) TW_MUST_CHECK;
/* Gives what was stored its numbers: lanes see it from now on. */
struct tw_error *tw_spool_seal(struct tw_spool *spool) TW_MUST_CHECK;

/* --- targets and lanes (spool_lane.c) --- */

/* Finds or enters a target (name: see tapwire.conf(5)); a new one starts with the next event that is stored.
 * Called again, it takes another filter or another number of lanes, and looks anew at what is not planned.
 * More or fewer lanes than before come into use when those that are have delivered up to the same event.
 * The pointer lives as long as the spool. */
struct tw_error *tw_spool_target(struct tw_spool *spool, const char *name, unsigned int lanes,
	const struct tw_spool_filter *filter, struct tw_spool_target **out) TW_MUST_CHECK;
/* Forgets a target, or all that tw_spool_target() was not called for; *forgotten says how many. */
struct tw_error *tw_spool_forget(struct tw_spool *spool, struct tw_spool_target *target) TW_MUST_CHECK;
struct tw_error *tw_spool_forget_others(struct tw_spool *spool, unsigned int *forgotten) TW_MUST_CHECK;
/* Suspends it or ends that: kept in the file, for the caller to act on. */
struct tw_error *tw_spool_suspend(struct tw_spool *spool, struct tw_spool_target *target, bool suspended)
	TW_MUST_CHECK;

/* Bounds of a batch; it has one event at least. */
struct tw_spool_bounds {
	uint64_t events;
	uint64_t bytes; /* of the JSON array that the bodies make */
	int64_t until;	/* no event beyond this number; 0: no bound */
};

/* Looks at the next events and takes those that are wanted into the draft. *full: the draft may not grow.
 * *more: the spool has more to look at, and the lane has had its share of time. */
struct tw_error *tw_spool_look(struct tw_spool *spool, struct tw_spool_lane *lane,
	const struct tw_spool_bounds *bounds, bool *full, bool *more) TW_MUST_CHECK;
/* Makes the draft the next planned batch. Does nothing when the plan is full or the draft is empty. */
struct tw_error *tw_spool_plan(struct tw_spool *spool, struct tw_spool_lane *lane) TW_MUST_CHECK;
/* The lane's oldest planned batch is delivered, and the events that are held are given up. */
struct tw_error *tw_spool_acknowledge(struct tw_spool *spool, struct tw_spool_lane *lane) TW_MUST_CHECK;
/* The oldest planned batch is refused: its number is used up, its events are planned anew under the
 * numbers that follow, as are those of the batches behind it, which were never sent. */
struct tw_error *tw_spool_unplan(struct tw_spool *spool, struct tw_spool_lane *lane) TW_MUST_CHECK;
/* Moves the lane's cursor, forwards or back; whatever is planned is no longer. A batch that was sent has used
 * up its number. */
struct tw_error *tw_spool_move(struct tw_spool *spool, struct tw_spool_lane *lane, int64_t cursor, bool sent)
	TW_MUST_CHECK;
/* Events that the lane has not acknowledged. Those that it has not looked at count as wanted. */
uint64_t tw_spool_backlog(const struct tw_spool *spool, const struct tw_spool_lane *lane);

/* Hands the events of picks to take, in order: n events of chunk, from i on. */
typedef void (*tw_spool_take_fn)(void *arg, const struct tw_chunk *chunk, uint32_t i, uint32_t n);
struct tw_error *tw_spool_read(struct tw_spool *spool, const struct tw_picks *picks, tw_spool_take_fn take,
	void *arg) TW_MUST_CHECK;
/* Appends the batch as a JSON array; keep: the extras that its events keep (enum tw_chunk_extra). */
struct tw_error *tw_spool_read_array(struct tw_spool *spool, const struct tw_picks *picks, unsigned int keep,
	struct tw_buf *out) TW_MUST_CHECK;

/* --- dead letters (spool_dead.c) --- */

/* The lane's oldest planned batch is one event, which was refused with that status and answer. It goes to the
 * dead letters: for good, or held, so that tw_spool_unhold() can still take it back. */
struct tw_error *tw_spool_hold(struct tw_spool *spool, struct tw_spool_lane *lane, long status,
	const char *answer, bool held) TW_MUST_CHECK;
/* Takes back what is held: it is planned again, and everything behind it. */
struct tw_error *tw_spool_unhold(struct tw_spool *spool, struct tw_spool_lane *lane) TW_MUST_CHECK;
/* One event of the lane's oldest planned batch, the i-th of it, was refused; the others were not. */
struct tw_error *tw_spool_bury(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t i, long status,
	const char *answer) TW_MUST_CHECK;

struct tw_spool_letter {
	int64_t id;
	const char *target;
	int64_t time_ms;
	long status;
	const char *answer;
	unsigned int type;
	const char *body;
	size_t len;
};
/* Tells of the letters after that id, limit of them at most, of one target or of all (NULL). */
typedef void (*tw_spool_letter_fn)(void *arg, const struct tw_spool_letter *letter);
struct tw_error *tw_spool_letters(struct tw_spool *spool, const struct tw_spool_target *target, int64_t after,
	uint64_t limit, tw_spool_letter_fn tell, void *arg) TW_MUST_CHECK;
/* Forgets a letter; again: its event goes to its target once more, behind all others. *found: there was such
 * a letter. */
struct tw_error *tw_spool_end_letter(struct tw_spool *spool, int64_t id, bool again, bool *found) TW_MUST_CHECK;

/* --- limits of a target (spool_limit.c) --- */

/* Moves the lane's cursor beyond what is older than max_age_ms and beyond what exceeds max_bytes (0: no such
 * limit), and adds to the target's loss; *lost: how many events. A batch that was sent loses its number. *more:
 * there is more to do. */
struct tw_error *tw_spool_enforce(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t max_age_ms,
	uint64_t max_bytes, uint64_t *lost, bool *more) TW_MUST_CHECK;
/* Whether the lane is beyond its limits: cheap. */
struct tw_error *tw_spool_exceeds(struct tw_spool *spool, const struct tw_spool_lane *lane,
	uint64_t max_age_ms, uint64_t max_bytes, const char **reason) TW_MUST_CHECK;
/* Stores the event that tells of the target's loss; host: this machine's name. */
struct tw_error *tw_spool_tell_loss(struct tw_spool *spool, const char *host, struct tw_spool_target *target)
	TW_MUST_CHECK;
/* Stores the event that tells that of a disk's events up to sequence nobody knows whether they were delivered. */
struct tw_error *tw_spool_tell_unknown(struct tw_spool *spool, const char *host,
	const struct tw_spool_disk *disk, uint64_t sequence) TW_MUST_CHECK;
/* Lets the target begin again with the first event that came in since then, if it is still there. */
struct tw_error *tw_spool_begin_again(struct tw_spool *spool, struct tw_spool_lane *lane, int64_t since_ms,
	bool sent) TW_MUST_CHECK;

/* Of the lane's oldest planned batch the first i + 1 events are done with; the others are planned again. */
struct tw_error *tw_spool_advance(struct tw_spool *spool, struct tw_spool_lane *lane, uint64_t i) TW_MUST_CHECK;

/* --- the transaction --- */

/* Whether there is something to commit. */
bool tw_spool_dirty(const struct tw_spool *spool);
/* Whether a tidy commit has something to do. */
bool tw_spool_untidy(const struct tw_spool *spool);
/* Makes everything durable. tidy: also deletes what nobody waits for and gives back room, which need not be
 * done each time. */
struct tw_error *tw_spool_commit(struct tw_spool *spool, bool tidy) TW_MUST_CHECK;
/* Forgets what was not committed: targets and disks are as the last commit left them. */
struct tw_error *tw_spool_rollback(struct tw_spool *spool) TW_MUST_CHECK;

struct tw_spool_stats {
	uint64_t events; /* that somebody waits for */
	uint64_t bytes;	 /* of the file that are in use */
	uint64_t file_bytes;
	uint64_t dead; /* letters */
};
void tw_spool_stats(struct tw_spool *spool, struct tw_spool_stats *out);
/* Whether an event is not yet acknowledged by every target that wants it, as far as that is stored. */
bool tw_spool_waits(const struct tw_spool *spool);

#endif
