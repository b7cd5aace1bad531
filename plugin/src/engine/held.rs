//! The engine while one thread holds it. The threads that its steps wake or signal are notified when it is free again: notified
//! earlier, one would take the holder's core and want the engine, and with more threads than cores all of them would come to wait for
//! one another.

use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::notification::Notification;
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

/// The engine, held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    // In this order: the engine is free before the notifications go out.
    engine: MutexGuard<'a, Engine>,
    notifications: Notifications<'a>,
}

#[derive(Debug)]
struct Notifications<'a> {
    host: &'a Host,
    list: Vec<Notification>,
}

impl<'a> Held<'a> {
    pub fn new(host: &'a Host, engine: MutexGuard<'a, Engine>) -> Held<'a> {
        Held { engine, notifications: Notifications { host, list: Vec::new() } }
    }
}

impl Deref for Held<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.engine.arriving.is_any() {
            self.engine.arrives(self.notifications.host);
            self.engine.settle(self.notifications.host);
        }
        self.notifications.host.set_carrying_registers(self.engine.domain.carries_registers());
        self.engine.serving(0);
        self.notifications.host.set_write_only(self.engine.domain.is_watching_write_only());
        self.notifications.list = std::mem::take(&mut self.engine.notifications);
    }
}

impl Drop for Notifications<'_> {
    fn drop(&mut self) {
        for notification in self.list.drain(..) {
            notification.deliver(self.host);
        }
    }
}
