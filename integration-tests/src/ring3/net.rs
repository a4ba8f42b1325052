//! Three data centres of network namespaces: a bridge in each, every process behind a veth pair of its own, and one router
//! between them whose forwarding is decided by the program in [`super::wan`].
//!
//! Owns every namespace it makes, by name: `r3-PID-...`. Addresses are of 198.18.0.0/15, the range for benchmarks.
//! Drops between two nodes are made on the receiver's input, as a real network would: on the sender's output the kernel
//! would tell the program at once.

use super::Failure;
use crate::wait::eventually;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Data centres.
pub const DCS: u32 = 3;

/// The namespace of the clients.
pub const CLIENTS: &str = "cl";

/// The namespace of the router.
pub const ROUTER: &str = "wan";

/// The network of one runner.
#[derive(Debug)]
pub struct Net {
    id: u32,
    owned: bool,
}

/// The namespace of a node: role letter and number.
pub fn address(dc: u32, slot: u32) -> String {
    format!("198.18.{dc}.{slot}")
}

/// Runs a program to its end; its words when it fails.
///
/// # Errors
/// What it printed, or why it could not be run.
pub fn sh(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

impl Net {
    /// The network that a runner of this number made.
    pub fn of(id: u32) -> Self {
        Self { id, owned: false }
    }

    /// Makes the network: a node of each of `slots` in every data centre (`c` is slot 1, `b` slot 2).
    ///
    /// # Errors
    /// When the kernel or a tool refuses; what was made is removed.
    pub fn build(slots: &[(&str, u32)]) -> Result<Self, Failure> {
        sweep();
        let net = Self { id: std::process::id(), owned: true };
        net.namespace(ROUTER)?;
        net.inside(ROUTER, "sysctl -q -w net.ipv4.ip_forward=1").or_else(|_| net.forward())?;
        net.namespace(CLIENTS)?;
        net.link(ROUTER, CLIENTS, CLIENTS, "eth0")?;
        net.address(ROUTER, CLIENTS, "198.19.0.254/24")?;
        net.address(CLIENTS, "eth0", "198.19.0.2/24")?;
        net.ip(&format!("-n {} route add default via 198.19.0.254", net.name(CLIENTS)))?;
        for dc in 1..=DCS {
            net.data_centre(dc, slots)?;
        }
        // Not nft: kernels without its queue expression have the older target.
        let forwarded = "-A FORWARD -s 198.18.0.0/16 -d 198.18.0.0/16 -j NFQUEUE --queue-num 0";
        net.inside(ROUTER, &format!("iptables-legacy {forwarded}"))?;
        Ok(net)
    }

    fn data_centre(&self, dc: u32, slots: &[(&str, u32)]) -> Result<(), Failure> {
        let place = format!("dc{dc}");
        self.namespace(&place)?;
        self.ip(&format!("-n {} link add br0 type bridge", self.name(&place)))?;
        self.ip(&format!("-n {} link set br0 up", self.name(&place)))?;
        self.link(&place, "rt", ROUTER, &place)?;
        self.bridged(&place, "rt")?;
        self.address(ROUTER, &place, &format!("198.18.{dc}.254/24"))?;
        for (letter, slot) in slots {
            let node = format!("{letter}{dc}");
            self.namespace(&node)?;
            self.link(&place, &node, &node, "eth0")?;
            self.bridged(&place, &node)?;
            self.address(&node, "eth0", &format!("{}/24", address(dc, *slot)))?;
            self.ip(&format!("-n {} route add default via 198.18.{dc}.254", self.name(&node)))?;
            self.inside(&node, "nft add table ip r3")?;
            self.inside(&node, "nft add set ip r3 cut { type ipv4_addr ; }")?;
            self.inside(&node, "nft add chain ip r3 i { type filter hook input priority 0 ; }")?;
            self.inside(&node, "nft add rule ip r3 i ip saddr @cut counter drop")?;
        }
        Ok(())
    }

    /// The full name of a namespace.
    pub fn name(&self, which: &str) -> String {
        format!("r3-{}-{which}", self.id)
    }

    /// The number in every name.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn namespace(&self, which: &str) -> Result<(), Failure> {
        self.ip(&format!("netns add {}", self.name(which)))?;
        self.ip(&format!("-n {} link set lo up", self.name(which)))
    }

    fn link(&self, one: &str, end: &str, other: &str, other_end: &str) -> Result<(), Failure> {
        let (one, other) = (self.name(one), self.name(other));
        self.ip(&format!("link add name {end} netns {one} type veth peer name {other_end} netns {other}"))?;
        self.ip(&format!("-n {one} link set {end} up"))?;
        self.ip(&format!("-n {other} link set {other_end} up"))
    }

    fn bridged(&self, place: &str, end: &str) -> Result<(), Failure> {
        self.ip(&format!("-n {} link set {end} master br0", self.name(place)))
    }

    fn address(&self, which: &str, end: &str, address: &str) -> Result<(), Failure> {
        self.ip(&format!("-n {} addr add {address} dev {end}", self.name(which)))
    }

    fn forward(&self) -> Result<String, Failure> {
        let name = self.name(ROUTER);
        let line = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        sh("ip", &["netns", "exec", &name, "sh", "-c", line])
    }

    fn ip(&self, line: &str) -> Result<(), Failure> {
        sh("ip", &words(line)).map(|_| ())
    }

    /// Runs a program inside a namespace, to its end.
    ///
    /// # Errors
    /// As [`sh`].
    pub fn inside(&self, which: &str, line: &str) -> Result<String, Failure> {
        let name = self.name(which);
        let mut arguments = vec!["netns", "exec", &name];
        arguments.extend(words(line));
        sh("ip", &arguments)
    }

    /// A command that will run inside a namespace.
    pub fn command(&self, which: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(which), program]);
        command
    }

    /// What comes from this address to this node is dropped from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn drop_from(&self, node: &str, address: &str) -> Result<(), Failure> {
        self.inside(node, &format!("nft add element ip r3 cut {{ {address} }}")).map(|_| ())
    }

    /// Nothing is dropped at this node any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn drop_nothing(&self, node: &str) -> Result<(), Failure> {
        self.inside(node, "nft flush set ip r3 cut").map(|_| ())
    }

    /// How many packets were dropped at this node so far.
    ///
    /// # Errors
    /// When the kernel refuses, or prints something else than a counter.
    pub fn dropped(&self, node: &str) -> Result<u64, Failure> {
        let text = self.inside(node, "nft list chain ip r3 i")?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        let count = words.nth(1).and_then(|word| word.parse().ok());
        count.ok_or_else(|| format!("no counter in {text}"))
    }

    fn destroy(&self) {
        let prefix = format!("r3-{}-", self.id);
        remove(&names().into_iter().filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.owned {
            self.destroy();
        }
    }
}

/// Namespaces of rings, of whatever runner.
fn names() -> Vec<String> {
    let listed = sh("ip", &["netns", "list"]).unwrap_or_default();
    let first = listed.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|name| name.starts_with("r3-")).map(str::to_owned).collect()
}

/// Removes namespaces with their links, and ends what runs in them.
///
/// The names go first, so that nobody can enter any more; from then on a namespace is known by its number only, which the
/// kernel gives to nobody else while its file is held open.
fn remove(names: &[String]) {
    let held: Vec<_> = names.iter().filter_map(|name| File::open(Path::new("/run/netns").join(name)).ok()).collect();
    let numbers: Vec<_> = held.iter().filter_map(|file| file.metadata().ok()).map(|file| file.ino()).collect();
    for name in names {
        if let Err(why) = sh("ip", &["netns", "delete", name]) {
            eprintln!("{why}");
        }
    }
    eventually("nothing runs in the namespaces any more", || {
        let inside = inhabitants(&numbers);
        for pid in &inside {
            // One that has ended meanwhile is what is wanted.
            let _ = sh("kill", &["-9", pid]);
        }
        if inside.is_empty() { Ok(()) } else { Err(format!("{inside:?} live")) }
    });
}

/// The processes in these namespaces. One that is dead and waits to be reaped is in none.
fn inhabitants(numbers: &[u64]) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let within = |path: &Path| {
        let number = std::fs::metadata(path.join("ns/net")).map(|file| file.ino());
        number.is_ok_and(|number| numbers.contains(&number))
    };
    let inside = processes.filter(|process| within(&process.path()));
    inside.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes what runners left behind that live no more.
pub fn sweep() {
    let left = |name: &String| {
        let runner = name.split('-').nth(1).and_then(|word| word.parse::<u32>().ok());
        !runner.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
    };
    remove(&names().into_iter().filter(left).collect::<Vec<_>>());
}
