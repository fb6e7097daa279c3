//! The traces on which @upstash/ratelimit's documented rule and ours must agree, and those
//! on which they are known not to. `tests/dev/ratelimit-peer.test.mjs` runs the real
//! package on the same file, so that neither test needs the other's program.

use std::rc::Rc;

use edgeweir::limit::Verdict;
use edgeweir::policy::{By, Cost, Limit};
use edgeweir::ports::{Redis, Store};
use serde::Deserialize;

use crate::sim::Passage;
use crate::sim::clock::Sim;
use crate::sim::redis::FakeRedis;
use crate::sim::traffic::Isolate;

/// A boundary of every window in the file.
const START_MS: u64 = 1_770_000_000_000;
const TIMEOUT_MS: u64 = 150;
/// Of one way, so that requests four milliseconds apart never meet.
const LEG_US: u64 = 1_000;

#[derive(Deserialize)]
struct Traces {
    agree: Vec<Trace<Agreed>>,
    differ: Vec<Trace<Differing>>,
}

#[derive(Deserialize)]
struct Trace<G> {
    name: String,
    requests: u32,
    window_ms: u64,
    #[serde(default = "one_right_clock")]
    skews_ms: Vec<i64>,
    groups: Vec<G>,
}

#[derive(Deserialize)]
struct Agreed {
    #[serde(flatten)]
    group: Group,
    admitted: usize,
}

#[derive(Deserialize)]
struct Differing {
    #[serde(flatten)]
    group: Group,
    ours: usize,
}

/// Requests of one id at even distances.
#[derive(Deserialize)]
struct Group {
    at_ms: u64,
    count: u64,
    every_ms: u64,
    #[serde(default)]
    isolate: usize,
    #[serde(default = "one")]
    cost: u32,
}

fn one_right_clock() -> Vec<i64> {
    vec![0]
}

fn one() -> u32 {
    1
}

fn traces() -> Traces {
    serde_json::from_str(include_str!("../dev/ratelimit-peer.json")).unwrap()
}

/// What became of each request of each group.
fn run<'g, G: 'g>(
    trace: &'g Trace<G>,
    group: impl Fn(&'g G) -> &'g Group,
) -> impl Iterator<Item = (&'g G, Vec<bool>)> {
    let sim = Sim::new(START_MS);
    let redis = Rc::new(FakeRedis::default());
    let isolates: Vec<Isolate> = (trace.skews_ms.iter())
        .map(|skew_ms| {
            let isolate = Isolate::new(&sim, &redis, |_| Passage::new(LEG_US, LEG_US));
            isolate.edge.skew_us.set(skew_ms * 1000);
            isolate
        })
        .collect();
    let limit = Limit::new("peer", trace.requests, trace.window_ms, By::Ip);
    trace.groups.iter().map(move |one| {
        let group = group(one);
        let admitted = (0..group.count).map(|number| {
            let limit = Limit {
                cost: Cost::flat(group.cost),
                ..limit.clone()
            };
            let at_us = (START_MS + group.at_ms + number * group.every_ms) * 1000;
            let (isolate, inner) = (isolates[group.isolate].clone(), sim.clone());
            sim.block_on(async move {
                assert!(inner.now_us() <= at_us, "the request before is not over");
                inner.sleep_until(at_us).await;
                let asked = [(limit, "id".to_owned())];
                let checked = isolate.check(1, &asked, TIMEOUT_MS).await;
                assert!(!checked.degraded);
                for (shard, batch) in &checked.deferred {
                    let sent = isolate
                        .edge
                        .pipeline(Store::Limits(*shard), batch, TIMEOUT_MS)
                        .await;
                    assert!(sent.is_ok());
                }
                checked.verdict == Verdict::Admitted
            })
        });
        (one, admitted.collect())
    })
}

/// Each group's first requests are admitted, and no others.
#[test]
fn where_the_peers_documented_rule_and_ours_agree() {
    for trace in &traces().agree {
        for (group, admitted) in run(trace, |group| &group.group) {
            let expected: Vec<bool> = (0..admitted.len()).map(|at| at < group.admitted).collect();
            assert_eq!(
                admitted, expected,
                "{}, at {} ms",
                trace.name, group.group.at_ms
            );
        }
    }
}

#[test]
fn where_they_differ_ours_does_what_the_list_says() {
    for trace in &traces().differ {
        for (group, admitted) in run(trace, |group| &group.group) {
            let admitted = admitted.into_iter().filter(|admitted| *admitted).count();
            assert_eq!(
                admitted, group.ours,
                "{}, at {} ms",
                trace.name, group.group.at_ms
            );
        }
    }
}
