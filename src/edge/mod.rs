//! The platform: the only code that knows it runs in a Worker.
//!
//! A request's whole flow is owned by `wait_until`; the visitor's answer leaves
//! it through a channel of the same request. No future here is ever shared
//! between two requests.

mod convert;
mod isolate;
mod ports;

use std::pin::Pin;

use futures_channel::oneshot;
use worker::{Context, Env, event};

use crate::failure::Failure;
use crate::gateway::{Answer, handle};
use crate::ports::Log;
use isolate::Isolate;
use ports::EdgePorts;

#[event(fetch)]
async fn fetch(
    request: web_sys::Request,
    env: Env,
    ctx: Context,
) -> worker::Result<web_sys::Response> {
    let isolate = match Isolate::of(&env) {
        Ok(isolate) => isolate,
        Err(failure) => return Ok(convert::to_js(failure.into_response())),
    };
    let (sender, receiver) = oneshot::channel();
    // On the heap and without its type: else the flow's state is copied and its code is
    // in the wasm twice.
    let flow: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        let plain = convert::from_js(&request);
        let ports = EdgePorts::new(&isolate, plain.base.clone());
        let Answer { response, deferred } = handle(&isolate.gateway, &ports, plain, request).await;
        // A visitor who left does not wait for the answer; the work goes on.
        let _ = sender.send(convert::to_js(response));
        crate::deferred::run(&isolate.gateway, &ports, deferred).await;
        ports.probe().await;
    });
    ctx.wait_until(flow);
    match receiver.await {
        Ok(response) => Ok(response),
        Err(oneshot::Canceled) => {
            isolate::Console.log("a request ended without an answer");
            Ok(convert::to_js(Failure::OriginUnreachable.into_response()))
        }
    }
}
