//! Where things lie in what the tools hand over: Xen's public headers as tables. A structure is a file, named by its noun.
//!
//! | file | structure |
//! |---|---|
//! | [`record`] | a structure of the tool's memory, read once |
//! | [`fact`] | what the tables say, to be held against the headers |
//! | [`hypercall`], [`multicall`] | which call it is |
//! | [`domctl`], [`domain_info`], [`sysctl`] | the toolstack's calls |
//! | [`reservation`], [`access`], [`paging`], [`sharing`] | `memory_op` |
//! | [`hvm_param`], [`altp2m`], [`dm_op`] | calls of a guest with hardware support |
//! | [`save_descriptor`], [`save_header`], [`hvm_cpu`] | a domain's saved context |
//! | [`privcmd`], [`evtchn`] | the requests of the two devices |
//! | [`vm_event`] | a ring's slot, as far as it is looked into |
//!
//! The names, numbers and offsets are those of Xen's public headers, which come with this notice:
//!
//! > Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
//! > (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
//! > publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do
//! > so, subject to the following conditions: The above copyright notice and this permission notice shall be included in all copies or
//! > substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
//! > BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
//! > AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
//! > OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
//! >
//! > Copyright (c) 2002-2009, K A Fraser; (c) 2009 Citrix Systems, Inc.; (c) 2011 GridCentric Inc.; (c) 2016, Citrix Systems Inc

/// Makes a structure's constants: `FIELD: type = offset, "member in C";`, and the facts about them.
macro_rules! structure {
    ($c:literal, $bytes:literal bytes; $($field:ident: $type:ty = $offset:literal, $member:literal;)*) => {
        /// Bytes of it.
        pub const BYTES: usize = $bytes;
        $(
            #[doc = concat!("`", $member, "`.")]
            pub const $field: $crate::layout::record::Field<$type> = $crate::layout::record::Field::at($offset);
        )*
        /// What this says, to be held against the headers.
        pub const FACTS: &[$crate::layout::fact::Fact] = &[
            $crate::layout::fact::Fact::Size { structure: $c, bytes: $bytes },
            $($crate::layout::fact::Fact::Member {
                structure: $c,
                member: $member,
                offset: $offset,
                bytes: size_of::<$type>(),
            },)*
        ];
    };
}

/// Makes constants: `NAME: type = value, "name in C";`, and the facts about them.
macro_rules! constants {
    ($($name:ident: $type:ty = $value:literal, $c:literal;)*) => {
        $(
            #[doc = concat!("`", $c, "`.")]
            pub const $name: $type = $value;
        )*
        /// What the numbers are, to be held against the headers.
        pub const NUMBERS: &[$crate::layout::fact::Fact] =
            &[$($crate::layout::fact::Fact::Number { name: $c, value: $value },)*];
    };
}

pub mod access;
pub mod altp2m;
pub mod dm_op;
pub mod domain_info;
pub mod domctl;
pub mod evtchn;
pub mod fact;
pub mod hvm_cpu;
pub mod hvm_param;
pub mod hypercall;
pub mod multicall;
pub mod paging;
pub mod privcmd;
pub mod record;
pub mod reservation;
pub mod save_descriptor;
pub mod save_header;
pub mod sharing;
pub mod sysctl;
pub mod vm_event;

/// Every fact of every table.
pub fn facts() -> impl Iterator<Item = &'static fact::Fact> {
    let structures = [
        access::FACTS,
        altp2m::FACTS,
        dm_op::FACTS,
        domain_info::FACTS,
        domctl::FACTS,
        hvm_param::FACTS,
        multicall::FACTS,
        paging::FACTS,
        privcmd::batch::FACTS,
        privcmd::buffers::FACTS,
        privcmd::call::FACTS,
        reservation::FACTS,
        save_descriptor::FACTS,
        save_header::FACTS,
        hvm_cpu::FACTS,
        sharing::FACTS,
        sysctl::FACTS,
        vm_event::FACTS,
        evtchn::bind::FACTS,
    ];
    let numbers = [
        access::NUMBERS,
        altp2m::NUMBERS,
        dm_op::NUMBERS,
        domain_info::NUMBERS,
        domctl::NUMBERS,
        evtchn::NUMBERS,
        hvm_cpu::NUMBERS,
        hvm_param::NUMBERS,
        hypercall::NUMBERS,
        paging::NUMBERS,
        privcmd::NUMBERS,
        reservation::NUMBERS,
        save_descriptor::NUMBERS,
        save_header::NUMBERS,
        sharing::NUMBERS,
        sysctl::NUMBERS,
        vm_event::NUMBERS,
    ];
    structures.into_iter().chain(numbers).flatten()
}
