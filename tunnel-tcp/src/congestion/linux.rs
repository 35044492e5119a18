//! What Linux knows of congestion control.

use std::{fs, io, os::fd::AsFd, sync::LazyLock, time::Duration};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket};
use socket2::SockRef;

use super::losses::Counts;

/// Takes lost packets for congestion, as `RENO` does.
pub(super) const CUBIC: &str = "cubic";
pub(super) const RENO: &str = "reno";
/// Measures what the path carries.
pub(super) const BBR: &str = "bbr";

/// The congestion control of a socket.
pub(super) fn name(socket: &SockRef<'_>) -> io::Result<String> {
    let name = socket.tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

pub(super) fn set(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

/// Whether the kernel tells what was lost, which Linux does since 4.19.
pub(super) fn tells_losses() -> bool {
    static TELLS: LazyLock<bool> = LazyLock::new(|| {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let tells = version(&release) >= Some((4, 19));
        if !tells {
            tracing::debug!(
                release = release.trim(),
                "a kernel before 4.19 does not tell which packets were lost"
            );
        }
        tells
    });
    *TELLS
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What the kernel says of a connection; for a kernel that [tells](tells_losses).
#[derive(Debug)]
pub(super) struct State {
    pub(super) counts: Counts,
    pub(super) round_trip: Duration,
}

pub(super) fn state(socket: &impl AsFd) -> io::Result<State> {
    let info = socket::getsockopt(socket, Info)?;
    Ok(State {
        counts: Counts {
            sent: info[DATA_SEGS_OUT],
            lost: info[TOTAL_RETRANS].wrapping_sub(info[DSACK_DUPS]),
        },
        round_trip: Duration::from_micros(info[RTT].into()),
    })
}

// What this makes of it holds `unsafe` code of nix's, which takes a kernel that tells less for a mistake and panics.
sockopt_impl!(
    /// `TCP_INFO`: as much of `struct tcp_info` (`linux/tcp.h`) as is of use, in words.
    Info,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u32; DSACK_DUPS + 1]
);

/// `tcpi_rtt`, in microseconds.
const RTT: usize = 17;
/// `tcpi_total_retrans`: the packets that were sent again, and not all of them because they were lost: after a silence,
/// the last one is sent once more to see whether it was (RFC 8985, section 7).
const TOTAL_RETRANS: usize = 25;
/// `tcpi_data_segs_out`.
const DATA_SEGS_OUT: usize = 39;
/// `tcpi_dsack_dups`: those that had arrived before (RFC 2883).
const DSACK_DUPS: usize = 54;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_what_was_sent_and_lost() {
        assert!(tells_losses(), "a kernel before 4.19");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(state(&near).unwrap().counts.sent, 0);
        near.write_all(&[7; 1000]).await.unwrap();
        far.read_exact(&mut [0; 1000]).await.unwrap();
        let after = state(&near).unwrap();
        // On a busy machine it is sent again.
        assert!((1..10).contains(&after.counts.sent), "{after:?}");
        assert!(after.counts.lost < 10, "{after:?}");
        let round_trip = Duration::from_micros(1)..Duration::from_secs(1);
        assert!(round_trip.contains(&after.round_trip), "{after:?}");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(state(&udp).is_err());
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(version("6.1.0-13-amd64\n") >= Some((4, 19)));
        assert!(version("4.19-rc1") >= Some((4, 19)));
        assert!(version("10.0") >= Some((4, 19)));
        assert!(version("4.4.0") < Some((4, 19)));
        assert_eq!(version("next"), None);
        assert_eq!(version(""), None);
    }
}
