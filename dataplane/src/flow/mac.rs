//! The MAC table: which station is behind which port. One table for all workers; nobody waits for anybody.
//!
//! A worker that sees a new station claims a slot with one compare-and-swap, so that the next frame to it, on any worker, finds
//! it: flooded once, not for a millisecond. A slot's state is one word: where the station is, and a version that moves when it
//! goes elsewhere or is forgotten. A verdict in the flow table names two slots and their versions; it holds as long as both are
//! what they were, which is two loads. So a station that moves ends the verdicts that rest on it and no others, at once and on
//! every worker, and nobody looks for them.
//!
//! A port is flushed by its generation, in constant time: a station that was seen in an older one is not there any more. Its
//! slot is swept later.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;

use super::HashKey;
use super::mac_state::{GENERATION_MASK, Kind, State};
use crate::packet::MacAddress;

/// Slots a bucket: one cache line of states.
const WAYS: usize = 8;

/// Ticks after which a station that was taken from its place and stays where it went has its place there.
const SETTLED: u32 = 10;

/// Times that something is tried again when other workers are at the same station.
const ATTEMPTS: usize = 8;

/// A slot of the table at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacRef {
    slot: u32,
    version: u32,
}

impl MacRef {
    /// Stands for no entry: always current. The table's first slot is nobody's for its sake.
    pub const ALWAYS: Self = Self { slot: 0, version: 0 };

    pub(super) fn word(self) -> u64 {
        u64::from(self.slot) | u64::from(self.version) << 32
    }

    #[inline(always)]
    pub(super) fn from_word(word: u64) -> Self {
        Self { slot: word as u32, version: (word >> 32) as u32 }
    }
}

/// How many stations are remembered.
#[derive(Clone, Debug)]
pub struct MacLimits {
    /// In all.
    pub total: u32,
    /// On each bridge, by number.
    pub bridges: Vec<u32>,
    /// Behind each port, by number.
    pub ports: Vec<u32>,
}

/// Who a station is: an address may be used once in each VLAN of each bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// The bridge.
    pub bridge: u16,
    /// The VLAN, 0 for none.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddress,
}

impl Station {
    fn key(self) -> u64 {
        self.mac.word() | u64::from(self.vlan) << 48
    }
}

/// A station and where it is, as `show macs` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry {
    /// Who it is.
    pub station: Station,
    /// The port behind which it was last seen.
    pub port: u16,
    /// When, in ticks.
    pub seen: u32,
    /// Put there by the operator.
    pub is_static: bool,
}

/// What became of a station that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// It is remembered.
    Here(MacRef),
    /// It is not, for want of room in the table or on the bridge: not its port's fault, and no reason to drop its frame.
    NoRoom,
    /// It is not: its port has as many as it may.
    PortLimit,
    /// It stays where it is: too many stations have moved to the port of late.
    MovesTooOften,
    /// It stays where the operator has put it.
    Held,
}

/// What is counted of a port.
#[derive(Debug, Default)]
struct PortMacs {
    limit: u32,
    /// The port's generation above, its stations below.
    count: AtomicU64,
    /// Static ones among them.
    statics: AtomicU32,
    moves: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Count {
    limit: u32,
    count: AtomicU32,
}

impl Count {
    fn new(limit: u32) -> Self {
        Self { limit, count: AtomicU32::new(0) }
    }

    fn up(&self) -> bool {
        let fits = self.count.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !fits {
            self.down();
        }
        fits
    }

    fn down(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The table. See the module's text.
#[derive(Debug)]
pub struct MacTable {
    states: Box<[AtomicU64]>,
    /// VLAN above, address below.
    keys: Box<[AtomicU64]>,
    bridge_of: Box<[AtomicU16]>,
    /// When a frame of the station was last seen, in ticks.
    seen: Box<[AtomicU32]>,
    /// When the station was last moved, above, and the port where its place is: it may always go back there.
    homes: Box<[AtomicU64]>,
    hash: HashKey,
    ports: Box<[CachePadded<PortMacs>]>,
    bridges: Box<[CachePadded<Count>]>,
    total: CachePadded<Count>,
    no_room: CachePadded<AtomicU64>,
}

impl MacTable {
    /// An empty table.
    pub fn new(limits: &MacLimits) -> std::io::Result<Self> {
        // Half full at most, so that a bucket seldom overflows.
        let slots = (limits.total as usize * 2).next_power_of_two().max(2 * WAYS);
        let port = |&limit: &u32| PortMacs { limit, ..PortMacs::default() }.into();
        let table = Self {
            states: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            keys: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            bridge_of: (0..slots).map(|_| AtomicU16::new(0)).collect(),
            seen: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            homes: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            hash: HashKey::random()?,
            ports: limits.ports.iter().map(port).collect(),
            bridges: limits.bridges.iter().map(|&limit| Count::new(limit).into()).collect(),
            total: Count::new(limits.total).into(),
            no_room: CachePadded::default(),
        };
        table.states[0].store(State::new(Kind::Claimed, 0, 0, 0, 0).0, Ordering::Relaxed);
        Ok(table)
    }

    /// The station's bucket, and its tag.
    fn place(&self, station: Station) -> (std::ops::Range<usize>, u64) {
        let hash = self.hash.hash(station.key(), u64::from(station.bridge));
        let start = hash as usize & (self.states.len() / WAYS - 1);
        (start * WAYS..(start + 1) * WAYS, hash >> 62)
    }

    fn state(&self, slot: usize) -> State {
        State(self.states[slot].load(Ordering::Acquire))
    }

    fn swap(&self, slot: usize, from: State, to: State) -> bool {
        self.states[slot].compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Who is in a slot that was seen in `state`; `None` if that has changed since.
    fn station(&self, slot: usize, state: State) -> Option<Station> {
        let key = self.keys[slot].load(Ordering::Relaxed);
        let bridge = self.bridge_of[slot].load(Ordering::Relaxed);
        // A slot is given to another station only after its version has moved, and its key is written after that.
        fence(Ordering::Acquire);
        let is_same = self.states[slot].load(Ordering::Relaxed) == state.0;
        is_same.then(|| Station { bridge, vlan: (key >> 48) as u16, mac: MacAddress::from_word(key) })
    }

    /// Where the station is remembered, whether or not that still counts.
    fn look(&self, station: Station) -> Option<(usize, State)> {
        let (bucket, tag) = self.place(station);
        for _ in 0..ATTEMPTS {
            let mut changed = false;
            for slot in bucket.clone() {
                let state = self.state(slot);
                if !state.is_present() || state.tag() != tag {
                    continue;
                }
                match self.station(slot, state) {
                    Some(found) if found == station => return Some((slot, state)),
                    Some(_) => {}
                    None => changed = true,
                }
            }
            if !changed {
                break;
            }
        }
        None
    }

    /// Whether a station is there, and its port was not flushed since it was seen.
    fn is_live(&self, state: State) -> bool {
        let port = self.ports.get(usize::from(state.port()));
        let in_generation =
            || port.map(|port| generation(port.count.load(Ordering::Acquire))) == Some(state.generation());
        match state.kind() {
            Kind::Free | Kind::Claimed => false,
            Kind::Learnt => in_generation(),
            Kind::Static => true,
        }
    }

    /// The port behind which the station is, and the entry that says so.
    #[must_use]
    pub fn find(&self, station: Station) -> Option<(u16, MacRef)> {
        let (slot, state) = self.look(station)?;
        self.is_live(state).then(|| (state.port(), MacRef { slot: slot as u32, version: state.version() }))
    }

    /// A frame of the station came in by `port`: remembers or moves it. `may_move` is asked before it is moved from another
    /// port, at most once, and not if it goes back to where its place is: as often as others can take it, it can be taken back.
    pub fn learn(&self, station: Station, port: u16, now: u32, may_move: impl Fn() -> bool) -> Learnt {
        let mut may = None;
        let mut ask = || *may.get_or_insert_with(&may_move);
        for _ in 0..ATTEMPTS {
            let learnt = match self.look(station) {
                Some((slot, state)) => self.refresh(slot, state, port, now, &mut ask),
                None => self.insert(station, port, now, Kind::Learnt),
            };
            match learnt {
                Some(Learnt::NoRoom) => break,
                Some(learnt) => {
                    if let (Learnt::PortLimit, Some(macs)) = (learnt, self.ports.get(usize::from(port))) {
                        macs.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    return learnt;
                }
                None => {} // somebody else was at it
            }
        }
        self.no_room.fetch_add(1, Ordering::Relaxed);
        Learnt::NoRoom
    }

    /// Puts a station behind a port for good; `false` if there is no room.
    pub fn insert_static(&self, station: Station, port: u16) -> bool {
        let is_here = matches!(self.insert(station, port, 0, Kind::Static), Some(Learnt::Here(_)));
        if let (true, Some(macs)) = (is_here, self.ports.get(usize::from(port))) {
            macs.statics.fetch_add(1, Ordering::Relaxed);
        }
        is_here
    }

    /// A station that is known was seen; `None` if the slot has changed.
    fn refresh(
        &self,
        slot: usize,
        state: State,
        port: u16,
        now: u32,
        may_move: &mut impl FnMut() -> bool,
    ) -> Option<Learnt> {
        let is_live = self.is_live(state);
        if state.port() == port && is_live {
            self.seen[slot].store(now, Ordering::Relaxed);
            return Some(Learnt::Here(MacRef { slot: slot as u32, version: state.version() }));
        }
        if state.kind() == Kind::Static {
            return Some(Learnt::Held);
        }
        let Some(generation) = self.count_in(port) else { return Some(Learnt::PortLimit) };
        let (moved_at, home) = self.home_of(slot);
        if is_live && port != home && !may_move() {
            self.count_out(port, generation);
            return Some(Learnt::MovesTooOften);
        }
        let moved = state.moved(port, generation);
        // The version is part of what is compared: nobody else's slot is moved.
        if !self.swap(slot, state, moved) {
            self.count_out(port, generation);
            return None;
        }
        self.seen[slot].store(now, Ordering::Relaxed);
        let has_settled = now.saturating_sub(moved_at) >= SETTLED;
        let home = match is_live {
            false => port,
            true if port != home && has_settled => state.port(),
            true => home,
        };
        self.set_home(slot, now, home);
        self.count_out(state.port(), state.generation());
        if let (true, Some(macs)) = (is_live, self.ports.get(usize::from(port))) {
            macs.moves.fetch_add(1, Ordering::Relaxed);
        }
        Some(Learnt::Here(MacRef { slot: slot as u32, version: moved.version() }))
    }

    /// When the station in a slot was moved, and the port where its place is.
    fn home_of(&self, slot: usize) -> (u32, u16) {
        let word = self.homes[slot].load(Ordering::Relaxed);
        ((word >> 32) as u32, word as u16)
    }

    fn set_home(&self, slot: usize, moved_at: u32, home: u16) {
        self.homes[slot].store(u64::from(home) | u64::from(moved_at) << 32, Ordering::Relaxed);
    }

    /// Remembers a station that was not; `None` if somebody else has.
    fn insert(&self, station: Station, port: u16, now: u32, kind: Kind) -> Option<Learnt> {
        let Some(bridge) = self.bridges.get(usize::from(station.bridge)) else { return Some(Learnt::NoRoom) };
        let Some(generation) = self.count_in(port) else { return Some(Learnt::PortLimit) };
        let claimed = match (self.total.up(), bridge.up()) {
            (true, true) => self.claim(station),
            (total, on_bridge) => {
                // Put back what went up; the rest below would take both down.
                if total {
                    self.total.down();
                }
                if on_bridge {
                    bridge.down();
                }
                self.count_out(port, generation);
                return Some(Learnt::NoRoom);
            }
        };
        let Some((slot, free)) = claimed else {
            self.total.down();
            bridge.down();
            self.count_out(port, generation);
            return Some(Learnt::NoRoom);
        };
        let (bucket, tag) = self.place(station);
        // A reader that sees the key sees that the slot was claimed.
        fence(Ordering::Release);
        self.keys[slot].store(station.key(), Ordering::Relaxed);
        self.bridge_of[slot].store(station.bridge, Ordering::Relaxed);
        self.set_home(slot, now, port);
        self.seen[slot].store(now, Ordering::Relaxed);
        let state = State::new(kind, port, generation, tag, free.version());
        self.states[slot].store(state.0, Ordering::SeqCst);
        // Two workers may have put one station into two slots; then the later of them sees both here. The lower one stays.
        fence(Ordering::SeqCst);
        let mut both = bucket.filter(|&other| other != slot).filter_map(|other| {
            let found = self.state(other);
            (found.is_present() && self.station(other, found) == Some(station)).then_some((other, found))
        });
        match both.next() {
            Some((other, _)) if other < slot => {
                self.remove(slot, state);
                None
            }
            Some((other, found)) => {
                self.remove(other, found);
                Some(Learnt::Here(MacRef { slot: slot as u32, version: state.version() }))
            }
            None => Some(Learnt::Here(MacRef { slot: slot as u32, version: state.version() })),
        }
    }

    /// A free slot for the station, and what its state was.
    fn claim(&self, station: Station) -> Option<(usize, State)> {
        let (mut bucket, tag) = self.place(station);
        bucket.find_map(|slot| {
            let state = self.state(slot);
            let claimed = State::new(Kind::Claimed, 0, 0, tag, state.version());
            (state.kind() == Kind::Free && self.swap(slot, state, claimed)).then_some((slot, state))
        })
    }

    /// Forgets what is in a slot, if it still is.
    fn remove(&self, slot: usize, state: State) -> bool {
        let Some(station) = self.station(slot, state) else { return false };
        let is_ours = self.swap(slot, state, state.freed());
        if is_ours {
            self.count_out(state.port(), state.generation());
            self.total.down();
            if let Some(bridge) = self.bridges.get(usize::from(station.bridge)) {
                bridge.down();
            }
        }
        is_ours
    }

    /// One station more behind `port`; its generation, or `None` if it has as many as it may.
    fn count_in(&self, port: u16) -> Option<u32> {
        let macs = self.ports.get(usize::from(port))?;
        let more = |word: u64| ((word as u32) < macs.limit).then_some(word + 1);
        macs.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(generation)
    }

    /// One station less, unless the port was flushed since it was counted in.
    fn count_out(&self, port: u16, counted_in: u32) {
        if let Some(macs) = self.ports.get(usize::from(port)) {
            let less = |word: u64| (generation(word) == counted_in && word as u32 > 0).then_some(word - 1);
            let _ = macs.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Forgets all stations behind `port` but the static ones, in constant time. Verdicts that rest on them are found out when
    /// they are next looked at closely, which whoever calls this has to see to.
    pub fn flush(&self, port: u16) {
        if let Some(macs) = self.ports.get(usize::from(port)) {
            let statics = u64::from(macs.statics.load(Ordering::Relaxed));
            let next = |word: u64| Some(((word >> 32) + 1) << 32 | statics);
            let _ = macs.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        }
    }

    /// Whether the station has neither moved nor been forgotten since. A flush of its port does not show here.
    #[inline(always)]
    #[must_use]
    pub fn is_current(&self, entry: MacRef) -> bool {
        let state = self.states.get(entry.slot as usize);
        state.is_some_and(|state| State(state.load(Ordering::Acquire)).version() == entry.version)
    }

    /// Whether what `entry` said is still so.
    #[must_use]
    pub fn holds(&self, entry: MacRef) -> bool {
        entry == MacRef::ALWAYS
            || self.states.get(entry.slot as usize).is_some_and(|state| {
                let state = State(state.load(Ordering::Acquire));
                state.version() == entry.version && self.is_live(state)
            })
    }

    /// Notes that a frame of the station was seen.
    pub fn touch(&self, entry: MacRef, now: u32) {
        if let Some(seen) = self.seen.get(entry.slot as usize)
            && seen.load(Ordering::Relaxed) != now
        {
            seen.store(now, Ordering::Relaxed);
        }
    }

    /// Forgets the stations for which `expired` holds, and frees the slots of those that were flushed. How many.
    pub fn remove_if(&self, expired: impl Fn(&MacEntry) -> bool) -> usize {
        let is_due = |&slot: &usize| {
            let state = self.state(slot);
            // A slot that is not live either is free already or was flushed.
            let due = state.kind() == Kind::Learnt
                && (!self.is_live(state) || self.entry(slot, state).is_some_and(|entry| expired(&entry)));
            due && self.remove(slot, state)
        };
        (0..self.states.len()).filter(is_due).count()
    }

    /// The stations, in no order.
    pub fn iter(&self) -> impl Iterator<Item = MacEntry> {
        (0..self.states.len()).filter_map(|slot| {
            let state = self.state(slot);
            self.is_live(state).then(|| self.entry(slot, state)).flatten()
        })
    }

    fn entry(&self, slot: usize, state: State) -> Option<MacEntry> {
        Some(MacEntry {
            station: self.station(slot, state)?,
            port: state.port(),
            seen: self.seen[slot].load(Ordering::Relaxed),
            is_static: state.kind() == Kind::Static,
        })
    }

    /// Stations that were seen behind `port` after they had been behind another.
    #[must_use]
    pub fn moves(&self, port: u16) -> u64 {
        self.ports.get(usize::from(port)).map_or(0, |macs| macs.moves.load(Ordering::Relaxed))
    }

    /// Times that a station was not remembered because its port has as many as it may.
    #[must_use]
    pub fn refused(&self, port: u16) -> u64 {
        self.ports.get(usize::from(port)).map_or(0, |macs| macs.refused.load(Ordering::Relaxed))
    }

    /// Times that a station was not remembered because the table, its bridge's part of it, or a bucket was full.
    #[must_use]
    pub fn no_room(&self) -> u64 {
        self.no_room.load(Ordering::Relaxed)
    }

    /// Stations behind `port`.
    #[must_use]
    pub fn count(&self, port: u16) -> u32 {
        self.ports.get(usize::from(port)).map_or(0, |macs| macs.count.load(Ordering::Relaxed) as u32)
    }
}

/// Of a port's word, the part of the generation that states hold.
fn generation(word: u64) -> u32 {
    (word >> 32) as u32 & GENERATION_MASK
}

#[cfg(test)]
#[path = "mac_tests.rs"]
mod tests;
