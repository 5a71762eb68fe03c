//! Streams of a VM's devices of the machine, for an SMMU of the VM's own.
//!
//! Answers for: what such an SMMU has the machine's do, and hears of them, in the formats of the Arm SMMU architecture (IHI 0070): this
//! crate knows nothing of what they say. Does not answer for: doing it (the kernel), deciding it (`vsmmu`).

/// An entry of a stream table, as far as an SMMU without stage 2 has one: words 0 and 1 (5.2).
pub type StreamEntry = [u64; 2];
/// A command (chapter 4).
pub type StreamCommand = [u64; 2];
/// A record of an event (7.3).
pub type StreamEvent = [u64; 4];

/// Most commands at once.
pub const STREAM_COMMANDS: usize = 32;

/// The machine's SMMUs on behalf of one VM. Whatever is asked for, no device reaches more than its VM does. What cannot be done ends in
/// the device's being cut off, which the host tells: there is nothing that a guest could do about it. Calls wait for the SMMUs, within a
/// limit: no lock is to be held.
///
/// When there are events the device's first worker is rung for.
pub trait HostStreams: Send + Sync {
    /// The streams that there are: IDs of requesters on the guest's bus, at most 256.
    fn streams(&self) -> &[u32];

    /// Whether all SMMUs of the machine have ASIDs of 16 bits, and not 8.
    fn has_asid16(&self) -> bool;

    /// From now on the stream's transactions are treated as the entry says. When this returns no transaction uses any more what there was before.
    fn set(&self, stream: u32, entry: StreamEntry);

    /// Has forgotten, when this returns, what these commands are about: at most [`STREAM_COMMANDS`] of `CMD_CFGI_CD_ALL` and `CMD_TLBI_NH_*`.
    /// Their VMIDs do not count, and streams have the guest's numbers.
    fn forget(&self, commands: &[StreamCommand]);

    /// The next event of a stream, with the guest's number, that has to do with the guest's own tables, if there is one. Waits for nothing.
    fn event(&self) -> Option<StreamEvent>;
}
