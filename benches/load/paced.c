/* The paced load: a guest that sends at a given rate, a guest that receives, and how long frames took from one to the other.
 *
 *   paced EAL_ARGUMENT... -- FRAMES_PER_SECOND BURST BYTES SECONDS
 *
 * The EAL arguments bring two virtio-user ports. Port 0 sends bursts at even intervals, whether or not anything comes back;
 * port 1 receives. Each frame carries the time-stamp counter of the moment at which it was handed to the driver. One CPU does
 * all of it, so one counter tells the time at both ends.
 *
 * First a frame goes each way, again and again until it arrives: then the path is up, and a switch that learns has learned
 * both addresses. Half a second to warm up is not counted.
 *
 * When this CPU was taken away the schedule moves on: frames that were never sent say nothing about a switch, and "sent"
 * tells that there were fewer. A frame that the ring did not take or that never arrived counts as one that took a second.
 *
 * Where others take a CPU for one per cent of the time, the 99th percentile tells how long they had it. They come now and
 * then and stay for milliseconds, so percentiles are those of each window of 20 ms in which the pace was kept, and of these the
 * lower decile: what is so in nine of ten of them is the switch's doing, or more than that. The 99th percentile of all frames is
 * told beside it.
 *
 * Prints, once:      ready
 * and at the end:    sent 9.998 lost 0.000012 windows 87 p50_us 3.21 p99_us 8.97 p99_all_us 40.21
 * Million frames a second, part of them that did not arrive, windows in which the pace was kept, and times in microseconds.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

enum {
	SENDER = 0,
	RECEIVER = 1,
	SLOTS = 256,
	MBUFS = 16384,
	BURST_MAX = 32,
	LATE_MAX = 4,           /* intervals; as many bursts still fit into a ring */
	ETHERTYPE = 0x88b5,     /* IEEE 802, local experimental */
	PATH_SECONDS_MAX = 60,
	WARM_UP_MS = 500,
	DRAIN_MS = 100,
	LOST_SECONDS = 1,
	STEPS = 128,            /* of the histogram for each power of two: a step is under 1 % */
	BUCKETS = 58 * STEPS,
	WINDOW_MS = 20,
	PACE_PER_CENT = 93,     /* of what is due in a window, to have kept the pace */
	WINDOWS_PER_FIGURE = 10,
};

/* What a frame carries behind its Ethernet header. */
struct stamp {
	uint64_t magic, sent;
} __attribute__((packed));

static const uint64_t MAGIC = 0x64656361702d7772;

static struct rte_mempool *pool;
static struct rte_ether_addr addresses[2];

/* The frames that were sent in a window of time. */
struct window {
	uint64_t offered;
	uint32_t buckets[BUCKETS];
};

static struct window *windows, all;
static uint32_t window_count;
static uint64_t window_ticks, window_due, received;

static void __attribute__((noreturn, cold, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	fputs("paced: ", stderr);
	vfprintf(stderr, format, values);
	fputc('\n', stderr);
	exit(1);
}

/* ---- histogram of clock ticks ---- */

static inline uint32_t bucket_of(uint64_t ticks)
{
	if (ticks < 2 * STEPS)
		return ticks;
	uint32_t shift = 63 - __builtin_clzll(ticks) - __builtin_ctz(STEPS);
	return shift * STEPS + (uint32_t)(ticks >> shift);
}

/* The middle of a bucket. */
static double ticks_of(uint32_t bucket)
{
	if (bucket < 2 * STEPS)
		return bucket;
	uint32_t shift = bucket / STEPS - 1;
	return ((bucket - shift * STEPS) + 0.5) * (double)(1ULL << shift);
}

/* How long the fastest `part` of its frames took at most, lost ones included, in microseconds. */
static double percentile_us(double part, const struct window *window)
{
	uint64_t wanted = part * window->offered, seen = 0;

	for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
		seen += window->buckets[bucket];
		if (seen > wanted)
			return ticks_of(bucket) * 1e6 / rte_get_tsc_hz();
	}
	return LOST_SECONDS * 1e6;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static bool kept_pace(const struct window *window)
{
	return window->offered * 100 >= window_due * PACE_PER_CENT;
}

static uint32_t windows_in_pace(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < window_count; i++)
		count += kept_pace(&windows[i]);
	return count;
}

/* The lower decile of the windows' percentiles; those in which the pace was not kept count only where there are no others. */
static double decile_us(double part)
{
	double of[window_count];
	uint32_t count = 0, in_pace = windows_in_pace();

	for (uint32_t i = 0; i < window_count; i++) {
		if (in_pace ? kept_pace(&windows[i]) : windows[i].offered > 0)
			of[count++] = percentile_us(part, &windows[i]);
	}
	if (!count)
		die("nothing was sent");
	qsort(of, count, sizeof(*of), compare);
	return of[count / WINDOWS_PER_FIGURE];
}

/* The window of what was sent at `sent`. */
static inline struct window *window_of(uint64_t sent, uint64_t counted_from)
{
	return &windows[RTE_MIN((sent - counted_from) / window_ticks, (uint64_t)window_count - 1)];
}

/* ---- ports ---- */

static void open_port(uint16_t port)
{
	struct rte_eth_conf plain = { 0 };

	if (rte_eth_dev_configure(port, 1, 1, &plain) ||
	    rte_eth_rx_queue_setup(port, 0, SLOTS, SOCKET_ID_ANY, NULL, pool) ||
	    rte_eth_tx_queue_setup(port, 0, SLOTS, SOCKET_ID_ANY, NULL) || rte_eth_dev_start(port))
		die("port %u does not start", port);
	rte_eth_macaddr_get(port, &addresses[port]);
}

/* How many of `count` frames the ring took. The others count as lost. */
static uint16_t send_burst(uint16_t port, uint16_t count, uint16_t bytes, uint64_t now)
{
	struct rte_mbuf *frames[BURST_MAX];

	if (unlikely(rte_pktmbuf_alloc_bulk(pool, frames, count)))
		die("no buffers left");
	for (uint16_t i = 0; i < count; i++) {
		struct rte_ether_hdr *ethernet = rte_pktmbuf_mtod(frames[i], struct rte_ether_hdr *);
		struct stamp *stamp = (struct stamp *)(ethernet + 1);

		ethernet->dst_addr = addresses[!port];
		ethernet->src_addr = addresses[port];
		ethernet->ether_type = RTE_BE16(ETHERTYPE);
		stamp->magic = MAGIC;
		stamp->sent = now;
		frames[i]->data_len = frames[i]->pkt_len = bytes;
	}
	uint16_t taken = rte_eth_tx_burst(port, 0, frames, count);
	rte_pktmbuf_free_bulk(frames + taken, count - taken);
	return taken;
}

/* How many of our frames came in; those stamped from `counted_from` on go into the histogram. */
static uint16_t receive(uint16_t port, uint64_t counted_from)
{
	struct rte_mbuf *frames[BURST_MAX];
	uint16_t count = rte_eth_rx_burst(port, 0, frames, BURST_MAX), ours = 0;
	uint64_t now = rte_rdtsc();

	for (uint16_t i = 0; i < count; i++) {
		const struct stamp *stamp = rte_pktmbuf_mtod_offset(frames[i], struct stamp *, RTE_ETHER_HDR_LEN);

		if (unlikely(frames[i]->data_len < RTE_ETHER_HDR_LEN + sizeof(*stamp) || stamp->magic != MAGIC))
			continue;
		ours++;
		if (stamp->sent >= counted_from) {
			uint32_t bucket = bucket_of(now - stamp->sent);

			window_of(stamp->sent, counted_from)->buckets[bucket]++;
			all.buckets[bucket]++;
			received++;
		}
	}
	rte_pktmbuf_free_bulk(frames, count);
	return ours;
}

/* Until a frame from `port` arrives at the other one. */
static void wait_for_path(uint16_t port, uint16_t bytes)
{
	uint64_t hz = rte_get_tsc_hz(), end = rte_rdtsc() + PATH_SECONDS_MAX * hz;

	while (rte_rdtsc() < end) {
		uint64_t again = rte_rdtsc() + hz / 100;

		send_burst(port, 1, bytes, rte_rdtsc());
		while (rte_rdtsc() < again) {
			if (receive(!port, UINT64_MAX))
				return;
		}
	}
	die("no frame from port %u arrives at port %u", port, !port);
}

/* ---- the measurement ---- */

static void run(double rate, uint16_t burst, uint16_t bytes, double seconds)
{
	uint64_t hz = rte_get_tsc_hz(), interval = hz * burst / rate, due = rte_rdtsc();
	uint64_t counted_from = due + hz * WARM_UP_MS / 1000, end = counted_from + seconds * hz;

	window_ticks = hz * WINDOW_MS / 1000;
	window_due = window_ticks / interval * burst;
	window_count = seconds * 1000 / WINDOW_MS + 1;
	windows = calloc(window_count, sizeof(*windows));
	if (!windows)
		die("no memory for %u windows", window_count);
	due = rte_rdtsc();
	for (uint64_t now = due; now < end; now = rte_rdtsc()) {
		if (now >= due) {
			send_burst(SENDER, burst, bytes, now);
			if (now >= counted_from) {
				window_of(now, counted_from)->offered += burst;
				all.offered += burst;
			}
			due += interval;
			if (unlikely(now > due + LATE_MAX * interval))
				due = now + interval;
		}
		receive(RECEIVER, counted_from);
	}
	for (uint64_t drained = end + hz * DRAIN_MS / 1000; rte_rdtsc() < drained;)
		receive(RECEIVER, counted_from);

	if (!all.offered)
		die("nothing was sent");
	printf("sent %.3f lost %.6f windows %u p50_us %.3f p99_us %.3f p99_all_us %.3f\n", all.offered / seconds / 1e6,
	       1.0 - (double)received / all.offered, windows_in_pace(), decile_us(0.50), decile_us(0.99),
	       percentile_us(0.99, &all));
}

int main(int argc, char **argv)
{
	int eal = rte_eal_init(argc, argv);
	if (eal < 0 || argc - eal != 5)
		die("usage: paced EAL_ARGUMENT... -- FRAMES_PER_SECOND BURST BYTES SECONDS");

	double rate = atof(argv[eal + 1]), seconds = atof(argv[eal + 4]);
	int burst = atoi(argv[eal + 2]), bytes = atoi(argv[eal + 3]);
	if (!(rate > 0) || !(seconds > 0) || burst < 1 || burst > BURST_MAX || bytes < RTE_ETHER_MIN_LEN - RTE_ETHER_CRC_LEN ||
	    bytes > RTE_ETHER_MAX_LEN - RTE_ETHER_CRC_LEN)
		die("a rate, 1 to %u frames, a length of an Ethernet frame and seconds, please", BURST_MAX);
	if (rte_eth_dev_count_avail() != 2)
		die("two ports, please");

	pool = rte_pktmbuf_pool_create("frames", MBUFS, 250, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!pool)
		die("no memory for %u frames", MBUFS);
	open_port(SENDER);
	open_port(RECEIVER);
	puts("ready");
	fflush(stdout);
	wait_for_path(RECEIVER, bytes);
	wait_for_path(SENDER, bytes);
	run(rate, burst, bytes, seconds);
	return 0;
}
