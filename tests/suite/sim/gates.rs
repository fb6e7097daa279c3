//! Gates: each step of what is under way waits until it is let through, so that a test can
//! play the steps in any order. Time stands still while a step waits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::Rng;
use super::clock::{Sim, Slot};

/// Shut, unless a test uses them: then everything passes.
#[derive(Default)]
pub struct Gates {
    is_on: Cell<bool>,
    /// Answers of Redis wait too, not only what is sent to it.
    both_ways: Cell<bool>,
    /// Answers of the origin wait.
    of_origin: Cell<bool>,
    /// Whose next step does not wait.
    free: Cell<Option<u64>>,
    /// How many steps of somebody wait; the others go on at once.
    most: RefCell<BTreeMap<u64, u32>>,
    waiting: RefCell<Vec<(u64, Slot<()>)>>,
}

impl Gates {
    pub fn turn_on(&self, of_origin: bool, both_ways: bool) {
        self.is_on.set(true);
        self.of_origin.set(of_origin);
        self.both_ways.set(both_ways);
    }

    /// Lets the next step of somebody through who has just begun.
    pub fn begin(&self, who: u64) {
        self.free.set(Some(who));
    }

    pub fn turn_off(&self) {
        self.is_on.set(false);
        for (_, slot) in self.waiting.take() {
            slot.fill(());
        }
    }

    /// `who` has at most one step at a time under way, but for what it does side by side.
    pub async fn pass(&self, who: u64) {
        let is_free = self.free.get() == Some(who);
        if is_free {
            self.free.set(None);
        }
        if !is_free && self.is_on.get() && self.counts(who) {
            let slot = Slot::new();
            self.waiting.borrow_mut().push((who, slot.clone()));
            slot.wait().await;
        }
    }

    pub fn limit(&self, who: u64, most: u32) {
        self.most.borrow_mut().insert(who, most);
    }

    fn counts(&self, who: u64) -> bool {
        match self.most.borrow_mut().get_mut(&who) {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    pub async fn pass_back(&self, who: u64) {
        if self.both_ways.get() {
            self.pass(who).await;
        }
    }

    pub async fn pass_from_origin(&self, who: u64) {
        if self.of_origin.get() {
            self.pass(who).await;
        }
    }

    /// Plays until `is_done`, in the order that is chosen.
    pub fn play(&self, sim: &Sim, choices: &mut dyn Choices, is_done: &dyn Fn() -> bool) {
        loop {
            sim.stall();
            let waiting = self.waiting.borrow().len();
            if waiting == 0 {
                if is_done() || !sim.fire() {
                    return;
                }
                continue;
            }
            let may_pass = sim
                .next_us()
                .is_some_and(|at_us| at_us < sim.now_us() + 60_000);
            let choice = choices.choose(waiting, may_pass);
            if choice == waiting {
                sim.fire();
                continue;
            }
            // The same order in each run, whoever came first.
            let mut all = self.waiting.borrow_mut();
            all.sort_by_key(|(who, _)| *who);
            let (_, slot) = all.remove(choice);
            drop(all);
            slot.fill(());
        }
    }
}

/// Which of the steps that wait comes next; their number: none, some time passes first.
pub trait Choices {
    fn choose(&mut self, waiting: usize, may_pass: bool) -> usize;
}

/// Every order, one after the other: the next one differs in the last choice that can.
#[derive(Default)]
pub struct Every {
    path: Vec<(usize, usize)>,
    at: usize,
    pub played: u64,
}

impl Every {
    /// Plays `run` in every order.
    pub fn order(mut run: impl FnMut(&mut Self)) -> u64 {
        let mut every = Self::default();
        loop {
            every.at = 0;
            run(&mut every);
            every.played += 1;
            assert_eq!(every.at, every.path.len(), "a run is not the same twice");
            while let Some((chosen, of)) = every.path.pop() {
                if chosen + 1 < of {
                    every.path.push((chosen + 1, of));
                    break;
                }
            }
            if every.path.is_empty() {
                return every.played;
            }
        }
    }

    /// The choices so far, to play them again.
    pub fn path(&self) -> Vec<usize> {
        self.path.iter().map(|(chosen, _)| *chosen).collect()
    }
}

impl Choices for Every {
    fn choose(&mut self, waiting: usize, _: bool) -> usize {
        if waiting == 1 {
            return 0;
        }
        if self.at == self.path.len() {
            self.path.push((0, waiting));
        }
        let (chosen, of) = self.path[self.at];
        assert_eq!(of, waiting, "a run is not the same twice");
        self.at += 1;
        chosen
    }
}

impl Choices for Rng {
    fn choose(&mut self, waiting: usize, may_pass: bool) -> usize {
        self.between(0, waiting as u64 - u64::from(!may_pass)) as usize
    }
}
