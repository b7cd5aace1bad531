//! What this program can do only where QEMU exports more than the plugin API: a row each, with the names that it rests on, looked up once.
//!
//! QEMU exports them for its own modules. Each ability is optional and proves itself where it is used; what is done without it stands in its
//! row. `mem-event doctor` shows the table for a QEMU, and docs/qemu.md tells which public function would replace each.

use super::source;
use std::ffi::{CStr, c_void};
use std::fmt;

/// One ability and the names that it rests on.
#[derive(Debug)]
pub struct Capability {
    /// Its name in lists.
    pub name: &'static str,
    /// What it is, as a sentence goes on after "this QEMU cannot".
    pub what: &'static str,
    /// What is so without it.
    pub without: &'static str,
    /// Of each line one name.
    names: &'static [&'static [&'static CStr]],
}

/// Leaving a block from inside a callback, and coming back to the same instruction.
pub const LEAVING_CALLBACKS: Capability = Capability {
    name: "leaving callbacks",
    what: "have a vCPU leave its block from within a callback",
    without: "vCPUs wait where they are, and QEMU waits for them",
    names: &[&[c"qemu_get_cpu"], &[c"cpu_loop_exit_restore"]],
};

/// Having a vCPU that stands in the kernel leave its block.
pub const LEAVING: Capability = Capability {
    name: "leaving the kernel",
    what: "have a vCPU leave its block that stands in the kernel",
    without: "stop, reset and quit wait for the consumer while a vCPU stands at a page",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"cpu_loop_exit_restore"],
        &[c"bql_locked"],
        &[c"get_ptr_rcu_reader"],
        &[c"current_cpu"],
        &[c"cpu_unwind_state_data"],
        &[c"in_code_gen_buffer"],
    ],
};

/// Telling the guest instruction that a vCPU stands in, in the kernel, by its thread's host registers.
pub const UNWINDING: Capability = Capability {
    name: "unwinding",
    what: "say which instruction a stopped vCPU stands in",
    without: "gate=mmu has each memory instruction note itself, which costs a fifth",
    names: &[&[c"cpu_unwind_state_data"], &[c"in_code_gen_buffer"], &[c"qemu_get_cpu"], &[c"async_run_on_cpu"]],
};

/// Having a vCPU forget what it knows of addresses, so that its next access of each page goes the long way.
pub const FORGETTING: Capability = Capability {
    name: "forgetting addresses",
    what: "have a vCPU forget its addresses",
    without: "where a guest keeps to few pages, it takes seconds until unwinding is proven",
    names: &[&[c"qemu_get_cpu"], &[c"async_run_on_cpu"], &[c"tlb_flush"]],
};

/// Dropping all blocks, so that instrumentation can be switched on and off while the guest runs.
pub const FLUSHING: Capability = Capability {
    name: "dropping blocks",
    what: "drop its blocks when asked to",
    without: "everything is instrumented from the start, and gate=mmu checks accesses too",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"cpu_loop_exit_restore"],
        &[c"async_safe_run_on_cpu"],
        &[c"tb_flush", c"tb_flush__exclusive_or_serial"],
    ],
};

/// Dropping the blocks of some bytes of RAM, so that what is written from outside is what runs.
pub const DROPPING: Capability = Capability {
    name: "dropping a frame's blocks",
    what: "drop the blocks of one frame",
    without: "all blocks are dropped where a consumer changes bytes; without that either, old code may run on",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"cpu_loop_exit_restore"],
        &[c"async_run_on_cpu"],
        &[c"qemu_ram_addr_from_host"],
        &[c"tb_invalidate_phys_range"],
        &[c"tb_flush", c"tb_flush__exclusive_or_serial"],
    ],
};

/// Computing RFLAGS from what instructions left behind.
pub const FLAGS: Capability = Capability {
    name: "flags",
    what: "compute the arithmetic flags",
    without: "events carry no arithmetic flags",
    names: &[&[c"helper_cc_compute_all"]],
};

/// Whether instructions are counted (`-icount`).
pub const COUNTING: Capability = Capability {
    name: "icount",
    what: "say whether it counts instructions",
    without: "each check of a repeated instruction looks at all pages that are still ahead, once a step",
    names: &[&[c"use_icount"]],
};

/// The table of what is migrated, which says where fields of the CPU state are.
pub const FIELDS: Capability = Capability {
    name: "fields",
    what: "say where fields of its CPU state are",
    without: "A20 is taken for on, the kernel's protection keys for absent; of xsave the legacy region alone is foreseen",
    names: &[&[c"vmstate_x86_cpu"]],
};

/// How wide physical addresses are, and what else `cpuid` returns, by QEMU's own function for it.
pub const IDENTIFICATION: Capability = Capability {
    name: "identification",
    what: "say what cpuid returns, how wide physical addresses are among it",
    without: "no bit of a page table entry's address is reserved; a request about cpuid has the registers from before it",
    names: &[&[c"cpu_x86_cpuid"]],
};

/// Reading model-specific registers, of which the API knows four, by QEMU's own function for `rdmsr`.
pub const MSRS: Capability = Capability {
    name: "MSRs",
    what: "read model-specific registers",
    without: "their old values in events are 0",
    names: &[&[c"helper_rdmsr"]],
};

/// Reading PKRU, which the API does not know, by QEMU's own function for `rdpkru`.
pub const KEYS: Capability = Capability {
    name: "protection keys",
    what: "read PKRU",
    without: "a page whose protection key forbids the access makes its event before the guest's page fault",
    names: &[&[c"helper_rdpkru"]],
};

/// Hearing of a reset of the machine, which the API does not tell.
pub const RESETS: Capability = Capability {
    name: "resets",
    what: "tell of the machine's reset",
    without: "a vCPU that comes after a reset to the checkpoint at which it stood is taken to stand there still",
    names: &[&[c"qemu_register_reset"]],
};

/// Keeping vCPUs from running for a client that asks for it.
pub const PAUSING: Capability = Capability {
    name: "pausing",
    what: "keep a vCPU from running",
    without: "clients cannot pause the domain",
    names: &[&[c"qemu_get_cpu"], &[c"async_run_on_cpu"], &[c"cpu_pause"], &[c"cpu_resume"], &[c"runstate_is_running"]],
};

/// Running several vCPUs by turns in one thread, with each seen as itself.
pub const TURNS: Capability = Capability {
    name: "turns in one thread",
    what: "tell apart the vCPUs that one thread runs",
    without: "several vCPUs in one thread (thread=single, -icount) are refused",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"async_run_on_cpu"],
        &[c"current_cpu"],
        &[c"vmstate_cpu_common"],
        &[c"start_exclusive"],
        &[c"end_exclusive"],
        &[c"x86_cpu_do_interrupt"],
        &[c"x86_cpu_exec_interrupt"],
        &[c"qemu_add_vm_change_state_handler"],
    ],
};

/// Running one instruction of a vCPU while no other runs.
pub const ALONE: Capability = Capability {
    name: "one instruction alone",
    what: "run one instruction of a vCPU alone",
    without: "what is let through once (EMULATE) is open to all until that vCPU's block ends, and no data can be swapped for it",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"async_run_on_cpu"],
        &[c"async_safe_run_on_cpu"],
        &[c"cpu_exec_step_atomic"],
        &[c"cpu_is_stopped"],
        &[c"current_cpu"],
        &[c"vmstate_cpu_common"],
    ],
};

/// Setting registers from which QEMU derives more, by its own functions.
pub const SETTING: Capability = Capability {
    name: "setting registers",
    what: "set flags, paging and breakpoints of a vCPU",
    without: "of those it lacks a function for, a register that would change is refused",
    names: &[
        &[c"helper_write_eflags"],
        &[c"cpu_load_efer"],
        &[c"cpu_x86_update_cr0"],
        &[c"cpu_x86_update_cr3"],
        &[c"cpu_x86_update_cr4"],
        &[c"cpu_x86_update_dr7"],
    ],
};

/// Delivering an exception or interrupt to a vCPU that stands.
pub const RAISING: Capability = Capability {
    name: "injecting",
    what: "deliver an exception to a vCPU",
    without: "of what is injected a breakpoint that a vCPU stands before is delivered alone",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"async_run_on_cpu"],
        &[c"vmstate_cpu_common"],
        &[c"vmstate_x86_cpu"],
        &[c"cpu_interrupt"],
    ],
};

/// Hearing of exceptions and interrupts before they are delivered.
pub const DELIVERIES: Capability = Capability {
    name: "deliveries",
    what: "tell of exceptions and interrupts before it delivers them",
    without: "of debug exceptions those by int1 alone are told, and GET_NEXT_INTERRUPT is nothing",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"async_run_on_cpu"],
        &[c"vmstate_cpu_common"],
        &[c"vmstate_x86_cpu"],
        &[c"x86_cpu_do_interrupt"],
        &[c"x86_cpu_exec_interrupt"],
        &[c"x86_cpu_pending_interrupt"],
        &[c"cpu_get_pic_interrupt"],
        &[c"do_interrupt_x86_hardirq"],
        &[c"cpu_reset_interrupt"],
        &[c"cpu_loop_exit"],
        &[c"bql_locked"],
        &[c"bql_lock_impl"],
        &[c"bql_unlock"],
    ],
};

/// Reading the time stamp counter of a vCPU that stands.
pub const TIME: Capability = Capability {
    name: "time stamp counter",
    what: "say what a vCPU's time stamp counter is",
    without: "it is 0 in what is read of a vCPU's registers",
    names: &[&[c"cpu_get_tsc"]],
};

/// Taking the translation callback back.
pub const FORGETTING_TRANSLATIONS: Capability = Capability {
    name: "forgetting translations",
    what: "forget a translation that it gave up",
    without: "once something was trapped blocks are looked at for ever, which costs some hundredths",
    names: &[&[c"tcg_ctx"], &[c"tcg_ctxs"], &[c"tcg_cur_ctxs"]],
};

/// Passing those blocks alone through the translation callback that are checked.
pub const PASSING: Capability = Capability {
    name: "choosing blocks",
    what: "be shown single blocks before they are translated",
    without: "while some frame may not be executed every block is looked at, which costs a tenth; under `gate=mmu` a frame that may be executed and not read is open to all while QEMU reads its code",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"x86_cpu_do_interrupt"],
        &[c"x86_cpu_exec_interrupt"],
        &[c"x86_translate_code"],
        &[c"tcg_ctx"],
    ],
};

/// Translating code for one vCPU alone.
pub const APART: Capability = Capability {
    name: "blocks apart",
    what: "translate code for one vCPU alone",
    without: "while single steps are monitored each instruction of every vCPU is looked at",
    names: &[
        &[c"qemu_get_cpu"],
        &[c"cpu_loop_exit_restore"],
        &[c"async_run_on_cpu"],
        &[c"vmstate_cpu_common"],
        &[c"current_cpu"],
    ],
};

/// All of them, in the order in which they are shown.
pub const ALL: [&Capability; 23] = [
    &LEAVING_CALLBACKS,
    &LEAVING,
    &UNWINDING,
    &FORGETTING,
    &FLUSHING,
    &FORGETTING_TRANSLATIONS,
    &PASSING,
    &APART,
    &DROPPING,
    &FLAGS,
    &COUNTING,
    &FIELDS,
    &IDENTIFICATION,
    &MSRS,
    &KEYS,
    &RESETS,
    &PAUSING,
    &TURNS,
    &ALONE,
    &SETTING,
    &RAISING,
    &DELIVERIES,
    &TIME,
];

impl Capability {
    /// Whether a name is one of those that it takes.
    pub fn rests_on(&self, name: &str) -> bool {
        self.names.iter().flat_map(|names| names.iter()).any(|one| one.to_bytes() == name.as_bytes())
    }

    /// The first name that this QEMU does not export, if there is one.
    pub fn lacks(&self) -> Option<&'static str> {
        let is_missing = |names: &&&[&CStr]| names.iter().all(|name| symbol(name).is_none());
        self.names.iter().find(is_missing).and_then(|names| names.first()?.to_str().ok())
    }

    /// What this QEMU cannot do and which name it lacks for it, in words.
    pub fn lack(&self) -> Option<String> {
        Some(format!("this QEMU cannot {}: it exports no {}", self.what, self.lacks()?))
    }
}

/// Whether this QEMU lets a vCPU do under the host's MMU what it can do where it waits in a callback: leave its block, have all its flags, do
/// one instruction alone.
///
/// # Errors
/// What it cannot.
pub fn of_the_mmu() -> Result<(), String> {
    [UNWINDING, LEAVING, FLUSHING, ALONE].iter().find_map(Capability::lack).map_or(Ok(()), Err)
}

/// As `doctor` reads it, with tabs between: its name, and, where it is not there, the name that is missing and what is so without it.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Capability { name, what, without, .. } = self;
        match self.lacks() {
            None => write!(f, "{name}"),
            Some(lack) => write!(f, "{name}\t{what}: it exports no {lack}\t{without}"),
        }
    }
}

/// Whether the program has a function that came with version 6 of the API; may be asked before anything is installed.
pub(super) fn has_set_pc() -> bool {
    symbol(c"qemu_plugin_set_pc").is_some()
}

/// The address of what QEMU exports under a name.
pub(super) fn symbol(name: &CStr) -> Option<*mut c_void> {
    if source::names_fail() {
        return None;
    }
    // SAFETY: a look-up by name without side effects.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
