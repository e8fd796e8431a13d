//! Effects: reads flags, environment and file into one set of raw values. A flag wins over the environment, which
//! wins over the file. What is unknown is named, all of it at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::Value;

use super::settings::{DEFAULT_CONFIG, SETTINGS, Setting, Takes, find};

/// Values by setting; a setting that nobody gave is absent.
pub type Values = BTreeMap<&'static str, Vec<String>>;

/// Everything that is wrong with what the user gave, together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

/// Variables that others give a meaning to.
const OTHERS: [&str; 3] = ["PATH", "KUBECONFIG", "NOTIFY_SOCKET"];

/// The one place that reads the environment.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars().filter(|(name, _)| name.starts_with("SKIFF_") || OTHERS.contains(&name.as_str())).collect()
}

/// The flags of a command, as clap wants them.
pub fn arguments(command: clap::Command, has: impl Fn(&Setting) -> bool) -> clap::Command {
    SETTINGS.iter().filter(|s| has(s)).fold(command, |command, s| {
        let default = if s.default.is_empty() { String::new() } else { format!(" [default: {}]", s.default) };
        let mut argument = clap::Arg::new(s.name).long(s.name).help(format!("{}{default}", s.help));
        if let Some(letter) = s.short {
            argument = argument.short(letter);
        }
        command.arg(match s.takes {
            Takes::Switch => argument.action(clap::ArgAction::SetTrue),
            Takes::Text => argument.action(clap::ArgAction::Set).value_name("VALUE"),
            Takes::List | Takes::Each => argument.action(clap::ArgAction::Append).value_name("VALUE"),
        })
    })
}

/// Names every flag that no setting has: clap stops at the first.
#[must_use]
pub fn unknown_flags(arguments: &[String], has: impl Fn(&Setting) -> bool) -> Vec<String> {
    let unknown = |argument: &&String| {
        let Some(name) = argument.strip_prefix("--").map(|a| a.split('=').next().unwrap_or_default()) else {
            return false;
        };
        !name.is_empty() && name != "help" && !find(name).is_some_and(&has)
    };
    let before_end = arguments.iter().take_while(|a| *a != "--");
    before_end.filter(unknown).map(|a| format!("unknown flag: {}", a.split('=').next().unwrap_or_default())).collect()
}

/// Merges the three sources for one command.
///
/// # Errors
/// Every unknown key and every value of a wrong shape.
pub fn merge(
    matches: &ArgMatches,
    environment: &BTreeMap<String, String>,
    has: impl Fn(&Setting) -> bool,
) -> Result<Values, Problems> {
    let mut problems = Vec::new();
    let mut values = Values::new();
    for setting in SETTINGS.iter().filter(|s| has(s)) {
        let variable = format!("SKIFF_{}", setting.name.replace('-', "_").to_uppercase());
        if let Some(value) = environment.get(&variable) {
            values.insert(setting.name, vec![value.clone()]);
        }
        if matches.value_source(setting.name) == Some(ValueSource::CommandLine) {
            let given = match setting.takes {
                Takes::Switch => vec!["true".to_owned()],
                _ => matches.get_many::<String>(setting.name).into_iter().flatten().cloned().collect(),
            };
            values.insert(setting.name, given);
        }
    }
    let given = values.get("config").and_then(|v| v.last()).cloned();
    let path = given.clone().unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
    match fs::read_to_string(&path) {
        Ok(text) => {
            for (name, value) in parse_file(Path::new(&path), &text, &mut problems) {
                values.entry(name).or_insert(value);
            }
        }
        // The default file need not exist.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => {}
        Err(error) => problems.push(format!("cannot read configuration file {path}: {error}")),
    }
    if problems.is_empty() { Ok(values) } else { Err(Problems(problems)) }
}

/// Keys are looked up among all settings, so that one file serves `server` and `agent`.
fn parse_file(path: &Path, text: &str, problems: &mut Vec<String>) -> Values {
    let document: Value = match serde_saphyr::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            problems.push(format!("{} is not YAML: {error}", path.display()));
            return Values::new();
        }
    };
    let map = match document {
        Value::Object(map) => map,
        Value::Null => return Values::new(),
        _ => {
            problems.push(format!("{} must be a map of settings", path.display()));
            return Values::new();
        }
    };
    let mut values = Values::new();
    for (key, value) in map {
        let Some(setting) = find(&key).filter(|s| s.name != "config") else {
            problems.push(format!("unknown key in {}: {key}", path.display()));
            continue;
        };
        let texts: Option<Vec<String>> = match (&value, setting.takes) {
            (Value::Array(items), Takes::List | Takes::Each) => items.iter().map(scalar).collect(),
            _ => scalar(&value).map(|v| vec![v]),
        };
        match texts {
            Some(texts) => {
                values.insert(setting.name, texts);
            }
            None => problems.push(format!("{}: {key} cannot be {value}", path.display())),
        }
    }
    values
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(arguments: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Values, Problems> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, file).unwrap();
        let path = path.display().to_string();
        let mut all = vec!["skiff", "--config", &path];
        all.extend(arguments);
        let command = super::arguments(clap::Command::new("skiff"), |s| s.server);
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        merge(&command.get_matches_from(all), &environment, |s| s.server)
            .map_err(|p| Problems(p.0.into_iter().map(|t| t.replace(&path, "FILE")).collect()))
    }

    #[test]
    fn flag_beats_environment_beats_file() {
        let file = "data-dir: /file\ntoken: file\nnode-name: file\nhttps-listen-port: 7443\nnode-label: [a=b, c=d]\n";
        let values =
            merged(&["--data-dir=/flag"], &[("SKIFF_DATA_DIR", "/env"), ("SKIFF_TOKEN", "env")], file).unwrap();
        assert_eq!(values["data-dir"], ["/flag"]);
        assert_eq!(values["token"], ["env"]);
        assert_eq!(values["node-name"], ["file"]);
        assert_eq!(values["https-listen-port"], ["7443"]);
        assert_eq!(values["node-label"], ["a=b", "c=d"]);
    }

    #[test]
    fn every_unknown_key_is_named() {
        let problems = merged(&[], &[], "tokn: x\ndata-dir: {a: b}\nfoo: 1\n").unwrap_err();
        assert_eq!(
            problems.0,
            [r#"FILE: data-dir cannot be {"a":"b"}"#, "unknown key in FILE: foo", "unknown key in FILE: tokn"]
        );
    }

    #[test]
    fn every_unknown_flag_is_named() {
        let arguments = ["--data-dir", "x", "--nope", "--also=1", "--server", "--", "--fine"].map(str::to_owned);
        let unknown = unknown_flags(&arguments, |s| s.server);
        assert_eq!(unknown, ["unknown flag: --nope", "unknown flag: --also", "unknown flag: --server"]);
    }
}
