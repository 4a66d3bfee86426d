//! `isolation.network`: the interface by which a network namespace of its own reaches others.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::values::{Problem, text};
use crate::diagnostic::rules;

/// The longest name of an interface, in bytes (`IFNAMSIZ`, less its end).
pub(super) const INTERFACE_LIMIT: usize = 15;

/// An interface of its own, `eth0`, with its other end at a bridge of the machine (veth(4)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The bridge's name. It has to be there when the component starts.
    pub bridge: String,
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are those of the network.
    pub prefix: u8,
    /// Where everything goes that is not for this network.
    pub gateway: Option<IpAddr>,
}

/// A table of bridge, address and, if there is one, gateway.
pub(super) fn network(value: &DeValue<'_>) -> Result<Network, Problem> {
    const EXAMPLE: &str =
        "for example { bridge = \"br0\", address = \"10.0.0.2/24\", gateway = \"10.0.0.1\" }";
    let DeValue::Table(table) = value else {
        return Err(Problem::wrong_type("a table of bridge, address and gateway", value).help(EXAMPLE));
    };
    let problem = |what: String| Problem::new(&rules::NO_NETWORK, what).help(EXAMPLE);
    let (mut bridge, mut address, mut gateway) = (None, None, None);
    for (name, value) in table {
        let given = text(value.get_ref()).map_err(|problem| problem.at(value.span()))?;
        let wrong = |what: &str| problem(format!("has {what}: {given:?}")).at(value.span());
        match name.get_ref().as_ref() {
            "bridge" if is_interface(&given) => bridge = Some(given),
            "bridge" => return Err(wrong("a bridge that no interface can be called")),
            "address" => {
                address = Some(with_prefix(&given).ok_or_else(|| wrong("an address without its prefix"))?);
            }
            "gateway" => gateway = Some(given.parse().map_err(|_| wrong("a gateway that is no address"))?),
            other => return Err(problem(format!("has an unknown key {other:?}")).at(value.span())),
        }
    }
    let (Some(bridge), Some((address, prefix))) = (bridge, address) else {
        return Err(problem("has no bridge, or no address".to_owned()));
    };
    if gateway.is_some_and(|gateway: IpAddr| gateway.is_ipv4() != address.is_ipv4()) {
        return Err(problem("has an address and a gateway of two families".to_owned()));
    }
    Ok(Network { bridge, address, prefix, gateway })
}

/// `"ADDRESS/PREFIX"`.
fn with_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| (1..=most).contains(prefix))?;
    Some((address, prefix))
}

/// What the kernel takes for the name of an interface (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    let is_usable = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    (1..=INTERFACE_LIMIT).contains(&name.len()) && name != "." && name != ".." && name.chars().all(is_usable)
}
