//! The thread that serves the consumer: its connections, its rings, and the recording's inputs in between.

use super::fault::Fault;
use super::schedule::Progress;
use super::stage::Stage;
use crate::poll;
use crate::trace::row;
use mem_event::{VcpuId, WaitReason};
use mem_event_client::Order;
use mem_event_server::{Connection, EventChannel, Kept, Listener, Peer, packet};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// Without anything to do the thread looks around this often.
const IDLE: Duration = Duration::from_millis(100);

/// What the starting thread says.
#[derive(Debug)]
pub enum Said {
    /// The consumer is ready.
    Go {
        /// Readable when it has ended.
        ended: OwnedFd,
        /// Where it takes orders, if it does.
        orders: Option<OwnedFd>,
    },
    /// It cannot be started.
    Stop,
}

/// What serves a trial.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    clients: Vec<Connection>,
    kept: Kept,
    /// Connections until now.
    came: u32,
    /// Readable when the starting thread has said something.
    bell: OwnedFd,
    said: Receiver<Said>,
    ended: Option<OwnedFd>,
    orders: Option<OwnedFd>,
    /// How long an answer may take.
    patience: Duration,
}

impl Server {
    /// Behind this socket.
    #[must_use]
    pub fn new(listener: Listener, bell: OwnedFd, said: Receiver<Said>, patience: Duration) -> Server {
        let kept = Kept::default();
        Server { listener, clients: Vec::new(), kept, came: 0, bell, said, ended: None, orders: None, patience }
    }

    /// Serves until all is done, or something is wrong; whether the guest ran.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn serve(mut self, stage: &mut Stage<'_>) -> anyhow::Result<bool> {
        let (mut active, mut useful) = (Instant::now(), (Instant::now(), 0));
        loop {
            if stage.running {
                stage.advance();
                self.tell_order(stage);
                if stage.progress == Progress::Finished {
                    break;
                }
            }
            if useful.1 != stage.engine.useful {
                useful = (Instant::now(), stage.engine.useful);
            }
            let limit = self.limit(stage, useful.0);
            let anything = self.once(stage, limit)?;
            if anything {
                active = Instant::now();
            }
            match self.said.try_recv() {
                Ok(Said::Go { ended, orders }) => {
                    (self.ended, self.orders) = (Some(ended), orders);
                    stage.running = true;
                    stage.engine.start();
                    (active, useful) = (Instant::now(), (Instant::now(), stage.engine.useful));
                    continue;
                }
                Ok(Said::Stop) | Err(TryRecvError::Disconnected) if !stage.running => return Ok(false),
                _ => {}
            }
            if stage.running && useful.1 == stage.engine.useful {
                self.idle(stage, active.elapsed(), useful.0.elapsed());
            }
        }
        stage.end();
        Ok(true)
    }

    /// How long to wait.
    fn limit(&self, stage: &Stage<'_>, useful: Instant) -> Duration {
        match stage.progress {
            Progress::Until(until) if stage.running => until.saturating_duration_since(Instant::now()).min(IDLE),
            Progress::Moment | Progress::Consumer if stage.running => {
                self.patience.saturating_sub(useful.elapsed()).clamp(Duration::from_millis(1), IDLE)
            }
            _ => IDLE,
        }
    }

    /// The consumer has done nothing for so long, and nothing that brought anybody further for so long.
    fn idle(&mut self, stage: &mut Stage<'_>, idle: Duration, useless: Duration) {
        if self.ended.as_ref().is_some_and(|ended| poll::readable(ended, Instant::now()).unwrap_or(true)) {
            let how = "the consumer ended before its domain did".to_owned();
            stage.engine.fail(Fault::Ended { how });
        }
        match stage.progress {
            Progress::Moment => drop(stage.schedule.is_idle(idle)),
            Progress::Consumer if useless >= self.patience => stage.engine.fail(due(stage, self.patience)),
            _ => {}
        }
    }

    /// One round; whether the consumer did anything.
    fn once(&mut self, stage: &mut Stage<'_>, limit: Duration) -> anyhow::Result<bool> {
        let (calls, channels, comes) = self.wait(limit)?;
        if comes {
            self.accept(stage);
        }
        let mut anything = comes | self.hear_reply(stage);
        for (client, called) in self.clients.iter_mut().zip(calls) {
            let signalled =
                client.channels().iter().any(|channel| channels.iter().any(|one| Arc::ptr_eq(one, channel)));
            if called || signalled {
                anything = true;
                client.serve(stage, &mut self.kept);
            }
        }
        self.clients.retain_mut(|client| client.is_alive() || client.part(stage, &mut self.kept));
        Ok(anything)
    }

    /// Which connections have packets, which rings were signalled, and whether somebody connects.
    fn wait(&self, limit: Duration) -> anyhow::Result<(Vec<bool>, Vec<Arc<EventChannel>>, bool)> {
        let channels: Vec<&Arc<EventChannel>> = self.clients.iter().flat_map(Connection::channels).collect();
        let sources = [self.listener.as_fd(), self.bell.as_fd()].into_iter();
        let sources = sources.chain(self.clients.iter().map(AsFd::as_fd));
        let sources = sources.chain(channels.iter().map(|channel| channel.signalled()));
        let sources = sources.chain(self.ended.iter().chain(&self.orders).map(AsFd::as_fd));
        let mut waited: Vec<PollFd<'_>> =
            sources.map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        poll::poll(&mut waited, limit)?;
        let ready: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
        if ready[1] {
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        let (calls, rings) = ready[2..].split_at(self.clients.len());
        let signalled = channels.iter().zip(rings).filter(|(_, ready)| **ready);
        Ok((calls.to_vec(), signalled.map(|(channel, _)| Arc::clone(channel)).collect(), ready[0]))
    }

    /// What the toolstack ordered is ordered again, where the consumer takes orders.
    fn tell_order(&mut self, stage: &mut Stage<'_>) {
        let Some(order) = stage.schedule.order_to_tell() else { return };
        let told = self.orders.as_ref().map(|orders| rustix::net::send(orders, order.as_bytes(), SendFlags::NOSIGNAL));
        if told.is_none() {
            stage.engine.note("orders", || {
                format!("the recorded pager was ordered to do something (`{order}`), and this one takes no orders")
            });
        }
        if !matches!(told, Some(Ok(_))) {
            // It is gone where this fails, which is said.
            stage.schedule.is_carried_out();
            stage.advance();
        }
    }

    /// What the pager says to its order; whether it said something.
    fn hear_reply(&mut self, stage: &mut Stage<'_>) -> bool {
        let Some(orders) = &self.orders else { return false };
        let mut reply = [0; Order::LONGEST];
        let Ok((_, length)) = rustix::net::recv(orders, &mut reply[..], RecvFlags::DONTWAIT) else { return false };
        if length == 0 {
            // It is closed: the pager has ended, which is found otherwise, or does not reply any more.
            self.orders = None;
            return false;
        }
        let Some(order) = stage.schedule.order() else { return true };
        let said = String::from_utf8_lossy(&reply[..length.min(Order::LONGEST)]).into_owned();
        if said.trim().parse::<u64>().is_err() {
            stage.engine.fail(Fault::Order { order: order.to_owned(), said: Ok(said) });
        }
        stage.catch_up();
        stage.schedule.is_carried_out();
        true
    }

    fn accept(&mut self, stage: &mut Stage<'_>) {
        let Some(socket) = self.listener.accept() else { return };
        match Peer::admit(&socket, self.clients.iter().map(Connection::peer)) {
            Err((errno, sentence)) => packet::refuse(&socket, errno, sentence),
            Ok(peer) => {
                self.came += 1;
                self.clients.push(Connection::new(stage, socket, self.came, peer));
            }
        }
    }
}

/// What the consumer owes.
fn due(stage: &Stage<'_>, waited: Duration) -> Fault {
    if let Some(order) = stage.schedule.order() {
        return Fault::Order { order: order.to_owned(), said: Err(waited) };
    }
    if let Some(exchange) = stage.engine.exchanges.out().next() {
        return Fault::Lost { exchange: exchange.clone(), waited };
    }
    if let Some(vcpu) = stage.schedule.first_stopped() {
        return Fault::Stuck { vcpu: vcpu.0, reason: "release from its checkpoint".into(), waited };
    }
    let domain = &stage.engine.domain;
    let vcpus = (0..u32::try_from(domain.info().vcpus).unwrap_or(0)).map(VcpuId);
    let mut waits = vcpus.filter_map(|vcpu| Some((vcpu, domain.waiting(vcpu)?)));
    let (vcpu, reason) = waits.next().unwrap_or((VcpuId(0), WaitReason::Frame));
    Fault::Stuck { vcpu: vcpu.0, reason: row::reason(reason), waited }
}
