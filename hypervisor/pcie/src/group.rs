//! Which functions cannot be kept apart.
//!
//! Answers for: isolation groups. Two functions are in one if one can reach the other without its requests going up to the
//! host, where an SMMU stands (PCI Express, 6.12), or if an SMMU cannot tell their requests apart. Does not answer for: who owns a group.

use crate::{Function, PortKind};
use alloc::vec::Vec;
use pci_types::PciAddress;

/// Gives every function the number of its group, from 0 on in the order of the list.
pub(crate) fn number(functions: &mut [Function]) {
    // Each leads to one of its group, the first to itself.
    let mut leads: Vec<usize> = (0..functions.len()).collect();
    let separate: Vec<bool> = (0..functions.len()).map(|n| separates(functions, n)).collect();
    for n in 0..functions.len() {
        if let Some(other) = joins_above(functions, n, |bridge| separate.get(bridge) == Some(&true)) {
            join(&mut leads, n, other);
        }
        for other in neighbours(functions, n) {
            join(&mut leads, n, other);
        }
    }
    let mut count = 0;
    for n in 0..functions.len() {
        let first = first(&leads, n);
        let known = functions.get(first).filter(|_| first < n).map(|function| function.group);
        if let Some(function) = functions.get_mut(n) {
            function.group = known.unwrap_or(count);
        }
        if known.is_none() {
            count = count.saturating_add(1);
        }
    }
}

/// Whether all bridges above a function send what comes from it upstream.
pub(crate) fn is_apart_from_above(functions: &[Function], address: PciAddress) -> bool {
    let own = functions.iter().position(|function| function.address == address);
    own.is_some_and(|own| joins_above(functions, own, |bridge| separates(functions, bridge)).is_none())
}

fn first(leads: &[usize], mut n: usize) -> usize {
    // It goes down to an end: `join` lets larger numbers lead to smaller ones only.
    while let Some(next) = leads.get(n).filter(|next| **next < n) {
        n = *next;
    }
    n
}

fn join(leads: &mut [usize], one: usize, other: usize) {
    let (one, other) = (first(leads, one), first(leads, other));
    if let Some(lead) = leads.get_mut(one.max(other)) {
        *lead = one.min(other);
    }
}

/// The bridge above, if what is behind it can reach beyond it other than by way of the host, or can be reached so; or one above that.
fn joins_above(functions: &[Function], n: usize, separates: impl Fn(usize) -> bool) -> Option<usize> {
    let mut joined = None;
    let mut next = above(functions, n);
    // Above is always earlier in the list.
    while let Some(bridge) = next {
        if !separates(bridge) {
            joined = Some(bridge);
        }
        next = above(functions, bridge);
    }
    joined
}

fn above(functions: &[Function], n: usize) -> Option<usize> {
    let above = functions.get(n)?.above?;
    functions.iter().take(n).position(|function| function.address == above)
}

fn kind(function: &Function) -> Option<PortKind> {
    function.capabilities.express.map(|express| express.kind)
}

/// Whether a bridge sends everything upstream, and nothing but what has been there arrives behind it. Only ports can (6.12.1.1); the port of
/// a switch towards the host only passes on what those below it have sent up, and other bridges may put their own number on requests. A port
/// looks at what comes in from behind it, not at what goes out: a neighbour that does not redirect reaches through it.
fn separates(functions: &[Function], n: usize) -> bool {
    let Some(function) = functions.get(n) else { return false };
    let redirects = match kind(function) {
        Some(PortKind::RootPort | PortKind::DownstreamPort) => keeps_apart(function),
        Some(PortKind::UpstreamPort) => true,
        _ => false,
    };
    // Of what belongs to the host, and to nobody else ever, only bridges send.
    let sends = |other: usize| functions.get(other).is_some_and(|it| it.bridge.is_some() || it.class.base != 0x06);
    redirects && !neighbours(functions, n).any(sends)
}

/// Functions of the same device that it can reach, or that can reach it, inside of the device (6.12.1.2); all ports of a switch away from the
/// host are one device in this. Those of SR-IOV are made to be kept apart: where they can reach each other they have to say so (9.3.3.2).
fn neighbours(functions: &[Function], n: usize) -> impl Iterator<Item = usize> {
    let one = functions.get(n);
    let is_in_switch =
        above(functions, n).and_then(|above| kind(functions.get(above)?)) == Some(PortKind::UpstreamPort);
    let is_down = |function: &Function| kind(function) == Some(PortKind::DownstreamPort);
    let is_neighbour = move |other: &Function| {
        one.is_some_and(|one| {
            let (here, there) = (one.address, other.address);
            let is_same = one.above == other.above && here.bus() == there.bus() && here != there;
            let device = here.device() == there.device() || has_ari(one) && has_ari(other);
            let switch = is_in_switch || is_down(one) && is_down(other);
            let is_virtual = one.physical.is_some() || other.physical.is_some();
            is_same && (device || switch) && !is_virtual && !(keeps_apart(one) && keeps_apart(other))
        })
    };
    functions.iter().enumerate().filter(move |(_, other)| is_neighbour(other)).map(|(other, _)| other)
}

/// All functions below a port are one device's, whatever their device number says.
fn has_ari(function: &Function) -> bool {
    function.capabilities.ari.is_some() && function.above.is_some()
}

fn keeps_apart(function: &Function) -> bool {
    function.capabilities.access_control.is_some_and(|access| access.separates)
}
