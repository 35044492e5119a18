//! Every law can fail: carriers with one fault each, rejected by the law that is there for it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod admitting;
mod early;
mod ending;
mod fault;
mod halves;
mod moving;
mod opening;
mod sharing;

use std::sync::Arc;

use tunnel_testkit::{
    Side,
    conformance::{LAWS, check},
    memory::MemoryHarness,
};

use self::fault::{Fault, Faulty};

/// Expects a law to reject a fault, in these roles and with words that contain `seen`.
async fn rejects(law: u8, roles: &[Side], make: fn() -> Arc<dyn Fault>, seen: &str) {
    for (slow, harness) in [(false, MemoryHarness::instant()), (true, MemoryHarness::slow())] {
        for side in roles {
            let harness = Faulty::new(harness.clone(), make);
            match check(law, &harness, *side).await {
                Ok(()) => panic!("law {law} accepts {harness:?} (slow wire: {slow}, first: {side})"),
                Err(violation) => assert!(
                    violation.seen.contains(seen),
                    "law {law} rejects {harness:?} (slow wire: {slow}, first: {side}) for another reason: {violation}"
                ),
            }
        }
    }
}

/// Makes a test of each fault: its name, the law, what the law says of it, and how it is made.
macro_rules! mutations {
    ($($name:ident: law $law:literal $(in $roles:expr)?, $seen:literal, $fault:expr;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                #[allow(unused_variables)] // replaced where a law looks at one role
                let roles: &[Side] = &Side::BOTH;
                $( let roles: &[Side] = &[$roles]; )?
                rejects($law, roles, || Arc::new($fault), $seen).await;
            }
        )*
    };
}

mutations! {
    // What opens a stream.
    a_head_without_metadata: law 1, "arrived as", opening::HeadWithoutMetadata;
    a_refusal_without_text: law 1, "came back as", opening::RefusalWithoutText;
    a_refusal_of_another_kind: law 1, "came back as", opening::RefusalOfAnotherKind;
    a_refusal_that_opens: law 1, "came back as a stream", opening::RefusalThatOpens;

    // How bytes move.
    the_last_byte_is_lost: law 2, "a clean end after", moving::LosesLastByte;
    bytes_change_places: law 2, "wrong bytes", moving::SwapsBytes;
    more_is_given_than_was_asked_for: law 2, "were asked for", moving::IgnoresMax;
    finish_forgets_what_it_holds: law 3, "a clean end after", moving::FinishWithoutFlush;
    finish_ends_with_its_sender: law 3, "failed", moving::FinishDiesWithSender;
    finish_ends_both_directions: law 4, "a clean end after", moving::FinishEndsBoth;

    // How streams end.
    a_reset_is_swallowed: law 5, "nothing within", ending::SwallowsReset;
    a_reset_wakes_nobody: law 5, "nothing within", ending::ResetWakesNobody;
    a_reset_becomes_a_clean_end: law 5, "was seen as a clean end", ending::ResetAsCleanEnd;
    a_reset_loses_its_code: law 5, "was seen as", ending::ResetWithoutCode;
    a_reset_waits_for_credit: law 5, "nothing within", ending::ResetWaitsForCredit;
    a_reset_needs_room: law 5, "for a receiver without room", ending::ResetNeedsRoom;
    a_stop_is_ignored: law 5, "nothing within", ending::IgnoresStop;
    a_stop_loses_its_code: law 5, "poll_stopped gave", ending::StopWithoutCode;
    a_stop_does_not_reach_a_blocked_sender: law 5, "nothing within", ending::StopMissesBlockedSender;
    a_dropped_sender_finishes: law 6, "was seen as a clean end", ending::DroppedSenderFinishes;
    a_dropped_receiver_is_forgotten: law 6, "nothing within", ending::DroppedReceiverForgotten;
    a_dropped_inbound_is_forgotten: law 6, "nothing within", ending::DroppedInboundForgotten;
    a_dropped_connection_lives_on: law 6, "last handle", ending::DroppedConnectionLivesOn;

    // What is left behind.
    a_dropped_accept_loses_its_stream: law 7, "after an accept was dropped", opening::AcceptLosesStream;
    a_dropped_open_leaks_its_stream: law 7, "streams", opening::OpenLeaksStream;
    a_dropped_open_is_not_told: law 7, "an opener has given up", opening::CancelUnnoticed;
    a_dropped_answer_leaves_the_opener_waiting: law 7, "whose answer was dropped", opening::AnswerLeavesOpenerWaiting;
    a_dropped_dial_leaks_its_connection: law 7 in Side::Agent, "whose dial was dropped", admitting::DialLeaksConnection;
    a_dropped_accept_loses_its_attempt: law 7 in Side::Server, "a listener's accept was",
        admitting::AcceptLosesAttempt;
    a_dropped_handshake_leaves_the_agent_connected: law 7 in Side::Server, "whose handshake was dropped",
        admitting::HandshakeLeaksConnection;

    // What streams owe each other.
    a_sender_buffers_without_bound: law 8, "while nobody read", moving::SenderWithoutBound;
    a_receiver_buffers_without_bound: law 8, "while nobody read", moving::ReceiverWithoutBound;
    room_wakes_nobody: law 8, "room where all was read: nothing within", sharing::RoomWakesNobody;
    credit_is_shared: law 9, "nothing within", sharing::SharedCredit::default();
    a_stalled_stream_costs_a_quarter: law 9, "bytes took", sharing::StalledStreamsCost::throughput();
    a_stalled_stream_delays: law 9, "an exchange took", sharing::StalledStreamsCost::latency();
    there_is_no_stream_limit: law 10, "beyond the limit", sharing::NoStreamLimit;
    an_open_that_was_given_up_takes_a_place: law 10, "beyond the limit was given up", opening::OpenLeaksStream;
    the_last_to_wait_is_served_first: law 10, "the place went to", sharing::LastComeFirstServed::default();
    small_streams_starve: law 10, "would be fair", sharing::SmallStreamsStarve::default();
    room_is_kept_for_who_does_not_come: law 10, "send nothing: nothing within", sharing::RoomIsKept::default();

    // How connections end.
    a_receiver_misses_the_cut: law 11, "still wait", ending::ReceiverMissesEnd;
    an_open_misses_the_cut: law 11, "still wait", ending::OpenMissesEnd;
    a_cut_blames_this_side: law 11, "blames", ending::CutBlamesThisSide;
    a_silent_peer_is_never_noticed: law 12, "silent connection", ending::SilenceUnnoticed;
    an_idle_peer_is_killed: law 12, "that was idle", ending::KillsIdle;
    a_busy_peer_is_killed: law 12, "no answer", ending::KillsBusy::default();
    a_drain_is_ignored: law 13, "the drain at both ends", ending::IgnoresDrain;
    a_drain_closes_at_once: law 13, "drained (0x2)", ending::DrainCloses;
    a_drained_connection_stays: law 13, "the end of a drained connection", ending::DrainedStays;

    // Who gets in.
    the_handshake_is_part_of_accept: law 14 in Side::Agent, "beside stuck handshakes", admitting::HandshakeInAccept;
    a_refused_attempt_is_not_told: law 14 in Side::Agent, "a dial that was refused", admitting::RefusedNotTold;
    a_dial_ignores_its_deadline: law 14 in Side::Server, "a dial at its deadline", admitting::DialIgnoresDeadline;
    the_identity_is_what_was_claimed: law 15, "knows the", admitting::ClaimedIdentity;
    the_credential_is_kept: law 15, "the server keeps the claim", admitting::KeepsCredential::default();
    a_rejected_agent_gets_in: law 15, "a rejected agent has a connection", admitting::RejectedGetsIn;
    a_rejection_loses_its_words: law 15, "arrived as", admitting::RejectionWithoutWords;
    everybody_is_trusted: law 15, "an untrusted", admitting::TrustsEverybody;

    // What is counted.
    bytes_are_miscounted: law 16, "says", sharing::MiscountsBytes;
    streams_are_miscounted: law 16, "says", sharing::MiscountsStreams;
    aborted_streams_keep_their_place: law 16, "streams", sharing::AbortedKeepPlace::default();
    aborted_streams_keep_their_credit: law 16, "the credit was", sharing::AbortedKeepCredit::default();
    aborted_streams_shrink_windows: law 16, "within", sharing::AbortedShrinkWindows::default();

    // What is sent with an open.
    early_bytes_are_lost: law 17, "wrong bytes", early::Lost;
    early_bytes_come_twice: law 17, "wrong bytes", early::SentTwice;
    early_bytes_are_sent_and_left: law 17, "wrong bytes", early::SentAndLeft;
    early_bytes_come_last: law 17, "wrong bytes", early::SentLast;
    early_bytes_are_not_counted: law 17, "says that it has sent", early::NotCounted::default();
    refused_opens_with_bytes_shrink_windows: law 17, "refusals of opens with bytes", sharing::RefusedShrinkWindows::default();
    a_dropped_open_with_bytes_leaks_its_stream: law 17, "streams", opening::OpenLeaksStream;
}

#[derive(Debug)]
struct NoFault;

impl Fault for NoFault {}

#[tokio::test(start_paused = true)]
async fn without_a_fault_the_wrappers_hold_to_every_law() {
    for law in LAWS {
        for side in Side::BOTH {
            let harness = Faulty::new(MemoryHarness::instant(), || Arc::new(NoFault));
            law.check(&harness, side).await.unwrap();
        }
    }
}

#[test]
fn there_are_seventeen_laws() {
    assert!(LAWS.iter().map(|law| law.number).eq(1..=17));
}
