//! The bounded map beside a stupid one that does what SIEVE's paper says, step by step.

use edgeweir::recent::Recent;

use super::sim::{Rng, first_seed};

/// The queue as a list, the oldest first; the hand is a key.
#[derive(Default)]
struct Stupid {
    queue: Vec<(u64, bool)>,
    hand: Option<u64>,
}

impl Stupid {
    fn touch(&mut self, key: u64) -> bool {
        let found = self.queue.iter_mut().find(|(known, _)| *known == key);
        found.map(|known| known.1 = true).is_some()
    }

    fn evict(&mut self) -> Option<u64> {
        if self.queue.is_empty() {
            return None;
        }
        let place = |hand| self.queue.iter().position(|(key, _)| Some(*key) == hand);
        let mut at = place(self.hand).unwrap_or(0);
        while self.queue[at].1 {
            self.queue[at].1 = false;
            at = (at + 1) % self.queue.len();
        }
        let (gone, _) = self.queue.remove(at);
        self.hand = self.queue.get(at).map(|(key, _)| *key);
        Some(gone)
    }
}

/// The same keys are there after each of many random steps, and values are those of
/// their keys.
#[test]
fn it_forgets_what_sieve_forgets() {
    let first = first_seed();
    for seed in first..first + 60 {
        let mut rng = Rng::new(seed);
        let most = rng.between(1, 12) as usize;
        let mut map: Recent<u64> = Recent::new(most);
        let mut stupid = Stupid::default();
        let keys = rng.between(2, 30);
        for step in 0..400 {
            // Some keys come again and again.
            let key = rng.between(0, keys).min(rng.between(0, keys));
            let name = key.to_string();
            match rng.between(0, 9) {
                0 => {
                    let gone = stupid.evict();
                    assert_eq!(map.evict(), gone, "seed {seed}, step {step}");
                }
                1 | 2 => {
                    let is_there = stupid.touch(key);
                    let value = map.use_mut(&name).map(|value| *value);
                    assert_eq!(value, is_there.then_some(key), "seed {seed}, step {step}");
                }
                _ => {
                    if !stupid.touch(key) {
                        if stupid.queue.len() == most {
                            stupid.evict();
                        }
                        stupid.queue.push((key, false));
                    }
                    *map.use_or_default(&name) = key;
                }
            }
            let held = |key: &u64| map.get(&key.to_string()).copied();
            for key in 0..=keys {
                let is_there = stupid.queue.iter().any(|(known, _)| *known == key);
                let expected = is_there.then_some(key);
                assert_eq!(held(&key), expected, "seed {seed}, step {step}");
            }
            assert_eq!(map.len(), stupid.queue.len(), "seed {seed}, step {step}");
        }
    }
}

/// A flood of keys that come once pushes out itself: those that come again stay, however
/// long it is, and so do new ones that come again while it lasts.
#[test]
fn a_flood_of_new_keys_pushes_out_itself() {
    let mut map: Recent<u64> = Recent::new(100);
    let hot: Vec<String> = (0..20).map(|n| format!("hot-{n}")).collect();
    for key in hot.iter().chain(&hot) {
        *map.use_or_default(key) += 1;
    }
    for n in 0..50_000_u64 {
        map.use_or_default(&format!("once-{n}"));
        if n % 30 == 0 {
            *map.use_or_default("new") += 1;
        }
        if n % 50 == 0 {
            for key in &hot {
                *map.use_or_default(key) += 1;
            }
        }
    }
    assert_eq!(map.len(), 100);
    for key in &hot {
        assert_eq!(map.get(key), Some(&1002), "{key} was forgotten in between");
    }
    assert_eq!(map.get("new"), Some(&1667));
}
