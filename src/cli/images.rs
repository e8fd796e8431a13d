//! Effects: `skiff images`: the images of this machine, as users of `k3s ctr images` and `crictl` know them. It speaks to
//! the running containerd; skiff need not run.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use crate::config::Agent;
use crate::cri::client::Client;
use crate::cri::containerd::Layout;
use crate::cri::image_import::{ImportError, Importer};
use crate::cri::images_dir::imported;
use crate::cri::in_use::Mounts;
use crate::cri::{self, Image, Images as _, Runtime as _, pause, v1};

#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    #[error(
        "no container runtime answers at {socket}: start skiff, or name another one by --container-runtime-endpoint"
    )]
    NoRuntime {
        socket: String,
        #[source]
        source: cri::Error,
    },
    #[error("cannot {what} {name}")]
    Runtime {
        what: &'static str,
        name: String,
        #[source]
        source: cri::Error,
    },
    #[error("no image {0} is here; `skiff images list` shows those that are")]
    Missing(String),
    #[error("cannot import {name}")]
    Import {
        name: String,
        #[source]
        source: ImportError,
    },
    #[error("cannot read the archive from standard input")]
    Input(#[source] io::Error),
    #[error("--creds must be user:password")]
    Credentials,
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// The commands below `skiff images`, each with the flags that say which machine is meant.
pub fn command(with_settings: impl Fn(Command) -> Command) -> Command {
    let names = |help: &'static str| Arg::new("names").num_args(1..).required(true).value_name("IMAGE").help(help);
    let list = Command::new("list")
        .visible_alias("ls")
        .about("Show the images that are here")
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_parser(["table", "json"])
                .default_value("table")
                .help("How"),
        )
        .arg(Arg::new("quiet").short('q').long("quiet").action(ArgAction::SetTrue).help("Only their ids"))
        .arg(Arg::new("digests").long("digests").action(ArgAction::SetTrue).help("Their digests too"))
        .arg(Arg::new("no-trunc").long("no-trunc").action(ArgAction::SetTrue).help("Ids and digests in full"))
        .arg(Arg::new("filter").num_args(0..=1).value_name("IMAGE").help("Only those whose name has this in it"));
    let import = Command::new("import")
        .about("Load the images of archives (docker save, OCI layouts; packed or not)")
        .arg(Arg::new("names").num_args(1..).required(true).value_name("FILE").help("Archives; - is standard input"));
    let pull = Command::new("pull")
        .about("Get images from their registries")
        .arg(names("What to get"))
        .arg(Arg::new("creds").long("creds").value_name("USER:PASSWORD").help("Login; else that of registries.yaml"));
    let remove =
        Command::new("rm").visible_aliases(["remove", "delete"]).about("Remove images").arg(names("What to remove"));
    let prune = Command::new("prune")
        .about("Remove the images that no container uses or mounts, but for imported ones")
        .arg(Arg::new("all").short('a').long("all").action(ArgAction::SetTrue).help("Imported ones too"));
    Command::new("images")
        .about("The images of this machine")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list, import, pull, remove, prune].map(with_settings))
}

/// Runs what was typed after `skiff images`.
///
/// # Errors
/// What went wrong, with which image.
pub async fn run(config: Agent, name: String, matches: ArgMatches) -> Result<(), ImagesError> {
    let layout = Layout::new(&config.data_dir);
    let socket = config.runtime_endpoint.clone().unwrap_or_else(|| layout.socket());
    let client = Client::new(&socket);
    let silent = |source| ImagesError::NoRuntime { socket: socket.display().to_string(), source };
    client.version().await.map_err(silent)?;
    let names: Vec<String> = match name.as_str() {
        "import" | "pull" | "rm" => matches.get_many::<String>("names").into_iter().flatten().cloned().collect(),
        _ => Vec::new(),
    };
    match name.as_str() {
        "import" => import(&Importer::new(&socket), &config.data_dir, &names).await,
        "pull" => {
            let auth = matches.get_one::<String>("creds").map(|text| login(text)).transpose()?;
            pull(&client, &names, auth.as_ref()).await
        }
        "rm" => remove(&client, &names).await,
        "prune" => {
            let kept = if matches.get_flag("all") { BTreeSet::new() } else { imported(&config.data_dir) };
            prune(&client, &kept).await
        }
        _ => list(&client, &matches).await,
    }
}

fn failed(what: &'static str, name: &str) -> impl Fn(cri::Error) -> ImagesError {
    move |source| ImagesError::Runtime { what, name: name.to_owned(), source }
}

async fn list(client: &Client, matches: &ArgMatches) -> Result<(), ImagesError> {
    let mut images = client.images().await.map_err(failed("list", "images"))?;
    if let Some(filter) = matches.get_one::<String>("filter") {
        images.retain(|image| image.tags.iter().chain(&image.digests).any(|name| name.contains(filter.as_str())));
    }
    images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
    let text = if matches.get_flag("quiet") {
        images.iter().map(|image| format!("{}\n", image.id)).collect()
    } else if matches.get_one::<String>("output").is_some_and(|o| o == "json") {
        let all: Vec<Value> = images.iter().map(as_json).collect();
        format!("{:#}\n", json!({ "images": all }))
    } else {
        table(&images, matches.get_flag("digests"), matches.get_flag("no-trunc"))
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// As `crictl images -o json` has it.
fn as_json(image: &Image) -> Value {
    json!({
        "id": image.id, "repoTags": image.tags, "repoDigests": image.digests, "size": image.size_bytes.to_string(),
        "uid": image.uid.map(|uid| json!({ "value": uid.to_string() })), "username": image.username, "spec": null,
        "pinned": image.pinned,
    })
}

/// As `crictl images` has it: a line for each tag.
fn table(images: &[Image], digests: bool, full: bool) -> String {
    let short = |id: &str| match full {
        true => id.to_owned(),
        false => id.trim_start_matches("sha256:").chars().take(13).collect(),
    };
    let mut rows = vec![["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE"].map(str::to_owned)];
    for image in images {
        let digest = image.digests.first().and_then(|digest| digest.split_once('@'));
        let (name, digest) = digest.map_or(("<none>", "<none>".to_owned()), |(name, digest)| (name, short(digest)));
        let row = |name: &str, tag: &str| {
            [name.to_owned(), tag.to_owned(), digest.clone(), short(&image.id), human(image.size_bytes)]
        };
        if image.tags.is_empty() {
            rows.push(row(name, "<none>"));
        }
        rows.extend(image.tags.iter().map(|tag| {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            row(name, tag)
        }));
    }
    let columns: Vec<usize> = (0..5).filter(|column| digests || *column != 2).collect();
    let widths: Vec<usize> = (0..5).map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 5]| {
        let cells: Vec<String> = columns.iter().map(|c| format!("{:width$}", row[*c], width = widths[*c])).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// In decimal units and three digits: `4.26MB`.
fn human(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let decimals = if unit == "B" || value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

async fn import(importer: &Importer, data_dir: &Path, files: &[String]) -> Result<(), ImagesError> {
    for name in files {
        let spooled = match name.as_str() {
            "-" => Some(spool(data_dir).map_err(ImagesError::Input)?),
            _ => None,
        };
        let path = spooled.as_ref().map_or_else(|| PathBuf::from(name), |spooled| spooled.0.clone());
        let images = importer.archive(&path).await;
        for image in images.map_err(|source| ImagesError::Import { name: name.clone(), source })? {
            writeln!(io::stdout(), "imported {image}")?;
        }
    }
    Ok(())
}

/// What came by standard input, as long as it is needed: an archive is read from a file.
struct Spooled(PathBuf);

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn spool(data_dir: &Path) -> io::Result<Spooled> {
    let path = data_dir.join(format!("agent/import-{}.tar", std::process::id()));
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
    let spooled = Spooled(path);
    io::copy(&mut io::stdin().lock(), &mut file)?;
    Ok(spooled)
}

fn login(text: &str) -> Result<v1::AuthConfig, ImagesError> {
    let (username, password) = text.split_once(':').ok_or(ImagesError::Credentials)?;
    Ok(v1::AuthConfig { username: username.into(), password: password.into(), ..v1::AuthConfig::default() })
}

async fn pull(client: &Client, names: &[String], auth: Option<&v1::AuthConfig>) -> Result<(), ImagesError> {
    for name in names {
        let reference = client.pull(name, auth.cloned(), None).await.map_err(failed("pull", name))?;
        writeln!(io::stdout(), "pulled {name} ({reference})")?;
    }
    Ok(())
}

async fn remove(client: &Client, names: &[String]) -> Result<(), ImagesError> {
    for name in names {
        let image = client.image(name).await.map_err(failed("remove", name))?;
        let image = image.ok_or_else(|| ImagesError::Missing(name.clone()))?;
        client.remove_image(&image.id).await.map_err(failed("remove", name))?;
        deleted(&image)?;
    }
    Ok(())
}

fn deleted(image: &Image) -> io::Result<()> {
    let names = if image.tags.is_empty() { &image.digests } else { &image.tags };
    let names = if names.is_empty() { std::slice::from_ref(&image.id) } else { names };
    names.iter().try_for_each(|name| writeln!(io::stdout(), "deleted {name}"))
}

async fn prune(client: &Client, kept: &BTreeSet<String>) -> Result<(), ImagesError> {
    let images = client.images().await.map_err(failed("list", "images"))?;
    // After the images: one that was pulled for a container meanwhile is not looked at.
    let used = Mounts::default().used(client).await.map_err(failed("list", "containers"))?;
    let (mut count, mut bytes) = (0, 0);
    for image in images.iter().filter(|image| is_unused(image, &used, kept)) {
        client.remove_image(&image.id).await.map_err(failed("remove", &image.id))?;
        deleted(image)?;
        count += 1;
        bytes += image.size_bytes;
    }
    writeln!(io::stdout(), "{count} images removed, {} of registry data", human(bytes))?;
    Ok(())
}

fn is_unused(image: &Image, used: &BTreeSet<String>, kept: &BTreeSet<String>) -> bool {
    let mut names = std::iter::once(&image.id).chain(&image.tags).chain(&image.digests);
    !image.pinned && !names.any(|name| used.contains(name) || kept.contains(name) || name == pause::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str], digests: &[&str], size: u64) -> Image {
        let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Image { id: id.into(), tags: all(tags), digests: all(digests), size_bytes: size, ..Image::default() }
    }

    #[test]
    fn a_line_for_each_tag() {
        let images = [
            image("sha256:0123456789abcdef", &["r:5000/a:1", "r:5000/a:2"], &["r:5000/a@sha256:ff"], 4_260_000),
            image("sha256:ffff", &[], &["docker.io/library/b@sha256:ee"], 999),
        ];
        let expect = "IMAGE                 TAG      IMAGE ID        SIZE\n\
                      r:5000/a              1        0123456789abc   4.26MB\n\
                      r:5000/a              2        0123456789abc   4.26MB\n\
                      docker.io/library/b   <none>   ffff            999B\n";
        assert_eq!(table(&images, false, false), expect);
        assert!(table(&images, true, true).contains("sha256:ff   sha256:0123456789abcdef"));
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expect) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_260_000, "4.26MB"),
            (12_340_000, "12.3MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(human(bytes), expect);
        }
        assert_eq!(human(123_400_000), "123MB");
        assert_eq!(human(100_000_000), "100MB");
    }

    #[test]
    fn what_is_used_or_imported_stays() {
        let used = ["sha256:1", "r/named:1"].map(str::to_owned).into();
        let kept = BTreeSet::from(["r/imported:1".to_owned()]);
        let unused = |image: &Image| is_unused(image, &used, &kept);
        assert!(!unused(&image("sha256:1", &["r/a:1"], &[], 0)));
        assert!(!unused(&image("sha256:2", &["r/named:1"], &[], 0)));
        assert!(!unused(&image("sha256:3", &["r/imported:1"], &[], 0)));
        assert!(!unused(&image("sha256:4", &[pause::NAME], &[], 0)));
        assert!(!unused(&Image { pinned: true, ..image("sha256:5", &["r/a:1"], &[], 0) }));
        assert!(unused(&image("sha256:6", &["r/other:1"], &[], 0)));
    }
}
