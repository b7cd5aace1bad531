//! What an instruction does besides touching memory.

use crate::insn::descriptor::DescriptorAccess;
use crate::insn::nested::ControlBlock;
use crate::insn::registers::Registers;
use mem_event::CpuEventKind;

/// What a control register is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlSource {
    /// This general register.
    General(u8),
    /// The low four bits of this general register, but for PE, which stays set (`lmsw`).
    MachineStatus(u8),
    /// The same of the word that the instruction's operand is.
    MachineStatusInMemory,
    /// What is there, without TS (`clts`).
    TaskSwitchedCleared,
}

/// How an instruction uses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The port, where the instruction names it; else it is in DX.
    pub port: Option<u8>,
    /// How many bytes at a time.
    pub bytes: u8,
    /// It is read.
    pub is_read: bool,
    /// It is a string instruction.
    pub is_string: bool,
}

impl PortAccess {
    /// The port.
    pub fn number(self, registers: &impl Registers) -> u16 {
        const RDX: u8 = 2;
        self.port.map_or_else(|| (registers.general(RDX) & 0xffff) as u16, u16::from)
    }
}

/// What an instruction does besides touching memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Nothing of interest.
    Nothing,
    /// Linear addresses may mean other frames after it (`invlpg`).
    Translation,
    /// It writes CR0, CR3 or CR4: the register's number, and what with.
    WriteControl(u8, ControlSource),
    /// It writes the model-specific register in ECX.
    WriteMsr,
    /// It is a breakpoint, or `int1`: the kind of its event.
    Trap(CpuEventKind),
    /// It asks for what the processor is (`cpuid`).
    Cpuid,
    /// It writes XCR0, or another extended control register (`xsetbv`).
    WriteExtended,
    /// It calls a hypervisor (`vmcall`, `vmmcall`), which there is none of.
    Hypercall,
    /// It stores or loads the register of a descriptor table, or the task's.
    Descriptor(DescriptorAccess),
    /// It reads or writes a port: a device may use guest memory meanwhile, and the port may be one that switches A20.
    Port(PortAccess),
    /// It calls far: a gate may say onto which stack.
    CallFar,
    /// It uses the control block at the physical address in RAX (`vmrun`, `vmload`, `vmsave`).
    ControlBlock(ControlBlock),
}

impl Special {
    /// Whether linear addresses may mean other frames after it.
    pub fn changes_translation(self) -> bool {
        match self {
            Special::Nothing
            | Special::Trap(_)
            | Special::CallFar
            | Special::Cpuid
            | Special::WriteExtended
            | Special::Hypercall
            | Special::Descriptor(_)
            | Special::Port(_) => false,
            Special::ControlBlock(block) => block.enters,
            Special::Translation | Special::WriteControl(..) | Special::WriteMsr => true,
        }
    }

    /// Whether it is there to be told of alone, and nothing else hangs on it.
    pub fn is_only_told(self) -> bool {
        matches!(self, Special::Cpuid | Special::WriteExtended | Special::Hypercall | Special::Descriptor(_))
    }

    /// Whether it exits to a hypervisor that asks for it.
    pub fn exits(self) -> bool {
        self.is_only_told() || self.is_port_io()
    }

    /// Whether what is written stands in the instruction's operand.
    pub fn writes_from_memory(self) -> bool {
        matches!(self, Special::WriteControl(_, ControlSource::MachineStatusInMemory))
    }

    /// Whether it reads or writes a port.
    pub fn is_port_io(self) -> bool {
        matches!(self, Special::Port(_))
    }
}
