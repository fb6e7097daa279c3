//! A tree to JSON: what is built in, and what `POLICY` takes.

use super::node::{Node, Value};

/// Writes a tree as compact JSON, in its order.
pub fn json(node: &Node) -> String {
    let mut out = String::new();
    put(node, &mut out);
    out
}

fn put(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null | Value::Other(_) => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Integer(value) => out.push_str(&value.to_string()),
        Value::Text(text) => put_text(text, out),
        Value::List(nodes) => {
            out.push('[');
            for (index, node) in nodes.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put(node, out);
            }
            out.push(']');
        }
        Value::Table(entries) => {
            out.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put_text(&entry.name, out);
                out.push(':');
                put(&entry.node, out);
            }
            out.push('}');
        }
    }
}

fn put_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
