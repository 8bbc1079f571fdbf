//! The vhost-user front end: listens as QEMU does in server mode, negotiates, and says what it is told to, also what no front
//! end should say.
//!
//! What a decent front end says goes through rust-vmm's `Frontend`. What that cannot say (a packed ring's base, a pipe for an
//! eventfd, half a message) is a [`Message`] of raw bytes.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::memory::{DriverMemory, Span};
use super::queue::{Areas, Queue};
use super::wait::PATIENCE;

/// Codes of vhost-user requests, by the names of its specification.
pub mod request {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const GET_SHARED_OBJECT: u32 = 41;
}

/// Feature bits that tests speak of (virtio 1.2, sections 5.1.3 and 6).
pub mod feature {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const MQ: u64 = 1 << 22;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;
    /// All that a driver may ask of a device.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
    /// All that a device may ask of a driver.
    pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
}

/// Version 1; and the flag that asks for an answer.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 1 << 3;

/// Where a back end connects to.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The back end's next connection.
    ///
    /// # Errors
    /// `TimedOut` if none comes within [`PATIENCE`].
    pub fn accept(&self) -> io::Result<UnixStream> {
        if !readable(self.listener.as_fd(), PATIENCE)? {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("nobody connects to {}", self.path.display())));
        }
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn readable(fd: BorrowedFd<'_>, within: Duration) -> io::Result<bool> {
    let limit = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    Ok(poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit))? > 0)
}

/// A vhost-user message as bytes, to be bent.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Request `code` with this payload.
    #[must_use]
    pub fn new(code: u32, payload: &[u8]) -> Self {
        Self::with_header(code, VERSION, payload.len() as u32, payload)
    }

    /// Request `code` with 64-bit words as its payload.
    #[must_use]
    pub fn words(code: u32, words: &[u64]) -> Self {
        Self::new(code, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Request `code` with a vring's index and a number as its payload.
    #[must_use]
    pub fn vring_state(code: u32, index: u32, num: u32) -> Self {
        Self::words(code, &[u64::from(index) | u64::from(num) << 32])
    }

    /// SET_MEM_TABLE or, of a single span, ADD_MEM_REG and REM_MEM_REG.
    #[must_use]
    pub fn memory(code: u32, spans: &[Span]) -> Self {
        let words = spans.iter().flat_map(|span| [span.guest, span.len, span.user, span.file_offset]);
        let count = if code == request::SET_MEM_TABLE { spans.len() as u64 } else { 0 };
        Self::words(code, &std::iter::once(count).chain(words).collect::<Vec<_>>())
    }

    /// Any header, which need not be true.
    #[must_use]
    pub fn with_header(code: u32, flags: u32, size: u32, payload: &[u8]) -> Self {
        let header = [code, flags, size].map(u32::to_le_bytes);
        Self([header.as_flattened(), payload].concat())
    }

    /// With the flag that asks for an answer.
    #[must_use]
    pub fn need_reply(mut self) -> Self {
        self.0[4] |= NEED_REPLY as u8;
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Ends a connection on which a call has waited too long: `Frontend` itself waits for ever.
#[derive(Debug)]
struct Watch {
    stream: UnixStream,
    start: Instant,
    /// Milliseconds after `start` at which the call that is under way has waited too long; 0 if there is none.
    deadline_ms: AtomicU64,
}

impl Watch {
    fn start(stream: UnixStream) -> Arc<Self> {
        let watch = Arc::new(Self { stream, start: Instant::now(), deadline_ms: AtomicU64::new(0) });
        let watched: Weak<Self> = Arc::downgrade(&watch);
        thread::spawn(move || {
            while let Some(watch) = watched.upgrade() {
                let deadline = watch.deadline_ms.load(Ordering::Relaxed);
                if deadline != 0 && watch.now_ms() > deadline {
                    let _ = watch.stream.shutdown(Shutdown::Both);
                }
                drop(watch);
                thread::sleep(Duration::from_millis(200));
            }
        });
        watch
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.deadline_ms.store(self.now_ms() + PATIENCE.as_millis() as u64, Ordering::Relaxed);
        let done = call();
        self.deadline_ms.store(0, Ordering::Relaxed);
        done
    }
}

/// The front end's end of a connection.
pub struct FrontEnd {
    inner: Frontend,
    stream: UnixStream,
    watch: Arc<Watch>,
    acknowledged: bool,
}

impl std::fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontEnd").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl FrontEnd {
    /// Takes a connection over; nothing is said yet.
    ///
    /// # Errors
    /// If the socket cannot be cloned.
    pub fn from_stream(stream: UnixStream) -> io::Result<Self> {
        let watch = Watch::start(stream.try_clone()?);
        // The most that `Frontend` lets through; the back end shall be the one that refuses.
        let inner = Frontend::from_stream(stream.try_clone()?, 0x8000);
        Ok(Self { inner, stream, watch, acknowledged: false })
    }

    /// Both ends of a new connection.
    ///
    /// # Errors
    /// If no socket can be had.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (mine, theirs) = UnixStream::pair()?;
        Ok((Self::from_stream(mine)?, theirs))
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Frontend) -> vhost::Result<T>) -> io::Result<T> {
        let inner = &mut self.inner;
        self.watch.during(|| call(inner)).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Owns the back end and asks what it offers.
    ///
    /// # Errors
    /// Like those of all that follow: the connection is gone, or the back end says no.
    pub fn offered(&mut self) -> io::Result<u64> {
        self.call(|inner| inner.set_owner())?;
        self.call(|inner| inner.get_features())
    }

    /// Waits until all that was said before was done: messages are served one after another, and this one is answered.
    pub fn wait(&mut self) -> io::Result<()> {
        self.call(|inner| inner.get_features()).map(drop)
    }

    /// Agrees on features: those of `wanted` that are offered. With protocol features from then on each message is answered.
    pub fn negotiate(&mut self, wanted: u64) -> io::Result<u64> {
        let features = self.offered()? & wanted;
        if features & feature::PROTOCOL_FEATURES != 0 {
            self.negotiate_protocol()?;
        }
        self.set_features(features)?;
        Ok(features)
    }

    /// Takes all protocol features that are offered and known here, so that each message is answered.
    pub fn negotiate_protocol(&mut self) -> io::Result<VhostUserProtocolFeatures> {
        let known = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        let offered = self.call(|inner| inner.get_protocol_features())?;
        self.call(|inner| inner.set_protocol_features(offered & known))?;
        self.inner.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.acknowledged = true;
        Ok(offered)
    }

    /// SET_FEATURES.
    pub fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.call(|inner| inner.set_features(features))
    }

    /// GET_QUEUE_NUM.
    pub fn queue_num(&mut self) -> io::Result<u64> {
        self.call(|inner| inner.get_queue_num())
    }

    /// GET_MAX_MEM_SLOTS.
    pub fn memory_slots(&mut self) -> io::Result<u64> {
        self.call(|inner| inner.get_max_mem_slots())
    }

    /// SET_MEM_TABLE: all of `memory`.
    pub fn share(&mut self, memory: &DriverMemory) -> io::Result<()> {
        let infos: Vec<_> = memory.regions().map(|(span, file)| info(span, file)).collect();
        self.call(|inner| inner.set_mem_table(&infos)).map(drop)
    }

    /// ADD_MEM_REG.
    pub fn add_region(&mut self, span: Span, file: BorrowedFd<'_>) -> io::Result<()> {
        self.call(|inner| inner.add_mem_region(&info(span, file))).map(drop)
    }

    /// REM_MEM_REG.
    pub fn remove_region(&mut self, span: Span, file: BorrowedFd<'_>) -> io::Result<()> {
        self.call(|inner| inner.remove_mem_region(&info(span, file)))
    }

    /// SET_VRING_NUM.
    pub fn set_num(&mut self, index: u32, num: u16) -> io::Result<()> {
        self.call(|inner| inner.set_vring_num(index as usize, num))
    }

    /// SET_VRING_ADDR, in the front end's addresses.
    pub fn set_address(&mut self, index: u32, user: Areas) -> io::Result<()> {
        let config = VringConfigData {
            desc_table_addr: user.descriptors,
            avail_ring_addr: user.driver,
            used_ring_addr: user.device,
            ..VringConfigData::default()
        };
        self.call(|inner| inner.set_vring_addr(index as usize, &config))
    }

    /// SET_VRING_BASE, with both halves.
    pub fn set_base(&mut self, index: u32, base: u32) -> io::Result<()> {
        self.tell(Message::vring_state(request::SET_VRING_BASE, index, base), &[])
    }

    /// GET_VRING_BASE.
    pub fn base(&mut self, index: u32) -> io::Result<u32> {
        self.call(|inner| inner.get_vring_base(index as usize))
    }

    /// SET_VRING_ENABLE.
    pub fn enable(&mut self, index: u32, enabled: bool) -> io::Result<()> {
        self.tell(Message::vring_state(request::SET_VRING_ENABLE, index, enabled.into()), &[])
    }

    /// SET_VRING_KICK, _CALL or _ERR with this file, or with none.
    pub fn set_fd(&mut self, code: u32, index: u8, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let none = if fd.is_none() { 0x100 } else { 0 };
        self.tell(Message::words(code, &[u64::from(index) | none]), fd.as_slice())
    }

    /// Everything that starts `queue` as virtqueue `index`, but enabling it.
    pub fn start(&mut self, index: u8, queue: &Queue, memory: &DriverMemory, bells: &Bells) -> io::Result<()> {
        let (areas, number) = (queue.areas(), u32::from(index));
        self.set_num(number, queue.size())?;
        self.set_base(number, queue.base())?;
        let user = Areas {
            descriptors: memory.user(areas.descriptors),
            driver: memory.user(areas.driver),
            device: memory.user(areas.device),
        };
        self.set_address(number, user)?;
        self.set_fd(request::SET_VRING_CALL, index, bells.call.as_ref().map(AsFd::as_fd))?;
        self.set_fd(request::SET_VRING_ERR, index, Some(bells.error.as_fd()))?;
        self.set_fd(request::SET_VRING_KICK, index, bells.kick.as_ref().map(AsFd::as_fd))
    }

    /// Sends a message and, once [`FrontEnd::negotiate_protocol`] was through, waits for the answer that it was done.
    pub fn tell(&mut self, message: Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if !self.acknowledged {
            return self.send(message.bytes(), fds);
        }
        self.send(message.need_reply().bytes(), fds)?;
        match self.receive()?.1[..] {
            [0, ..] => Ok(()),
            _ => Err(io::Error::other("the back end refuses")),
        }
    }

    /// Sends bytes and file descriptors as they are.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); 4096];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("more file descriptors than fit"));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// The back end's next message: code and payload.
    pub fn receive(&self) -> io::Result<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        };
        let header = self.read(12)?;
        let payload = self.read(word(&header, 8) as usize)?;
        Ok((word(&header, 0), payload))
    }

    fn read(&self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            if !readable(self.stream.as_fd(), PATIENCE)? {
                return Err(ErrorKind::TimedOut.into());
            }
            let part = &mut [IoSliceMut::new(&mut bytes[filled..])];
            match recvmsg(&self.stream, part, &mut Default::default(), RecvFlags::empty())?.bytes {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(bytes)
    }

    /// Whether the back end closes the connection within [`PATIENCE`]; what it says before is ignored.
    pub fn closes(&self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let mut bytes = [0; 256];
            match readable(self.stream.as_fd(), Duration::from_millis(100)) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return true,
            }
            match recv(&self.stream, &mut bytes, RecvFlags::empty()) {
                Ok((0, _)) | Err(_) => return true,
                Ok(_) => {}
            }
        }
        false
    }

    /// Whether the connection still stands.
    pub fn is_open(&self) -> bool {
        let mut byte = [0; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.stream, &mut byte, flags) {
            Ok((count, _)) => count > 0,
            Err(error) => error == rustix::io::Errno::AGAIN,
        }
    }

    /// Ends the connection, whatever was half said.
    pub fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn info(span: Span, file: BorrowedFd<'_>) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: span.guest,
        memory_size: span.len,
        userspace_addr: span.user,
        mmap_offset: span.file_offset,
        mmap_handle: file.as_raw_fd(),
    }
}

/// The eventfds of a virtqueue.
#[derive(Debug)]
pub struct Bells {
    /// The driver has made buffers available. Without it the device has to look.
    pub kick: Option<OwnedFd>,
    /// The device has used buffers. Without it the driver has to look.
    pub call: Option<OwnedFd>,
    /// The device has given the virtqueue up.
    pub error: OwnedFd,
}

impl Bells {
    /// Eventfds that nobody rang; without a kick if the device shall poll.
    ///
    /// # Errors
    /// If there are none to be had.
    pub fn new(kicks: bool) -> io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self { kick: if kicks { Some(bell()?) } else { None }, call: Some(bell()?), error: bell()? })
    }
}

/// Rings an eventfd.
pub fn ring(bell: &OwnedFd) {
    // One that is full has been rung.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// How often an eventfd was rung since it was last asked.
#[must_use]
pub fn rung(bell: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(bell, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}
