//! `pages`: `run --pages`, or `attach --pages`.

use super::arguments::{Attach, ConsumerOptions, Pages, Run};
use super::command;
use crate::refusal::Refusal;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// `pages`
///
/// # Errors
/// As [`command::run`] and [`command::attach`].
pub fn pages(arguments: &Pages) -> anyhow::Result<u8> {
    let Pages { subject, touched, symbols, deadline, vcpus, memory, guest, trace, json } = arguments;
    let consumers = ConsumerOptions {
        symbols: symbols.clone(),
        deadline: deadline.clone(),
        json: *json,
        ..ConsumerOptions::default()
    };
    let (touched, trace, pages) = (touched.clone(), trace.clone(), true);
    let is_socket = std::fs::metadata(subject).is_ok_and(|there| there.file_type().is_socket());
    if !is_socket {
        if guest.is_some() {
            let what =
                format!("{subject} is no socket of a machine that runs, and a guest that is run has its own symbols");
            return Err(Refusal::usage(what, "leave --guest out, or name the plugin's socket").into());
        }
        let (guest, memory) = (subject.clone(), memory.clone());
        return command::run(&Run { guest, vcpus: *vcpus, memory, consumers, trace, pages, touched, ..Run::default() });
    }
    if vcpus.is_some() || memory.is_some() {
        let what = "a machine that runs has its vCPUs and its memory";
        return Err(Refusal::usage(what, "leave --vcpus and --memory out").into());
    }
    let (socket, guest) = (Path::new(subject).to_owned(), guest.clone());
    command::attach(&Attach { socket, guest, trace, pages, touched, consumers, ..Attach::default() })
}
