//! A UDP network in virtual time: latency, bandwidth, loss, silence, and ICMP for ports that nobody has.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    fmt, io,
    io::IoSliceMut,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use carrier_quic::PortReports;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep};

/// The largest UDP payload that the network carries.
const MTU: usize = 1452;

/// How a packet travels, the same way in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// From end to end, one way.
    pub(crate) latency: Duration,
    /// Bytes per second and direction; none is without limit.
    pub(crate) bandwidth: Option<u64>,
    /// How many bytes wait for the bandwidth before more are dropped.
    pub(crate) queue: u64,
    /// Lost packets in a thousand.
    pub(crate) loss: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            bandwidth: None,
            queue: 1 << 20,
            loss: 0,
        }
    }
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

struct State {
    link: Link,
    silent: bool,
    /// Addresses whose process was killed.
    killed: HashSet<SocketAddr>,
    /// Addresses to which packets are reported as undeliverable although they are delivered.
    slandered: HashSet<SocketAddr>,
    /// The error of the system instead of sending, by the sender's address.
    errors: HashMap<SocketAddr, i32>,
    /// Who wants to hear of packets that could not be delivered, by the sender's address.
    reports: HashMap<SocketAddr, PortReports>,
    random: fastrand::Rng,
    inboxes: HashMap<SocketAddr, Inbox>,
    /// Whether all who send to an address share a line; else each who sends has one.
    is_shared: bool,
    /// When the line out of an address, or to it, is free again.
    busy_until: HashMap<SocketAddr, Instant>,
    sent: u64,
}

#[derive(Default)]
struct Inbox {
    packets: BinaryHeap<Reverse<Packet>>,
    reader: Option<Waker>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    /// Keeps packets of the same time in order.
    number: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Net {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            link,
            silent: false,
            killed: HashSet::new(),
            slandered: HashSet::new(),
            errors: HashMap::new(),
            reports: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
            inboxes: HashMap::new(),
            is_shared: false,
            busy_until: HashMap::new(),
            sent: 0,
        })))
    }

    /// A socket with this address.
    pub(crate) fn socket(&self, addr: SocketAddr) -> Arc<Socket> {
        let taken = self.0.lock().unwrap().inboxes.insert(addr, Inbox::default());
        assert!(taken.is_none(), "the address is taken");
        Arc::new(Socket {
            net: self.clone(),
            addr,
            alarm: Mutex::new(Box::pin(tokio::time::sleep(Duration::ZERO))),
        })
    }

    /// The first address from this one on that nobody has.
    pub(crate) fn free_address(&self, mut addr: SocketAddr) -> SocketAddr {
        let state = self.0.lock().unwrap();
        while state.inboxes.contains_key(&addr) {
            addr.set_port(addr.port() + 1);
        }
        addr
    }

    /// Loses every packet from now on, or no longer.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.0.lock().unwrap().silent = silent;
    }

    /// Lets a sender hear of what could not be delivered.
    pub(crate) fn report_to(&self, sender: SocketAddr, reports: &PortReports) {
        self.0.lock().unwrap().reports.insert(sender, reports.clone());
    }

    /// Where a sender hears of what could not be delivered.
    pub(crate) fn reports_of(&self, sender: SocketAddr) -> PortReports {
        self.0.lock().unwrap().reports[&sender].clone()
    }

    /// From now on nothing comes from this address, and what is sent to it is answered with "port unreachable".
    pub(crate) fn kill(&self, addr: SocketAddr) {
        self.0.lock().unwrap().killed.insert(addr);
    }

    /// From now on what is sent to this address is answered with "port unreachable", and delivered all the same.
    pub(crate) fn slander(&self, addr: SocketAddr) {
        self.0.lock().unwrap().slandered.insert(addr);
    }

    /// From now on all who send to an address share the line to it.
    pub(crate) fn share_lines(&self) {
        self.0.lock().unwrap().is_shared = true;
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.0.lock().unwrap().link = link;
    }

    /// From now on the system of this address takes no packet and gives this error instead, or takes them again.
    pub(crate) fn set_error(&self, sender: SocketAddr, error: Option<i32>) {
        let errors = &mut self.0.lock().unwrap().errors;
        match error {
            Some(error) => errors.insert(sender, error),
            None => errors.remove(&sender),
        };
    }

    /// How many packets have been sent, lost ones included.
    pub(crate) fn sent(&self) -> u64 {
        self.0.lock().unwrap().sent
    }
}

impl State {
    fn report(&self, sender: SocketAddr, to: SocketAddr, packet: &[u8]) {
        let Some(reports) = self.reports.get(&sender).cloned() else {
            return;
        };
        let (delay, quoted) = (2 * self.link.latency, packet[..packet.len().min(500)].to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            reports.unreachable(to, &quoted);
        });
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.sent += 1;
        if self.killed.contains(&from) {
            return;
        }
        if self.killed.contains(&to) || self.slandered.contains(&to) {
            self.report(from, to, bytes);
        }
        let lost =
            self.silent || self.killed.contains(&to) || bytes.len() > MTU || self.random.u32(0..1000) < self.link.loss;
        if lost {
            return;
        }
        let now = Instant::now();
        let mut leaves = now;
        if let Some(bandwidth) = self.link.bandwidth {
            let line = if self.is_shared { to } else { from };
            let free = self.busy_until.get(&line).copied().unwrap_or(now).max(now);
            let time_for = |bytes: u64| Duration::from_nanos(bytes * 1_000_000_000 / bandwidth);
            if free - now > time_for(self.link.queue) {
                return;
            }
            leaves = free + time_for(bytes.len() as u64);
            self.busy_until.insert(line, leaves);
        }
        let number = self.sent;
        let due = leaves + self.link.latency;
        if let Some(inbox) = self.inboxes.get_mut(&to) {
            inbox.packets.push(Reverse(Packet {
                due,
                number,
                from,
                bytes: bytes.to_vec(),
            }));
            if let Some(reader) = inbox.reader.take() {
                reader.wake();
            }
        }
    }
}

/// A socket of a [`Net`].
pub(crate) struct Socket {
    net: Net,
    addr: SocketAddr,
    alarm: Mutex<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Sends bytes that are not QUIC.
    pub(crate) fn send_raw(&self, to: SocketAddr, bytes: &[u8]) {
        self.net.0.lock().unwrap().send(self.addr, to, bytes);
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Some(error) = self.net.0.lock().unwrap().errors.get(&self.addr) {
            return Err(io::Error::from_raw_os_error(*error));
        }
        self.send_raw(transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut alarm = self.alarm.lock().unwrap();
        loop {
            let mut state = self.net.0.lock().unwrap();
            let inbox = state.inboxes.get_mut(&self.addr).expect("the socket has an inbox");
            let now = Instant::now();
            let mut received = 0;
            while received < bufs.len().min(meta.len())
                && inbox.packets.peek().is_some_and(|Reverse(packet)| packet.due <= now)
            {
                let Reverse(packet) = inbox.packets.pop().expect("just seen");
                let len = packet.bytes.len();
                bufs[received][..len].copy_from_slice(&packet.bytes);
                meta[received] = RecvMeta::default();
                meta[received].addr = packet.from;
                meta[received].len = len;
                meta[received].stride = len;
                received += 1;
            }
            if received > 0 {
                return Poll::Ready(Ok(received));
            }
            inbox.reader = Some(cx.waker().clone());
            let Some(Reverse(next)) = inbox.packets.peek() else {
                return Poll::Pending;
            };
            let due = next.due;
            drop(state);
            alarm.as_mut().reset(due);
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.addr).finish()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
