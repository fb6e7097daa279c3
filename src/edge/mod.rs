//! The platform: the only code that knows it runs in a Worker.
//!
//! A request's whole flow is owned by `wait_until`; the visitor's answer leaves
//! it through a promise of the same request. No future here is ever shared
//! between two requests.

mod convert;
mod glue;
mod isolate;
mod ports;

use std::pin::Pin;

use js_sys::Promise;
use js_sys::futures::spawn_local;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::gateway::{Answer, handle};
use crate::jobs;
use crate::ports::Log;
use isolate::{Console, Isolate};
use ports::EdgePorts;

/// The handler of requests. The worker crate's own would make a promise for the answer, one
/// for the flow, a task for each and a channel between them.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: &JsValue, context: &JsValue) -> Promise {
    let turn = glue::open(context);
    let answer = turn.answer();
    let isolate = match Isolate::of(env) {
        Ok(isolate) => isolate,
        Err(failure) => {
            turn.settle(&convert::to_js(failure.into_response()));
            turn.end();
            return answer;
        }
    };
    // On the heap and without its type: else the flow's state is copied and its code is
    // in the wasm twice.
    let flow: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        let plain = convert::from_js(&request);
        let ports = EdgePorts::new(&isolate, plain.base.clone());
        let Answer {
            response,
            deferred,
            under_way,
        } = handle(&isolate.gateway, &ports, plain, request).await;
        // A visitor who left does not wait for the answer; the work goes on.
        turn.settle(&convert::to_js(response));
        crate::deferred::finish(&isolate.gateway, &ports, deferred, under_way).await;
        ports.probe().await;
        turn.end();
    });
    spawn_local(flow);
    answer
}

/// The handler of the cron trigger. What it does outlives the answer of no request, so the
/// platform is told when it is done.
#[wasm_bindgen]
pub fn scheduled(_event: &JsValue, env: &JsValue, context: &JsValue) -> Promise {
    let turn = glue::open(context);
    let done = turn.answer();
    let Ok(isolate) = Isolate::of(env) else {
        // It is in the log, and every request is told.
        turn.done();
        turn.end();
        return done;
    };
    let flow: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
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
    });
    spawn_local(flow);
    done
}
