//! What the switch keeps in its flow tables: a verdict for a key.

use super::table::{self, Bucket, Entry, Parts, Words};
use super::{Action, FlowKey, Stamp, Verdict};

/// Words of a key, and of a verdict beside the one that says what to do.
const KEY: usize = 2;
const REST: usize = 2;

/// A worker's table.
pub type FlowTable = table::Table<FlowKey, Verdict, KEY, REST>;
/// A worker's table as a burst looks at it.
pub type FlowView<'a> = table::View<'a, FlowKey, Verdict, KEY, REST>;
/// A worker's table for other threads.
pub type FlowReader = table::Reader<FlowKey, Verdict, KEY, REST>;
/// A cached flow, as `show flows` lists it.
pub type Flow = table::Cached<FlowKey, Verdict>;

// A lookup that hits touches a line of each; whoever then asks whether the verdict still holds, one more.
const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(size_of::<Entry<KEY>>() == 32);

impl Words<KEY> for FlowKey {
    #[inline(always)]
    fn words(self) -> [u64; KEY] {
        [self.low, self.high]
    }

    #[inline(always)]
    fn from_words([low, high]: [u64; KEY]) -> Self {
        Self { low, high }
    }
}

impl Parts<REST> for Verdict {
    #[inline(always)]
    fn parts(self) -> (u64, [u64; REST]) {
        let [first, rest @ ..] = self.words();
        (first, rest)
    }

    #[inline(always)]
    fn from_parts(first: u64, [source, destination]: [u64; REST]) -> Self {
        Self::from_words([first, source, destination])
    }
}

impl FlowView<'_> {
    /// What to do, if the entry was used and found to hold at this very stamp. Of the verdict only the first word is read,
    /// which is where the action is.
    #[inline(always)]
    #[must_use]
    pub fn action_at(self, hit: table::Hit<'_, KEY>, stamp: Stamp) -> Option<Action> {
        hit.is_at(stamp).then(|| Verdict::from_parts(hit.first_word(), [0; REST]).action)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MacRef;
    use super::*;

    #[test]
    fn the_action_is_in_the_first_word() {
        for action in [Action::Forward(0), Action::Forward(0xfffe), Action::Flood] {
            let verdict = Verdict { action, generation: u32::MAX, source: MacRef::ALWAYS, destination: MacRef::ALWAYS };
            let mut table = FlowTable::new(table::Size::of(8)).unwrap();
            let (key, stamp) = (FlowKey::default(), Stamp::new(1, 2));
            let hash = table.view().hash(key);
            assert!(table.insert(key, hash, verdict, stamp));
            let view = table.view();
            let hit = view.find(view.candidates(hash), key).unwrap();
            assert_eq!(view.action_at(hit, stamp), Some(action));
            assert_eq!(view.action_at(hit, Stamp::new(2, 2)), None, "another epoch");
            assert_eq!(view.value(hit), verdict);
            table.confirm(hit, Stamp::new(2, 2));
            assert_eq!(view.action_at(hit, Stamp::new(2, 2)), Some(action));
        }
    }
}
