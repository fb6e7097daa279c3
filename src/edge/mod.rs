//! The platform: the only code that knows it runs in a Worker.
//!
//! A flow that waits is owned by `wait_until`, to its end; the visitor's answer leaves it
//! through a promise of the same request. No future here is ever shared between two requests.

mod convert;
mod fields;
mod glue;
mod isolate;
mod ports;
mod turns;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::gateway::{Answer, handle};
use crate::jobs;
use crate::ports::Log;
use isolate::{Console, Isolate};
use ports::EdgePorts;

/// How one request's answer leaves its flow.
#[derive(Default)]
struct Exit {
    /// An answer that was there before its flow waited.
    early: RefCell<Option<web_sys::Response>>,
    /// Of a flow that waits.
    turn: OnceCell<glue::Turn>,
}

impl Exit {
    fn settle(&self, response: web_sys::Response) {
        match self.turn.get() {
            // A visitor who left does not wait for the answer; the work goes on.
            Some(turn) => turn.settle(&response),
            None => *self.early.borrow_mut() = Some(response),
        }
    }

    fn end(&self) {
        if let Some(turn) = self.turn.get() {
            turn.end();
        }
    }

    /// What the handler returns: the answer or its promise.
    fn leave(&self, is_over: bool, context: &JsValue) -> JsValue {
        let early = self.early.take();
        if let (Some(response), true) = (&early, is_over) {
            return response.into();
        }
        let turn = self.turn.get_or_init(|| glue::open(context));
        match early {
            Some(response) => response.into(),
            None => turn.answer().into(),
        }
    }
}

/// The handler of requests. The worker crate's own would make a promise for the answer, one
/// for the flow, a task for each and a channel between them.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: &JsValue, context: &JsValue) -> JsValue {
    let isolate = match Isolate::of(env) {
        Ok(isolate) => isolate,
        Err(failure) => return convert::to_js(failure.into_response()).into(),
    };
    let exit = Rc::new(Exit::default());
    let way_out = Rc::clone(&exit);
    let is_over = turns::begin(Box::pin(async move {
        let plain = convert::from_js(&request);
        let ports = EdgePorts::new(&isolate, plain.base.clone());
        let Answer {
            response,
            deferred,
            under_way,
        } = handle(&isolate.gateway, &ports, plain, request).await;
        way_out.settle(convert::to_js(response));
        crate::deferred::finish(&isolate.gateway, &ports, deferred, under_way).await;
        ports.probe().await;
        way_out.end();
    }));
    exit.leave(is_over, context)
}

/// The handler of the cron trigger; what it returns says when all is done.
#[wasm_bindgen]
pub fn scheduled(_event: &JsValue, env: &JsValue, context: &JsValue) -> JsValue {
    let Ok(isolate) = Isolate::of(env) else {
        // It is in the log, and every request is told.
        return JsValue::UNDEFINED;
    };
    let turn = glue::open(context);
    let done = turn.answer();
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
        turn.done();
        turn.end();
    }));
    done.into()
}
