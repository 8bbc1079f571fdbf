//! Readers on another core, while a writer inserts, exchanges, deletes and evicts as fast as it can: what they find is whole, is of
//! the key that they asked for, and is no older than what they had been told of before they asked.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway::flow::{Size, Stamp, table};

const KEYS: usize = 512;
/// Fewer entries than keys: some are always being evicted.
const SIZE: Size = Size { capacity: 256, spare: 128, seats: 4 };
const VALUE: usize = 3;

type Flows<const N: usize> = table::Table<[u64; N], [u64; VALUE], N, { VALUE - 1 }>;
type FlowReader<const N: usize> = table::Reader<[u64; N], [u64; VALUE], N, { VALUE - 1 }>;

fn key<const N: usize>(number: usize) -> [u64; N] {
    std::array::from_fn(|word| (number as u64).rotate_left(8 * word as u32))
}

/// Each word tells of key and version, so that two halves of different values do not fit together.
fn value(number: usize, version: u64) -> [u64; VALUE] {
    let word = version << 16 | number as u64;
    [word, word.wrapping_mul(0x9e37_79b9_7f4a_7c15), !word]
}

/// The version of a value that was found for a key.
fn version(number: usize, found: [u64; VALUE]) -> u64 {
    let version = found[0] >> 16;
    assert_eq!(found, value(number, version), "torn, or another key's");
    version
}

/// What was last done to each key: its version, and in the lowest bit whether it was deleted. Told after it was done.
struct Done(Vec<AtomicU64>);

impl Done {
    fn told(&self, number: usize) -> (u64, bool) {
        let word = self.0[number].load(Ordering::Acquire);
        (word >> 1, word & 1 == 1)
    }
}

fn write<const N: usize>(mut table: Flows<N>, done: &Done, stop: &AtomicBool) -> u64 {
    let (mut random, mut steps) = (1u64, 0);
    while !stop.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (random >> 40) as usize % KEYS;
        let hash = table.view().hash(key(number));
        let next = done.told(number).0 + 1;
        if random >> 34 & 63 == 0 {
            let numbers: [usize; 8] = std::array::from_fn(|index| (number + index) % KEYS);
            let next = numbers.map(|number| done.told(number).0 + 1);
            table.delete_batch(&numbers.map(key));
            for (number, next) in numbers.into_iter().zip(next) {
                done.0[number].store(next << 1 | 1, Ordering::Release);
            }
        } else if random >> 32 & 3 == 0 {
            table.delete(key(number), hash);
            done.0[number].store(next << 1 | 1, Ordering::Release);
        } else if table.insert(key(number), hash, value(number, next), Stamp::new(0, steps as u32)) {
            done.0[number].store(next << 1, Ordering::Release);
        }
        steps += 1;
    }
    steps
}

fn read<const N: usize>(reader: &FlowReader<N>, done: &Done, stop: &AtomicBool) -> (u64, u64) {
    let (mut found, mut missed, mut round) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let Some(mut pinned) = reader.pin() else { panic!("no seat") };
        for first in (0..KEYS).step_by(table::BATCH) {
            let numbers: [usize; table::BATCH] = std::array::from_fn(|index| (first + index * 7 + round) % KEYS);
            let before = numbers.map(|number| done.told(number));
            let hits = pinned.look_up(&numbers.map(key), |index, hit| {
                let version = version(numbers[index], pinned.value(hit));
                let (told, deleted) = before[index];
                assert!(version > told || version == told && !deleted, "stale: {version}, told of {:?}", before[index]);
                found += 1;
            });
            missed += u64::from(table::BATCH as u32 - hits.count_ones());
            pinned.pass();
        }
        round += 1;
        if round % 16 == 0 {
            drop(pinned);
            assert!(reader.for_each(|cached| {
                let number = (cached.value[0] & 0xffff) as usize;
                assert_eq!(cached.key, key(number));
                version(number, cached.value);
                found += 1;
            }));
        }
    }
    (found, missed)
}

fn soak<const N: usize>(duration: Duration) {
    let table = Flows::<N>::new(SIZE).unwrap();
    let reader = table.reader();
    let done = Done((0..KEYS).map(|_| AtomicU64::new(1)).collect());
    let stop = AtomicBool::new(false);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let pin =
        |index: usize| cores.get(index % cores.len().max(1)).is_some_and(|&core| core_affinity::set_for_current(core));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pin(0);
            write(table, &done, &stop)
        });
        let reading = scope.spawn(|| {
            pin(1);
            read(&reader, &done, &stop)
        });
        let end = Instant::now() + duration;
        while Instant::now() < end && !writer.is_finished() && !reading.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let steps = writer.join().unwrap();
        let (found, missed) = reading.join().unwrap();
        assert!(found > 1000 && missed > 0, "found {found}, missed {missed}");
        // Every entry was written many times, and not only by deleting.
        assert!(steps - reader.refused() > 20 * (SIZE.capacity + SIZE.spare) as u64, "{steps} steps");
        assert!(reader.evictions() > SIZE.capacity as u64);
        println!("{steps} steps, {} evictions, {} not cached", reader.evictions(), reader.refused());
    });
}

#[test]
fn readers_see_no_torn_and_no_stale_entry() {
    soak::<2>(Duration::from_millis(1500));
    soak::<5>(Duration::from_millis(1500));
}

#[test]
#[ignore = "a soak of ten minutes"]
fn readers_see_no_torn_and_no_stale_entry_for_long() {
    soak::<2>(Duration::from_secs(300));
    soak::<5>(Duration::from_secs(300));
}
