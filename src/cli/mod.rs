//! What can be typed: one file per command. Parsing only; what a command does is in the module it starts.

mod check_config;
mod images;
mod status;
mod telemetry;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::config::check;
use crate::config::settings::{DEFAULT_KUBECONFIG, Setting};
use crate::config::source::{self, Problems};
use crate::supervisor::chain;

fn for_server(s: &Setting) -> bool {
    s.server
}

fn for_agent(s: &Setting) -> bool {
    s.agent
}

fn for_token(s: &Setting) -> bool {
    matches!(s.name, "data-dir" | "config")
}

fn for_images(s: &Setting) -> bool {
    matches!(s.name, "data-dir" | "config" | "container-runtime-endpoint")
}

fn for_uninstall(s: &Setting) -> bool {
    matches!(s.name, "data-dir" | "config" | "write-kubeconfig")
}

fn command() -> Command {
    let version = format!("{} ({})", crate::api::version::git_version(), env!("CARGO_PKG_VERSION"));
    let server = source::arguments(Command::new("server").about("Run a whole cluster on this machine"), for_server);
    let agent = source::arguments(Command::new("agent").about("Run a node of an existing cluster"), for_agent);
    let check = source::arguments(
        Command::new("check-config").about("Check the configuration and what this machine offers, and change nothing"),
        for_server,
    );
    let token = source::arguments(Command::new("token").about("Print the token that lets a node join"), for_token);
    let kubectl = Command::new("kubectl")
        .about("Run the machine's kubectl against this cluster")
        .disable_help_flag(true)
        .arg(clap::Arg::new("arguments").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true));
    // It takes the server's flags, so that a script can pass on what it was given.
    let status =
        source::arguments(Command::new("status").about("Tell whether the cluster on this machine works"), for_server);
    let uninstall = source::arguments(
        Command::new("uninstall").about("Stop all pods and remove everything that skiff made on this machine"),
        for_uninstall,
    );
    let images = images::command(|command| source::arguments(command, for_images));
    Command::new("skiff")
        .about("Kubernetes for small machines")
        .version(version)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([server, agent, kubectl, images, status, token, check, uninstall])
}

/// Runs what was typed.
#[must_use]
pub fn main() -> ExitCode {
    let environment = source::environment();
    let typed: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Err(problems) = known(&typed) {
        return complain(&problems.0, 2);
    }
    let matches = command().get_matches_from(&typed);
    let (name, matches) = matches.subcommand().expect("clap requires a command");
    match name {
        "server" => with_config(matches, &environment, for_server, |values, machine| {
            let config = check::server(values, machine)?;
            let address = |tell, stop| crate::net::address::run(tell, check::address, stop);
            Ok(telemetry::run(values, crate::server::run(config, address, crate::agent::run)))
        }),
        "agent" => with_config(matches, &environment, for_agent, |values, machine| {
            let config = check::agent(values, machine)?;
            Ok(telemetry::run(values, crate::agent::command(config)))
        }),
        "check-config" => with_config(matches, &environment, for_server, |values, machine| {
            let config = check::server(values, machine)?;
            Ok(check_config::run(&config, machine))
        }),
        "status" => with_config(matches, &environment, for_server, |values, machine| {
            let config = check::server(values, machine)?;
            Ok(telemetry::run(values, status::run(config)))
        }),
        "images" => {
            let (name, matches) = matches.subcommand().expect("clap requires a command");
            with_config(matches, &environment, for_images, |values, machine| {
                let config = check::images(values, machine)?;
                let run = images::run(config, name.to_owned(), matches.clone());
                Ok(telemetry::run(values, run))
            })
        }
        "token" => with_config(matches, &environment, for_token, |values, machine| {
            let config = check::server(values, machine)?;
            let path = config.data_dir.join("server/node-token");
            match std::fs::read_to_string(&path) {
                Ok(token) => {
                    println!("{}", token.trim());
                    Ok(ExitCode::SUCCESS)
                }
                Err(error) => Ok(complain(&[format!("cannot read {}: {error}", path.display())], 1)),
            }
        }),
        "uninstall" => with_config(matches, &environment, for_uninstall, |values, machine| {
            let config = check::server(values, machine)?;
            Ok(telemetry::run(values, crate::agent::uninstall::run(config)))
        }),
        _ => kubectl(matches, &environment),
    }
}

fn with_config(
    matches: &ArgMatches,
    environment: &BTreeMap<String, String>,
    has: impl Fn(&Setting) -> bool,
    run: impl FnOnce(&source::Values, &check::Machine) -> Result<ExitCode, Problems>,
) -> ExitCode {
    let machine = check::machine(environment);
    let result = source::merge(matches, environment, has).and_then(|values| run(&values, &machine));
    result.unwrap_or_else(|problems| complain(&problems.0, 2))
}

/// All unknown flags of the command that was typed.
fn known(typed: &[String]) -> Result<(), Problems> {
    let has: fn(&Setting) -> bool = match typed.get(1).map(String::as_str) {
        Some("server" | "check-config" | "status") => for_server,
        Some("agent") => for_agent,
        _ => return Ok(()),
    };
    let mut unknown = source::unknown_flags(&typed[2..], has);
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.push(format!("skiff {} --help lists the flags", typed[1]));
    Err(Problems(unknown))
}

fn complain(problems: &[String], code: u8) -> ExitCode {
    for problem in problems {
        eprintln!("skiff: {problem}");
    }
    ExitCode::from(code)
}

/// Replaces this process by kubectl with our kubeconfig, unless the user chose one.
fn kubectl(matches: &ArgMatches, environment: &BTreeMap<String, String>) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    let arguments = matches.get_many::<String>("arguments").into_iter().flatten();
    let mut command = std::process::Command::new("kubectl");
    command.args(arguments);
    if !environment.contains_key("KUBECONFIG") {
        command.env("KUBECONFIG", DEFAULT_KUBECONFIG);
    }
    let error = command.exec();
    complain(&[format!("cannot run kubectl: {}; install it, any version from 1.30 works", chain(&error))], 127)
}
