//! What the architecture says of interrupts, without list registers (IHI 0069, "Interrupt handling state machine").

/// One interrupt of one CPU, or one SPI.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Source {
    pub(crate) enabled: bool,
    pub(crate) group: usize,
    pub(crate) priority: u8,
    pub(crate) edge: bool,
    pub(crate) line: bool,
    /// Pending by an edge or by software.
    pub(crate) latch: bool,
    /// An edge came while it was pending. If the vCPU is told of that late, it cannot be known whether the edge was before
    /// its acknowledgement; then it counts as after: it may be taken once more.
    pub(crate) again: bool,
    /// Which vCPU has it active.
    pub(crate) active: Option<usize>,
    /// For an SPI: who takes it.
    pub(crate) route: usize,
    /// "LPIs do not have an active state."
    pub(crate) is_lpi: bool,
}

impl Source {
    pub(crate) fn pending(&self) -> bool {
        self.latch || self.line && !self.edge
    }

    pub(crate) fn set_line(&mut self, asserted: bool) {
        if self.edge && asserted && !self.line {
            self.set_latch();
        }
        self.line = asserted;
    }

    pub(crate) fn set_latch(&mut self) {
        self.again |= self.latch;
        self.latch = true;
    }

    /// Acknowledged by vCPU `by`; `late` if it is told late.
    pub(crate) fn acknowledge(&mut self, by: usize, late: bool) {
        let pending = self.pending() || late && std::mem::take(&mut self.again);
        assert!(pending && self.active.is_none() && self.enabled, "acknowledged in state {self:?}");
        self.latch = false;
        self.active = (!self.is_lpi).then_some(by);
    }
}

/// The first LPI.
pub(crate) const FIRST_LPI: usize = 8192;

/// All interrupts of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    /// LPIs; `route` is where they are pending.
    pub(crate) lpis: Vec<Source>,
    pub(crate) private: Vec<[Source; 32]>,
    pub(crate) shared: Vec<Source>,
    /// `GICD_CTLR`'s group enables.
    pub(crate) groups: [bool; 2],
}

impl Architecture {
    pub(crate) fn new(vcpus: usize, intids: usize, lpis: usize) -> Self {
        let mut private = [Source { group: 1, ..Source::default() }; 32];
        for source in private.iter_mut().take(16) {
            source.edge = true;
        }
        Self {
            lpis: vec![Source { group: 1, edge: true, is_lpi: true, ..Source::default() }; lpis],
            private: vec![private; vcpus],
            shared: vec![Source { group: 1, ..Source::default() }; intids - 32],
            groups: [false; 2],
        }
    }

    pub(crate) fn source(&mut self, vcpu: usize, intid: usize) -> &mut Source {
        match intid {
            0..32 => &mut self.private[vcpu][intid],
            FIRST_LPI.. => &mut self.lpis[intid - FIRST_LPI],
            _ => &mut self.shared[intid - 32],
        }
    }

    /// What could be delivered to `vcpu`: priority, INTID, group.
    pub(crate) fn deliverable(&self, vcpu: usize) -> impl Iterator<Item = (u8, usize, usize)> {
        let private = self.private[vcpu].iter().enumerate();
        let shared = self.shared.iter().enumerate().map(|(index, source)| (index + 32, source));
        let lpis = self.lpis.iter().enumerate().map(|(index, source)| (index + FIRST_LPI, source));
        private
            .chain(shared.chain(lpis).filter(move |(_, source)| source.route == vcpu))
            .filter(|(_, source)| {
                source.pending() && source.active.is_none() && source.enabled && self.groups[source.group]
            })
            .map(|(intid, source)| (source.priority, intid, source.group))
    }
}
