//! Virtio devices as the drivers of the package `virtio-drivers` know them.

#[cfg(test)]
mod balloon;
#[cfg(test)]
mod blk;
#[cfg(test)]
mod console;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod entropy;
#[cfg(test)]
mod files;
#[cfg(test)]
mod input;
#[cfg(test)]
mod net;
#[cfg(test)]
mod vsock;
