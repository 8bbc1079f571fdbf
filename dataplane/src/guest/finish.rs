//! Frames that do not go as they are into a buffer each: for the buffers' sake, or because the receiver cannot do what
//! the sender left undone. Then it is done here: a checksum is summed while the frame is copied, or a frame is cut into
//! segments, straight into the receiver's buffers, whatever those are ([`Sink`]).

use super::cursor::{Room, Source};
use super::deliver::{Delivered, Frames, set_bits};
use super::frame::HEAD_LEN;
use crate::packet::{Abilities, InternetSum, NetHeader, Offload, Segmentation, Way};

/// Why a frame gets no buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// There are too few.
    Empty,
    /// What there is cannot hold the frame.
    TooSmall,
}

/// Where frames are put: a receiver's buffers.
pub trait Sink {
    /// Puts a frame of `len` bytes into the next buffers, as many as it needs: `write` writes it and says how many bytes it
    /// copied. `header` says what is asked of the receiver, and `head` is the frame's beginning, as far as it is at hand.
    ///
    /// # Errors
    /// Without enough buffers nothing is written.
    fn fill(
        &mut self,
        len: u32,
        header: NetHeader,
        head: &[u8],
        write: impl FnOnce(Room<'_, '_>) -> usize,
    ) -> Result<usize, Short>;
}

/// What a burst lacked, in frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortage {
    /// For want of buffers.
    pub empty: u64,
    /// For want of large ones.
    pub too_small: u64,
}

impl Shortage {
    fn count(&mut self, short: Short, frames: u64) {
        match short {
            Short::Empty => self.empty += frames,
            Short::TooSmall => self.too_small += frames,
        }
    }
}

/// Delivers frames of a burst to one receiver.
#[derive(Debug)]
pub struct Finisher<'f, 's, S> {
    /// Its buffers.
    pub sink: S,
    /// The burst.
    pub frames: Frames<'f, 's>,
    /// What the receiver does by itself.
    pub can: Abilities,
    /// What was delivered.
    pub done: Delivered,
    /// What was not.
    pub short: Shortage,
}

impl<S: Sink> Finisher<'_, '_, S> {
    /// Delivers the frames of `mask`, in order.
    pub fn deliver(&mut self, mask: u32) {
        for index in set_bits(mask) {
            let asks = self.frames.asking >> index & 1 != 0;
            let Some(offload) = self.frames.offloads.get(index).filter(|_| asks) else {
                self.whole(index, NetHeader::default(), None);
                continue;
            };
            match offload.way(self.can) {
                Way::Pass(header) => self.whole(index, header, None),
                Way::Sum => self.whole(index, NetHeader::default(), Some(offload)),
                Way::Segment { segmentation, sum } => self.segments(index, offload, &segmentation, sum),
            }
        }
    }

    /// A frame in one, with the checksum of `offload` filled in, if there is one.
    fn whole(&mut self, index: usize, header: NetHeader, offload: Option<&Offload>) {
        let Self { sink, frames, done, short, .. } = self;
        let len = frames.lens[index];
        let filled = sink.fill(len, header, frames.heads[index].frame(len as usize), |mut room| {
            let mut source = Source::new(*frames, index, 0);
            let Some(offload) = offload else { return source.copy(&mut room, len as usize, None) };
            let (mut front, mut sum) = (room.clone(), InternetSum::default());
            let before = source.copy(&mut room, offload.csum_start(), None);
            let summed = source.copy(&mut room, len as usize - before, Some(&mut sum));
            front.skip(offload.csum_at());
            front.write(&offload.filled_in(sum.checksum()));
            before + summed
        });
        match filled {
            Ok(copied) => {
                done.packets += 1;
                done.bytes += u64::from(len);
                done.copied += copied as u64;
            }
            Err(why) => short.count(why, 1),
        }
    }

    /// A frame in segments. Those beyond the first are frames of our own making, delivered or not.
    fn segments(&mut self, index: usize, offload: &Offload, segmentation: &Segmentation, sum: bool) {
        let Self { sink, frames, done, short, .. } = self;
        let frame_len = frames.lens[index] as usize;
        let head = frames.heads[index].frame(frame_len);
        let headers_len = segmentation.header_len();
        let mut source = Source::new(*frames, index, headers_len);
        let net_header = if sum { NetHeader::default() } else { offload.checksum_header() };
        let segments = segmentation.segments(frame_len);
        done.generated += segments as u64 - 1;
        for cut in segmentation.cuts(frame_len) {
            let len = headers_len + cut.len;
            let mut headers = [0; HEAD_LEN];
            let Some(headers) = headers.get_mut(..headers_len) else { return };
            headers.copy_from_slice(head.get(..headers_len).unwrap_or(&[]));
            segmentation.edit(offload, headers, frame_len, cut);
            let filled = sink.fill(len as u32, net_header, head, |mut room| {
                let mut front = room.clone();
                room.skip(headers_len);
                let copied = if sum {
                    let mut sum = InternetSum::default();
                    sum.add(headers.get(offload.csum_start()..).unwrap_or(&[]));
                    let copied = source.copy(&mut room, cut.len, Some(&mut sum));
                    let filled_in = offload.filled_in(sum.checksum());
                    if let Some(field) = headers.get_mut(offload.csum_at()..).and_then(|rest| rest.first_chunk_mut()) {
                        *field = filled_in;
                    }
                    copied
                } else {
                    source.copy(&mut room, cut.len, None)
                };
                front.write(headers) + copied
            });
            match filled {
                Ok(copied) => {
                    done.packets += 1;
                    done.bytes += len as u64;
                    done.copied += copied as u64;
                }
                Err(Short::Empty) => {
                    // Nor will there be buffers for the rest of it.
                    short.count(Short::Empty, (segments - cut.number) as u64);
                    return;
                }
                Err(Short::TooSmall) => {
                    short.count(Short::TooSmall, 1);
                    source.skip(cut.len);
                }
            }
        }
    }
}
