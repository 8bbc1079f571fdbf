//! What the switch keeps in its flow tables: a verdict for a key.

use super::table::{self, Bucket, Entry, Words};
use super::{Action, FlowKey, Stamp, Verdict};

/// Words of a key, and of a verdict.
const KEY: usize = 2;
const VERDICT: usize = 3;

/// A worker's table.
pub type FlowTable = table::Table<FlowKey, Verdict, KEY, VERDICT>;
/// A worker's table as a burst looks at it.
pub type FlowView<'a> = table::View<'a, FlowKey, Verdict, KEY, VERDICT>;
/// A worker's table for other threads.
pub type FlowReader = table::Reader<FlowKey, Verdict, KEY, VERDICT>;
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

impl Words<VERDICT> for Verdict {
    #[inline(always)]
    fn words(self) -> [u64; VERDICT] {
        self.words()
    }

    #[inline(always)]
    fn from_words(words: [u64; VERDICT]) -> Self {
        Self::from_words(words)
    }
}

impl FlowView<'_> {
    /// What to do, if the entry was used and found to hold at this very stamp. Of the verdict only the first word is read,
    /// which is where the action is.
    #[inline(always)]
    #[must_use]
    pub fn action_at(self, entry: u32, stamp: Stamp) -> Option<Action> {
        let mut words = [0; VERDICT];
        words[0] = self.first_word(entry);
        self.is_at(entry, stamp).then(|| Verdict::from_words(words).action)
    }

    /// The whole verdict of an entry.
    #[must_use]
    pub fn verdict(self, entry: u32) -> Verdict {
        self.value(entry)
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
            let entry = view.find(view.candidates(hash), key).unwrap();
            assert_eq!(view.action_at(entry, stamp), Some(action));
            assert_eq!(view.action_at(entry, Stamp::new(2, 2)), None, "another epoch");
            assert_eq!(view.verdict(entry), verdict);
            table.confirm(entry, Stamp::new(2, 2));
            assert_eq!(table.view().action_at(entry, Stamp::new(2, 2)), Some(action));
        }
    }
}
