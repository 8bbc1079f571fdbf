//! A guest's NIC: memory, a front end, and queue pairs through which frames go.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::front_end::{Bells, FrontEnd, Listener, feature, ring, rung};
use super::memory::DriverMemory;
use super::net_header::NetHeader;
use super::queue::{Layout, Piece, Queue, Rules};
use super::wait::{PATIENCE, eventually};

/// What kind of guest.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Features to take, of those that are offered.
    pub features: u64,
    /// Queue pairs to start and enable.
    pub pairs: u8,
    /// Descriptors of each virtqueue.
    pub size: u16,
    /// Bytes of each receive buffer, header included.
    pub buffer_len: u32,
    /// Receive buffers to post at the start, at most `size`.
    pub buffers: u16,
    /// Whether the device is kicked; otherwise it has to poll.
    pub kicks: bool,
    /// Bytes of guest memory.
    pub memory_len: u64,
    /// Whether there are margins beside it that are not to be touched; see [`DriverMemory::with_margins`].
    pub margins: bool,
}

impl Options {
    /// A usual guest with rings of this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let packed = if layout == Layout::Packed { feature::RING_PACKED } else { 0 };
        let usual = feature::VERSION_1
            | feature::PROTOCOL_FEATURES
            | feature::MRG_RXBUF
            | feature::INDIRECT_DESC
            | feature::MQ
            | packed;
        Self {
            features: usual,
            pairs: 1,
            size: 256,
            buffer_len: 2048,
            buffers: 128,
            kicks: true,
            memory_len: 4 << 20,
            margins: false,
        }
    }

    /// The layout that these features mean.
    #[must_use]
    pub fn layout(&self) -> Layout {
        if self.features & feature::RING_PACKED != 0 { Layout::Packed } else { Layout::Split }
    }
}

/// A chain of buffers under way.
#[derive(Clone, Debug)]
struct Chain {
    pieces: Vec<Piece>,
    indirect: bool,
}

/// A queue pair, seen by its driver.
#[derive(Debug)]
pub struct Pair {
    /// By which frames come.
    pub receiveq: Queue,
    /// By which frames go.
    pub transmitq: Queue,
    /// The receiveq's eventfds.
    pub receive_bells: Bells,
    /// The transmitq's eventfds.
    pub transmit_bells: Bells,
    memory: Arc<DriverMemory>,
    features: u64,
    header_len: usize,
    /// By buffer id. A chain of the receiveq is posted again once read, one of the transmitq freed.
    receiving: HashMap<u16, Chain>,
    sending: HashMap<u16, Chain>,
    /// Frames that came and nobody has asked for.
    inbox: VecDeque<(NetHeader, Vec<u8>)>,
}

impl Pair {
    fn new(options: &Options, memory: &Arc<DriverMemory>) -> io::Result<Self> {
        let layout = options.layout();
        let rules = Rules::of(options.features);
        let queue = || Queue::with(rules, layout, options.size, Queue::fresh_base(layout), memory);
        let has_count = options.features & (feature::VERSION_1 | feature::MRG_RXBUF) != 0;
        let mut pair = Self {
            receiveq: queue(),
            transmitq: queue(),
            receive_bells: Bells::new(options.kicks)?,
            transmit_bells: Bells::new(options.kicks)?,
            memory: memory.clone(),
            features: options.features,
            header_len: if has_count { 12 } else { 10 },
            receiving: HashMap::new(),
            sending: HashMap::new(),
            inbox: VecDeque::new(),
        };
        for _ in 0..options.buffers.min(options.size) {
            pair.post(&[options.buffer_len], false);
        }
        Ok(pair)
    }

    /// Bytes of the virtio-net header (virtio 1.2, section 5.1.6.1).
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Posts a chain of receive buffers of these lengths.
    ///
    /// # Panics
    /// If the receiveq has no room.
    pub fn post(&mut self, lens: &[u32], indirect: bool) {
        let piece = |&len: &u32| Piece { address: self.memory.alloc(len.into(), 1), len, writable: true };
        self.post_chain(Chain { pieces: lens.iter().map(piece).collect(), indirect });
    }

    fn post_chain(&mut self, chain: Chain) {
        let id = self.receiveq.add(&chain.pieces, chain.indirect);
        self.receiving.insert(id.expect("the receiveq has no room"), chain);
    }

    /// Makes a frame available behind a virtio-net header without any offload; kicks if the device wants it.
    ///
    /// # Panics
    /// If there is no room within [`PATIENCE`].
    pub fn send(&mut self, frame: &[u8]) {
        self.send_bytes(&[&vec![0; self.header_len], frame].concat());
    }

    /// Makes a frame available for which `header` asks something; cut at these offsets of the frame, if any.
    ///
    /// # Panics
    /// If there is no room within [`PATIENCE`].
    pub fn send_asking(&mut self, header: NetHeader, frame: &[u8], cuts: &[usize]) {
        let mut bytes = header.to_bytes();
        bytes.resize(self.header_len, 0);
        let cuts: Vec<usize> = cuts.iter().map(|cut| self.header_len + cut).collect();
        self.send_cut(&[&bytes, frame].concat(), &cuts, false);
    }

    /// As [`Pair::send`], but the bytes begin with the virtio-net header, or with whatever.
    ///
    /// # Panics
    /// If there is no room within [`PATIENCE`].
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.send_cut(bytes, &[], false);
    }

    /// As [`Pair::send_bytes`], in a chain of several buffers: the bytes are cut at these offsets, which ascend.
    ///
    /// # Panics
    /// If there is no room within [`PATIENCE`].
    pub fn send_cut(&mut self, bytes: &[u8], cuts: &[usize], indirect: bool) {
        let end = Instant::now() + PATIENCE;
        while !self.try_send_cut(bytes, cuts, indirect) {
            assert!(Instant::now() < end, "the transmitq stays full");
            std::thread::yield_now();
        }
    }

    /// As [`Pair::send`]; `false` if there is no room now.
    pub fn try_send(&mut self, frame: &[u8]) -> bool {
        self.try_send_cut(&[&vec![0; self.header_len], frame].concat(), &[], false)
    }

    fn try_send_cut(&mut self, bytes: &[u8], cuts: &[usize], indirect: bool) -> bool {
        self.reclaim();
        if usize::from(self.transmitq.room()) <= if indirect { 0 } else { cuts.len() } {
            return false;
        }
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let piece = |(start, end): (usize, usize)| {
            let (address, len) = (self.memory.alloc((end - start) as u64, 1), (end - start) as u32);
            self.memory.write(address, &bytes[start..end]);
            Piece { address, len, writable: false }
        };
        let chain = Chain { pieces: starts.zip(ends).map(piece).collect(), indirect };
        let id = self.transmitq.add(&chain.pieces, indirect);
        self.sending.insert(id.expect("there is room"), chain);
        self.kick();
        true
    }

    /// Kicks the transmitq if the device wants it.
    pub fn kick(&mut self) {
        let Self { transmit_bells, transmitq, .. } = self;
        if let Some(kick) = transmit_bells.kick.as_ref().filter(|_| transmitq.device_wants_kick()) {
            ring(kick);
        }
    }

    /// Collects what the device has sent. How many frames that were.
    ///
    /// # Panics
    /// If the device says that it wrote something.
    pub fn reclaim(&mut self) -> usize {
        let mut count = 0;
        while let Some(completion) = self.transmitq.used() {
            assert_eq!(completion.len, 0, "a device that only reads wrote {} bytes", completion.len);
            for piece in self.sending.remove(&completion.id).into_iter().flat_map(|chain| chain.pieces) {
                self.memory.dealloc(piece.address, piece.len.into());
            }
            count += 1;
        }
        count
    }

    /// Collects all that the device has used, so that the queues stand where the device does if it is stopped.
    pub fn collect(&mut self) {
        self.reclaim();
        while let Some(frame) = self.take_frame() {
            self.inbox.push_back(frame);
        }
    }

    /// Frames on their way into the device.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sending.len()
    }

    /// The next frame that came, if any.
    ///
    /// # Panics
    /// If the device breaks a rule, or leaves something of the frame to be done.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        let (header, frame) = self.try_receive_asking()?;
        assert_eq!(header, NetHeader::default(), "offloads that nobody expects");
        Some(frame)
    }

    /// The next frame that came, if any, and what is left of it to be done.
    ///
    /// # Panics
    /// If the device breaks a rule.
    pub fn try_receive_asking(&mut self) -> Option<(NetHeader, Vec<u8>)> {
        self.inbox.pop_front().or_else(|| self.take_frame())
    }

    /// Checks the virtio-net header of the next used buffers and takes it off; posts the buffers again.
    fn take_frame(&mut self) -> Option<(NetHeader, Vec<u8>)> {
        let mut header = self.take_buffer()?;
        assert!(header.len() >= self.header_len, "{} bytes are no virtio-net header", header.len());
        let mut frame = header.split_off(self.header_len);
        let buffers = if self.header_len == 12 { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
        assert!(buffers >= 1, "a frame in no buffers");
        for _ in 1..buffers {
            // A device shows the buffers of a frame all at once (virtio 1.2, section 5.1.6.4).
            frame.extend(self.take_buffer().expect("a buffer of a merged frame is missing"));
        }
        let header = NetHeader::from_bytes(&header);
        if let Err(wrong) = header.check(self.features, frame.len()) {
            panic!("{wrong}");
        }
        Some((header, frame))
    }

    /// The bytes that the device wrote into the next used chain.
    fn take_buffer(&mut self) -> Option<Vec<u8>> {
        let completion = self.receiveq.used()?;
        let chain = self.receiving.remove(&completion.id).expect("a chain that was posted");
        let mut left = completion.len as usize;
        let mut bytes = Vec::with_capacity(left);
        for piece in &chain.pieces {
            let len = left.min(piece.len as usize);
            bytes.extend(self.memory.read(piece.address, len));
            left -= len;
        }
        assert_eq!(left, 0, "the device wrote {} bytes into {:?}", completion.len, chain.pieces);
        self.post_chain(chain);
        Some(bytes)
    }

    /// The next frame that comes within `limit`.
    pub fn receive_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(frame) = self.try_receive() {
                return Some(frame);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether the device has said that it gave the pair up.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        rung(&self.receive_bells.error) + rung(&self.transmit_bells.error) > 0
    }

    fn set_memory(&mut self, memory: &Arc<DriverMemory>) {
        self.memory = memory.clone();
        self.receiveq.set_memory(memory);
        self.transmitq.set_memory(memory);
    }
}

/// A guest with a NIC.
#[derive(Debug)]
pub struct Guest {
    /// Its memory.
    pub memory: Arc<DriverMemory>,
    /// The connection to the switch.
    pub front_end: FrontEnd,
    /// Its queue pairs.
    pub pairs: Vec<Pair>,
    /// What kind of guest it is, with the features that were agreed on.
    pub options: Options,
}

impl Guest {
    /// Waits for the back end to connect, negotiates, and starts all pairs.
    ///
    /// # Errors
    /// If nobody connects, or the back end says no.
    pub fn plug(listener: &Listener, options: Options) -> io::Result<Self> {
        Self::over(listener.accept()?, options)
    }

    /// As [`Guest::plug`], on a connection that is there.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn over(stream: UnixStream, options: Options) -> io::Result<Self> {
        let mut guest = Self::negotiated(stream, options)?;
        guest.start_all()?;
        Ok(guest)
    }

    /// A guest that has agreed on features and made its rings, and has told nothing of them.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn negotiated(stream: UnixStream, mut options: Options) -> io::Result<Self> {
        let mut front_end = FrontEnd::from_stream(stream)?;
        options.features = front_end.negotiate(options.features)?;
        Self::renewed(front_end, options)
    }

    /// A guest that was booted anew behind a front end which has agreed on these features.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn renewed(front_end: FrontEnd, options: Options) -> io::Result<Self> {
        let memory = if options.margins { DriverMemory::with_margins } else { DriverMemory::with_len };
        let memory = Arc::new(memory(options.memory_len)?);
        let pairs = (0..options.pairs).map(|_| Pair::new(&options, &memory)).collect::<io::Result<_>>()?;
        Ok(Self { memory, front_end, pairs, options })
    }

    /// Shares the memory, starts all pairs and enables them.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn start_all(&mut self) -> io::Result<()> {
        self.front_end.share(&self.memory)?;
        for index in 0..self.options.pairs {
            self.start(index)?;
            self.enable(index, true)?;
        }
        self.front_end.wait()
    }

    /// Starts pair `index` where its driver stands.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn start(&mut self, index: u8) -> io::Result<()> {
        let Self { front_end, pairs, memory, .. } = self;
        let pair = &mut pairs[usize::from(index)];
        pair.collect();
        front_end.start(index * 2, &pair.receiveq, memory, &pair.receive_bells)?;
        front_end.start(index * 2 + 1, &pair.transmitq, memory, &pair.transmit_bells)
    }

    /// Enables or disables pair `index`; nothing to say without protocol features.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn enable(&mut self, index: u8, enabled: bool) -> io::Result<()> {
        if self.options.features & feature::PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.front_end.enable(u32::from(index) * 2, enabled)?;
        self.front_end.enable(u32::from(index) * 2 + 1, enabled)
    }

    /// Stops pair `index`; where its receiveq and transmitq stand.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn stop(&mut self, index: u8) -> io::Result<[u32; 2]> {
        let number = u32::from(index) * 2;
        Ok([self.front_end.base(number)?, self.front_end.base(number + 1)?])
    }

    /// Moves to other memory in the same place, as a migrated guest does, and tells the back end of it.
    ///
    /// # Errors
    /// If the back end says no.
    pub fn move_to(&mut self, memory: DriverMemory) -> io::Result<()> {
        self.memory = Arc::new(memory);
        self.pairs.iter_mut().for_each(|pair| pair.set_memory(&self.memory));
        self.front_end.share(&self.memory)
    }

    /// Hangs up and goes over to a new connection with the same memory and rings, started where the driver stands.
    ///
    /// # Errors
    /// As [`Guest::plug`].
    pub fn replug(&mut self, listener: &Listener) -> io::Result<()> {
        self.front_end.hang_up();
        self.front_end = FrontEnd::from_stream(listener.accept()?)?;
        self.front_end.negotiate(self.options.features)?;
        self.start_all()
    }

    /// Sends a frame by pair 0.
    pub fn send(&mut self, frame: &[u8]) {
        self.pairs[0].send(frame);
    }

    /// The next frame by any pair within [`PATIENCE`].
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = None;
        let Self { pairs, .. } = self;
        eventually(|| {
            frame = pairs.iter_mut().find_map(Pair::try_receive);
            frame.is_some()
        });
        frame
    }

    /// The next frame by any pair within [`PATIENCE`], and what is left of it to be done.
    pub fn receive_asking(&mut self) -> Option<(NetHeader, Vec<u8>)> {
        let mut frame = None;
        let Self { pairs, .. } = self;
        eventually(|| {
            frame = pairs.iter_mut().find_map(Pair::try_receive_asking);
            frame.is_some()
        });
        frame
    }

    /// Waits until all that was sent was taken, and collects all that came; whether that is so within [`PATIENCE`].
    pub fn settles(&mut self) -> bool {
        let Self { pairs, .. } = self;
        eventually(|| {
            pairs.iter_mut().for_each(Pair::collect);
            pairs.iter().all(|pair| pair.in_flight() == 0)
        })
    }

    /// Whether nothing comes by any pair for a tenth of a second.
    pub fn hears_nothing(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(100));
        self.pairs.iter_mut().all(|pair| pair.try_receive().is_none())
    }
}
