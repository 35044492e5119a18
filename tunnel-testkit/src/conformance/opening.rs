//! Law 1: heads and answers.

use std::time::Duration;

use tokio::join;
use tunnel_core::{Confirmation, Inbound, OpenError, Refusal, RefusalKind, StreamHead, Target, proto::TraceContext};

use super::{
    fixtures::{head, target},
    harness::Harness,
    seen::{OrSeen, Seen, Verdict, ensure, within},
    world::World,
};
use crate::Side;

pub(super) async fn law_01_head_and_answer(harness: &dyn Harness, first: Side) -> Verdict {
    let world = World::new(harness, first).await?;
    if !world.can_open() {
        let opened = within(
            world.prompt,
            "an open at an end that opens nothing",
            world.near.open(head("no")),
        )
        .await?;
        return match opened {
            Err(error @ OpenError::Unsupported(_)) if error.is_undelivered() => Ok(()),
            other => Err(Seen(format!("an open at an end that opens nothing gave {other:?}"))),
        };
    }
    for head in heads()? {
        if !world.is_own() && !matches!(head.target, Target::Tcp(_)) {
            unfit(&world, head).await?;
            continue;
        }
        let (opened, seen) = within(world.prompt, "opening a stream", async {
            join!(world.near.open(head.clone()), async {
                let inbound = world.far.accept().await.or_seen("accepting a stream")?;
                let seen = inbound.head().clone();
                // Kept until the answer is there: a reset may overtake it.
                let accepted = inbound.accept().await.or_seen("answering a stream")?;
                Ok((seen, accepted))
            })
        })
        .await?;
        opened.or_seen("opening a stream")?;
        let (seen, _accepted) = seen?;
        let expected = if world.is_own() { head.clone() } else { essence(&head) };
        let arrived = if world.is_own() { seen.clone() } else { essence(&seen) };
        ensure!(arrived == expected, "the head {head:?} arrived as {seen:?}");
    }
    if world.near.capabilities().confirmation == Confirmation::Optimistic {
        return Ok(());
    }
    for kind in RefusalKind::ALL {
        for text in ["", "connect to 192.0.2.7:80: näher geht es nicht"] {
            let refusal = Refusal::new(*kind, text);
            refused(&world, refusal.clone(), |inbound| inbound.refuse(refusal)).await?;
        }
    }
    world.no_streams().await
}

/// What a foreign protocol carries of a head.
fn essence(head: &StreamHead) -> StreamHead {
    let mut essence = StreamHead::new(head.target.clone());
    essence.client = head.client;
    essence.trace = head.trace.clone();
    essence
}

/// Opens a stream whose target a foreign protocol has no name for.
async fn unfit(world: &World, head: StreamHead) -> Verdict {
    let target = head.target.clone();
    match within(world.prompt, "the refusal of a target", world.near.open(head)).await? {
        Err(OpenError::Refused(refusal)) if refusal.kind == RefusalKind::HttpRequestError => Ok(()),
        Err(other) => Err(Seen(format!("{target}, which has no name there, gave: {other}"))),
        Ok(_) => Err(Seen(format!("{target}, which has no name there, was opened"))),
    }
}

/// Opens a stream, which `refuse` gets rid of, and expects the refusal.
pub(super) async fn refused(world: &World, expected: Refusal, refuse: impl FnOnce(Box<dyn Inbound>)) -> Verdict {
    let (opened, accepted) = within(world.prompt, format_args!("a refusal ({expected})"), async {
        join!(world.near.open(head("refused")), async {
            refuse(world.far.accept().await.or_seen("accepting a stream")?);
            Ok(())
        })
    })
    .await?;
    accepted?;
    match opened {
        Err(OpenError::Refused(refusal)) => {
            let same_kind = refusal.kind == expected.kind;
            let same_text = if world.is_own() {
                expected.text.is_empty() || refusal.text == expected.text
            } else {
                let ascii = |c: char| if c.is_ascii() { c } else { '?' };
                let said: String = expected.text.as_str().chars().map(ascii).collect();
                refusal.text.as_str().contains(&said)
            };
            ensure!(
                same_kind && same_text,
                "the refusal `{expected}` came back as `{refusal}`"
            );
            Ok(())
        }
        Err(other) => Err(Seen(format!(
            "the refusal `{expected}` came back as the error: {other}"
        ))),
        Ok(_) => Err(Seen(format!("the refusal `{expected}` came back as a stream"))),
    }
}

/// Heads of every form: nothing but a target, everything, and the longest.
fn heads() -> Verdict<Vec<StreamHead>> {
    let targets = [
        "tcp://example.com:443",
        "tcp://192.0.2.1:1",
        "tcp://[2001:db8::1]:65535",
        "udp://dns.test:53",
        "unix:///run/app.sock",
    ];
    let mut heads: Vec<_> = targets.iter().map(|text| StreamHead::new(target(text))).collect();

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for client in ["198.51.100.7:4711", "[2001:db8::7]:4711"] {
        let mut head = head("full");
        head.client = Some(client.parse().or_seen("parsing an address")?);
        head.deadline = Some(Duration::from_millis(12_345));
        head.trace = Some(TraceContext::new(trace, "vendor=value").or_seen("making a trace context")?);
        ensure!(head.metadata.push("name", "again, naïvely"), "metadata fits");
        ensure!(head.metadata.push("empty", ""), "metadata fits");
        heads.push(head);
    }
    let mut long = head("long");
    ensure!(long.metadata.push("value", &"v".repeat(4096)), "metadata fits");
    heads.push(long);
    Ok(heads)
}
