//! R1: buffers that are not, or not wholly, in the guest's memory; and buffers of the wrong direction.

use ringway::guest::ring::RingFault;
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Layout, RawDescriptor};

use crate::guests::LAYOUTS;
use crate::scene::{On, Scene};

/// As long as a buffer can be beside another one of the same chain.
const HUGE: u32 = u32::MAX - 4096;

/// A chain whose only, last, or indirect buffer is at the address that `place` makes of the regions' starts and ends, for
/// each layout and ring.
fn buffers_at(place: impl Fn([(u64, u64); 2]) -> (u64, u32)) {
    for layout in LAYOUTS {
        for on in On::BOTH {
            for shape in ["alone", "last", "indirect"] {
                let mut scene = Scene::new(layout, on);
                let range = |n: usize| {
                    let (span, _) = scene.hostile.memory.regions().nth(n).unwrap();
                    (span.guest, span.guest + span.len)
                };
                let regions = [range(0), range(1)];
                let (address, len) = place(regions);
                let bad = RawDescriptor { address, len, ..scene.raw(0) };
                match shape {
                    "alone" => scene.offer(&[bad]),
                    "last" => scene.offer(&[scene.raw(flag::NEXT), bad]),
                    _ => {
                        let last = if layout == Layout::Split { flag::NEXT } else { 0 };
                        let table = scene.table(&[scene.raw(last), bad]);
                        scene.offer(&[table]);
                    }
                }
                scene.assert_broken(RingFault::BadAddress);
            }
        }
    }
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_before_all_memory() {
    buffers_at(|[(start, _), _]| (start - 1, 1));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_at_address_zero() {
    buffers_at(|_| (0, 64));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_in_the_hole_between_regions() {
    buffers_at(|[(_, end), _]| (end, 64));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_behind_all_memory() {
    buffers_at(|[_, (_, end)]| (end, 1));
}

/// It begins in the region, and ends where no memory is.
/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_across_the_end_of_a_region() {
    buffers_at(|[(_, end), _]| (end - 100, 101));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_from_one_region_over_the_hole_into_the_next() {
    buffers_at(|[(_, end), _]| (end - 100, HUGE));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_across_the_end_of_the_address_space() {
    buffers_at(|_| (u64::MAX - 9, 100));
}

/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_to_the_very_end_of_the_address_space() {
    buffers_at(|_| (u64::MAX - 9, 10));
}

/// The sum of address and length, in 64 bits, lies in the memory.
/// Class of CVE-2018-1059 and CVE-2020-10725.
#[test]
fn r01_around_the_address_space_into_memory() {
    buffers_at(|[(start, _), _]| (start.wrapping_sub(u64::from(HUGE) - 64), HUGE));
}

#[test]
fn a_buffer_of_the_wrong_direction() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let last = if layout == Layout::Split { flag::NEXT } else { 0 };
            for shape in ["alone", "first", "last", "indirect"] {
                // DPDK's driver marks the buffers in packed tables of its transmitq as writable; they are read all the same.
                if (layout, on, shape) == (Layout::Packed, On::Transmitq, "indirect") {
                    continue;
                }
                let mut scene = Scene::new(layout, on);
                let wrong = RawDescriptor { flags: on.wrong(), ..scene.raw(0) };
                let wrong_first = RawDescriptor { flags: on.wrong() | flag::NEXT, ..wrong };
                match shape {
                    "alone" => scene.offer(&[wrong]),
                    "first" => scene.offer(&[wrong_first, scene.raw(0)]),
                    "last" => scene.offer(&[scene.raw(flag::NEXT), wrong]),
                    _ => {
                        let table = scene.table(&[scene.raw(last), wrong]);
                        scene.offer(&[table]);
                    }
                }
                scene.assert_broken(RingFault::BadDirection);
            }
        }
    }
}

/// An empty buffer of the wrong direction breaks the rule like any other.
#[test]
fn an_empty_buffer_of_the_wrong_direction() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let mut scene = Scene::new(layout, on);
            scene.offer(&[RawDescriptor { len: 0, flags: on.wrong(), ..scene.raw(0) }]);
            scene.assert_broken(RingFault::BadDirection);
        }
    }
}
