//! The table of frontends: what a `--frontend` URL makes.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::bail;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tunnel_core::{Opener, ServerId, Threads};
use tunnel_tls::ServerTls;

use crate::{cli::ServerArgs, url};

/// A frontend that is bound and does not serve yet.
pub struct Bound {
    /// Its URL, with the port that was chosen.
    pub url: String,
    /// Its address, unless it is a Unix socket.
    pub addr: Option<SocketAddr>,
    serve: Box<dyn FnOnce(Arc<dyn Opener>, Stop) -> Serving + Send>,
}

/// A frontend at work.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When frontends stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take no more clients; those that are there finish.
    pub drain: CancellationToken,
    /// End everything now.
    pub kill: CancellationToken,
}

impl Bound {
    /// Serves until everything has ended after `stop`.
    pub fn serve(self, opener: Arc<dyn Opener>, stop: Stop) -> Serving {
        (self.serve)(opener, stop)
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Frontends of one server, from their URLs to their sockets.
#[derive(Debug)]
pub struct Frontends {
    connect: Vec<connect::Endpoint>,
    /// What clients meet where a frontend speaks TLS.
    pub tls: Option<ServerTls>,
}

impl Frontends {
    /// Understands the URLs and loads certificates if one of them needs any.
    pub fn parse(args: &ServerArgs) -> anyhow::Result<Self> {
        let needs_tls = args.frontend.iter().any(|url| url.starts_with("connect+tls://"));
        let tls = if needs_tls {
            Some(crate::tls::for_clients(args)?)
        } else {
            None
        };
        let mut connect = Vec::new();
        for url in &args.frontend {
            let (scheme, rest) = url::split(url)?;
            match scheme {
                "connect" | "connect+tls" | "connect+unix" if cfg!(feature = "connect") => {
                    connect.push(connect::endpoint(url, scheme, rest, tls.as_ref())?);
                }
                "connect" | "connect+tls" | "connect+unix" => {
                    bail!("the frontend {scheme} is not compiled in: build with the cargo feature `connect`")
                }
                _ => bail!("{scheme:?} is no frontend; there are connect://, connect+tls:// and connect+unix://"),
            }
        }
        Ok(Self { connect, tls })
    }

    /// Binds every frontend, or none.
    pub async fn bind(
        self,
        id: &ServerId,
        args: &ServerArgs,
        threads: &Threads,
        metrics: &mut Registry,
    ) -> anyhow::Result<Vec<Bound>> {
        let connect = connect::Shared::new(id, args, threads, metrics);
        let mut bound = Vec::with_capacity(self.connect.len());
        for endpoint in self.connect {
            bound.push(connect.bind(endpoint).await?);
        }
        Ok(bound)
    }
}

#[cfg(feature = "connect")]
mod connect {
    use anyhow::{Context as _, bail};
    pub(super) use frontend_connect::Endpoint;
    use frontend_connect::{Config, ConnectFrontend, Metrics, Shutdown, UnixEndpoint};
    use prometheus_client::registry::Registry;
    use tunnel_core::{ServerId, Threads};
    use tunnel_tls::ServerTls;

    use super::Bound;
    use crate::{cli::ServerArgs, descriptors, url};

    pub(super) struct Shared {
        config: Config,
        metrics: Metrics,
    }

    impl Shared {
        pub(super) fn new(id: &ServerId, args: &ServerArgs, threads: &Threads, registry: &mut Registry) -> Self {
            let metrics = Metrics::default();
            metrics.register(registry.sub_registry_with_prefix("tunnel"));
            let mut config = Config::new(id.clone());
            config.threads = threads.clone();
            config.agent_headers = args.allow_select;
            config.dial_timeout = args.dial_timeout;
            config.max_pending_dials_per_client = args.max_pending_dials;
            config.max_connections = descriptors::for_clients(args.max_clients);
            config.idle_timeout = args.streams.idle_timeout.0;
            Self { config, metrics }
        }

        pub(super) async fn bind(&self, endpoint: Endpoint) -> anyhow::Result<Bound> {
            let frontend = ConnectFrontend::bind(endpoint, self.config.clone()).await?;
            let frontend = frontend.with_metrics(self.metrics.clone());
            Ok(Bound {
                url: frontend.endpoint().to_string(),
                addr: frontend.local_addr(),
                serve: Box::new(move |opener, stop| {
                    let shutdown = Shutdown {
                        drain: stop.drain,
                        kill: stop.kill,
                    };
                    Box::pin(frontend.serve(opener, shutdown))
                }),
            })
        }
    }

    pub(super) fn endpoint(url: &str, scheme: &str, rest: &str, tls: Option<&ServerTls>) -> anyhow::Result<Endpoint> {
        match (scheme, tls) {
            ("connect", _) => Ok(Endpoint::Tcp(url::listen_addr(url, rest)?)),
            ("connect+unix", _) => unix(url, rest).map(Endpoint::Unix),
            (_, Some(tls)) => Ok(Endpoint::Tls(url::listen_addr(url, rest)?, tls.clone().into())),
            (_, None) => bail!("{url:?} needs a certificate"),
        }
    }

    /// `/PATH[?mode=0660&owner=UID[:GID]]`
    fn unix(url: &str, rest: &str) -> anyhow::Result<UnixEndpoint> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            bail!("{url:?} does not name an absolute path, as in connect+unix:///run/tunnel.sock");
        }
        let mut endpoint = UnixEndpoint::new(path);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("mode", mode)) => {
                    endpoint.mode = u32::from_str_radix(mode, 8)
                        .ok()
                        .filter(|mode| *mode <= 0o777)
                        .with_context(|| format!("{url:?}: the mode {mode:?} is not octal, as in 0660"))?;
                }
                Some(("owner", owner)) => {
                    let (user, group) = owner
                        .split_once(':')
                        .map_or((owner, None), |(user, group)| (user, Some(group)));
                    let id = |text: &str| {
                        text.parse()
                            .with_context(|| format!("{url:?}: {text:?} is not a numeric user or group id"))
                    };
                    endpoint.owner = Some(id(user)?);
                    endpoint.group = group.map(id).transpose()?;
                }
                _ => bail!("{url:?}: unknown option {option:?}; there are mode and owner"),
            }
        }
        Ok(endpoint)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_unix_url_has_mode_and_owner() {
            let endpoint = unix("", "/run/x.sock?mode=0660&owner=1000:2000").unwrap();
            assert_eq!(
                (endpoint.mode, endpoint.owner, endpoint.group),
                (0o660, Some(1000), Some(2000))
            );
            assert_eq!(endpoint.path.to_str(), Some("/run/x.sock"));
            assert_eq!(unix("", "/run/x.sock").unwrap().mode, 0o600);
        }

        #[test]
        fn mistakes_are_named() {
            for (rest, part) in [
                ("run/x", "absolute path"),
                ("/x?mode=rw", "\"rw\" is not octal"),
                ("/x?mode=7777", "not octal"),
                ("/x?owner=root", "\"root\" is not a numeric"),
                ("/x?mood=1", "unknown option \"mood=1\""),
            ] {
                let error = unix("connect+unix://…", rest).unwrap_err().to_string();
                assert!(error.contains(part), "{error}");
            }
        }
    }
}

#[cfg(not(feature = "connect"))]
mod connect {
    use anyhow::bail;
    use prometheus_client::registry::Registry;
    use tunnel_core::{ServerId, Threads};
    use tunnel_tls::ServerTls;

    use super::Bound;
    use crate::cli::ServerArgs;

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Endpoint {}

    pub(super) struct Shared;

    impl Shared {
        pub(super) fn new(_: &ServerId, _: &ServerArgs, _: &Threads, _: &mut Registry) -> Self {
            Self
        }

        #[allow(clippy::unused_async)] // the same form as with the feature
        pub(super) async fn bind(&self, endpoint: Endpoint) -> anyhow::Result<Bound> {
            match endpoint {}
        }
    }

    pub(super) fn endpoint(url: &str, _: &str, _: &str, _: Option<&ServerTls>) -> anyhow::Result<Endpoint> {
        bail!("cannot listen on {url}: the frontend is not compiled in")
    }
}
