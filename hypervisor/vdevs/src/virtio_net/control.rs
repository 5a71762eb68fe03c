//! The control queue: which frames the driver wants (virtio 1.3, 5.1.6.5.1, 5.1.6.5.2).
//!
//! Answers for: reading orders, checking them, and following them. Does not answer for: filtering frames, which the network does.

use super::layout::feature;
use vdev::{FILTER_ADDRESSES, Mac, NetFilter, NetPort};
use virtio::{Features, Next, Request, Serving, Stopped};

/// Classes, and what they have.
const CTRL_RX: u8 = 0;
const CTRL_RX_PROMISC: u8 = 0;
const CTRL_RX_ALLMULTI: u8 = 1;
const CTRL_MAC: u8 = 1;
const CTRL_MAC_TABLE_SET: u8 = 0;

/// `VIRTIO_NET_OK`, `VIRTIO_NET_ERR`.
const OK: u8 = 0;
const ERR: u8 = 1;

/// Orders that are followed in one step.
const BATCH: usize = 4;
/// Most addresses of a table that are looked at: those beyond what a filter has room for make it pass all, and more are a mistake.
const MOST_ADDRESSES: u32 = 1024;

/// What the driver has ordered.
pub(super) struct Control {
    request: Request,
    features: Features,
    filter: NetFilter,
    /// The driver wants everything itself, or its table was too long.
    wants_all: bool,
    wants_groups: bool,
    stations_overflow: bool,
    groups_overflow: bool,
}

impl Control {
    pub(super) fn new(request: Request) -> Self {
        let (features, filter) = (Features::empty(), NetFilter::default());
        let wants_all = filter.promiscuous;
        let (wants_groups, stations_overflow, groups_overflow) = (false, false, false);
        Self { request, features, filter, wants_all, wants_groups, stations_overflow, groups_overflow }
    }

    pub(super) fn begin(&mut self, features: Features) {
        (self.features, self.filter) = (features, NetFilter::default());
        (self.wants_all, self.wants_groups) = (self.filter.promiscuous, self.filter.all_groups);
        (self.stations_overflow, self.groups_overflow) = (false, false);
    }

    pub(super) fn serve(&mut self, port: &dyn NetPort, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            if !work.pop(&mut self.request) {
                return Next::Idle;
            }
            // One that is void has nobody who waits for it.
            let _ = self.obey(port, work);
        }
        Next::Again
    }

    fn obey(&mut self, port: &dyn NetPort, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        let is_known = self.features.contains(feature::CTRL_VQ | feature::CTRL_RX);
        let mut order = [0; 2];
        let is_whole = work.read(&mut self.request, &mut order)? == order.len();
        let followed = match order {
            _ if !is_known || !is_whole => false,
            [CTRL_RX, CTRL_RX_PROMISC] => self.switch(work)?.map(|on| self.wants_all = on).is_some(),
            [CTRL_RX, CTRL_RX_ALLMULTI] => self.switch(work)?.map(|on| self.wants_groups = on).is_some(),
            [CTRL_MAC, CTRL_MAC_TABLE_SET] => self.set_tables(work)?,
            _ => false,
        };
        if followed {
            self.filter.promiscuous = self.wants_all || self.stations_overflow;
            self.filter.all_groups = self.wants_groups || self.groups_overflow;
            port.set_filter(&self.filter);
        }
        work.write(&mut self.request, &[if followed { OK } else { ERR }])?;
        work.complete(&self.request)
    }

    /// On or off, if that is all there is.
    fn switch(&mut self, work: &mut Serving<'_, '_>) -> Result<Option<bool>, Stopped> {
        let mut on = [0];
        let is_whole = work.read(&mut self.request, &mut on)? == 1 && self.request.readable() == 0;
        Ok(Some(on != [0]).filter(|_| is_whole && matches!(on, [0 | 1])))
    }

    /// Two tables: stations, and groups. Says whether they were well made; if not, nothing changes.
    fn set_tables(&mut self, work: &mut Serving<'_, '_>) -> Result<bool, Stopped> {
        let Some((stations, stations_overflow)) = self.table(work)? else { return Ok(false) };
        let Some((groups, groups_overflow)) = self.table(work)? else { return Ok(false) };
        let is_all = self.request.readable() == 0;
        if is_all {
            (self.filter.stations, self.filter.groups) = (stations, groups);
            (self.stations_overflow, self.groups_overflow) = (stations_overflow, groups_overflow);
        }
        Ok(is_all)
    }

    /// One table, and whether it has more than there is room for; `None` if there is not what it says.
    fn table(&mut self, work: &mut Serving<'_, '_>) -> Result<Option<Table>, Stopped> {
        let mut entries = [0; 4];
        let is_whole = work.read(&mut self.request, &mut entries)? == entries.len();
        let entries = u32::from_le_bytes(entries);
        let bytes = u64::from(entries).saturating_mul(6);
        if !is_whole || entries > MOST_ADDRESSES || bytes > self.request.readable() {
            return Ok(None);
        }
        let mut table = [Mac::default(); FILTER_ADDRESSES];
        let count = usize::try_from(entries).unwrap_or(usize::MAX);
        for mac in table.iter_mut().take(count) {
            work.read(&mut self.request, &mut mac.0)?;
        }
        let beyond = count.saturating_sub(FILTER_ADDRESSES).saturating_mul(6);
        self.request.skip_readable(u64::try_from(beyond).unwrap_or(u64::MAX));
        Ok(Some((table, beyond > 0)))
    }
}

/// Addresses, and whether there were more.
type Table = ([Mac; FILTER_ADDRESSES], bool);
