// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Handshake, restart and wake-up of channels, explored to the end: every order of the accesses of two ends, with
//! crashes between any two of them. Properties 1 to 5 and 7 of Documentation/channel-protocol.md hold in each state.
//!
//! Set IVSHMEM_CHANNEL_CRASHES to a number to have that many more crashes in each exploration.

mod channel_ends;
mod channel_explorer;

use channel_explorer::{explore, Crash, Fault, Scenario};

/// Explores it all, in not less than so many states.
fn explored(name: &str, scenario: Scenario, at_least: usize) {
    let more = std::env::var("IVSHMEM_CHANNEL_CRASHES").ok();
    let more: u8 = more.map_or(0, |more| more.parse().expect("a number"));
    let crashes = scenario.crashes.map(|crashes| match crashes {
        0 => 0,
        crashes => crashes + more,
    });
    let explored = explore(&Scenario {
        crashes,
        ..scenario
    });
    println!(
        "{name}: {} states, {} of them final",
        explored.states, explored.finals
    );
    assert!(
        explored.states >= at_least && explored.finals > 0,
        "{explored:?}"
    );
}

#[test]
fn two_ends_meet_and_exchange_messages() {
    explored("exchange", Scenario::default(), 30_000);
}

#[test]
fn ends_that_boot_on_garbage_meet() {
    let scenario = Scenario {
        claims: true,
        ..Scenario::default()
    };
    explored("garbage", scenario, 30_000);
}

#[test]
fn ends_that_restart_in_the_handshake_meet() {
    let scenario = Scenario {
        messages: [0, 0],
        crashes: [1, 1],
        ..Scenario::default()
    };
    explored("handshake", scenario, 300_000);
}

#[test]
fn ends_that_boot_again_in_the_handshake_meet() {
    let scenario = Scenario {
        messages: [0, 0],
        crashes: [0, 1],
        claims: true,
        ..Scenario::default()
    };
    explored("handshake on garbage", scenario, 40_000);
}

#[test]
fn a_receiver_that_restarts_gets_what_its_session_is_sent() {
    let scenario = Scenario {
        messages: [1, 0],
        crashes: [0, 1],
        ..Scenario::default()
    };
    explored("receiver restarts", scenario, 100_000);
}

#[test]
fn a_sender_that_restarts_leaves_nothing_behind() {
    let scenario = Scenario {
        messages: [1, 0],
        crashes: [1, 0],
        ..Scenario::default()
    };
    explored("sender restarts", scenario, 100_000);
}

#[test]
fn a_restart_while_both_send_loses_no_session() {
    let scenario = Scenario {
        messages: [1, 1],
        crashes: [0, 1],
        ..Scenario::default()
    };
    explored("both send, one restarts", scenario, 400_000);
}

#[test]
fn restarts_of_both_confuse_nobody() {
    let scenario = Scenario {
        messages: [1, 0],
        crashes: [1, 1],
        ..Scenario::default()
    };
    explored("both restart", scenario, 1_000_000);
}

#[test]
fn a_sender_waits_for_room_and_goes_on() {
    let scenario = Scenario {
        messages: [3, 0],
        length: 40,
        ..Scenario::default()
    };
    explored("room", scenario, 50_000);
}

#[test]
fn a_sender_waits_for_confirmations_and_goes_on() {
    let scenario = Scenario {
        messages: [3, 0],
        unconfirmed: 1,
        ..Scenario::default()
    };
    explored("unconfirmed", scenario, 20_000);
}

#[test]
fn everything_arrives_before_the_end() {
    let scenario = Scenario {
        messages: [2, 0],
        closes: [true, false],
        ..Scenario::default()
    };
    explored("close", scenario, 15_000);
}

#[test]
fn both_close_at_once() {
    let scenario = Scenario {
        messages: [1, 1],
        closes: [true, true],
        ..Scenario::default()
    };
    explored("both close", scenario, 20_000);
}

#[test]
fn a_cell_that_goes_without_a_word_leaves_nobody_up() {
    let scenario = Scenario {
        messages: [1, 0],
        crashes: [0, 1],
        crash: Crash::Gone,
        ..Scenario::default()
    };
    explored("cell gone", scenario, 5_000);
}

#[test]
fn a_cell_that_is_reset_comes_back() {
    let scenario = Scenario {
        messages: [1, 0],
        crashes: [1, 0],
        crash: Crash::Reset,
        ..Scenario::default()
    };
    explored("cell reset", scenario, 100_000);
}

#[test]
#[should_panic(expected = "sleeps")]
fn sleeping_without_a_second_look_is_noticed() {
    explore(&Scenario {
        fault: Fault::Sleepy,
        ..Scenario::default()
    });
}

#[test]
#[should_panic(expected = "sleeps with work to do")]
fn not_asking_for_confirmations_is_noticed() {
    explore(&Scenario {
        messages: [2, 0],
        unconfirmed: 1,
        fault: Fault::Unasked,
        ..Scenario::default()
    });
}

#[test]
#[should_panic(expected = "end 1 ends as Broken")]
fn not_seeing_a_restart_is_noticed() {
    explore(&Scenario {
        messages: [1, 0],
        crashes: [1, 1],
        fault: Fault::Blind,
        ..Scenario::default()
    });
}

#[test]
#[should_panic]
fn a_start_that_keeps_its_epoch_is_noticed() {
    explore(&Scenario {
        messages: [1, 0],
        crashes: [1, 0],
        fault: Fault::KeepsEpoch,
        ..Scenario::default()
    });
}

#[test]
#[should_panic(expected = "used again")]
fn an_epoch_that_is_used_again_is_noticed() {
    explore(&Scenario {
        messages: [0, 0],
        crashes: [0, 2],
        claims: true,
        fault: Fault::Forgets,
        ..Scenario::default()
    });
}
