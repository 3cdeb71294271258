/* SPDX-License-Identifier: BSD-3-Clause */
/* The one copy that a captured byte costs; for ring.c. */
#ifndef TW_RING_COPY_H
#define TW_RING_COPY_H

#include <stddef.h>
#include <string.h>

/*
 * From so many bytes on, a payload goes past the caches. A ring is larger than they are: a line of
 * it is not there when it is written, and an ordinary store would read it from memory first, and
 * push out what the guest's requests are served with. Measured (docs/benchmarks.md): a captured
 * write of 4 KiB adds a third less, one of 64 KiB half. What is shorter costs the same either way.
 */
#define RING_STREAM_BYTES 4096u

/* The thread sanitizer does not see such stores. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#include <immintrin.h>

static inline void ring_stream_sse2(char *to, const char *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 64) {
		const __m128i a = _mm_loadu_si128((const __m128i *)(from + i));
		const __m128i b = _mm_loadu_si128((const __m128i *)(from + i + 16));
		const __m128i c = _mm_loadu_si128((const __m128i *)(from + i + 32));
		const __m128i d = _mm_loadu_si128((const __m128i *)(from + i + 48));
		_mm_stream_si128((__m128i *)(to + i), a);
		_mm_stream_si128((__m128i *)(to + i + 16), b);
		_mm_stream_si128((__m128i *)(to + i + 32), c);
		_mm_stream_si128((__m128i *)(to + i + 48), d);
	}
}

/* The same in half the instructions. */
__attribute__((target("avx"))) static inline void ring_stream_avx(
	char *to, const char *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 128) {
		const __m256i a = _mm256_loadu_si256((const __m256i *)(from + i));
		const __m256i b = _mm256_loadu_si256((const __m256i *)(from + i + 32));
		const __m256i c = _mm256_loadu_si256((const __m256i *)(from + i + 64));
		const __m256i d = _mm256_loadu_si256((const __m256i *)(from + i + 96));
		_mm256_stream_si256((__m256i *)(to + i), a);
		_mm256_stream_si256((__m256i *)(to + i + 32), b);
		_mm256_stream_si256((__m256i *)(to + i + 64), c);
		_mm256_stream_si256((__m256i *)(to + i + 96), d);
	}
}

/* to: a multiple of 32; bytes: of 128. */
static inline void ring_stream(char *to, const char *from, size_t bytes)
{
	if (__builtin_cpu_supports("avx"))
		ring_stream_avx(to, from, bytes);
	else
		ring_stream_sse2(to, from, bytes);
	/* These stores are ordered by nothing else: they have to be there before the head is. */
	_mm_sfence();
}
#else
static inline void ring_stream(char *to, const char *from, size_t bytes)
{
	memcpy(to, from, bytes);
}
#endif

/* to: where a payload lies in the ring; bytes: whole sectors. */
static inline void ring_copy(char *to, const char *from, size_t bytes)
{
	if (bytes >= RING_STREAM_BYTES)
		ring_stream(to, from, bytes);
	else
		memcpy(to, from, bytes);
}

#endif
