//! Who made an event: the address space, the process by the kernel's own words, texts that registers point to.

use crate::guest::symbols::Symbols;
use crate::scenario::looking::{Pointer, REGISTERS};
use mem_event::message::{Call, Reply};
use mem_event::registers::Registers;
use mem_event::{Gla, PAGE_SIZE, VcpuId};
use mem_event_client::Client;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Of a text so many bytes are read.
const LONGEST: usize = 256;
/// What a note of it begins with.
const NOTE: &str = "by ";
/// The processor's privilege level, in the selector of CS.
const LEVEL: u16 = 3;

/// Who.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// CR3.
    pub cr3: String,
    /// The process's number.
    pub pid: Option<u32>,
    /// The thread's name.
    pub process: Option<String>,
    /// The texts, by their registers; none where a text cannot be read.
    pub texts: BTreeMap<String, Option<String>>,
}

impl Who {
    /// Who stands there, by the registers that came with the request, or by those that are asked for. None where these cannot be read now.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn ask(
        client: &mut Client,
        (vcpu, registers): (VcpuId, Option<&Registers>),
        symbols: &Symbols,
        process: bool,
        texts: &[Pointer],
    ) -> anyhow::Result<Option<Who>> {
        let asked = if registers.is_none() { client.registers(vcpu)?.ok() } else { None };
        let Some(registers) = registers.or(asked.as_ref().map(|context| &context.registers)) else { return Ok(None) };
        let mut who = Who { cr3: format!("{:#x}", registers.control[2]), ..Who::default() };
        if process && let Some((pid, name)) = running(client, vcpu, registers, symbols)? {
            (who.pid, who.process) = (Some(pid), Some(name));
        }
        for pointer in texts {
            let text = text(client, vcpu, registers.general[pointer.register])?;
            who.texts.insert(REGISTERS[pointer.register].into(), text);
        }
        Ok(Some(who))
    }

    /// Whether the texts hold what they must.
    #[must_use]
    pub fn holds(&self, texts: &[Pointer]) -> bool {
        texts.iter().all(|pointer| {
            let text = self.texts.get(REGISTERS[pointer.register]).and_then(Option::as_deref);
            pointer.holds.as_ref().is_none_or(|wanted| text.is_some_and(|text| text.contains(wanted)))
        })
    }

    /// As a note in a trace.
    #[must_use]
    pub fn note(&self) -> String {
        format!("{NOTE}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Who a note is about, if it is one of these.
    #[must_use]
    pub fn of_note(note: &str) -> Option<Who> {
        serde_json::from_str(note.strip_prefix(NOTE).filter(|json| json.starts_with('{'))?).ok()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self.process.as_ref().zip(self.pid);
        let process = process.map(|(name, pid)| format!("{} ({pid}), ", name.escape_debug())).unwrap_or_default();
        write!(f, "by {process}cr3 {}", self.cr3)?;
        self.texts.iter().try_for_each(|(register, text)| match text {
            Some(text) => write!(f, ", {register} {text:?}"),
            None => write!(f, ", {register} leads to no text"),
        })
    }
}

fn bytes(client: &mut Client, vcpu: VcpuId, address: u64, len: u16) -> anyhow::Result<Option<Vec<u8>>> {
    let reply = client.call(&Call::ReadLinear { vcpu, cr3: None, address: Gla(address), len })?;
    Ok(if let Reply::Bytes(bytes) = reply { Some(bytes) } else { None })
}

fn number(bytes: Option<Vec<u8>>) -> Option<u64> {
    Some(bytes?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The process that runs on a vCPU, by its number and its thread's name.
fn running(
    client: &mut Client,
    vcpu: VcpuId,
    registers: &Registers,
    symbols: &Symbols,
) -> anyhow::Result<Option<(u32, String)>> {
    let Some((found, task)) = symbols.linear().found().and_then(|found| Some((found, found.kernel.task?))) else {
        return Ok(None);
    };
    let [cs, .., gs] = &registers.segments;
    // In the kernel GS is the kernel's, but for the few instructions around its entry.
    let is_kernels = |base: u64| base >> 63 == 1;
    let gs = if cs.selector & LEVEL == 0 && is_kernels(gs.base) { gs.base } else { registers.shadow_gs };
    let current = gs.wrapping_add(found.address(task.current));
    let Some(current) = number(bytes(client, vcpu, current, 8)?).filter(|it| is_kernels(*it)) else { return Ok(None) };
    let pid = number(bytes(client, vcpu, current.wrapping_add(task.process), 4)?);
    let name = bytes(client, vcpu, current.wrapping_add(task.name), crate::guest::kernel::task::NAME)?;
    let name = name.map(|name| until_nul(&name));
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()).zip(name))
}

fn until_nul(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The text at an address, as far as its pages are there.
fn text(client: &mut Client, vcpu: VcpuId, address: u64) -> anyhow::Result<Option<String>> {
    let mut read = Vec::new();
    while read.len() < LONGEST && !read.contains(&0) {
        let at = address.wrapping_add(read.len() as u64);
        let to_end = PAGE_SIZE - usize::try_from(at & 0xfff).unwrap_or(0);
        let len = u16::try_from(to_end.min(LONGEST - read.len())).unwrap_or(u16::MAX);
        match bytes(client, vcpu, at, len)? {
            Some(more) => read.extend(more),
            None => break,
        }
    }
    Ok((!read.is_empty()).then(|| until_nul(&read)))
}

#[cfg(test)]
mod tests {
    use super::Who;
    use crate::scenario::looking::Pointer;

    #[test]
    fn who_is_read_from_a_note_as_it_was_written_and_is_told_in_words() {
        let texts = [("rsi".to_owned(), Some("/etc/passwd".to_owned())), ("rdi".to_owned(), None)].into();
        let who = Who { cr3: "0x1000".into(), pid: Some(7), process: Some("a \"b\"".into()), texts };
        assert_eq!(Who::of_note(&who.note()), Some(who.clone()));
        assert_eq!(who.to_string(), "by a \\\"b\\\" (7), cr3 0x1000, rdi leads to no text, rsi \"/etc/passwd\"");
        assert_eq!(Who::of_note("by hand"), None);
        let wanted = |text: &str| [text.parse::<Pointer>().unwrap()];
        assert!(who.holds(&wanted("rsi=/etc")) && who.holds(&wanted("rdi")));
        assert!(!who.holds(&wanted("rsi=/bin")) && !who.holds(&wanted("rdi=/etc")));
    }
}
