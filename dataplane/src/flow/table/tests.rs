//! The writer by itself, against hashbrown as the oracle; and what a full table gives up.

use super::*;
use hashbrown::HashMap;
use proptest::prelude::*;

type Plain<const N: usize> = Table<[u64; N], [u64; 3], N, 2>;

fn key<const N: usize>(number: u64) -> [u64; N] {
    std::array::from_fn(|word| number.rotate_left(word as u32 * 7))
}

fn insert<const N: usize>(table: &mut Plain<N>, number: u64, value: u64, now: u32) -> bool {
    let hash = table.view().hash(key(number));
    table.insert(key(number), hash, [value, !value, number], Stamp::new(0, now))
}

fn find<const N: usize>(table: &Plain<N>, number: u64) -> Option<u64> {
    let view = table.view();
    let hit = view.find(view.candidates(view.hash(key(number))), key(number))?;
    let [value, inverted, of] = view.value(hit);
    assert_eq!((inverted, of), (!value, number));
    assert_eq!(hit.first_word(), value);
    Some(value)
}

fn delete<const N: usize>(table: &mut Plain<N>, number: u64) -> bool {
    let hash = table.view().hash(key(number));
    table.delete(key(number), hash)
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Delete(u64),
    DeleteBatch(Vec<u64>),
}

fn steps(keys: u64) -> impl Strategy<Value = Vec<Step>> {
    let batch = proptest::collection::vec(0..keys, 0..=BATCH).prop_map(Step::DeleteBatch);
    let step = prop_oneof![30 => (0..keys).prop_map(Step::Insert), 10 => (0..keys).prop_map(Step::Delete), 1 => batch];
    proptest::collection::vec(step, 1..800)
}

/// Below its capacity it is a map. What a bucket has no room for is near by.
fn is_a_map<const N: usize>(steps: Vec<Step>) {
    // Full neighbourhoods are as good as impossible: 40 ways for 16 keys, all told.
    let mut table = Plain::<N>::new(Size { capacity: 64, spare: 4, seats: 1 }).unwrap();
    let mut oracle = HashMap::new();
    for (now, step) in (1..).zip(steps) {
        match step {
            Step::Insert(number) => {
                assert!(insert(&mut table, number, now, now as u32));
                oracle.insert(number, now);
            }
            Step::Delete(number) => assert_eq!(delete(&mut table, number), oracle.remove(&number).is_some()),
            Step::DeleteBatch(numbers) => {
                let keys: Vec<_> = numbers.iter().map(|&number| key(number)).collect();
                let there = numbers.iter().enumerate().filter(|&(_, number)| oracle.remove(number).is_some());
                let there = there.fold(0, |there, (index, _)| there | 1 << index);
                assert_eq!(table.delete_batch(&keys), there);
            }
        }
        assert_eq!(table.reader().entries(), oracle.len() as u64);
    }
    let mut listed = HashMap::new();
    assert!(table.reader().for_each(|cached| {
        assert!(listed.insert(cached.value[2], cached.value[0]).is_none(), "listed twice");
    }));
    assert_eq!(listed, oracle);
    let strays: u32 = table.shared.buckets.iter().map(|bucket| bucket.strays().count()).sum();
    let away = |number: &&u64| {
        let hash = table.view().hash(key::<N>(**number));
        table.shared.place(home(hash), tag(hash), &key(**number)).unwrap().bucket != home(hash)
    };
    assert_eq!(strays as usize, oracle.keys().filter(away).count());
}

proptest! {
    #[test]
    fn a_table_of_narrow_keys_is_a_map(steps in steps(40)) {
        is_a_map::<2>(steps);
    }

    #[test]
    fn a_table_of_wide_keys_is_a_map(steps in steps(40)) {
        is_a_map::<5>(steps);
    }

    /// Over its capacity it forgets, but what it knows is right, what came last is there, and it never holds more.
    #[test]
    fn a_full_table_forgets(steps in steps(200)) {
        let mut table = Plain::<2>::new(Size { capacity: 32, spare: 4, seats: 1 }).unwrap();
        let mut oracle = HashMap::new();
        for (now, step) in (1..).zip(steps) {
            match step {
                Step::Insert(number) => {
                    prop_assert!(insert(&mut table, number, now, now as u32));
                    oracle.insert(number, now);
                    prop_assert_eq!(find(&table, number), Some(now));
                }
                Step::Delete(number) => {
                    let known = find(&table, number).is_some();
                    prop_assert_eq!(delete(&mut table, number), known);
                    oracle.remove(&number);
                }
                Step::DeleteBatch(numbers) => {
                    let keys: Vec<_> = numbers.iter().map(|&number| key(number)).collect();
                    table.delete_batch(&keys);
                    prop_assert!(numbers.iter().all(|&number| find(&table, number).is_none()));
                    numbers.iter().for_each(|number| _ = oracle.remove(number));
                }
            }
            prop_assert!(table.reader().entries() <= 32);
        }
        for number in 0..200 {
            if let Some(value) = find(&table, number) {
                prop_assert_eq!(Some(&value), oracle.get(&number));
            }
        }
        let mut listed = 0;
        table.reader().for_each(|_| listed += 1);
        prop_assert_eq!(listed, table.reader().entries());
    }
}

/// What it is said to hold it holds: of 64 K flows in a table for 64 K not one in ten thousand is lost.
#[test]
fn it_holds_what_it_is_made_for() {
    let flows = 65_536;
    let mut table = Plain::<2>::new(Size::of(flows)).unwrap();
    assert!((0..flows as u64).all(|number| insert(&mut table, number, number, 1)));
    let held = (0..flows as u64).filter(|&number| find(&table, number) == Some(number)).count();
    assert!(held >= flows - flows / 10_000, "holds {held} of {flows}");
    assert_eq!(table.reader().entries(), held as u64);
    assert_eq!(table.reader().evictions(), (flows - held) as u64);
    let bytes = table.bytes() as f64 / flows as f64;
    assert!(bytes <= 96.0, "{bytes} bytes a flow");
    assert!(Plain::<2>::new(Size::of(1024)).unwrap().bytes() <= 96 * 1024);
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    // One neighbourhood: whatever makes room is looked for among all keys.
    let mut table = Plain::<2>::new(Size { capacity: 8, spare: 2, seats: 1 }).unwrap();
    for number in 0..8 {
        insert(&mut table, number, number, 10 + number as u32);
    }
    let view = table.view();
    let first = view.find(view.candidates(view.hash(key(0))), key(0)).unwrap();
    table.confirm(first, Stamp::new(0, 50));
    insert(&mut table, 100, 100, 51);
    assert_eq!(find(&table, 1), None, "the oldest that was not used since");
    assert!((2..8).chain([0, 100]).all(|number| find(&table, number).is_some()));
    insert(&mut table, 3, 33, 52);
    assert_eq!((find(&table, 3), find(&table, 2)), (Some(33), Some(2)), "a new value takes nobody's place");
    assert_eq!((table.reader().entries(), table.reader().evictions()), (8, 1));
}

/// Ticks begin anew after 136 years, and ages with them.
#[test]
fn ages_outlast_the_clock() {
    let mut table = Plain::<2>::new(Size { capacity: 8, spare: 2, seats: 1 }).unwrap();
    for number in 0..8 {
        insert(&mut table, number, number, (u32::MAX - 3).wrapping_add(number as u32));
    }
    insert(&mut table, 100, 100, 5);
    assert_eq!(find(&table, 0), None);
    assert!((1..8).all(|number| find(&table, number).is_some()));
}

/// A reader that stays keeps the writer from writing entries again, not from going on.
#[test]
fn a_reader_that_stays_costs_the_cache_and_nothing_else() {
    let mut table = Plain::<2>::new(Size { capacity: 8, spare: 2, seats: 1 }).unwrap();
    let reader = table.reader();
    for number in 0..8 {
        insert(&mut table, number, number, 1);
    }
    let mut pinned = reader.pin().unwrap();
    assert!(reader.pin().is_none(), "one seat");
    assert!(!reader.for_each(|_| ()));
    let stored = (10..20).filter(|&number| insert(&mut table, number, number, 2)).count();
    assert_eq!(stored, 2, "as many as there are to spare");
    assert_eq!(reader.refused(), 8);
    assert!(!insert(&mut table, 7, 70, 2) || find(&table, 7) == Some(70));
    pinned.pass();
    assert!(insert(&mut table, 30, 30, 3));
    drop(pinned);
    assert!(insert(&mut table, 31, 31, 3) && find(&table, 31) == Some(31));
    assert!(reader.entries() <= 8);
}

/// A burst keeps its candidates while frames before them change the table: what was retired since is not taken for what it was.
#[test]
fn a_retired_entry_is_at_no_stamp() {
    let mut table = Plain::<2>::new(Size::of(64)).unwrap();
    insert(&mut table, 1, 1, 9);
    let candidates = table.view().candidates(table.view().hash(key(1)));
    assert!(table.view().find(candidates, key(1)).unwrap().is_at(Stamp::new(0, 9)));
    insert(&mut table, 1, 2, 9);
    assert!(!table.view().find(candidates, key(1)).unwrap().is_at(Stamp::new(0, 9)));
    assert_eq!(find(&table, 1), Some(2));
}

/// The same key twice in a batch, keys that are not there, strays: each is deleted once.
#[test]
fn a_batch_is_deleted_as_one_by_one() {
    let mut table = Plain::<2>::new(Size { capacity: 64, spare: 4, seats: 1 }).unwrap();
    // Of 64 keys in four neighbourhoods some are strays, in some of these tables.
    for round in 0..50 {
        (0..64).for_each(|number| assert!(insert(&mut table, round * 100 + number, number, 1)));
        let strays: u32 = table.shared.buckets.iter().map(|bucket| bucket.strays().count()).sum();
        let numbers: [u64; 20] = [0, 1, 1, 2, 64, 3, 0, 65, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let keys = numbers.map(|number| key(round * 100 + number));
        let before = numbers.map(|number| find(&table, round * 100 + number).is_some());
        let there = table.delete_batch(&keys);
        for (index, number) in numbers.iter().enumerate() {
            let first = numbers.iter().position(|other| other == number) == Some(index);
            assert_eq!(
                there >> index & 1 == 1,
                before[index] && first,
                "key {number} of round {round}, {strays} strays"
            );
            assert_eq!(find(&table, round * 100 + number), None);
        }
        assert_eq!(there >> numbers.len(), 0);
        for number in 0..64 {
            let kept = find(&table, round * 100 + number).is_some();
            assert_eq!(delete(&mut table, round * 100 + number), kept);
        }
        assert_eq!(
            (table.reader().entries(), table.shared.buckets.iter().all(|bucket| !bucket.strays().any())),
            (0, true)
        );
    }
}

#[test]
fn sizes_that_cannot_be() {
    Plain::<2>::new(Size { capacity: 0, spare: 1, seats: 1 }).unwrap_err();
    Plain::<2>::new(Size { capacity: u32::MAX as usize + 1, spare: 1, seats: 1 }).unwrap_err();
}
