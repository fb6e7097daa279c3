//! A scripted transport and a virtual clock for the Redis client's tests.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use edgeweir::ports::{Clock, Store};
use edgeweir::redis::{
    Answer, Batch, Client, Command, Endpoint, Post, RedisError, RedisErrorKind, Reply, Transport,
    TransportError,
};

pub const TOKEN: &str = "AX-secret-token";
pub const TIMEOUT_MS: u64 = 150;

pub enum Step {
    After(u64, Result<Answer, TransportError>),
    /// Time passes without a chance for any timer, as in a busy isolate.
    Blocked(u64, Answer),
    Never,
}

pub struct World {
    pub now_ms: Cell<u64>,
    timers: RefCell<BTreeMap<u64, Vec<Waker>>>,
    /// From when until when no timer fires.
    held_up: RefCell<Vec<(u64, u64)>>,
    steps: RefCell<VecDeque<Step>>,
    pub sent: RefCell<Vec<Post>>,
}

impl World {
    pub fn new() -> Self {
        Self {
            now_ms: Cell::new(1_000_000),
            timers: RefCell::default(),
            held_up: RefCell::default(),
            steps: RefCell::default(),
            sent: RefCell::default(),
        }
    }

    pub fn next(&self, step: Step) -> &Self {
        self.steps.borrow_mut().push_back(step);
        self
    }

    /// The isolate does not run for that long, beginning so long from now.
    pub fn hold_up(&self, after_ms: u64, duration_ms: u64) {
        let from_ms = self.now_ms.get() + after_ms;
        self.held_up
            .borrow_mut()
            .push((from_ms, from_ms + duration_ms));
    }

    pub fn answer(&self, status: u16, body: &str) -> &Self {
        self.next(Step::After(5, Ok(answer(status, body))))
    }

    /// Runs a future, moving the clock to the next timer whenever it waits.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            let next_ms = self.timers.borrow_mut().pop_first();
            let (next_ms, wakers) = next_ms.expect("everything waits and no timer is set");
            let mut now_ms = self.now_ms.get().max(next_ms);
            for (from_ms, until_ms) in self.held_up.borrow().iter() {
                if (*from_ms..*until_ms).contains(&now_ms) {
                    now_ms = *until_ms;
                }
            }
            self.now_ms.set(now_ms);
            wakers.iter().for_each(Waker::wake_by_ref);
        }
    }

    pub fn ask(&self, client: &Client) -> Result<Vec<Reply>, RedisError> {
        self.run(client.pipeline(self, Store::Limits(0), &get(), TIMEOUT_MS))
    }

    pub fn kind(&self, client: &Client) -> RedisErrorKind {
        let error = self.ask(client).expect_err("the trip fails");
        assert!(error.detail.len() <= 120, "{error}");
        assert!(!error.to_string().contains(TOKEN), "{error}");
        assert!(!error.to_string().contains("the-key"), "{error}");
        error.kind
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn sleep(&self, duration_ms: u64) -> impl Future<Output = ()> {
        let until_ms = self.now_ms.get() + duration_ms;
        poll_fn(move |context| {
            if self.now_ms.get() >= until_ms {
                return Poll::Ready(());
            }
            let mut timers = self.timers.borrow_mut();
            let wakers = timers.entry(until_ms).or_default();
            wakers.push(context.waker().clone());
            Poll::Pending
        })
    }
}

impl Transport for World {
    async fn post(
        &self,
        request: &Post,
        _timeout_ms: u64,
        max_bytes: usize,
    ) -> Result<Answer, TransportError> {
        self.sent.borrow_mut().push(request.clone());
        let step = self.steps.borrow_mut().pop_front();
        match step.expect("no trip was expected") {
            Step::After(delay_ms, answer) => {
                self.sleep(delay_ms).await;
                match answer {
                    Ok(answer) if answer.body.len() > max_bytes => Err(TransportError::TooLarge),
                    answer => answer,
                }
            }
            Step::Blocked(delay_ms, answer) => {
                self.now_ms.set(self.now_ms.get() + delay_ms);
                Ok(answer)
            }
            Step::Never => pending().await,
        }
    }
}

pub fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        sync_token: None,
        body: body.as_bytes().to_vec(),
    }
}

pub fn client() -> Client {
    Client::new(
        Endpoint::new("http://redis.test/", TOKEN),
        Vec::new(),
        None,
        1,
    )
}

pub fn get() -> Batch {
    Batch::pipeline(vec![Command::new("GET").arg("the-key")])
}

pub fn header<'a>(post: &'a Post, name: &str) -> Option<&'a str> {
    let mut values = post.headers.iter().filter(|(field, _)| *field == name);
    let value = values.next().map(|(_, value)| value.as_ref());
    assert!(values.next().is_none(), "{name} is sent twice");
    value
}
