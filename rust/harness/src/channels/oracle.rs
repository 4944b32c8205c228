// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be true of the logs of two sides of which one was restarted. What the lines mean stands
//! in `tests/guest/src/channels/log.rs`.

use crate::tap::TestResult;
use std::collections::{BTreeMap, BTreeSet};

/// What one side says about one of its sessions.
#[derive(Debug, Default)]
struct Session {
    /// The other side's session whose messages came in it, and the number of the last one.
    peer: Option<(u64, u64)>,
    confirmed: u64,
    ended: Option<String>,
}

/// What one side's log says.
#[derive(Debug, Default)]
struct Side {
    sessions: BTreeMap<u64, Session>,
    messages: u64,
    /// What must not be, by what it contradicts.
    broken: Vec<String>,
    misdelivered: Vec<String>,
}

impl Side {
    fn read(name: &str, log: &str) -> Self {
        let mut side = Self::default();
        for (index, line) in log.lines().enumerate() {
            let at = format!("{name}: line {}: `{line}`", index + 1);
            match side.line(line) {
                None => side.broken.push(format!("{at} says nothing")),
                Some(Ok(())) => {}
                Some(Err(reason)) => side.misdelivered.push(format!("{at}: {reason}")),
            }
        }
        side
    }

    /// Takes in a line: none if it cannot be understood, an error if it must not be.
    fn line(&mut self, line: &str) -> Option<Result<(), String>> {
        let (word, rest) = line.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        let id = |at: usize| u64::from_str_radix(words.get(at)?, 16).ok();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        if word == "wrong" {
            return Some(Err("what came is not what was sent".into()));
        }
        let own = id(0)?;
        if word == "session" {
            let before = self.sessions.insert(own, Session::default());
            return Some(before.map_or(Ok(()), |_| Err("it was there before".into())));
        }
        let session = self.sessions.get_mut(&own)?;
        let done = match word {
            _ if session.ended.is_some() => Err("the session has ended".into()),
            "got" => {
                let (peer, first, last) = (id(1)?, number(2)?, number(3)?);
                let (known, before) = *session.peer.get_or_insert((peer, 0));
                session.peer = Some((known, last));
                self.messages += (last + 1).saturating_sub(first);
                if known != peer {
                    Err(format!("the session had messages of {known:x}"))
                } else if first != before + 1 || last < first {
                    Err(format!("after message {before}"))
                } else {
                    Ok(())
                }
            }
            "confirmed" => {
                let before = std::mem::replace(&mut session.confirmed, number(1)?);
                if session.confirmed < before {
                    Err(format!("{before} were confirmed before"))
                } else {
                    Ok(())
                }
            }
            "ended" => {
                session.ended = Some((*words.get(1)?).into());
                Ok(())
            }
            _ => return None,
        };
        Some(done)
    }

    /// Sessions that have ended.
    fn ended(&self) -> u64 {
        let ended = |session: &&Session| session.ended.is_some();
        self.sessions.values().filter(ended).count() as u64
    }
}

/// What each side has that contradicts the other: messages confirmed and not in the receiver's log.
fn unfounded(name: &str, sender: &Side, receiver: &Side) -> Vec<String> {
    let received: BTreeMap<u64, u64> = receiver
        .sessions
        .values()
        .filter_map(|it| it.peer)
        .collect();
    let sessions = sender.sessions.iter();
    sessions
        .filter_map(|(id, session)| {
            let there = received.get(id).copied().unwrap_or(0);
            (session.confirmed > there).then(|| {
                let confirmed = session.confirmed;
                format!(
                    "{name}: session {id:x}: {confirmed} confirmed, {there} in the receiver's log"
                )
            })
        })
        .collect()
}

/// Messages of a session that came in two of the other side's, and sessions that do not belong together.
fn mismatched(name: &str, side: &Side, other: &Side) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen = BTreeSet::new();
    for (id, session) in &side.sessions {
        let Some((peer, _)) = session.peer else {
            continue;
        };
        if !seen.insert(peer) {
            reasons.push(format!("{name}: session {peer:x} came in two of ours"));
        }
        match other.sessions.get(&peer).and_then(|it| it.peer) {
            Some((back, _)) if back != *id => reasons.push(format!(
                "{name}: session {id:x} has messages of {peer:x}, which has some of {back:x}"
            )),
            _ => {}
        }
    }
    reasons
}

/// Judges the logs of the side that stayed and of the one that was restarted `sure` times after both had
/// a session, `early` times perhaps before that, and at last was finished in good order.
pub(super) fn judge(stays: &str, restarts: &str, sure: u64, early: u64) -> Vec<TestResult> {
    let (stays, restarts) = (Side::read("stays", stays), Side::read("restarts", restarts));
    let mut delivered = Vec::new();
    let mut logs = Vec::new();
    for side in [&stays, &restarts] {
        delivered.extend(side.misdelivered.iter().cloned());
        logs.extend(side.broken.iter().cloned());
    }
    delivered.extend(mismatched("stays", &stays, &restarts));
    delivered.extend(mismatched("restarts", &restarts, &stays));
    let mut confirmed = unfounded("stays", &stays, &restarts);
    confirmed.extend(unfounded("restarts", &restarts, &stays));
    let mut ended = Vec::new();
    // The last session ends too.
    let (least, most) = (sure + 1, sure + early + 1);
    if !(least..=most).contains(&stays.ended()) {
        let seen = stays.ended();
        ended.push(format!(
            "{seen} ended sessions were seen, not {least} to {most}"
        ));
    }
    for (id, session) in &stays.sessions {
        match session.ended.as_deref() {
            Some("reset" | "closed") => {}
            Some(why) => ended.push(format!("session {id:x} ended as {why}")),
            None => ended.push(format!("session {id:x} has not ended")),
        }
    }
    let (there, back) = (stays.messages, restarts.messages);
    if there < sure || back < sure {
        logs.push(format!("only {there} and {back} messages came"));
    }
    let count = sure + early;
    vec![
        TestResult::from_reasons(
            format!("{count} restarts: each is seen as exactly one ended session on the other side, which connects again"),
            ended,
        ),
        TestResult::from_reasons(
            format!("{count} restarts: 0 lost, duplicated, reordered, corrupted within a session, and none of an old session in a new one"),
            delivered,
        ),
        TestResult::from_reasons(
            format!("{count} restarts: every confirmed message is in the receiver's log"),
            confirmed,
        ),
        TestResult::from_reasons(format!("{count} restarts: both logs are complete"), logs),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAYS: &str =
        "session a1\ngot a1 b1 1 3\ngot a1 b1 4 4\nconfirmed a1 2\nended a1 reset\n\
                         session a2\ngot a2 b2 1 9\nconfirmed a2 5\nended a2 closed\n";
    const RESTARTS: &str = "session b1\nconfirmed b1 3\ngot b1 a1 1 2\n\
                            session b2\ngot b2 a2 1 7\nconfirmed b2 9\n";

    /// Which of the results failed.
    fn failed(stays: &str, restarts: &str) -> Vec<usize> {
        let results = judge(stays, restarts, 1, 0);
        (0..results.len())
            .filter(|&at| results[at].has_failed())
            .collect()
    }

    #[test]
    fn good_logs_pass() {
        assert!(failed(STAYS, RESTARTS).is_empty());
    }

    #[test]
    fn each_mistake_is_found() {
        let all = [("s", STAYS), ("r", RESTARTS)];
        for (side, from, to, result) in [
            // One ended session too few, too many, or of another kind.
            ("s", "ended a1 reset\n", "", 0),
            (
                "s",
                "ended a2 closed\n",
                "ended a2 closed\nsession a3\nended a3 reset\n",
                0,
            ),
            ("s", "ended a1 reset", "ended a1 broken", 0),
            // Lost, twice, none of this session, after the end.
            ("s", "got a1 b1 4 4", "got a1 b1 5 5", 1),
            ("s", "got a1 b1 4 4", "got a1 b1 3 4", 1),
            ("s", "got a1 b1 4 4", "got a1 b2 4 4", 1),
            ("s", "got a2 b2 1 9", "got a2 b1 1 9", 1),
            ("s", "got a1 b1 4 4", "wrong 7 damaged bytes", 1),
            ("r", "got b2 a2 1 7", "got b2 a1 1 7", 1),
            (
                "s",
                "ended a1 reset\n",
                "ended a1 reset\ngot a1 b1 5 5\n",
                1,
            ),
            ("r", "session b2", "session b1", 1),
            // Confirmed and never received.
            ("s", "confirmed a1 2", "confirmed a1 3", 2),
            ("r", "confirmed b1 3", "confirmed b1 5", 2),
            ("r", "confirmed b2 9", "confirmed b2 10", 2),
            // Damage to the logs themselves.
            ("s", "session a2\n", "sess\n", 3),
            ("r", "got b1 a1 1 2\n", "got b1 a1\n", 3),
        ] {
            let [stays, restarts] = all.map(|(name, log)| {
                assert!(name != side || log.contains(from), "{from}");
                if name == side {
                    log.replacen(from, to, 1)
                } else {
                    log.into()
                }
            });
            let failed = failed(&stays, &restarts);
            assert!(failed.contains(&result), "{from} -> {to}: {failed:?}");
        }
        assert_eq!(failed("", ""), [0, 3]);
    }
}
