//! The machine's LPIs: how its guest sets them up, sends them and changes them.

use super::*;

impl Machine {
    // ---- LPIs

    /// All LPIs are mapped and enabled.
    pub(super) fn boot_lpis(&mut self) {
        self.command(command::mapd(DEVICE.into(), Some(6)));
        for event in 0..LPIS {
            let (vcpu, priority) = (self.some_vcpu(), self.below(256) as u8);
            self.configure_lpi(event, true, priority);
            self.command(command::mapti(DEVICE.into(), event as u64, (FIRST_LPI + event) as u64, vcpu as u64));
            self.mapped[event] = vcpu;
        }
    }

    pub(super) fn command(&mut self, command: command::Command) {
        let done = self.driver.send(&self.vgic, &[command]);
        assert_eq!(done.refused, None, "{}", self.context());
    }

    /// Writes the guest's table; the ITS does not know yet.
    pub(super) fn configure_lpi(&mut self, event: usize, enabled: bool, priority: u8) {
        self.driver.configure((FIRST_LPI + event) as u64, priority & 0xfc | u8::from(enabled));
        let source = &mut self.model.lpis[event];
        source.enabled = enabled;
        source.priority = priority & 0xfc & (0xff_u8 << (8 - self.shape.priority_bits));
    }

    /// The guest says that the table has changed, in one of several ways.
    fn invalidate(&mut self, event: usize) {
        let lpi = (FIRST_LPI + event) as u64;
        match self.below(4) {
            0 => self.command(command::invall(0)),
            1 => self.command(command::inv(DEVICE.into(), event as u64)),
            way => {
                let (offset, vcpu) = (if way == 2 { 0xa0 } else { 0xb0 }, self.some_vcpu());
                self.driver.write_redistributor(&self.vgic, vcpu, offset, AccessSize::Doubleword, lpi);
            }
        }
    }

    /// The device sends a message to the ITS, or the guest has it raise the interrupt.
    pub(super) fn raise_lpi(&mut self) {
        // Often the one that was taken last, which may not have been ended yet.
        let event = if self.chance(2) { self.last_lpi } else { self.below(LPIS) };
        let source = &mut self.model.lpis[event];
        source.route = self.mapped[event];
        source.set_latch();
        if self.chance(4) {
            return self.command(command::int(DEVICE.into(), event as u64));
        }
        let kick = self.vgic.message(Some(RequesterId(DEVICE)), TRANSLATER, event as u32);
        if kick.is_empty() && self.mode == Mode::Exact {
            self.compare_signals();
        }
    }

    /// The guest changes something about an LPI.
    pub(super) fn reconfigure_lpi(&mut self) {
        let (event, vcpu) = (self.below(LPIS), self.some_vcpu());
        let source = self.model.lpis[event];
        match self.below(8) {
            0..=2 => {
                self.configure_lpi(event, !source.enabled, source.priority);
                self.invalidate(event);
            }
            3 if !source.pending() => {
                let priority = self.below(256) as u8;
                self.configure_lpi(event, source.enabled, priority);
                self.invalidate(event);
            }
            4 => {
                self.command(command::clear(DEVICE.into(), event as u64));
                self.model.lpis[event].latch = false;
            }
            5..=6 => {
                self.command(command::movi(DEVICE.into(), event as u64, vcpu as u64));
                self.model.lpis[event].route = vcpu;
                self.mapped[event] = vcpu;
            }
            7 => {
                let from = self.some_vcpu();
                self.command(command::movall(from as u64, vcpu as u64));
                for source in self.model.lpis.iter_mut().filter(|source| source.pending() && source.route == from) {
                    source.route = vcpu;
                }
            }
            _ => {}
        }
    }
}
