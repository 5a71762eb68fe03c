//! What the controller does, compared with what the model says.

use super::*;

impl Machine {
    // ---- what has to be true

    pub(super) fn context(&self) -> String {
        format!("{:?} {:?}, step {}, groups {:?}", self.shape, self.mode, self.steps, self.model.groups)
    }

    /// What the architecture signals to `vcpu`: the priority of the most urgent, if it can be signalled.
    fn expected(&self, vcpu: usize) -> Option<u8> {
        let guest = &self.guests[vcpu];
        let (priority, _, group) =
            self.model.deliverable(vcpu).filter(|(_, _, group)| guest.groups[*group]).min_by_key(|first| first.0)?;
        let running = guest.running.iter().map(|(_, _, priority)| *priority).min().unwrap_or(256);
        let preempts = self.preempting_part(priority, group) < running;
        (priority < guest.mask && preempts).then_some(priority)
    }

    /// The binary points are as after a reset: all implemented bits preempt.
    fn preempting_part(&self, priority: u8, _group: usize) -> u32 {
        u32::from(priority) & (0xff << (8 - u32::from(self.shape.priority_bits)))
    }

    pub(super) fn compare_signals(&self) {
        for vcpu in 0..self.shape.vcpus {
            let expected = self.expected(vcpu);
            let any = &self.cpus[0];
            match self.cpu_of(vcpu) {
                Some(cpu) if !self.vgic.needs_refill(Self::id(vcpu)) && self.cpus[cpu].maintenance() == 0 => {
                    let signalled = self.cpus[cpu].signalled();
                    let priority = signalled.map(|(_, intid)| self.source(vcpu, intid as usize).priority);
                    assert_eq!(
                        priority,
                        expected,
                        "{}: vcpu {vcpu} is signalled {signalled:?} by {:?}, {:?}; which is {:?}; could be {:?}",
                        self.context(),
                        self.cpus[cpu],
                        self.guests[vcpu],
                        signalled.map(|(_, intid)| self.source(vcpu, intid as usize)),
                        self.model
                            .deliverable(vcpu)
                            .map(|(_, intid, _)| (intid, self.source(vcpu, intid)))
                            .collect::<Vec<_>>(),
                    );
                    let wakes = self.vgic.wants_attention(Self::id(vcpu), &self.cpus[cpu]);
                    assert_eq!(wakes, expected.is_some(), "{}: wake vcpu {vcpu}", self.context());
                }
                Some(_) => {}
                None => {
                    let wakes = self.vgic.wants_attention(Self::id(vcpu), any);
                    assert_eq!(wakes, expected.is_some(), "{}: wake absent vcpu {vcpu}", self.context());
                }
            }
        }
    }

    fn source(&self, vcpu: usize, intid: usize) -> &Source {
        match intid {
            0..32 => &self.model.private[vcpu][intid],
            FIRST_LPI.. => &self.model.lpis[intid - FIRST_LPI],
            _ => &self.model.shared[intid - 32],
        }
    }

    /// `ISPENDR` and `ISACTIVER`, read by somebody who reads twice.
    pub(super) fn compare_registers(&mut self) {
        let cpu = self.below(self.shape.cpus);
        let Some(by) = self.loaded[cpu] else { return };
        let vcpu = self.some_vcpu();
        let bank = self.below(INTIDS / 32);
        for (offset, pending) in [(0x200, true), (0x300, false)] {
            let mut value = 0;
            for _ in 0..2 {
                value = self.observe(by, cpu, vcpu, bank, offset);
                self.settle();
            }
            for index in 0..32 {
                let intid = bank * 32 + index;
                let source = self.source(vcpu, intid);
                let expected = if pending { source.pending() } else { source.active.is_some() };
                let shown = value >> index & 1 != 0;
                assert_eq!(shown, expected, "{}: {intid} at {offset:#x} of {vcpu} seen by {by}", self.context());
            }
        }
    }

    fn observe(&mut self, by: usize, cpu: usize, vcpu: usize, bank: usize, offset: u64) -> u64 {
        let (by, registers) = (Self::id(by), &self.cpus[cpu]);
        let (value, kick) = if bank == 0 {
            let frame = vcpu as u64 * Vgic::REDISTRIBUTOR_SIZE + 0x1_0000;
            self.vgic.observe_redistributor(by, registers, frame + offset, AccessSize::Word)
        } else {
            self.vgic.observe_distributor(by, registers, offset + bank as u64 * 4, AccessSize::Word)
        };
        assert!(!kick.contains(by));
        value
    }

    /// Everything becomes quiet: whatever is pending is taken, handled and ended. Nothing may be left.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.write_control([true, true]);
        for vcpu in 0..self.shape.vcpus {
            for intid in 0..INTIDS {
                self.set_bit(vcpu, intid, 0x100, true);
                self.model.source(vcpu, intid).enabled = true;
            }
        }
        for event in 0..LPIS {
            self.configure_lpi(event, true, self.model.lpis[event].priority);
        }
        self.command(command::invall(0));
        for _round in 0..3 {
            for vcpu in 0..self.shape.vcpus {
                let cpu = self.cpu_of(vcpu).unwrap_or(vcpu % self.shape.cpus);
                if self.loaded[cpu] != Some(vcpu) {
                    self.switch(cpu, Some(vcpu));
                }
                self.fire_timer(cpu);
                self.calm(cpu, vcpu);
            }
        }
        for vcpu in 0..self.shape.vcpus {
            assert_eq!(self.model.deliverable(vcpu).count(), 0, "{}: lost on {vcpu}", self.context());
        }
        for intid in 32..INTIDS {
            assert!(self.source(0, intid).active.is_none());
        }
        assert!(self.ended.is_empty(), "{}: nobody was told of {:?}", self.context(), self.ended);
    }

    /// One vCPU handles all it has.
    fn calm(&mut self, cpu: usize, vcpu: usize) {
        for group in 0..2 {
            self.cpus[cpu].enable_group(group, true);
            self.guests[vcpu].groups[group] = true;
        }
        self.cpus[cpu].set_mask(0xff);
        self.guests[vcpu].mask = 0xff;
        loop {
            self.exit(cpu);
            if self.acknowledge(cpu, vcpu) {
                continue;
            }
            if let Some((_, intid, _)) = self.guests[vcpu].running.last().copied() {
                if intid == TIMER {
                    self.guests[vcpu].timer = false;
                } else if (16..INTIDS).contains(&intid) {
                    self.set_line(vcpu, intid, false);
                    self.exit(cpu);
                }
                self.end(cpu, vcpu);
            } else if !self.guests[vcpu].dropped.is_empty() {
                self.deactivate(cpu, vcpu);
            } else {
                break;
            }
            self.note_deactivations(cpu, vcpu);
        }
    }
}
