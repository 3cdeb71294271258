/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring's records, gaps and takeovers (docs/ring.md; ring.c, ring-reader.c), with a kill of either
 * side between any two stores. A slot stands for the bytes of a record; a disk has two blocks. A write
 * reaches the image, then the ring; the consumer keeps a replica: a record puts what it holds there, a
 * gap what the image holds now.
 *
 * What holds: nothing is overwritten that was not released; records come in order and none is missing;
 * and when all is quiet the replica equals the image, whoever was killed, whatever fitted.
 *
 * INTEREST: the content of block 1 is left out until the consumer wants it, which may be at any time; the bit
 * reaches the producer late, and what it missed is read from the image. Then the replica has to equal
 * the image in what is wanted.
 * HOSTILE: the consumer's page holds anything. Then only the first can hold, for what the producer
 * believes to be released, and it has to stay within the ring.
 * WITHOUT_x leaves a rule out; tests/model/run expects each of them to be noticed.
 */
#ifndef WRITES
#define WRITES 4
#endif
#define SLOTS 2
#define HALF 1
#define BLOCKS 2
#define NO_RECORD 255
#define GAP 255   /* in place of a block */
#define RANGE 255 /* in place of what was written */

byte image[BLOCKS];

/* The producer's pages. */
byte slot_seq[SLOTS], slot_block[SLOTS], slot_value[SLOTS];
byte head = 0, last_pos = NO_RECORD, gap_state = 0, sent_gap = 0, sent_end = 0, tail_seen = 0;
byte intent = 0; /* block + 1 */
bool map[4];     /* block + BLOCKS * (gap mod 2) */

/* The consumer's page, and what it has saved before it released. */
byte tail = 0;
byte saved[BLOCKS], saved_seq = 1;

/* The interest map's bit of block 1, whose block 0 is always wanted; what the consumer wants, and had
 * saved that it does. */
#ifdef INTEREST
bool want = false, wants = false, saved_wants = false;
#define WANTED(block) (block == 0 || want)
#define CHECKED (wants)
#else
#define WANTED(block) true
#define CHECKED true
#endif

byte written = 0; /* writes that the guest has begun */
bool all_told = false;
#ifdef HOSTILE
#define KILLS 0
#else
#ifndef KILLS
#define KILLS 1
#endif
#endif
byte producer_kills = 0, consumer_kills = 0;
bool kill_producer = false;

/* --- producer --- */

/* What it keeps for itself. */
byte p_head, p_tail, p_seq, cleared;
byte seen, b, state, sent, content;
bool open, polled;

inline look_at_tail()
{
	seen = tail;
#ifndef WITHOUT_TAIL_CHECK
	if
	:: seen > p_tail && seen <= p_head ->
#endif
		p_tail = seen;
		tail_seen = p_tail
#ifndef WITHOUT_TAIL_CHECK
	:: else
	fi
#endif
}

inline room(n)
{
	if
	:: SLOTS - (p_head - p_tail) >= n
	:: else -> look_at_tail()
	fi
}
#define HAS_ROOM(n) (SLOTS - (p_head - p_tail) >= n)

inline put(block, value)
{
	assert(p_tail <= p_head && p_head - p_tail < SLOTS);
#ifndef HOSTILE
	assert(p_head - tail < SLOTS);
#endif
	/* No one looks at these between two of them: one step. */
	d_step {
		slot_seq[p_head % SLOTS] = p_seq;
		slot_block[p_head % SLOTS] = block;
		slot_value[p_head % SLOTS] = value
	};
#ifdef WITHOUT_LAST_POS_FIRST
	head = p_head + 1;
	last_pos = p_head;
#else
	last_pos = p_head;
	head = p_head + 1;
#endif
	d_step { p_head++; p_seq++ }
}

inline miss(block)
{
	if
	:: gap_state & 1
	:: else -> gap_state = gap_state + 3
	fi;
#ifdef WITHOUT_SECOND_MAP
	map[block] = true
#else
	map[block + BLOCKS * ((gap_state >> 1) & 1)] = true
#endif
}

/* A part of a map: one block. When that was the last one, the map may be used again. */
inline clear_part(gap)
{
#ifdef WITHOUT_SECOND_MAP
	map[cleared] = false;
#else
	map[cleared + BLOCKS * (gap & 1)] = false;
#endif
	cleared++;
	if
	:: cleared == BLOCKS -> sent_gap = 0
	:: else -> polled = false
	fi
}

/* open: whether a gap still is. */
inline announce()
{
	d_step { state = gap_state; sent = sent_gap };
	if
	:: sent || (state & 1) -> look_at_tail()
	:: else
	fi;
	if
#ifdef WITHOUT_RELEASE
	:: sent ->
#else
	:: sent && p_tail >= sent_end ->
#endif
		clear_part(sent)
	:: else
	fi;
	open = false;
	if
	:: !(state & 1)
	:: (state & 1) ->
		if
		:: sent_gap -> open = true
		:: else ->
			room(HALF);
			if
			:: !HAS_ROOM(HALF) -> open = true
			:: else ->
				sent_end = p_head + 1;
				sent_gap = state >> 1;
				cleared = 0;
				put(GAP, state >> 1);
				gap_state = state - 1
			fi
		fi
	fi
}

inline publish(block, value)
{
	announce();
	content = (WANTED(block) -> value : RANGE);
	if
	:: open -> miss(block)
	:: else ->
		room(1);
		if
		:: HAS_ROOM(1) -> put(block, content)
		:: else -> miss(block)
		fi
	fi
}

inline take_over()
{
	d_step {
		p_head = head;
		p_tail = tail_seen;
		cleared = 0
	};
	look_at_tail();
	p_seq = 1;
	if
	:: last_pos != NO_RECORD ->
		p_seq = slot_seq[last_pos % SLOTS] + (head > last_pos)
	:: else
	fi;
	sent = sent_gap;
	if
#ifdef WITHOUT_SENT_END
	:: false
#else
	:: sent && sent_end > p_head -> sent_gap = 0
#endif
#ifndef WITHOUT_CLOSING
	:: sent && sent_end <= p_head && gap_state == 2 * sent + 1 -> gap_state = 2 * sent
#endif
	:: else
	fi;
#ifndef WITHOUT_INTENTS
	if
	:: intent -> miss(intent - 1); intent = 0
	:: else
	fi;
#endif
	announce()
}

inline produce()
{
	polled = false;
	take_over();
end:	do
	:: written < WRITES ->
		if
		:: b = 0
#ifndef HOSTILE /* what is written does not matter then */
		:: b = 1
#endif
		fi;
		intent = b + 1;
		/* The guest may write to the image, be it told or not, until here. */
#ifdef HOSTILE
		written++;
#else
		d_step { written++; image[b] = written };
#endif
		publish(b, image[b]);
		intent = 0
	/* A poll is of no use before the consumer has released something. */
	:: written == WRITES && ((gap_state & 1) || sent_gap) && !(polled && tail == p_tail) ->
		polled = true;
		announce()
	:: written == WRITES && !(gap_state & 1) && !sent_gap -> break
	od;
	all_told = true
}

active proctype producer()
{
again:	{ produce() } unless { kill_producer && !all_told };
	if
	:: all_told
	:: else -> d_step { producer_kills++; kill_producer = false }; goto again
	fi
}

/* A producer dies before its next step, whichever that is. */
active proctype fate()
{
end:	do
	:: producer_kills < KILLS && !kill_producer && !all_told -> kill_producer = true
	od
}

/* --- consumer --- */

#ifdef HOSTILE
active proctype hostile_consumer()
{
end:	do
	:: tail = 0
	:: tail = head
	:: tail = head + 1
	:: tail_seen > 0 -> tail = tail_seen - 1
	:: tail = tail_seen + 1
	od
}
#else
byte pos, next_seq, gap;
byte replica[BLOCKS];

inline release()
{
	d_step {
		saved[0] = replica[0];
		saved[1] = replica[1];
#ifdef INTEREST
		saved_wants = wants;
#endif
		saved_seq = next_seq
	};
	tail = pos
}

active proctype consumer()
{
	byte c_block, c_value;
again:	atomic {
		pos = tail;
		replica[0] = saved[0];
		replica[1] = saved[1];
#ifdef INTEREST
		wants = saved_wants;
#endif
		next_seq = saved_seq
	};
end:	do
	:: pos < head ->
		d_step {
			assert(slot_seq[pos % SLOTS] == next_seq);
			c_block = slot_block[pos % SLOTS];
			c_value = slot_value[pos % SLOTS];
			next_seq++;
			pos++
		};
		if
		:: c_block != GAP && c_value == RANGE ->
#ifndef WITHOUT_READING_AGAIN
			/* Whether or not it is wanted by now: that costs the model less. */
			replica[c_block] = image[c_block]
#else
			skip
#endif
		:: c_block != GAP && c_value != RANGE -> replica[c_block] = c_value
		:: c_block == GAP ->
			gap = c_value;
#ifdef WITHOUT_MAP_BEFORE_RELEASE
			release();
#endif
#ifdef WITHOUT_SECOND_MAP
			gap = 0;
#endif
			if
			:: map[BLOCKS * (gap & 1)] -> replica[0] = image[0]
			:: else
			fi;
			if
			:: map[1 + BLOCKS * (gap & 1)] -> replica[1] = image[1]
			:: else
			fi
		fi
	:: pos > tail -> release()
#ifdef INTEREST
	/* Read before it is said, and after: either has to do. */
	:: !wants -> wants = true; replica[1] = image[1]; want = true
	:: !wants -> wants = true; want = true; replica[1] = image[1]
#endif
	:: consumer_kills < KILLS && pos > tail -> consumer_kills++; goto again
	od
}

/* When nothing can move any more. */
active proctype the_replica_is_the_image()
{
	timeout;
	assert(all_told && pos == head && tail == head);
	assert(replica[0] == image[0] && (replica[1] == image[1] || !CHECKED))
}
#endif
