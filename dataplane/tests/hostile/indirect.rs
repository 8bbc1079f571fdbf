//! R3: indirect tables that cannot be (virtio 1.2, sections 2.7.5.3 and 2.8.7). R1: tables outside the memory.

use ringway::guest::ring::RingFault;
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Layout, Options, RawDescriptor};

use crate::guests::LAYOUTS;
use crate::scene::{On, Scene};

/// Offers what `bend` makes of a good table's descriptor, in each layout and on each ring.
fn tables(fault: RingFault, bend: impl Fn(&Scene, RawDescriptor) -> Vec<RawDescriptor>) {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let mut scene = Scene::new(layout, on);
            let good = scene.table(&[scene.raw(0)]);
            let descriptors = bend(&scene, good);
            scene.offer(&descriptors);
            scene.assert_broken(fault);
        }
    }
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_an_empty_table() {
    tables(RingFault::BadIndirect, |_, good| vec![RawDescriptor { len: 0, ..good }]);
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_that_is_not_whole_descriptors() {
    for len in [1, 8, 15, 17, 31] {
        tables(RingFault::BadIndirect, |_, good| vec![RawDescriptor { len, ..good }]);
    }
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_longer_than_the_ring() {
    for len in [257 * 16, 0x1_0000 * 16, 0x1_0001 * 16, 0xffff_fff0] {
        tables(RingFault::BadIndirect, |_, good| vec![RawDescriptor { len, ..good }]);
    }
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_in_a_table() {
    tables(RingFault::BadIndirect, |scene, good| vec![scene.table(&[good])]);
}

/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_and_then_more() {
    tables(RingFault::BadIndirect, |scene, good| {
        vec![RawDescriptor { flags: flag::INDIRECT | flag::NEXT, ..good }, scene.raw(0)]
    });
}

/// On a packed ring a table is a chain of its own; a split ring's chain may end in one (2.7.5.3.2).
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_in_a_chain() {
    for on in On::BOTH {
        let mut scene = Scene::new(Layout::Packed, on);
        let chain = [scene.raw(flag::NEXT), scene.table(&[scene.raw(0)])];
        scene.offer(&chain);
        scene.assert_broken(RingFault::BadIndirect);
    }
}

/// Links that lead out of a split ring's table, or round in it.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_a_table_that_leads_nowhere() {
    for on in On::BOTH {
        for next in [0, 1, 2, 3, 0xffff] {
            let mut scene = Scene::new(Layout::Split, on);
            let goes_on = scene.raw(flag::NEXT);
            let table = scene.table(&[goes_on, RawDescriptor { next: Some(next), ..goes_on }]);
            scene.offer(&[table]);
            scene.assert_broken(RingFault::BadIndirect);
        }
    }
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_a_table_outside_the_memory() {
    for address in [0, 16, u64::MAX - 15, u64::MAX - 7] {
        tables(RingFault::BadAddress, |_, good| vec![RawDescriptor { address, ..good }]);
    }
}

/// The table begins in a region and ends where no memory is: its good entry is no excuse.
/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_a_table_across_the_end_of_a_region() {
    for cut in [16, 24] {
        for layout in LAYOUTS {
            for on in On::BOTH {
                let mut scene = Scene::new(layout, on);
                let (span, _) = scene.hostile.memory.regions().next().unwrap();
                let last = if layout == Layout::Split { flag::NEXT } else { 0 };
                let good = scene.table(&[scene.raw(last), scene.raw(last)]);
                let bytes = scene.hostile.memory.read(good.address, cut as usize);
                scene.hostile.memory.write(span.guest + span.len - cut, &bytes);
                scene.offer(&[RawDescriptor { address: span.guest + span.len - cut, ..good }]);
                scene.assert_broken(RingFault::BadAddress);
            }
        }
    }
}

/// As long as the ring is allowed, and read to its end: the entry that breaks the rule is the last one.
/// Class of CVE-2020-14378 and CVE-2019-3900.
#[test]
fn r03_the_last_entry_of_the_longest_table() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let mut scene = Scene::with(on, Options { size: 512, ..Options::new(layout) });
            let last = if layout == Layout::Split { flag::NEXT } else { 0 };
            let mut entries = vec![RawDescriptor { len: 1, ..scene.raw(last) }; 512];
            entries[511] = RawDescriptor { address: 0, len: 1, ..scene.raw(0) };
            let table = scene.table(&entries);
            scene.offer(&[table]);
            scene.assert_broken(RingFault::BadAddress);
        }
    }
}
