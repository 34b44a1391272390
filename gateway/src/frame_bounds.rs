//! Where WebSocket frames begin and end (RFC 6455 §5.2), told from the bytes as they pass: whether a codec that has taken
//! them holds a part of something. It judges nothing; what is not allowed the codec refuses.

/// What comes next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Next {
    /// FIN and opcode.
    Opcode,
    /// Whether it is masked, and the length or what says how long the length is.
    Length,
    /// So many bytes of the length, most significant first, of which this is known.
    Extended { left: u8, length: u64, masked: bool },
    /// So many bytes of the mask, before so many of the payload.
    Mask { left: u8, length: u64 },
    /// So many bytes of the payload.
    Payload { left: u64 },
}

impl Next {
    /// What follows the length.
    const fn after_length(length: u64, masked: bool) -> Self {
        if masked {
            Self::Mask { left: 4, length }
        } else {
            Self::payload(length)
        }
    }

    const fn payload(left: u64) -> Self {
        if left == 0 {
            Self::Opcode
        } else {
            Self::Payload { left }
        }
    }
}

/// See the module. Pure; its size does not depend on what passes.
#[derive(Clone, Debug)]
pub(crate) struct FrameBounds {
    next: Next,
    /// A message has begun whose last fragment has not.
    in_message: bool,
}

impl FrameBounds {
    /// Before the first frame.
    pub(crate) const fn new() -> Self {
        Self {
            next: Next::Opcode,
            in_message: false,
        }
    }

    /// Whether what has passed ends with a frame that is the last of its message.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.next == Next::Opcode && !self.in_message
    }

    /// These bytes pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.next = match self.next {
                Next::Opcode => {
                    let (last, control) = (byte & 0x80 != 0, byte & 0x08 != 0);
                    if !control {
                        self.in_message = !last;
                    }
                    Next::Length
                }
                Next::Length => {
                    let (masked, length) = (byte & 0x80 != 0, byte & 0x7f);
                    let extended = |left| Next::Extended {
                        left,
                        length: 0,
                        masked,
                    };
                    match length {
                        126 => extended(2),
                        127 => extended(8),
                        _ => Next::after_length(length.into(), masked),
                    }
                }
                Next::Extended { left, length, masked } => {
                    let (left, length) = (left - 1, length << 8 | u64::from(byte));
                    if left == 0 {
                        Next::after_length(length, masked)
                    } else {
                        Next::Extended { left, length, masked }
                    }
                }
                Next::Mask { left: 1, length } => Next::payload(length),
                Next::Mask { left, length } => Next::Mask {
                    left: left - 1,
                    length,
                },
                Next::Payload { left } => {
                    let left = left - 1;
                    let skipped = left.min(bytes.len() as u64);
                    bytes = &bytes[skipped as usize..];
                    Next::payload(left - skipped)
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, RngExt as _, SeedableRng as _};
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;

    /// Frames as the library writes them, and after which of their bytes a message has ended, between which none has begun.
    fn stream(rng: &mut StdRng) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for _ in 0..rng.random_range(1..8) {
            let fragments = rng.random_range(1..4);
            for fragment in 1..=fragments {
                let data = if fragment == 1 { Data::Text } else { Data::Continue };
                put(rng, &mut bytes, OpCode::Data(data), fragment == fragments);
                if fragment == fragments {
                    ends.push(bytes.len());
                }
                if rng.random_bool(0.3) {
                    put(rng, &mut bytes, OpCode::Control(Control::Ping), true);
                    if fragment == fragments {
                        ends.push(bytes.len());
                    }
                }
            }
        }
        (bytes, ends)
    }

    fn put(rng: &mut StdRng, bytes: &mut Vec<u8>, opcode: OpCode, last: bool) {
        let lengths: &[usize] = match opcode {
            OpCode::Data(_) => &[0, 1, 125, 126, 127, 128, 65_535, 65_536],
            OpCode::Control(_) => &[0, 1, 125],
        };
        let mut payload = vec![0; lengths[rng.random_range(0..lengths.len())]];
        rng.fill_bytes(&mut payload);
        let mut frame = match opcode {
            OpCode::Data(_) => Frame::message(payload, opcode, last),
            OpCode::Control(_) => Frame::ping(payload),
        };
        if rng.random_bool(0.8) {
            frame.header_mut().mask = Some(rng.random());
        }
        frame.format(bytes).expect("a vector takes everything");
    }

    #[test]
    fn the_ends_of_messages_are_found_however_the_bytes_are_split() {
        let base: u64 = rand::random();
        for seed in (0..300).map(|round| base.wrapping_add(round)) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (bytes, ends) = stream(&mut rng);
            let mut bounds = FrameBounds::new();
            let mut passed = 0;
            while passed < bytes.len() {
                assert_eq!(
                    bounds.is_between_messages(),
                    ends.contains(&passed),
                    "seed {seed}, byte {passed} of {}, ends {ends:?}",
                    bytes.len()
                );
                let most = if rng.random_bool(0.5) { 20 } else { bytes.len() };
                let piece = rng.random_range(1..=most.min(bytes.len() - passed));
                bounds.pass(&bytes[passed..passed + piece]);
                passed += piece;
            }
            assert!(bounds.is_between_messages(), "seed {seed}");
        }
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        let header = [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        let mut bounds = FrameBounds::new();
        for byte in header {
            bounds.pass(&[byte]);
            assert!(!bounds.is_between_messages());
        }
        assert_eq!(bounds.next, Next::Payload { left: 65_536 });
    }
}
