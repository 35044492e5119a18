//! How much of a peer's credit each stream gets, frame by frame.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use carrier_h2::H2Config;
use common::{World, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::mpsc,
    time::{advance, sleep},
};
use tunnel_core::{Connection, Duplex};
use tunnel_testkit::ends::head;

const PROMPT: Duration = Duration::from_secs(1);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// What HTTP/2 lets be sent of all streams at first (RFC 9113 §6.9.2).
const INITIAL: usize = 65_535;

/// The lengths of the frames that have come of each stream.
type Come = Arc<Mutex<BTreeMap<u32, Vec<usize>>>>;

/// A server whose agent is played by the test, by the frame: it answers streams, and takes what it says.
struct Scene {
    server: Arc<dyn Connection>,
    frames: mpsc::Sender<Vec<u8>>,
    come: Come,
    streams: Vec<Duplex>,
    _world: World,
}

impl Scene {
    /// With streams that have so much to send each, of which the agent takes `window` at first.
    async fn new(window: u32, streams: usize, bytes: usize) -> Self {
        let mut world = World::plain(H2Config::default());
        let (io, server) = raw::agent(&mut world).await;
        let (mut rx, mut tx) = split(io);
        let (frames, mut queue) = mpsc::channel::<Vec<u8>>(1024);
        tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                tx.write_all(&frame).await.unwrap();
            }
        });
        let come = Come::default();
        let (answers, heard) = (frames.clone(), Arc::clone(&come));
        tokio::spawn(async move {
            rx.read_exact(&mut [0; 24]).await.unwrap();
            loop {
                let mut header = [0; 9];
                rx.read_exact(&mut header).await.unwrap();
                let [high, middle, low, kind, flags, stream @ ..] = header;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                rx.read_exact(&mut vec![0; length]).await.unwrap();
                let stream = u32::from_be_bytes(stream);
                match kind {
                    DATA if stream > 1 => heard.lock().unwrap().entry(stream).or_default().push(length),
                    HEADERS if stream > 1 => answers.send(frame(HEADERS, 4, stream, &[0x88])).await.unwrap(),
                    SETTINGS if flags == 0 => answers.send(frame(SETTINGS, 1, 0, &[])).await.unwrap(),
                    _ => {}
                }
            }
        });
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        frames.send(frame(SETTINGS, 0, 0, &settings)).await.unwrap();
        let answer = [&[0x88, 0, 18][..], b"tunnel-max-streams", &[4], b"9999"].concat();
        frames.send(frame(HEADERS, 4, 1, &answer)).await.unwrap();
        let mut scene = Self {
            server,
            frames,
            come,
            streams: Vec::new(),
            _world: world,
        };
        for _ in 0..streams {
            let mut stream = scene.server.open(head()).await.unwrap();
            stream.tx.send_all(vec![7; bytes].into()).await.unwrap();
            scene.streams.push(stream);
        }
        scene
    }

    /// Grants credit, of a stream or of all.
    async fn grant(&self, stream: u32, bytes: u32) {
        let update = frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
        self.frames.send(update).await.unwrap();
    }

    fn come(&self) -> BTreeMap<u32, Vec<usize>> {
        std::mem::take(&mut self.come.lock().unwrap())
    }
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn sum(come: &BTreeMap<u32, Vec<usize>>) -> usize {
    come.values().flatten().sum()
}

/// Streams whose own window has opened are woken by HTTP/2 with a byte each. They do not keep it until their turn, nor
/// pass it round.
#[tokio::test(start_paused = true)]
async fn whoever_goes_on_sends_whole_frames() {
    let scene = Scene::new(1000, 66, 10_000).await;
    sleep(PROMPT).await;
    let come = scene.come();
    assert_eq!(sum(&come), INITIAL);
    for stream in come.keys() {
        scene.grant(*stream, 5000).await;
    }
    sleep(PROMPT).await;
    assert_eq!(sum(&scene.come()), 0);
    scene.grant(0, 50_000).await;
    sleep(PROMPT).await;
    let come = scene.come();
    assert_eq!(sum(&come), 50_000);
    let small: Vec<_> = come.values().flatten().filter(|bytes| **bytes < 1000).collect();
    assert!(small.len() <= 2, "{small:?}");
}

/// A few bytes of credit are sent, whoever waits for them, and then there is nothing to do.
#[tokio::test(start_paused = true)]
async fn a_little_credit_is_used_at_once() {
    let scene = Scene::new(1000, 66, 10_000).await;
    sleep(PROMPT).await;
    for stream in scene.come().keys() {
        scene.grant(*stream, 5000).await;
    }
    sleep(PROMPT).await;
    scene.grant(0, 3).await;
    for _ in 0..200 {
        // Time goes on also while somebody is busy.
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(sum(&scene.come()), 3);
}
