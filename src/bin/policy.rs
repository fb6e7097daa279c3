//! `npm run policy -- check FILE`, `explain METHOD URL` and `json FILE`.

use std::process::ExitCode;

use edgeweir::policy::{BUILT_IN, Overrides, Policy, PolicyError, toml_to_json};

const USAGE: &str = "usage: npm run policy -- check FILE
       npm run policy -- explain METHOD URL [--policy FILE]
       npm run policy -- json FILE        (TOML as the text that the variable POLICY takes)
FILE is TOML, or JSON when its name ends in .json; without --policy the policy built in is asked.";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let policy_file = match take_option(&mut arguments, "--policy") {
        Ok(file) => file,
        Err(()) => return fail(USAGE),
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (arguments.as_slice(), policy_file) {
        (["check", file], None) => check(file),
        (["json", file], None) => json(file),
        (["explain", method, url], file) => explain(method, url, file.as_deref()),
        _ => fail(USAGE),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(2)
}

/// Takes `NAME VALUE` out of the arguments; an error when the value is missing.
fn take_option(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>, ()> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else {
        return Ok(None);
    };
    let mut rest = arguments.split_off(at).into_iter().skip(1);
    let value = rest.next().ok_or(())?;
    arguments.extend(rest);
    Ok(Some(value))
}

fn check(file: &str) -> ExitCode {
    match read(file) {
        Ok(policy) => {
            println!("ok: {} routes", policy.routes.len());
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn explain(method: &str, url: &str, file: Option<&str>) -> ExitCode {
    let policy = match file {
        Some(file) => read(file),
        None => Policy::from_json(BUILT_IN, &Overrides::default())
            .map_err(|errors| report("the policy built in", &errors)),
    };
    match policy {
        Ok(policy) => {
            print!("{}", policy.explain(&method.to_ascii_uppercase(), url));
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn json(file: &str) -> ExitCode {
    let json =
        open(file).and_then(|text| toml_to_json(&text).map_err(|errors| report(file, &errors)));
    match json {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}

fn open(file: &str) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count();
        format!("{file}:{line}: not UTF-8; save the file as UTF-8\n1 error")
    })
}

fn read(file: &str) -> Result<Policy, String> {
    let text = open(file)?;
    let read = match file.ends_with(".json") {
        true => Policy::from_json(&text, &Overrides::default()),
        false => Policy::from_toml(&text),
    };
    read.map_err(|errors| report(file, &errors))
}

fn report(file: &str, errors: &[PolicyError]) -> String {
    let mut lines: Vec<String> = errors
        .iter()
        .map(|error| match error.line {
            Some(_) => format!("{file}:{error}"),
            None => format!("{file}: {error}"),
        })
        .collect();
    let count = errors.iter().map(|error| error.count).sum::<usize>();
    lines.push(format!(
        "{count} error{}",
        if count == 1 { "" } else { "s" }
    ));
    lines.join("\n")
}
