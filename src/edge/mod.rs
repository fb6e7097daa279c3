//! The platform: the only code that knows it runs in a Worker.
//!
//! A flow that waits is owned by `wait_until`, to its end: until its answer is there by the
//! promise that the visitor waits for too, from then on by another one. No future here is
//! ever shared between two requests.

mod convert;
mod fields;
mod glue;
mod isolate;
mod ports;
mod turns;

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::gateway::{Answer, handle};
use crate::jobs;
use crate::ports::Log;
use isolate::{Console, Isolate};
use ports::EdgePorts;

/// How one request's answer leaves its flow.
struct Exit {
    context: JsValue,
    /// An answer that was there before its flow waited.
    early: RefCell<Option<web_sys::Response>>,
    /// Of a flow that waits before it has one.
    turn: OnceCell<glue::Turn>,
}

impl Exit {
    fn settle(&self, response: web_sys::Response) {
        match self.turn.get() {
            // A visitor who left does not wait for the answer; the work goes on.
            Some(turn) => turn.resolve(&response),
            None => *self.early.borrow_mut() = Some(response),
        }
    }

    /// What is done after the answer. Only what waits is owned by `wait_until`, from the turn
    /// on in which the answer's own ownership ends.
    async fn finish(&self, mut rest: Pin<&mut dyn Future<Output = ()>>) {
        let is_over = poll_fn(|task| Poll::Ready(rest.as_mut().poll(task).is_ready())).await;
        if !is_over {
            let turn = glue::open(&self.context);
            rest.await;
            turn.end();
        }
    }

    /// What the handler returns: the answer or its promise.
    fn leave(&self) -> JsValue {
        match self.early.take() {
            Some(response) => response.into(),
            None => {
                let turn = self.turn.get_or_init(|| glue::open(&self.context));
                turn.promise().into()
            }
        }
    }
}

/// The handler of requests. The worker crate's own would make a promise for the answer, one
/// for the flow, a task for each and a channel between them.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: &JsValue, context: JsValue) -> JsValue {
    let isolate = match Isolate::of(env) {
        Ok(isolate) => isolate,
        Err(failure) => return convert::to_js(failure.into_response()).into(),
    };
    let exit = Rc::new(Exit {
        context,
        early: RefCell::default(),
        turn: OnceCell::new(),
    });
    let way_out = Rc::clone(&exit);
    turns::begin(Box::pin(async move {
        let plain = convert::from_js(&request);
        let ports = EdgePorts::new(&isolate, plain.base.clone());
        let Answer {
            response,
            deferred,
            under_way,
        } = handle(&isolate.gateway, &ports, plain, request).await;
        way_out.settle(convert::to_js(response));
        let rest = pin!(async {
            crate::deferred::finish(&isolate.gateway, &ports, deferred, under_way).await;
            ports.probe().await;
        });
        way_out.finish(rest).await;
    }));
    exit.leave()
}

/// The handler of the cron trigger; what it returns says when all is done.
#[wasm_bindgen]
pub fn scheduled(_event: &JsValue, env: &JsValue, context: &JsValue) -> JsValue {
    let Ok(isolate) = Isolate::of(env) else {
        // It is in the log, and every request is told.
        return JsValue::UNDEFINED;
    };
    let turn = glue::open(context);
    let done = turn.promise();
    turns::begin(Box::pin(async move {
        // A request has a zone to go on to, the trigger has none.
        let (base, requests) = match &isolate.origin_url {
            Some(url) => (url.clone(), jobs::MAX_ORIGIN_REQUESTS),
            None => (String::new(), 0),
        };
        if requests == 0 {
            Console.log("cron: without ORIGIN_URL nothing is asked of an origin");
        }
        let ports = EdgePorts::new(&isolate, base);
        jobs::run(&isolate.gateway, &ports, requests).await;
        ports.probe().await;
        turn.end();
    }));
    done.into()
}
