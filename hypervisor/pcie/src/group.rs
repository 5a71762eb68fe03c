//! Which functions cannot be kept apart.
//!
//! Answers for: isolation groups. Two functions are in one if one can reach the other without its requests going up to the
//! host, where an SMMU stands (PCI Express, 6.12), or if an SMMU cannot tell their requests apart. Does not answer for: who owns a group.

use crate::{Function, PortKind};
use alloc::vec::Vec;

/// Gives every function the number of its group, from 0 on in the order of the list.
pub(crate) fn number(functions: &mut [Function]) {
    // Each leads to one of its group, the first to itself.
    let mut leads: Vec<usize> = (0..functions.len()).collect();
    for n in 0..functions.len() {
        if let Some(other) = joins_above(functions, n) {
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

/// The bridge above, if what is behind it can reach beyond it other than by way of the host; or one above that.
fn joins_above(functions: &[Function], n: usize) -> Option<usize> {
    let mut joined = None;
    let mut next = above(functions, n);
    // Above is always earlier in the list.
    while let Some(bridge) = next {
        if !functions.get(bridge).is_some_and(separates) {
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

/// Whether a bridge sends everything upstream. Only ports can (6.12.1.1); the port of a switch towards the host only passes on what those
/// below it have sent up, and other bridges may put their own number on requests.
fn separates(function: &Function) -> bool {
    let kind = function.capabilities.express.map(|express| express.kind);
    let access_control = function.capabilities.access_control.is_some_and(|access| access.separates);
    match kind {
        Some(PortKind::RootPort | PortKind::DownstreamPort) => access_control,
        Some(PortKind::UpstreamPort) => true,
        _ => false,
    }
}

/// Functions of the same device that it can reach, or that can reach it, inside of the device (6.12.1.2). Those of SR-IOV are made to be
/// kept apart: where they can reach each other they have to say so (9.3.3.2).
fn neighbours(functions: &[Function], n: usize) -> impl Iterator<Item = usize> {
    let one = functions.get(n);
    let is_neighbour = move |other: &Function| {
        one.is_some_and(|one| {
            let (here, there) = (one.address, other.address);
            let is_same = one.above == other.above && here.bus() == there.bus();
            let device = here.device() == there.device() || has_ari(one) && has_ari(other);
            let is_virtual = one.physical.is_some() || other.physical.is_some();
            is_same && device && !is_virtual && !(keeps_apart(one) && keeps_apart(other))
        })
    };
    let others = functions.iter().enumerate().take(n);
    others.filter(move |(_, other)| is_neighbour(other)).map(|(other, _)| other)
}

/// All functions below a port are one device's, whatever their device number says.
fn has_ari(function: &Function) -> bool {
    function.capabilities.ari.is_some() && function.above.is_some()
}

fn keeps_apart(function: &Function) -> bool {
    function.capabilities.access_control.is_some_and(|access| access.separates)
}
