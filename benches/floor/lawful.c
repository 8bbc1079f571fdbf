/* The lawful floor: the least that one core spends on a frame between two guests if it copies the frame once and keeps the
 * laws of the data path. What Ringway takes beyond this is its own.
 *
 *   lawful EAL_ARGUMENT... -- SOCKET SOCKET
 *
 * Serves two vhost-user sockets and passes every frame that comes in by one to the other. Bursts of 32, in stages, so that
 * the cache misses of a stage overlap. For each frame:
 *
 *   1. reserve   snapshot of a descriptor of both rings, checked; addresses translated by the region hit last
 *   2. classify  private copy of the virtio-net header and the first 128 bytes; offload fields checked; key; hash
 *   3. look up   exact-match entry: key, generation, last seen; counters
 *   4. deliver   one copy, header from the private bytes, payload from guest to guest; a virtio-net header of our own
 *   5. journal   what is about to become used, for each ring, in memory that outlives this process
 *   6. publish   the receiver's used entries, first one last; then those of the sender; journal committed
 *
 * A sketch to measure by: packed rings with direct descriptors only, no notifications, no learning, no second worker. A
 * frame that is against the rules ends the program, since a figure that leaves frames out says nothing.
 *
 * Prints, once a second:  mframes 18.91 busy_cycles 88.0 burst 31.7
 * Million frames a second both ways, cycles a frame in iterations that moved any, frames in such an iteration.
 */
#define _GNU_SOURCE /* memfd_create */
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_hash_crc.h>
#include <rte_memcpy.h>
#include <rte_prefetch.h>
#include <rte_vhost.h>

enum {
	BURST = 32,
	NET_HEADER = 12, /* struct virtio_net_hdr_v1, which virtio 1 uses with and without mergeable buffers */
	PRIVATE = NET_HEADER + 128,
	FRAME_MIN = ETH_HLEN,
	TABLE_ENTRIES = 1 << 16,
	GENERATION = 1,
};

/* Flags of a packed descriptor, virtio 1.2 section 2.8. */
enum { CHAINED = 1 << 0, WRITABLE = 1 << 1, INDIRECT = 1 << 2, AVAIL = 1 << 7, USED = 1 << 15 };

/* A slot, and the wrap counter there. */
struct position {
	uint16_t slot;
	bool wrap;
};

struct ring {
	struct vring_packed_desc *slots;
	uint16_t size;
	struct position next;
	struct journal *journal;
};

/* The memory region that was hit last; almost always the next one as well. */
struct region {
	uint64_t start, size, to_host;
};

struct port {
	char *path;
	bool ready;
	uint32_t id;
	struct rte_vhost_memory *memory;
	struct region hit;
	struct ring receive, transmit; /* named as the guest names them */
	uint64_t packets, bytes;
};

/* One frame of a burst. */
struct frame {
	const uint8_t *from;
	uint8_t *to;
	uint32_t len; /* the sender's virtio-net header included */
	uint16_t from_id, to_id;
	struct position from_at, to_at;
};

/* What a frame is classified by: both addresses and the VLAN tag, in 14 bytes of two words. */
struct key {
	uint64_t destination; /* and the first two bytes of the source */
	uint64_t source;      /* the other four bytes, and the VLAN tag */
};

struct entry {
	struct key key;
	uint32_t output, generation, last_seen;
} __rte_cache_aligned;

/* Redo record of one burst on one ring: written before the first used entry, void once `committed` has caught up. */
struct journal {
	volatile uint64_t armed, committed;
	struct position before, after;
	uint32_t count;
	struct {
		uint32_t len;
		uint16_t id, slot;
	} used[BURST];
} __rte_cache_aligned;

static struct port ports[2];
static struct entry table[TABLE_ENTRIES];
static uint32_t now;
static volatile uint64_t visits; /* of the loop to the rings */
static volatile sig_atomic_t stopped;

static void __attribute__((noreturn, cold, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list values;
	va_start(values, format);
	fputs("lawful: ", stderr);
	vfprintf(stderr, format, values);
	fputc('\n', stderr);
	exit(1);
}

/* ---- rings and memory ---- */

/* Stores become visible to the guest in program order on x86; only the compiler must not move them. */
static inline void release(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline struct position after(const struct ring *ring, struct position at)
{
	if (unlikely(++at.slot == ring->size))
		at = (struct position){ .slot = 0, .wrap = !at.wrap };
	return at;
}

/* Copies the descriptor if the driver has made it available: each field is read once, flags first. */
static inline bool snapshot(const struct ring *ring, struct position at, struct vring_packed_desc *copy)
{
	const volatile struct vring_packed_desc *slot = &ring->slots[at.slot];
	uint16_t flags = __atomic_load_n(&slot->flags, __ATOMIC_ACQUIRE);

	if (!!(flags & AVAIL) != at.wrap || !!(flags & USED) == at.wrap)
		return false;
	*copy = (struct vring_packed_desc){ .addr = slot->addr, .len = slot->len, .id = slot->id, .flags = flags };
	return true;
}

static bool find_region(struct port *port, uint64_t address)
{
	for (uint32_t i = 0; i < port->memory->nregions; i++) {
		const struct rte_vhost_mem_region *region = &port->memory->regions[i];

		if (address - region->guest_phys_addr < region->size) {
			port->hit = (struct region){ .start = region->guest_phys_addr, .size = region->size,
				.to_host = region->host_user_addr - region->guest_phys_addr };
			return true;
		}
	}
	return false;
}

/* Where `len` bytes of guest memory are in ours; NULL if the guest has not all of them. */
static inline void *translate(struct port *port, uint64_t address, uint32_t len)
{
	if (unlikely(address - port->hit.start >= port->hit.size) && !find_region(port, address))
		return NULL;
	if (unlikely(len > port->hit.size - (address - port->hit.start)))
		return NULL;
	return (void *)(uintptr_t)(address + port->hit.to_host);
}

/* ---- the stages ---- */

static int reserve(struct port *sender, struct port *receiver, struct frame *burst)
{
	struct position from = sender->transmit.next, to = receiver->receive.next;
	int count = 0;

	while (count < BURST) {
		struct vring_packed_desc source, sink;

		if (!snapshot(&sender->transmit, from, &source) || !snapshot(&receiver->receive, to, &sink))
			break;
		if (unlikely(source.flags & (CHAINED | WRITABLE | INDIRECT)))
			die("a transmit descriptor has flags %#x: direct ones only, please", source.flags);
		if (unlikely((sink.flags & (CHAINED | WRITABLE | INDIRECT)) != WRITABLE))
			die("a receive descriptor has flags %#x: direct ones only, please", sink.flags);
		if (unlikely(source.len < NET_HEADER + FRAME_MIN || source.len > sink.len))
			die("%u bytes to send, room for %u", source.len, sink.len);

		struct frame *frame = &burst[count++];
		*frame = (struct frame){
			.from = translate(sender, source.addr, source.len),
			.to = translate(receiver, sink.addr, sink.len),
			.len = source.len,
			.from_id = source.id,
			.to_id = sink.id,
			.from_at = from,
			.to_at = to,
		};
		if (unlikely(!frame->from || !frame->to))
			die("a buffer lies outside of the guest's memory");
		rte_prefetch0(frame->from);
		rte_prefetch0(frame->from + RTE_CACHE_LINE_SIZE);
		rte_prefetch0(frame->to);
		from = after(&sender->transmit, from);
		to = after(&receiver->receive, to);
	}
	return count;
}

static inline uint32_t private_len(const struct frame *frame)
{
	return RTE_MIN(frame->len, (uint32_t)PRIVATE);
}

/* The sizes that matter are constants, which the compiler copies with a few vector moves. */
static inline void copy_private(uint8_t *header, const uint8_t *from, uint32_t len)
{
	if (len == PRIVATE) {
		memcpy(header, from, PRIVATE);
	} else if (len >= 64 && len <= 80) {
		memcpy(header, from, 64);
		memcpy(header + len - 16, from + len - 16, 16);
	} else {
		rte_memcpy(header, from, len);
	}
}

/* True if the receiver may be handed what the sender asks for: a checksum, within the frame, and nothing else. */
static inline bool offload_is_lawful(const struct virtio_net_hdr_v1 *asked, uint32_t frame_len)
{
	uint32_t checksum_end = (uint32_t)asked->csum_start + asked->csum_offset + sizeof(uint16_t);
	bool needs_checksum = asked->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;

	return asked->gso_type == VIRTIO_NET_HDR_GSO_NONE && (!needs_checksum || checksum_end <= frame_len);
}

static inline struct key key_of(const uint8_t *ethernet)
{
	struct key key;
	uint32_t source_end;
	uint16_t ethertype, tag = 0;

	memcpy(&key.destination, ethernet, sizeof(key.destination));
	memcpy(&source_end, ethernet + 8, sizeof(source_end));
	memcpy(&ethertype, ethernet + 2 * ETH_ALEN, sizeof(ethertype));
	if (ethertype == RTE_BE16(ETH_P_8021Q))
		memcpy(&tag, ethernet + ETH_HLEN, sizeof(tag));
	key.source = source_end | (uint64_t)tag << 32;
	return key;
}

/* The receiver's virtio-net header: one buffer, and of what the sender asked its checksum only, if it asked for one.
 * In two words, since loading a struct that was just stored field by field stalls. */
static inline void build_header(uint8_t *to, const uint8_t *asked)
{
	const uint64_t checksum_fields = VIRTIO_NET_HDR_F_NEEDS_CSUM | 0xffffULL << 48; /* flags, csum_start */
	uint64_t first;
	uint32_t second;

	memcpy(&first, asked, sizeof(first));
	memcpy(&second, asked + sizeof(first), sizeof(second));
	uint64_t wanted = -(first & VIRTIO_NET_HDR_F_NEEDS_CSUM);
	first &= checksum_fields & wanted;
	second = (second & 0xffff & wanted) | 1 << 16; /* csum_offset, num_buffers */
	memcpy(to, &first, sizeof(first));
	memcpy(to + sizeof(first), &second, sizeof(second));
}

static void deliver(const struct frame *frame, const uint8_t *header)
{
	uint32_t private = private_len(frame);

	copy_private(frame->to, header, private);
	if (frame->len > PRIVATE)
		rte_memcpy(frame->to + PRIVATE, frame->from + PRIVATE, frame->len - PRIVATE);

	build_header(frame->to, header);
}

static inline void arm(struct journal *journal, struct position before, struct position after, int count)
{
	journal->before = before;
	journal->after = after;
	journal->count = count;
	release();
	journal->armed++;
}

static inline void commit(struct journal *journal)
{
	release();
	journal->committed = journal->armed;
}

static inline void use(struct ring *ring, struct position at, uint16_t id, uint32_t len)
{
	ring->slots[at.slot].id = id;
	ring->slots[at.slot].len = len;
}

/* The flags make a used entry. The driver looks at the first one of a burst, so that one goes last. */
static inline void publish(struct ring *ring, struct position at, uint16_t writable)
{
	volatile struct vring_packed_desc *slot = &ring->slots[at.slot];

	slot->flags = at.wrap ? writable | AVAIL | USED : writable;
}

static int forward(struct port *sender, struct port *receiver)
{
	static uint8_t headers[BURST][3 * RTE_CACHE_LINE_SIZE] __rte_cache_aligned;
	struct frame burst[BURST];
	struct key keys[BURST];
	struct entry *entries[BURST];
	struct ring *from = &sender->transmit, *to = &receiver->receive;
	uint64_t bytes = 0;
	bool lawful = true;

	int count = reserve(sender, receiver, burst);
	if (!count)
		return 0;

	for (int i = 0; i < count; i++) {
		struct virtio_net_hdr_v1 asked;
		const uint8_t *ethernet = headers[i] + NET_HEADER;

		copy_private(headers[i], burst[i].from, private_len(&burst[i]));
		memcpy(&asked, headers[i], sizeof(asked));
		lawful &= offload_is_lawful(&asked, burst[i].len - NET_HEADER);
		lawful &= !(ethernet[ETH_ALEN] & 1); /* nobody's address is a multicast one */
		keys[i] = key_of(ethernet);
		uint32_t hash = rte_hash_crc_8byte(keys[i].destination, sender->id);
		hash = rte_hash_crc_8byte(keys[i].source, hash);
		entries[i] = &table[hash % TABLE_ENTRIES];
		rte_prefetch0(entries[i]);
	}
	if (unlikely(!lawful))
		die("a frame asks for what it may not have");

	for (int i = 0; i < count; i++) {
		struct entry *entry = entries[i];

		if (unlikely(entry->key.destination != keys[i].destination || entry->key.source != keys[i].source ||
			     entry->generation != GENERATION))
			*entry = (struct entry){ .key = keys[i], .output = receiver->id, .generation = GENERATION };
		if (unlikely(entry->last_seen != now))
			entry->last_seen = now;
		if (unlikely(entry->output != receiver->id))
			die("a verdict that leads back to the sender");
		bytes += burst[i].len - NET_HEADER;
	}
	sender->packets += count;
	sender->bytes += bytes;

	for (int i = 0; i < count; i++)
		deliver(&burst[i], headers[i]);

	struct position from_end = after(from, burst[count - 1].from_at), to_end = after(to, burst[count - 1].to_at);
	for (int i = 0; i < count; i++) {
		from->journal->used[i].len = 0;
		from->journal->used[i].id = burst[i].from_id;
		from->journal->used[i].slot = burst[i].from_at.slot;
		to->journal->used[i].len = burst[i].len;
		to->journal->used[i].id = burst[i].to_id;
		to->journal->used[i].slot = burst[i].to_at.slot;
	}
	arm(from->journal, from->next, from_end, count);
	arm(to->journal, to->next, to_end, count);

	for (int i = 0; i < count; i++)
		use(to, burst[i].to_at, burst[i].to_id, burst[i].len);
	release();
	for (int i = count - 1; i >= 0; i--)
		publish(to, burst[i].to_at, WRITABLE);
	for (int i = 0; i < count; i++)
		use(from, burst[i].from_at, burst[i].from_id, 0);
	release();
	for (int i = count - 1; i >= 0; i--)
		publish(from, burst[i].from_at, 0);
	commit(to->journal);
	commit(from->journal);

	from->next = from_end;
	to->next = to_end;
	return count;
}

/* ---- vhost-user, which DPDK's library speaks for us ---- */

static void open_ring(int vid, uint16_t index, struct ring *ring)
{
	struct rte_vhost_vring vring;
	uint16_t avail, used;

	if (rte_vhost_get_vhost_vring(vid, index, &vring) || rte_vhost_get_vring_base(vid, index, &avail, &used))
		die("virtqueue %u is not there", index);
	ring->slots = vring.desc_packed;
	ring->size = vring.size;
	ring->next = (struct position){ .slot = avail & 0x7fff, .wrap = avail >> 15 };
	rte_vhost_enable_guest_notification(vid, index, 0);
}

static struct port *port_of(int vid)
{
	char path[256];

	if (rte_vhost_get_ifname(vid, path, sizeof(path)))
		return NULL;
	for (int i = 0; i < 2; i++) {
		if (!strcmp(path, ports[i].path))
			return &ports[i];
	}
	return NULL;
}

static int guest_ready(int vid)
{
	struct port *port = port_of(vid);
	uint64_t features = 0;

	rte_vhost_get_negotiated_features(vid, &features);
	if (!port || !(features & 1ULL << VIRTIO_F_RING_PACKED) || !(features & 1ULL << VIRTIO_F_VERSION_1))
		die("this floor is for packed rings");
	if (rte_vhost_get_mem_table(vid, &port->memory))
		die("no guest memory");
	port->hit = (struct region){ 0 };
	open_ring(vid, 0, &port->receive);
	open_ring(vid, 1, &port->transmit);
	__atomic_store_n(&port->ready, true, __ATOMIC_RELEASE);
	return 0;
}

static void guest_gone(int vid)
{
	struct port *port = port_of(vid);

	/* The library unmaps the rings when this returns: first see the loop pass by, which then knows. */
	if (!port)
		return;
	__atomic_store_n(&port->ready, false, __ATOMIC_SEQ_CST);
	for (uint64_t seen = visits; visits - seen < 2 && !stopped;)
		usleep(100);
}

static const struct rte_vhost_device_ops guest_ops = { .new_device = guest_ready, .destroy_device = guest_gone };

static void open_port(uint32_t number, char *path, struct journal *journals)
{
	struct port *port = &ports[number];

	*port = (struct port){ .path = path, .id = number,
		.receive.journal = &journals[2 * number], .transmit.journal = &journals[2 * number + 1] };
	unlink(path);
	if (rte_vhost_driver_register(path, 0) || rte_vhost_driver_callback_register(path, &guest_ops) ||
	    rte_vhost_driver_start(path))
		die("cannot listen at %s", path);
}

static struct journal *map_journals(int count)
{
	size_t size = count * sizeof(struct journal);
	int file = memfd_create("journal", 0);
	void *mapped;

	if (file < 0 || ftruncate(file, size))
		die("no memory for the journal");
	mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (mapped == MAP_FAILED)
		die("no memory for the journal");
	return mapped;
}

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void run(void)
{
	uint64_t second = rte_get_tsc_hz(), begun = rte_rdtsc(), frames = 0, busy = 0, iterations = 0;

	while (!stopped) {
		uint64_t start = rte_rdtsc(), end = start;
		int moved = 0;

		visits++;
		if (__atomic_load_n(&ports[0].ready, __ATOMIC_ACQUIRE) && __atomic_load_n(&ports[1].ready, __ATOMIC_ACQUIRE)) {
			moved = forward(&ports[0], &ports[1]) + forward(&ports[1], &ports[0]);
			end = rte_rdtsc();
		}
		if (moved) {
			frames += moved;
			iterations++;
			busy += end - start;
		}
		if (unlikely(end - begun >= second)) {
			double seconds = (double)(end - begun) / second;

			if (frames)
				printf("mframes %.3f busy_cycles %.1f burst %.1f\n", frames / seconds / 1e6,
				       (double)busy / frames, (double)frames / iterations);
			fflush(stdout);
			frames = busy = iterations = 0;
			begun = end;
			now++;
		}
	}
}

int main(int argc, char **argv)
{
	int eal = rte_eal_init(argc, argv);
	if (eal < 0 || argc - eal != 3)
		die("usage: lawful EAL_ARGUMENT... -- SOCKET SOCKET");

	struct journal *journals = map_journals(4);
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	now = 1;
	open_port(0, argv[eal + 1], journals);
	open_port(1, argv[eal + 2], journals);
	run();
	/* The library's threads may be in the middle of a message: let the kernel clear up. */
	_exit(0);
}
