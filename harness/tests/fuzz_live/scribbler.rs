//! A process that writes into the memory that a consumer shares with the engine.

use mem_event::message::Call;
use mem_event::multicall::Multicall;
use mem_event::page::{Index, RingPage};
use mem_event::{AccessType, Control, Errno, Gfn, PAGE_SIZE, Ring};
use rustix::fd::OwnedFd;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::Ordering;

/// The variable by which the second process knows that it is that.
const SCRIBBLER: &str = "MEM_EVENT_SCRIBBLER";

/// What it writes into.
struct Shared {
    page: RingPage,
    /// Behind a paging ring's page.
    calls: Option<Multicall>,
}

/// The second process: it maps the page that it is told of, and writes what it is told, again and again while the guest runs.
#[test]
fn scribbler() {
    if std::env::var_os(SCRIBBLER).is_none() {
        return;
    }
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut shared = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("page", path)) => {
                let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
                // The access ring's file is the shorter one.
                let calls = [Ring::Paging, Ring::Access].into_iter().find_map(|ring| Multicall::map(&file, ring).ok());
                shared = Some(Shared { page: RingPage::map(&file).unwrap(), calls });
            }
            Some(("write", numbers)) => {
                let numbers: Vec<u8> = numbers.split('.').filter_map(|number| number.parse().ok()).collect();
                let shared = shared.as_ref().expect("a page");
                (0..20).for_each(|_| numbers.as_chunks::<4>().0.iter().for_each(|four| shared.scribble(*four)));
            }
            _ => {}
        }
        eprintln!("done");
    }
}

impl Shared {
    /// One write: of two where there are calls, one goes there.
    fn scribble(&self, four: [u8; 4]) {
        match &self.calls {
            Some(calls) if four[0] & 1 == 1 => call(&self.page, calls, four),
            _ => scribble(&self.page, four),
        }
    }
}

/// One write about calls: a content with its frame, a short call, a count that runs on, any count, a result.
fn call(page: &RingPage, multicall: &Multicall, [what, at, low, high]: [u8; 4]) {
    let value = u16::from_le_bytes([low, high]);
    match what {
        0..128 => {
            let gfn = Gfn(if high < 192 { u64::from(value) } else { u64::from(value) << (what & 63) });
            let (number, access) = (u32::from(at), AccessType::from_number(low & 15).unwrap_or_default());
            // The guest's own memory and rights are not for this process to take: it is to go on.
            let nowhere = Gfn(1 << 40 | u64::from(value));
            let bytes = vec![low; usize::from(high & 15)];
            let _ = match what {
                0..96 => multicall.put_load(number, gfn, &[low; PAGE_SIZE]),
                96..104 => multicall.put(number, &Call::WriteFrame { gfn: nowhere, offset: value, bytes }),
                104..112 => {
                    let rights = Control::SetAccess { first: nowhere, count: u64::from(high), access };
                    multicall.put(number, &Call::Control(rights))
                }
                112..120 => {
                    let rights = Control::SetAccess { first: gfn, count: u64::from(low), access: AccessType::Rwx };
                    multicall.put(number, &Call::Control(rights))
                }
                // What is not to be handed over.
                _ => multicall.put(number, &Call::Control(Control::Nominate { gfn })),
            };
        }
        128..208 => {
            let calls = page.load(Index::Calls, Ordering::Relaxed);
            page.store(Index::Calls, calls.wrapping_add(u32::from(low & 7)), Ordering::Release);
        }
        208..216 => page.store(Index::Calls, u32::from(value) << (at & 31), Ordering::Release),
        _ => multicall.finish(u32::from(at), if low & 1 == 0 { Ok(()) } else { Err(Errno::EBUSY) }),
    }
}

/// One write: an index, a word of a slot, something that is nearly a response, responses shown.
fn scribble(page: &RingPage, [what, at, low, high]: [u8; 4]) {
    let value = u32::from(low) | u32::from(high) << 8;
    match what {
        0..8 => page.write_header(usize::from(at) % 16, value << (what * 2)),
        8..64 => {
            let answered = page.load(Index::RspProd, Ordering::Relaxed);
            page.store(Index::RspProd, answered.wrapping_add(u32::from(low & 3)), Ordering::Release);
        }
        64..112 => page.store(Index::RspProd, page.load(Index::ReqProd, Ordering::Acquire), Ordering::Release),
        112..160 => page.write_word(usize::from(at), u64::from(value) << (what & 48)),
        _ => {
            // Flags and vCPU, the frame, the rest.
            let slot = 5 * (usize::from(at) % 4);
            page.write_word(slot, u64::from(low & 31) | u64::from(high % 12) << 32);
            page.write_word(slot + 1, u64::from(value));
            page.write_word(slot + 4, u64::from(low) << 32 | 1 << 48);
        }
    }
}

/// The other process, and what one tells it.
pub struct Scribbler {
    child: Child,
    orders: ChildStdin,
    done: BufReader<std::process::ChildStderr>,
}

impl Scribbler {
    pub fn start() -> Scribbler {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fuzz_live::scribbler::scribbler", "--nocapture"]).env(SCRIBBLER, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (orders, done) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
        Scribbler { child, orders, done }
    }

    /// From now on it writes into this file.
    pub fn shows(&mut self, page: &OwnedFd) {
        self.tell(&format!("page /proc/{}/fd/{}", std::process::id(), page.as_raw_fd()));
        self.is_done();
    }

    /// Has it write this, and signals the engine meanwhile and after.
    pub fn writes(&mut self, bytes: &[u8], signal: &OwnedFd) {
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        self.tell(&format!("write {}", numbers.join(".")));
        let signal = || _ = rustix::io::write(signal, &1u64.to_ne_bytes());
        (0..8).for_each(|_| signal());
        self.is_done();
        signal();
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn is_done(&mut self) {
        let mut line = String::new();
        self.done.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
