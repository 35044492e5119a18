//! How fast a socket sends: the congestion control of the kernel, and which.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod losses;
#[cfg(target_os = "linux")]
mod watched;

use std::{convert::Infallible, fmt, io, str::FromStr};

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::BoxIo;

/// The congestion control of TCP sockets (`TCP_CONGESTION`), for what this end sends. Linux alone has a choice; elsewhere
/// it is the system's, whatever is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// `cubic` in place of `bbr`, because it costs less, and `bbr` once a connection loses packets, five of 50,000: `cubic`
    /// takes each for congestion, and one stream uses little more than a hundredth of a path of 500 Mbit/s and 20 ms that
    /// loses one packet of a hundred.
    /// A full queue loses packets, too, so that is where a connection ends up that fills its link; `bbr` takes more than
    /// its share beside `cubic` there. It does not go back.
    ///
    /// Where the system's choice is `reno`, that is what it begins with; any other was made for a reason, and stays, as it
    /// does before Linux 4.19, which does not tell what was lost. A kernel that does not allow `bbr`, because it is
    /// not loaded or not in `net.ipv4.tcp_allowed_congestion_control`, goes on with what it has; the first time that is
    /// logged aloud. The default.
    #[default]
    Adaptive,
    /// The system's (`net.ipv4.tcp_congestion_control`), for operators who say there how bandwidth is shared.
    System,
    /// This one, by its name in the kernel. A kernel that lacks it, or does not allow it to this user, goes on with its
    /// own choice; [`check`](Self::check) finds that out.
    Named(String),
}

impl Congestion {
    /// Tries a name on a socket that is not used for anything; the error is the kernel's. For settings that somebody
    /// wrote, who will want to know of a mistake in the name.
    pub fn check(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Self::Named(name) = self {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            linux::set(&SockRef::from(&socket), name)?;
        }
        Ok(())
    }

    /// What a socket begins with.
    #[cfg(target_os = "linux")]
    pub(crate) fn begin(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match self {
            Self::Adaptive if self.adapts(socket, &[linux::BBR]) => linux::set(socket, linux::CUBIC),
            Self::Adaptive | Self::System => Ok(()),
            Self::Named(name) => linux::set(socket, name),
        }
    }

    /// The pipe of a connection that [began](Self::begin) with it, at home in the runtime that calls.
    pub(crate) fn pipe(&self, socket: TcpStream) -> BoxIo {
        #[cfg(target_os = "linux")]
        if self.adapts(&SockRef::from(&socket), &[linux::CUBIC, linux::RENO]) {
            return Box::new(watched::Watched::new(socket));
        }
        Box::new(socket)
    }

    /// Whether it adapts a socket, if that has one of these.
    #[cfg(target_os = "linux")]
    fn adapts(&self, socket: &SockRef<'_>, names: &[&str]) -> bool {
        *self == Self::Adaptive
            && linux::tells_losses()
            && linux::name(socket).is_ok_and(|name| names.contains(&&*name))
    }
}

impl FromStr for Congestion {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(match name {
            "adaptive" => Self::Adaptive,
            "system" => Self::System,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adaptive => "adaptive",
            Self::System => "system",
            Self::Named(name) => name,
        })
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn begun(congestion: &Congestion) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel refuses is for the caller to log.
        let _ = congestion.begin(&SockRef::from(&socket));
        socket
    }

    fn name(socket: &TcpSocket) -> String {
        linux::name(&SockRef::from(socket)).unwrap()
    }

    #[test]
    fn a_kernel_that_lacks_it_keeps_its_own() {
        let own = name(&begun(&Congestion::System));
        let unknown = Congestion::Named("no_such_control".to_owned());
        assert_eq!(name(&begun(&unknown)), own);
        assert!(unknown.check().is_err());

        let known = Congestion::Named(own.clone());
        assert_eq!(name(&begun(&known)), own);
        known.check().unwrap();
        Congestion::System.check().unwrap();
        Congestion::Adaptive.check().unwrap();
    }

    #[test]
    fn who_adapts_begins_without_bbr() {
        let socket = TcpSocket::new_v4().unwrap();
        let socket = SockRef::from(&socket);
        for (name, expected) in [(linux::BBR, linux::CUBIC), (linux::RENO, linux::RENO)] {
            if let Err(error) = linux::set(&socket, name) {
                println!("skipped: the kernel does not allow {name}: {error}");
                continue;
            }
            Congestion::Adaptive.begin(&socket).unwrap();
            assert_eq!(linux::name(&socket).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn who_adapts_is_watched() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pipe = async |congestion: Congestion, name: &str| {
            let socket = TcpSocket::new_v4().unwrap();
            linux::set(&SockRef::from(&socket), name).unwrap();
            let socket = socket.connect(listener.local_addr().unwrap()).await.unwrap();
            format!("{:?}", congestion.pipe(socket))
        };
        assert!(pipe(Congestion::Adaptive, linux::CUBIC).await.starts_with("Watched"));
        assert!(pipe(Congestion::Adaptive, linux::RENO).await.starts_with("Watched"));
        let named = Congestion::Named(linux::CUBIC.to_owned());
        for congestion in [Congestion::System, named] {
            assert!(pipe(congestion, linux::CUBIC).await.starts_with("TcpStream"));
        }
    }

    #[test]
    fn it_is_said_as_it_is_read() {
        for (name, congestion) in [
            ("adaptive", Congestion::Adaptive),
            ("system", Congestion::System),
            ("bbr", Congestion::Named("bbr".to_owned())),
        ] {
            assert_eq!(name.parse(), Ok(congestion.clone()));
            assert_eq!(congestion.to_string(), name);
        }
    }
}
