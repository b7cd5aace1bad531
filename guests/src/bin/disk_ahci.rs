//! A disk at an AHCI controller reads into memory, and writes from it.
//!
//! Hardware: the controller is told by a write to one register. It fetches the command from memory, then reads or writes the data in
//! memory, then writes what came of it beside the command. DMA does not go through EPT but through the IOMMU, or through nothing.
//!
//! Xen: its device model maps the guest's frames. A frame that is paged out is asked for first (the foreign caller is told to try
//! again), a frame that is watched is used without an event.
//!
//! What this proves: here a device is stopped on both. QEMU fetches the command inside the vCPU's own register write, copies the data
//! in a worker's system call, and reports in its main loop: each is seen as foreign, before it happens, and the disk's
//! content is right in the end.
//!
//! Symbols: `WATCHED`: data; `PAGED`: data, with something beside it; `COMMANDS`: command list (0), received frames (0x400),
//! command table (0x800). Before each transfer comes a checkpoint, whose third argument is the page that is meant.
//!
//! | checkpoint | transfer |
//! |---|---|
//! | 1, 2 | sector 3, then 4, into `WATCHED` |
//! | 3 | `WATCHED` onto sector 5 |
//! | 4 | sector 6 into `PAGED` |
//! | 5 | sector 5 into a page that is not meant, by commands in `COMMANDS` |
//! | 6 | end |

#![no_std]
#![no_main]

use guest::disk::{self, Disk, Transfer};
use guest::{access, failure, pci, port, println, skip, verdict};

guest::pages!(
    /// The controller's commands.
    COMMANDS: 1
);
guest::pages!(
    /// What is paged out.
    PAGED: 1
);
guest::pages!(
    /// Neither watched nor paged out.
    PLAIN: 1
);
guest::pages!(
    /// What is watched.
    WATCHED: 1
);

const AHCI: u32 = 0x01_06_01;
const FRAMES: u64 = 0x400;
const TABLE: u64 = 0x800;
/// READ DMA EXT and WRITE DMA EXT.
const READ: u64 = 0x25;
const WRITE: u64 = 0x35;

guest::main!(main);
guest::needs!(disk);

fn main() {
    let Some(mut port) = Port::find() else { skip!("no disk at an AHCI controller") };
    port.start();
    let (watched, paged, plain) = (WATCHED.address(), PAGED.address(), PLAIN.address());
    disk::transfers(&mut port, disk::Targets { watched, paged, plain, requests: COMMANDS.address() });
    println!("every sector is where it belongs");
    verdict::success();
}

/// A port of the controller, by the address of its registers.
struct Port(u64);

/// Registers of a port.
mod register {
    pub const LIST: u64 = 0x00;
    pub const FRAMES: u64 = 0x08;
    pub const INTERRUPTS: u64 = 0x10;
    pub const COMMAND: u64 = 0x18;
    pub const TASK_FILE: u64 = 0x20;
    pub const STATUS: u64 = 0x28;
    pub const ERRORS: u64 = 0x30;
    pub const ISSUED: u64 = 0x38;
}

const START: u32 = 1;
const RECEIVE: u32 = 1 << 4;
const RECEIVING: u32 = 1 << 14;
const RUNNING: u32 = 1 << 15;

impl Port {
    /// The first one with a disk.
    fn find() -> Option<Port> {
        let controller = pci::by_class(AHCI)?;
        controller.switch_on();
        let base = u64::from(controller.base(5));
        // GHC: AHCI's own registers, not those of old.
        port::write_register(base + 4, 1 << 31);
        let ports = (0..32).map(|number| Port(base + 0x100 + number * 0x80));
        let implemented = port::read_register(base + 0xc);
        ports
            .zip(0..32)
            .find(|(port, number)| implemented >> number & 1 == 1 && port.read(register::STATUS) & 0xf == 3)
            .map(|(port, _)| port)
    }

    fn read(&self, register: u64) -> u32 {
        port::read_register(self.0 + register)
    }

    fn write(&self, register: u64, value: u32) {
        port::write_register(self.0 + register, value);
    }

    fn write_address(&self, register: u64, address: u64) {
        self.write(register, (address & 0xffff_ffff) as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    /// Gives it this guest's memory for commands; the firmware may have left it running.
    fn start(&self) {
        self.write(register::COMMAND, self.read(register::COMMAND) & !START);
        while self.read(register::COMMAND) & RUNNING != 0 {}
        self.write(register::COMMAND, self.read(register::COMMAND) & !RECEIVE);
        while self.read(register::COMMAND) & RECEIVING != 0 {}
        self.write_address(register::LIST, COMMANDS.address());
        self.write_address(register::FRAMES, COMMANDS.address() + FRAMES);
        self.write(register::ERRORS, u32::MAX);
        self.write(register::INTERRUPTS, u32::MAX);
        self.write(register::COMMAND, self.read(register::COMMAND) | RECEIVE);
        self.write(register::COMMAND, self.read(register::COMMAND) | START);
    }
}

impl Disk for Port {
    /// ```text
    /// list   0 u16 words of the frame, bit 6: writes   2 u16 parts   4 u32 bytes done   8 u64 address of the table
    /// table  0 0x27 0x80 command 0   4 sector (3 bytes) 0x40   8 sector's upper 3 bytes, 0   12 u16 sectors   0x80 the parts
    /// part   0 u64 address   8 u32 0   12 u32 bytes - 1
    /// ```
    fn prepare(&mut self, transfer: Transfer, sector: u64, address: u64) {
        let command = if transfer == Transfer::Write { WRITE } else { READ };
        let (list, table) = (COMMANDS.address(), COMMANDS.address() + TABLE);
        let writes = u64::from(command == WRITE) << 6;
        access::write(list, 5 | writes | 1 << 16);
        access::write(list + 8, table);
        access::write(table, 0x8027 | command << 16 | sector << 32 | 0x40 << 56);
        access::write(table + 8, 1 << 32);
        access::write(table + 0x80, address);
        access::write(table + 0x88, (disk::SECTOR - 1) << 32);
    }

    fn tell(&mut self) {
        self.write(register::ISSUED, 1);
        while self.read(register::ISSUED) & 1 != 0 {}
        let result = self.read(register::TASK_FILE);
        if result & 1 != 0 {
            failure!("the disk reports an error: {result:#x}");
        }
    }
}
