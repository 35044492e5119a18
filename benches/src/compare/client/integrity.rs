//! Bytes compared with those that were sent, for streams of every kind.

use fastrand::Rng;
use tokio::{io::AsyncReadExt as _, task::JoinSet};

use super::{ERRORS, Job, Outcome, within};
use crate::target::{CHUNK, Command, checksum_of, pattern::pattern_checksum, send_pattern};

/// Streams at once, and how many each task has one after another.
const AT_ONCE: u64 = 4;
const ROUNDS: u64 = 15;

/// Most bytes of a stream.
const LONGEST: u64 = 2 << 20;

/// Makes all rounds; what is not answered at all is failed, what is answered wrongly a mismatch.
pub(super) async fn measure(job: &Job, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let job = job.clone();
        tasks.spawn(async move {
            let mut random = Rng::with_seed(job.seed.wrapping_mul(AT_ONCE) + task);
            let mut results = Vec::new();
            for _ in 0..ROUNDS {
                results.push(within("a round of integrity", round(&job, &mut random)).await);
            }
            results
        });
    }
    let (mut rounds, mut mismatches, mut bytes) = (0.0, 0.0, 0);
    for result in tasks.join_all().await.into_iter().flatten() {
        rounds += 1.0;
        match result {
            Ok(Round { len, wrong: None }) => bytes += len,
            Ok(Round { wrong: Some(what), .. }) => {
                mismatches += 1.0;
                outcome.errors.push(what);
            }
            Err(error) => outcome.fail(&error),
        }
    }
    outcome.errors.truncate(ERRORS);
    outcome.set("rounds", rounds);
    outcome.set("mismatches", mismatches);
    outcome.set("mb", bytes as f64 / 1e6);
    Ok(())
}

/// What became of a stream: the bytes that it carried, and what was wrong with them.
struct Round {
    len: u64,
    wrong: Option<String>,
}

async fn round(job: &Job, random: &mut Rng) -> anyhow::Result<Round> {
    // Short ones are as frequent as long ones.
    let most = 1 << random.u32(0..=LONGEST.ilog2());
    let len = random.u64(0..=most);
    let expected = pattern_checksum(len);
    let mut pieces = random.fork();
    match random.u8(0..3) {
        0 => {
            // Half-closed by the client while the answer is under way.
            let socket = job.open(Command::Echo).await?;
            let (mut read, mut write) = socket.into_split();
            let sent = send_pattern(&mut write, len, || random.usize(1..=CHUNK));
            let received = checksum_of(&mut read, u64::MAX, || pieces.usize(1..=CHUNK));
            let ((), (sum, total)) = tokio::try_join!(sent, received)?;
            Ok(compare("echo", len, expected, sum, total))
        }
        1 => {
            // Closed by the target.
            let mut socket = job.open(Command::Pieces(len, random.u64(..))).await?;
            let (sum, total) = checksum_of(&mut socket, u64::MAX, || pieces.usize(1..=CHUNK)).await?;
            Ok(compare("download", len, expected, sum, total))
        }
        _ => {
            // Answered only after the client's half-close.
            let socket = job.open(Command::Upload).await?;
            let (mut read, mut write) = socket.into_split();
            send_pattern(&mut write, len, || random.usize(1..=CHUNK)).await?;
            let sum = read.read_u64().await?;
            let total = 8 + read.read(&mut [0]).await? as u64;
            Ok(match compare("upload", len, expected, sum, len) {
                Round { wrong: None, .. } if total != 8 => Round {
                    len,
                    wrong: Some("upload: there is more than the answer".to_owned()),
                },
                round => round,
            })
        }
    }
}

fn compare(what: &str, len: u64, expected: u64, sum: u64, total: u64) -> Round {
    let wrong = if total != len {
        Some(format!("{what}: {total} of {len} bytes came, then the end"))
    } else if sum != expected {
        Some(format!(
            "{what}: the {len} bytes that came are not those that were sent"
        ))
    } else {
        None
    };
    Round { len, wrong }
}
