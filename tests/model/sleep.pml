/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the consumer of a ring sleeps and is woken (docs/ring.md, Sleeping; ring.c, wake; ring-reader.c,
 * tw_ring_arm and tw_ring_disarm), on processors that let a load pass an earlier store: each side's
 * store lies in a buffer until it is flushed, by itself or by a fence.
 *
 * What holds: however the two interleave, the consumer ends with all records; and no sleep is rung
 * for twice, so that there is one system call a sleep and not one a record.
 *
 * WITHOUT_x leaves a rule out; tests/model/run expects each of them to be noticed.
 */
#define RECORDS 4

byte head = 0;     /* shared memory */
byte sleep = 0;
byte bell = 0;     /* bytes in the FIFO */

byte p_buffer = 0; /* the producer's head on its way to memory; 0: none */
byte c_buffer = 0; /* the consumer's sleep, + 1 */

byte pos = 0;      /* what the consumer has read */
byte rings = 0, sleeps = 0;
bool restarted = false;

/* A buffer drains when it likes. */
active proctype memory()
{
end:	do
	:: atomic { p_buffer != 0 -> head = p_buffer; p_buffer = 0 }
	:: atomic { c_buffer != 0 -> sleep = c_buffer - 1; c_buffer = 0 }
	od
}

/* One's own stores stay in order, and are there after a fence. */
#define P_STORED (p_buffer == 0)
#define C_STORED (c_buffer == 0)

active proctype producer()
{
	byte n = 0, seen, rung = 0;
	do
	:: n == RECORDS -> break
	:: else ->
		n++;
		atomic { P_STORED -> p_buffer = n };
#ifndef WITHOUT_PRODUCER_FENCE
		P_STORED;
#endif
		seen = sleep;
		if
		:: (seen & 1) && seen != rung ->
			rung = seen;
			rings++;
			assert(rings <= sleeps);
			bell++
		:: else
		fi
	od
}

inline disarm()
{
	atomic { C_STORED -> c_buffer = own + (own & 1) + 1; own = own + (own & 1) };
#ifdef WITHOUT_COUNT
	own = 0; atomic { C_STORED -> c_buffer = 1 };
#endif
	bell = 0
}

active proctype consumer()
{
	byte own = 0; /* sleep, as it last stored it */
	do
	:: pos != head -> pos = head
	:: pos == head ->
		/* The next odd number. */
		atomic {
			C_STORED -> own = (own | 1) + (own & 1) * 2;
			c_buffer = own + 1;
			sleeps++
		};
#ifndef WITHOUT_CONSUMER_FENCE
		C_STORED;
#endif
		if
		:: pos != head
		:: else ->
end:			if
			:: bell > 0
			/* It is killed asleep, and the next one finds its page. */
			:: atomic { !restarted && C_STORED -> restarted = true }
			fi
		fi;
		disarm()
	od
}

active proctype nobody_sleeps_beside_a_record()
{
	timeout;
	assert(pos == RECORDS)
}
