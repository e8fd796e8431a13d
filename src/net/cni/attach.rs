//! Effects: attach a pod to the bridge and detach it.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::ipam::{Owner, Pool};
use super::ports;
use super::protocol::{Arguments, Attached, Code, Conf, Failure, loopback_result, require_version, result};
use crate::net::netlink::{Address, Mac, Namespace, Route, Socket, sysctl};
use crate::net::nft;

/// ADD. Whatever fails in the middle is taken back; a crash in the middle is taken back by the DEL that follows.
pub fn add(arguments: &Arguments, conf: &Conf) -> Result<String, Failure> {
    require_version(conf)?;
    let path = arguments.namespace.as_deref().unwrap_or(Path::new(""));
    let namespace = open(path)?;
    let owner = Owner {
        container: arguments.container.clone(),
        interface: arguments.interface.clone(),
        namespace: path.to_owned(),
        ports: conf.ports.clone(),
    };
    let alive = |owner: &Owner| Namespace::exists(&owner.namespace);
    let (address, reclaimed) = Pool::open(&conf.state)?.reserve(conf.subnet, &owner, &alive)?;
    for (address, owner) in reclaimed {
        close_ports(address, &owner)?;
    }
    let done = plug(arguments, conf, &namespace, &path.display().to_string(), address);
    if done.is_err() {
        // The first error is the one to report.
        let _ = del(arguments, conf);
    }
    done
}

fn plug(
    arguments: &Arguments,
    conf: &Conf,
    namespace: &Namespace,
    path: &str,
    address: std::net::Ipv4Addr,
) -> Result<String, Failure> {
    let mut here = Socket::open()?;
    let bridge = ensure_bridge(&mut here, &conf.bridge, conf.gateway(), conf.subnet.prefix, conf.mtu)?;
    let host = host_name(arguments);
    let mac = Mac::of(address);
    let peer = (arguments.interface.as_str(), mac);
    match here.add_veth(&host, bridge, conf.mtu, peer, namespace) {
        // Left by an ADD that was killed.
        Err(error) if error.is(nix::errno::Errno::EEXIST) && here.delete_link(&host)? => {
            here.add_veth(&host, bridge, conf.mtu, peer, namespace)?;
        }
        other => other?,
    }
    here.set_hairpin(&host)?;

    let mut there = Socket::open_in(namespace)?;
    there.set_up("lo")?;
    there.set_up(&arguments.interface)?;
    let index = there.must_link(&arguments.interface)?.index;
    there.add_address(index, address, 32)?;
    there.add_route(&Route {
        destination: conf.gateway(),
        prefix: 32,
        gateway: None,
        index,
        source: None,
        metric: None,
    })?;
    there.add_route(&Route::default_via(conf.gateway(), index))?;

    if !conf.ports.is_empty() {
        nft::apply::apply(&ports::open(address, &conf.ports))
            .map_err(|e| Failure::new(Code::Kernel, "cannot open the pod's host ports", &e))?;
    }
    let host_mac = here.must_link(&host)?.mac.unwrap_or(Mac([0; 6]));
    result(
        conf,
        &Attached {
            bridge: (&conf.bridge, Mac::of(conf.gateway())),
            host: (&host, host_mac),
            pod: peer,
            namespace: path,
            address,
            gateway: conf.gateway(),
        },
    )
}

/// The bridge with the gateway's address, made when it is missing; its index. Idempotent, and safe when two do it at once.
pub fn ensure_bridge(
    socket: &mut Socket,
    name: &str,
    gateway: std::net::Ipv4Addr,
    prefix: u8,
    mtu: u32,
) -> crate::net::netlink::Result<u32> {
    let link = match socket.link(name)? {
        Some(link) => link,
        None => {
            match socket.add_bridge(name, Mac::of(gateway), mtu) {
                Err(error) if error.is(nix::errno::Errno::EEXIST) => {}
                other => other?,
            }
            // Packets between pods go in and out of the bridge: there is no shorter way to tell them about.
            sysctl::set("net/ipv4/conf/all/send_redirects", "0")?;
            sysctl::set(&format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
            sysctl::set("net/ipv4/ip_forward", "1")?;
            socket.must_link(name)?
        }
    };
    if link.mtu != mtu {
        socket.set_mtu(name, mtu)?;
    }
    if !link.up {
        socket.set_up(name)?;
    }
    let addresses: Vec<_> = socket.addresses()?.into_iter().filter(|a| a.index == link.index).collect();
    let wanted = Address { index: link.index, address: gateway, prefix };
    if !addresses.contains(&wanted) {
        socket.add_address(link.index, gateway, prefix)?;
    }
    // A node that got another pod network: the old gateway would keep its route.
    for old in addresses.into_iter().filter(|found| *found != wanted) {
        socket.delete_address(old.index, old.address, old.prefix)?;
    }
    Ok(link.index)
}

/// DEL: everything may be gone already.
pub fn del(arguments: &Arguments, conf: &Conf) -> Result<(), Failure> {
    Socket::open()?.delete_link(&host_name(arguments))?;
    // The address is freed last: until then nobody else can have it.
    let found = Pool::open(&conf.state)?.find(&arguments.container, &arguments.interface)?;
    if let Some((address, owner)) = found {
        close_ports(address, &owner)?;
        Pool::open(&conf.state)?.release(address)?;
    }
    Ok(())
}

/// CHECK: the pod has what ADD gave it.
pub fn check(arguments: &Arguments, conf: &Conf) -> Result<(), Failure> {
    let namespace = open(arguments.namespace.as_deref().unwrap_or(Path::new("")))?;
    let missing = |what: String| Err(Failure::text(Code::CheckFailed, what));
    let Some((address, _)) = Pool::open(&conf.state)?.find(&arguments.container, &arguments.interface)? else {
        return missing(format!("no address is reserved for container {}", arguments.container));
    };
    let mut here = Socket::open()?;
    let host = host_name(arguments);
    let bridge = here.must_link(&conf.bridge)?;
    match here.link(&host)? {
        Some(link) if link.master == Some(bridge.index) && link.up => {}
        Some(_) => return missing(format!("{host} is down or not attached to {}", conf.bridge)),
        None => return missing(format!("there is no link {host}")),
    }
    let mut there = Socket::open_in(&namespace)?;
    let Some(link) = there.link(&arguments.interface)? else {
        return missing(format!("there is no link {} in the pod", arguments.interface));
    };
    if !link.up || !there.addresses()?.iter().any(|a| a.index == link.index && a.address == address) {
        return missing(format!("{} is down or does not have {address}", arguments.interface));
    }
    let gateway = conf.gateway();
    if !there.routes()?.iter().any(|route| route.prefix == 0 && route.gateway == Some(gateway)) {
        return missing(format!("there is no default route via {gateway}"));
    }
    Ok(())
}

/// GC: whatever is not listed as valid goes.
pub fn collect(conf: &Conf) -> Result<(), Failure> {
    for (_, owner) in Pool::open(&conf.state)?.list()? {
        if !conf.valid.iter().any(|(c, i)| *c == owner.container && *i == owner.interface) {
            let arguments =
                Arguments { container: owner.container, interface: owner.interface, namespace: Some(owner.namespace) };
            del(&arguments, conf)?;
        }
    }
    Ok(())
}

/// STATUS: ready to serve ADD.
pub fn status(conf: &Conf) -> Result<(), Failure> {
    Pool::open(&conf.state)?;
    Ok(())
}

/// The loopback plugin: brings `lo` up.
pub fn loopback(command: &str, arguments: &Arguments, conf: &Conf) -> Result<String, Failure> {
    if command != "ADD" {
        return Ok(String::new());
    }
    let path = arguments.namespace.as_deref().unwrap_or(Path::new(""));
    Socket::open_in(&open(path)?)?.set_up("lo")?;
    loopback_result(conf, &path.display().to_string())
}

fn close_ports(address: std::net::Ipv4Addr, owner: &Owner) -> Result<(), Failure> {
    if owner.ports.is_empty() {
        return Ok(());
    }
    nft::apply::apply(&ports::close(address, &owner.ports))
        .map_err(|e| Failure::new(Code::Kernel, "cannot close the pod's host ports", &e))
}

fn open(path: &Path) -> Result<Namespace, Failure> {
    Namespace::open(path)?.ok_or_else(|| {
        Failure::about(Code::UnknownContainer, "there is no network namespace", path.display().to_string())
    })
}

/// Name of the host's end: the same for every call of one attachment.
fn host_name(arguments: &Arguments) -> String {
    let digest = Sha256::digest(format!("{}/{}", arguments.container, arguments.interface));
    format!("veth{:08x}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
}
