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
        Self::on_bridges(ours, theirs, builder, |_| "br0")
    }

    /// The same with each port on its bridge, of `br0` and `br1`.
    pub(crate) fn on_bridges(
        ours: usize,
        theirs: usize,
        builder: RingwayBuilder,
        bridge: impl Fn(usize) -> &'static str,
    ) -> Self {
        let dir = scratch_dir().unwrap();
        let listeners = (0..ours).map(|index| Listener::bind(&socket(dir.path(), index)).unwrap()).collect();
        let port = |builder: RingwayBuilder, index| {
            builder.port(&format!("vm{index}"), bridge(index), socket(dir.path(), index))
        };
        let bridges = builder.bridge("br0").bridge("br1");
        let ringway = (0..ours + theirs).fold(bridges, port).start().unwrap();
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
