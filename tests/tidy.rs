//! What compilers cannot see: who may use whom, how long a file may get, and what must not be left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../src/api/reference.rs"]
mod reference;

/// Lines that a file may have (STYLE: look for the second idea at 500). Tables and the files below are excepted.
const FILE_LIMIT: usize = 600;

/// Files that were longer when the limit came, and tables. The numbers may only go down.
const LONGER: &[(&str, usize)] = &[];

/// Generated tables have no limit: nobody reads them from top to bottom.
const TABLES: &[&str] = &["src/api/schema/generated.rs"];

/// What may not be left in code.
const LEFT_OVERS: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "HACK"];

/// Module → the modules of ours that it may use. A module may always use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("clock", &[]),
    ("disk", &[]),
    ("inotify", &[]),
    ("systemd", &[]),
    ("client", &["api", "clock"]),
    ("splice", &[]),
    ("supervisor", &["clock"]),
    ("config", &["api"]),
    ("pki", &["api", "clock", "config", "inotify"]),
    ("cri", &["api", "clock", "inotify", "supervisor"]),
    ("net", &["api", "client", "clock", "config", "inotify", "supervisor"]),
    (
        "agent",
        &[
            "api",
            "client",
            "clock",
            "config",
            "cri",
            "disk",
            "inotify",
            "net",
            "pki",
            "splice",
            "supervisor",
            "systemd",
        ],
    ),
    ("server", &["api", "client", "clock", "config", "disk", "inotify", "pki", "splice", "supervisor", "systemd"]),
    // A whole cluster, in tests only.
    ("simulation", &["agent", "api", "client", "clock", "config", "cri", "pki", "server"]),
];

/// Tests where two sides meet, and whom they use although their module may not.
const MEETINGS: &[(&str, &str)] = &[
    ("src/server/authn/join/tests.rs", "agent"),
    // A benchmark: the store as it runs, below the watch cache.
    ("src/server/store/sqlite/tests/mod.rs", "cache"),
];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src", "tests", "fuzz/src", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The top-level module that a source file belongs to.
fn module(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("src/")?;
    let first = rest.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// The names that a line takes from a module: `crate::a::b` and `crate::{a, b::{c, d}}` are both found.
fn named_after(line: &str, module: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for rest in line.split(module).skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let mut depth = 0;
        for item in list.split_inclusive(['{', '}', ',']) {
            if depth == 0 {
                names.push(name(item.trim_start()));
            }
            match item.chars().last() {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                _ => {}
            }
            if depth < 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn names_are_found() {
    let found = named_after("use crate::{net, server::{cache, store}, systemd}; crate::api::key", "crate::");
    assert_eq!(found.iter().filter(|n| !n.is_empty()).collect::<Vec<_>>(), ["net", "server", "systemd", "api"]);
}

#[test]
fn modules_keep_their_direction() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let Some(module) = module(&name).filter(|m| !matches!(*m, "main" | "lib" | "cli")) else { continue };
        let allowed = may_use.get(module).unwrap_or_else(|| panic!("{module} has no row in MAY_USE"));
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in named_after(line, "crate::") {
                let meeting = MEETINGS.contains(&(name.as_str(), used.as_str()));
                let ours = used != module && may_use.contains_key(used.as_str());
                if ours && !allowed.contains(&used.as_str()) && !meeting {
                    wrong.push(format!("{name}:{}: {module} may not use {used}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What controllers, scheduler and addons may use outside the server: they are clients, nothing more.
const CLIENTS_USE: &[&str] = &["api", "client", "clock", "config", "server"];

/// Inside the server: controllers, scheduler and addons use each other and the client; nothing uses `http`.
#[test]
fn the_servers_modules_keep_their_direction() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let Some(rest) = name.strip_prefix("src/server/").filter(|r| r.contains('/')) else { continue };
        let module = rest.split('/').next().unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let client = matches!(module, "controllers" | "scheduler" | "addons");
            for used in named_after(line, "crate::").into_iter().filter(|_| client) {
                if !CLIENTS_USE.contains(&used.as_str()) {
                    wrong.push(format!("{name}:{}: {module} may not use {used}", number + 1));
                }
            }
            for used in named_after(line, "crate::server::") {
                let fine = match module {
                    "http" => true,
                    // Claims for devices select them by expressions; `cel` is a library without a state.
                    "scheduler" if used == "cel" => true,
                    "controllers" | "scheduler" | "addons" => matches!(used.as_str(), "controllers" | "scheduler"),
                    "store" => used == "store",
                    "cache" => matches!(used.as_str(), "cache" | "store"),
                    _ => used != "http" && used != "controllers" && used != "scheduler",
                };
                if !fine && !MEETINGS.contains(&(name.as_str(), used.as_str())) {
                    wrong.push(format!("{name}:{}: {module} may not use {used}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_small() {
    let excepted: BTreeMap<&str, usize> = LONGER.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        let limit = excepted.get(name.as_str()).copied().unwrap_or(FILE_LIMIT);
        if lines > limit && !TABLES.contains(&name.as_str()) {
            wrong.push(format!("{name} has {lines} lines, {limit} are allowed: look for the second idea in it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_behind() {
    let mut wrong = Vec::new();
    for (name, text) in sources().into_iter().filter(|(n, _)| n != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            for left in LEFT_OVERS.iter().filter(|l| line.contains(**l)) {
                wrong.push(format!("{name}:{}: {left}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "no `//!` line at the top: {}", silent.join(", "));
}

/// The areas of the conformance profile that `CONFORMANCE.md` has a section for.
const AREAS: &[&str] = &[
    "sig-api-machinery",
    "sig-cli",
    "sig-instrumentation",
    "sig-architecture",
    "sig-auth",
    "sig-apps",
    "sig-scheduling",
    "sig-node",
    "sig-storage",
];

/// The rows of `CONFORMANCE.md`: area, requirement, tests, what is open.
fn conformance() -> Vec<[String; 4]> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/CONFORMANCE.md")).unwrap();
    let (mut area, mut rows) = ("", Vec::new());
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("## ") {
            area = named;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let ([requirement, tests, open], true) = (cells.as_slice(), line.starts_with("| "))
            && *requirement != "requirement"
        {
            rows.push([area, requirement, tests, open].map(str::to_owned));
        }
    }
    rows
}

/// The tests that a cell names: `a::b` and `a::{b, c}`.
fn tests_of(cell: &str) -> Vec<String> {
    let named = cell.split('`').skip(1).step_by(2);
    named
        .flat_map(|path| match path.split_once("::{") {
            Some((module, names)) => {
                names.trim_end_matches('}').split(", ").map(|name| format!("{module}::{name}")).collect()
            }
            None => vec![path.to_owned()],
        })
        .collect()
}

/// Whether a function of the tests is where its path says.
fn is_test(path: &str, sources: &[(String, String)]) -> bool {
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    let file = format!("tests/{}", module.replace("::", "/"));
    let (plain, folder) = (format!("{file}.rs"), format!("{file}/mod.rs"));
    let function = format!("fn {name}(");
    sources.iter().any(|(name, text)| (*name == plain || *name == folder) && text.contains(&function))
}

#[test]
fn the_tests_of_requirements_are_there() {
    let sources = sources();
    let mut wrong = Vec::new();
    for [_, requirement, tests, open] in conformance() {
        let tests = tests_of(&tests);
        if tests.is_empty() && open.is_empty() {
            wrong.push(format!("{requirement}: no test, and nothing is open"));
        }
        let missing = tests.iter().filter(|test| !is_test(test, &sources));
        wrong.extend(missing.map(|test| format!("{requirement}: there is no {test}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_requirement_has_a_row() {
    let Some(folder) = reference::folder() else { return };
    let text = fs::read_to_string(folder.join("conformance-requirements.yaml")).unwrap();
    let all: Vec<BTreeMap<String, String>> = serde_saphyr::from_str(&text).unwrap();
    // Some names are those of two requirements.
    let mut rows: BTreeMap<(String, String), i32> = BTreeMap::new();
    for one in all.iter().filter(|one| AREAS.contains(&one["sig"].as_str())) {
        *rows.entry((one["sig"].clone(), one["requirement"].clone())).or_default() += 1;
    }
    for [area, requirement, ..] in conformance() {
        *rows.entry((area, requirement)).or_default() -= 1;
    }
    rows.retain(|_, missing| *missing != 0);
    assert!(rows.is_empty(), "rows that are missing (above 0) or too many (below): {rows:#?}");
}
