//! The connections of the admin address: few at a time, as descriptors are kept back for so many, and none idle for long.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a client may take for the head of a request, and until it sends the next: longer than the minute that often
/// lies between two scrapes.
const IDLE: Duration = Duration::from_secs(75);

/// How long requests that have begun may take once the program ends.
const PARTING: Duration = Duration::from_secs(1);

/// The connections of the admin address, which end when this is dropped.
pub(super) struct Connections {
    router: Router,
    http: http1::Builder,
    stop: CancellationToken,
    most: usize,
    tasks: JoinSet<()>,
    open: Vec<Open>,
    /// Counts connections and requests, so that it tells which came earlier.
    clock: Arc<AtomicU64>,
}

struct Open {
    task: AbortHandle,
    /// When its last request came, or it itself.
    heard: Arc<AtomicU64>,
}

impl Connections {
    /// At most `most` at a time, which take no more requests when `stop` is cancelled.
    pub(super) fn new(router: Router, most: usize, stop: CancellationToken) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(IDLE);
        Self {
            router,
            http,
            stop,
            most,
            tasks: JoinSet::new(),
            open: Vec::new(),
            clock: Arc::default(),
        }
    }

    /// Takes one more. If there are too many then, the one that has asked for nothing for the longest time is closed: an
    /// answer takes no time to speak of, so it is idle or does not read.
    pub(super) async fn admit(&mut self, socket: TcpStream) {
        self.forget_ended();
        if self.open.len() >= self.most {
            self.make_room().await;
        }
        let clock = Arc::clone(&self.clock);
        let heard = Arc::new(AtomicU64::new(tick(&clock)));
        let open = Arc::clone(&heard);
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |request| {
            heard.store(tick(&clock), Ordering::Relaxed);
            router.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(socket), service);
        let stop = self.stop.clone();
        let task = self.tasks.spawn(async move {
            let mut connection = pin!(connection);
            // What is wrong with a connection is its client's business.
            if stop.run_until_cancelled(connection.as_mut()).await.is_none() {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
        self.open.push(Open { task, heard: open });
    }

    /// Closes the one that has asked for nothing for the longest time. Says whether there was any.
    pub(super) async fn make_room(&mut self) -> bool {
        self.forget_ended();
        let heard = |open: &Open| open.heard.load(Ordering::Relaxed);
        let quietest = (0..self.open.len()).min_by_key(|at| heard(&self.open[*at]));
        let Some(quietest) = quietest.map(|at| self.open.swap_remove(at)) else {
            return false;
        };
        quietest.task.abort();
        while !quietest.task.is_finished() && self.tasks.join_next().await.is_some() {}
        true
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
    }

    /// Waits for the answers to requests that have begun. A client that sends half a request would hold up the end for as
    /// long as it likes otherwise.
    pub(super) async fn end(mut self) {
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(PARTING, ended).await;
    }
}

fn tick(clock: &AtomicU64) -> u64 {
    clock.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    struct World {
        listener: TcpListener,
        connections: Connections,
    }

    impl World {
        async fn new(most: usize) -> Self {
            let router = Router::new().route("/", get(|| async { "an answer" }));
            Self {
                listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                connections: Connections::new(router, most, CancellationToken::new()),
            }
        }

        async fn connect(&mut self) -> TcpStream {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let (socket, _) = self.listener.accept().await.unwrap();
            self.connections.admit(socket).await;
            client
        }
    }

    async fn ask(client: &mut TcpStream) {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"an answer") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "it was closed");
        }
    }

    async fn is_closed(mut client: TcpStream) {
        let mut rest = Vec::new();
        // What it had not been asked is lost with it, or not, and so the end is clean or not.
        let _ = client.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[tokio::test]
    async fn whoever_asks_is_answered_however_many_do_not() {
        for most in [1, 2, 7] {
            let mut world = World::new(most).await;
            let mut silent = Vec::new();
            for turn in 0..3 * most {
                let mut client = world.connect().await;
                if turn % 2 == 0 {
                    client.write_all(&REQUEST[..9]).await.unwrap();
                }
                silent.push(client);
                ask(&mut world.connect().await).await;
                assert!(world.connections.open.len() <= most);
            }
            let kept = silent.split_off(silent.len() - most + 1);
            for client in silent {
                is_closed(client).await;
            }
            drop(kept);
        }
    }

    #[tokio::test]
    async fn room_is_made_by_those_who_ask_least() {
        let mut world = World::new(3).await;
        assert!(!world.connections.make_room().await, "there was nobody");
        let mut scraper = world.connect().await;
        let idle = world.connect().await;
        ask(&mut scraper).await;
        assert!(world.connections.make_room().await);
        is_closed(idle).await;
        ask(&mut scraper).await;
        assert!(world.connections.make_room().await);
        is_closed(scraper).await;
        assert!(!world.connections.make_room().await, "there was somebody");
    }

    #[tokio::test]
    async fn a_connection_that_is_used_is_kept() {
        let mut world = World::new(3).await;
        let mut scraper = world.connect().await;
        for _ in 0..20 {
            ask(&mut scraper).await;
            let idle = world.connect().await;
            ask(&mut world.connect().await).await;
            drop(idle);
        }
        ask(&mut scraper).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_idle_for_long() {
        let mut world = World::new(10).await;
        for half in [b"".as_slice(), &REQUEST[..9]] {
            let mut client = world.connect().await;
            client.write_all(half).await.unwrap();
            let since = Instant::now();
            is_closed(client).await;
            assert!((IDLE..IDLE * 2).contains(&since.elapsed()), "{:?}", since.elapsed());
        }
        let mut client = world.connect().await;
        for _ in 0..3 {
            ask(&mut client).await;
            tokio::time::sleep(IDLE - Duration::from_secs(5)).await;
        }
        let since = Instant::now();
        is_closed(client).await;
        assert!(since.elapsed() <= Duration::from_secs(6), "{:?}", since.elapsed());
    }
}
