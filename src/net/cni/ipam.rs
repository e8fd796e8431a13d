//! Effects: which pod has which address: one small file per address in a directory, guarded by `flock`.
//!
//! ```text
//! <dir>/lock          held while anything changes; contains the address given out last
//! <dir>/10.42.0.7     container id, interface, namespace path, then one line per host port
//! ```
//! A file appears by `rename`, so it is whole or absent after a crash. Addresses are given out round the subnet, so that
//! a freed one rests for a while. Nothing is synced: pods do not outlive the machine, and what a power cut leaves behind
//! is recognized by its namespace being gone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::ports::PortMapping;
use crate::config::Cidr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no IP addresses available in range {first}-{last}")]
    Exhausted { first: Ipv4Addr, last: Ipv4Addr },
    #[error("cannot {step} {path}")]
    File {
        step: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// Who an address is reserved for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub container: String,
    pub interface: String,
    /// Path of the pod's network namespace.
    pub namespace: PathBuf,
    pub ports: Vec<PortMapping>,
}

/// The reservations, locked against every other process until dropped.
pub struct Pool {
    directory: PathBuf,
    lock: Flock<File>,
}

impl Pool {
    /// Waits for the lock: it is held for milliseconds.
    pub fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|e| failed("create", directory, e))?;
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| failed("open", &path, e))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed("lock", &path, errno.into()))?;
        Ok(Self { directory: directory.to_owned(), lock })
    }

    /// The address of `owner`: the one it has, or a free one. The network's own address, the gateway (the first) and
    /// the broadcast address are never given out. `alive` decides, when all are taken, whose reservations are stale;
    /// those are removed and returned with the address.
    pub fn reserve(
        &mut self,
        subnet: Cidr,
        owner: &Owner,
        alive: &dyn Fn(&Owner) -> bool,
    ) -> Result<(Ipv4Addr, Vec<(Ipv4Addr, Owner)>)> {
        let mut taken = self.list()?;
        if let Some((address, _)) =
            taken.iter().find(|(_, o)| o.container == owner.container && o.interface == owner.interface)
        {
            self.write(*address, owner)?;
            return Ok((*address, Vec::new()));
        }
        let mut reclaimed = Vec::new();
        let mut free = self.next_free(subnet, &taken)?;
        if free.is_none() {
            let (living, stale): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(_, o)| alive(o));
            for (address, _) in &stale {
                self.remove(*address)?;
            }
            taken = living;
            reclaimed = stale;
            free = self.next_free(subnet, &taken)?;
        }
        let (first, last) = range(subnet);
        let address = free.ok_or(Error::Exhausted { first, last })?;
        self.write(address, owner)?;
        self.remember(address)?;
        Ok((address, reclaimed))
    }

    /// What `container` and `interface` have.
    pub fn find(&self, container: &str, interface: &str) -> Result<Option<(Ipv4Addr, Owner)>> {
        Ok(self.list()?.into_iter().find(|(_, o)| o.container == container && o.interface == interface))
    }

    /// Frees an address; it is no error when it is free.
    pub fn release(&mut self, address: Ipv4Addr) -> Result<()> {
        self.remove(address)
    }

    /// All reservations, in the order of their addresses.
    pub fn list(&self) -> Result<Vec<(Ipv4Addr, Owner)>> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&self.directory).map_err(|e| failed("list", &self.directory, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", &self.directory, e))?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let path = entry.path();
            let text = std::fs::read_to_string(&path).map_err(|e| failed("read", &path, e))?;
            found.push((address, parse(&text)));
        }
        found.sort_by_key(|(address, _)| *address);
        Ok(found)
    }

    fn next_free(&mut self, subnet: Cidr, taken: &[(Ipv4Addr, Owner)]) -> Result<Option<Ipv4Addr>> {
        let (first, last) = range(subnet);
        let (first, last) = (first.to_bits(), last.to_bits());
        let previous = self.last()?.map_or(first - 1, Ipv4Addr::to_bits);
        let start = if (first..last).contains(&previous) { previous + 1 } else { first };
        Ok((start..=last)
            .chain(first..start)
            .map(Ipv4Addr::from_bits)
            .find(|address| taken.binary_search_by_key(address, |(a, _)| *a).is_err()))
    }

    fn last(&mut self) -> Result<Option<Ipv4Addr>> {
        let mut text = String::new();
        let path = self.directory.join("lock");
        self.lock.rewind().map_err(|e| failed("read", &path, e))?;
        self.lock.read_to_string(&mut text).map_err(|e| failed("read", &path, e))?;
        Ok(text.trim().parse().ok())
    }

    fn remember(&mut self, address: Ipv4Addr) -> Result<()> {
        let path = self.directory.join("lock");
        let text = format!("{address}\n");
        self.lock
            .rewind()
            .and_then(|()| self.lock.write_all(text.as_bytes()))
            .and_then(|()| self.lock.set_len(text.len() as u64))
            .map_err(|e| failed("write", &path, e))
    }

    fn write(&self, address: Ipv4Addr, owner: &Owner) -> Result<()> {
        let path = self.directory.join(address.to_string());
        let draft = self.directory.join(format!("{address}.new"));
        std::fs::write(&draft, render(owner)).map_err(|e| failed("write", &draft, e))?;
        std::fs::rename(&draft, &path).map_err(|e| failed("rename", &path, e))
    }

    fn remove(&self, address: Ipv4Addr) -> Result<()> {
        let path = self.directory.join(address.to_string());
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// First and last address for pods.
fn range(subnet: Cidr) -> (Ipv4Addr, Ipv4Addr) {
    let network = subnet.address.to_bits();
    let broadcast = network | (u32::MAX.checked_shr(u32::from(subnet.prefix)).unwrap_or(0));
    (Ipv4Addr::from_bits(network + 2), Ipv4Addr::from_bits(broadcast - 1))
}

fn render(owner: &Owner) -> String {
    let mut text = format!("{}\n{}\n{}\n", owner.container, owner.interface, owner.namespace.display());
    for port in &owner.ports {
        text.push_str(&port.to_line());
        text.push('\n');
    }
    text
}

/// A file that someone damaged counts as a reservation of nobody: it is reclaimed when addresses run out.
fn parse(text: &str) -> Owner {
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (container, interface, namespace) = (next(), next(), PathBuf::from(next()));
    Owner { container, interface, namespace, ports: lines.filter_map(PortMapping::from_line).collect() }
}

fn failed(step: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { step, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner {
            container: name.to_owned(),
            interface: "eth0".to_owned(),
            namespace: PathBuf::from(format!("/run/netns/{name}")),
            ports: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: "tcp".to_owned(),
                host_ip: String::new(),
            }],
        }
    }

    fn small() -> Cidr {
        Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 29 }
    }

    fn reserve(pool: &mut Pool, name: &str) -> Result<Ipv4Addr> {
        pool.reserve(small(), &owner(name), &|_| true).map(|(address, _)| address)
    }

    #[test]
    fn gives_out_all_addresses_but_network_gateway_and_broadcast() {
        let directory = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(directory.path()).unwrap();
        let given: Vec<String> =
            ["a", "b", "c", "d", "e"].iter().map(|n| reserve(&mut pool, n).unwrap().to_string()).collect();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"]);
        assert_eq!(
            reserve(&mut pool, "f").unwrap_err().to_string(),
            "no IP addresses available in range 10.42.0.2-10.42.0.6"
        );
    }

    #[test]
    fn a_freed_address_rests_until_the_others_were_used() {
        let directory = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(directory.path()).unwrap();
        let first = reserve(&mut pool, "a").unwrap();
        pool.release(first).unwrap();
        assert_ne!(reserve(&mut pool, "b").unwrap(), first);
    }

    #[test]
    fn asking_again_gives_the_same_address() {
        let directory = tempfile::tempdir().unwrap();
        let first = reserve(&mut Pool::open(directory.path()).unwrap(), "a").unwrap();
        assert_eq!(reserve(&mut Pool::open(directory.path()).unwrap(), "a").unwrap(), first);
        assert_eq!(Pool::open(directory.path()).unwrap().find("a", "eth0").unwrap(), Some((first, owner("a"))));
    }

    #[test]
    fn stale_reservations_are_reclaimed_when_addresses_run_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(directory.path()).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            reserve(&mut pool, name).unwrap();
        }
        let (address, stale) = pool.reserve(small(), &owner("f"), &|o| o.container != "c").unwrap();
        assert_eq!(address.to_string(), "10.42.0.4");
        assert_eq!(stale, [(address, owner("c"))]);
    }

    #[test]
    fn a_draft_left_by_a_crash_is_no_reservation() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("10.42.0.2.new"), "a\n").unwrap();
        let mut pool = Pool::open(directory.path()).unwrap();
        assert_eq!(pool.list().unwrap(), []);
        assert_eq!(reserve(&mut pool, "b").unwrap().to_string(), "10.42.0.2");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(u8),
        Release(u8),
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn an_address_never_has_two_owners(
            steps in prop::collection::vec(
                prop_oneof![(0..9u8).prop_map(Step::Reserve), (0..9u8).prop_map(Step::Release)], 0..60)
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut model: BTreeMap<u8, Ipv4Addr> = BTreeMap::new();
            for step in steps {
                let mut pool = Pool::open(directory.path()).unwrap();
                match step {
                    Step::Reserve(who) => match reserve(&mut pool, &format!("c{who}")) {
                        Ok(address) => {
                            prop_assert!(model.get(&who).is_none_or(|had| *had == address));
                            model.insert(who, address);
                        }
                        Err(_) => prop_assert_eq!(model.len(), 5),
                    },
                    Step::Release(who) => {
                        if let Some((address, _)) = pool.find(&format!("c{who}"), "eth0").unwrap() {
                            pool.release(address).unwrap();
                        }
                        model.remove(&who);
                    }
                }
                let mut addresses: Vec<Ipv4Addr> = model.values().copied().collect();
                addresses.sort_unstable();
                let listed: Vec<Ipv4Addr> = pool.list().unwrap().into_iter().map(|(a, _)| a).collect();
                prop_assert_eq!(listed, addresses);
            }
        }
    }
}
