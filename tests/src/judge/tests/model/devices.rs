//! What the devices of the model do: they read, confirm, go and come back.

use super::*;

impl Model {
    pub(super) fn alice(&self) -> Option<String> {
        let mut devices = self.devices.iter();
        devices
            .find(|(name, device)| name.starts_with("alice") && device.online && device.registered)
            .map(|(name, _)| name.clone())
    }

    pub(super) fn read_some(&mut self) {
        let Some(device) = self.online() else { return };
        let entries = self.rng.random_range(1..6);
        self.read(&device, entries);
    }

    /// Delivers up to so many entries that this connection has not shown.
    pub(super) fn read(&mut self, name: &str, entries: usize) {
        for _ in 0..entries {
            let device = &self.devices[name];
            let shown: BTreeSet<u64> = device.outstanding.iter().map(|(_, seq)| *seq).collect();
            let waiting: Vec<&Kept> = device
                .inbox
                .iter()
                .filter(|kept| !shown.contains(&kept.entry.seq))
                .collect();
            let Some(next) = waiting.first().map(|kept| kept.entry.clone()) else {
                return;
            };
            let after = waiting.get(1).map(|kept| kept.entry.clone());
            if let Some(after) = after.filter(|after| after.chat == next.chat)
                && self.breaks(Kind::OrderBroken)
            {
                self.show(name, &after);
            }
            self.show(name, &next);
            if self.breaks(Kind::TwiceOnConnection) {
                self.show(name, &next);
            }
        }
    }

    pub(super) fn show(&mut self, name: &str, entry: &Entry) {
        if self.breaks(Kind::ProtocolBroken) {
            self.forge.next_delivery(name);
        }
        match &entry.what {
            Happened::Message { from, number } => {
                self.forge.deliver(name, entry.chat, entry.seq, from, *number);
                if self.breaks(Kind::Disagreement) {
                    self.forge_words();
                }
            }
            Happened::Update {
                version,
                change,
                participants,
            } => {
                let change: Vec<&str> = change.iter().map(String::as_str).collect();
                let participants: Vec<&str> = participants.iter().map(String::as_str).collect();
                let version = (entry.seq, *version);
                self.forge
                    .update(name, entry.chat, version, "alice", &change, &participants);
            }
        }
        let delivery = self.forge.last_delivery(name);
        let user = user_of(name);
        let device = self.devices.get_mut(name).expect("it is connected");
        device.outstanding.push((delivery, entry.seq));
        if let Happened::Update { participants, .. } = &entry.what {
            if participants.contains(&user) {
                device.told_out.remove(&entry.chat);
            } else {
                device.told_out.insert(entry.chat);
            }
        }
        for kept in &mut device.inbox {
            kept.shown |= kept.entry.seq == entry.seq;
        }
    }

    pub(super) fn forge_words(&mut self) {
        let last = self.forge.run.records.last_mut().expect("it was just written");
        if let What::Received(frame) = &mut last.what
            && let ServerFrame::NewMessage(message) = &mut **frame
        {
            message.message.push_str(", forged");
        }
    }

    pub(super) fn confirm(&mut self) {
        let Some(name) = self.online() else { return };
        let device = self.devices.get_mut(&name).expect("it is online");
        let one = self.rng.random_bool(0.3);
        let lost = self.rng.random_bool(0.2);
        let Some((last, _)) = device.outstanding.choose(&mut self.rng).copied() else {
            return;
        };
        let covered: Vec<u64> = device
            .outstanding
            .iter()
            .filter(|(delivery, _)| if one { *delivery == last } else { *delivery <= last })
            .map(|(_, seq)| *seq)
            .collect();
        let kept: Vec<Entry> = device
            .inbox
            .iter()
            .filter(|kept| covered.contains(&kept.entry.seq))
            .map(|kept| kept.entry.clone())
            .collect();
        let received = Received {
            delivery: one.then_some(last),
            through: (!one).then_some(last),
        };
        self.forge.sent(&name, received);
        if lost {
            for kept in &mut device.inbox {
                kept.confirm_sent |= covered.contains(&kept.entry.seq);
            }
            self.disconnect(&name);
            return;
        }
        device.inbox.retain(|kept| !covered.contains(&kept.entry.seq));
        if let Some(again) = kept.first()
            && self.breaks(Kind::ShownAfterConfirm)
        {
            self.forge.later(11_000);
            self.disconnect(&name);
            let device = self.devices.get_mut(&name).expect("it was online");
            device.inbox.insert(
                0,
                Kept {
                    entry: again.clone(),
                    shown: true,
                    confirm_sent: true,
                },
            );
            self.come_back(&name);
        }
    }

    pub(super) fn disconnect(&mut self, name: &str) {
        self.forge.close(name);
        let device = self.devices.get_mut(name).expect("it was online");
        device.online = false;
        device.outstanding.clear();
    }

    pub(super) fn come_back(&mut self, name: &str) {
        self.forge.back(name);
        let gone = {
            let inbox = &self.devices[name].inbox;
            inbox.iter().position(|kept| kept.shown && !kept.confirm_sent)
        };
        if let Some(index) = gone
            && self.breaks(Kind::UnconfirmedGone)
        {
            self.devices
                .get_mut(name)
                .expect("it is known")
                .inbox
                .remove(index);
        }
        self.devices.get_mut(name).expect("it is known").online = true;
        self.read(name, usize::MAX);
        self.forge.caught_up(name);
        self.devices.get_mut(name).expect("it is known").registered = true;
    }

    /// Somebody goes, or comes back.
    pub(super) fn toggle(&mut self) {
        let known: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| !device.removed)
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = known.choose(&mut self.rng) else {
            return;
        };
        if self.devices[name].online {
            self.disconnect(name);
        } else {
            self.come_back(name);
        }
    }

    pub(super) fn new_device(&mut self, user: &str) {
        let of_user = |(name, _): &(&String, &Device)| user_of(name) == *user;
        let number = self.devices.iter().filter(of_user).count();
        let active = self
            .devices
            .iter()
            .filter(of_user)
            .filter(|(_, device)| !device.removed)
            .count();
        if active >= 3 {
            return;
        }
        let name = format!("{user}.{number}");
        self.forge.hello(&name, None);
        self.forge.welcome(&name, Registration::New);
        let mut device = Device {
            online: true,
            // The first one's inbox is complete from the beginning.
            registered: number == 0,
            ..Device::default()
        };
        if number == 0 {
            let waiting = self.first.remove(user).unwrap_or_default();
            device.inbox.extend(waiting.into_iter().map(|entry| Kept {
                entry,
                shown: false,
                confirm_sent: false,
            }));
        }
        self.devices.insert(name.clone(), device);
        // Others go on meanwhile.
        for _ in 0..self.rng.random_range(0..3) {
            self.send();
        }
        if self.devices[&name].online {
            self.read(&name, usize::MAX);
            self.forge.caught_up(&name);
            self.devices.get_mut(&name).expect("it was just made").registered = true;
        }
    }

    /// A device removes another one of its user.
    pub(super) fn remove(&mut self) {
        let Some(name) = self.online() else { return };
        let other = self.devices.iter().find(|(other, device)| {
            **other != name && user_of(other) == user_of(&name) && !device.removed && !device.protected
        });
        let Some(other) = other.map(|(other, _)| other.clone()) else {
            return;
        };
        let asked = self.forge.remove(&name, &other);
        if self.devices[&other].online {
            self.disconnect(&other);
        }
        let device = self.devices.get_mut(&other).expect("it was found");
        device.removed = true;
        device.inbox.clear();
        self.forge.answer(&asked, Reply::success(asked.id));
        self.unknown.retain(|unknown| unknown.device != other);
        if self.breaks(Kind::RemovedReturned) {
            self.forge.back(&other);
            self.forge.close(&other);
        }
    }
}
