//! A block that QEMU translates, and what is to be called before its instructions.

use crate::insn::block_start::BlockStart;
use crate::insn::cache::Part;
use crate::insn::quick::{QuickRecipe, Shape};
use crate::insn::recipe::Recipe;
use crate::insn::stop_point::StopPoint;
use crate::insn::subject::Subject;
use crate::qemu::{api, passing, unfinished};
use qemu_plugin_sys as sys;
use std::ffi::{c_uint, c_void};

/// A callback with data, as QEMU's generated code calls it.
pub type Hook = unsafe extern "C" fn(c_uint, *mut c_void);

/// What generated code calls. Written where the plugin is entered: nothing down here knows the functions.
#[derive(Debug)]
pub struct Hooks {
    /// Before an instruction that touches memory; the data is its recipe.
    pub before_access: Hook,
    /// The same after a check in place, by the operand's shape and the part of the page cache; the data is a quick recipe.
    pub before_quick: fn(Shape, Part) -> Hook,
    /// Before the first instruction of a block whose fetch is checked; the data is the block's start.
    pub start: Hook,
    /// Before every instruction, while steps are wanted; the data is the recipe of its fetch.
    pub step: Hook,
    /// Before an instruction at which vCPUs stop; the data is a stop point.
    pub stop: Hook,
    /// Before every instruction, while predictions are verified; the data is its subject.
    pub predict: Hook,
    /// After each of its accesses, with the same data.
    pub memory: sys::qemu_plugin_vcpu_mem_cb_t,
    /// At the start of a block, while the direct view is not proven yet.
    pub check_view: Hook,
}

/// A block that QEMU is translating, valid during the translation callback.
#[derive(Debug)]
pub struct Block {
    block: *mut sys::qemu_plugin_tb,
    hooks: &'static Hooks,
}

/// One instruction of a [`Block`].
#[derive(Debug)]
pub struct Instruction<'a> {
    instruction: *mut sys::qemu_plugin_insn,
    block: &'a Block,
}

impl Block {
    /// The block of a translation callback, whose instructions get these hooks.
    ///
    /// # Safety
    /// QEMU handed it to a translation callback, which has not returned yet.
    pub unsafe fn new(block: *mut sys::qemu_plugin_tb, hooks: &'static Hooks) -> Block {
        Block { block, hooks }
    }

    /// The block's instructions in order.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction<'_>> {
        // SAFETY: the block is valid while `self` lives, and so are the instructions below its count.
        let count = unsafe { sys::qemu_plugin_tb_n_insns(self.block) };
        (0..count).map(|index| {
            // SAFETY: as above; the index is below the count.
            let instruction = unsafe { sys::qemu_plugin_tb_get_insn(self.block, index) };
            Instruction { instruction, block: self }
        })
    }

    /// Has it looked where QEMU keeps what it is about to translate.
    pub fn find_unfinished(&self) {
        if !unfinished::is_found()
            && let Some(last) = self.instructions().last()
        {
            unfinished::find(self.block.cast(), last.instruction.cast());
        }
    }

    /// Has the direct view checked against the API whenever the block begins.
    pub fn check_view_at_start(&self) {
        // SAFETY: the block is valid; the hook has the callback's signature and keeps its calling convention.
        unsafe {
            sys::qemu_plugin_register_vcpu_tb_exec_cb(
                self.block,
                Some(self.hooks.check_view),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS,
                std::ptr::null_mut(),
            );
        }
    }
}

impl Instruction<'_> {
    /// The instruction's bytes.
    pub fn bytes<'b>(&self, buffer: &'b mut [u8; 16]) -> &'b [u8] {
        // SAFETY: the instruction is valid and the buffer has the length that is passed.
        let length = unsafe { sys::qemu_plugin_insn_data(self.instruction, buffer.as_mut_ptr().cast(), buffer.len()) };
        &buffer[..length.min(16)]
    }

    /// Where its first byte is in this process, as QEMU has it; 0 for what is no memory.
    pub fn host_address(&self) -> u64 {
        // SAFETY: the instruction is valid.
        let read = unsafe { sys::qemu_plugin_insn_haddr(self.instruction) as u64 };
        passing::place_of(read)
    }

    /// The linear address at translation; right in its low 12 bits only (blocks are position independent).
    pub fn address(&self) -> u64 {
        // SAFETY: the instruction is valid.
        unsafe { sys::qemu_plugin_insn_vaddr(self.instruction) }
    }

    /// Before each execution, the access hook is called with this recipe, which must live until the next flush.
    pub fn call_before(&self, recipe: &'static Recipe) {
        self.register(self.block.hooks.before_access, std::ptr::from_ref(recipe).cast_mut().cast());
    }

    /// The same for a recipe that has a quick form, after a check of its shape in place.
    pub fn call_before_quick(&self, recipe: &'static QuickRecipe, shape: Shape, part: Part) {
        self.register((self.block.hooks.before_quick)(shape, part), std::ptr::from_ref(recipe).cast_mut().cast());
    }

    /// Before each execution, the hook of a block's start is called with this, which must live until the next flush.
    pub fn call_start(&self, start: &'static BlockStart) {
        self.register(self.block.hooks.start, std::ptr::from_ref(start).cast_mut().cast());
    }

    /// Before each execution, the step hook is called with this recipe of the instruction's fetch.
    pub fn call_step(&self, fetch: &'static Recipe) {
        self.register(self.block.hooks.step, std::ptr::from_ref(fetch).cast_mut().cast());
    }

    /// Before each execution its accesses are predicted, and each that QEMU then reports is compared.
    pub fn verify(&self, subject: &'static Subject) {
        let data = std::ptr::from_ref(subject).cast_mut().cast();
        self.register(self.block.hooks.predict, data);
        // SAFETY: the instruction is valid, the function has the callback's signature, the subject lives until the next flush.
        unsafe {
            sys::qemu_plugin_register_vcpu_mem_cb(
                self.instruction,
                self.block.hooks.memory,
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS,
                sys::qemu_plugin_mem_rw::QEMU_PLUGIN_MEM_RW,
                data,
            );
        }
    }

    /// Before each execution, without a call, this recipe is noted as the vCPU's current one.
    pub fn note(&self, recipe: &'static Recipe) {
        // SAFETY: the instruction is valid; the scoreboard lives for ever.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                self.instruction,
                sys::qemu_plugin_op::QEMU_PLUGIN_INLINE_STORE_U64,
                api::noted(),
                std::ptr::from_ref(recipe) as u64,
            );
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        // SAFETY: the instruction is valid.
        unsafe { sys::qemu_plugin_insn_size(self.instruction) }
    }

    /// Before each execution, the vCPU stops and says so.
    pub fn call_stop(&self, stop: &'static StopPoint) {
        self.register(self.block.hooks.stop, std::ptr::from_ref(stop).cast_mut().cast());
    }

    fn register(&self, hook: Hook, data: *mut c_void) {
        // SAFETY: the instruction is valid; the hooks have the callback's signature. R_REGS makes QEMU store its registers
        // into the CPU state before the call, which the direct view relies on.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_cb(
                self.instruction,
                Some(hook),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS,
                data,
            );
        }
    }
}
