//! A kernel's symbols by linear address.

use super::flat::IMAGE;
use crate::refusal::{Refusal, nearest};
use goblin::elf::Elf;
use goblin::elf::sym::{STB_LOCAL, STT_FILE, STT_SECTION};

/// No function of a module is longer.
const LONGEST: u64 = 1 << 16;

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its address. Symbols of each processor's own data may have their distance from its beginning.
    pub address: u64,
    /// As `nm` shows it: `T` and `t` are code, large letters are global.
    pub kind: char,
    /// The name.
    pub name: Box<str>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In order of their addresses; of one address in their own order.
    list: Vec<Name>,
    /// Those of modules, in the same order, as `NAME [MODULE]`. They lie where the guest has put them.
    modules: Vec<Name>,
    /// The first address of the image and the one behind it, where the names say; asked for each address that is named.
    image: Option<(u64, u64)>,
}

impl Names {
    /// These.
    #[must_use]
    pub fn new(mut list: Vec<Name>) -> Names {
        list.sort_by_key(|name| name.address);
        let mut names = Names { list, modules: Vec::new(), image: None };
        names.image = names.address("_text").map(|text| (text, names.address("_end").unwrap_or(u64::MAX)));
        names
    }

    /// The same, with those of modules.
    #[must_use]
    pub fn with_modules(self, mut modules: Vec<Name>) -> Names {
        modules.sort_by_key(|name| name.address);
        Names { modules, ..self }
    }

    /// Those of an ELF's own table.
    #[must_use]
    pub fn of_elf(elf: &Elf<'_>) -> Names {
        let symbols = elf.syms.iter().filter(|it| it.st_shndx != 0 && ![STT_FILE, STT_SECTION].contains(&it.st_type()));
        let one = |it: goblin::elf::sym::Sym| {
            let name = elf.strtab.get_at(it.st_name).filter(|name| !name.is_empty())?;
            let small = if it.is_function() { 't' } else { 'd' };
            let kind = if it.st_bind() == STB_LOCAL { small } else { small.to_ascii_uppercase() };
            Some(Name { address: it.st_value, kind, name: name.into() })
        };
        Names::new(symbols.filter_map(one).collect())
    }

    /// All of them, in order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.list.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The address with this name: of code before data, of a global before one of a file's own.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<u64> {
        let rank = |it: &&Name| (it.kind.eq_ignore_ascii_case(&'t'), it.kind.is_ascii_uppercase());
        let own = self.list.iter().rev().filter(|it| &*it.name == name).max_by_key(rank);
        let of_module = |it: &&Name| it.name.split_once(" [").is_some_and(|(own, _)| own == name) || &*it.name == name;
        own.or_else(|| self.modules.iter().find(of_module)).map(|it| it.address)
    }

    /// The same, refused with the nearest names.
    ///
    /// # Errors
    /// There is no such symbol.
    pub fn find(&self, name: &str) -> Result<u64, Refusal> {
        self.address(name).ok_or_else(|| {
            let known = nearest(name, self.list.iter().map(|it| &*it.name));
            let remedy = match known.is_empty() {
                true => "take a name of the kernel's /proc/kallsyms".into(),
                false => format!("did you mean kernel:{}?", known.join(" or kernel:")),
            };
            Refusal::usage(format!("the kernel has no symbol {name:?}"), remedy)
        })
    }

    /// Whether a symbol is data, by its kind: no program comes there.
    #[must_use]
    pub fn is_data(&self, name: &str) -> bool {
        let mut kinds = self.iter().filter(|it| &*it.name == name).map(|it| it.kind.to_ascii_lowercase()).peekable();
        kinds.peek().is_some() && kinds.all(|kind| matches!(kind, 'b' | 'd' | 'r' | 'v'))
    }

    /// Where the image begins.
    #[must_use]
    pub fn text(&self) -> Option<u64> {
        self.image.map(|(text, _)| text)
    }

    /// `NAME` or `NAME+0x10` for an address of the image, `NAME+0x10 [MODULE]` for one of a module: by the last symbol that begins there or before it.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let (first, end) = self.image?;
        if !(first..end).contains(&address) || address < IMAGE {
            return of_module(&self.modules, address);
        }
        let after = self.list.partition_point(|it| it.address <= address);
        let start = self.list[..after].last()?.address;
        let at = self.list.partition_point(|it| it.address < start);
        // `nm` sorts aliases by their names, and padding before a function is no name for it.
        let same = &self.list[at..after];
        let name = same.iter().find(|it| it.kind.is_ascii_uppercase() && !it.name.starts_with('_')).or(same.first())?;
        Some(match address - start {
            0 => name.name.to_string(),
            offset => format!("{}+{offset:#x}", name.name),
        })
    }
}

/// The same of a module. Nobody says where the last one of its symbols ends: it is taken to be no longer than [`LONGEST`].
fn of_module(modules: &[Name], address: u64) -> Option<String> {
    let name = modules[..modules.partition_point(|it| it.address <= address)].last()?;
    Some(match address - name.address {
        0 => name.name.to_string(),
        offset if offset < LONGEST => match name.name.split_once(" [") {
            Some((own, module)) => format!("{own}+{offset:#x} [{module}"),
            None => format!("{}+{offset:#x}", name.name),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Name, Names};

    fn names() -> Names {
        let one = |(address, kind, name): (u64, char, &str)| Name { address, kind, name: name.into() };
        let list = [
            (0xffff_ffff_8100_0000, 'T', "_text"),
            (0xffff_ffff_8100_1000, 't', "__do_open"),
            (0xffff_ffff_8100_1000, 'T', "do_open"),
            (0xffff_ffff_8100_2000, 'd', "state"),
            (0xffff_ffff_8100_3000, 't', "state"),
            (0x1_f000, 'A', "current_task"),
            (0xffff_ffff_8200_0000, 'B', "_end"),
        ];
        Names::new(list.map(one).into())
    }

    #[test]
    fn what_has_the_name_of_a_function_too_is_no_data() {
        let names = names();
        let is_data = ["_end", "state", "do_open", "current_task", "nothing"].map(|name| names.is_data(name));
        assert_eq!(is_data, [true, false, false, false, false]);
    }

    #[test]
    fn an_address_of_the_image_has_the_name_before_it() {
        let names = names();
        assert_eq!(names.name(0xffff_ffff_8100_1000).as_deref(), Some("do_open"));
        assert_eq!(names.name(0xffff_ffff_8100_1ffe).as_deref(), Some("do_open+0xffe"));
        for outside in [0, 0x1_f000, 0xffff_ffff_80ff_ffff, 0xffff_ffff_8200_0000] {
            assert_eq!(names.name(outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn of_two_with_one_name_code_is_meant_and_what_is_not_there_is_refused_with_the_nearest() {
        assert_eq!(names().find("state").unwrap(), 0xffff_ffff_8100_3000);
        assert!(names().find("do_opn").unwrap_err().remedy.contains("kernel:do_open"));
    }
}
