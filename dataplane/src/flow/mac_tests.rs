use super::*;
use std::sync::Arc;

fn station(number: u64) -> Station {
    Station { bridge: 0, vlan: 0, mac: MacAddress::from_word(0x0254 | number << 16) }
}

fn table(total: u32, per_port: u32) -> MacTable {
    MacTable::new(&MacLimits { total, bridges: vec![total; 2], ports: vec![per_port; 16] }).unwrap()
}

fn learn(table: &MacTable, station: Station, port: u16, now: u32) -> Option<MacRef> {
    match table.learn(station, port, now, || true) {
        Learnt::Here(entry) => Some(entry),
        _ => None,
    }
}

#[test]
fn a_station_is_found_where_it_was_last_seen() {
    let table = table(100, 100);
    assert!(table.find(station(1)).is_none());
    let first = learn(&table, station(1), 3, 7).unwrap();
    assert_eq!(table.find(station(1)), Some((3, first)));
    assert!(table.find(Station { bridge: 1, ..station(1) }).is_none(), "another bridge");
    assert!(table.find(Station { vlan: 1, ..station(1) }).is_none(), "another VLAN");
    assert_eq!(learn(&table, station(1), 3, 8), Some(first));
    assert!(table.is_current(first) && table.holds(first));
    let moved = learn(&table, station(1), 4, 9).unwrap();
    assert!(!table.is_current(first) && table.is_current(moved));
    assert_eq!(table.find(station(1)), Some((4, moved)));
    assert_eq!((table.moves(3), table.moves(4)), (0, 1));
    assert_eq!((table.count(3), table.count(4)), (0, 1));
}

/// Each station by itself: what one does ends no verdict of another.
#[test]
fn a_move_concerns_nobody_else() {
    let table = table(100, 100);
    let entries: Vec<_> = (0..50).map(|n| learn(&table, station(n), 0, 0).unwrap()).collect();
    for round in 0..100 {
        learn(&table, station(7), 1 + round % 2, 0).unwrap();
    }
    let current = entries.iter().filter(|&&entry| table.is_current(entry)).count();
    assert_eq!(current, 49);
    assert!(!table.is_current(entries[7]));
}

/// There and back is not where it was: a verdict from before is void.
#[test]
fn a_station_that_came_back_has_moved() {
    let table = table(100, 100);
    let first = learn(&table, station(1), 0, 0).unwrap();
    learn(&table, station(1), 1, 0).unwrap();
    let back = learn(&table, station(1), 0, 0).unwrap();
    assert!(!table.is_current(first) && table.is_current(back));
}

#[test]
fn moves_may_be_refused() {
    let table = table(100, 100);
    let first = learn(&table, station(1), 0, 0).unwrap();
    assert_eq!(table.learn(station(1), 1, 0, || false), Learnt::MovesTooOften);
    assert_eq!(table.find(station(1)), Some((0, first)));
    assert_eq!(table.count(1), 0);
    // Nothing to ask where nothing moves.
    assert_eq!(table.learn(station(1), 0, 0, || panic!()), Learnt::Here(first));
    assert!(matches!(table.learn(station(2), 1, 0, || panic!()), Learnt::Here(_)));
}

/// Who takes a station away needs leave for it, who takes it back needs none: not even from one who has it now and again.
#[test]
fn a_station_goes_back_to_its_place_without_leave() {
    let table = table(100, 100);
    learn(&table, station(1), 0, 0).unwrap();
    for tick in [0, 0, 1, SETTLED - 1] {
        learn(&table, station(1), 1, tick).unwrap();
        assert!(matches!(table.learn(station(1), 0, tick, || panic!("it may")), Learnt::Here(_)));
        assert_eq!(table.learn(station(1), 1, tick, || false), Learnt::MovesTooOften);
    }
    // A thief that is robbed does not own it.
    learn(&table, station(1), 1, 100).unwrap();
    learn(&table, station(1), 2, 100).unwrap();
    assert_eq!(table.learn(station(1), 1, 100, || false), Learnt::MovesTooOften);
    assert!(matches!(table.learn(station(1), 0, 100, || panic!("it may")), Learnt::Here(_)));
    // Where it has stayed long its place is, once it is taken from there.
    learn(&table, station(1), 3, 200).unwrap();
    learn(&table, station(1), 4, 200 + SETTLED).unwrap();
    assert!(matches!(table.learn(station(1), 3, 200 + SETTLED, || panic!("it may")), Learnt::Here(_)));
    assert_eq!(table.learn(station(1), 0, 200 + SETTLED, || false), Learnt::MovesTooOften);
    // What was forgotten has no place.
    table.flush(3);
    learn(&table, station(1), 5, 300).unwrap();
    learn(&table, station(1), 0, 300).unwrap();
    assert!(matches!(table.learn(station(1), 5, 300, || panic!("it may")), Learnt::Here(_)));
}

#[test]
fn a_static_station_stays() {
    let table = table(100, 100);
    assert!(table.insert_static(station(1), 3));
    let entry = table.find(station(1)).unwrap().1;
    assert_eq!(table.learn(station(1), 4, 0, || true), Learnt::Held);
    assert_eq!(table.learn(station(1), 3, 0, || true), Learnt::Here(entry));
    table.flush(3);
    assert_eq!(table.remove_if(|_| true), 0);
    assert_eq!(table.find(station(1)), Some((3, entry)));
    assert!(table.holds(entry) && table.iter().all(|entry| entry.is_static));
}

#[test]
fn ageing_ends_verdicts_and_frees_room() {
    let table = table(2, 2);
    let old = learn(&table, station(1), 0, 10).unwrap();
    learn(&table, station(2), 1, 20).unwrap();
    assert_eq!(table.learn(station(3), 1, 20, || true), Learnt::NoRoom, "the limit in all");
    assert_eq!(table.no_room(), 1);
    assert_eq!(table.remove_if(|entry| entry.seen < 15), 1);
    assert!(!table.is_current(old));
    assert!(table.find(station(1)).is_none());
    assert!(learn(&table, station(3), 1, 20).is_some());
    assert_eq!(table.iter().count(), 2);
}

#[test]
fn one_port_cannot_take_all_room() {
    let table = table(100, 2);
    let learnt = (0..10).filter(|&i| learn(&table, station(i), 0, 0).is_some()).count();
    assert_eq!((learnt, table.refused(0)), (2, 8));
    assert!(learn(&table, station(20), 1, 0).is_some());
    // Moving there counts, too.
    assert_eq!(table.learn(station(20), 0, 0, || true), Learnt::PortLimit);
    assert_eq!(table.find(station(20)).unwrap().0, 1);
    table.remove_if(|entry| entry.port == 0);
    assert!(learn(&table, station(20), 0, 0).is_some());
}

#[test]
fn one_bridge_cannot_take_all_room() {
    let limits = MacLimits { total: 100, bridges: vec![2, 100], ports: vec![100; 4] };
    let table = MacTable::new(&limits).unwrap();
    for n in 0..5 {
        assert_eq!(table.learn(station(n), 0, 0, || true) == Learnt::NoRoom, n >= 2);
        assert!(matches!(table.learn(Station { bridge: 1, ..station(n) }, 1, 0, || true), Learnt::Here(_)));
    }
    assert_eq!((table.count(0), table.count(1)), (2, 5));
}

/// A port that is flushed has no stations, and as much room as before; those of others stay.
#[test]
fn a_flush() {
    let table = table(100, 2);
    let gone = learn(&table, station(1), 0, 0).unwrap();
    let stays = learn(&table, station(2), 1, 0).unwrap();
    table.flush(0);
    assert_eq!(table.find(station(1)), None);
    assert!(!table.holds(gone) && table.holds(stays));
    assert_eq!((table.count(0), table.iter().count()), (0, 1));
    // Seen again, here or elsewhere, it is no move.
    let again = table.learn(station(1), 2, 0, || panic!("no move"));
    assert!(matches!(again, Learnt::Here(_)));
    assert_eq!(table.find(station(1)).unwrap().0, 2);
    assert_eq!((table.count(2), table.moves(2)), (1, 0));
    // What nobody sees again is swept.
    learn(&table, station(3), 1, 0).unwrap();
    table.flush(1);
    assert_eq!(table.remove_if(|_| false), 2);
    assert_eq!((table.iter().count(), table.total.count.load(Ordering::Relaxed)), (1, 1));
    learn(&table, station(5), 1, 0).unwrap();
    learn(&table, station(6), 1, 0).unwrap();
    assert_eq!(table.count(1), 2);
}

/// Static stations stay over a flush, and are counted.
#[test]
fn a_flush_with_static_stations() {
    let table = table(100, 3);
    assert!(table.insert_static(station(1), 0) && table.insert_static(station(2), 0));
    learn(&table, station(3), 0, 0).unwrap();
    assert_eq!(table.count(0), 3);
    table.flush(0);
    assert_eq!((table.count(0), table.find(station(1)).map(|found| found.0)), (2, Some(0)));
    learn(&table, station(4), 0, 0).unwrap();
    assert_eq!(table.learn(station(5), 0, 0, || true), Learnt::PortLimit);
}

#[test]
fn a_touch_keeps_a_station() {
    let table = table(10, 10);
    let entry = learn(&table, station(1), 0, 1).unwrap();
    table.touch(entry, 50);
    assert_eq!(table.remove_if(|entry| entry.seen < 40), 0);
    table.touch(MacRef::ALWAYS, 50);
    assert!(table.is_current(MacRef::ALWAYS) && table.holds(MacRef::ALWAYS));
}

/// Threads learn, move, flush and remove the same few stations; afterwards every count is exact, and no station is there twice.
#[test]
fn counts_hold_under_contention() {
    let table = Arc::new(table(1000, 1000));
    std::thread::scope(|scope| {
        for thread in 0..3u16 {
            let table = table.clone();
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    table.learn(station(round % 50), thread + (round % 3) as u16, round as u32, || true);
                    if let Some((port, entry)) = table.find(station(round % 50)) {
                        assert!(port < 5);
                        let _ = table.holds(entry);
                    }
                }
            });
        }
        for round in 0..200 {
            table.remove_if(|entry| (entry.station.mac.word() >> 16) % 7 == round % 7);
            table.flush((round % 5) as u16);
            std::thread::yield_now();
        }
    });
    table.remove_if(|_| false);
    let entries: Vec<_> = table.iter().collect();
    assert_eq!(entries.len(), table.total.count.load(Ordering::Relaxed) as usize);
    assert_eq!(entries.len(), table.bridges[0].count.load(Ordering::Relaxed) as usize);
    for port in 0..16u16 {
        let count = entries.iter().filter(|entry| entry.port == port).count();
        assert_eq!(count, table.count(port) as usize, "port {port}");
    }
    let mut macs: Vec<_> = entries.iter().map(|entry| entry.station.mac).collect();
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), entries.len(), "a station twice");
}
