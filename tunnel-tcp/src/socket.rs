//! What is asked of the kernel for a TCP socket.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::Congestion;

/// The kernel counts keepalive in whole seconds and refuses zero.
const SHORTEST: Duration = Duration::from_secs(1);

/// The options of the sockets below carriers. What the kernel refuses is logged at debug level and otherwise goes
/// without, for every option makes a connection better and none is needed to have one; systems other than Linux know
/// the first two alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Whether to switch Nagle's algorithm off. On by default: a carrier writes whole messages and must not wait for
    /// acknowledgements before the next.
    pub nodelay: bool,
    /// How long a connection may be idle before the kernel asks the peer whether it is there, at intervals of a third of
    /// this time; a peer that leaves three probes unanswered is gone. 30 seconds by default. The carriers have a
    /// keepalive of their own, which is quicker and also finds a peer that hangs; this one ends connections that
    /// nobody looks after. `None` switches it off.
    pub keepalive: Option<Duration>,
    /// How long bytes that were sent may lack an acknowledgement before the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`, RFC 5482); without it, Linux goes on for about 15 minutes. 60 seconds by default: four times
    /// what a carrier's keepalive allows, so that it only speaks where that cannot, and as long as `keepalive` takes,
    /// which the kernel ends by this limit in place of the number of probes. `None` leaves it to the system.
    pub user_timeout: Option<Duration>,
    /// How many bytes that were not sent yet the kernel may hold before it takes no more (`TCP_NOTSENT_LOWAT`). 128 KiB
    /// by default. What the kernel holds can no longer be put in order by the carrier's scheduler: with the megabytes
    /// that Linux allows otherwise, a small message waits behind all of a bulk transfer's. Less saves little, for the
    /// scheduler sends up to 64 KiB at a time, and costs wake-ups. It does not limit what is under way, so
    /// throughput over long paths stays the same. `None` leaves it to the system.
    pub notsent_lowat: Option<u32>,
    /// The congestion control, [`Congestion::Adaptive`] by default.
    pub congestion: Congestion,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(30)),
            user_timeout: Some(Duration::from_secs(60)),
            notsent_lowat: Some(128 * 1024),
            congestion: Congestion::default(),
        }
    }
}

impl SocketOptions {
    /// Asks the kernel for what a socket that listens hands down and is too late to ask for of those that it accepts: they
    /// have begun with the congestion control that they then have, and keep the timers of BBR.
    pub(crate) fn apply_to_listener(&self, socket: SockRef<'_>) {
        #[cfg(target_os = "linux")]
        tried("TCP_CONGESTION", self.congestion.begin(&socket));
        #[cfg(not(target_os = "linux"))]
        let _ = socket;
    }

    /// Asks the kernel for all of it, in either state of a socket.
    pub(crate) fn apply(&self, socket: SockRef<'_>) {
        if self.nodelay {
            tried("TCP_NODELAY", socket.set_tcp_nodelay(true));
        }
        if let Some(idle) = self.keepalive {
            let keepalive = TcpKeepalive::new()
                .with_time(idle.max(SHORTEST))
                .with_interval((idle / 3).max(SHORTEST))
                .with_retries(3);
            tried("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive));
        }
        #[cfg(target_os = "linux")]
        self.apply_linux(&socket);
    }

    #[cfg(target_os = "linux")]
    fn apply_linux(&self, socket: &SockRef<'_>) {
        if self.user_timeout.is_some() {
            tried("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(self.user_timeout));
        }
        if let Some(bytes) = self.notsent_lowat {
            tried("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(bytes));
        }
        tried("TCP_CONGESTION", self.congestion.begin(socket));
    }
}

fn tried(option: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(option, %error, "a socket goes without an option");
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    fn applied(options: &SocketOptions) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        options.apply(SockRef::from(&socket));
        socket
    }

    #[test]
    fn the_kernel_takes_the_defaults() {
        let socket = applied(&SocketOptions::default());
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
    }

    #[test]
    fn times_below_a_second_are_a_second() {
        let socket = applied(&SocketOptions {
            keepalive: Some(Duration::ZERO),
            ..SocketOptions::default()
        });
        let socket = SockRef::from(&socket);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
    }

    #[test]
    fn what_is_left_to_the_system_stays_as_it_is() {
        let untouched = TcpSocket::new_v4().unwrap();
        let socket = applied(&SocketOptions {
            nodelay: false,
            keepalive: None,
            user_timeout: None,
            notsent_lowat: None,
            congestion: Congestion::System,
        });
        let facts = |socket: &TcpSocket| {
            let socket = SockRef::from(socket);
            (
                socket.tcp_nodelay().unwrap(),
                socket.keepalive().unwrap(),
                socket.tcp_user_timeout().unwrap(),
                socket.tcp_notsent_lowat().unwrap(),
            )
        };
        assert_eq!(facts(&socket), facts(&untouched));
    }
}
