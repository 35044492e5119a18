//! What the peer says: requests, and frames of the control stream.

use std::task::{Context, Poll};

use tunnel_core::{
    Answer, CloseCode,
    proto::mux::{Frame, Side, StreamId},
};

use super::{
    Native,
    control::ControlError,
    messages::{self, Asked},
};
use crate::http2::{Driver, Incoming, Opening, Outcome, Rx, Stream, Tx};

/// How many frames of the control stream are read in a turn.
const FRAMES: usize = 1024;

impl Driver<Native> {
    /// A request has come, to an agent.
    pub(super) fn requested(&mut self, (request, mut respond): Incoming) {
        let asked = match messages::read_request(&request) {
            Ok(asked) => asked,
            Err(error) => return self.hub.close(CloseCode::PROTOCOL, error.to_string()),
        };
        let is_first = self.protocol.control.tx.is_none();
        match asked {
            Asked::Control if is_first => {
                if let Ok(tx) = respond.send_response(messages::control_accepted(self.protocol.max_streams), false) {
                    self.protocol.control.tx = Some(tx);
                    self.protocol.control.rx = Some(request.into_body());
                }
            }
            _ if is_first => self
                .hub
                .close(CloseCode::PROTOCOL, "the first request was not for the control stream"),
            Asked::Open(head) => {
                let key = u64::from(respond.stream_id().as_u32());
                let rx = Some(request.into_body());
                self.arrived(key, head, Opening::Responding(Box::new(respond)), rx);
            }
            Asked::Granted(key) => match self.wires.get_mut(&key) {
                Some(wire) if matches!(wire.opening, Opening::Asked) => {
                    // If it cannot be sent, the stream is over, which is seen next.
                    wire.tx = respond.send_response(messages::accepted(), false).ok();
                    wire.begin_rx(request.into_body());
                    wire.opening = Opening::Done;
                    wire.stream.lock().resolve(Outcome::Accepted);
                    wire.stream.post();
                }
                // It was given up meanwhile.
                _ => respond.send_reset(h2::Reason::CANCEL),
            },
            Asked::Control | Asked::Other => drop(respond.send_response(messages::not_served(), true)),
        }
    }

    /// Takes what the peer says on the control stream. Says whether it said anything.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = self.established(cx);
        for _ in 0..FRAMES {
            match self.protocol.control.poll_frame(cx) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(frame)) => {
                    moved = true;
                    if let Err(problem) = self.obey(frame) {
                        self.hub.close(CloseCode::PROTOCOL, problem);
                        return moved;
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.protocol.control.rx = None;
                    match error {
                        ControlError::Frame(error) => self.hub.close(error.close_code(), error.to_string()),
                        // What comes behind a CLOSE is of no interest.
                        ControlError::Ended if self.protocol.closed_by_peer.is_some() => {}
                        ControlError::Ended => self.hub.close(CloseCode::PROTOCOL, "the control stream ended"),
                    }
                    return moved;
                }
            }
        }
        true
    }

    /// Looks for the response to a server's control request.
    fn established(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(response) = &mut self.protocol.control.response else {
            return false;
        };
        match std::pin::Pin::new(response).poll(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(response)) => match messages::max_streams(&response) {
                Some(places) => {
                    let places = usize::try_from(places).unwrap_or(usize::MAX);
                    self.hub
                        .places
                        .add_permits(places.min(tokio::sync::Semaphore::MAX_PERMITS));
                    self.protocol.control.rx = Some(response.into_body());
                }
                None => self
                    .hub
                    .close(CloseCode::PROTOCOL, "the agent has refused the control stream"),
            },
            // The connection has failed, which shows when it is polled.
            Poll::Ready(Err(_)) => {}
        }
        self.protocol.control.response = None;
        true
    }

    /// Does what a frame of the control stream says; an error says what is wrong with it.
    fn obey(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Reset { id, code } => self.half(id, |stream| {
                let mut state = stream.lock();
                state.resolve(Outcome::Ended(code));
                state.end_rx(Rx::Reset(code))
            }),
            Frame::Stop { id, code } => self.half(id, |stream| {
                stream.lock().end_tx(Tx::Stopped(code));
                0
            }),
            Frame::Open { id, head } if self.is_server() => {
                let key = id.value().into_inner();
                if id.opener() != Side::Agent || key != self.protocol.next_asked {
                    return Err(format!(
                        "OPEN of stream {id} where {} comes next",
                        self.protocol.next_asked
                    ));
                }
                self.protocol.next_asked += 2;
                let grant = messages::grant(&head, key);
                self.arrived(key, head, Opening::Granting(Box::new(grant)), None);
            }
            Frame::Answer {
                id,
                answer: Answer::Refused(refusal),
            } if !self.is_server() => {
                let key = id.value().into_inner();
                if self
                    .wires
                    .get(&key)
                    .is_some_and(|wire| matches!(wire.opening, Opening::Asked))
                {
                    self.refused(key, refusal);
                    self.wires.remove(&key);
                }
            }
            Frame::Drain(_) => self.hub.drain(|draining| draining.remote = true),
            Frame::Close { code, text } => self.protocol.closed_by_peer = Some((code, text)),
            _ => return Err("a frame came on the control stream that has no place there".to_owned()),
        }
        Ok(())
    }

    /// The peer has ended a half. A stream that is over is not known any more, which is no error.
    fn half(&mut self, id: StreamId, end: impl FnOnce(&Stream) -> usize) {
        if let Some(wire) = self.wires.get(&id.value().into_inner()) {
            let dropped = end(&wire.stream);
            wire.stream.post();
            self.hub.account.release(dropped as u64);
        }
    }
}
