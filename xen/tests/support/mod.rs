//! A tool's memory and a domain, both made up.

#![allow(dead_code, reason = "each test program uses its own part")]

use mem_event::message::{Info, VcpuReport, VcpuState};
use mem_event::page::RingPage;
use mem_event::registers::Context;
use mem_event::{Control, Errno as Refusal, Gfn, Ring, VcpuId};
use rustix::event::EventfdFlags;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen::domain::{Domain, Ram};
use xen::errno::Errno;
use xen::hypercall;
use xen::hypervisor::Hypervisor;
use xen::layout::privcmd::{batch, buffers};
use xen::layout::record::{Field, Number};
use xen::layout::{dm_op, privcmd};
use xen::tool::{Frame, Tool};
use xen::version::Version;

/// Where the tool's memory begins.
pub const BASE: u64 = 0x5000_0000;
/// Where a call's structure lies.
const CALL: u64 = BASE;
/// Where lists and contents lie.
const REST: u64 = BASE + 0x1000;

/// Pages from here on are reserved to be written.
pub const WRITABLE: u64 = 0x8000_0000;

/// A structure that is being made.
pub struct Made {
    pub bytes: Vec<u8>,
}

impl Made {
    pub fn new(bytes: usize) -> Made {
        Made { bytes: vec![0; bytes] }
    }

    pub fn set<T: Number>(&mut self, field: Field<T>, value: T) -> &mut Made {
        let bytes = value.bytes();
        self.bytes[field.offset()..field.offset() + bytes.len()].copy_from_slice(&bytes);
        self
    }
}

/// The tool.
pub struct Memory {
    bytes: RefCell<Vec<u8>>,
    pub mapped: usize,
    pub frames: BTreeMap<u64, Frame>,
}

impl Memory {
    fn place(&self, address: u64, length: usize) -> Result<usize, Errno> {
        let at = address.checked_sub(BASE).and_then(|at| usize::try_from(at).ok()).ok_or(Errno::EFAULT)?;
        let end = at.checked_add(length).ok_or(Errno::EFAULT)?;
        if end <= self.bytes.borrow().len() { Ok(at) } else { Err(Errno::EFAULT) }
    }
}

impl Tool for Memory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        let at = self.place(address, into.len())?;
        into.copy_from_slice(&self.bytes.borrow()[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let at = self.place(address, bytes.len())?;
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn writes(&self, address: u64) -> Result<bool, Errno> {
        Ok(address >= WRITABLE)
    }

    fn map(
        &mut self,
        address: u64,
        _file: BorrowedFd<'_>,
        _offset: u64,
        frame: Option<Frame>,
    ) -> Result<Option<Frame>, Errno> {
        self.mapped += 1;
        Ok(match frame {
            Some(frame) => self.frames.insert(address, frame),
            None => self.frames.remove(&address),
        })
    }
}

/// The domain: 512 frames, the first vCPUs, and what it was asked.
#[derive(Default)]
pub struct Fake {
    pub asked: Vec<Control>,
    pub answers: VecDeque<Result<u64, Errno>>,
    pub has_ring: bool,
    pub loaded: Vec<u8>,
    /// The engine's ends of the rings that were enabled.
    pub rings: Vec<(RingPage, OwnedFd, OwnedFd)>,
    /// What mappings are answered with, in their order; else they are done.
    pub mappings: VecDeque<Errno>,
    /// Which frames were mapped, and whether for writing.
    pub maps: Vec<(Gfn, bool)>,
    memory: Option<OwnedFd>,
    /// How often it is paused.
    pub pauses: u32,
    pub cannot_stop: bool,
    /// The registers that were set.
    pub contexts: Vec<(VcpuId, Context)>,
    /// A vCPU that refuses a value of RIP.
    pub cannot_set: Option<(VcpuId, u64)>,
}

impl Domain for Fake {
    fn info(&mut self) -> Result<Info, Errno> {
        Ok(Info { vcpus: 2, frames: 512, resident: 500, paged: 12, budget: u64::MAX })
    }

    fn ram(&mut self) -> Result<Ram, Errno> {
        Ok(Ram::new((0..512).map(|_| true)))
    }

    fn control(&mut self, control: Control) -> Result<u64, Errno> {
        self.asked.push(control);
        self.answers.pop_front().unwrap_or(Ok(0))
    }

    fn load(&mut self, gfn: Gfn, content: &[u8]) -> Result<(), Errno> {
        self.loaded = content.to_vec();
        self.control(Control::Prep { gfn, buffer: true }).map(drop)
    }

    fn map(&mut self, gfn: Gfn, write: bool) -> Result<(BorrowedFd<'_>, u64), Errno> {
        if let Some(errno) = self.mappings.pop_front() {
            return Err(errno);
        }
        self.maps.push((gfn, write));
        let (file, _) = RingPage::create().expect("a file");
        let offset = gfn.0 * 4096;
        let memory: &OwnedFd = self.memory.insert(file);
        Ok((memory.as_fd(), offset))
    }

    fn enable(&mut self, _ring: Ring) -> Result<[OwnedFd; 3], Errno> {
        if self.has_ring {
            return Err(Refusal::EBUSY.into());
        }
        self.has_ring = true;
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        let (file, page) = RingPage::create().expect("a page");
        page.init();
        let (signalled, signal) = (eventfd(), eventfd());
        let kept = (signalled.try_clone().expect("a descriptor"), signal.try_clone().expect("a descriptor"));
        self.rings.push((page, kept.0, kept.1));
        Ok([file, signalled, signal])
    }

    fn pause(&mut self) -> Result<(), Errno> {
        if self.cannot_stop {
            return Err(Refusal::EBUSY.into());
        }
        self.pauses += 1;
        Ok(())
    }

    fn unpause(&mut self) -> Result<(), Errno> {
        self.pauses = self.pauses.checked_sub(1).ok_or(Errno::EINVAL)?;
        Ok(())
    }

    fn context(&mut self, vcpu: VcpuId) -> Result<Context, Errno> {
        if self.pauses == 0 {
            return Err(Refusal::EAGAIN.into());
        }
        // Each word another number.
        let bytes: Vec<u8> =
            (0..Context::BYTES as u64 / 8).flat_map(|at| (at + 1000 * u64::from(vcpu.0)).to_le_bytes()).collect();
        Ok(Context::decode(&bytes).expect("a context"))
    }

    fn set_context(&mut self, vcpu: VcpuId, context: &Context) -> Result<(), (Errno, String)> {
        if self.pauses == 0 {
            return Err((Refusal::EAGAIN.into(), String::new()));
        }
        if self.cannot_set == Some((vcpu, context.registers.rip)) {
            return Err((Errno::EOPNOTSUPP, "RIP cannot be set".to_owned()));
        }
        self.contexts.push((vcpu, *context));
        Ok(())
    }

    fn vcpus(&mut self) -> Result<Vec<VcpuReport>, Errno> {
        let report = |state| VcpuReport { state, ring: None, frame: None, waited: 0, stays: None };
        Ok(vec![report(VcpuState::Running), report(VcpuState::Answer)])
    }

    fn has_ring(&mut self, _ring: Ring) -> Result<bool, Errno> {
        Ok(self.has_ring)
    }
}

/// Domain 1, and a tool that calls.
pub struct Bench {
    pub xen: Hypervisor<Fake>,
    pub tool: Memory,
}

impl Bench {
    pub fn new() -> Bench {
        let tool = Memory { bytes: RefCell::new(vec![0; 0x4000]), mapped: 0, frames: BTreeMap::new() };
        Bench { xen: Hypervisor::new(Version::default(), [(1, Fake::default())]), tool }
    }

    pub fn domain(&mut self) -> &mut Fake {
        &mut self.xen.guest(1).expect("domain 1").domain
    }

    /// What the domain was asked since the last time.
    pub fn asked(&mut self) -> Vec<Control> {
        std::mem::take(&mut self.domain().asked)
    }

    /// A call of one structure.
    pub fn call(&mut self, op: u64, made: &[Made]) -> Result<i64, Errno> {
        self.tool.write(CALL, &made[0].bytes)?;
        hypercall::call(&mut self.xen, &self.tool, op, [CALL, 0, 0, 0, 0])
    }

    /// A call with a command, where there is one, before its structure.
    pub fn command(&mut self, op: u64, command: Option<u64>, made: &Made) -> Result<i64, Errno> {
        self.tool.write(CALL, &made.bytes)?;
        let args = command.map_or([CALL, 0, 0, 0, 0], |command| [command, CALL, 0, 0, 0]);
        hypercall::call(&mut self.xen, &self.tool, op, args)
    }

    /// A call of a structure with a count behind it.
    pub fn count(&mut self, op: u64, made: &Made, count: u64) -> Result<i64, Errno> {
        self.tool.write(CALL, &made.bytes)?;
        hypercall::call(&mut self.xen, &self.tool, op, [CALL, count, 0, 0, 0])
    }

    /// A call with arguments of any kind.
    pub fn wild(&mut self, op: u64, args: [u64; 5]) -> Result<i64, Errno> {
        hypercall::call(&mut self.xen, &self.tool, op, args)
    }

    /// A request to the device.
    pub fn request(&mut self, request: u64, argument: u64) -> Result<i64, Errno> {
        hypercall::privcmd::request(&mut self.xen, &mut self.tool, request, argument)
    }

    /// A field of the structure that the last call was about.
    pub fn get<T: Number>(&self, field: Field<T>) -> T {
        let mut bytes = [0; 8];
        self.tool.read(CALL + field.offset() as u64, &mut bytes).expect("the structure");
        T::of(&bytes)
    }

    /// A word behind the structure's beginning.
    pub fn word(&self, offset: u64) -> u64 {
        self.get(Field::at(usize::try_from(offset).expect("an offset")))
    }

    /// Bytes where the structure lies.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.tool.write(CALL, bytes).expect("room");
    }

    /// A list of numbers in the tool's memory.
    pub fn list(&mut self, numbers: &[u64]) -> u64 {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tool.write(REST, &bytes).expect("room");
        REST
    }

    /// A page of one byte in the tool's memory.
    pub fn content(&mut self, byte: u8) -> u64 {
        self.tool.write(REST, &[byte; 4096]).expect("room");
        REST
    }

    /// Maps frames of domain 1: the whole's result, and each frame's.
    pub fn map(&mut self, frames: &[u64]) -> (Result<i64, Errno>, Vec<i32>) {
        let errors = REST + 0x1000;
        let mut made = Made::new(batch::BYTES);
        made.set(batch::NUM, u32::try_from(frames.len()).expect("few"))
            .set(batch::DOM, 1)
            .set(batch::ADDR, 0x7000_0000);
        made.set(batch::FRAMES, self.list(frames)).set(batch::ERRORS, errors);
        self.tool.write(CALL, &made.bytes).expect("room");
        let whole = self.request(privcmd::MMAPBATCH_V2, CALL);
        let mut bytes = vec![0; 4 * frames.len()];
        self.tool.read(errors, &mut bytes).expect("the errors");
        (whole, bytes.chunks(4).map(i32::of).collect())
    }

    /// How many pages were mapped.
    pub fn mapped(&self) -> usize {
        self.tool.mapped
    }

    /// An injection with so many buffers.
    pub fn inject(&mut self, buffers: u16, (vector, kind): (u8, u8)) -> Result<i64, Errno> {
        let mut call = Made::new(dm_op::BYTES);
        call.set(dm_op::OP, dm_op::INJECT_EVENT).set(dm_op::VCPU, 1).set(dm_op::VECTOR, vector);
        call.set(dm_op::TYPE, kind).set(dm_op::ERROR, 6).set(dm_op::CR2, 0x1234);
        self.tool.write(REST + 0x1000, &call.bytes)?;
        let mut made = Made::new(buffers::BYTES);
        made.set(buffers::DOM, 1).set(buffers::NUM, buffers).set(buffers::BUFFERS, self.list(&[REST + 0x1000, 32]));
        self.tool.write(CALL, &made.bytes)?;
        self.request(privcmd::DM_OP, CALL)
    }
}
