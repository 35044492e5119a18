//! What holds at every moment.

use tunnel_proto::{CloseCode, mux::CloseReason};

use super::{SIDES, World};
use crate::model::index;

impl World {
    pub(super) fn check(&mut self) {
        for side in SIDES {
            let budget = &self.setup.budgets[index(side)];
            assert!(
                budget.used() <= budget.limit(),
                "{} of {}",
                budget.used(),
                budget.limit()
            );
            let mux = &self.muxes[index(side)];
            match mux.closed() {
                None => {}
                Some(CloseReason::Local { code, .. }) if *code == CloseCode::DRAINED => {
                    let mut known = self.streams.iter().filter(|stream| stream.is_known_to(side));
                    assert!(
                        self.is_draining && known.all(|stream| stream.is_over_for(side)),
                        "{:?}",
                        self.streams
                    );
                }
                Some(CloseReason::Local { code, .. } | CloseReason::Remote { code, .. }) => {
                    let is_right = match *code {
                        CloseCode::SHUTDOWN => self.is_closing,
                        CloseCode::DRAINED => self.is_draining,
                        _ => false,
                    };
                    assert!(is_right, "{:?}", mux.closed());
                }
                Some(CloseReason::Link) => assert!(self.is_cut),
                other => panic!("{other:?}"),
            }
            let (_, whole) = self.setup.windows[index(side)];
            assert!(self.judge.credit(side) <= whole, "more credit than the window");
        }
        for stream in &mut self.streams {
            for side in SIDES {
                let (ceiling, _) = self.setup.windows[index(side)];
                let read = stream.read_by(side).read;
                let granted = self.judge.granted(side.peer(), stream.id);
                assert!(
                    granted <= read + ceiling,
                    "{granted} granted, {read} read of {stream:?}"
                );
            }
        }
    }
}
