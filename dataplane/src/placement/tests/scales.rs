//! How many workers there are, where that is left to us.

use super::*;

/// A machine of two nodes of four CPUs, a worker on each node, and what they did.
struct Switch {
    scene: Scene,
    scaler: Scaler,
    activity: Vec<Activity>,
    reserved: CpuSet,
}

impl Switch {
    fn new(max: usize) -> Self {
        let scene = scene(Topology::even(2, 4, 1), &[0, 4]);
        let activity = vec![Activity { busy: 0.0, units: 4 }; 2];
        Self { scene, scaler: Scaler::new(max), activity, reserved: CpuSet::new() }
    }

    fn busy(&mut self, worker: usize, busy: f64) -> &mut Self {
        self.activity[worker].busy = busy;
        self
    }

    /// A second later; what is to change, changes.
    fn look(&mut self, now: u64) -> Option<Resize> {
        let machine = self.scene.topology.clone();
        let usable = Usable::new(&machine, &(0..8).collect::<Vec<_>>(), &self.reserved);
        let change = self.scaler.look(&self.scene, &usable, &self.activity, now);
        match change {
            Some(Resize::Grow { cpu, .. }) => {
                self.scene.workers.push(Seat { cpu, open: true });
                self.activity.push(Activity { busy: 0.0, units: 0 });
            }
            Some(Resize::Shrink { worker, .. }) => {
                self.scene.workers[usize::from(worker)].open = false;
                self.activity[usize::from(worker)] = Activity { busy: 0.0, units: 0 };
            }
            None => {}
        }
        change
    }

    /// When something changes, of so many seconds.
    fn run(&mut self, seconds: std::ops::Range<u64>) -> Vec<(u64, Resize)> {
        seconds.filter_map(|now| Some((now, self.look(now)?))).collect()
    }

    fn open(&self) -> usize {
        self.scene.workers.iter().filter(|seat| seat.open).count()
    }
}

#[test]
fn one_more_where_it_is_congested_and_not_elsewhere() {
    let mut switch = Switch::new(8);
    switch.busy(0, 0.89);
    assert_eq!(switch.run(0..60), []);
    switch.busy(0, 0.95);
    assert_eq!(switch.run(60..80), [(62, Resize::Grow { cpu: 1, congested: 0, busy: 0.95 })]);
    // The new one has room: no other one until it is full, too.
    assert_eq!(switch.run(80..120), []);
    switch.busy(2, 0.6);
    assert!(matches!(switch.run(120..140)[..], [(120, Resize::Grow { cpu: 2, .. })]));
}

#[test]
fn a_moment_is_no_congestion_and_one_queue_cannot_be_spread() {
    let mut switch = Switch::new(8);
    for now in 0..60 {
        let busy = if now % 2 == 0 { 1.0 } else { 0.5 };
        assert_eq!(switch.busy(0, busy).look(now), None);
    }
    switch.activity[0] = Activity { busy: 1.0, units: 1 };
    assert_eq!(switch.run(60..120), []);
}

#[test]
fn never_more_than_the_limit_nor_than_cpus_nor_on_reserved_ones() {
    let full = |max, reserved: &[usize]| {
        let mut switch = Switch::new(max);
        switch.reserved = reserved.iter().copied().collect();
        for now in 0..600 {
            switch.activity.iter_mut().for_each(|one| *one = Activity { busy: 1.0, units: 4 });
            switch.look(now);
        }
        let mut cpus: Vec<usize> = switch.scene.workers.iter().map(|seat| seat.cpu).collect();
        cpus.sort_unstable();
        cpus
    };
    assert_eq!(full(3, &[]), [0, 1, 4]);
    assert_eq!(full(99, &[]), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(full(99, &[1, 2, 6]), [0, 3, 4, 5, 7]);
}

#[test]
fn one_less_after_half_a_minute_of_little_to_do_and_never_the_last() {
    let mut switch = Switch::new(8);
    switch.busy(0, 1.0);
    assert_eq!(switch.run(0..10).len(), 1);
    switch.busy(0, 0.5).busy(2, 0.1);
    assert_eq!(switch.run(10..100), [], "one alone would have more than enough to do");
    switch.busy(0, 0.2);
    for now in 100..220 {
        // A peak every twenty seconds keeps it.
        assert_eq!(switch.busy(0, if now % 20 == 0 { 0.5 } else { 0.2 }).look(now), None);
    }
    switch.busy(0, 0.2);
    let gone = switch.run(221..400);
    assert!(matches!(gone[..], [(_, Resize::Shrink { worker: 2, .. })]), "{gone:?}");
    assert!((30..=60).contains(&(gone[0].0 - 200)), "{gone:?}");
    assert_eq!(switch.open(), 2);
}

/// A load between what makes it grow and what makes it shrink never makes it flap, whatever it does there.
#[test]
fn load_that_comes_and_goes_does_not_make_workers_come_and_go() {
    let mut switch = Switch::new(8);
    let mut changes = 0;
    for now in 0..3600 {
        // Ten seconds of one and a half CPUs' work, ten seconds of half a CPU's.
        let work: f64 = if now / 10 % 2 == 0 { 1.5 } else { 0.5 };
        let here: Vec<usize> = (0..switch.scene.workers.len())
            .filter(|&worker| switch.scene.workers[worker].open && switch.scene.node_of(worker) == Some(0))
            .collect();
        for &worker in &here {
            switch.activity[worker] = Activity { busy: (work / here.len() as f64).min(1.0), units: 4 };
        }
        changes += usize::from(switch.look(now).is_some());
    }
    assert_eq!((changes, switch.open()), (1, 3));
}
