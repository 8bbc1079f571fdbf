//! A running switch and sockets for its ports.

use std::path::{Path, PathBuf};

use ringway_testbed::driver::{Guest, Listener, Options};
use ringway_testbed::{Ringway, RingwayBuilder, TempDir, scratch_dir};

pub(crate) struct Scene {
    pub(crate) ringway: Ringway,
    /// Of those ports that are served in this process.
    pub(crate) listeners: Vec<Listener>,
    dir: TempDir,
}

impl Scene {
    /// With `ours` ports for this process, `vm0` and on, and after them ports of which others serve the sockets.
    pub(crate) fn start(ours: usize, theirs: usize, builder: RingwayBuilder) -> Self {
        let dir = scratch_dir().unwrap();
        let listeners = (0..ours).map(|index| Listener::bind(&socket(dir.path(), index)).unwrap()).collect();
        let port =
            |builder: RingwayBuilder, index| builder.port(&format!("vm{index}"), "br0", socket(dir.path(), index));
        let ringway = (0..ours + theirs).fold(builder.bridge("br0"), port).start().unwrap();
        Self { ringway, listeners, dir }
    }

    pub(crate) fn socket(&self, index: usize) -> PathBuf {
        socket(self.dir.path(), index)
    }

    /// Plugs a guest into port `index` and waits until it runs.
    pub(crate) fn plug(&self, index: usize, options: Options) -> Guest {
        let guest = Guest::plug(&self.listeners[index], options).unwrap();
        self.ringway.wait_state(&[&format!("vm{index}")], "running").unwrap();
        guest
    }

    /// A metric of all series with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.ringway.metrics().unwrap().sum(&format!("ringway_{name}"), labels) as u64
    }
}

fn socket(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("vm{index}.sock"))
}
