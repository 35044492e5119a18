//! What is always true, checked in debug builds.

use super::Mux;
use crate::mux::stream::Opening;

impl Mux {
    /// What must hold after every input and command.
    pub(super) fn assert_invariants(&self) {
        if cfg!(debug_assertions) && self.streams.len() <= 64 {
            let (mut held, mut queued, mut granted, mut waiting) = (0, 0, 0, 0);
            for (id, stream) in &self.streams {
                let recv = &stream.recv;
                debug_assert!(
                    recv.state.is_over() || recv.queue.len() as u64 == recv.credit.held(),
                    "{id:?}: {:?} {:?}",
                    recv.state,
                    recv.credit
                );
                debug_assert!(!stream.send.state.is_over() || stream.send.queue.is_empty());
                debug_assert_eq!(self.unread.contains(&(recv.taken_at, *id)), !recv.queue.is_empty());
                debug_assert!(self.closed.is_some() || stream.ended == stream.is_over());
                let listed = self.riders.iter().filter(|rider| *rider == id).count();
                debug_assert!(self.closed.is_some() || listed == usize::from(stream.rides));
                queued += stream.send.queue.len();
                let (called, in_line) = self.line.places(*id);
                debug_assert!(
                    called <= usize::from(!stream.send.blocked),
                    "{id:?} was called and waits"
                );
                debug_assert_eq!(in_line, usize::from(stream.send.in_line));
                held += recv.queue.len() as u64;
                if recv.state.listens() {
                    granted += recv.credit.outstanding();
                }
                if let Opening::Waiting { charged } = stream.opening {
                    held += charged;
                    waiting += 1;
                }
            }
            debug_assert_eq!(queued, self.line.queued);
            debug_assert_eq!(held + queued as u64, self.account.held());
            let open = self.streams.values().filter(|stream| !stream.ended).count();
            debug_assert_eq!(open as u64, self.live);
            if self.closed.is_none() {
                debug_assert_eq!((granted, waiting), (self.granted, self.accepts.waiting));
            }
        }
        // What has come is given back at once.
        debug_assert_eq!(self.recv_credit.held(), 0);
        // More is outstanding only while a window that has shrunk is used up.
        let window = self.recv_window.size();
        debug_assert!(self.recv_credit.outstanding() + self.recv_credit.due(window) >= window);
        debug_assert!(self.recv_credit.outstanding() <= self.config.connection_window);
    }
}
