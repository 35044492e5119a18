//! What can happen to a pair of machines, from bytes: a property draws them at random and makes them simpler, a fuzzer
//! changes them.

use std::time::Duration;

use tunnel_proto::{
    Keepalive,
    mux::{Budget, Config, Side, Windows},
};

/// How one run is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) configs: [Config; 2],
    pub(crate) budgets: [Budget; 2],
    /// The largest windows, of a stream and of all.
    pub(crate) windows: [(u64, u64); 2],
    /// Whether the budgets are so small that streams may be reset for want of memory.
    pub(crate) is_short: bool,
}

/// One thing that happens. A stream is picked among those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) what: What,
    pub(crate) side: Side,
    pub(crate) pick: u8,
    pub(crate) amount: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Deliver,
    Transmit,
    Open,
    Accept,
    Write,
    Ask,
    Read,
    Finish,
    Wait,
    Refuse,
    Reset,
    Stop,
    ReleaseSend,
    ReleaseRecv,
    End,
    Drain,
    Close,
    Cut,
}

/// What happens often is there often; what ends everything happens rarely.
const OFTEN: [What; 32] = {
    use What::*;
    [
        Deliver,
        Transmit,
        Deliver,
        Transmit,
        Deliver,
        Transmit,
        Deliver,
        Transmit,
        Open,
        Open,
        Open,
        Accept,
        Accept,
        Accept,
        Write,
        Write,
        Write,
        Write,
        Write,
        Read,
        Read,
        Read,
        Read,
        Finish,
        Finish,
        Wait,
        Refuse,
        Reset,
        Stop,
        ReleaseSend,
        ReleaseRecv,
        End,
    ]
};

/// What a fuzzer's bytes mean: how the run is set up, and what happens.
pub(crate) fn parse(data: &[u8]) -> Option<([u8; 4], impl Iterator<Item = [u8; 4]>)> {
    let (setup, ops) = data.split_first_chunk()?;
    Some((*setup, ops.as_chunks().0.iter().copied()))
}

impl Op {
    pub(crate) fn new([what, pick, high, low]: [u8; 4]) -> Self {
        Self {
            what: match (OFTEN[usize::from(what & 31)], pick) {
                (What::End, 0..8) => What::Close,
                (What::End, 8..16) => What::Cut,
                (What::End, 16..64) => What::Drain,
                (What::End, _) => What::Deliver,
                (What::Write, _) if high >= 192 => What::Ask,
                (what, _) => what,
            },
            side: if what & 128 == 0 { Side::Agent } else { Side::Server },
            pick,
            amount: u16::from_be_bytes([high, low]),
        }
    }
}

impl Setup {
    pub(crate) fn new([windows, queues, streams, memory]: [u8; 4]) -> Self {
        let window = |bits: u8| match bits & 3 {
            0 => Windows::fixed(1024),
            1 => Windows {
                floor: 1024,
                start: 3000,
                ceiling: 20_000,
            },
            2 => Windows {
                floor: 5000,
                start: 5000,
                ceiling: 1 << 20,
            },
            _ => Windows::default(),
        };
        let pick = |byte: u8, shift: u32| usize::from(byte >> shift & 3);
        let whole = |shift: u32| [4096, 10_000, 1 << 17, 64 << 20][pick(queues, shift)];
        let config = |shift: u32| {
            let pick = |byte: u8| pick(byte, shift);
            let most = [1, 2, 5, 100][pick(streams)];
            Config::builder()
                .stream_window(window(windows >> shift))
                .connection_window(whole(shift))
                .send_queue([1024, 3000, 20_000, 128 * 1024][pick(queues >> 4)])
                .max_streams(most)
                .max_pending(most.min(if memory & 64 == 0 { 2 } else { most }))
                // Time passes as the run likes, and nobody shall die of it.
                .keepalive(Keepalive {
                    interval: Duration::from_secs(3600),
                    timeout: Duration::from_secs(3600),
                })
                .build()
                .unwrap()
        };
        let budget = |bits: u8| Budget::new([Budget::DEFAULT, 100_000, 16_000, 5_000][usize::from(bits & 3)]);
        let first = budget(memory);
        let second = if memory & 128 == 0 {
            budget(memory >> 2)
        } else {
            first.clone()
        };
        Self {
            configs: [config(0), config(2)],
            is_short: [&first, &second].iter().any(|budget| budget.limit() < Budget::DEFAULT),
            budgets: [first, second],
            windows: [0, 2].map(|shift| (window(windows >> shift).ceiling, whole(shift))),
        }
    }
}
