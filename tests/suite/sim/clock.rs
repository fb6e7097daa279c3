//! Virtual time and one thread: events in order of time, then of scheduling. Nothing
//! waits for real, and the same program runs the same way each time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;

type Event = Box<dyn FnOnce()>;

pub struct Sim {
    now_us: Cell<u64>,
    scheduled: Cell<u64>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    pool: RefCell<LocalPool>,
    spawner: LocalSpawner,
}

impl Sim {
    /// `start_ms` is the true time, which Redis' clock shows, since the Unix epoch.
    pub fn new(start_ms: u64) -> Rc<Self> {
        let pool = LocalPool::new();
        Rc::new(Self {
            now_us: Cell::new(start_ms * 1000),
            scheduled: Cell::new(0),
            events: RefCell::default(),
            spawner: pool.spawner(),
            pool: RefCell::new(pool),
        })
    }

    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Runs `event` at that time, or now when it has passed.
    pub fn at(&self, time_us: u64, event: impl FnOnce() + 'static) {
        let order = self.scheduled.replace(self.scheduled.get() + 1);
        let key = (time_us.max(self.now_us()), order);
        self.events.borrow_mut().insert(key, Box::new(event));
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.spawner.spawn_local(future).unwrap();
    }

    pub fn sleep_until(self: &Rc<Self>, time_us: u64) -> impl Future<Output = ()> + use<> {
        let slot = Slot::new();
        slot.fill_at(self, time_us, ());
        slot.wait()
    }

    /// Runs until nothing is left to do.
    pub fn run(&self) {
        while self.step() {}
    }

    /// Runs until `future` is done; what else is under way stays so.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let given = result.clone();
        self.spawn(async move {
            let value = future.await;
            *given.borrow_mut() = Some(value);
        });
        loop {
            self.pool.borrow_mut().run_until_stalled();
            if let Some(value) = result.borrow_mut().take() {
                return value;
            }
            assert!(self.fire(), "the future waits for nothing");
        }
    }

    /// Runs what needs no time to pass.
    pub fn stall(&self) {
        loop {
            self.pool.borrow_mut().run_until_stalled();
            if self.next_us().is_none_or(|at_us| at_us > self.now_us()) {
                return;
            }
            self.fire();
        }
    }

    /// When something is due.
    pub fn next_us(&self) -> Option<u64> {
        let events = self.events.borrow();
        events.keys().next().map(|(time_us, _)| *time_us)
    }

    fn step(&self) -> bool {
        self.pool.borrow_mut().run_until_stalled();
        self.fire()
    }

    /// Goes on to what is due next.
    pub fn fire(&self) -> bool {
        let next = self.events.borrow_mut().pop_first();
        let Some(((time_us, _), event)) = next else {
            return false;
        };
        self.now_us.set(time_us);
        event();
        true
    }
}

/// A value that comes later, once.
pub struct Slot<T>(Rc<RefCell<Later<T>>>);

struct Later<T> {
    value: Option<T>,
    is_filled: bool,
    waker: Option<Waker>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Slot<T> {
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Later {
            value: None,
            is_filled: false,
            waker: None,
        })))
    }

    /// The first value wins.
    pub fn fill(&self, value: T) {
        let mut slot = self.0.borrow_mut();
        if !slot.is_filled {
            slot.value = Some(value);
            slot.is_filled = true;
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    pub fn fill_at(&self, sim: &Sim, time_us: u64, value: T) {
        let slot = self.clone();
        sim.at(time_us, move || slot.fill(value));
    }

    pub fn wait(self) -> impl Future<Output = T> + use<T> {
        std::future::poll_fn(move |context| {
            let mut slot = self.0.borrow_mut();
            match slot.value.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}
