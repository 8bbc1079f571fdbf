//! What a reader may see while the writer inserts, deletes, writes an entry again, and moves a generation on.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::flow::table::{Reader, Size, Stamp, Table};

type Flows = Table<[u64; 1], [u64; 2], 1, 1>;
type FlowReader = Reader<[u64; 1], [u64; 2], 1, 1>;

/// Every model, by name.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("an_insert_is_seen_whole_or_not_at_all", an_insert_is_seen_whole_or_not_at_all),
    ("a_reader_never_sees_an_entry_become_another", a_reader_never_sees_an_entry_become_another),
    ("a_batch_is_deleted_under_a_reader", a_batch_is_deleted_under_a_reader),
    ("a_generation_moves_on_under_a_reader", a_generation_moves_on_under_a_reader),
    ("a_reader_that_stays_lets_go_in_between", a_reader_that_stays_lets_go_in_between),
];

/// As few entries as the model can do with, so that one that is retired is the next to be written.
const SIZE: Size = Size { capacity: 1, spare: 1, seats: 1 };

fn insert(table: &mut Flows, key: u64, generation: u64) -> bool {
    let hash = table.view().hash([key]);
    table.insert([key], hash, [generation, key << 8 | generation], Stamp::new(0, 1))
}

fn delete(table: &mut Flows, key: u64) -> bool {
    let hash = table.view().hash([key]);
    table.delete([key], hash)
}

/// The generation of what is cached for a key; it is never of another key, nor half of one and half of another.
fn get(reader: &FlowReader, key: u64) -> Option<u64> {
    let pinned = reader.pin().unwrap();
    pinned.get([key]).map(|[generation, both]| {
        assert_eq!(both, key << 8 | generation, "torn, or of another key");
        generation
    })
}

/// Explores every order, with at most so many switches from one thread to another where the writer could have gone on; without
/// such a bound the largest of these models would take hours.
fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

fn an_insert_is_seen_whole_or_not_at_all() {
    model(3, || {
        let mut table = Flows::new(SIZE).unwrap();
        let reader = table.reader();
        let other = thread::spawn(move || get(&reader, 1));
        assert!(insert(&mut table, 1, 1));
        let seen = other.join().unwrap();
        assert!(seen.is_none() || seen == Some(1));
        assert_eq!(get(&table.reader(), 1), Some(1));
    });
}

/// A key is deleted and its entry becomes another key's as soon as it may.
fn a_reader_never_sees_an_entry_become_another() {
    model(3, || {
        let mut table = Flows::new(SIZE).unwrap();
        assert!(insert(&mut table, 1, 1));
        let reader = table.reader();
        let other = thread::spawn(move || (get(&reader, 1), get(&reader, 2)));
        assert!(delete(&mut table, 1));
        // Into the entry that was to spare, and then into the one that was deleted, unless the reader may still be there.
        let second = insert(&mut table, 2, 2);
        let third = insert(&mut table, 1, 3);
        assert!(second, "there was one to spare");
        let (one, two) = other.join().unwrap();
        assert!([None, Some(1), Some(3)].contains(&one), "{one:?}");
        assert!([None, Some(2)].contains(&two), "{two:?}");
        // With room for one, the one that came last is there.
        assert_eq!(get(&table.reader(), 1), third.then_some(3));
    });
}

/// As above, with a key that is deleted in a batch in which it comes twice.
fn a_batch_is_deleted_under_a_reader() {
    model(2, || {
        let mut table = Flows::new(SIZE).unwrap();
        assert!(insert(&mut table, 1, 1));
        let reader = table.reader();
        let other = thread::spawn(move || (get(&reader, 1), get(&reader, 2)));
        assert_eq!(table.delete_batch(&[[2], [1], [1]]), 0b10);
        assert!(insert(&mut table, 2, 2), "there was one to spare");
        let third = insert(&mut table, 1, 3);
        let (one, two) = other.join().unwrap();
        assert!([None, Some(1), Some(3)].contains(&one), "{one:?}");
        assert!([None, Some(2)].contains(&two), "{two:?}");
        assert_eq!(get(&table.reader(), 1), third.then_some(3));
    });
}

/// A verdict is decided anew when a generation has moved on: who knows of the new generation and finds a verdict of it may act on
/// it, and nobody finds a key gone whose verdict is only exchanged.
fn a_generation_moves_on_under_a_reader() {
    model(3, || {
        let mut table = Flows::new(SIZE).unwrap();
        assert!(insert(&mut table, 1, 1));
        let current = Arc::new(AtomicU64::new(1));
        let (reader, known) = (table.reader(), current.clone());
        let other = thread::spawn(move || {
            let known = known.load(Ordering::Acquire);
            (known, get(&reader, 1))
        });
        assert!(insert(&mut table, 1, 2));
        // Told to others only when its verdict is cached.
        current.store(2, Ordering::Release);
        insert(&mut table, 1, 3);
        let (known, seen) = other.join().unwrap();
        let seen = seen.expect("the key is never gone");
        assert!(seen >= known, "generation {known} was current, and {seen} was found");
    });
}

/// A reader that stays for two lookups and says in between that it holds nothing.
fn a_reader_that_stays_lets_go_in_between() {
    model(2, || {
        let mut table = Flows::new(SIZE).unwrap();
        assert!(insert(&mut table, 1, 1));
        let reader = table.reader();
        let other = thread::spawn(move || {
            let whole = |value: Option<[u64; 2]>| value.is_none_or(|[generation, both]| both == 1 << 8 | generation);
            let mut pinned = reader.pin().unwrap();
            assert!(whole(pinned.get([1])));
            pinned.pass();
            assert!(whole(pinned.get([1])));
        });
        insert(&mut table, 1, 2);
        insert(&mut table, 1, 3);
        insert(&mut table, 2, 4);
        other.join().unwrap();
    });
}
