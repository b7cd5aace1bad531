//! Fields of the CPU state beyond its first part, found where QEMU itself says that they are.
//!
//! QEMU describes in a table what of a vCPU it migrates: `vmstate_x86_cpu`, which it exports. Each row has the name of a field
//! and its distance from the vCPU's start. The table is believed only where the distances that are known already stand in it too. It is
//! read through `/proc/self/mem`, so that a table of another shape is an error and no fault.

use super::{internals, layout};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// All ones, or without bit 20 where A20 is off.
    A20Mask,
    /// XCR0.
    Xcr0,
    /// `IA32_PKRS`.
    Pkrs,
    /// `IA32_BNDCFGS`: where the kernel's bound directory is.
    BoundsOfKernel,
    /// BNDCFGU: where the user's is.
    BoundsOfUser,
    /// More of QEMU's flags: whether paging is nested.
    MoreFlags,
    /// The root of the nested tables.
    NestedRoot,
    /// Their shape, in QEMU's bits.
    NestedShape,
    /// Where `vmrun` keeps its own state meanwhile.
    HostState,
    /// The first of the vector registers.
    Vectors,
    /// `IA32_SYSENTER_CS`.
    SysenterCs,
    /// `IA32_SYSENTER_ESP`.
    SysenterEsp,
    /// `IA32_SYSENTER_EIP`.
    SysenterEip,
    /// STAR.
    Star,
    /// LSTAR.
    Lstar,
    /// DR0, which the other debug registers follow.
    Debug,
    /// EFER.
    Efer,
    /// `MSR_KERNEL_GS_BASE`.
    KernelGs,
    /// CSTAR.
    Cstar,
    /// `IA32_FMASK`.
    Sfmask,
}

/// By [`Field`]: its name there, and its bytes.
const FIELDS: [(&str, usize); 20] = [
    ("env.a20_mask", 4),
    ("env.xcr0", 8),
    ("env.pkrs", 4),
    ("env.msr_bndcfgs", 8),
    ("env.bndcs_regs.cfgu", 8),
    ("env.hflags2", 4),
    ("env.nested_cr3", 8),
    ("env.nested_pg_mode", 4),
    ("env.vm_hsave", 8),
    ("env.xmm_regs", 64),
    ("env.sysenter_cs", 4),
    ("env.sysenter_esp", 8),
    ("env.sysenter_eip", 8),
    ("env.star", 8),
    ("env.lstar", 8),
    ("env.dr", 8),
    ("env.efer", 8),
    ("env.kernelgsbase", 8),
    ("env.cstar", 8),
    ("env.fmask", 8),
];

/// How a row of the table is made: its name comes first.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes from one row to the next.
    row: u64,
    /// Bytes from the row's start to the distance, which the size follows.
    distance: u64,
}

/// From QEMU 3 to 11.0 a hint follows the name; from 11.1 on there is none (include/migration/vmstate.h).
const SHAPES: [Shape; 2] = [Shape { row: 104, distance: 16 }, Shape { row: 96, distance: 8 }];
const MOST_ROWS: u64 = 512;
/// Words of a table's head that are looked at: the rows' address is one of them, and that of the tables below this one is the next.
const HEAD: u64 = 24;
const MOST_TABLES: u64 = 128;
/// No CPU state is longer.
const LONGEST: u64 = 1 << 16;

/// By [`Field`]: bytes from the start of the CPU state.
type Places = [Option<usize>; FIELDS.len()];

static PLACES: OnceLock<Places> = OnceLock::new();

/// Looks for the fields, once, given how many bytes after a vCPU's start its CPU state begins.
pub(super) fn find(state_in_cpu: u64) {
    PLACES.get_or_init(|| places(state_in_cpu).unwrap_or_default());
}

/// Bytes from the start of the CPU state to a field, and its size, 4 or 8 (of the vector registers, that of one); `None` where it is not known.
pub(super) fn place(field: Field) -> Option<(usize, usize)> {
    Some((PLACES.get()?[field as usize]?, FIELDS[field as usize].1))
}

/// How many bytes after a vCPU's start its CPU state begins, by the table alone: its first rows are those of the state's first part.
pub(super) fn state_in_cpu() -> Option<usize> {
    static FOUND: OnceLock<Option<usize>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let memory = Memory::own()?;
        let table = internals::migrated_fields()?;
        let distance = memory.heads(table).find_map(|(_, rows)| {
            let first = memory.rows(rows).next()?.distance;
            memory.is_of_this_state(rows, first).then_some(first)
        })?;
        usize::try_from(distance).ok().filter(|distance| (*distance as u64) < LONGEST)
    })
}

/// How many bytes after a vCPU's start QEMU keeps whether it is halted, and the exception that is to be delivered: its table of what it migrates
/// of any processor begins with the first and one other field, and has the second in a table below.
pub(super) fn halted_and_exception_in_cpu() -> Option<(usize, usize)> {
    const FIRST: [&str; 2] = ["halted", "interrupt_request"];
    let memory = Memory::own()?;
    let table = internals::migrated_of_any_processor()?;
    let is_it = |rows: Rows| memory.rows(rows).map(|row| row.name).take(FIRST.len()).eq(FIRST);
    let (head, rows) = memory.heads(table).find(|(_, rows)| is_it(*rows))?;
    let mut below = memory.rows_below(table, head, rows);
    let exception = below.find(|row| row.name == "exception_index" && row.size == 4 && row.distance < LONGEST)?;
    let halted = memory.rows(rows).next().filter(|row| row.size == 4 && row.distance < LONGEST)?;
    Some((usize::try_from(halted.distance).ok()?, usize::try_from(exception.distance).ok()?))
}

fn places(state_in_cpu: u64) -> Option<Places> {
    let memory = Memory::own()?;
    let table = internals::migrated_fields()?;
    let (head, rows) = memory.heads(table).find(|(_, rows)| memory.is_of_this_state(*rows, state_in_cpu))?;
    let mut places = Places::default();
    for row in memory.rows(rows).chain(memory.rows_below(table, head, rows)) {
        let named = FIELDS.iter().position(|field| (field.0, field.1 as u64) == (row.name.as_str(), row.size));
        if let Some(place) = row.distance.checked_sub(state_in_cpu).filter(|place| *place < LONGEST)
            && let Some(field) = named
        {
            // The first: of vector registers those that came with AVX-512 stand in a table below by the same name.
            places[field] = places[field].or(usize::try_from(place).ok());
        }
    }
    Some(places)
}

/// Rows of a table, if they are some: where the first is, and how they are made.
#[derive(Clone, Copy)]
struct Rows {
    first: u64,
    shape: Shape,
}

struct Row {
    name: String,
    distance: u64,
    size: u64,
}

/// This process's own memory.
pub(super) struct Memory(File);

impl Memory {
    /// As far as the kernel shows it.
    pub fn own() -> Option<Memory> {
        File::open("/proc/self/mem").ok().map(Memory)
    }

    /// A word; `None` where there is no memory.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    fn name(&self, address: u64) -> Option<String> {
        let mut bytes = [0; 32];
        let length = self.0.read_at(&mut bytes, address).ok()?;
        let end = bytes[..length].iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    }

    /// Where in a table's head the address of its rows may be, and what rows these would be.
    fn heads(&self, table: u64) -> impl Iterator<Item = (u64, Rows)> {
        let words = (0..HEAD).map(|word| word * 8);
        let addresses = words.filter_map(move |head| Some((head, self.word(table + head)?)));
        addresses.flat_map(|(head, first)| SHAPES.map(|shape| (head, Rows { first, shape })))
    }

    fn row(&self, address: u64, shape: Shape) -> Option<Row> {
        let [name, distance, size] = [0, shape.distance, shape.distance + 8].map(|at| self.word(address + at));
        // A name that is too long is none of those that are looked for.
        let name = name.filter(|name| *name != 0).map(|name| self.name(name).unwrap_or_default())?;
        Some(Row { name, distance: distance?, size: size? })
    }

    fn rows(&self, Rows { first, shape }: Rows) -> impl Iterator<Item = Row> {
        (0..MOST_ROWS).map_while(move |number| self.row(first + number * shape.row, shape))
    }

    /// The rows of the tables below one, whose own rows are made as these are.
    fn rows_below(&self, table: u64, head: u64, rows: Rows) -> impl Iterator<Item = Row> {
        let below = self.word(table + head + 8).unwrap_or(0);
        let tables =
            (0..MOST_TABLES).map_while(move |number| self.word(below + number * 8).filter(|table| *table != 0));
        let firsts = tables.filter_map(move |table| self.word(table + head));
        firsts.flat_map(move |first| self.rows(Rows { first, ..rows }))
    }

    /// Whether the rows begin with the general registers and the instruction pointer, where these are.
    fn is_of_this_state(&self, rows: Rows, state_in_cpu: u64) -> bool {
        let mut rows = self.rows(rows).map(|row| (row.name, row.distance.checked_sub(state_in_cpu)));
        let (Some((general, Some(0))), Some((pointer, Some(place)))) = (rows.next(), rows.next()) else { return false };
        general == "env.regs" && pointer == "env.eip" && layout::has_instruction_pointer_at(place)
    }
}
