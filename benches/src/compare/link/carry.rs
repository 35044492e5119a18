//! The process that is the link.

use std::{
    fs::File,
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_tun::Tun;

use super::{Link, Namespaces, shaper::Shaper};

/// The most packets under way in one direction, whatever the link says: memory is bounded.
const UNDER_WAY: usize = 64 * 1024;

const MTU: u16 = 1500;

type Packet = (Instant, Vec<u8>);

/// Makes a device in each of two namespaces, says so, and carries packets between them until it is killed.
pub async fn carry(link: Link, near: &str, far: &str, seed: u64) -> anyhow::Result<()> {
    let near = Arc::new(open(near, Namespaces::NEAR, Namespaces::FAR)?);
    let far = Arc::new(open(far, Namespaces::FAR, Namespaces::NEAR)?);
    ready();
    let mut ways = JoinSet::new();
    for (from, to, seed) in [(&near, &far, seed), (&far, &near, seed.wrapping_add(1))] {
        let (tx, rx) = sync_channel(UNDER_WAY);
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        ways.spawn(async move { take(&from, &tx, Shaper::new(link, seed)).await });
        // A thread, for it keeps time better than the runtime's timer, which counts milliseconds.
        thread::spawn(move || hand_over(&to, &rx));
    }
    while let Some(way) = ways.join_next().await {
        way??;
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // it is waited for
fn ready() {
    println!("link is ready");
}

/// A device in a namespace, made by a thread that goes there and does not come back.
fn open(namespace: &str, here: Ipv4Addr, there: Ipv4Addr) -> anyhow::Result<Tun> {
    let path = format!("/run/netns/{namespace}");
    let runtime = Handle::current();
    let made = thread::spawn(move || {
        let _runtime = runtime.enter();
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))?;
        let device = Tun::builder().name("link").address(here).destination(there);
        let device = device.mtu(MTU.into()).close_on_exec().up().build();
        let device = device
            .context("cannot make a TUN device; --link needs /dev/net/tun")?
            .pop();
        device.context("no TUN device was made")
    });
    made.join()
        .map_err(|_| anyhow!("the thread that makes a device panicked"))?
}

async fn take(from: &Tun, tx: &SyncSender<Packet>, mut shaper: Shaper) -> anyhow::Result<()> {
    let mut buffer = [0; MTU as usize];
    loop {
        let len = from.recv(&mut buffer).await?;
        if let Some(at) = shaper.admit(Instant::now(), len) {
            match tx.try_send((at, buffer[..len].to_vec())) {
                // As any queue that is full.
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Ok(()),
            }
        }
    }
}

fn hand_over(to: &Tun, rx: &Receiver<Packet>) {
    for (at, packet) in rx {
        if let Some(early) = at.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        // What the device does not take is lost, as on any link.
        let _ = to.try_send(&packet);
    }
}
