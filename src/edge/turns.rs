//! Runs the flows of requests: each is polled at once when its request comes, and then whenever
//! what it waits for has come, in the turn of its own request.
//!
//! A flow that never waits is over before its request's handler returns: it needs no promise and
//! no `wait_until`. Wasm-bindgen's own tasks run in microtasks, so nothing would be over by then.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

/// More than an isolate ever has under way. What the platform ended together with its request is never polled
/// again, and goes when there are so many: the oldest first.
const MAX_TURNS: usize = 8_192;

/// On the heap and without its type: else its state is copied, and its code is in the wasm twice.
pub type Flow = Pin<Box<dyn Future<Output = ()>>>;

struct Turn {
    id: u32,
    waker: Waker,
    /// `None` while it is polled.
    flow: Option<Flow>,
    /// What it waits for came while it was polled.
    is_woken: bool,
}

#[derive(Default)]
struct Turns {
    last: u32,
    /// In the order of their numbers.
    turns: Vec<Turn>,
}

thread_local! {
    static TURNS: RefCell<Turns> = RefCell::default();
    /// 0: nobody has asked for it since the poll began.
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

/// Stands still while a flow is polled, as the platform's own clock does where it is deployed: so it is read once.
pub fn now_ms() -> u64 {
    if NOW_MS.get() == 0 {
        // Whole milliseconds since 1970 are exact in an f64 and never negative.
        NOW_MS.set(js_sys::Date::now() as u64);
    }
    NOW_MS.get()
}

impl Turns {
    fn place(&self, id: u32) -> Option<usize> {
        self.turns.binary_search_by_key(&id, |turn| turn.id).ok()
    }

    /// The new turn's number, and one that makes room for it.
    fn add(&mut self, flow: Flow) -> (u32, Option<Turn>) {
        let is_full = self.turns.len() >= MAX_TURNS;
        let oldest = is_full.then(|| self.turns.remove(0));
        // Two billion requests long: no isolate lives to see it begin anew.
        self.last = self.last.wrapping_add(1);
        let id = self.last;
        self.turns.push(Turn {
            id,
            waker: Waker::from(Arc::new(Call(id))),
            flow: Some(flow),
            is_woken: false,
        });
        (id, oldest)
    }

    fn take(&mut self, id: u32) -> Option<(Flow, Waker)> {
        let place = self.place(id)?;
        let turn = self.turns.get_mut(place)?;
        turn.is_woken = turn.flow.is_none();
        Some((turn.flow.take()?, turn.waker.clone()))
    }

    /// Whether it must be polled again.
    fn give_back(&mut self, id: u32, flow: Flow) -> bool {
        let turn = self.place(id).and_then(|place| self.turns.get_mut(place));
        turn.is_some_and(|turn| {
            turn.flow = Some(flow);
            turn.is_woken
        })
    }

    fn end(&mut self, id: u32) {
        if let Some(place) = self.place(id) {
            self.turns.remove(place);
        }
    }
}

/// Runs a flow until it waits.
pub fn begin(flow: Flow) {
    // Dropped without the borrow: what a flow holds may do anything then.
    let (id, _oldest) = TURNS.with_borrow_mut(|turns| turns.add(flow));
    go_on(id);
}

fn go_on(id: u32) {
    // No borrow while it runs: it may wake itself.
    while let Some((mut flow, waker)) = TURNS.with_borrow_mut(|turns| turns.take(id)) {
        NOW_MS.set(0);
        if flow
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            TURNS.with_borrow_mut(|turns| turns.end(id));
            break;
        }
        if !TURNS.with_borrow_mut(|turns| turns.give_back(id, flow)) {
            break;
        }
    }
}

/// Wakes the turn of this number.
struct Call(u32);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        go_on(self.0);
    }
}
