//! The binary as CNI plugin (specification 0.3.1 to 1.1.0): bridge, address management, host ports.
//!
//! The container runtime starts it once per sandbox with the configuration on standard input and the verb in the
//! environment; it answers on standard output. It links kernel objects by netlink alone and starts no other program,
//! except nft for a pod with host ports. It also answers as `loopback`, the plugin that containerd 1.x runs
//! for every sandbox.
//!
//! Each pod gets a /32 and a route to the gateway, so that packets between pods of one node are routed, too:
//! Service translation (and later policies) then see both directions without `br_netfilter`.

mod attach;
mod conf;
pub mod ipam;
mod ports;
mod protocol;

use std::io::Read;
use std::process::ExitCode;

pub(super) use attach::ensure_bridge;
pub use conf::{PLUGIN, install, write_conf};
pub use ports::HOSTPORTS_TABLE;
pub(super) use ports::table as hostports_table;
use protocol::{Arguments, Code, Conf, Failure};

/// Larger configurations are refused, bytes.
const STDIN_LIMIT: u64 = 1 << 20;

/// Whether the program was started as a CNI plugin, from its `argv[0]`.
#[must_use]
pub fn is_plugin(argv0: &str) -> bool {
    let name = argv0.rsplit('/').next().unwrap_or(argv0);
    name == PLUGIN || name == "loopback"
}

/// Carries out one CNI request: environment and standard input to standard output.
#[must_use]
pub fn main() -> ExitCode {
    let mut version = protocol::DEFAULT_VERSION.to_owned();
    match run(&mut version) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", failure.to_json(&version));
            ExitCode::FAILURE
        }
    }
}

/// Carries out one request in the network namespace of the calling thread: what [`main`] does, for tests. The answer, or
/// the failure, as the runtime would read it.
///
/// # Errors
/// The failure as JSON.
pub fn request(environment: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Result<String, String> {
    let mut version = protocol::DEFAULT_VERSION.to_owned();
    answer(environment, input, &mut version).map_err(|failure| failure.to_json(&version))
}

fn run(version: &mut String) -> Result<String, Failure> {
    #[allow(clippy::disallowed_methods, reason = "the protocol passes its arguments in the environment")]
    let environment = |name: &str| std::env::var(name).ok();
    let mut input = Vec::new();
    std::io::stdin()
        .take(STDIN_LIMIT)
        .read_to_end(&mut input)
        .map_err(|e| Failure::new(Code::Io, "cannot read the configuration from standard input", &e))?;
    answer(&environment, &input, version)
}

/// One request. `version` becomes the one the configuration names, which the answer has to use.
fn answer(environment: &dyn Fn(&str) -> Option<String>, input: &[u8], version: &mut String) -> Result<String, Failure> {
    let command = environment("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        if let Ok(conf) = serde_json::from_slice::<protocol::VersionRequest>(input) {
            *version = conf.cni_version.unwrap_or_else(|| version.clone());
        }
        return Ok(protocol::version_answer(version));
    }
    let conf = Conf::parse(input)?;
    version.clone_from(&conf.cni_version);
    if conf.kind == "loopback" {
        // The namespace may be gone when it is left: there is nothing to undo then.
        return attach::loopback(&command, &Arguments::parse(environment, command != "DEL")?, &conf);
    }
    match command.as_str() {
        "ADD" => attach::add(&Arguments::parse(environment, true)?, &conf),
        "DEL" => attach::del(&Arguments::parse(environment, false)?, &conf).map(|()| String::new()),
        "CHECK" => attach::check(&Arguments::parse(environment, true)?, &conf).map(|()| String::new()),
        "GC" => attach::collect(&conf).map(|()| String::new()),
        "STATUS" => attach::status(&conf).map(|()| String::new()),
        "" => Err(Failure::text(Code::InvalidEnvironment, "required env variables [CNI_COMMAND] missing")),
        other => Err(Failure::text(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(environment: &[(&str, &str)], input: &str) -> Result<String, String> {
        let environment: Vec<(String, String)> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let look = |name: &str| environment.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        request(&look, input.as_bytes())
    }

    const CONF: &str = r#"{"cniVersion":"1.0.0","name":"skiff","type":"skiff-cni","bridge":"cni0","mtu":1450,
        "subnet":"10.42.0.0/24","stateDir":"/nonexistent/ipam"}"#;

    #[test]
    fn a_loopback_is_left_without_its_namespace() {
        let conf = r#"{"cniVersion":"1.0.0","name":"lo","type":"loopback"}"#;
        let left = ask(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "lo")], conf);
        assert_eq!(left.map(|_| ()), Ok(()));
    }

    #[test]
    fn version_lists_what_is_supported() {
        assert_eq!(
            ask(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#).unwrap(),
            r#"{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }

    #[test]
    fn bad_requests_are_refused_with_the_code_of_the_specification() {
        let add = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a1"),
            ("CNI_NETNS", "/nonexistent/ns"),
            ("CNI_IFNAME", "eth0"),
        ];
        let with = |name: &'static str, value: &'static str| {
            let mut changed = add.to_vec();
            changed.iter_mut().filter(|(k, _)| *k == name).for_each(|(_, v)| *v = value);
            changed
        };
        type Environment = Vec<(&'static str, &'static str)>;
        let cases: Vec<(Environment, String, &str)> = vec![
            (
                vec![],
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"required env variables [CNI_COMMAND] missing"}"#,
            ),
            (
                with("CNI_COMMAND", "PUT"),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"unknown CNI_COMMAND: PUT"}"#,
            ),
            (
                with("CNI_CONTAINERID", ""),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"required env variables [CNI_CONTAINERID] missing"}"#,
            ),
            (
                with("CNI_CONTAINERID", "../x"),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"invalid characters in containerID","details":"../x"}"#,
            ),
            (
                with("CNI_IFNAME", "a-very-long-name"),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"interface name is too long","details":"a-very-long-name"}"#,
            ),
            (
                with("CNI_IFNAME", "a/b"),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":4,"msg":"interface name contains / or : or whitespace characters","details":"a/b"}"#,
            ),
            (
                add.to_vec(),
                "{".to_owned(),
                r#"{"cniVersion":"1.0.0","code":6,"msg":"cannot decode the network configuration","details":"EOF while parsing an object at line 1 column 1"}"#,
            ),
            (
                add.to_vec(),
                CONF.replace("1.0.0", "9.0.0"),
                r#"{"cniVersion":"9.0.0","code":1,"msg":"incompatible CNI versions","details":"config is \"9.0.0\", plugin supports [\"0.3.0\" \"0.3.1\" \"0.4.0\" \"1.0.0\" \"1.1.0\"]"}"#,
            ),
            (
                add.to_vec(),
                CONF.replace("10.42.0.0/24", "10.42.0.0/31"),
                r#"{"cniVersion":"1.0.0","code":7,"msg":"invalid subnet","details":"10.42.0.0/31"}"#,
            ),
            (
                add.to_vec(),
                CONF.to_owned(),
                r#"{"cniVersion":"1.0.0","code":3,"msg":"there is no network namespace","details":"/nonexistent/ns"}"#,
            ),
        ];
        for (environment, input, expected) in cases {
            let Err(found) = ask(&environment, &input) else { panic!("accepted: {environment:?} {input}") };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn deleting_what_never_was_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let conf = CONF.replace("/nonexistent", &directory.path().display().to_string());
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a1"), ("CNI_IFNAME", "eth0")];
        assert_eq!(ask(&del, &conf).unwrap(), "");
    }

    #[test]
    fn program_names() {
        assert!(is_plugin("/var/lib/skiff/agent/cni/bin/skiff-cni"));
        assert!(is_plugin("loopback"));
        assert!(!is_plugin("/usr/local/bin/skiff"));
    }
}
