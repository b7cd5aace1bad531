//! Symbols as text: `ffffffff81000000 T _text`, as in System.map and /proc/kallsyms.

use super::names::{Name, Names};

/// Reads a listing. Symbols of modules end with `[module]`.
///
/// # Errors
/// It is none, or none of use; the rest of a sentence that begins with the file's name.
pub fn read(text: &str) -> Result<Names, String> {
    let (mut list, mut modules) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        if line.contains("The real System.map is in ") {
            return Err(
                "is Debian's stub of one line, and not the kernel's System.map: name the kernel's bzImage, which holds its own table".into(),
            );
        }
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
        let kind = words.next().filter(|word| word.len() == 1).and_then(|word| word.chars().next());
        let (Some(address), Some(kind), Some(name)) = (address, kind, words.next()) else {
            return Err(format!("is no list of symbols: its line {number} is none"));
        };
        match words.next() {
            None => list.push(Name { address, kind, name: name.into() }),
            Some(module) => modules.push(Name { address, kind, name: format!("{name} {module}").into() }),
        }
    }
    if list.is_empty() {
        return Err("lists no symbols".into());
    }
    if list.iter().all(|name| name.address == 0) {
        return Err("lists addresses of zeros alone, as /proc/kallsyms does to users other than root".into());
    }
    Ok(Names::new(list).with_modules(modules))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_listing_is_read_and_its_modules_are_apart() {
        let text = "ffffffff81000000 T _text\nffffffff81000010 t helper\nffffffff82000000 B _end\n\
                    ffffffffc0000100 t probe\t[virtio]\nffffffffc0000000 t init\t[virtio]\n";
        let names = read(text).unwrap();
        let name = |address| names.name(address);
        assert_eq!(name(0xffff_ffff_c000_0010).as_deref(), Some("init+0x10 [virtio]"));
        assert_eq!(name(0xffff_ffff_c000_0100).as_deref(), Some("probe [virtio]"));
        assert_eq!((name(0xffff_ffff_c001_0100), name(0xffff_ffff_bfff_ffff)), (None, None), "too far behind, before");
        assert_eq!(names.address("probe"), Some(0xffff_ffff_c000_0100));
        assert_eq!(
            names.iter().map(|it| (&*it.name, it.kind)).collect::<Vec<_>>(),
            [("_text", 'T'), ("helper", 't'), ("_end", 'B')]
        );
    }

    #[test]
    fn what_is_no_listing_is_refused_with_the_reason() {
        let refusal = |text| read(text).unwrap_err();
        assert!(
            refusal("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n")
                .contains("Debian's stub of one line")
        );
        assert!(refusal("0000000000000000 T _text\n").contains("zeros alone"));
        assert!(refusal("ffffffff81000000 T _text\nhello\n").contains("line 2"));
        assert!(refusal("").contains("no symbols"));
    }
}
