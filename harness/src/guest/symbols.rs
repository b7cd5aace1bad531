//! Names for addresses, and addresses for names, from a guest's ELF.

use super::linear::Linear;
use crate::refusal::{Refusal, nearest};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::sym::{STT_FILE, STT_SECTION};
use mem_event::Gpa;
use mem_event::trace::{self, Header};
use std::sync::Arc;

/// The symbols of a guest, by guest-physical address.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Sorted by address, then by name.
    list: Vec<Symbol>,
    /// Names by linear address; all copies share what is found out of them.
    linear: Arc<Linear>,
}

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it begins.
    pub gpa: Gpa,
    /// Bytes; 0 where the ELF does not say.
    pub size: u64,
    /// Its name, demangled.
    pub name: String,
}

impl Symbols {
    /// The symbols of an ELF. Addresses are physical: a symbol's address less its segment's, plus where the segment is loaded.
    #[must_use]
    pub fn of(elf: &Elf<'_>) -> Symbols {
        let physical = |address: u64| {
            elf.program_headers.iter().filter(|segment| segment.p_type == PT_LOAD).find_map(|segment| {
                let inside = address.checked_sub(segment.p_vaddr)?;
                (inside < segment.p_memsz).then(|| segment.p_paddr.wrapping_add(inside))
            })
        };
        let list: Vec<Symbol> = elf
            .syms
            .iter()
            .filter(|symbol| symbol.st_shndx != 0 && ![STT_FILE, STT_SECTION].contains(&symbol.st_type()))
            .filter_map(|symbol| {
                let name = elf.strtab.get_at(symbol.st_name).filter(|name| !name.is_empty())?;
                let name = format!("{:#}", rustc_demangle::demangle(name));
                Some(Symbol { gpa: Gpa(physical(symbol.st_value)?), size: symbol.st_size, name })
            })
            .collect();
        Symbols::sorted(list)
    }

    /// The symbols that a trace's header lists.
    #[must_use]
    pub fn of_trace(header: &Header) -> Symbols {
        let symbol = |it: &trace::Symbol| Symbol { gpa: Gpa(it.gpa), size: it.size, name: it.name.clone() };
        Symbols::sorted(header.symbols.iter().map(symbol).collect())
    }

    fn sorted(mut list: Vec<Symbol>) -> Symbols {
        // The larger one first where two begin together; a search from behind then finds the innermost.
        list.sort_by(|a, b| (a.gpa, b.size, &a.name).cmp(&(b.gpa, a.size, &b.name)));
        Symbols { list, linear: Arc::default() }
    }

    /// The same, with what is known of linear addresses.
    #[must_use]
    pub fn with(self, linear: Linear) -> Symbols {
        Symbols { linear: Arc::new(linear), ..self }
    }

    /// What is known of linear addresses.
    #[must_use]
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// All of them, in order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.list.iter()
    }

    /// `NAME` or `NAME+0x10` for an address inside a symbol.
    #[must_use]
    pub fn name(&self, gpa: Gpa) -> Option<String> {
        let end = self.list.partition_point(|symbol| symbol.gpa <= gpa);
        // A label has no size, and is one address.
        let inside = |symbol: &&Symbol| gpa.0 - symbol.gpa.0 < symbol.size.max(1);
        let Some(symbol) = self.list[..end].iter().rev().find(inside) else { return self.linear.name_at(gpa) };
        Some(match gpa.0 - symbol.gpa.0 {
            0 => symbol.name.clone(),
            offset => format!("{}+{offset:#x}", symbol.name),
        })
    }

    /// The symbol that an instruction belongs to: the one around it, else the last one before it in its page, since labels have no size.
    #[must_use]
    pub fn around(&self, gpa: Gpa) -> Option<&str> {
        let before = &self.list[..self.list.partition_point(|symbol| symbol.gpa <= gpa)];
        let inside = |symbol: &&Symbol| gpa.0 - symbol.gpa.0 < symbol.size.max(1);
        let in_page = |symbol: &&Symbol| symbol.gpa.gfn() == gpa.gfn();
        let found = before.iter().rev().find(inside).or_else(|| before.last().filter(in_page));
        found.map(|symbol| symbol.name.as_str())
    }

    /// The symbol with this name, or with this last part of a path (`WATCHED` for `read_write::WATCHED`).
    ///
    /// # Errors
    /// No such symbol; the nearest are named.
    pub fn find(&self, name: &str) -> Result<&Symbol, Refusal> {
        let last = |symbol: &&Symbol| symbol.name.rsplit("::").next() == Some(name);
        if let Some(symbol) =
            self.list.iter().find(|symbol| symbol.name == name).or_else(|| self.list.iter().find(last))
        {
            return Ok(symbol);
        }
        let known = nearest(name, self.list.iter().map(|symbol| symbol.name.as_str()));
        let remedy = match (known.is_empty(), self.list.is_empty()) {
            (_, true) => {
                "this guest has no symbols of its own: write frames (0x100..0x110), addresses (gpa:0x1000-0x1fff), or kernel:NAME for a Linux's".into()
            }
            (true, false) => {
                "write a symbol of the guest, frames (0x100..0x110) or addresses (gpa:0x1000-0x1fff)".into()
            }
            (false, false) => format!("did you mean {}?", known.join(" or ")),
        };
        Err(Refusal::usage(format!("the guest has no symbol {name:?}"), remedy))
    }

    #[cfg(test)]
    pub(crate) fn from_list(list: &[(&str, u64, u64)]) -> Symbols {
        let symbol = |&(name, gpa, size): &(&str, u64, u64)| Symbol { gpa: Gpa(gpa), size, name: name.into() };
        Symbols { list: list.iter().map(symbol).collect(), linear: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::Symbols;
    use mem_event::Gpa;

    #[test]
    fn addresses_are_named_by_the_symbol_around_them() {
        let symbols = Symbols::from_list(&[("main", 0x1000, 0x20), ("WATCHED", 0x2000, 0x1000)]);
        assert_eq!(symbols.name(Gpa(0x2000)).as_deref(), Some("WATCHED"));
        assert_eq!(symbols.name(Gpa(0x2010)).as_deref(), Some("WATCHED+0x10"));
        assert_eq!(symbols.name(Gpa(0x1020)), None);
        assert_eq!(symbols.name(Gpa(0x3000)), None);
    }

    #[test]
    fn an_unknown_symbol_is_refused_with_the_nearest() {
        let symbols = Symbols::from_list(&[("WATCHED", 0x2000, 0x1000)]);
        assert!(symbols.find("WATCHD").unwrap_err().remedy.contains("WATCHED"));
        assert_eq!(symbols.find("WATCHED").unwrap().size, 0x1000);
    }
}
